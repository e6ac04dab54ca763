"""The charts of a benchmark show what was measured, and nothing lies over anything else."""

from __future__ import annotations

import pytest
from matplotlib.text import Text

from minires import viz


def part(seconds):
    return {"median": seconds, "quartiles": [seconds, seconds], "seconds": [seconds], "ratio": None}


def op(title, **seconds):
    rows = [{"name": name, "forward": part(time), "backward": part(time)} for name, time in seconds.items()]
    return {"title": title, "rows": [*rows, {"name": "Chainer", "error": "differs"}, {"name": "MyGrad", "lacking": True}]}


OPS = [op("convolution", minires=1, PyTorch=2, DeZero=10), op("pooling", minires=1), op("loss", minires=3, tinygrad=1)]
FOUND = {
    "ops": {"cases": OPS},
    "steps": [{"title": "a network", "rows": [{"name": "minires", "ratio": None}, {"name": "torch, NCHW", "ratio": 0.8}]}],
    "inference": [{"title": "a network, inference", "rows": [{"name": "minires", "ratio": None}]}],
}  # fmt: skip


def test_bars_are_ratios(tmp_path):
    figure = viz.bench(FOUND, tmp_path / "chart.png")
    (axes,) = figure.axes
    bars = [bar.get_width() + bar.get_x() for bar in axes.patches if bar.get_x() == 1]
    assert bars == [pytest.approx(0.5), pytest.approx(0.8)]
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("", "None")]
    assert marks == [pytest.approx(0.1), pytest.approx(3)]
    words = [text.get_text() for text in axes.texts]
    assert "pooling" not in words  # nobody else has it
    assert "inference" not in words
    assert (tmp_path / "chart.png").stat().st_size > 1000
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(0 <= box.x0 and box.x1 <= figure.bbox.width for box in boxes)


def test_the_lines_of_scaling():
    points = [{"x": x, "median": 2.0 + x, "quartiles": [1.9 + x, 2.2 + x], "fitted": 2.0 + x} for x in (1, 2, 4)]
    sweep = {"title": "by batch", "what": "images", "points": points, "offset": 2.0, "slope": 1.0, "deviation": 0.034}
    left, right = viz.scaling([sweep, sweep | {"what": "m"}]).axes
    assert left.texts[0].get_text() == "seconds a step; within 3.4 % of a line"
    assert left.lines[0].get_ydata()[0] == 2.0
    assert right.get_xlabel() == "attention modules a stage, m"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.bench({"steps": FOUND["inference"]})
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.scaling([])
