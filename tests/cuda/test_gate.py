"""The gate's CUDA code, run on the CPU thread by thread, against the blocked NumPy version."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import cpu
from minires.kernels.cuda import build, gate
from tests.cuda import shim

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

TOLERANCE = {np.float16: 2e-3, np.float32: 5e-6, np.float64: 1e-14}


def operands(shape, dtype, count=3):
    rng = np.random.default_rng(0)
    return [(3 * rng.standard_normal(shape)).astype(dtype) for _ in range(count)]


def assert_close(actual, expected):
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(
        actual.get(), expected, rtol=TOLERANCE[expected.dtype.type], atol=TOLERANCE[expected.dtype.type]
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (1023,), (2, 3, 5, 7), (2, 8, 4, 4)])
def test_values(standin, lanes, shape, dtype):
    g, f, z = operands(shape, dtype)
    on_gpu = [standin.asarray(each) for each in (g, f, z)]
    assert_close(gate.gated_residual(*on_gpu[1:]), reference(cpu.gated_residual, f, z))
    for actual, expected in zip(
        gate.gated_residual_backward(*on_gpu), reference(cpu.gated_residual_backward, g, f, z), strict=True
    ):
        assert_close(actual, expected)


def reference(kernel, *arrays):
    """The NumPy kernel; for half precision in single, as the CUDA code computes."""
    if arrays[0].dtype != np.float16:
        return kernel(*arrays)
    result = kernel(*(each.astype(np.float32) for each in arrays))
    return tuple(each.astype(np.float16) for each in result) if isinstance(result, tuple) else result.astype(np.float16)


def test_the_results_lie_in_memory_as_the_trunk_does(standin):
    g, f, z = operands((2, 5, 3, 4), np.float32)
    trunk = standin.asarray(f.transpose(0, 2, 3, 1).copy()).transpose(0, 3, 1, 2)  # channels-last; the others are not
    dy, logits = standin.asarray(g), standin.asarray(z)
    found = (gate.gated_residual(trunk, logits), *gate.gated_residual_backward(dy, trunk, logits))
    expected = (cpu.gated_residual(f, z), *cpu.gated_residual_backward(g, f, z))
    for actual, each in zip(found, expected, strict=True):
        assert_close(actual, each)
        assert actual.transpose(0, 2, 3, 1).flags.c_contiguous


def test_memory_that_begins_anywhere(standin):
    _, f, z = operands((42,), np.float32)
    trunk, logits = standin.asarray(f)[1:], standin.asarray(z)[1:]
    assert_close(gate.gated_residual(trunk, logits), cpu.gated_residual(f[1:], z[1:]))


def test_large_logits_neither_overflow_nor_warn(standin):
    f, z = np.ones(5, np.float32), np.array([-1e30, -100, 0, 100, 1e30], np.float32)
    df, dz = gate.gated_residual_backward(*(standin.asarray(each) for each in (f, f, z)))
    np.testing.assert_allclose(gate.gated_residual(standin.asarray(f), standin.asarray(z)).get(), [1, 1, 1.5, 2, 2])
    np.testing.assert_allclose(df.get(), [1, 1, 1.5, 2, 2])
    np.testing.assert_allclose(dz.get(), [0, 0, 0.25, 0, 0], atol=1e-30)


def test_complex_numbers_take_the_plain_way(standin):
    f, z = (each + 0.5j for each in operands((7,), np.float64, 2))
    np.testing.assert_allclose(gate.gated_residual(standin.asarray(f), standin.asarray(z)).get(), f + f / (1 + np.exp(-z)))


def test_bfloat16(lanes):
    """NumPy has no such type: the upper halves of float32, as integers."""
    f, z = (each.view(np.uint32) & 0xFFFF0000 for each in operands((43,), np.float32, 2))
    exact = cpu.gated_residual(f.view(np.float32), z.view(np.float32))
    h = np.zeros(43, np.uint16)
    kernels = shim.compile(build.code("gate", {"T": "bfloat16", "WIDE": 1}))
    arguments = [(f >> 16).astype(np.uint16), (z >> 16).astype(np.uint16), h, np.int32(5), np.int32(3)]
    kernels.launch("gate", 1, 32, arguments)
    np.testing.assert_allclose((h.astype(np.uint32) << 16).view(np.float32), exact, rtol=2**-8)
