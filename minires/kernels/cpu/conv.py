"""Convolution as matrix products, on channels-last memory.

All three kernels rest on one picture. Put what one row of the kernel sees from an output position into a row of a matrix,
the *columns* (im2col, for one kernel row u): row (y, n, x) holds kW·C neighbouring input values. Then

* the convolution is the sum over u of ``columns(u) @ weight[u]``,
* the gradient of weight[u] is ``columns(u)ᵀ @ grad_output``,
* the gradient of the input is again a convolution, of ``grad_output`` with the flipped kernel.

Output row y sees with kernel row u what output row y + 1 sees with kernel row u - 1. So the columns of all kernel rows are
slices of one buffer, if image rows come first in it: it is kW times as large as the input, where columns for whole windows
are kH·kW times as large. (One core, 3×3, 64×16×32×32 → 16: 3.2 ms, with whole windows 7.3 ms.) They are never stored: a few
images at a time go through a buffer that stays in the cache, and the backward pass builds them anew. Such blocks of images
are shared between the threads. In channels-last memory (N, H, W, C) the values of one pixel lie side by side, so they are
copied in runs of kW·C numbers, and a 1×1 convolution needs no copy at all.

``before`` is the padding at the top and on the left; what is padded at the bottom and on the right follows from the output
size. Everything outside the input counts as 0.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from minires.kernels.cpu.blas import gram, one_thread, product
from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import aligned_empty, parallel_blocks, scratch

__all__ = ["conv2d", "conv2d_weight", "conv_transpose2d"]

Pair = tuple[int, int]

Block = tuple[slice, slice]  # images, output rows

#: Bytes of columns and products at a time. One thread is as fast with 2 MB, which stay in the second-level cache; two want
#: few and long NumPy calls, between which they wait for the interpreter's lock: 3×3, 64×16×32×32 → 16 takes 2.8 ms on two
#: cores, with 2 MB 3.6 ms.
_BLOCK_BYTES = 1 << 23

#: Elements of a matrix from which on BLAS takes it as it lies. (A smaller one serves many small pieces, and is turned once.)
_TURNED = 1 << 16

#: Multiply-adds in all below which a second thread costs more than it gains.
_SMALL_WORK = 1 << 23

#: The weight's gradient is summed up in so many shares of the images at most; each needs memory of the weight's size. Of
#: weights with more elements than this, in one group, the outputs are shared instead.
_MOST_SHARES, _LARGE_WEIGHT = 4, 1 << 18


@in_float32(inputs=2)
def conv2d(x: Any, weight: Any, bias: Any, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair) -> Any:
    """The convolution of x (N, C, H, W) with weight (O, C/groups, kH, kW): (N, O, *out_size) in channels-last memory."""
    dtype = np.result_type(x, weight)
    out = aligned_empty((len(x), *out_size, len(weight)), dtype)  # (N, H', W', O)
    _correlate(_nhwc(x), _forward_matrices(weight, groups), out, weight.shape[2:], stride, before, dilation)
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
    out = aligned_empty((len(dy), *out_size, groups * per_group), dtype)  # (N, H, W, C)
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
            matrices, size = _backward_matrices(weight, taps_y, taps_x, groups), (len(taps_y), len(taps_x))
            target = part if part.flags.c_contiguous else np.empty(part.shape, dtype)
            _correlate(dy, matrices, target, size, (1, 1), (-first_y, -first_x), (step_y, step_x))
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
    return taps, first, dilation // math.gcd(dilation, stride)


@in_float32(inputs=2)
def conv2d_weight(x: Any, grad_output: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int) -> Any:
    """The gradient of the weight: the products of every input window with its grad_output, summed: (O, C/groups, kH, kW)."""
    x, dy = _nhwc(x), _nhwc(grad_output)  # (N, H, W, C), (N, H', W', O)
    windows = Windows(x, kernel, stride, before, dilation, groups, dy.shape[1:3], dy.shape[3] // groups)
    shape = (groups, dy.shape[3] // groups, kernel[0], kernel[1] * x.shape[3] // groups)  # (g, O/g, kH, kW·C/g)
    blocks, dtype = windows.blocks(), np.result_type(x, dy)
    with one_thread:
        if math.prod(shape) > _LARGE_WEIGHT and groups == 1:  # each thread has outputs of its own, for all images
            total = np.zeros(shape, dtype)

            def add_outputs(part: slice) -> None:
                for block in blocks:
                    windows.add_products(block, dy[block][..., part], total[:, part])

            parallel_blocks(add_outputs, _parts(shape[1], _MOST_SHARES))
        else:
            shares = _parts(len(blocks), _MOST_SHARES)
            sums = np.zeros((len(shares), *shape), dtype)

            def add_share(number: int) -> None:
                for block in blocks[shares[number]]:
                    windows.add_products(block, dy[block], sums[number])

            parallel_blocks(add_share, range(len(shares)))
            total = sums.sum(axis=0)  # in their order: the same bits for any number of threads
    return _as_weight(total.reshape(dy.shape[3], *kernel, -1))  # (g, O/g, kH, kW·C/g) -> (O, kH, kW, C/g)


def _parts(count: int, most: int) -> list[slice]:
    """``range(count)`` in at most ``most`` runs of about equal length."""
    most = min(most, count)
    return [slice(count * i // most, count * (i + 1) // most) for i in range(most)]


# ------------------------------------------------------------------------------------------------ the common part


def _correlate(x: Any, matrices: Any, out: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair) -> None:
    """Fill out (N, H', W', O) = the windows of x (N, H, W, C) times matrices (kH, g, kW·C/g, O/g)."""
    groups, outputs = matrices.shape[1], matrices.shape[3]
    windows = Windows(x, kernel, stride, before, dilation, groups, out.shape[1:3], outputs)
    with one_thread:
        parallel_blocks(lambda block: windows.multiply(block, matrices, out[block]), windows.blocks())


class Windows:
    """What each output position of a convolution sees of x (N, H, W, C), as matrices of columns, some images at a time.

    Args:
        x, kernel, stride, before, dilation, groups, out_size: as in :func:`conv2d`.
        outputs: O/groups.

    Attributes:
        is_plain: every window is one pixel, and the input itself is the matrix of columns.
        row_bytes: memory for the columns of a row of the output, and for its products.
        work: multiply-adds in all.
    """

    def __init__(
        self, x: Any, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int, out_size: Pair, outputs: int
    ) -> None:
        self.x, self.kernel, self.stride, self.before, self.dilation = x, kernel, stride, before, dilation
        self.groups, self.out_size = groups, out_size
        self.is_plain = kernel == (1, 1) and stride == (1, 1) and before == (0, 0) and out_size == x.shape[1:3]
        self.row_bytes = out_size[1] * (kernel[1] * x.shape[3] + 2 * outputs * groups) * x.itemsize
        self.work = len(x) * out_size[0] * out_size[1] * kernel[0] * kernel[1] * x.shape[3] * outputs

    def blocks(self) -> list[Block]:
        """(images, output rows) such that the columns of each fit into the cache; without columns, a few large ones."""
        return _split(len(self.x), self.out_size[0], 1 if self.is_plain else self.row_bytes, self.work)

    def multiply(self, block: Block, matrices: Any, out: Any) -> None:
        """Fill ``out`` (n, h, W', O), the part of the output that ``block`` names: columns times matrices."""
        target = out.swapaxes(0, 1)  # (n, h, W', O) -> (h, n, W', O), as the columns lie
        first, *others = self.columns(block)
        if self.is_plain or (len(out) == 1 and not others):
            product(first, matrices[0], out=self.as_rows(out))
            return
        total, part = (scratch(2 + i, target.shape, out.dtype) for i in range(2))
        product(first, matrices[0], out=self.as_rows(total))
        for u, columns in enumerate(others, start=1):
            product(columns, matrices[u], out=self.as_rows(part))
            np.add(total, part, out=target if u == len(others) else total)
        if not others:
            target[...] = total

    def add_products(self, block: Block, grad_output: Any, sums: Any) -> None:
        """Add to ``sums`` (g, O/g, kH, kW·C/g) the columns of ``block`` times its ``grad_output`` (n, h, W', O)."""
        if not self.is_plain and len(grad_output) > 1:
            swapped = grad_output.swapaxes(0, 1)  # (n, h, W', O) -> (h, n, W', O), as the columns lie
            grad_output = scratch(2, swapped.shape, swapped.dtype)
            grad_output[...] = swapped
        rows = self.as_rows(grad_output)
        for u, columns in enumerate(self.columns(block)):
            sums[:, :, u] += gram(rows, columns)  # (g, O/g, kW·C/g)

    def as_rows(self, part: Any) -> Any:
        """A view of a part of the output as one matrix a group: (h, n, W', O) -> (h·n·W', g, O/g) -> (g, h·n·W', O/g)."""
        return part.reshape(-1, self.groups, part.shape[-1] // self.groups).transpose(1, 0, 2)

    def columns(self, block: Block) -> list[Any]:
        """The columns of a block for each kernel row, (g, h·n·W', kW·C/g). This thread's next call overwrites them."""
        images, rows = block
        if self.is_plain:
            return [self.as_rows(self.x[block])]
        x, (sy, sx), (dy, dx) = self._padded(images, rows), self.stride, self.dilation
        height, channels = rows.stop - rows.start, x.shape[3] // self.groups
        phases = sorted({u * dy % sy for u in range(self.kernel[0])})  # image rows that some kernel row meets, modulo sy
        depth = -(-x.shape[1] // sy)
        shape = (self.groups, len(phases), depth, len(x), self.out_size[1], self.kernel[1], channels)
        buffer = scratch(1, shape, x.dtype)
        for i, phase in enumerate(phases):
            seen = x[:, phase::sy]  # (n, depth, W, C)
            sn, sh, sw, sc = seen.strides
            steps = (sc * channels, sh, sn, sw * sx, sw * dx, sc)  # (g, depth, n, W', kW, C/g)
            windows = np.lib.stride_tricks.as_strided(seen, (shape[0], seen.shape[1], *shape[3:]), steps)
            buffer[:, i, : seen.shape[1]] = windows
        starts = [(phases.index(u * dy % sy), u * dy // sy) for u in range(self.kernel[0])]
        flat = (self.groups, -1, self.kernel[1] * channels)
        return [buffer[:, i, start : start + height].reshape(flat) for i, start in starts]  # (g, h, n, W', kW, C/g) -> flat

    def _padded(self, images: slice, rows: slice) -> Any:
        """The part of the padded images that the windows of these rows touch, (n, H, W, C); a view if it has no padding."""
        spans = (rows.stop - rows.start, self.out_size[1])
        extent = tuple(
            (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(spans, self.stride, self.kernel, self.dilation, strict=True)
        )
        before = (self.before[0] - rows.start * self.stride[0], self.before[1])
        (to_y, from_y), (to_x, from_x) = (
            _overlap(size, e, b) for size, e, b in zip(self.x.shape[1:3], extent, before, strict=True)
        )
        seen = self.x[images, from_y, from_x]
        if (to_y, to_x) == (slice(0, extent[0]), slice(0, extent[1])):
            return seen
        padded = scratch(0, (len(seen), *extent, seen.shape[3]), seen.dtype)
        padded[:, : to_y.start] = padded[:, to_y.stop :] = 0
        padded[:, :, : to_x.start] = padded[:, :, to_x.stop :] = 0
        padded[:, to_y, to_x] = seen
        return padded


def _split(count: int, rows: int, row_bytes: int, work: int) -> list[Block]:
    """Blocks of images, or of rows of one image, of about ``_BLOCK_BYTES``; one block if there is little ``work`` in all."""
    if not (count and rows and row_bytes):
        return []
    if work < _SMALL_WORK and count * rows * row_bytes <= 4 * _BLOCK_BYTES:
        return [(slice(0, count), slice(0, rows))]
    size = max(1, min(-(-count // _MOST_SHARES), _BLOCK_BYTES // (rows * row_bytes)))
    parts = min(rows, max(-(-_MOST_SHARES // count), -(-rows * row_bytes // (2 * _BLOCK_BYTES)))) if size == 1 else 1
    borders = [rows * i // parts for i in range(parts + 1)]
    return [
        (slice(i, min(i + size, count)), slice(top, bottom))
        for i in range(0, count, size)
        for top, bottom in pairwise(borders)
    ]


def _overlap(size: int, extent: int, before: int) -> tuple[slice, slice]:
    """Where an axis of the input lies in the padded axis, and which part of the input that is."""
    low, high = max(before, 0), min(before + size, extent)
    high = max(high, low)
    return slice(low, high), slice(low - before, high - before)


def _forward_matrices(weight: Any, groups: int) -> Any:
    """(O, C/g, kH, kW) as a matrix for each kernel row: (kH, g, kW·C/g, O/g).

    BLAS multiplies by a large matrix that lies the other way round as fast, so only small ones are brought into this order.
    """
    split = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))  # (O, C/g, kH, kW) -> (O, kH, kW, C/g)
    inner, outputs = weight.shape[3] * weight.shape[1], len(weight) // groups
    matrices = split.reshape(groups, outputs, weight.shape[2], inner).transpose(2, 0, 3, 1)  # (kH, g, kW·C/g, O/g)
    return np.ascontiguousarray(matrices) if inner * outputs < _TURNED else matrices


def _backward_matrices(weight: Any, taps_y: list[int], taps_x: list[int], groups: int) -> Any:
    """These taps of (O, C/g, kH, kW) as a matrix for each kernel row, from outputs to inputs: (kH', g, kW'·O/g, C/g)."""
    split = weight.reshape(groups, -1, *weight.shape[1:]).transpose(3, 0, 4, 1, 2)  # (kH, g, kW, O/g, C/g)
    matrices = np.empty((len(taps_y), groups, len(taps_x), *split.shape[3:]), weight.dtype)
    for i, u in enumerate(taps_y):
        for j, v in enumerate(taps_x):
            matrices[i, :, j] = split[u, :, v]
    return matrices.reshape(len(taps_y), groups, -1, split.shape[4])


def _as_weight(memory: Any) -> Any:
    """(O, kH, kW, C/g) -> (O, C/g, kH, kW) without gaps, tap by tap, since NumPy's own order of loops is slow here."""
    weight = np.empty((len(memory), memory.shape[3], *memory.shape[1:3]), memory.dtype)

    def fill(part: slice) -> None:
        for u in range(memory.shape[1]):
            for v in range(memory.shape[2]):
                weight[part, :, u, v] = memory[part, u, v]

    parallel_blocks(fill, _parts(len(memory), _MOST_SHARES) if memory.size > _LARGE_WEIGHT else [slice(None)])
    return weight


def _nhwc(x: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C), contiguous; no copy if the memory is channels-last already."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _nchw(x: Any) -> Any:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return x.transpose(0, 3, 1, 2)
