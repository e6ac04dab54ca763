"""Softmax cross-entropy with class indices: the loss and its slope in one go, in plain array operations.

What a GPU has a kernel for costs nothing worth a trick on a CPU, so this is the readable version; it takes the array module
of its input and so serves as the version for complex numbers on a GPU too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels.cpu.halves import in_float32

__all__ = ["cross_entropy", "cross_entropy_backward"]


@in_float32(results=1)
def cross_entropy(
    input: Any, labels: Any, weights: Any, ignore_index: int, label_smoothing: float, reduction: str
) -> tuple[Any, Any, Any]:
    """-Σ t·ln softmax(x) over the classes, with t the smoothed and weighted indicator of the label, and its slope.

    Args:
        input: logits (N, C, d1, ...), or (C,) for one sample.
        labels: class indices (N, d1, ...); checked already, a GPU makes the loss NaN where one is out of range.
        weights: how much each class counts, (C,) of the dtype of ``input``, or None.
        ignore_index: samples with this label count for nothing.
        label_smoothing: share of the target that is spread over all classes.
        reduction: "none", "sum" or "mean".

    Returns:
        The loss; dloss/dx of each sample by itself, of the shape of ``input`` (anything where a sample does not count); what
        "mean" divides by (the weights of the labels that count, NaN for 0), an array without axes, or None otherwise.
    """
    xp = array_module(input)
    axis = min(input.ndim - 1, 1)
    column = (-1,) + (1,) * (input.ndim - axis - 1)  # (C, 1, ...)
    counted = labels != ignore_index
    hit = xp.expand_dims(labels, axis) == xp.arange(input.shape[axis]).reshape(column)  # (N, C, ...)
    spread = label_smoothing / max(input.shape[axis], 1)
    target = xp.where(hit, 1 - label_smoothing + spread, spread).astype(input.dtype)
    if weights is not None:
        target = target * weights.reshape(column)
    shifted = input - _largest(input.real, axis)
    exponential = xp.exp(shifted)
    total = exponential.sum(axis=axis, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_probability = shifted - xp.log(total)
        loss = -xp.where(target == 0, 0, target * log_probability).sum(axis=axis)  # 0·ln 0 counts for nothing
    slope = exponential / total * target.sum(axis=axis, keepdims=True) - target
    loss = xp.where(counted, loss, 0).astype(input.dtype)
    if reduction == "none":
        return loss, slope, None
    if reduction == "sum":
        return loss.sum(), slope, None
    safe = xp.where(counted, labels, 0)
    share = counted.astype(input.real.dtype) if weights is None else xp.where(counted, weights.real[safe], 0)
    divisor = share.sum()
    divisor = xp.where(divisor == 0, math.nan, divisor).astype(share.dtype)  # spread targets leave more than 0 to divide
    with np.errstate(divide="ignore", invalid="ignore"):
        return loss.sum() / divisor, slope, divisor


@in_float32(inputs=2)
def cross_entropy_backward(dy: Any, slope: Any, divisor: Any, labels: Any, ignore_index: int) -> Any:
    """The gradient dy·slope/divisor of the logits, 0 for samples that do not count."""
    xp = array_module(slope)
    axis = min(slope.ndim - 1, 1)
    dy = xp.asarray(dy)
    if dy.ndim:
        dy = xp.expand_dims(dy, axis)  # (N, 1, ...)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = dy if divisor is None else dy / divisor
        return xp.where(xp.expand_dims(labels == ignore_index, axis), 0, factor * slope).astype(slope.dtype)


def _largest(values: Any, axis: int) -> Any:
    return values.max(axis=axis, keepdims=True) if values.size else values
