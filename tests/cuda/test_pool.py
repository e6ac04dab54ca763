"""Max pooling in CUDA against the CPU's kernel, bit for bit: values are compared and copied, sums have one order."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels.cpu import pool as cpu
from minires.kernels.cuda import pool, strips
from minires.kernels.window import Window
from tests.cuda import shim
from tests.cuda.standin import capturing
from tests.functional.problem import assert_close

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))


@pytest.fixture(params=["ascending", "descending"])
def lanes(request):
    """The order in which the shim runs the threads of a block."""
    with shim.lane_order(request.param == "descending"):
        yield


@pytest.fixture(params=["a row for each thread", "many rows for each thread"])
def long_strips(request, monkeypatch):
    if request.param.startswith("many"):
        monkeypatch.setattr(strips, "_ENOUGH_THREADS", 0)


def random_window(rng):
    """A window with everything different, on an image that it fits into, overhanging by ceil mode now and then."""
    while True:
        kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, 4, 2)) for _ in range(3))
        padding = tuple(int(rng.integers(0, ((k - 1) * d + 1) // 2 + 1)) for k, d in zip(kernel, dilation, strict=True))
        size = tuple(int(n) for n in rng.integers(3, 14, 2))
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        counts = [(n + 2 * p - r - 1) // s + 1 for n, p, r, s in zip(size, padding, reach, stride, strict=True)]
        counts = [n + int(rng.integers(2)) for n in counts]
        window = Window(kernel, stride, padding, dilation, size, tuple(counts))
        if min(counts) > 0 and window.always_sees_input():
            return window


NETWORK = Window((3, 3), (2, 2), (0, 0), (1, 1), (9, 8), (4, 4))  # ceil mode: the last column is cut off
PADDED = Window((3, 3), (2, 2), (1, 1), (1, 1), (9, 8), (5, 4))
HALVES = Window((2, 2), (2, 2), (0, 0), (1, 1), (7, 6), (3, 3))
WINDOWS = [NETWORK, PADDED, HALVES, *(random_window(np.random.default_rng(seed)) for seed in range(12))]


def check(xp, window, channels, dtype, images=2, seed=0):
    """All three kernels on integers with many ties; the gradients are random."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (images, channels, *window.input_size)).astype(dtype)
    y, winners = cpu.max_pool(x, window)
    found, numbers = pool.max_pool(xp.asarray(x), window)
    assert found.dtype == y.dtype and numbers.dtype == winners.dtype
    assert found.transpose(0, 2, 3, 1).flags.c_contiguous and numbers.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(found.get(), y)
    np.testing.assert_array_equal(numbers.get(), winners)
    dy, other = (rng.standard_normal(shape).astype(dtype) for shape in (y.shape, x.shape))
    dx = pool.max_pool_scatter(xp.asarray(dy), numbers, window)
    assert dx.dtype == dtype and dx.transpose(0, 2, 3, 1).flags.c_contiguous
    if np.dtype(dtype).itemsize > 2:
        np.testing.assert_array_equal(dx.get(), cpu.max_pool_scatter(dy, winners, window))
    else:  # sums are rounded once, and not after every addition
        exact = cpu.max_pool_scatter(dy.astype(np.float32), winners, window)
        np.testing.assert_array_equal(dx.get(), exact.astype(dtype))
    taken = pool.max_pool_gather(xp.asarray(other), numbers, window)
    np.testing.assert_array_equal(taken.get(), cpu.max_pool_gather(other, winners, window))


@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("window", WINDOWS, ids=range(len(WINDOWS)))
def test_against_the_cpu(cuda, window, channels, lanes, long_strips):
    check(cuda, window, channels, np.float32)


@pytest.mark.parametrize("dtype, channels", [(np.float64, 6), (np.float16, 8), (np.int32, 3), (np.uint8, 5)])
@pytest.mark.parametrize("window", [*WINDOWS[:3], WINDOWS[7]], ids=["network", "padded", "halves", "any"])
def test_every_type(cuda, window, dtype, channels, lanes):
    check(cuda, window, channels, dtype)


def test_more_threads_than_a_block(cuda, lanes, long_strips):
    check(cuda, Window((3, 3), (2, 2), (1, 1), (1, 1), (4, 33), (2, 17)), 132, np.float32, images=1)


def test_windows_of_more_than_255_cells_use_wider_numbers(cuda, lanes):
    check(cuda, Window((16, 17), (2, 1), (3, 4), (1, 1), (19, 18), (5, 10)), 4, np.float32, images=1)


def test_nan_wins_and_minus_infinity_can(cuda, lanes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 9, 8)).astype(np.float32)
    x[rng.random(x.shape) < 0.5] = -np.inf
    x[rng.random(x.shape) < 0.1] = np.nan
    x[0] = -np.inf
    for window in (NETWORK, PADDED):
        for got, expected in zip(pool.max_pool(cuda.asarray(x), window), cpu.max_pool(x, window), strict=True):
            np.testing.assert_array_equal(got.get(), expected)


def test_complex_gradients_and_values(cuda):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 9, 8, 2)).view(np.complex128)[..., 0]
    winners = cpu.max_pool(x.real, PADDED)[1]
    numbers = cuda.asarray(winners)
    np.testing.assert_array_equal(pool.max_pool(cuda.asarray(x).real, PADDED)[1].get(), winners)
    taken = cpu.max_pool_gather(x, winners, PADDED)
    np.testing.assert_array_equal(pool.max_pool_gather(cuda.asarray(x), numbers, PADDED).get(), taken)
    dx = pool.max_pool_scatter(cuda.asarray(taken), numbers, PADDED).get()
    assert_close(dx.real, cpu.max_pool_scatter(taken, winners, PADDED).real, "dx")


@pytest.mark.parametrize("images, channels", [(0, 4), (2, 0), (1, 1)])
def test_nothing_and_one(cuda, images, channels):
    check(cuda, PADDED, channels, np.float32, images)


def test_memory_in_any_order_and_at_any_address(cuda):
    x = np.random.default_rng(0).standard_normal((2, 4, 9, 8)).astype(np.float32)
    y = cpu.max_pool(x, PADDED)[0]
    rows = cuda.asarray(np.concatenate([[0], x.transpose(0, 2, 3, 1).reshape(-1)]).astype(np.float32))
    shifted = rows[1:].reshape(2, 9, 8, 4).transpose(0, 3, 1, 2)  # (N, C, H, W), 4 bytes beyond a multiple of 16
    wide = cuda.asarray(np.repeat(x, 2, axis=1))[:, ::2]
    for same in (shifted, wide, cuda.asarray(x.swapaxes(2, 3)).swapaxes(2, 3)):
        np.testing.assert_array_equal(pool.max_pool(same, PADDED)[0].get(), y)


def test_a_capture_sees_nothing_but_kernels(standin):
    x = standin.asarray(np.random.default_rng(0).standard_normal((2, 4, 9, 8)).astype(np.float32))
    with capturing():
        y, winners = pool.max_pool(x, PADDED)
        pool.max_pool_gather(pool.max_pool_scatter(y, winners, PADDED), winners, PADDED)
