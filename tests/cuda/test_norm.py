"""Batch norm's CUDA code, run on the CPU thread by thread, against the blocked NumPy version and the formula."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires.kernels import cpu
from minires.kernels.cuda import norm
from tests.cuda import shim

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

EPS = 1e-5
TOLERANCE = {np.float16: 4e-3, np.float32: 4e-6, np.float64: 1e-13}

#: (N, C, ...): one channel; fewer rows than a block takes; channels that fill vectors, or not; several tiles; many parts.
SHAPES = [(5, 1), (2, 3, 5, 7), (3, 8, 3, 3), (40, 20), (2, 33, 1, 2), (2, 524, 3), (9, 70, 2, 2), (700, 1), (90, 16, 5, 3)]


@pytest.fixture(params=[np.float32, np.float64, np.float16], ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


@pytest.fixture(params=[396, 3], ids=["", "three blocks"], autouse=True)
def blocks(request, monkeypatch):
    """Small arrays with as few rows a thread as on a GPU, or with many."""
    monkeypatch.setattr(norm, "_BLOCKS", request.param)


def problem(shape, dtype, affine=True):
    """dy, x, mean, variance, weight, bias; channels with different means and scales, all in half precision's range."""
    rng = np.random.default_rng(sum(shape))
    across = (1, shape[1], *(1 for _ in shape[2:]))
    x = rng.standard_normal(shape) * rng.uniform(0.5, 2, across) + rng.uniform(-3, 3, across)
    weight, bias = rng.uniform(0.5, 1.5, shape[1]), rng.standard_normal(shape[1])
    sums = np.float64 if dtype == np.float64 else np.float32
    x = x.astype(dtype)
    statistics = cpu.batch_statistics(x.astype(np.float64))
    vectors = (weight.astype(sums), bias.astype(sums)) if affine else (None, None)
    return rng.standard_normal(shape).astype(dtype), x, *statistics, *vectors


def on_gpu(standin, values):
    return [None if each is None else standin.asarray(each) for each in values]


def assert_close(actual, expected, dtype):
    """Up to the rounding of ``dtype``, relative to the largest."""
    actual = actual.get()
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def channels_last(array):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics(standin, lanes, shape, dtype):
    _, x, mean, variance, *_ = problem(shape, dtype)
    rows = x.size // shape[1]
    running = [standin.ones(shape[1], np.float64 if dtype == np.float64 else np.float32) for _ in range(2)]
    found = norm.batch_statistics(standin.asarray(channels_last(x)), tuple(running), 0.3)
    for each, expected in zip(found, (mean, variance), strict=True):
        assert each.dtype == np.float64
        np.testing.assert_allclose(
            each.get(), expected, rtol=1e-13 if dtype == np.float64 else 4e-7, atol=1e-7 * (dtype != np.float64)
        )
    assert_close(running[0], 0.7 + 0.3 * mean, np.float64 if dtype == np.float64 else np.float32)
    assert_close(running[1], 0.7 + 0.3 * variance * rows / (rows - 1), np.float64 if dtype == np.float64 else np.float32)


def test_the_variance_survives_a_large_mean(standin):
    x = (np.random.default_rng(0).standard_normal((3000, 4)) + 1e4).astype(np.float32)
    _, variance = norm.batch_statistics(standin.asarray(x))
    np.testing.assert_allclose(variance.get(), x.astype(np.float64).var(axis=0), rtol=1e-4)  # E[x²] - E[x]² is 100 % off


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(standin, lanes, shape, dtype, relu):
    _, *rest = problem(shape, dtype)
    y = norm.batch_norm(*on_gpu(standin, rest), EPS, relu)
    assert y.dtype == dtype
    assert_close(y, cpu.batch_norm(rest[0].astype(np.float64), *rest[1:], EPS, relu), dtype)
    assert standin.moveaxis(y, 1, -1).flags.c_contiguous


@pytest.mark.parametrize(
    "training, relu, affine", [(True, False, True), (True, True, True), (False, True, True), (True, True, False)]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_backward(standin, lanes, shape, dtype, training, relu, affine):
    values = problem(shape, dtype, affine)
    found = norm.batch_norm_backward(*on_gpu(standin, values), EPS, training, relu)
    wide = [None if each is None else each.astype(np.float64) for each in values]
    expected = cpu.batch_norm_backward(*wide, EPS, training, relu)
    for actual, each in zip(found, expected, strict=True):
        assert actual.dtype == (dtype if actual is found[0] or dtype == np.float64 else np.float32)
        assert_close(actual, each, dtype)
    assert standin.moveaxis(found[0], 1, -1).flags.c_contiguous


def test_backward_opens_the_relu_exactly_where_forward_did(standin, dtype):
    _, *rest = problem((90, 16, 5, 3), dtype)
    y = norm.batch_norm(*on_gpu(standin, rest), EPS, True).get()
    dx, *_ = norm.batch_norm_backward(standin.ones(y.shape, dtype), *on_gpu(standin, rest), EPS, False, True)
    np.testing.assert_array_equal(dx.get() != 0, y > 0)


def test_the_order_of_the_threads_changes_no_bit(standin):
    dy, x, _, _, weight, bias = problem((90, 16, 5, 3), np.float32)
    results = []
    for descending in (False, True):
        with shim.lane_order(descending):
            on_device = on_gpu(standin, (dy, x))
            statistics = norm.batch_statistics(on_device[1])
            found = norm.batch_norm_backward(*on_device, *statistics, *on_gpu(standin, (weight, bias)), EPS, True, True)
            results.append([each.get().tobytes() for each in (*statistics, *found)])
    assert results[0] == results[1]


def test_no_rows_and_no_channels(standin):
    for shape in ((0, 3), (4, 0), (2, 3, 0)):
        dy, x = standin.zeros(shape, np.float32), standin.zeros(shape, np.float32)
        mean, variance = norm.batch_statistics(x)
        assert mean.shape == variance.shape == (shape[1],) and not mean.get().any()
        assert norm.batch_norm(x, mean, variance, None, None, EPS, True).shape == shape
        dx, dweight, dbias = norm.batch_norm_backward(dy, x, mean, variance, None, None, EPS, True, True)
        assert dx.shape == shape and not dweight.get().any() and not dbias.get().any()


def test_nan_is_not_hidden_by_the_relu(standin):
    x = np.ones((6, 4), np.float32)
    x[2, 1] = np.nan
    mean, variance = norm.batch_statistics(standin.asarray(x))
    np.testing.assert_array_equal(np.isnan(mean.get()), [False, True, False, False])
    y = norm.batch_norm(standin.asarray(x), mean, variance, None, None, EPS, True).get()
    np.testing.assert_array_equal(np.isnan(y).any(axis=0), [False, True, False, False])


def test_memory_that_begins_anywhere(standin):
    x = np.random.default_rng(1).standard_normal(1 + 9 * 8).astype(np.float32)
    view = standin.asarray(x)[1:].reshape(9, 8)
    for actual, expected in zip(norm.batch_statistics(view), cpu.batch_statistics(x[1:].reshape(9, 8)), strict=True):
        np.testing.assert_allclose(actual.get(), expected, rtol=1e-6, atol=1e-7)


def test_running_statistics_of_another_type(standin):
    _, x, mean, *_ = problem((40, 20), np.float32)
    running = (standin.zeros(20, np.float64), None)
    norm.batch_statistics(standin.asarray(x), running, 0.5)
    np.testing.assert_allclose(running[0].get(), mean / 2, rtol=1e-6)


def test_complex_numbers_take_the_plain_way(standin):
    x = np.arange(24.0).reshape(6, 4) + 1e-30j
    mean, variance = norm.batch_statistics(standin.asarray(x))
    np.testing.assert_allclose(variance.get().real, x.real.var(axis=0))
    assert norm.batch_norm(standin.asarray(x), mean, variance, None, None, EPS, True).dtype == np.complex128


def test_a_training_step_of_the_layer_does_not_wait_for_the_device(standin):
    from tests.cuda.standin import no_syncs

    layer = mr.nn.BatchNorm2d(6).to("cuda")
    x = mr.tensor(
        np.random.default_rng(2).standard_normal((4, 6, 3, 3)).astype(np.float32), device="cuda", requires_grad=True
    )
    with no_syncs():
        layer(x).sum().backward()
    host = mr.nn.BatchNorm2d(6)
    host(mr.tensor(x.data.get()))
    for actual, expected in zip(layer.buffers(), host.buffers(), strict=True):
        np.testing.assert_allclose(actual.to("cpu").numpy(), expected.numpy(), rtol=1e-6, atol=1e-7)
