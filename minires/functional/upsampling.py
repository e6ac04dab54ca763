"""Images made larger or smaller.

Bilinear interpolation takes a weighted mean of two rows and two columns, so it is linear, and acts on rows and columns
apart: Y = A·X·Bᵀ, where row i of A holds the two weights of output row i. Its gradient is then Aᵀ·dY·B, which is an
interpolation of the same form; average pooling is a third one (:mod:`minires.functional.pooling`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from minires import kernels
from minires.device import Array
from minires.errors import ShapeError
from minires.functional.windows import Size, pair
from minires.op import op
from minires.precision import INEXACT
from minires.tensor import Tensor

__all__ = ["interpolate"]

Factors = float | tuple[float, ...] | list[float] | None
_MODES = ("nearest", "nearest-exact", "bilinear")


def interpolate(
    input: Array,
    size: Size | None = None,
    scale_factor: Factors = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """The images of ``input`` resized.

    Args:
        input: (N, C, H, W). A single image needs a batch axis: PyTorch takes three axes for (N, C, length).
        size: height and width of the result, one integer or two. Either this or ``scale_factor`` must be given.
        scale_factor: how many times as high and wide, one number or two. The result has ⌊H·factor⌋ rows; coordinates are
            computed with the factor as given.
        mode: "nearest" copies the pixel at ⌊i / factor⌋, "nearest-exact" the one that lies nearest to the centre of the
            output pixel, at ⌊(i + ½) / factor⌋; "bilinear" mixes the four pixels around the centre.
        align_corners: for "bilinear" alone. True: the centres of the corner pixels of input and result coincide, so the
            step is (H - 1) / (H' - 1). False (the default): their outer edges do, so the step is H / H'.

    Returns:
        (N, C, H', W') in channels-last memory.

    Raises:
        ShapeError: ``input`` has not 4 axes, or a size is 0.
        ValueError: not exactly one of size and scale_factor, an unknown mode, align_corners where it means nothing.
        TypeError: integers cannot be interpolated bilinearly.
    """
    if getattr(input, "ndim", 0) != 4:
        raise ShapeError("interpolate", "input must have 4 axes", input=(getattr(input, "shape", ()), "N C H W"))
    if mode not in _MODES:
        raise ValueError(f"interpolate: mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}")
    if align_corners is not None and mode != "bilinear":
        raise ValueError(f"interpolate: align_corners is an option of mode 'bilinear', the mode is {mode!r}")
    source = (input.shape[-2], input.shape[-1])
    target, factors = _target_size(source, size, scale_factor)
    if min(*source, *target) < 1:
        rule = f"sizes must be at least 1, the result would be {target}"
        raise ShapeError("interpolate", rule, input=(input.shape, "N C H W"))
    axes = list(zip(source, target, factors, strict=True))
    if mode != "bilinear":
        indices = [_nearest(*axis, exact=mode == "nearest-exact") for axis in axes]
        return _pick(input, *indices)
    require_floating("interpolate: mode 'bilinear'", input)
    return resample(input, *(_bilinear(*axis, bool(align_corners)) for axis in axes))


@op
def resample(input: Array, rows: Any, columns: Any) -> Array:
    """A·X·Bᵀ for every image and channel: (N, C, H, W), A (H', H), B (W', W) -> (N, C, H', W').

    The matrices are constants, and stay NumPy arrays of float64 on every device: the kernel knows best what to make of them.
    """
    return kernels.of(input).resample(input, rows, columns)


@resample.backward
def _(dy: Array, rows: Any, columns: Any) -> Any:
    """⟨dY, A·X·Bᵀ⟩ = ⟨Aᵀ·dY·B, X⟩."""
    return resample(dy, rows.T, columns.T)


@op
def _pick(input: Array, rows: Any, columns: Any) -> Array:
    """Row ``rows[i]`` and column ``columns[j]`` of the input as pixel (i, j): (N, C, H, W) -> (N, C, H', W')."""
    return kernels.of(input).pick(input, rows, columns)


@_pick.backward
def _(dy: Array, rows: Any, columns: Any, input_shape: tuple[int, ...]) -> Any:
    """A pixel collects the gradients of all its copies: the transpose of a matrix with a single 1 in every row."""
    matrices = [np.eye(n)[index] for n, index in zip(input_shape[2:], (rows, columns), strict=True)]  # (H', H), (W', W)
    return resample(dy, *(m.T for m in matrices))


# ---------------------------------------------------------------------------------------- sizes, coordinates, weights


def _target_size(source: tuple[int, int], size: Any, scale_factor: Any) -> tuple[tuple[int, int], tuple[Any, Any]]:
    """Height and width of the result, and the factors if these were given instead."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: exactly one of size and scale_factor must be given")
    if size is not None:
        return pair("interpolate", "size", size, 0), (None, None)
    factors = tuple(scale_factor) if isinstance(scale_factor, tuple | list) else (scale_factor,) * 2
    if len(factors) != 2 or not all(isinstance(f, int | float) and f > 0 for f in factors):
        raise ValueError(f"interpolate: scale_factor must be one number or two, above 0, got {scale_factor!r}")
    return (math.floor(source[0] * factors[0]), math.floor(source[1] * factors[1])), factors


@lru_cache(maxsize=256)
def _nearest(source: int, target: int, factor: float | None, exact: bool) -> Any:
    """Which input position each output position copies: (target,) integers.

    As PyTorch does, in single precision, where a step of 1/3 is a little larger and may pick other pixels; and for
    "nearest" without the factor where the size stays or doubles (a factor of 1.1 or 2.1 may round down to that).
    """
    if not exact and target in (source, 2 * source):
        return np.arange(target) // (target // source)
    step = np.float32(1 / factor if factor else source / target)
    centre = np.float32(0.5 if exact else 0)
    index = np.floor((np.arange(target, dtype=np.float32) + centre) * step)
    return np.minimum(index.astype(np.int64), source - 1)


@lru_cache(maxsize=256)
def _bilinear(source: int, target: int, factor: float | None, align_corners: bool) -> Any:
    """The weights of the input positions for each output position: (target, source), each row adding up to 1."""
    if source == target:
        return np.eye(target)
    if align_corners:
        position = np.arange(target) * ((source - 1) / (target - 1) if target > 1 else 0.0)
    else:
        position = (np.arange(target) + 0.5) * (1 / factor if factor else source / target) - 0.5
    position = np.clip(position, 0, source - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    weights, each = np.zeros((target, source)), np.arange(target)
    weights[each, low] = 1 - (position - low)
    weights[each, high] += position - low
    return weights


def require_floating(what: str, input: Array) -> None:
    """Raise for integers and booleans, whose mean is none of them."""
    if input.dtype.kind not in INEXACT:
        raise TypeError(f"{what} needs floating point input, got {input.dtype} (use x.float())")
