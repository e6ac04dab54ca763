"""Convolution on a GPU: matrix products on channels-last memory, without ever storing all columns.

As on the CPU (:mod:`minires.kernels.cpu.conv` explains the columns) there are three functions, and here four ways to compute
each; :func:`_way` decides.

* ``"pointwise"``: a 1×1 convolution is one matrix product on the image as it lies in memory.
* ``"depthwise"``: one input channel a group. There is no product to make, only a kernel to slide.
* ``"tensor cores"``: the product reads its windows straight from the image, see :mod:`minires.kernels.cuda.conv_mma`.
* ``"columns"``: everything else. Some windows at a time are copied out into a matrix small enough to stay in the GPU's
  second-level cache, and cuBLAS multiplies it.

Complex and integer arrays go through :mod:`minires.kernels.cuda.plain`. All sums are made in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels.cuda import conv_mma, plain
from minires.kernels.cuda.blas import multiply_add
from minires.kernels.cuda.build import launch
from minires.kernels.cuda.geometry import Geometry

__all__ = ["conv2d", "conv2d_weight", "conv_transpose2d"]

Pair = tuple[int, int]

#: Bytes of columns made at a time. Predicted, not measured: an H200 has 60 MB of second-level cache, and what is written to
#: half of it should still be there when cuBLAS reads it. This is also what a convolution needs beside its result.
_COLUMN_BYTES = 32 << 20

#: A slice of columns has a multiple of so many rows, that no tile of the product is cut.
_ROW_MULTIPLE = 128

#: A depthwise weight gradient is summed up in so many shares at most, by blocks with so many lines of 32 threads.
_DEPTHWISE_SHARES, _DEPTHWISE_LINES = 64, 8

#: What the kernels are compiled for; other dtypes take the plain path.
_DTYPES = ("float16", "bfloat16", "float32", "float64")


def conv2d(x: Any, weight: Any, bias: Any, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair) -> Any:
    """The convolution of x (N, C, H, W) with weight (O, C/groups, kH, kW): (N, O, *out_size) in channels-last memory."""
    xp = array_module(x)
    dtype = xp.result_type(x, weight)
    if dtype.name not in _DTYPES:
        return plain.conv2d(x, weight, bias, stride, before, dilation, groups, out_size)
    shape = (len(x), x.shape[1], len(weight), weight.shape[2:])
    g = Geometry(*shape, stride, before, dilation, groups, x.shape[2:], out_size)
    image, weight = _nhwc(x, dtype), weight.astype(dtype, copy=False)
    out = xp.empty((g.count, *g.out_size, g.outputs), dtype)  # (N, H', W', O)
    way = _way(g, dtype, x.size * weight.size)
    if way == "tensor cores":
        return _nchw(conv_mma.forward(g, image, weight, bias, out))
    if way == "nothing":
        out[...] = 0
    elif way == "pointwise":
        _multiply(_pixels(g, image), weight.reshape(g.outputs, -1), out, g.groups)
    elif way == "depthwise":
        _depthwise(g, "depthwise", out, image, _as_cells(g, weight))
    else:
        matrix = _as_matrix(weight)
        rows = out.reshape(-1, g.outputs)  # (N·H'·W', O)
        for part, columns in _column_slices(g, image):
            _multiply(columns, matrix, rows[part], g.groups)
    if bias is not None:
        out += bias.astype(dtype, copy=False)
    return _nchw(out)


def conv_transpose2d(
    grad_output: Any, weight: Any, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair
) -> Any:
    """The adjoint of :func:`conv2d` in x: from (N, O, H', W') back to (N, C, *out_size), in channels-last memory."""
    xp = array_module(grad_output)
    dtype = xp.result_type(grad_output, weight)
    if dtype.name not in _DTYPES:
        return plain.conv_transpose2d(grad_output, weight, stride, before, dilation, groups, out_size)
    shape = (len(grad_output), weight.shape[1] * groups, len(weight), weight.shape[2:])
    g = Geometry(*shape, stride, before, dilation, groups, out_size, grad_output.shape[2:])
    dy, weight = _nhwc(grad_output, dtype), weight.astype(dtype, copy=False)  # (N, H', W', O)
    dx = xp.empty((g.count, *g.in_size, g.channels), dtype)  # (N, H, W, C)
    way = _way(g, dtype, dy.size * weight.size)
    if way == "tensor cores":
        return _nchw(conv_mma.input_gradient(g, dy, weight, dx))
    if way == "nothing":
        dx[...] = 0
    elif g.is_dense and way == "pointwise":
        _multiply(dy, weight.reshape(g.outputs, -1), dx, g.groups, transposed=True)
    elif way == "depthwise":
        _depthwise(g, "depthwise_input", dx, dy, _as_cells(g, weight))
    else:
        _by_gathering(g, dy, _as_matrix(weight), dx)
    return _nchw(dx)


def conv2d_weight(x: Any, grad_output: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int) -> Any:
    """The gradient of the weight: the products of every input window with its grad_output, summed: (O, C/groups, kH, kW)."""
    xp = array_module(x)
    dtype = xp.result_type(x, grad_output)
    if dtype.name not in _DTYPES:
        return plain.conv2d_weight(x, grad_output, kernel, stride, before, dilation, groups)
    shape = (len(x), x.shape[1], grad_output.shape[1], kernel)
    g = Geometry(*shape, stride, before, dilation, groups, x.shape[2:], grad_output.shape[2:])
    image, dy = _nhwc(x, dtype), _nhwc(grad_output, dtype)  # (N, H, W, C), (N, H', W', O)
    way = _way(g, dtype, x.size * dy.size)
    if way == "tensor cores":
        return conv_mma.weight_gradient(g, image, dy)
    if way == "depthwise":
        return _depthwise_weight(g, image, dy)
    # (O, kH·kW·C/g). Slices of float16 are summed up in float32:
    total = xp.empty((g.outputs, g.terms), dtype if dtype.itemsize > 2 else xp.float32)
    rows = dy.reshape(-1, g.outputs)  # (N·H'·W', O)
    if way == "nothing":
        total[...] = 0
    elif way == "pointwise":
        _multiply_weight(rows, _pixels(g, image), total, g.groups, beta=0.0)
    else:
        for part, columns in _column_slices(g, image):
            _multiply_weight(rows[part], columns, total, g.groups, beta=1.0 if part.start else 0.0)
    # (O, kH·kW·C/g) -> (O, kH, kW, C/g) -> (O, C/g, kH, kW)
    return total.astype(dtype, copy=False).reshape(g.outputs, *g.kernel, g.group_channels).transpose(0, 3, 1, 2)


def _way(g: Geometry, dtype: Any, size: int) -> str:
    """How to compute a convolution; all three functions ask here."""
    if not size:
        return "nothing"
    if g.is_pointwise:
        return "pointwise"
    if g.group_channels == 1 and g.groups > 1:
        return "depthwise"
    return "tensor cores" if conv_mma.is_worthwhile(g, dtype) else "columns"


# ------------------------------------------------------------------------------------------- products, by groups


def _multiply(x: Any, weight: Any, out: Any, groups: int, transposed: bool = False) -> None:
    """Out (…, O) = x (…, groups·K) times the weight (O, K), group by group.

    Transposed, it is the other way round: out (…, groups·K) from x (…, O).
    """
    matrices = _by_groups(weight, groups, axis=0)  # (g, O/g, K)
    if not transposed:
        matrices = matrices.swapaxes(-1, -2)  # (g, K, O/g)
    multiply_add(_by_groups(_flat(x), groups), matrices, _by_groups(_flat(out), groups), 0.0)


def _multiply_weight(dy: Any, columns: Any, total: Any, groups: int, beta: float) -> None:
    """Put beta·total + dyᵀ (rows, O) times columns (rows, groups·K) into total (O, K), group by group."""
    left = _by_groups(dy, groups).swapaxes(-1, -2)  # (g, O/g, rows)
    multiply_add(left, _by_groups(_flat(columns), groups), _by_groups(total, groups, axis=0), beta)


def _flat(x: Any) -> Any:
    """(…, C) -> (rows, C)."""
    return x.reshape(-1, x.shape[-1])


def _by_groups(matrix: Any, groups: int, axis: int = 1) -> Any:
    """A view (rows, groups·c) -> (groups, rows, c), with axis 0 (groups·r, c) -> (groups, r, c); of one group the matrix."""
    if groups == 1:
        return matrix
    rows, columns = matrix.shape
    if axis == 0:
        return matrix.reshape(groups, rows // groups, columns)
    return matrix.reshape(rows, groups, columns // groups).swapaxes(0, 1)


def _as_matrix(weight: Any) -> Any:
    """(O, C/g, kH, kW) -> (O, kH, kW, C/g) -> (O, kH·kW·C/g)."""
    return array_module(weight).ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)


def _pixels(g: Geometry, image: Any) -> Any:
    """The one pixel that each window of a pointwise convolution sees, (N·H'·W', C)."""
    if not g.is_dense:
        (height, width), (sy, sx) = g.out_size, g.stride
        image = array_module(image).ascontiguousarray(image[:, ::sy, ::sx][:, :height, :width])  # (N, H', W', C)
    return _flat(image)


# -------------------------------------------------------------------------------------------------- by columns


def _column_slices(g: Geometry, image: Any) -> Iterator[tuple[slice, Any]]:
    """The windows of image (N, H, W, C), some at a time: which of the N·H'·W' rows, and columns (rows, g·kH·kW·C/g).

    All slices are made in the same memory, one after another.
    """
    xp = array_module(image)
    width = g.groups * g.terms
    most = max(_ROW_MULTIPLE, _COLUMN_BYTES // (width * image.itemsize) // _ROW_MULTIPLE * _ROW_MULTIPLE)
    buffer = xp.empty((min(most, g.out_rows), width), image.dtype)
    vector = _vector(g.group_channels, image.itemsize)
    sizes = (*g.in_size, g.channels, g.group_channels, *g.out_size, *g.before)
    for start in range(0, g.out_rows, most):
        rows = min(most, g.out_rows - start)
        work = rows * (g.channels // vector)
        args = (image, buffer, start, work, *sizes)
        launch("conv", "im2col", work, args, xp=xp, dtype=image.dtype, **_macros(g, vector))
        yield slice(start, start + rows), buffer[:rows]


def _by_gathering(g: Geometry, dy: Any, matrix: Any, dx: Any) -> None:
    """Fill dx (N, H, W, C): each pixel of dy becomes the columns it came from; each pixel of dx gathers its own of them."""
    xp = array_module(dy)
    width, pixels = g.groups * g.terms, math.prod(g.out_size)
    most = max(1, min(g.count, _COLUMN_BYTES // (width * pixels * dy.itemsize)))  # images at a time
    buffer = xp.empty((most * pixels, width), dy.dtype)
    vector = _vector(g.group_channels, dy.itemsize)
    sizes = (*g.in_size, g.channels, g.group_channels, *g.out_size, *g.before)
    for start in range(0, g.count, most):
        part = slice(start, min(start + most, g.count))
        columns = buffer[: (part.stop - start) * pixels]
        _multiply(dy[part], matrix, columns, g.groups, transposed=True)
        work = dx[part].size // vector
        launch("conv", "col2im", work, (columns, dx[part], work, *sizes), xp=xp, dtype=dy.dtype, **_macros(g, vector))


def _vector(channels: int, itemsize: int) -> int:
    """How many channels a thread moves at once: as many as divide ``channels`` and fit into 16 bytes."""
    return math.gcd(channels, 16 // itemsize)


def _macros(g: Geometry, vector: int) -> dict[str, int]:
    return g.macros() | {"VEC": vector}


# --------------------------------------------------------------------------------------------------- depthwise


def _as_cells(g: Geometry, weight: Any) -> Any:
    """(O, 1, kH, kW) -> (kH·kW, O)."""
    return array_module(weight).ascontiguousarray(weight.reshape(g.outputs, -1).T)


def _depthwise(g: Geometry, kernel: str, result: Any, image: Any, cells: Any) -> None:
    xp: ModuleType = array_module(image)
    sizes = (*g.in_size, g.channels, g.outputs // g.channels, *g.out_size, *g.before)
    args = (image, cells, result, np.int64(result.size), *sizes)
    launch("depthwise", kernel, result.size, args, xp=xp, dtype=image.dtype, **g.macros(), LINES=_DEPTHWISE_LINES)


def _depthwise_weight(g: Geometry, image: Any, dy: Any) -> Any:
    """(O, 1, kH, kW): shares of the rows are summed up by blocks of their own, then the shares."""
    xp: ModuleType = array_module(image)
    cells = g.kernel[0] * g.kernel[1]
    share_rows = max(_ROW_MULTIPLE, -(-g.out_rows // _DEPTHWISE_SHARES))
    count = -(-g.out_rows // share_rows)
    shares = xp.empty((count, cells, g.outputs), image.dtype if image.itemsize > 2 else xp.float32)
    sizes = (*g.in_size, g.channels, g.outputs // g.channels, *g.out_size, *g.before)
    options: dict[str, Any] = {"grid": (-(-g.outputs // 32), count), "block": (32, _DEPTHWISE_LINES)}
    args = (image, dy, shares, g.out_rows, share_rows, *sizes)
    macros = g.macros() | {"LINES": _DEPTHWISE_LINES}
    launch("depthwise", "depthwise_weight", shares.size, args, xp=xp, dtype=image.dtype, **options, **macros)
    total = shares.sum(axis=0).astype(image.dtype, copy=False)  # (kH·kW, O)
    return total.T.reshape(g.outputs, 1, *g.kernel)


def _nhwc(x: Any, dtype: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C), contiguous; no copy if the memory is channels-last already.

    It begins at a multiple of 16 bytes, for channels are read so many at a time; a view of flat memory may begin anywhere.
    """
    nhwc = array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1).astype(dtype, copy=False))
    return nhwc if nhwc.data.ptr % 16 == 0 else nhwc.copy()


def _nchw(x: Any) -> Any:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return x.transpose(0, 3, 1, 2)
