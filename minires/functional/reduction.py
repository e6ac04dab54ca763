"""Many elements become one: sums, means, extremes, norms, over any axes.

In each, ``dim`` is an axis, several axes, or None for all; ``keepdim`` leaves the reduced axes in place with size 1. The
rules first put the reduced axes back (:func:`_restored`); from there on broadcasting lines everything up.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minires.device import Array, array_module
from minires.errors import ShapeError
from minires.functional.arithmetic import abs, exp, floating, maximum, minimum, total, where
from minires.functional.shaping import (
    along,
    axes_of,
    axis_of,
    cast,
    expand,
    flip,
    permute,
    put,
    reshape,
    unsqueeze,
)  # fmt: skip
from minires.op import Saved, op
from minires.precision import is_half
from minires.tensor import Dims, Tensor

__all__ = [
    "amax", "amin", "cumsum", "logsumexp", "max", "mean", "min", "norm", "prod", "std", "sum", "var",
]  # fmt: skip


class ValuesAndIndices(NamedTuple):
    """What ``max`` and ``min`` along an axis return."""

    values: Tensor
    indices: Tensor


def _restored(reduced: Any, op: str, dim: Dims, shape: tuple[int, ...]) -> Any:
    """A reduced array (or its gradient) with the reduced axes back, as axes of size 1."""
    axes = axes_of(op, dim, shape)
    return reshape(reduced, tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _count(op: str, dim: Dims, shape: tuple[int, ...]) -> int:
    """How many elements become one."""
    return math.prod(shape[i] for i in axes_of(op, dim, shape))


@op
def sum(input: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    """Σ x over ``dim``. Integers and booleans add up to int64."""
    return total(input, axes_of("sum", dim, input.shape), keepdim)


@sum.backward
def _(dy: Array, input_shape: tuple[int, ...], dim: Dims) -> Any:
    """∂(Σx)/∂xᵢ = 1: each element gets the whole gradient."""
    return expand(_restored(dy, "sum", dim, input_shape), input_shape)


@op
def mean(input: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    """Σ x / n over ``dim``. The mean of integers or booleans is float32."""
    axes, x = axes_of("mean", dim, input.shape), floating(input)
    if is_half(x):
        return x.mean(axis=axes, dtype="float32", keepdims=keepdim).astype(x.dtype)
    return x.mean(axis=axes, keepdims=keepdim)


@mean.backward
def _(dy: Array, input_shape: tuple[int, ...], dim: Dims) -> Any:
    """∂(Σx/n)/∂xᵢ = 1/n."""
    share = dy / _count("mean", dim, input_shape) if math.prod(input_shape) else dy
    return expand(_restored(share, "mean", dim, input_shape), input_shape)


@op
def prod(input: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    """Π x over ``dim``."""
    return Saved(input.prod(axis=axes_of("prod", dim, input.shape), keepdims=keepdim), xp=array_module(input))


@prod.backward
def _(dy: Array, y: Array, input: Array, dim: Dims, xp: Any) -> Any:
    """∂(Πx)/∂xᵢ = the product of all others: y/xᵢ, or where some x is 0, one product for each i with xᵢ set to 1."""
    dy, y = (_restored(each, "prod", dim, input.shape) for each in (dy, y))
    if bool((input == 0).any()):
        return dy * _products_of_others(input, axes_of("prod", dim, input.shape), xp)
    return dy * (y / input)


def _products_of_others(input: Any, axes: tuple[int, ...], xp: Any) -> Any:
    """For each element the product of all others along the axes; takes n² memory, but is itself differentiable at 0."""
    shape, free = input.shape, [i for i in range(input.ndim) if i not in axes]
    order = (*free, *axes)
    rows = reshape(permute(input, order), (*(shape[i] for i in free), -1))  # (free axes, n)
    itself = xp.eye(rows.shape[-1], dtype=bool)
    others = prod(where(itself, 1, unsqueeze(rows, -2)), -1)  # (free axes, n, n) -> (free axes, n)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return permute(reshape(others, tuple(shape[i] for i in order)), tuple(inverse))


@op
def cumsum(input: Array, dim: int) -> Array:
    """yᵢ = x₀ + … + xᵢ along ``dim``."""
    axis_of("cumsum", dim, input.shape)
    return (input if input.ndim else input.reshape(1)).cumsum(axis=dim).reshape(input.shape)


@cumsum.backward
def _(dy: Array, dim: int) -> Any:
    """xᵢ is part of yᵢ, yᵢ₊₁, …, so its gradient is the sum of dy from i to the end."""
    return flip(cumsum(flip(dy, dim), dim), dim)


# ------------------------------------------------------------------------------------ extremes


def max(input: Array, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest of all elements, or along an axis as a tuple ``(values, indices)``.

    Of several largest, along an axis the first is chosen and gets the whole gradient; over all elements they share it.
    ``max(x, y)`` of two Tensors is ``maximum(x, y)``.
    """
    if dim is None:
        return amax(input)
    if hasattr(dim, "shape"):
        return maximum(input, dim)
    return ValuesAndIndices(*extreme_along(input, dim, keepdim, "max"))


def min(input: Array, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest of all elements, or along an axis as a tuple ``(values, indices)``; ties as in :func:`max`.

    ``min(x, y)`` of two Tensors is ``minimum(x, y)``.
    """
    if dim is None:
        return amin(input)
    if hasattr(dim, "shape"):
        return minimum(input, dim)
    return ValuesAndIndices(*extreme_along(input, dim, keepdim, "min"))


@op
def extreme_along(input: Array, dim: int, keepdim: bool, kind: str) -> Array:
    """The largest ("max") or smallest ("min") values along one axis, and their indices there (the first, on ties)."""
    axis = axis_of(kind, dim, input.shape)
    _check_not_empty(kind, input, (axis,) if input.ndim else ())
    x = input if input.ndim else input.reshape(1)
    real = x.real  # comparisons are on the real part
    index = real.argmax(axis, keepdims=True) if kind == "max" else real.argmin(axis, keepdims=True)  # size 1 on the axis
    shape = index.shape if keepdim else index.shape[:axis] + index.shape[axis + 1 :]
    shape = shape if input.ndim else ()
    return Saved((x[along(axis, index)].reshape(shape), index.reshape(shape).copy()), index=index)


@extreme_along.backward
def _(dy: Any, input_shape: tuple[int, ...], dim: int, index: Any, kind: str) -> Any:
    """1 at the chosen element, 0 at all others."""
    shape, axis = input_shape or (1,), axis_of(kind, dim, input_shape)
    chosen = put(reshape(dy[0], index.shape), along(axis, index), shape)
    return reshape(chosen, input_shape)


@op
def amax(input: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    """The largest element over ``dim``. Of several largest each gets the same share of the gradient."""
    axes = axes_of("amax", dim, input.shape)
    _check_not_empty("amax", input, axes)
    return input.max(axis=axes, keepdims=keepdim)


@amax.backward
def _(dy: Array, y: Array, input: Array, dim: Dims) -> Any:
    return _shared(dy, y, input, dim)


@op
def amin(input: Array, dim: Dims = None, keepdim: bool = False) -> Array:
    """The smallest element over ``dim``. Of several smallest each gets the same share of the gradient."""
    axes = axes_of("amin", dim, input.shape)
    _check_not_empty("amin", input, axes)
    return input.min(axis=axes, keepdims=keepdim)


@amin.backward
def _(dy: Array, y: Array, input: Array, dim: Dims) -> Any:
    return _shared(dy, y, input, dim)


def _shared(dy: Any, y: Any, input: Any, dim: Dims) -> Any:
    """The gradient in equal shares to all elements that equal the extreme."""
    chosen = cast(input == _restored(y, "amax", dim, input.shape), dy.dtype)
    return _restored(dy, "amax", dim, input.shape) * chosen / sum(chosen, dim, True)


def _check_not_empty(op: str, input: Any, axes: tuple[int, ...]) -> None:
    if not math.prod(input.shape[i] for i in axes):
        raise ShapeError(op, "there is no extreme of no elements", input=(input.shape, ""))


# ------------------------------------------------------------------------------------ spread and size


def var(
    input: Array, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: int = 1
) -> Tensor:
    """Variance Σ(x - mean)² / (n - ``correction``) over ``dim``. ``unbiased=False`` means ``correction=0``."""
    dim, correction = _spread_options(dim, unbiased, correction)
    return variance(input, dim, keepdim, correction)


def std(
    input: Array, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: int = 1
) -> Tensor:
    """Standard deviation, the square root of :func:`var`; where it is 0, its derivative is taken as 0."""
    dim, correction = _spread_options(dim, unbiased, correction)
    return deviation(input, dim, keepdim, correction)


def _spread_options(dim: Any, unbiased: bool | None, correction: int) -> tuple[Dims, int]:
    if isinstance(dim, bool):  # PyTorch's var(input, unbiased)
        dim, unbiased = None, dim
    return dim, correction if unbiased is None else int(unbiased)


def _freedom(op: str, dim: Dims, shape: tuple[int, ...], correction: int) -> float:
    """Degrees of freedom n - correction; NaN if none are left, which makes the variance NaN as well."""
    left = _count(op, dim, shape) - correction
    return left if left > 0 else math.nan


@op
def variance(input: Array, dim: Dims, keepdim: bool, correction: int) -> Array:
    """Σ(x - mean)² / (n - correction)."""
    return _variance("var", input, dim, keepdim, correction)


def _variance(op: str, input: Any, dim: Dims, keepdim: bool, correction: int) -> Any:
    axes, freedom = axes_of(op, dim, input.shape), _freedom(op, dim, input.shape, correction)
    centred = input - input.mean(axis=axes, keepdims=True)
    return (centred * centred).sum(axis=axes, keepdims=keepdim) / freedom


@variance.backward
def _(dy: Array, input: Array, dim: Dims, correction: int) -> Any:
    """∂var/∂xᵢ = 2(xᵢ - mean)/(n - correction); what x does to the mean cancels, because Σ(x - mean) = 0."""
    factor = 2 / _freedom("var", dim, input.shape, correction)
    return _restored(dy * factor, "var", dim, input.shape) * (input - mean(input, dim, True))


@op
def deviation(input: Array, dim: Dims, keepdim: bool, correction: int) -> Array:
    """√(Σ(x - mean)² / (n - correction))."""
    return array_module(input).sqrt(_variance("std", input, dim, keepdim, correction))


@deviation.backward
def _(dy: Array, y: Array, input: Array, dim: Dims, correction: int) -> Any:
    """∂√var/∂x = ∂var/∂x / (2√var)."""
    factor = 1 / _freedom("std", dim, input.shape, correction)
    share = _restored(dy * factor / _nonzero(y), "std", dim, input.shape)
    return share * (input - mean(input, dim, True))


def _nonzero(divisor: Any) -> Any:
    """A divisor with infinity in place of 0, so that the quotient there is 0."""
    return where(divisor == 0, math.inf, divisor)


@op
def logsumexp(input: Array, dim: Dims, keepdim: bool = False) -> Array:
    """ln Σ eˣ over ``dim``, a smooth maximum. The largest x is taken out first, so that nothing overflows."""
    axes, x, xp = axes_of("logsumexp", dim, input.shape), floating(input), array_module(input)
    if not math.prod(x.shape[i] for i in axes):  # ln 0
        return xp.full(x.sum(axis=axes, keepdims=keepdim).shape, -math.inf, x.dtype)
    top = x.real.max(axis=axes, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0)  # for a row of -inf alone, or with +inf
    with np.errstate(divide="ignore", over="ignore"):
        y = top + xp.log(xp.exp(x - top).sum(axis=axes, keepdims=True))
    return y if keepdim else y.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))


@logsumexp.backward
def _(dy: Array, y: Array, input: Array, dim: Dims) -> Any:
    """∂y/∂xᵢ = e^(xᵢ - y), the softmax of x."""
    dy, y = (_restored(each, "logsumexp", dim, input.shape) for each in (dy, y))
    return dy * exp(input - y)


def norm(input: Array, p: float | str = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The size of the vector of all elements over ``dim``.

    ``p=2`` (or "fro"): √Σx²; ``p=1``: Σ|x|; ``p=inf`` and ``p=-inf``: the largest and the smallest |x|; ``p=0``: how many x
    are not 0; any other number: (Σ|x|ᵖ)^(1/p).
    """
    if p in (2, "fro"):
        return euclidean(input, dim, keepdim)
    if p == 1:
        return sum(abs(input), dim, keepdim)
    if p in (math.inf, -math.inf):
        return (amax if p == math.inf else amin)(abs(input), dim, keepdim)
    if p == 0:
        return sum(cast(input != 0, floating(input).dtype), dim, keepdim)
    if isinstance(p, str):
        raise ValueError(f"norm: p must be a number or 'fro', got {p!r}")
    out: Tensor = _root(sum(_root(abs(input), 1 / p), dim, keepdim), p)
    return out


def _root(x: Any, p: float) -> Any:
    """x^(1/p) for x ≥ 0; at x = 0, where it may have no finite derivative, that is taken as 0."""
    if p < 0:
        return x ** (1 / p)
    zero = x == 0
    return where(zero, 0, where(zero, 1, x) ** (1 / p))


@op
def euclidean(input: Array, dim: Dims, keepdim: bool) -> Array:
    """‖x‖ = √Σx²."""
    return array_module(input).sqrt((input * input).sum(axis=axes_of("norm", dim, input.shape), keepdims=keepdim))


@euclidean.backward
def _(dy: Array, y: Array, input: Array, dim: Dims) -> Any:
    """∂‖x‖/∂x = x/‖x‖, and 0 where x is 0."""
    return _restored(dy / _nonzero(y), "norm", dim, input.shape) * input
