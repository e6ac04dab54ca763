"""The fast pooling and resizing kernels against loops, at odd sizes and across block borders."""

from __future__ import annotations

import numpy as np
import pytest

from minires import functional as F
from minires.functional.upsampling import _bilinear
from minires.kernels.cpu import pool, resize, threads
from minires.kernels.window import Window
from tests.functional.samples_pooling import max_pool2d_loops


@pytest.fixture(params=[1, 600, 5000, 1 << 20])
def block_bytes(request, monkeypatch):
    """A row at a time, a few rows, a few images with a rest, all at once."""
    monkeypatch.setattr(pool, "_BLOCK_BYTES", request.param)
    monkeypatch.setattr(resize, "_BLOCK_BYTES", request.param)


@pytest.fixture(params=[1, 2, 4])
def thread_count(request):
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


def random_window(seed):
    """An image and a window with everything different: sizes, strides, dilations, paddings."""
    rng = np.random.default_rng(seed)
    while True:
        kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, 4, 2)) for _ in range(3))
        padding = tuple(int(rng.integers(0, ((k - 1) * d + 1) // 2 + 1)) for k, d in zip(kernel, dilation, strict=True))
        x = rng.integers(-3, 4, tuple(int(n) for n in (*rng.integers(1, 5, 2), *rng.integers(1, 12, 2)))).astype(float)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": bool(rng.integers(2))}
        try:
            F.max_pool2d(x, kernel, **options)
        except ValueError:
            continue
        return x, kernel, options


def winners_as_window(x, kernel, options, shape):
    stride, padding, dilation = options["stride"], options["padding"], options["dilation"]
    return Window(kernel, stride, padding, dilation, x.shape[2:], shape[2:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("seed", range(15))
def test_max_pool_against_the_definition(seed, dtype, block_bytes):
    x, kernel, options = random_window(seed)
    x = x.astype(dtype)
    expected, indices = max_pool2d_loops(x, kernel, **options, return_indices=True)
    y, found = F.max_pool2d(x, kernel, **options, return_indices=True)
    assert y.dtype == dtype and y.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(found, indices)


@pytest.mark.parametrize("seed", range(15))
def test_scatter_and_gather_against_flat_indices(seed, block_bytes, thread_count):
    x, kernel, options = random_window(seed)
    expected, indices = max_pool2d_loops(x, kernel, **options, return_indices=True)
    window = winners_as_window(x, kernel, options, expected.shape)
    y, winners = pool.max_pool(x, window)
    assert winners.dtype == np.uint8 and winners.nbytes == y.size
    rng = np.random.default_rng(seed)
    dy, other = rng.standard_normal(y.shape), rng.standard_normal(x.shape)
    dx, taken = np.zeros(x.shape), np.empty(y.shape)
    for index in np.ndindex(y.shape):
        dx[index[:2]].reshape(-1)[indices[index]] += dy[index]
        taken[index] = other[index[:2]].reshape(-1)[indices[index]]
    np.testing.assert_allclose(pool.max_pool_scatter(dy, winners, window), dx, atol=1e-14)
    np.testing.assert_array_equal(pool.max_pool_gather(other, winners, window), taken)


def test_nan_wins_and_minus_infinity_can(block_bytes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, 6, 7))
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.5] = -np.inf
    expected, indices = max_pool2d_loops(x, 3, 2, 1, 1, True, return_indices=True)
    y, found = F.max_pool2d(x, 3, 2, 1, 1, True, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(found, indices)
    everything, first = F.max_pool2d(np.full((1, 1, 3, 3), -np.inf), 3, 2, 1, return_indices=True)
    assert np.all(everything == -np.inf) and first.tolist() == [[[[0, 1], [3, 4]]]]


def test_windows_of_more_than_255_cells_use_wider_numbers():
    x = np.random.default_rng(0).standard_normal((2, 3, 18, 17))
    window = Window((16, 17), (1, 1), (0, 0), (1, 1), (18, 17), (3, 1))
    y, winners = pool.max_pool(x, window)
    assert winners.dtype == np.int32 and winners.max() > 255
    np.testing.assert_array_equal(y, max_pool2d_loops(x, (16, 17), 1))
    np.testing.assert_array_equal(pool.max_pool_gather(x, winners, window), y)


def random_matrix(rng, rows, columns):
    """Mostly zeros near a diagonal, like the matrices of resizing and pooling, with a row of zeros."""
    matrix = rng.standard_normal((rows, columns))
    matrix[np.abs(np.arange(rows)[:, None] * columns / rows - np.arange(columns)) > 2] = 0
    matrix[rows // 2] = 0
    return matrix


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (7, 5, 70, 3), (5, 40, 3, 90), (64, 9, 31, 33)])
def test_resample_is_the_matrix_product(sizes, dtype, block_bytes):
    height, width, new_height, new_width = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3, height, width)).astype(dtype)
    rows, columns = random_matrix(rng, new_height, height), random_matrix(rng, new_width, width)
    y = resize.resample(x, rows, columns)
    assert y.dtype == dtype and y.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(y, np.einsum("ih,nchw,jw->ncij", rows, x, columns), atol=1e-12)
    back = np.einsum("ih,ncij,jw->nchw", rows, y, columns)
    np.testing.assert_allclose(resize.resample(y, rows.T, columns.T), back, atol=1e-11)


def test_resample_skips_most_of_the_zeros():
    bands = resize._bands(_bilinear(100, 200, None, True))
    assert [bottom - top for top, bottom, _, _ in bands] == [32] * 6 + [8]
    assert max(last - first for _, _, first, last in bands) <= 18


def test_bilinear_matrix_of_the_paper():
    """network.md: [[1, 2], [3, 4]] to 4×4, corners aligned."""
    y = F.interpolate(np.array([[[[1.0, 2], [3, 4]]]]), 4, mode="bilinear", align_corners=True)[0, 0]
    np.testing.assert_allclose(3 * y, [[3, 4, 5, 6], [5, 6, 7, 8], [7, 8, 9, 10], [9, 10, 11, 12]], atol=1e-14)


def test_ceil_mode_sizes_of_the_paper():
    """network.md: 3×3 windows at stride 2, clipped at the far edge: 15 and 14 become 7, 30 becomes 15."""
    assert [F.max_pool2d(np.zeros((1, 1, n, n)), 3, 2, ceil_mode=True).shape[2] for n in (15, 14, 30, 32)] == [7, 7, 15, 16]


@pytest.mark.parametrize("seed", range(3))
def test_same_bits_for_every_number_of_threads(seed, monkeypatch):
    monkeypatch.setattr(pool, "_BLOCK_BYTES", 2000)
    x, dy = (np.random.default_rng(seed).standard_normal(s).astype(np.float32) for s in ((9, 5, 11, 13), (9, 5, 5, 6)))
    window = Window((3, 3), (2, 2), (0, 0), (1, 1), (11, 13), (5, 6))
    results, before = [], threads.get_num_threads()
    for count in (1, 2, 4):
        threads.set_num_threads(count)
        y, winners = pool.max_pool(x, window)
        results.append((y, winners, pool.max_pool_scatter(dy, winners, window)))
    threads.set_num_threads(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
