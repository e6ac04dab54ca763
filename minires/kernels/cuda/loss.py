"""Softmax cross-entropy on the GPU: forward and slope in one pass over the logits, and nothing waits for the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels.cpu import loss as plain
from minires.kernels.cuda.build import launch
from minires.kernels.cuda.strips import has_kernel

__all__ = ["cross_entropy", "cross_entropy_backward"]

THREADS = 256  # as in loss.cu
ONE_BLOCK = 8192  # rows that a single block adds up


def cross_entropy(
    input: Any, labels: Any, weights: Any, ignore_index: int, label_smoothing: float, reduction: str
) -> tuple[Any, Any, Any]:
    """As :func:`minires.kernels.cpu.loss.cross_entropy`; the loss is NaN if a label is out of range."""
    if not has_kernel(input.dtype):
        return plain.cross_entropy(input, labels, weights, ignore_index, label_smoothing, reduction)
    xp, wide = array_module(input), _wide(input.dtype)
    axis = min(input.ndim - 1, 1)
    logits = xp.ascontiguousarray(xp.moveaxis(input, axis, -1))  # (N, d1, ..., C)
    rows, classes = labels.size, logits.shape[-1]
    loss, share = xp.empty(labels.shape, wide), xp.empty(labels.shape, wide)
    slope = xp.empty(logits.shape, input.dtype)
    marks = xp.ascontiguousarray(labels, dtype=np.int64)
    factors = None if weights is None else xp.ascontiguousarray(weights, dtype=input.dtype)
    ignored, smoothing = np.int64(ignore_index), float(label_smoothing)
    arguments = [logits, marks, factors, loss, share, slope, ignored, smoothing, rows, classes]
    launch("loss", "cross_entropy", rows * 32, arguments, xp=xp, dtype=input.dtype, block=128)
    slope = xp.moveaxis(slope, -1, axis)  # (N, C, d1, ...)
    if reduction == "none":
        return loss.astype(input.dtype, copy=False), slope, None
    result, total = _total(loss, share, input.dtype, reduction == "mean")
    return result, slope, total if reduction == "mean" else None


def _total(loss: Any, share: Any, dtype: Any, mean: bool) -> tuple[Any, Any]:
    """Σ loss, divided by Σ share for a mean, and Σ share."""
    xp = array_module(loss)
    if loss.size > ONE_BLOCK:
        blocks = min(math.ceil(loss.size / ONE_BLOCK), ONE_BLOCK)
        sums, shares = xp.empty(blocks, loss.dtype), xp.empty(blocks, loss.dtype)
        arguments = [loss, share, sums, shares, loss.size]
        launch("loss", "sum_rows", blocks * THREADS, arguments, xp=xp, dtype=dtype, block=THREADS)
        loss, share = sums, shares
    result, total = xp.empty((), dtype), xp.empty((), loss.dtype)
    arguments = [loss, share, result, total, loss.size, int(mean)]
    launch("loss", "finish", THREADS, arguments, xp=xp, dtype=dtype, block=THREADS)
    return result, total


def cross_entropy_backward(dy: Any, slope: Any, divisor: Any, labels: Any, ignore_index: int) -> Any:
    """As :func:`minires.kernels.cpu.loss.cross_entropy_backward`."""
    if not has_kernel(slope.dtype):
        return plain.cross_entropy_backward(dy, slope, divisor, labels, ignore_index)
    xp = array_module(slope)
    axis = min(slope.ndim - 1, 1)
    rows = xp.ascontiguousarray(xp.moveaxis(slope, axis, -1))  # (N, d1, ..., C), as it was made
    dx = xp.empty(rows.shape, slope.dtype)
    marks, grad = xp.ascontiguousarray(labels, dtype=np.int64), xp.ascontiguousarray(dy, dtype=slope.dtype)
    stride = 1 if dy.ndim else 0
    arguments = [grad, rows, divisor, marks, dx, np.int64(ignore_index), np.int64(rows.size), rows.shape[-1], stride]
    launch("loss", "cross_entropy_backward", rows.size, arguments, xp=xp, dtype=slope.dtype)
    return xp.moveaxis(dx, -1, axis)


def _wide(dtype: Any) -> Any:
    """The dtype in which the kernels add up."""
    return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
