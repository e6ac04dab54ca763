"""Normalisation: values are shifted to mean 0 and scaled to variance 1, then shifted and scaled by what is learned.

The members of the family differ only in what is averaged together: a channel over the batch (batch norm), a sample's
channels (layer norm), a group of them (group norm), one channel of one sample (instance norm). The gradient is the same
for all. With x̂ = (x - mean)/std over n values, each x moves x̂ directly, through the mean, and through the variance:

    dx = (dx̂ - mean(dx̂) - x̂·mean(dx̂·x̂)) / std

The variance is the biased one (divided by n); only running_var collects the unbiased one, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from minires.device import Array
from minires.errors import ShapeError
from minires.functional.activation import relu
from minires.functional.arithmetic import sqrt, where
from minires.functional.reduction import mean
from minires.functional.shaping import reshape
from minires.kernels import of as kernels_of
from minires.op import Op, Saved, op
from minires.operators import raw
from minires.precision import INEXACT
from minires.tensor import Tensor

__all__ = ["batch_norm", "batch_norm_relu", "group_norm", "instance_norm", "layer_norm"]

Running = tuple[Any, Any]  # (running_mean, running_var): Tensors, arrays or None


# ------------------------------------------------------------------------------------ batch norm


@op
def _batch_norm(
    input: Array, weight: Array | None, bias: Array | None, running: Running, training: bool, momentum: float, eps: float
) -> Array:
    """Batch norm; ``running`` is (running_mean, running_var), and updated if ``training``."""
    mean, variance = _statistics(input, running, training, momentum)
    y = kernels_of(input).batch_norm(input, mean, variance, weight, bias, eps, relu=False)
    return Saved(y, mean=mean, variance=variance)


@_batch_norm.backward
def _(
    dy: Array, input: Array, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, eps: float
) -> tuple[Any, Any, Any]:
    """Training: the formula in the head of this module. Evaluation: the statistics are constants, so dx = dy·weight/std."""
    return kernels_of(input).batch_norm_backward(  # type: ignore[no-any-return]
        dy, input, mean, variance, weight, bias, eps, training, relu=False
    )


@_batch_norm.definition
def _(
    input: Array, weight: Array | None, bias: Array | None, running: Running, training: bool, momentum: float, eps: float
) -> Any:
    shape = (1, input.shape[1], *(1 for _ in input.shape[2:]))
    if training:
        return _affine(standardize(input, (0, *range(2, input.ndim)), eps), weight, bias, shape)
    mean, variance = (each.astype(input.dtype).reshape(shape) for each in running)
    return _affine((input - mean) / (variance + eps) ** 0.5, weight, bias, shape)


@op
def _batch_norm_relu(
    input: Array, weight: Array | None, bias: Array | None, running: Running, training: bool, momentum: float, eps: float
) -> Array:
    """Batch norm and ReLU in one pass over the memory."""
    mean, variance = _statistics(input, running, training, momentum)
    y = kernels_of(input).batch_norm(input, mean, variance, weight, bias, eps, relu=True)
    return Saved(y, mean=mean, variance=variance)


@_batch_norm_relu.backward
def _(
    dy: Array, input: Array, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, eps: float
) -> tuple[Any, Any, Any]:
    """As batch norm's, for the gradient behind the ReLU. Where the ReLU was open is computed again from the input."""
    return kernels_of(input).batch_norm_backward(  # type: ignore[no-any-return]
        dy, input, mean, variance, weight, bias, eps, training, relu=True
    )


@_batch_norm_relu.definition
def _(
    input: Array, weight: Array | None, bias: Array | None, running: Running, training: bool, momentum: float, eps: float
) -> Any:
    return relu(_batch_norm.defined(input, weight, bias, running, training, momentum, eps))  # type: ignore[misc]


def batch_norm(
    input: Array,
    running_mean: Any,
    running_var: Any,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Each channel normalised over the batch: (x - mean)/√(var + eps)·weight + bias (Ioffe and Szegedy, 2015).

    Args:
        input: (N, C) or (N, C, ...), floating point.
        running_mean: (C,), or None. In training it becomes (1 - momentum)·running_mean + momentum·(mean of the batch), in
            place; in evaluation it is the mean.
        running_var: (C,), or None; likewise. It collects the unbiased variance, whereas the biased one normalises.
        weight: scale of each channel, (C,), or None for 1.
        bias: shift of each channel, (C,), or None for 0.
        training: normalise by the statistics of ``input`` rather than by the running ones.
        momentum: the share of the newest batch in the running statistics.
        eps: added to the variance.

    Returns:
        The shape and dtype of ``input``, in channels-last memory.

    Raises:
        ShapeError: the shapes do not fit together.
        ValueError: training on one value a channel (its variance is 0), or evaluation without running statistics.
    """
    return _run(_batch_norm, input, running_mean, running_var, weight, bias, training, momentum, eps)


def batch_norm_relu(
    input: Array,
    running_mean: Any,
    running_var: Any,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``relu(batch_norm(...))`` in one op, which reads the input once less and keeps nothing for the ReLU.

    Arguments and errors are those of :func:`batch_norm`.
    """
    return _run(_batch_norm_relu, input, running_mean, running_var, weight, bias, training, momentum, eps)


def _run(
    normalize: Op[Any],
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Check the arguments, then normalise."""
    name, shape = normalize.name, tuple(getattr(input, "shape", ()))
    _check_batch_norm(name, raw(input), running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if training:
        if math.prod(shape) == shape[1] > 0:
            raise ValueError(f"{name}: expected more than 1 value per channel when training, got input of shape {shape}")
        running: Running = (running_mean, running_var)
    else:
        if running_mean is None or running_var is None:
            raise ValueError(f"{name}: with training=False, running_mean and running_var must be given, got None")
        # Copies: the backward pass needs them as they are now, though training may change the running ones before it runs.
        running = (raw(running_mean).copy(), raw(running_var).copy())
    return normalize(input, weight, bias, running, training, momentum, eps)


def _statistics(input: Any, running: Running, training: bool, momentum: float) -> Running:
    """The mean and biased variance to normalise by: the running ones, or ``input``'s, which the running ones follow."""
    if not training:
        return running
    with ExitStack() as changes:
        for each in running:
            if isinstance(each, Tensor) and input.size:
                changes.enter_context(each.memory.announced_change())
        return kernels_of(input).batch_statistics(input, (raw(running[0]), raw(running[1])), momentum)  # type: ignore[no-any-return]


def _update(running: Any, new: Any, momentum: float) -> None:
    """running ← (1 - momentum)·running + momentum·new, in place."""
    if running is None:
        return
    values = ((1 - momentum) * raw(running) + momentum * new).astype(running.dtype)
    if isinstance(running, Tensor):
        running.assign(values)
    else:
        running[...] = values


def _check_batch_norm(name: str, x: Any, **vectors: Any) -> None:
    if getattr(x, "ndim", 0) < 2:
        raise ShapeError(name, "the input needs a batch axis and a channel axis", input=(getattr(x, "shape", ()), "N C"))
    _check_floating(name, x)
    for key, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (x.shape[1],):
            axes = {key: (vector.shape, "C")}
            rule = f"{key} must have one value for each of the {x.shape[1]} channels"
            raise ShapeError(name, rule, input=(x.shape, "N C H W" if x.ndim == 4 else ""), **axes)


# ------------------------------------------------------------------------------------ the rest of the family


@op
def standardize(input: Array, dim: tuple[int, ...], eps: float = 1e-5) -> Array:
    """(x - mean)/√(var + eps), mean and biased variance taken over the axes ``dim``.

    Where var + eps is 0 (eps = 0 and all values equal), 1 stands in for it: the result is 0 and its derivative finite.
    """
    return (input - mean(input, dim, keepdim=True)) / standard_deviation(input, dim, eps)


@standardize.backward
def _(dy: Array, y: Array, input: Array, dim: tuple[int, ...], eps: float) -> Any:
    """dx = (dy - mean(dy) - y·mean(dy·y)) / std: the direct path, that through the mean, that through the variance."""
    centred = dy - mean(dy, dim, keepdim=True) - y * mean(dy * y, dim, keepdim=True)
    return centred / standard_deviation(input, dim, eps)


def standard_deviation(input: Any, dim: tuple[int, ...], eps: float) -> Any:
    """√(var + eps) over the axes ``dim``, kept as axes of size 1; 1 where it would be 0."""
    centred = input - mean(input, dim, keepdim=True)
    variance = mean(centred * centred, dim, keepdim=True) + eps
    return sqrt(where(variance == 0, 1, variance))


def layer_norm(
    input: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Each sample normalised over its last axes (Ba, Kiros and Hinton, 2016).

    Args:
        input: (..., *normalized_shape), floating point.
        normalized_shape: sizes of the last axes, which are normalised together.
        weight: scale of each element, ``normalized_shape``, or None for 1.
        bias: shift of each element, ``normalized_shape``, or None for 0.
        eps: added to the (biased) variance.

    Raises:
        ShapeError: ``normalized_shape`` is not the end of the input's shape, or not the shape of weight and bias.
    """
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    first = input.ndim - len(shape)
    if not shape or first < 0 or tuple(input.shape[first:]) != shape:
        rule = f"the last axes of the input must be normalized_shape {shape}"
        raise ShapeError("layer_norm", rule, input=(input.shape, ""))
    for key, vector in {"weight": weight, "bias": bias}.items():
        if vector is not None and tuple(vector.shape) != shape:
            operands = {"input": (input.shape, ""), key: (vector.shape, "")}
            raise ShapeError("layer_norm", f"{key} must have the shape {shape}", **operands)
    _check_floating("layer_norm", input)
    return _affine(standardize(input, tuple(range(first, input.ndim)), eps), weight, bias, shape)


def group_norm(
    input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Tensor:
    """The channels of each sample normalised in ``num_groups`` groups (Wu and He, 2018).

    Args:
        input: (N, C, ...), floating point; C is a multiple of ``num_groups``.
        num_groups: how many groups of neighbouring channels there are.
        weight: scale of each channel, (C,), or None for 1.
        bias: shift of each channel, (C,), or None for 0.
        eps: added to the (biased) variance.

    Raises:
        ShapeError: the channels cannot be divided so, or weight or bias do not fit.
    """
    _check_batch_norm("group_norm", raw(input), weight=weight, bias=bias)
    channels = input.shape[1]
    if num_groups < 1 or channels % num_groups:
        rule = f"{channels} channels cannot be divided into {num_groups} equal groups"
        raise ShapeError("group_norm", rule, input=(input.shape, "N C H W" if input.ndim == 4 else ""))
    grouped = reshape(input, (input.shape[0], num_groups, channels // num_groups, *input.shape[2:]))  # (N, G, C/G, ...)
    normalized = reshape(standardize(grouped, tuple(range(2, grouped.ndim)), eps), tuple(input.shape))  # (N, C, ...)
    return _affine(normalized, weight, bias, (channels, *(1 for _ in input.shape[2:])))


def instance_norm(
    input: Array,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Each channel of each sample normalised over its positions (Ulyanov, Vedaldi and Lempitsky, 2016).

    Args:
        input: (N, C, ...) with at least one position axis, floating point.
        running_mean: (C,), or None. Updated in place, by the mean over the samples, with ``use_input_stats``, else used.
        running_var: (C,), or None; likewise, with the unbiased variance.
        weight: scale of each channel, (C,), or None for 1.
        bias: shift of each channel, (C,), or None for 0.
        use_input_stats: normalise by the statistics of ``input`` rather than by the running ones.
        momentum: the share of the newest batch in the running statistics.
        eps: added to the (biased) variance.

    Raises:
        ShapeError: the shapes do not fit together.
        ValueError: one position only (its variance is 0), or no statistics at all.
    """
    name, x = "instance_norm", raw(input)
    if getattr(x, "ndim", 0) < 3:
        raise ShapeError(name, "the input needs at least one axis behind N and C", input=(getattr(x, "shape", ()), "N C L"))
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    _check_batch_norm(name, x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    positions, axes = x[:1, :1].size, tuple(range(2, x.ndim))
    if positions == 1:
        raise ValueError(f"{name}: expected more than 1 value per channel of a sample, got input of shape {x.shape}")
    if x.size and x.dtype.kind in "fV":
        _update(running_mean, x.mean(axis=axes).mean(axis=0), momentum)
        _update(running_var, x.var(axis=axes, ddof=1).mean(axis=0), momentum)
    return _affine(standardize(input, axes, eps), weight, bias, (x.shape[1], *(1 for _ in axes)))


def _affine(input: Tensor, weight: Any, bias: Any, shape: tuple[int, ...]) -> Tensor:
    """input·weight + bias, both read as ``shape``; either may be None."""
    if weight is not None:
        input = input * reshape(weight, shape)
    return input if bias is None else input + reshape(bias, shape)


def _check_floating(name: str, x: Any) -> None:
    if x.dtype.kind not in INEXACT:
        raise TypeError(f"{name}: expected floating point input, got {x.dtype}")
