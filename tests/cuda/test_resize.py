"""Resizing and mean pooling in CUDA against the definition in float64, at odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

from minires.functional.pooling import _adaptive_means, _window_means
from minires.functional.upsampling import _bilinear, _nearest
from minires.kernels.cpu import resize as cpu
from minires.kernels.cuda import resize, strips
from minires.kernels.window import Window
from tests.cuda import shim
from tests.cuda.standin import capturing, meter
from tests.functional.problem import assert_close

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))


@pytest.fixture(params=["ascending", "descending"])
def lanes(request):
    """The order in which the shim runs the threads of a block."""
    with shim.lane_order(request.param == "descending"):
        yield


@pytest.fixture(params=["a row for each thread", "many rows for each thread"])
def long_strips(request, monkeypatch):
    """Kernels that let threads share the taps of an output belong to few threads as well."""
    if request.param.startswith("many"):
        monkeypatch.setattr(strips, "_ENOUGH_THREADS", 0)
        monkeypatch.setattr(resize, "_FEW_THREADS", 0)


def averages(size, kernel, stride, padding):
    outputs = (size + 2 * padding - kernel) // stride + 1
    window = Window((kernel,) * 2, (stride,) * 2, (padding,) * 2, (1, 1), (size,) * 2, (outputs,) * 2)
    return _window_means(window, 0, False, True)


def ragged(rows, columns):
    """Runs of all lengths, zeros inside of them, rows without any tap, and runs that go backwards."""
    rng = np.random.default_rng(rows)
    matrix = rng.standard_normal((rows, columns))
    for i, row in enumerate(matrix):
        first = int(rng.integers(columns))
        row[:first] = 0
        row[first + i % (columns + 1) :] = 0
        row[(first + 1) % columns] *= i % 2
    return matrix


MATRICES = {
    "twice, corners": (_bilinear(5, 10, None, True), _bilinear(7, 14, None, True)),
    "twice": (_bilinear(5, 10, None, False), _bilinear(7, 14, None, False)),
    "odd": (_bilinear(5, 13, None, True), _bilinear(4, 9, None, True)),
    "smaller": (_bilinear(11, 5, None, True), _bilinear(9, 2, None, False)),
    "seven times": (_bilinear(3, 21, None, False), _bilinear(2, 14, None, True)),
    "same": (_bilinear(4, 4, None, True), _bilinear(3, 3, None, True)),
    "one pixel": (_bilinear(1, 4, None, True), _bilinear(1, 5, None, False)),
    "halves": (averages(8, 2, 2, 0), averages(7, 2, 2, 1)),
    "overlapping means": (averages(9, 3, 2, 1), averages(8, 5, 3, 2)),
    "global mean": (_adaptive_means(7, 1), _adaptive_means(5, 1)),
    "adaptive": (_adaptive_means(13, 3), _adaptive_means(17, 2)),
    "nearest": (np.eye(4)[_nearest(4, 9, None, True)], np.eye(5)[_nearest(5, 3, None, False)]),
    "ragged": (ragged(9, 6), ragged(11, 12)),
}


def definition(x, rows, columns):
    return np.einsum("ih,nchw,jw->ncij", rows, x.astype(np.result_type(x, np.float64)), columns, optimize=True)


def check(xp, rows, columns, channels, dtype, images=2):
    """The map and, as its gradient, the transposed one."""
    for a, b in ((rows, columns), (rows.T, columns.T)):
        rng = np.random.default_rng(channels)
        x = rng.standard_normal((images, channels, a.shape[1], b.shape[1])).astype(dtype)
        if np.dtype(dtype).kind == "c":
            x += 1j * rng.standard_normal(x.shape)
        y = resize.resample(xp.asarray(x), a, b)
        assert y.dtype == dtype and y.transpose(0, 2, 3, 1).flags.c_contiguous
        expected = definition(x, a, b)
        if np.dtype(dtype).kind == "c":
            assert_close(y.get().real, expected.real, "real")
            assert_close(y.get().imag, expected.imag, "imaginary")
        elif dtype == np.float16:  # computed in single precision and rounded once
            np.testing.assert_allclose(y.get(), expected, rtol=1e-3, atol=1e-6)
        else:
            assert_close(y.get(), expected, "resample")
        if dtype == np.float64:
            np.testing.assert_allclose(y.get(), expected, rtol=0, atol=1e-14 * np.abs(expected).max(initial=1))


@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("name", MATRICES)
def test_against_the_definition(cuda, name, channels, lanes, long_strips):
    check(cuda, *MATRICES[name], channels, np.float32)


@pytest.mark.parametrize("dtype, channels", [(np.float64, 6), (np.float16, 8), (np.complex64, 2), (np.complex128, 3)])
@pytest.mark.parametrize("name", ["odd", "overlapping means", "global mean", "ragged"])
def test_every_type(cuda, name, dtype, channels, lanes):
    check(cuda, *MATRICES[name], channels, dtype)


@pytest.mark.parametrize("name", ["odd", "overlapping means", "global mean"])
def test_more_threads_than_a_block(cuda, name, lanes):
    check(cuda, *MATRICES[name], 148, np.float32, images=1)


def test_the_kernel_for_every_number_of_taps(standin, monkeypatch):
    launched = lambda: {name.removeprefix("resample_") for name in meter.launches}  # noqa: E731
    check(standin, *MATRICES["twice, corners"], 4, np.float32, 1)
    assert launched() == {"pairs", "windows"}
    meter.launches.clear()
    monkeypatch.setattr(resize, "_FEW_THREADS", 0)
    for name in ("twice, corners", "overlapping means", "seven times", "global mean"):
        check(standin, *MATRICES[name], 4, np.float32, 1)
    assert launched() == {"pairs", "taps_4", "taps_6", "taps"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["twice, corners", "smaller", "same", "overlapping means", "seven times", "adaptive", "nearest"]
)
def test_what_is_not_weighed_is_not_read(cuda, name, value, long_strips):
    """NaN and infinity reach the outputs that mix them, and no others; infinity, with positive weights, stays what it is."""
    rows, columns = MATRICES[name]
    for a, b in ((rows, columns), (rows.T, columns.T)):
        size = (a.shape[1], b.shape[1])
        x = np.ones((1, size[0] * size[1], *size), np.float32)
        x.reshape(len(x[0]), -1)[np.diag_indices(len(x[0]))] = value  # channel c has it at pixel c
        y = resize.resample(cuda.asarray(x), a, b).get()[0]
        touched = np.einsum("ih,jw->hwij", a != 0, b != 0).reshape(y.shape)
        np.testing.assert_array_equal(y[touched], np.float32(value))
        assert np.isfinite(y[~touched]).all()


def test_two_matrices_of_one_shape_have_tables_of_their_own(cuda):
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 7))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        square, other = rng.standard_normal((5, 5)), rng.standard_normal((7, 7))
        for a, b in ((square, other), (square.T, other.T)):
            assert_close(resize.resample(cuda.asarray(x), a, b).get(), definition(x, a, b), "resample")
        rows, columns = rng.integers(5, size=6), rng.integers(7, size=6)
        np.testing.assert_array_equal(resize.pick(cuda.asarray(x), rows, columns).get(), cpu.pick(x, rows, columns))


@pytest.mark.parametrize("images, channels", [(0, 4), (2, 0), (1, 1)])
def test_nothing_and_one(cuda, images, channels):
    check(cuda, *MATRICES["odd"], channels, np.float32, images)
    empty = resize.resample(cuda.zeros((2, 3, 4, 5), np.float32), np.zeros((0, 4)), np.ones((2, 5)))
    assert empty.shape == (2, 3, 0, 2)


def test_same_as_the_cpu(cuda):
    rows, columns = MATRICES["odd"]
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4))
    assert_close(resize.resample(cuda.asarray(x), rows, columns).get(), cpu.resample(x, rows, columns), "resample")


@pytest.mark.parametrize("dtype, channels", [(np.float32, 4), (np.float32, 6), (np.uint8, 3), (np.float16, 3), (np.int64, 1),
                                             (np.complex128, 1), (np.float32, 1), (np.bool_, 2)])  # fmt: skip
def test_pick(cuda, dtype, channels, lanes, long_strips):
    x = np.random.default_rng(0).integers(-9, 9, (2, channels, 5, 7)).astype(dtype)
    for rows, columns in ((_nearest(5, 10, None, False), _nearest(7, 14, None, False)), ([4, 0, 0], [6, 1])):
        y = resize.pick(cuda.asarray(x), np.asarray(rows), np.asarray(columns))
        assert y.dtype == dtype and y.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_array_equal(y.get(), cpu.pick(x, np.asarray(rows), np.asarray(columns)))


def test_tables_are_copied_once_and_a_capture_sees_nothing_but_kernels(standin):
    rows, columns = MATRICES["odd"]
    x = standin.asarray(np.random.default_rng(0).standard_normal((2, 4, 5, 4)).astype(np.float32))

    def step():
        y = resize.resample(x, rows, columns)
        resize.resample(y, rows.T, columns.T)
        resize.pick(y, np.arange(5), np.arange(3))

    step()
    uploads = meter.uploads
    step()
    assert meter.uploads == uploads
    with capturing():
        step()


def test_no_memory_is_read_across_the_address_of_a_slice(cuda):
    rows, columns = MATRICES["odd"]
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 4)).astype(np.float32)
    flat = cuda.asarray(np.concatenate([[0], x.transpose(0, 2, 3, 1).reshape(-1)]).astype(np.float32))
    shifted = flat[1:].reshape(2, 5, 4, 4).transpose(0, 3, 1, 2)  # (N, C, H, W), 4 bytes beyond a multiple of 16
    assert_close(resize.resample(shifted, rows, columns).get(), definition(x, rows, columns), "resample")
    picked = resize.pick(shifted, np.arange(5), np.arange(4))
    np.testing.assert_array_equal(picked.get(), x)
