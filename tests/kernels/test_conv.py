"""The fast convolution kernels against the loops of the definition, at odd sizes and across block borders."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from minires.kernels.cpu import conv, threads
from tests.functional.samples_convolution import conv2d_loops


def random_geometry(seed):
    """A convolution with everything different: sizes, strides, dilations, paddings, groups."""
    rng = np.random.default_rng(seed)
    while True:
        groups = int(rng.choice([1, 1, 2, 3]))
        channels, outputs = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
        kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, 4, 2)) for _ in range(3))
        padding = tuple(int(v) for v in rng.integers(0, 4, 2))
        count, height, width = (int(v) for v in (rng.integers(1, 6), *rng.integers(1, 9, 2)))
        out_size = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip((height, width), padding, dilation, kernel, stride, strict=True)
        )
        if min(out_size) >= 1:
            x = rng.standard_normal((count, channels, height, width))
            weight = rng.standard_normal((outputs, channels // groups, *kernel))
            return x, weight, rng.standard_normal((count, outputs, *out_size)), stride, padding, dilation, groups


@pytest.fixture(params=[1, 2000, 1 << 20])
def block_bytes(request, monkeypatch):
    """One image at a time, a few with a rest, all at once."""
    monkeypatch.setattr(conv, "_BLOCK_BYTES", request.param)


@pytest.mark.parametrize("seed", range(25))
def test_the_trio_against_the_definition(seed, block_bytes):
    x, weight, dy, stride, padding, dilation, groups = random_geometry(seed)
    y = conv.conv2d(x, weight, None, stride, padding, dilation, groups, dy.shape[2:])
    np.testing.assert_allclose(y, conv2d_loops(x, weight, None, stride, padding, dilation, groups), atol=1e-12)
    # The other two are the adjoints of the first, in x and in the weight: <Ax, dy> = <x, Aᵀdy>, for every x and w.
    dx = conv.conv_transpose2d(dy, weight, stride, padding, dilation, groups, x.shape[2:])
    dw = conv.conv2d_weight(x, dy, weight.shape[2:], stride, padding, dilation, groups)
    for i in range(x.size):
        unit = np.zeros(x.size)
        unit[i] = 1
        column = conv.conv2d(unit.reshape(x.shape), weight, None, stride, padding, dilation, groups, dy.shape[2:])
        assert dx.reshape(-1)[i] == pytest.approx((column * dy).sum(), abs=1e-11)
        if i > 30:
            break
    for i in range(min(weight.size, 30)):
        unit = np.zeros(weight.size)
        unit[i] = 1
        column = conv.conv2d(x, unit.reshape(weight.shape), None, stride, padding, dilation, groups, dy.shape[2:])
        assert dw.reshape(-1)[i] == pytest.approx((column * dy).sum(), abs=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("layout", ["NCHW", "channels-last", "strided"])
def test_dtype_and_layout(dtype, layout):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 9, 7))
    weight = rng.standard_normal((5, 4, 3, 3)).astype(dtype)
    expected = conv2d_loops(x, weight.real.astype(np.float64), None, 2, 1)
    if layout == "channels-last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "strided":
        x = np.repeat(np.repeat(x, 2, 0), 2, 3)[::2, :, :, ::2]
    y = conv.conv2d(x.astype(dtype), weight, None, (2, 2), (1, 1), (1, 1), 1, (5, 4))
    assert y.dtype == dtype
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(y, expected, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_results_repeat_bit_for_bit():
    x, weight, dy, *geometry = random_geometry(3)
    first, second = (conv.conv2d_weight(x, dy, weight.shape[2:], *geometry) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_columns_are_never_stored():
    x = np.ones((64, 16, 32, 32), np.float32)
    weight = np.ones((16, 16, 3, 3), np.float32)
    tracemalloc.start()
    y = conv.conv2d(x, weight, None, (1, 1), (1, 1), (1, 1), 1, (32, 32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes + y.nbytes + 4 * conv._BLOCK_BYTES  # the input once more in channels-last order; not 9 times


@pytest.mark.parametrize("threads_used", [1, 2, 4])
def test_the_number_of_threads_does_not_change_a_bit(threads_used):
    rng = np.random.default_rng(1)
    x, dy = (rng.standard_normal((24, 8, 31, 29)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)

    def run():
        geometry = ((1, 1), (1, 1), (1, 1), 1)
        y = conv.conv2d(x, weight, None, *geometry, (31, 29))
        dx = conv.conv_transpose2d(dy, weight, *geometry, (31, 29))
        return [a.tobytes() for a in (y, dx, conv.conv2d_weight(x, dy, (3, 3), *geometry))]

    before = threads.get_num_threads()
    try:
        threads.set_num_threads(1)
        alone = run()
        threads.set_num_threads(threads_used)
        assert run() == alone
    finally:
        threads.set_num_threads(before)
