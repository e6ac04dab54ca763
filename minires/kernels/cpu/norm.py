"""Batch norm, with or without the ReLU behind it, in blocks of channels-last memory.

All of it is bound by memory, not by arithmetic: each step is one simple NumPy loop. So the work goes block by block, small
enough that all steps of a block find it in the cache, and blocks go to threads. What was measured (float32, one core of an
AVX-512 server, times for 131,072 elements in the cache):

* A vector of C numbers applied to each row: 86 µs at C = 16, 25 µs at C = 1024, but 14 µs from 8192 on, because NumPy copies
  shorter vectors through a buffer of that length first. So ``fold`` rows are read as one row of at least 8192 elements, with
  the vectors of the channels repeated as often. For the same reason ReLU takes the maximum with a row of zeros.
* Sums over the rows are fastest at 1024 to 4096 columns: ``add.reduce`` 11 µs, ``einsum`` of a product 19 µs without a
  temporary (a ones-vector times the matrix takes 7 µs, but is a BLAS call, which must not happen inside a worker thread).
* ReLU's gradient: selecting with a boolean mask costs 60 to 1900 µs, with the sign bit of a float as an integer mask 23 µs.

The variance is exact where ``E[x²] - E[x]²`` is not: each block sums squares of distances from its own mean, and the blocks
are joined by the formula of Chan, Golub and LeVeque (1979) in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import aligned_empty, parallel_blocks, scratch

__all__ = ["batch_norm", "batch_norm_backward", "batch_statistics", "follow"]

Matrix = Any  # (M, C): one row for each position of each sample, one column for each channel
Running = tuple[Any, Any]  # (running_mean, running_var), either may be None

#: With one thread half as much is better still; with two, fewer and longer NumPy calls wait less for each other.
BLOCK_BYTES = 1 << 20
WIDE = 8192  # elements of a folded row for element by element work
NARROW = 4096  # elements of a folded row for sums over the rows


class Block(NamedTuple):
    """Rows ``start`` to ``stop`` of a matrix; ``number`` is its place in the list.

    ``fold`` rows are read as one for element by element work, ``narrow`` rows for sums.
    """

    number: int
    start: int
    stop: int
    fold: int
    narrow: int

    def of(self, matrix: Matrix) -> Any:
        """The rows as a (rows / fold, fold·C) view."""
        return matrix[self.start : self.stop].reshape(-1, self.fold * matrix.shape[1])


class _Vectors:
    """One number for each channel, repeated to the width of a folded row."""

    def __init__(self, values: Any, fold: int, dtype: Any) -> None:
        narrow = np.asarray(values).astype(dtype) + 0  # no -0, see _keep_where_negative
        self._by_fold = {1: narrow, fold: np.tile(narrow, fold)}

    def __getitem__(self, block: Block) -> Any:
        return self._by_fold[block.fold]


def _as_matrix(array: Any) -> Matrix:
    """(N, C, ...) as (N·..., C): a view of channels-last memory, else a copy."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)).reshape(-1, array.shape[1])  # (N, ..., C) -> (M, C)


def _new_like(array: Any) -> tuple[Any, Matrix]:
    """Uninitialised channels-last memory in the shape of ``array`` (N, C, ...), and the same memory as a matrix."""
    n, c, *sizes = array.shape
    memory = aligned_empty((n, *sizes, c), array.dtype)
    return np.moveaxis(memory, -1, 1), memory.reshape(-1, c)


def _split(matrix: Matrix) -> tuple[list[Block], int]:
    """The blocks of a matrix, and how many rows they fold (all but the last, which takes what is left over)."""
    rows, channels = matrix.shape
    if matrix.size == 0:
        return [], 1
    narrow = max(1, min(NARROW // channels, rows))
    fold = narrow * max(1, min(-(-WIDE // (narrow * channels)), rows // narrow))
    step = max(1, BLOCK_BYTES // (matrix.itemsize * channels * fold)) * fold
    folded = rows - rows % fold
    spans = [(start, min(start + step, folded), fold, narrow) for start in range(0, folded, step)]
    if folded < rows:
        spans.append((folded, rows, 1, 1))
    return [Block(i, *span) for i, span in enumerate(spans)], fold


@in_float32(results=0)
def batch_statistics(input: Any, running: Running = (None, None), momentum: float = 0.0) -> tuple[Any, Any]:
    """Mean and biased variance of each channel of ``input`` (N, C, ...), float64, each (C,).

    ``running`` (mean, variance) follow them in place: (1 - momentum)·running + momentum·new, with the unbiased variance.
    """
    matrix = _as_matrix(input)
    blocks, _ = _split(matrix)
    channels = matrix.shape[1]
    counts = np.array([float(block.stop - block.start) for block in blocks])[:, None]  # (blocks, 1)
    means, squares = np.zeros((2, len(blocks), channels))

    def measure(block: Block) -> None:
        x, narrow = block.of(matrix), block.narrow * channels
        sums = _by_channel(np.add.reduce(x.reshape(-1, narrow), axis=0), channels)
        mean = sums / (block.stop - block.start)
        centre = np.tile(mean.astype(x.dtype), block.fold)
        distance = np.subtract(x, centre, out=scratch(0, x.shape, x.dtype)).reshape(-1, narrow)
        means[block.number] = mean
        squares[block.number] = _by_channel(np.einsum("nc,nc->c", distance, distance), channels)

    parallel_blocks(measure, blocks)
    if not blocks:
        return np.zeros(channels), np.zeros(channels)
    mean = (counts * means).sum(axis=0) / len(matrix)
    variance = (squares + counts * (means - mean) ** 2).sum(axis=0) / len(matrix)
    follow(running, mean, variance, len(matrix), momentum)
    return mean, variance


def follow(running: Running, mean: Any, variance: Any, count: int, momentum: float) -> None:
    """Move the running mean and variance towards those of a batch of ``count`` values a channel, in place, on any device."""
    for old, new, factor in zip(running, (mean, variance), (1, count / max(count - 1, 1)), strict=True):
        if old is not None:
            old[...] = ((1 - momentum) * old + momentum * (new * factor)).astype(old.dtype)


def _by_channel(sums: Any, channels: int) -> Any:
    """Sums over the rows of a folded matrix as sums for each channel, in float64."""
    return np.add.reduce(sums.reshape(-1, channels), axis=0, dtype=np.float64)


@in_float32()
def batch_norm(input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, relu: bool) -> Any:
    """(input - mean) / √(variance + eps) · weight + bias for each channel, then max(·, 0) if ``relu``.

    input: (N, C, ...); the others (C,), weight and bias may be None. Returns channels-last memory.
    """
    x_all = _as_matrix(input)
    out, y_all = _new_like(input)
    blocks, fold = _split(x_all)
    scales, offsets, zeros = _affine(mean, variance, weight, bias, eps, fold, input.dtype)

    def normalize(block: Block) -> None:
        y = np.multiply(block.of(x_all), scales[block], out=block.of(y_all))
        np.add(y, offsets[block], out=y)
        if relu:
            np.maximum(y, zeros[block], out=y)

    parallel_blocks(normalize, blocks)
    return out


@in_float32(inputs=2, results=1)
def batch_norm_backward(
    grad_output: Any, input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, training: bool, relu: bool
) -> tuple[Any, Any, Any]:
    """Gradients of ``input``, ``weight`` and ``bias``.

    With x̂ the normalised input and g the gradient behind the ReLU, dbias = Σg and dweight = Σg·x̂. The input's is
    weight/std·(g - mean(g) - x̂·mean(g·x̂)) if the statistics are the batch's (``training``), else weight/std·g.
    """
    x_all, dy_all = _as_matrix(input), _as_matrix(grad_output.astype(input.dtype, copy=False))
    dx, dx_all = _new_like(input)
    blocks, fold = _split(x_all)
    scales, *_ = _affine(mean, variance, weight, bias, eps, fold, input.dtype)
    negative_scales, negative_offsets, _ = _affine(mean, variance, weight, bias, eps, fold, input.dtype, sign=-1)
    centres = _Vectors(mean, fold, input.dtype)
    channels = x_all.shape[1]
    sums, products = np.zeros((2, len(blocks), channels))

    def add_up(block: Block) -> None:
        x, g = block.of(x_all), block.of(dy_all)
        part = scratch(0, x.shape, x.dtype)
        if relu:
            np.multiply(x, negative_scales[block], out=part)
            np.add(part, negative_offsets[block], out=part)  # to the last bit the number that the ReLU saw, negated
            g = _keep_where_negative(g, part, out=block.of(dx_all))
        np.subtract(x, centres[block], out=part)
        g, part = g.reshape(-1, block.narrow * channels), part.reshape(-1, block.narrow * channels)
        sums[block.number] = _by_channel(np.add.reduce(g, axis=0), channels)
        products[block.number] = _by_channel(np.einsum("nc,nc->c", g, part), channels)

    parallel_blocks(add_up, blocks)
    rstd = 1 / np.sqrt(np.asarray(variance, np.float64) + eps)
    dbias, dweight = sums.sum(axis=0), products.sum(axis=0) * rstd
    count = max(len(x_all), 1)
    slopes, levels = (_Vectors(v / count, fold, input.dtype) for v in (dweight * rstd, dbias))

    def spread(block: Block) -> None:
        out = block.of(dx_all)
        g = out if relu else block.of(dy_all)
        if training:
            part = np.subtract(block.of(x_all), centres[block], out=scratch(0, out.shape, out.dtype))
            np.multiply(part, slopes[block], out=part)
            np.add(part, levels[block], out=part)
            g = np.subtract(g, part, out=out)
        np.multiply(g, scales[block], out=out)

    parallel_blocks(spread, blocks)
    return dx, dweight.astype(input.dtype), dbias.astype(input.dtype)


def _affine(
    mean: Any, variance: Any, weight: Any, bias: Any, eps: float, fold: int, dtype: Any, sign: int = 1
) -> tuple[_Vectors, _Vectors, _Vectors]:
    """``scale`` and ``offset`` with input·scale + offset = batch norm, times ``sign``; and zeros."""
    scale = 1 / np.sqrt(np.asarray(variance, np.float64) + eps)
    if weight is not None:
        scale = scale * weight
    offset = -scale * mean
    if bias is not None:
        offset = offset + bias
    vectors = (sign * scale, sign * offset, np.zeros(len(scale)))
    return _Vectors(vectors[0], fold, dtype), _Vectors(vectors[1], fold, dtype), _Vectors(vectors[2], fold, dtype)


def _keep_where_negative(values: Any, decider: Any, out: Any) -> Any:
    """``values`` where ``decider`` is below 0, else 0. Overwrites ``decider``, which may not hold -0.

    A float's sign is its highest bit, also when it is read as an integer: shifted down it becomes a mask of all ones or all
    zeros. (A sum is -0 only if both its terms are, and no offset is.)
    """
    integer = np.dtype(f"i{decider.itemsize}")
    mask = decider.view(integer)
    np.right_shift(mask, 8 * decider.itemsize - 1, out=mask)
    np.bitwise_and(values.view(integer), mask, out=out.view(integer))
    return out
