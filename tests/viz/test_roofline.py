"""The roofline: every kernel has its name, nothing is written over anything else."""

from __future__ import annotations

import pytest
from matplotlib.text import Text

from minires import viz
from minires.viz.roofline import Kernel

PEAKS = {"tensor cores": 500e12, "float32": 67e12}


def crowd(seconds=None):
    names = ("measure", "normalize", "add_up", "spread", "gate", "gate_backward", "max_pool", "scatter", "taps", "sgd")
    some = [Kernel(name, "streaming", 10, 1e9, 3e8 + 4e7 * i, "float32", seconds) for i, name in enumerate(names)]
    gemm = Kernel("gemm", "products", 200, 4e9, 6e10, "tensor cores", seconds)
    return [*some, gemm, Kernel("copy", "copies", 9, 5e8, 0, "float32")]


def test_names_do_not_overlap():
    figure = viz.roofline(crowd(), 4.8e12, PEAKS)
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [(each.get_text(), Text.get_window_extent(each)) for each in axes.texts if each.get_rotation() == 0]
        for i, (first, box) in enumerate(boxes):
            for second, other in boxes[:i]:
                assert not box.overlaps(other), f"{first} lies over {second}"


def test_what_computes_nothing_has_a_bar_only():
    roof, bars = viz.roofline(crowd(), 4.8e12, PEAKS).axes
    assert "copy" not in [each.get_text() for each in roof.texts]
    assert "copy, 9 ×" in [each.get_text() for each in bars.texts]


def test_without_times_a_kernel_stands_on_the_roof():
    roof = viz.roofline([Kernel("gemm", "products", 1, 1e9, 1e9, "float32")], 4.8e12, PEAKS).axes[0]
    assert roof.collections[0].get_offsets()[0].tolist() == pytest.approx([1, 4.8e12])
    roof = viz.roofline([Kernel("gemm", "products", 1, 1e9, 1e9, "float32", 1e-3)], 4.8e12, PEAKS).axes[0]
    assert roof.collections[0].get_offsets()[0].tolist() == pytest.approx([1, 1e12])


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.roofline([], 1, PEAKS)
