"""Cross-entropy's CUDA code, run on the CPU thread by thread, against the NumPy version; and no step waits for it."""

from __future__ import annotations

import numpy as np
import pytest

import minires.functional as F
from minires import Tensor
from minires.kernels import cpu
from minires.kernels.cuda import loss as gpu
from minires.modes import Mode
from tests.cuda import shim
from tests.cuda import standin as stand_in
from tests.cuda.compare import on_cuda

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

TOLERANCE = {np.float16: 4e-3, np.float32: 4e-6, np.float64: 4e-14}

#: (N, C, ...): fewer classes than a warp has lanes, more, one; one sample; pixels; no sample.
SHAPES = [(5, 7), (3, 1000), (9, 33), (6, 1), (6,), (2, 4, 3, 5), (0, 3), (130, 10)]


@pytest.fixture(params=[np.float32, np.float64, np.float16], ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


def problem(shape, dtype):
    """Logits, labels with some that do not count, and the weights of the classes."""
    rng = np.random.default_rng(sum(shape))
    axis = min(len(shape) - 1, 1)
    labels = rng.integers(0, shape[axis], tuple(n for i, n in enumerate(shape) if i != axis))
    if labels.ndim and labels.size > 3:
        labels.reshape(-1)[[1, -1]] = -100
    return (rng.standard_normal(shape) * 3).astype(dtype), labels, rng.uniform(0.5, 2, shape[axis]).astype(dtype)


def assert_close(actual, expected, dtype):
    actual, expected = actual.get(), np.asarray(expected)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("weighted", "smoothing"), [(False, 0.0), (True, 0.1), (False, 1.0)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_gradient(cuda, lanes, shape, weighted, smoothing, dtype):
    x, labels, weights = problem(shape, dtype)
    for reduction in ("none", "sum", "mean"):
        compare(cuda, x, labels, weights if weighted else None, reduction, smoothing, dtype)


def compare(standin, x, labels, weights, reduction, smoothing, dtype):
    wide = [None if each is None else each.astype(np.float64) for each in (x, weights)]
    expected, slope, divisor = cpu.cross_entropy(wide[0], labels, wide[1], -100, smoothing, reduction)
    on_gpu = [None if each is None else standin.asarray(each) for each in (x, labels, weights)]
    found, rows, total = gpu.cross_entropy(*on_gpu, -100, smoothing, reduction)
    if reduction == "sum" and dtype == np.float16:
        assert abs(float(found) - expected) <= 2e-3 * abs(expected)
    else:
        assert_close(found, expected.astype(dtype), dtype)
    dy = np.random.default_rng(1).uniform(0.5, 1, expected.shape).astype(dtype)
    dx = cpu.cross_entropy_backward(dy.astype(np.float64), slope, divisor, labels, -100)
    assert_close(gpu.cross_entropy_backward(standin.asarray(dy), rows, total, on_gpu[1], -100), dx.astype(dtype), dtype)


def test_many_rows_are_added_up_by_many_blocks(standin, monkeypatch):
    monkeypatch.setattr(gpu, "ONE_BLOCK", 100)
    x, labels, weights = problem((1030, 3), np.float32)
    expected, _, total = cpu.cross_entropy(x.astype(np.float64), labels, weights, -100, 0.1, "mean")
    found, _, ours = gpu.cross_entropy(*map(standin.asarray, (x, labels, weights)), -100, 0.1, "mean")
    np.testing.assert_allclose([float(found), float(ours)], [expected, total], rtol=1e-6)
    assert stand_in.meter.launches["sum_rows"] == 1


def test_large_and_infinite_logits(cuda, lanes):
    x = np.array([[1e4, -1e4, 0], [-np.inf, 2, 1], [3e38, 3e38, 0], [np.nan, 0, 0], [-np.inf] * 3], np.float32)
    labels = np.array([0, 1, 1, 1, 1])
    with np.errstate(invalid="ignore"):
        for smoothing in (0.0, 0.1):
            expected, *_ = cpu.cross_entropy(x, labels, None, -100, smoothing, "none")
            found, *_ = gpu.cross_entropy(cuda.asarray(x), cuda.asarray(labels), None, -100, smoothing, "none")
            np.testing.assert_allclose(found.get(), expected, rtol=2e-6)


def test_no_sample_that_counts(cuda):
    """As on the CPU: the mean is 0/0, but nothing pulls at the logits."""
    x = on_cuda(np.ones((2, 3), np.float32), requires_grad=True)
    loss = F.cross_entropy(x, cuda.asarray(np.array([7, 7])), ignore_index=7)
    loss.backward()
    assert np.isnan(float(loss))
    np.testing.assert_array_equal(x.grad.cpu().data, 0)


def test_classes_that_weigh_nothing(cuda):
    """As on the CPU: NaN, although label smoothing leaves a loss on the other classes."""
    x = on_cuda(np.ones((1, 3), np.float32), requires_grad=True)
    weight = cuda.asarray(np.array([0, 1, 2], np.float32))
    loss = F.cross_entropy(x, cuda.asarray(np.array([0])), weight, label_smoothing=0.1)
    loss.backward()
    assert np.isnan(float(loss))
    assert np.isnan(x.grad.cpu().data).all()


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_out_of_range(standin, wrong):
    x = on_cuda(np.zeros((2, 3), np.float32), requires_grad=True)
    labels = standin.asarray(np.array([1, wrong]))
    with pytest.raises(ValueError, match=rf"class indices from 0 to 2 \(or ignore_index -100\), got {wrong}"):
        F.cross_entropy(x, labels)
    with Mode("capturing", True), stand_in.no_syncs():
        loss = F.cross_entropy(x, labels)
        loss.backward()
    assert np.isnan(float(loss))
    assert np.isnan(x.grad.cpu().data).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_captured_step_waits_for_nothing_and_copies_nothing(standin, reduction):
    x, labels, weights = problem((6, 5), np.float32)
    logits, marks, factors = on_cuda(x, requires_grad=True), standin.asarray(labels), Tensor(standin.asarray(weights))
    with Mode("capturing", True), stand_in.capturing():
        F.cross_entropy(logits, marks, factors, reduction=reduction, label_smoothing=0.1).backward()
    cpu_logits = Tensor(x, requires_grad=True)
    F.cross_entropy(cpu_logits, labels, Tensor(weights), reduction=reduction, label_smoothing=0.1).backward()
    np.testing.assert_allclose(logits.grad.cpu().data, cpu_logits.grad.data, rtol=1e-5, atol=1e-7)
