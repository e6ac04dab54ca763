"""Losses: one number that says how far predictions are from what they should be.

Each loss is computed element by element (or sample by sample) and then reduced: ``"none"`` leaves it, ``"sum"`` adds it up,
``"mean"`` divides by how many there are (by the sum of the weights where classes are weighted).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires.device import Array, array_module
from minires.errors import ShapeError
from minires.functional.activation import log_softmax, sigmoid, softmax
from minires.functional.arithmetic import clamp, exp, log, where
from minires.functional.reduction import mean, sum
from minires.functional.shaping import cast, gather, squeeze, unsqueeze
from minires.kernels import of as kernels_of
from minires.modes import state
from minires.op import Saved, op
from minires.operators import raw
from minires.precision import INEXACT, is_half
from minires.tensor import Tensor

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "kl_div", "l1_loss", "mse_loss", "nll_loss",
    "smooth_l1_loss",
]  # fmt: skip


# ------------------------------------------------------------------------------------ classes


def cross_entropy(
    input: Array,
    target: Array,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-ln softmax(input)[target]: how surprised a classifier is by the right answer, in nats.

    Args:
        input: logits (N, C) or (N, C, d1, d2, ...), or (C,) for one sample.
        target: class indices, integers of the shape of ``input`` without the axis C; or probabilities, floating point of
            the shape of ``input``.
        weight: how much each class counts, (C,), or None for 1.
        ignore_index: samples with this class index count for nothing.
        reduction: "none", "mean" or "sum". With class indices "mean" divides by the sum of the weights of the targets.
        label_smoothing: share of the target's probability, in [0, 1], that is spread evenly over all classes.

    Raises:
        ShapeError: the shapes do not fit together.
        ValueError: a class index out of range, an unknown reduction, a label_smoothing outside [0, 1].
    """
    name = "cross_entropy"
    _check_reduction(name, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: expected label_smoothing between 0 and 1, got {label_smoothing}")
    input = _full_precision(input)
    class_axis, classes = _class_axis(name, input)
    weights = _class_weights(name, input, weight, classes)
    smoothing = label_smoothing / max(classes, 1)
    if _is_floating(target):
        if tuple(target.shape) != tuple(input.shape):
            raise ShapeError(name, "class probabilities must have the shape of the input", **_pair(input, target))
        target = cast(target, input.dtype) if target.dtype != input.dtype else target
        wanted = target * (1 - label_smoothing) + smoothing if label_smoothing else target
        if weights is not None:
            wanted = wanted * weights.reshape((-1,) + (1,) * max(input.ndim - 2, 0))  # (C, 1, ...)
        loss = softmax_cross_entropy(input, wanted, class_axis)
        return _reduce(loss, reduction)
    labels = _class_indices(name, input, target, class_axis, classes, ignore_index)
    return _label_cross_entropy(input, labels, weights, ignore_index, float(label_smoothing), reduction)


@op
def _label_cross_entropy(
    input: Array, labels: Any, weights: Any, ignore_index: int, label_smoothing: float, reduction: str
) -> Array:
    """Cross-entropy with class indices: loss and slope are computed in one pass over the logits."""
    loss, slope, divisor = kernels_of(input).cross_entropy(input, labels, weights, ignore_index, label_smoothing, reduction)
    return Saved(loss, slope=slope, divisor=divisor)


@_label_cross_entropy.backward
def _(dy: Array, slope: Any, divisor: Any, labels: Any, ignore_index: int) -> Any:
    """With p = softmax(x) and t what is wanted of it: dx = p·Σt - t for each sample, for a mean by their weights."""
    return kernels_of(slope).cross_entropy_backward(dy, slope, divisor, labels, ignore_index)


@_label_cross_entropy.definition
def _(input: Array, labels: Any, weights: Any, ignore_index: int, label_smoothing: float, reduction: str) -> Any:
    xp = array_module(labels)
    class_axis, classes = _class_axis("cross_entropy", input)
    smoothing = label_smoothing / classes
    counted = labels != ignore_index
    column = (-1,) + (1,) * (labels.ndim - class_axis)
    hit = xp.expand_dims(labels, class_axis) == xp.arange(classes).reshape(column)  # (N, C, ...)
    wanted = xp.where(hit, 1 - label_smoothing + smoothing, smoothing) * xp.expand_dims(counted, class_axis)
    wanted = wanted.astype(input.dtype) if weights is None else wanted.astype(input.dtype) * weights.reshape(column)
    # If none counts, "mean" is 0/0: the loss is NaN, but the gradient must stay 0.
    loss = where(counted, softmax_cross_entropy(input, wanted, class_axis), 0)
    return _reduce(loss, reduction, _total_weight(weights, xp.where(counted, labels, 0), counted))


@op
def softmax_cross_entropy(input: Array, target: Array, dim: int) -> Array:
    """-Σ target·ln softmax(input) along ``dim``. A target of 0 counts for nothing, even at probability 0."""
    log_probability = log_softmax(input, dim)
    impossible = (target == 0) & array_module(input).isinf(log_probability)
    return -(target * where(impossible, 0, log_probability)).sum(axis=dim)


@softmax_cross_entropy.backward
def _(dy: Array, input: Array, target: Array, dim: int, needs: Any) -> Any:
    """With p = softmax(x): dx = p·Σt - t, which for one right class is p minus one there. dt = -ln p."""
    dy = unsqueeze(dy, dim)
    dx = dy * (softmax(input, dim) * sum(target, dim, keepdim=True) - target) if needs.input else None
    return dx, (-dy * log_softmax(input, dim) if needs.target else None)


def nll_loss(input: Array, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """-input[target], for log-probabilities as ``log_softmax`` returns them.

    Args:
        input: (N, C) or (N, C, d1, d2, ...), or (C,) for one sample.
        target: class indices of the shape of ``input`` without the axis C.
        weight: how much each class counts, (C,), or None for 1.
        ignore_index: samples with this class index count for nothing.
        reduction: "none", "mean" (divides by the sum of the weights of the targets) or "sum".

    Raises:
        ShapeError: the shapes do not fit together.
        ValueError: a class index out of range, an unknown reduction.
    """
    _check_reduction("nll_loss", reduction)
    input = _full_precision(input)
    class_axis, classes = _class_axis("nll_loss", input)
    weights = _class_weights("nll_loss", input, weight, classes)
    labels = _class_indices("nll_loss", input, target, class_axis, classes, ignore_index)
    counted = labels != ignore_index
    index = array_module(labels).where(counted, labels, 0)
    picked = squeeze(gather(input, class_axis, array_module(index).expand_dims(index, class_axis)), class_axis)
    factor = counted.astype(input.dtype) if weights is None else counted * weights[index]
    loss = where(counted, picked, 0) * -factor  # not a product alone: an ignored -inf would become NaN
    return _reduce(loss, reduction, _total_weight(weights, index, counted))


def _class_axis(name: str, input: Any) -> tuple[int, int]:
    """Which axis counts the classes, and how many there are."""
    if getattr(input, "ndim", 0) < 1:
        raise ShapeError(name, "the input needs a class axis", input=(getattr(input, "shape", ()), "N C"))
    axis = 0 if input.ndim == 1 else 1
    return axis, input.shape[axis]


def _class_weights(name: str, input: Any, weight: Any, classes: int) -> Any:
    """The weights (C,) in the dtype of ``input``, or None."""
    if weight is None:
        return None
    weight = array_module(raw(input)).asarray(raw(weight))
    if tuple(weight.shape) != (classes,):
        rule = f"weight must have one value for each of the {classes} classes"
        raise ShapeError(name, rule, input=(input.shape, ""), weight=(weight.shape, "C"))
    return weight.astype(input.dtype)


def _class_indices(name: str, input: Any, target: Any, class_axis: int, classes: int, ignore_index: int) -> Any:
    """The class indices as an array on the device of ``input``."""
    index = array_module(raw(input)).asarray(raw(target))
    expected = tuple(n for i, n in enumerate(input.shape) if i != class_axis)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected class indices as integers, got {index.dtype}")
    if index.shape != expected:
        rule = f"the target must have the shape {expected}: that of the input without classes"
        raise ShapeError(name, rule, **_pair(input, index))
    if not state.capturing:  # looking at values would wait for them; a captured loss becomes NaN instead
        _check_range(name, index, classes, ignore_index)
    return index


def _check_range(name: str, index: Any, classes: int, ignore_index: int) -> None:
    wrong = ((index < 0) | (index >= classes)) & (index != ignore_index)
    if bool(wrong.any()):
        expected = f"class indices from 0 to {classes - 1} (or ignore_index {ignore_index})"
        raise ValueError(f"{name}: expected {expected}, got {int(index[wrong][0])}")


def _total_weight(weights: Any, index: Any, counted: Any) -> float:
    """What "mean" divides by: the weights of the targets that count."""
    return float(counted.sum() if weights is None else (weights[index] * counted).sum().real)


# ------------------------------------------------------------------------------------ distances


@op
def _squared_error(input: Array, target: Array) -> Array:
    difference = input - target
    return difference * difference


@_squared_error.backward
def _(dy: Array, input: Array, target: Array) -> Any:
    """d(x - t)²/dx = 2(x - t)."""
    dx = dy * (2 * (input - target))
    return dx, -dx


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Tensor:
    """(input - target)², element by element. ``reduction``: "none", "mean" or "sum". Shapes must be equal."""
    _check_pair("mse_loss", input, target, reduction)
    return _reduce(_squared_error(input, target), reduction)


@op
def _absolute_error(input: Array, target: Array) -> Array:
    difference = input - target
    return array_module(difference).where(difference < 0, -difference, difference)


@_absolute_error.backward
def _(dy: Array, input: Array, target: Array) -> Any:
    """d|x - t|/dx is the sign of x - t, 0 where they are equal."""
    dx = where(input < target, -dy, where(input > target, dy, dy * 0))
    return dx, -dx


def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Tensor:
    """|input - target|, element by element. ``reduction``: "none", "mean" or "sum". Shapes must be equal."""
    _check_pair("l1_loss", input, target, reduction)
    return _reduce(_absolute_error(input, target), reduction)


@op
def _smooth_absolute_error(input: Array, target: Array, beta: float) -> Array:
    difference = input - target
    xp = array_module(difference)
    distance = xp.where(difference < 0, -difference, difference)
    return xp.where(distance < beta, distance * distance * (0.5 / beta), distance - 0.5 * beta)


@_smooth_absolute_error.backward
def _(dy: Array, input: Array, target: Array, beta: float) -> Any:
    """(x - t)/β limited to [-1, 1]."""
    dx = dy * clamp((input - target) / beta, -1, 1)
    return dx, -dx


def smooth_l1_loss(input: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """(input - target)²/(2·beta) where they are closer than ``beta``, else |input - target| - beta/2 (Girshick, 2015).

    Args:
        input: any shape.
        target: the same shape.
        reduction: "none", "mean" or "sum".
        beta: where the parabola goes over into the straight line, ≥ 0; with 0 it is :func:`l1_loss`.
    """
    _check_pair("smooth_l1_loss", input, target, reduction)
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: expected beta >= 0, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction)
    return _reduce(_smooth_absolute_error(input, target, beta), reduction)


# ------------------------------------------------------------------------------------ probabilities


@op
def _bernoulli_loss(input: Array, target: Array) -> Array:
    xp = array_module(input)
    with _quiet():
        return -(target * xp.maximum(xp.log(input), -100) + (1 - target) * xp.maximum(xp.log(1 - input), -100))


@_bernoulli_loss.backward
def _(dy: Array, input: Array, target: Array, needs: Any) -> Any:
    """dx = (x - t)/(x(1 - x)), the divisor kept from 0; dt = ln(1 - x) - ln x, both no less than -100."""
    dx = dy * (input - target) / clamp(input * (1 - input), 1e-12) if needs.input else None
    if not needs.target:
        return dx, None
    with _quiet():
        return dx, dy * (clamp(log(1 - input), -100) - clamp(log(input), -100))


def binary_cross_entropy(input: Array, target: Array, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-(t·ln x + (1 - t)·ln(1 - x)), element by element, for probabilities x; the logarithms are cut off at -100.

    Args:
        input: probabilities in [0, 1], any shape.
        target: numbers in [0, 1], the same shape.
        weight: factor of each element, anything that broadcasts to that shape, or None.
        reduction: "none", "mean" or "sum".

    Raises:
        ShapeError: the shapes differ.
        ValueError: a probability outside [0, 1], an unknown reduction.
    """
    name = "binary_cross_entropy"
    _check_pair(name, input, target, reduction)
    real = raw(input).real
    if real.size and not bool(((real >= 0) & (real <= 1)).all()):
        span = f"{float(real.min()):.4g} to {float(real.max()):.4g}"
        raise ValueError(f"{name}: expected probabilities between 0 and 1, got {span}")
    return _reduce(_weighted(_bernoulli_loss(input, target), weight), reduction)


@op
def _bernoulli_logit_loss(input: Array, target: Array, pos_weight: Any = None) -> Array:
    xp = array_module(input)
    # ln(1 + e^-x), without an overflow: e^-|x| is at most 1
    softplus = xp.log1p(xp.exp(xp.minimum(input, -input))) + xp.maximum(-input, 0)
    return (1 - target) * input + _positive_factor(target, pos_weight) * softplus


@_bernoulli_logit_loss.backward
def _(dy: Array, input: Array, target: Array, pos_weight: Any, needs: Any) -> Any:
    """dx = (1 - t) - L·σ(-x) with L = 1 + (pos_weight - 1)·t, which is σ(x) - t without a pos_weight."""
    dx = dt = None
    if needs.input:
        dx = dy * ((1 - target) - _positive_factor(target, pos_weight) * sigmoid(-input))
    if needs.target:
        dt = dy * (-input if pos_weight is None else -input - (pos_weight - 1) * log(sigmoid(input)))
    return dx, dt


def _positive_factor(target: Any, pos_weight: Any) -> Any:
    return 1 if pos_weight is None else 1 + (pos_weight - 1) * target


def binary_cross_entropy_with_logits(
    input: Array, target: Array, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """:func:`binary_cross_entropy` of ``sigmoid(input)``, without its loss of digits.

    Args:
        input: logits, any shape.
        target: numbers in [0, 1], the same shape.
        weight: factor of each element, anything that broadcasts to that shape, or None.
        reduction: "none", "mean" or "sum".
        pos_weight: factor of the positive class, anything that broadcasts to that shape, or None for 1.
    """
    _check_pair("binary_cross_entropy_with_logits", input, target, reduction)
    input = _full_precision(input)
    if pos_weight is not None:
        pos_weight = array_module(raw(input)).asarray(raw(pos_weight)).astype(input.dtype)
    return _reduce(_weighted(_bernoulli_logit_loss(input, target, pos_weight), weight), reduction)


@op
def _divergence(input: Array, target: Array, log_target: bool) -> Array:
    xp = array_module(target)
    if log_target:
        return xp.exp(target) * (target - input)
    zero = target == 0
    return xp.where(zero, 0, target * (xp.log(xp.where(zero, 1, target)) - input))


@_divergence.backward
def _(dy: Array, input: Array, target: Array, log_target: bool, needs: Any) -> Any:
    """With p the target: dx = -p; dp = ln p + 1 - x, and for a target ln p: p·(ln p - x + 1)."""
    dx = dt = None
    if log_target:
        probability = exp(target)
        dt = dy * probability * (target - input + 1) if needs.target else None
        return -dy * probability, dt
    if needs.input:
        dx = -dy * target
    if needs.target:
        dt = dy * where(target == 0, 0, log(where(target == 0, 1, target)) + 1 - input)
    return dx, dt


def kl_div(input: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback-Leibler divergence p·(ln p - input), element by element; p = 0 gives 0.

    Args:
        input: log-probabilities, any shape.
        target: probabilities p, or with ``log_target`` their logarithms, of the same shape.
        reduction: "none", "mean" (over all elements), "batchmean" (the divergence: the sum by the size of the first axis),
            "sum".
        log_target: what ``target`` holds.
    """
    _check_pair("kl_div", input, target, reduction, "batchmean")
    loss = _divergence(input, target, log_target)
    if reduction == "batchmean":
        return sum(loss) * (1 / max(input.shape[0] if input.ndim else 1, 1))
    return _reduce(loss, reduction)


# ------------------------------------------------------------------------------------ shared


def _reduce(loss: Tensor, reduction: str, total: float | None = None) -> Tensor:
    """A mean divides by ``total``, else by the number of elements; NaN if there is nothing to divide by, as in PyTorch."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return sum(loss)
    if total is None:
        return mean(loss)
    return sum(loss) * (1 / total if total else math.nan)


def _weighted(loss: Tensor, weight: Any) -> Tensor:
    return loss if weight is None else loss * array_module(raw(loss)).asarray(raw(weight)).astype(loss.dtype)


def _check_reduction(name: str, reduction: str, *more: str) -> None:
    known = ("none", "mean", "sum", *more)
    if reduction not in known:
        raise ValueError(f"{name}: expected reduction to be one of {', '.join(map(repr, known))}, got {reduction!r}")


def _check_pair(name: str, input: Any, target: Any, reduction: str, *more: str) -> None:
    _check_reduction(name, reduction, *more)
    if tuple(input.shape) != tuple(target.shape):
        raise ShapeError(name, "input and target must have the same shape", **_pair(input, target))


def _pair(input: Any, target: Any) -> dict[str, Any]:
    return {"input": (tuple(input.shape), ""), "target": (tuple(target.shape), "")}


def _is_floating(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "-") in INEXACT


def _quiet() -> Any:
    """Inside, the logarithm of 0 is -inf without a warning (a GPU never warns)."""
    return np.errstate(divide="ignore", invalid="ignore")


def _full_precision(input: Any) -> Any:
    """Whole numbers as float32; inside ``autocast`` 16-bit logits too, before weights are made to fit their dtype."""
    if getattr(getattr(input, "dtype", None), "kind", "") in ("i", "u", "b"):
        return cast(input, "float32")
    return cast(input, "float32") if state.autocast is not None and isinstance(input, Tensor) and is_half(input) else input
