"""Convolution as matrix products, on channels-last memory.

All three kernels rest on one picture. Put the window that each output position sees into a row of a matrix, the *columns*
(im2col): row (n, y, x) holds the kH·kW·C input values under the kernel. Then

* the convolution is ``columns @ weight``,
* the gradient of the weight is ``columnsᵀ @ grad_output``,
* the gradient of the input is again a convolution, of ``grad_output`` with the flipped kernel.

The columns are kH·kW times as large as the input, so they are never stored: a few images at a time go through a buffer that
stays in the cache, and the backward pass builds them anew. Such blocks of images are shared between the threads. In
channels-last memory (N, H, W, C) the values of one pixel lie side by side, so a window is copied in runs of kW·C numbers,
and a 1×1 convolution needs no copy at all.

``before`` is the padding at the top and on the left; what is padded at the bottom and on the right follows from the output
size. Everything outside the input counts as 0.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np

from minires.kernels.cpu.blas import one_thread
from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import parallel_blocks, scratch

__all__ = ["conv2d", "conv2d_weight", "conv_transpose2d"]

Pair = tuple[int, int]

#: Bytes of columns built at a time: about the second-level cache. Half as much leaves more time between two NumPy calls, in
#: which the threads wait for the interpreter's lock: 1.4 instead of 1.1 ms for 64×16×15×15 on two cores.
_BLOCK_BYTES = 1 << 21

#: Bytes of columns in all below which a second thread costs more than it gains.
_SMALL_BYTES = 1 << 20

#: The weight's gradient is summed up in so many shares at most; each needs memory of the weight's size.
_MOST_SHARES = 4


@in_float32(inputs=2)
def conv2d(x: Any, weight: Any, bias: Any, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair) -> Any:
    """The convolution of x (N, C, H, W) with weight (O, C/groups, kH, kW): (N, O, *out_size) in channels-last memory."""
    dtype = np.result_type(x, weight)
    out = np.empty((len(x), *out_size, len(weight)), dtype)  # (N, H', W', O)
    _correlate(_nhwc(x), _as_matrices(weight, groups), out, weight.shape[2:], stride, before, dilation)
    if bias is not None:
        out += bias
    return _nchw(out)


@in_float32(inputs=2)
def conv_transpose2d(
    grad_output: Any, weight: Any, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair
) -> Any:
    """The adjoint of :func:`conv2d` in x: from (N, O, H', W') back to (N, C, *out_size).

    Output pixels that lie a whole stride apart are reached by the same taps of the kernel. So the result falls apart into
    stride² interleaved images, each of them a plain stride-1 convolution of ``grad_output`` with a part of the kernel.
    """
    dtype = np.result_type(grad_output, weight)
    per_group = weight.shape[1]
    dy = _nhwc(grad_output)  # (N, H', W', O)
    out = np.empty((len(dy), *out_size, groups * per_group), dtype)  # (N, H, W, C)
    # Inputs and outputs swap roles: (O, C/g, kH, kW) -> (g, O/g, C/g, kH, kW) -> (g, C/g, O/g, kH, kW) -> (C, O/g, kH, kW)
    split = weight.reshape(groups, -1, *weight.shape[1:])
    swapped = split.swapaxes(1, 2).reshape(-1, len(weight) // groups, *weight.shape[2:])
    for row in range(stride[0]):
        taps_y, first_y, step_y = _taps(row, weight.shape[2], stride[0], before[0], dilation[0])
        for column in range(stride[1]):
            taps_x, first_x, step_x = _taps(column, weight.shape[3], stride[1], before[1], dilation[1])
            part = out[:, row :: stride[0], column :: stride[1]]
            if not part.size:
                continue
            if not (taps_y and taps_x):
                part[...] = 0
                continue
            kernel = swapped[:, :, taps_y][:, :, :, taps_x]
            matrices = _as_matrices(kernel, groups)
            target = part if part.flags.c_contiguous else np.empty(part.shape, dtype)
            _correlate(dy, matrices, target, kernel.shape[2:], (1, 1), (-first_y, -first_x), (step_y, step_x))
            if target is not part:
                part[...] = target
    return _nchw(out)


def _taps(phase: int, size: int, stride: int, before: int, dilation: int) -> tuple[list[int], int, int]:
    """Which taps u of a kernel reach the outputs phase, phase + stride, …, and from where.

    Output position p takes from input position (p + before - u·dilation) / stride wherever that is whole. Returns the taps
    in the order of ascending input position, the first of these positions relative to p // stride, and their distance.
    """
    taps = [u for u in reversed(range(size)) if (phase + before - u * dilation) % stride == 0]
    first = (phase + before - taps[0] * dilation) // stride if taps else 0
    return taps, first, dilation // gcd(dilation, stride)


@in_float32(inputs=2)
def conv2d_weight(x: Any, grad_output: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int) -> Any:
    """The gradient of the weight: the products of every input window with its grad_output, summed: (O, C/groups, kH, kW)."""
    x, dy = _nhwc(x), _nhwc(grad_output)  # (N, H, W, C), (N, H', W', O)
    channels, outputs = x.shape[3] // groups, dy.shape[3] // groups
    windows = Windows(x, kernel, stride, before, dilation, groups, dy.shape[1:3])
    shares = windows.shares(_MOST_SHARES)
    shape = (len(shares), groups, kernel[0] * kernel[1] * channels, outputs)  # (shares, g, K, O/g)
    sums = np.zeros(shape, np.result_type(x, dy))

    def add_up(number: int) -> None:
        for block in shares[number]:
            rows = dy[block].reshape(-1, groups, outputs).transpose(1, 0, 2)  # (n·H'·W', g, O/g) -> (g, n·H'·W', O/g)
            product = scratch(2, sums.shape[1:], sums.dtype)
            sums[number] += np.matmul(windows.columns(block).transpose(0, 2, 1), rows, out=product)

    with one_thread:
        parallel_blocks(add_up, range(len(shares)))
    total = sums.sum(axis=0)  # the shares in their order: the same bits for any number of threads
    # (g, kH, kW, C/g, O/g) -> (g, O/g, C/g, kH, kW) -> (O, C/g, kH, kW)
    return total.reshape(groups, *kernel, channels, outputs).transpose(0, 4, 3, 1, 2).reshape(-1, channels, *kernel)


# ------------------------------------------------------------------------------------------------ the common part


def _correlate(x: Any, matrices: Any, out: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair) -> None:
    """Fill out (N, H', W', O) = the windows of x (N, H, W, C) times matrices (g, kH·kW·C/g, O/g)."""
    groups, _, outputs = matrices.shape
    windows = Windows(x, kernel, stride, before, dilation, groups, out.shape[1:3])

    def multiply(block: slice) -> None:
        rows = out[block].reshape(-1, groups, outputs).transpose(1, 0, 2)  # (n·H'·W', g, O/g) -> (g, n·H'·W', O/g)
        np.matmul(windows.columns(block), matrices, out=rows)

    with one_thread:
        parallel_blocks(multiply, windows.blocks)


class Windows:
    """What each output position of a convolution sees of x (N, H, W, C), as matrices of columns, some images at a time.

    Attributes:
        blocks: slices of images, such that the columns of each fit into the cache.
    """

    def __init__(
        self, x: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair
    ) -> None:
        self.x, self.kernel, self.stride, self.before, self.dilation = x, kernel, stride, before, dilation
        self.groups, self.out_size = groups, out_size
        count, height, width, channels = x.shape
        # Every window is one pixel, and the input itself is the matrix of columns:
        self.is_plain = kernel == (1, 1) and stride == (1, 1) and before == (0, 0) and out_size == (height, width)
        image = out_size[0] * out_size[1] * kernel[0] * kernel[1] * channels * x.itemsize
        size = max(1, min(-(-count // _MOST_SHARES), _BLOCK_BYTES // max(image, 1)))
        if count * image < _SMALL_BYTES:
            size = max(count, 1)
        self.blocks = [slice(i, min(i + size, count)) for i in range(0, count, size)] if image else []

    def shares(self, most: int) -> list[list[slice]]:
        """The blocks in at most ``most`` runs of about equal length (their number does not depend on the threads)."""
        parts = min(most, len(self.blocks))
        return [self.blocks[len(self.blocks) * i // parts : len(self.blocks) * (i + 1) // parts] for i in range(parts)]

    def columns(self, block: slice) -> Any:
        """The columns of the images in ``block``, (g, n·H'·W', kH·kW·C/g). This thread's next call overwrites them."""
        x, groups, (rows, columns) = self.x[block], self.groups, self.out_size
        n, channels = len(x), x.shape[3] // groups
        if self.is_plain:
            return x.reshape(-1, groups, channels).transpose(1, 0, 2)  # (n·H·W, g, C/g) -> (g, n·H·W, C/g)
        padded = self._padded(x)
        sn, sh, sw, sc = padded.strides
        (sy, sx), (dy, dx) = self.stride, self.dilation
        windows = np.lib.stride_tricks.as_strided(
            padded,
            (groups, n, rows, columns, *self.kernel, channels),  # (g, n, H', W', kH, kW, C/g)
            (sc * channels, sn, sh * sy, sw * sx, sh * dy, sw * dx, sc),
        )
        buffer = scratch(1, windows.shape, x.dtype)
        np.copyto(buffer, windows)
        return buffer.reshape(groups, n * rows * columns, -1)  # (g, n, H', W', kH, kW, C/g) -> (g, n·H'·W', kH·kW·C/g)

    def _padded(self, x: Any) -> Any:
        """The part of the padded images that some window touches, (n, H, W, C); ``x`` itself where that is all it is."""
        extent = tuple(
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(self.out_size, self.stride, self.kernel, self.dilation, strict=True)
        )
        (to_y, from_y), (to_x, from_x) = (
            _overlap(size, e, b) for size, e, b in zip(x.shape[1:3], extent, self.before, strict=True)
        )
        if (to_y, to_x) == (slice(0, extent[0]), slice(0, extent[1])):
            return x[:, from_y, from_x]
        padded = scratch(0, (len(x), *extent, x.shape[3]), x.dtype)
        padded[...] = 0
        padded[:, to_y, to_x] = x[:, from_y, from_x]
        return padded


def _overlap(size: int, extent: int, before: int) -> tuple[slice, slice]:
    """Where an axis of the input lies in the padded axis, and which part of the input that is."""
    low, high = max(before, 0), min(before + size, extent)
    high = max(high, low)
    return slice(low, high), slice(low - before, high - before)


def _as_matrices(weight: Any, groups: int) -> Any:
    """(O, C/g, kH, kW) -> (g, O/g, C/g, kH, kW) -> (g, kH, kW, C/g, O/g) -> (g, kH·kW·C/g, O/g), one matrix a group."""
    split = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 3, 4, 2, 1)
    return np.ascontiguousarray(split).reshape(groups, -1, len(weight) // groups)


def _nhwc(x: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C), contiguous; no copy if the memory is channels-last already."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _nchw(x: Any) -> Any:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return x.transpose(0, 3, 1, 2)
