"""The benchmark on the stand-in: the whole protocol with a clock of its own, and the formulas of what kernels move."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minires as mr
from minires import models
from minires.bench import command, costs, kernels, networks, record
from minires.bench.networks import Network
from minires.bench.rounds import Budget, Plan
from minires.kernels import cuda
from minires.kernels.cuda import blas, build
from minires.training.graph import GraphStep
from tests.cuda import capture_trial, shim, stock, write_docs

needs_shim = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))


def tiny():
    return models.small_attention(3, widths=(16,), depths=(1,), stem=8, min_size=8)


TINY = Network("tiny", "tiny, batch 2", tiny, 2, (1, 9, 9), 3)


def stock_of(work):
    with record.taking_stock() as found:
        work()
    return found.entries


# ------------------------------------------------------------------------------------------------- what is launched


@needs_shim
def test_launches_that_differ_only_in_addresses_are_one(standin):
    f, z, g = (standin.asarray(np.full((2, 3, 4, n), 0.5, np.float32)) for n in (4, 4, 8))

    def work():
        cuda.gated_residual(f, z)
        cuda.gated_residual(z, f)
        cuda.gated_residual(g, g)

    entries = stock_of(work)
    assert [(each.name, each.count) for each in entries] == [("gate.gate", 2), ("gate.gate", 1)]
    assert entries[0].dtype == "float32"
    assert entries[0].what == "2×3×4×4"
    assert build.observers == []
    assert blas.observers == []


@needs_shim
def test_a_launch_can_be_made_again_on_other_memory(standin):
    f, z = standin.asarray(np.ones(8, np.float32)), standin.asarray(np.zeros(8, np.float32))
    (entry,) = stock_of(lambda: cuda.gated_residual(f, z))
    first, second = entry.rotation(standin)[:2]
    assert first is entry.arrays
    assert all(a is not b and a.shape == b.shape for a, b in zip(first, second, strict=True))
    second[0][...] = 2
    entry.start(second)
    np.testing.assert_array_equal(second[2].get(), 3)
    np.testing.assert_array_equal(first[2].get(), 1.5)


def test_a_product_can_be_made_again(standin):
    a, b = standin.asarray(np.ones((2, 3), np.float32)), standin.asarray(np.ones((5, 3), np.float32))
    (entry,) = stock_of(lambda: cuda.matmul(a, b.T))
    assert (entry.name, entry.what, entry.cost) == ("gemm", "2×3×5 NT", costs.Cost(4 * (6 + 15 + 10), 2 * 2 * 3 * 5))
    copies = entry.rotation(standin)[1]
    entry.start(copies)
    np.testing.assert_array_equal(copies[2].get(), np.full((2, 5), 3))


# ------------------------------------------------------------------------------------------------- what it costs


def kernel_names() -> set[str]:
    """All kernels of all sources, without those that are made for one case of another."""
    names = set()
    for path in (Path(build.__file__).parent / "src").glob("*.cu"):
        text = re.sub(r"\\\n", " ", path.read_text())
        macros = dict(re.findall(r"#define (FOR_\w+)\([^)]*\) +(.*)", text))
        for source in [text, *macros.values()]:
            found = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)', source)
            names |= {costs.family(f"{path.stem}.{name}") for name in found}
    return names


def test_every_kernel_has_a_formula():
    assert kernel_names() == set(costs._OPERATIONS)
    assert set(costs._SPECIAL_BYTES) <= set(costs._OPERATIONS)


@pytest.mark.parametrize(
    ("name", "family"),
    [("pool.max_pool_3x3_stride_2", "pool.max_pool"), ("pool.max_pool_scatter_wide", "pool.max_pool_scatter"),
     ("resize.resample_taps_8", "resize.resample_taps"), ("norm.measure", "norm.measure")],
)  # fmt: skip
def test_variants_of_a_kernel_are_one_family(name, family):
    assert costs.family(name) == family


@needs_shim
def test_bytes_and_operations_of_known_kernels(standin):
    x = mr.tensor(np.ones((2, 8, 6, 6), np.float32), device="cuda", requires_grad=True)
    weight = mr.tensor(np.ones((16, 8, 3, 3), np.float32), device="cuda", requires_grad=True)

    def work():
        with networks.precisions("cuda")[0].chosen():  # tensor cores
            mr.functional.conv2d(x, weight, padding=1).sum().backward()

    found = {each.name: each.cost for each in stock_of(work)}
    products = 2 * 2 * 36 * 9 * 8 * 16  # 2 operations, 2 images of 36 pixels, 9·8 terms, 16 outputs
    image, result, kernel = 4 * 2 * 36 * 8, 4 * 2 * 36 * 16, 4 * 9 * 8 * 16
    assert found["conv_mma.conv_weight"].flops == products
    assert found["conv_mma.conv_windows"] == (image + result + kernel, products)
    x = mr.tensor(np.ones((2, 8, 7, 7), np.float32), device="cuda", requires_grad=True)
    found = {costs.family(each.name): each.cost for each in stock_of(lambda: mr.functional.max_pool2d(x, 3, 2))}
    assert found["pool.max_pool"] == (4 * 2 * 49 * 8 + 5 * 2 * 9 * 8, 2 * 9 * 8 * 9)


@needs_shim
def test_bytes_of_the_optimiser(standin):
    weight = mr.tensor(np.ones(3000, np.float32), device="cuda", requires_grad=True)
    optimiser = mr.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = mr.tensor(np.ones(3000, np.float32), device="cuda")
    found = {each.name: each.cost for each in stock_of(optimiser.step)}
    assert found["optim.sgd"] == (5 * 4 * 3000, 9 * 3000)


def test_a_step_is_counted_without_computing_it():
    rows = {row.name: row for row in kernels.per_kernel(stock.count_step(TINY, networks.precisions("cuda")[0]))}
    model = TINY.build()
    units = sum(type(module).__name__ == "BatchNormReLU" for module in model.modules())
    assert rows["norm.measure"].count == rows["norm.spread"].count == units
    assert rows["gate.gate"].count == rows["gate.gate_backward"].count == 1
    assert rows["optim.sgd"].bytes == 5 * 4 * sum(parameter.data.size for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------- the whole of it


class Clock:
    """Steps take 2 ms, replays of a graph 1 ms, everything else no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
        self.now = 0.0
        step, clock = GraphStep.__call__, self

        class Event:
            def record(self, stream=None):
                self.at = clock.now

            def synchronize(self): ...

        def timed(self, *batch):
            before = self.replays
            step(self, *batch)
            clock.now += 1.0 if self.replays > before else 2.0

        monkeypatch.setattr(GraphStep, "__call__", timed)
        monkeypatch.setattr(module.cuda, "Event", Event)
        monkeypatch.setattr(module.cuda, "get_elapsed_time", lambda start, end: end.at - start.at or 0.001)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little of everything that the shim can do it."""
    monkeypatch.setattr(command, "_CUDA_SIZES", (1 << 12, 16, 2, 2))
    for name, value in {"_LAUNCHES": 2, "_ROUNDS": 1}.items():
        monkeypatch.setattr(kernels, name, value)
    monkeypatch.setattr(record, "_MOST_COPIES", 2)
    kinds = networks.precisions("cuda")[:1]
    monkeypatch.setattr(networks, "precisions", lambda kind: kinds)


@needs_shim
def test_the_whole_protocol(standin, small, monkeypatch, capsys, tmp_path):
    clock = Clock(monkeypatch, standin)
    bench = command.Bench("cuda", "cuda", Plan(warm_up=1, steps=2, rounds=2, losses=4), Budget(1e6))
    bench._has_torch = False
    bench.measure([TINY])
    found = json.loads(command.report.as_json(bench.found))
    (group,) = found["steps"]
    assert [(row["name"], row["median"]) for row in group["rows"]] == [
        ("minires, CUDA graph", pytest.approx(1e-3)), ("minires, step by step", pytest.approx(2e-3))
    ]  # fmt: skip
    assert group["rows"][1]["ratio"] == pytest.approx(0.5)
    assert group["rounds"] == 2
    losses = list(group["losses"].values())
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][3]
    table = {row["name"]: row for row in found["kernels"]["tiny"]["kernels"]}
    assert {"gemm", "norm.measure", "gate.gate", "optim.sgd", "loss.cross_entropy"} <= set(table)
    assert all(row["seconds"] is not None for row in table.values()), [row["note"] for row in table.values()]
    assert found["ceilings"]["copy"] > 0
    assert found["machine"]["cuda:0"].startswith("Stand-in")
    text = capsys.readouterr().out
    for expected in ("Ceilings", "Kernels of a step: tiny", "minires, CUDA graph", "ms a step", "of copy"):
        assert expected in text
    assert clock.now > 0


@needs_shim
def test_time_that_is_over_is_written_into_the_kernel_table(standin, small):
    f = standin.asarray(np.ones(8, np.float32))
    rows = kernels.measure(stock_of(lambda: cuda.gated_residual(f, f)), standin, Budget(0))
    assert [(row.seconds, row.note) for row in rows] == [(None, "not measured: the time was over")]


def test_one_side_that_fails_does_not_cost_the_others(monkeypatch):
    bench = command.Bench("cpu", "cpu", Plan(0, 1, 1, 1, 1), Budget(1e6))

    def broken():
        raise MemoryError("no memory is left")

    strict = networks.precisions("cpu")[0]
    monkeypatch.setattr(bench, "_makers", lambda *_: [("minires", lambda: command.CpuSide(TINY, strict)), ("torch", broken)])
    group = bench._measure_group(TINY, networks.precisions("cpu")[0], 1)
    assert group["error"] == ""
    assert group["rows"][1] == {"name": "torch", "note": "no memory is left"}


def test_different_losses_are_not_timed(monkeypatch):
    bench = command.Bench("cpu", "cpu", Plan(0, 1, 1, 1, 1), Budget(1e6))
    numbers = itertools.count(1)

    def side():
        made, number = command.CpuSide(TINY, networks.precisions("cpu")[0]), next(numbers)
        made.name, made.losses = f"side {number}", lambda count: [float(number)] * count
        return made

    monkeypatch.setattr(bench, "_makers", lambda *rest: [("a", side), ("b", side)])
    group = bench._measure_group(TINY, networks.precisions("cpu")[0], 1)
    assert "differ" in group["error"]
    assert group["rows"] == []


# ------------------------------------------------------------------------------------------------- what stands beside it


@needs_shim
@pytest.mark.parametrize("precision", capture_trial.PRECISIONS)
def test_the_trial_of_capturing_cublas(standin, precision):
    try:
        verdicts = [capture_trial.trial(standin, precision, shapes) for shapes in [((6, 5), (5, 7)), ((2, 3, 4), (2, 4, 5))]]
    finally:
        mr.set_float32_matmul_precision("highest")
    assert all(verdict.startswith("captured") for verdict in verdicts)


def test_what_the_docs_show_is_made_of_all_launches():
    sizes = stock.count_step(TINY, networks.precisions("cuda")[0])
    shown = write_docs.kernels_of(sizes)
    assert sum(kernel.count for kernel in shown) == sum(row.count for row in sizes)
    assert sum(kernel.bytes for kernel in shown) == pytest.approx(sum(row.count * row.bytes for row in sizes), rel=1e-3)
    page = "".join(f"<!-- counted: {name} -->\nold\n<!-- end -->\n" for name in write_docs.pages(sizes))
    assert "old" not in write_docs.filled(page, sizes)


@pytest.mark.slow
def test_the_docs_are_up_to_date():
    network, precision = networks.of_device("cuda", True)[0], networks.precisions("cuda")[0]
    page = (write_docs.DOCS / "cuda.md").read_text()
    assert write_docs.filled(page, stock.count_step(network, precision)) == page, "run python -m tests.cuda.write_docs"
