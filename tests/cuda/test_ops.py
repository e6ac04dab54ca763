"""Every op of the table on the GPU: the values and gradients are the CPU's, and nothing crosses over unseen.

On the stand-in for CuPy always, on the real one under ``-m gpu``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import Tensor
from tests.cuda.compare import on_cuda, problem_of
from tests.functional import table
from tests.functional.problem import Problem, assert_close, walk
from tests.functional.sample import Sample

SAMPLES = table.samples()

every = pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)


def values_and_gradients(problem: Problem, dtype: Any, device: str) -> tuple[list[Any], list[Any]]:
    """All outputs, and the gradients of all unknowns, as Tensors on the device."""
    leaves = [on_cuda(a.astype(dtype), device, requires_grad=True) for a in problem.arrays]
    result = problem.call(leaves, lambda constant: on_cuda(constant, device))
    outputs = [t for t in walk(result) if isinstance(t, Tensor)]
    floating = [t for t in outputs if t.dtype.kind == "f"]
    pairs = [(t, on_cuda(u.astype(dtype), device)) for t, u in zip(floating, problem.upstream, strict=True)]
    pairs = [(t, u) for t, u in pairs if t.requires_grad]
    if not pairs:
        return outputs, [None] * len(leaves)
    outs, seeds = zip(*pairs, strict=True)
    return outputs, list(mr.grad(outs, leaves, list(seeds), allow_unused=True))


def as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same values with the second axis last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1) if array.ndim > 1 else array


@pytest.mark.parametrize("dtype, layout", [(np.float32, as_it_is), (np.float64, channels_last)], ids=["float32", "float64"])
@every
def test_an_op_computes_the_same_on_both_devices(sample: Sample, dtype: Any, layout: Any, cuda: ModuleType) -> None:
    problem = problem_of(sample)
    mr.manual_seed(3)
    expected = values_and_gradients(problem, dtype, "cpu")
    problem.arrays, problem.upstream = ([layout(a) for a in arrays] for arrays in (problem.arrays, problem.upstream))
    mr.manual_seed(3)
    actual = values_and_gradients(problem, dtype, "cuda")
    for what, ours, cpu in zip(("output", "gradient"), actual, expected, strict=True):
        assert len(ours) == len(cpu)
        for i, (a, b) in enumerate(zip(ours, cpu, strict=True)):
            assert (a is None) == (b is None), f"{what} {i}"
            if a is not None:
                if sample.name != "to_device":  # its output is on the CPU on purpose
                    assert a.device == "cuda:0", f"{what} {i} is on {a.device}"
                assert a.dtype == b.dtype, f"{what} {i} is {a.dtype}, on the CPU {b.dtype}"
                assert_close(a.cpu().data, b.data, f"{what} {i}")


@every
def test_a_recorded_backward_pass_works_too(sample: Sample, cuda: ModuleType) -> None:
    problem = problem_of(sample)
    mr.manual_seed(3)
    expected = problem.recorded_gradients()[2]
    leaves = [on_cuda(a, "cuda", requires_grad=True) for a in problem.arrays]
    mr.manual_seed(3)
    outputs = [t for t in walk(problem.call(leaves, lambda c: on_cuda(c, "cuda"))) if isinstance(t, Tensor)]
    floating = [t for t in outputs if t.dtype.kind == "f"]
    pairs = [(t, on_cuda(u, "cuda", requires_grad=True)) for t, u in zip(floating, problem.upstream, strict=True)]
    pairs = [(t, u) for t, u in pairs if t.requires_grad]
    if not pairs:
        return
    outs, seeds = zip(*pairs, strict=True)
    found = mr.grad(outs, leaves, list(seeds), create_graph=True, allow_unused=True)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a is None) == (b is None), i
        if a is not None:
            assert a.device == "cuda:0"
            assert_close(a.cpu().data, b.data, f"gradient {i}")
