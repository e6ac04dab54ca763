"""Lines through step times, inference, and the part of the machine's ceilings that a step reaches."""

from __future__ import annotations

import numpy as np
import pytest

from minires import models
from minires.bench import groups, networks, scaling
from minires.bench.networks import Network
from minires.bench.ours import CpuInference
from minires.bench.rounds import Budget, Plan, Side

TINY = Network("tiny", "tiny", lambda: models.small_attention(3, widths=(8,), depths=(1,)), 2, (1, 16, 16), 3)


class Linear(Side):
    """Takes 2 + 3x seconds, and one x too long."""

    def __init__(self, network, precision):
        self._x = network.batch_size

    def losses(self, count):
        return [1.0] * count

    def time(self, steps):
        return steps * (2 + 3 * self._x) * (1.1 if self._x == 4 else 1.0)


def test_the_line_is_found():
    offset, slope, deviation = scaling.fit([1, 2, 3], [5, 8, 11])
    assert (offset, slope) == (pytest.approx(2), pytest.approx(3))
    assert deviation == pytest.approx(0, abs=1e-12)
    *_, deviation = scaling.fit([1, 2, 3, 4], [1, 2, 3, 8])
    assert deviation > 0.2


def test_a_sweep():
    points = {size: Network(str(size), "", lambda: None, size, (1, 1, 1), 2) for size in (1, 2, 4, 8)}
    sweep = scaling.Sweep("batch", "by batch", "images", points)
    found = scaling.measure(sweep, networks.precisions("cpu")[0], Plan(1, 1, 3), Budget(1e6), Linear)
    assert [point["median"] for point in found["points"]] == pytest.approx([5, 8, 15.4, 26])
    assert 0.02 < found["deviation"] < 0.1
    assert found["rounds"] == 3


def test_the_usual_sweeps():
    batch, depth = scaling.sweeps()
    assert (min(batch.points), max(batch.points)) == (16, 256)
    assert list(depth.points) == [1, 2, 3, 4, 5, 6]
    assert all(network.batch_size == size for size, network in batch.points.items())


def test_inference_changes_nothing():
    side = CpuInference(TINY)
    first = side.outputs()
    assert side.time(4) > 0
    np.testing.assert_array_equal(side.outputs(), first)
    assert first.shape == (2, 3)


def test_outputs_that_differ_are_not_timed():
    assert groups.outputs_agree({"a": np.ones(3), "b": np.full(3, 1.0005)}, 1e-3) == ""
    assert "outputs of b and of a differ by 1.0e-01" in groups.outputs_agree({"a": np.ones(3), "b": np.full(3, 1.1)}, 1e-3)


def test_work_is_counted():
    trained, looked = groups.count_work(TINY, train=True), groups.count_work(TINY, train=False)
    assert 2 < trained[0] / looked[0] < 4
    assert trained[1] > looked[1] > 0
    found = {"rows": [{"name": "minires", "median": 0.5}, {"name": "torch", "median": 0.25}, {"name": "broken"}]}
    groups.add_limits(found, (100, 200), {"products": {"fp32": 1000.0}, "copy": 4000.0})
    assert [row.get("of_product") for row in found["rows"]] == [0.2, 0.4, None]
    assert [row.get("of_copy") for row in found["rows"]] == [0.1, None, None]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_inference_agrees_with_pytorch(layout):
    pytest.importorskip("torch")
    from minires.bench.torch_side import TorchInference

    outputs = {"ours": CpuInference(TINY).outputs(), "torch": TorchInference(TINY, layout).outputs()}
    assert groups.outputs_agree(outputs, 1e-4) == ""
