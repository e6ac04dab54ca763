"""Every kernel once more in plain array operations, for what the CUDA code does not take: complex numbers and integers.

They are the definitions to read beside the fast versions: the same names, arguments and results. Nothing here is tuned, but
all of it repeats bit for bit: what overlaps is added cell by cell in a fixed order, never by atomics.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels.cpu.norm import follow
from minires.kernels.window import Window

__all__ = [
    "batch_norm", "batch_norm_backward", "batch_statistics", "conv2d", "conv2d_weight", "conv_transpose2d", "gated_residual",
    "gated_residual_backward", "matmul", "max_pool", "max_pool_gather", "max_pool_scatter", "pick", "resample",
]  # fmt: skip

Pair = tuple[int, int]


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """``a @ b`` over the last two axes."""
    return array_module(a).matmul(a, b, out=out)


# ------------------------------------------------------------------------------------------------ convolution


def conv2d(x: Any, weight: Any, bias: Any, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair) -> Any:
    """The convolution of x (N, C, H, W) with weight (O, C/groups, kH, kW): (N, O, *out_size) in channels-last memory."""
    window = Window(weight.shape[2:], stride, before, dilation, x.shape[2:], out_size)
    product = matmul(_columns(x, window, groups), _as_matrices(weight, groups))  # (g, N·H'·W', O/g)
    out = _join_groups(product, (len(x), *out_size))
    return _nchw(out if bias is None else out + bias)


def conv_transpose2d(
    grad_output: Any, weight: Any, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair
) -> Any:
    """The adjoint of :func:`conv2d` in x: from (N, O, H', W') back to (N, C, *out_size)."""
    images, channels = len(grad_output), weight.shape[1] * groups
    window = Window(weight.shape[2:], stride, before, dilation, out_size, grad_output.shape[2:])
    rows = _split_groups(grad_output, groups)  # (g, N·H'·W', O/g)
    columns = matmul(rows, _as_matrices(weight, groups).transpose(0, 2, 1))  # (g, N·H'·W', kH·kW·C/g)
    # (g, N, H', W', kH·kW, C/g) -> (N, H', W', kH·kW, g, C/g) -> (N, H', W', kH·kW, C)
    columns = columns.reshape(groups, images, *window.output_size, window.cells, weight.shape[1]).transpose(1, 2, 3, 4, 0, 5)
    columns = columns.reshape(images, *window.output_size, window.cells, channels)
    out = array_module(columns).zeros((images, *out_size, channels), columns.dtype)  # (N, H, W, C)
    for cell, inside, seen in window.taps():
        out[:, *seen] += columns[:, *inside, cell]
    return _nchw(out)


def conv2d_weight(x: Any, grad_output: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int) -> Any:
    """The gradient of the weight: the products of every input window with its grad_output, summed: (O, C/groups, kH, kW)."""
    window = Window(kernel, stride, before, dilation, x.shape[2:], grad_output.shape[2:])
    channels = x.shape[1] // groups
    sums = matmul(_columns(x, window, groups).transpose(0, 2, 1), _split_groups(grad_output, groups))  # (g, kH·kW·C/g, O/g)
    outputs = sums.shape[2]
    # (g, kH, kW, C/g, O/g) -> (g, O/g, C/g, kH, kW) -> (O, C/g, kH, kW)
    sums = sums.reshape(groups, *kernel, channels, outputs).transpose(0, 4, 3, 1, 2)
    return sums.reshape(groups * outputs, channels, *kernel)


def _columns(x: Any, window: Window, groups: int) -> Any:
    """What every output position sees of x (N, C, H, W), as one matrix a group: (g, N·H'·W', kH·kW·C/g)."""
    nhwc, (images, channels) = _nhwc(x), x.shape[:2]
    columns = array_module(x).zeros((images, *window.output_size, window.cells, channels), x.dtype)
    for cell, inside, seen in window.taps():
        columns[:, *inside, cell] = nhwc[:, *seen]
    per_group = channels // groups
    # (M, kH·kW, g, C/g) -> (g, M, kH·kW, C/g) -> (g, M, kH·kW·C/g)
    rows = images * window.output_size[0] * window.output_size[1]
    split = columns.reshape(rows, window.cells, groups, per_group).transpose(2, 0, 1, 3)
    return split.reshape(groups, rows, window.cells * per_group)


def _as_matrices(weight: Any, groups: int) -> Any:
    """(O, C/g, kH, kW) -> (g, O/g, C/g, kH, kW) -> (g, kH, kW, C/g, O/g) -> (g, kH·kW·C/g, O/g), one matrix a group."""
    outputs, channels, height, width = weight.shape
    split = weight.reshape(groups, outputs // groups, channels, height, width).transpose(0, 3, 4, 2, 1)
    return split.reshape(groups, height * width * channels, outputs // groups)


def _split_groups(image: Any, groups: int) -> Any:
    """(N, O, H', W') -> (N·H'·W', g, O/g) -> (g, N·H'·W', O/g)."""
    images, channels, height, width = image.shape
    return _nhwc(image).reshape(images * height * width, groups, channels // groups).transpose(1, 0, 2)


def _join_groups(product: Any, positions: tuple[int, ...]) -> Any:
    """(g, N·H'·W', O/g) -> (N·H'·W', g, O/g) -> (N, H', W', O)."""
    return product.transpose(1, 0, 2).reshape(*positions, product.shape[0] * product.shape[2])


# ------------------------------------------------------------------------------------------------ batch norm and gate


def batch_statistics(input: Any, running: tuple[Any, Any] = (None, None), momentum: float = 0.0) -> tuple[Any, Any]:
    """Mean and biased variance of each channel of ``input`` (N, C, ...), in float64 (or complex), each (C,).

    ``running`` (mean, variance) follow them in place: (1 - momentum)·running + momentum·new, with the unbiased variance.
    """
    xp, axes = array_module(input), (0, *range(2, input.ndim))
    wide = xp.result_type(input.dtype, np.float64)
    if not input.size:
        return xp.zeros(input.shape[1], wide), xp.zeros(input.shape[1], wide)
    x = input.astype(wide)
    mean = x.mean(axis=axes, keepdims=True)
    variance = ((x - mean) * (x - mean)).mean(axis=axes)  # no abs: a complex step goes through
    follow(running, mean.reshape(-1), variance, input.size // input.shape[1], momentum)
    return mean.reshape(-1), variance


def batch_norm(input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, relu: bool) -> Any:
    """(input - mean) / √(variance + eps) · weight + bias for each channel, then max(·, 0) if ``relu``."""
    scale, offset = _affine(mean, variance, weight, bias, eps)
    y = _last(input) * scale.astype(input.dtype) + offset.astype(input.dtype)  # (N, ..., C)
    return _first(_open(y) if relu else y)


def batch_norm_backward(
    grad_output: Any, input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, training: bool, relu: bool
) -> tuple[Any, Any, Any]:
    """Gradients of ``input``, ``weight`` and ``bias``: :func:`minires.kernels.cpu.norm.batch_norm_backward`."""
    xp, dtype = array_module(input), input.dtype
    wide = xp.result_type(dtype, np.float64)
    x, g = _last(input), _last(grad_output).astype(dtype, copy=False)  # (N, ..., C)
    scale, offset = _affine(mean, variance, weight, bias, eps)
    if relu:
        g = xp.where((x * scale.astype(dtype) + offset.astype(dtype)).real > 0, g, 0)
    axes, count = tuple(range(input.ndim - 1)), max(input.size // max(input.shape[1], 1), 1)
    rstd = 1 / xp.sqrt(variance.astype(wide) + eps)
    centred = x.astype(wide) - mean
    dbias, dweight = g.sum(axis=axes, dtype=wide), (g * centred).sum(axis=axes) * rstd
    dx = g - (centred * (dweight * rstd) + dbias) / count if training else g
    return _first((dx * scale).astype(dtype)), dweight.astype(dtype), dbias.astype(dtype)


def _affine(mean: Any, variance: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any]:
    """``scale`` and ``offset`` with input·scale + offset = batch norm, (C,), in float64 (or complex)."""
    xp = array_module(mean)
    scale = 1 / xp.sqrt(variance.astype(xp.result_type(variance.dtype, np.float64)) + eps)
    scale = scale if weight is None else scale * weight
    offset = -scale * mean
    return scale, (offset if bias is None else offset + bias)


def _open(x: Any) -> Any:
    """ReLU; the real part decides."""
    return array_module(x).where(x.real > 0, x, 0) if x.dtype.kind == "c" else array_module(x).maximum(x, 0)


def gated_residual(trunk: Any, logits: Any) -> Any:
    """(1 + σ(z))·F, in the memory order of ``trunk``."""
    return _ordered_like(trunk, trunk + trunk / (1 + array_module(trunk).exp(-logits)))


def gated_residual_backward(grad_output: Any, trunk: Any, logits: Any) -> tuple[Any, Any]:
    """Gradients g + g·M of the trunk and g·M·F·(1 - M) of the logits, with M = σ(z)."""
    mask = 1 / (1 + array_module(trunk).exp(-logits))
    df = grad_output * mask
    return _ordered_like(trunk, df + grad_output), _ordered_like(trunk, df * trunk * (1 - mask))


def _ordered_like(like: Any, values: Any) -> Any:
    """``values`` in the memory order of ``like``, where CuPy's operators answer in C order."""
    if like.flags.c_contiguous:
        return values
    out = array_module(like).empty_like(like)
    out[...] = values
    return out


# ------------------------------------------------------------------------------------------------ pooling


def max_pool(x: Any, window: Window) -> tuple[Any, Any]:
    """The largest value in every window, and the number of the cell that held it (the first of equals; NaN wins)."""
    xp, nhwc = array_module(x), _nhwc(x)
    shape = (len(x), *window.output_size, x.shape[1])  # (N, H', W', C)
    best = xp.full(shape, -np.inf if x.dtype.kind in "fV" else np.iinfo(x.dtype).min, x.dtype)
    winners = xp.zeros(shape, np.uint8 if window.cells <= 255 else np.int32)
    winners[...] = xp.asarray(window.first_cells().astype(winners.dtype))[:, :, None]  # (H', W', 1)
    for cell, inside, seen in window.taps():
        value, before = nhwc[:, *seen], best[:, *inside]
        larger = (value > before) | (value != value)
        winners[:, *inside] = xp.where(larger, winners.dtype.type(cell), winners[:, *inside])
        best[:, *inside] = xp.where(larger, value, before)
    return _nchw(best), _nchw(winners)


def max_pool_scatter(dy: Any, offsets: Any, window: Window) -> Any:
    """Add every dy (N, C, H', W') to zeros of (N, C, H, W), at the place where its window had its maximum."""
    xp, g, winners = array_module(dy), _nhwc(dy), _nhwc(offsets)
    dx = xp.zeros((len(dy), *window.input_size, dy.shape[1]), dy.dtype)  # (N, H, W, C)
    for cell, inside, seen in window.taps():
        dx[:, *seen] += xp.where(winners[:, *inside] == cell, g[:, *inside], 0)
    return _nchw(dx)


def max_pool_gather(x: Any, offsets: Any, window: Window) -> Any:
    """The value of x (N, C, H, W) where every window had its maximum: (N, C, H', W')."""
    xp, nhwc, winners = array_module(x), _nhwc(x), _nhwc(offsets)
    y = xp.zeros(winners.shape, x.dtype)  # (N, H', W', C)
    for cell, inside, seen in window.taps():
        y[:, *inside] = xp.where(winners[:, *inside] == cell, nhwc[:, *seen], y[:, *inside])
    return _nchw(y)


# ------------------------------------------------------------------------------------------------ resizing


def resample(x: Any, rows: Any, columns: Any) -> Any:
    """A·X·Bᵀ for each image and channel; NumPy arrays A (H', H), B (W', W): (N, C, H', W') in channels-last memory."""
    xp, nhwc = array_module(x), _nhwc(x)
    images, height, width, channels = nhwc.shape
    a, b = (xp.asarray(np.asarray(matrix, x.dtype)) for matrix in (rows, columns))
    half = matmul(a, nhwc.reshape(images, height, width * channels))  # (N, H', W·C)
    return _nchw(matmul(b, half.reshape(images, len(a), width, channels)))  # (N, H', W', C)


def pick(x: Any, rows: Any, columns: Any) -> Any:
    """Pixel (rows[i], columns[j]) of x (N, C, H, W), any dtype, as pixel (i, j): (N, C, H', W') in channels-last memory."""
    xp = array_module(x)
    return _nchw(_nhwc(x).take(xp.asarray(rows), axis=1).take(xp.asarray(columns), axis=2))


# ------------------------------------------------------------------------------------------------ memory order


def _nhwc(x: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C), a view."""
    return x.transpose(0, 2, 3, 1)


def _nchw(x: Any) -> Any:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return x.transpose(0, 3, 1, 2)


def _last(x: Any) -> Any:
    """(N, C, ...) -> (N, ..., C), a view."""
    return array_module(x).moveaxis(x, 1, -1)


def _first(x: Any) -> Any:
    """(N, ..., C) -> (N, C, ...), a view."""
    return array_module(x).moveaxis(x, -1, 1)
