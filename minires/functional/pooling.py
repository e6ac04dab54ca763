"""Pooling: every window of an image becomes one number, its largest or its mean.

A maximum keeps, for each output, which cell of the window won (one byte), and neither its input nor its output. Its gradient
goes to the winners (scatter); the gradient of that is read off at the winners (gather), whose gradient scatters again.

A mean is linear and acts on rows and columns apart, so average pooling is Y = A·X·Bᵀ like bilinear resizing, where row i of
A holds 1/kH at the rows that window i covers. It needs no rule of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minires import kernels
from minires.device import Array, array_module
from minires.errors import ShapeError
from minires.functional.upsampling import require_floating, resample
from minires.functional.windows import Size, batched, check_image, image_axes, make_window, pair
from minires.kernels.window import Window
from minires.op import Saved, op
from minires.tensor import Tensor

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d", "max_unpool2d"]

OutputSize = int | None | tuple[int | None, ...] | list[int | None]


# ---------------------------------------------------------------------------------------- maximum


def max_pool2d(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value in every window; of equals the first, row by row, gets the gradient.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size: height and width of the window, one integer or two; so are the following.
        stride: step between windows; None: ``kernel_size``.
        padding: how far windows reach over the edge, at most half a window. The padding counts as -inf.
        dilation: step between the cells of the window.
        ceil_mode: add a last window that reaches over the bottom or right edge, if it starts inside the input or the
            left padding.
        return_indices: return also where each maximum was, as ``h·W + w`` (int64).

    Returns:
        (N, C, H', W') in channels-last memory, or (C, H', W'); with ``return_indices`` a tuple of it and the indices.

    Raises:
        ShapeError: ``input`` has not 3 or 4 axes, or a window holds no element of it.
        ValueError: the padding is more than half of the (dilated) window.
    """
    window = _pool_window("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode)
    if not window.always_sees_input():
        rule = f"a window {window.kernel} with padding {window.padding} and dilation {window.dilation} sees no input"
        raise ShapeError("max_pool2d", rule, input=(input.shape, image_axes(input)))
    if input.dtype.kind == "b":
        raise TypeError("max_pool2d: booleans have no maximum (use x.float())")
    return batched(_max_pool2d, input, window, return_indices)


@op
def _max_pool2d(input: Array, window: Window, return_indices: bool) -> Array:
    """(N, C, H, W) -> (N, C, H', W') [and int64 indices of that shape]."""
    kernel = kernels.of(input)
    y, offsets = kernel.max_pool(input.real, window)
    if input.dtype.kind == "c":  # the real part decides, all of the winner passes
        y = kernel.max_pool_gather(input, offsets, window)
    return Saved((y, _flat_indices(offsets, window)) if return_indices else y, offsets=offsets)


@_max_pool2d.backward
def _(dy: Array, offsets: Any, window: Window) -> Any:
    return _max_scatter(dy[0] if isinstance(dy, tuple) else dy, offsets, window)


@op
def _max_scatter(input: Array, offsets: Any, window: Window) -> Array:
    """Every element added where its window had its maximum: (N, C, H', W') -> (N, C, H, W)."""
    return kernels.of(input).max_pool_scatter(input, offsets, window)


@_max_scatter.backward
def _(dy: Array, offsets: Any, window: Window) -> Any:
    return _max_gather(dy, offsets, window)


@op
def _max_gather(input: Array, offsets: Any, window: Window) -> Array:
    """The element where every window had its maximum: (N, C, H, W) -> (N, C, H', W')."""
    return kernels.of(input).max_pool_gather(input, offsets, window)


@_max_gather.backward
def _(dy: Array, offsets: Any, window: Window) -> Any:
    return _max_scatter(dy, offsets, window)


def _flat_indices(offsets: Any, window: Window) -> Any:
    """The numbers of cells inside their windows as positions ``h·W + w`` in the image."""
    xp = array_module(offsets)
    rows, columns = xp.divmod(offsets.astype(np.int64), window.kernel[1])
    top, left = (xp.arange(n) * s - p for n, s, p in zip(window.output_size, window.stride, window.padding, strict=True))
    rows = rows * window.dilation[0] + top[:, None]
    return rows * window.input_size[1] + columns * window.dilation[1] + left


# ---------------------------------------------------------------------------------------- the reverse of max pooling


def max_unpool2d(
    input: Array,
    indices: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Any = None,
) -> Tensor:
    """Zeros with every element of ``input`` where :func:`max_pool2d` had found it.

    Args:
        input: (N, C, H', W') or (C, H', W').
        indices: integers of the same shape, ``h·W + w``, from ``max_pool2d(..., return_indices=True)``. Where an index comes
            twice in an image, one of the elements is taken, and both get its gradient.
        kernel_size: as for the pooling; so are the following.
        stride: None: ``kernel_size``.
        padding: how far the windows reached over the edge.
        output_size: shape of the result, or its last two sizes. Without it ``(H' - 1)·stride - 2·padding + kernel_size``,
            from which it may differ by less than a stride: pooling rounds down.

    Raises:
        ShapeError: ``input`` has not 3 or 4 axes, ``indices`` another shape, or ``output_size`` is too far off.
        IndexError: an index lies outside of the result.
    """
    check_image("max_unpool2d", input)
    axes = image_axes(input)
    if tuple(indices.shape) != tuple(input.shape):
        rule = "indices must have the shape of input"
        raise ShapeError("max_unpool2d", rule, input=(input.shape, axes), indices=(indices.shape, axes))
    indices = indices.data if isinstance(indices, Tensor) else indices
    if indices.dtype.kind not in "iu":
        raise TypeError(f"max_unpool2d: indices must be integers, got {indices.dtype}")
    kernel = pair("max_unpool2d", "kernel_size", kernel_size, 1)
    step = kernel if stride is None else pair("max_unpool2d", "stride", stride, 1)
    pad = pair("max_unpool2d", "padding", padding, 0)
    full = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(input.shape[-2:], step, pad, kernel, strict=True)]
    size = tuple(int(n) for n in (full if output_size is None else output_size)[-2:])
    if len(size) != 2 or any(abs(n - f) >= s for n, f, s in zip(size, full, step, strict=True)) or min(size) < 1:
        rule = f"output_size {size} must differ by less than the stride {step} from {tuple(full)}"
        raise ShapeError("max_unpool2d", rule, input=(input.shape, axes))
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < size[0] * size[1]:
        raise IndexError(f"max_unpool2d: indices reach from {indices.min()} to {indices.max()}, the result is {size}")
    return batched(_unpool, input, indices if indices.ndim == 4 else indices[None], size)


@op
def _unpool(input: Array, indices: Any, size: tuple[int, int]) -> Array:
    """Every element written to its position: (N, C, H', W') -> (N, C, *size)."""
    where = _planes(indices), indices.reshape(_flat(indices.shape))
    out = kernels.of(input).put_last(input.reshape(_flat(input.shape)), where, _flat((*input.shape[:2], *size)))
    return out.reshape(*input.shape[:2], *size)  # (N·C, H·W) -> (N, C, H, W)


@_unpool.backward
def _(dy: Array, indices: Any) -> Any:
    return _gather(dy, indices)


@op
def _gather(input: Array, indices: Any) -> Array:
    """The elements at positions ``h·W + w``: (N, C, H, W), indices (N, C, H', W') -> (N, C, H', W')."""
    planes = input.reshape(_flat(input.shape))  # (N·C, H·W)
    return planes[_planes(indices), indices.reshape(_flat(indices.shape))].reshape(indices.shape)


@_gather.backward
def _(dy: Array, indices: Any, input_shape: tuple[int, ...]) -> Any:
    return _scatter(dy, indices, input_shape[2:])


@op
def _scatter(input: Array, indices: Any, size: tuple[int, ...]) -> Array:
    """Every element added at its position: (N, C, H', W') -> (N, C, *size)."""
    where = _planes(indices), indices.reshape(_flat(indices.shape))
    out = kernels.of(input).put_add(input.reshape(_flat(input.shape)), where, _flat((*input.shape[:2], *size)))
    return out.reshape(*input.shape[:2], *size)  # (N·C, H·W) -> (N, C, H, W)


@_scatter.backward
def _(dy: Array, indices: Any) -> Any:
    return _gather(dy, indices)


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    """(N, C, H, W) -> (N·C, H·W); written out, because -1 means nothing in an empty batch."""
    return shape[0] * shape[1], shape[2] * shape[3]


def _planes(indices: Any) -> Any:
    """The number of the plane (one channel of one image) of each index: (N·C, 1)."""
    return array_module(indices).arange(indices.shape[0] * indices.shape[1])[:, None]


# ---------------------------------------------------------------------------------------- mean


def avg_pool2d(
    input: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of every window.

    Args:
        input: (N, C, H, W) or (C, H, W), floating point.
        kernel_size: height and width of the window, one integer or two; so are the following.
        stride: step between windows; None: ``kernel_size``.
        padding: zeros around the image, at most half a window.
        ceil_mode: add a last window that reaches over the bottom or right edge, if it starts inside the input or the
            left padding. What it has beyond the padding is not counted.
        count_include_pad: divide by all cells including the padding's zeros; else by those inside the image.
        divisor_override: divide by this instead.

    Returns:
        (N, C, H', W') in channels-last memory, or (C, H', W').

    Raises:
        ShapeError: ``input`` has not 3 or 4 axes, or the window is larger than the padded image.
        ValueError: the padding is more than half of the window, or the divisor is 0.
        TypeError: the input holds integers.
    """
    window = _pool_window("avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode)
    require_floating("avg_pool2d:", input)
    if divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    rows, columns = (_window_means(window, axis, count_include_pad, divisor_override is None) for axis in (0, 1))
    if divisor_override is not None:
        rows = rows / divisor_override
    return batched(resample, input, rows, columns)


@lru_cache(maxsize=256)
def _window_means(window: Window, axis: int, count_include_pad: bool, divide: bool) -> Any:
    """The weights of the input positions along an axis, for each output position: (H', H)."""
    size, padding = window.input_size[axis], window.padding[axis]
    weights = np.zeros((window.output_size[axis], size))
    for row, start in zip(weights, window.origins(axis), strict=True):
        stop = min(start + window.kernel[axis], size + padding)
        first, last = max(start, 0), min(stop, size)
        row[first:last] = 1 / ((stop - start) if count_include_pad else (last - first)) if divide else 1
    return weights


# ---------------------------------------------------------------------------------------- adaptive: the output size is given


def adaptive_avg_pool2d(input: Array, output_size: OutputSize) -> Tensor:
    """The mean of windows laid out so that there are ``output_size`` of them.

    Window i of n covers rows ⌊i·H/n⌋ to ⌈(i + 1)·H/n⌉; neighbours may overlap by one row.

    Args:
        input: (N, C, H, W) or (C, H, W), floating point.
        output_size: height and width of the result, one integer or two; None keeps the input's.

    Returns:
        (N, C, H', W') in channels-last memory, or (C, H', W').

    Raises:
        ShapeError: ``input`` has not 3 or 4 axes, or is empty.
        TypeError: the input holds integers.
    """
    sizes = _adaptive_sizes("adaptive_avg_pool2d", input, output_size)
    require_floating("adaptive_avg_pool2d:", input)
    rows, columns = (_adaptive_means(*each) for each in sizes)
    return batched(resample, input, rows, columns)


def adaptive_max_pool2d(input: Array, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The largest value of windows laid out so that there are ``output_size`` of them; of equals the first.

    Window i of n covers rows ⌊i·H/n⌋ to ⌈(i + 1)·H/n⌉; neighbours may overlap by one row.

    Args:
        input: (N, C, H, W) or (C, H, W).
        output_size: height and width of the result, one integer or two; None keeps the input's.
        return_indices: return also where each maximum was, as ``h·W + w`` (int64).

    Returns:
        (N, C, H', W'), or (C, H', W'); with ``return_indices`` a tuple of it and the indices.

    Raises:
        ShapeError: ``input`` has not 3 or 4 axes, or is empty.
    """
    (height, rows), (width, columns) = _adaptive_sizes("adaptive_max_pool2d", input, output_size)
    windows = (_adaptive_windows(height, rows), _adaptive_windows(width, columns))
    return batched(_adaptive_max, input, *windows, return_indices)


@op
def _adaptive_max(input: Array, rows: Any, columns: Any, return_indices: bool) -> Array:
    """(N, C, H, W), rows (2, H'), columns (2, W') -> (N, C, H', W') [and int64 indices of that shape]."""
    xp = array_module(input)
    best, column = _segment_argmax(input.real, columns)  # (N, C, H, W')
    _, row = _segment_argmax(best.swapaxes(2, 3), rows)  # (N, C, W', H')
    row = row.swapaxes(2, 3)  # (N, C, H', W')
    indices = row * input.shape[3] + xp.take_along_axis(column, row, axis=2)
    y = _gather.forward(input, indices)
    return Saved((y, indices) if return_indices else y, indices=indices)


@_adaptive_max.backward
def _(dy: Array, indices: Any, input_shape: tuple[int, ...]) -> Any:
    return _scatter(dy[0] if isinstance(dy, tuple) else dy, indices, input_shape[2:])


def _segment_argmax(x: Any, segments: Any) -> tuple[Any, Any]:
    """The largest value between each start and stop along the last axis, and its position; first of equals, NaN wins.

    The loop runs over the places inside a segment. A segment that is over sees its last element again, which changes
    nothing.
    """
    xp = array_module(x)
    starts, stops = xp.asarray(segments[0]), xp.asarray(segments[1])
    best = x[..., starts]
    position = xp.broadcast_to(starts, best.shape)
    for step in range(1, int((segments[1] - segments[0]).max(initial=1))):
        here = xp.minimum(starts + step, stops - 1)
        value = x[..., here]
        larger = (value > best) | (value != value)
        best, position = xp.where(larger, value, best), xp.where(larger, here, position)
    return best, position


def _adaptive_windows(size: int, windows: int) -> Any:
    """Where each window starts and stops along an axis: (2, windows)."""
    number = np.arange(windows)
    return np.stack([number * size // max(1, windows), -(-(number + 1) * size // max(1, windows))])


@lru_cache(maxsize=256)
def _adaptive_means(size: int, windows: int) -> Any:
    """The weights of the input positions for each window along an axis: (windows, size)."""
    weights = np.zeros((windows, size))
    for row, start, stop in zip(weights, *_adaptive_windows(size, windows), strict=True):
        row[start:stop] = 1 / (stop - start)
    return weights


# ---------------------------------------------------------------------------------------- arguments


def _pool_window(
    name: str, input: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Window:
    """The window that the options of a pooling op describe, checked."""
    check_image(name, input)
    kernel = pair(name, "kernel_size", kernel_size, 1)
    step = kernel if stride is None else pair(name, "stride", stride, 1)
    pad, spread = pair(name, "padding", padding, 0), pair(name, "dilation", dilation, 1)
    if any(2 * p > (k - 1) * d + 1 for p, k, d in zip(pad, kernel, spread, strict=True)):
        raise ValueError(f"{name}: padding {pad} is more than half of the window {kernel} with dilation {spread}")
    return make_window(name, input, kernel, step, pad, spread, ceil_mode)


def _adaptive_sizes(name: str, input: Array, output_size: Any) -> list[tuple[int, int]]:
    """(input size, output size) for the vertical and the horizontal axis."""
    check_image(name, input)
    given = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * 2
    if len(given) != 2:
        raise ValueError(f"{name}: output_size must be one integer or two, got {output_size!r}")
    wanted = pair(name, "output_size", [n if w is None else w for n, w in zip(input.shape[-2:], given, strict=True)], 0)
    if min(input.shape[-2:]) < 1:
        raise ShapeError(name, "the image is empty", input=(input.shape, image_axes(input)))
    return list(zip(input.shape[-2:], wanted, strict=True))
