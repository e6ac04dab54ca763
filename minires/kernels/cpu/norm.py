"""Batch norm, with or without the ReLU behind it, in blocks of channels-last memory.

All of it is bound by memory, not by arithmetic: each step is one simple NumPy loop. So the work goes block by block, small
enough that all steps of a block find it in the cache, and blocks go to threads. What was measured (float32, one core of an
AVX-512 server, 131,072 elements):

* A loop over rows of C channels costs most of its time per row when C is small: C = 16 takes 3 to 30 times as long as 1024.
  So ``fold`` rows are read as one row of about 1024 elements, with the vectors of the channels repeated as often.
* Sums over the rows: ``add.reduce`` 12 µs, ``einsum`` of a product 19 µs without a temporary, a ones-vector times the matrix
  7 µs; but that is a BLAS call, which must not happen inside a worker thread.
* ReLU's gradient: selecting with a boolean mask costs 60 to 1900 µs, with the sign bit of a float as an integer mask 30 µs.

The variance is exact where ``E[x²] - E[x]²`` is not: each block sums squares of distances from its own mean, and the blocks
are joined by the formula of Chan, Golub and LeVeque (1979) in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minires.kernels.cpu.threads import aligned_empty, parallel_blocks, scratch

__all__ = ["batch_norm", "batch_norm_backward", "batch_statistics"]

Matrix = Any  # (M, C): one row for each position of each sample, one column for each channel

BLOCK_BYTES = 1 << 18
FOLDED_WIDTH = 1024


class Block(NamedTuple):
    """Rows ``start`` to ``stop`` of a matrix, ``fold`` of them read as one; ``number`` is its place in the list."""

    number: int
    start: int
    stop: int
    fold: int

    def of(self, matrix: Matrix) -> Any:
        """The rows as a (rows / fold, fold·C) view."""
        return matrix[self.start : self.stop].reshape(-1, self.fold * matrix.shape[1])


class _Vectors:
    """One number for each channel, repeated to the width of a folded row."""

    def __init__(self, values: Any, fold: int, dtype: Any) -> None:
        narrow = np.asarray(values).astype(dtype)
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
    fold = max(1, min(FOLDED_WIDTH // channels, rows))
    step = max(1, BLOCK_BYTES // (matrix.itemsize * channels * fold)) * fold
    folded = rows - rows % fold
    spans = [(start, min(start + step, folded), fold) for start in range(0, folded, step)]
    if folded < rows:
        spans.append((folded, rows, 1))
    return [Block(i, *span) for i, span in enumerate(spans)], fold


def batch_statistics(input: Any) -> tuple[Any, Any]:
    """Mean and biased variance of each channel of ``input`` (N, C, ...), float64, each (C,)."""
    matrix = _as_matrix(input)
    blocks, _ = _split(matrix)
    channels = matrix.shape[1]
    counts = np.zeros((len(blocks), 1))
    means, squares = np.zeros((2, len(blocks), channels))

    def measure(block: Block) -> None:
        x = block.of(matrix)
        rows = len(x)
        centre = np.add.reduce(x, axis=0) / rows
        distance = np.subtract(x, centre, out=scratch(0, x.shape, x.dtype))
        square = np.einsum("nc,nc->c", distance, distance)
        mean, total = _join(
            np.full((block.fold, 1), float(rows)),
            centre.reshape(block.fold, channels).astype(np.float64),
            square.reshape(block.fold, channels).astype(np.float64),
        )
        counts[block.number], means[block.number], squares[block.number] = rows * block.fold, mean, total

    parallel_blocks(measure, blocks)
    if not blocks:
        return np.zeros(channels), np.zeros(channels)
    mean, total = _join(counts, means, squares)
    return mean, total / len(matrix)


def _join(counts: Any, means: Any, squares: Any) -> tuple[Any, Any]:
    """Chan's formula: mean and sum of squared distances of all groups (axis 0) from those of each group."""
    mean = (counts * means).sum(axis=0) / counts.sum()
    return mean, squares.sum(axis=0) + (counts * (means - mean) ** 2).sum(axis=0)


def batch_norm(input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, relu: bool) -> Any:
    """(input - mean) / √(variance + eps) · weight + bias for each channel, then max(·, 0) if ``relu``.

    input: (N, C, ...); the others (C,), weight and bias may be None. Returns channels-last memory.
    """
    x_all = _as_matrix(input)
    out, y_all = _new_like(input)
    blocks, fold = _split(x_all)
    scale, bias = _affine(variance, weight, bias, eps)
    means, scales, biases = (_Vectors(v, fold, input.dtype) for v in (mean, scale, bias))

    def normalize(block: Block) -> None:
        y = block.of(y_all)
        np.subtract(block.of(x_all), means[block], out=y)
        np.multiply(y, scales[block], out=y)
        np.add(y, biases[block], out=y)
        if relu:
            np.maximum(y, 0, out=y)

    parallel_blocks(normalize, blocks)
    return out


def batch_norm_backward(
    grad_output: Any, input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, training: bool, relu: bool
) -> tuple[Any, Any, Any]:
    """Gradients of ``input``, ``weight`` and ``bias``.

    With x̂ the normalised input and g the gradient behind the ReLU, dbias = Σg and dweight = Σg·x̂. The input's is
    weight/std·(g - mean(g) - x̂·mean(g·x̂)) if the statistics are the batch's (``training``), else weight/std·g.
    """
    x_all, dy_all = _as_matrix(input), _as_matrix(grad_output)
    dx, dx_all = _new_like(input)
    blocks, fold = _split(x_all)
    scale, bias = _affine(variance, weight, bias, eps)
    means, scales, thresholds = (_Vectors(v, fold, input.dtype) for v in (mean, scale, 0.0 - bias))
    channels = x_all.shape[1]
    sums, products = np.zeros((2, len(blocks), channels))

    def add_up(block: Block) -> None:
        distance = scratch(0, block.of(x_all).shape, x_all.dtype)
        np.subtract(block.of(x_all), means[block], out=distance)
        g = block.of(dy_all)
        if relu:
            before = np.multiply(distance, scales[block], out=scratch(1, distance.shape, distance.dtype))
            np.subtract(thresholds[block], before, out=before)
            g = _keep_where_negative(g, before, out=block.of(dx_all))
        sums[block.number] = np.add.reduce(g, axis=0).reshape(-1, channels).sum(axis=0, dtype=np.float64)
        product = np.einsum("nc,nc->c", g, distance)
        products[block.number] = product.reshape(-1, channels).sum(axis=0, dtype=np.float64)

    parallel_blocks(add_up, blocks)
    rstd = 1 / np.sqrt(np.asarray(variance, np.float64) + eps)
    dbias, dweight = sums.sum(axis=0), products.sum(axis=0) * rstd
    count = max(len(x_all), 1)
    slopes = _Vectors(dweight * rstd / count if training else rstd * 0, fold, input.dtype)
    offsets = _Vectors(dbias / count if training else rstd * 0, fold, input.dtype)

    def spread(block: Block) -> None:
        out = block.of(dx_all)
        g = out if relu else block.of(dy_all)
        if training:
            part = scratch(0, out.shape, out.dtype)
            np.subtract(block.of(x_all), means[block], out=part)
            np.multiply(part, slopes[block], out=part)
            np.add(part, offsets[block], out=part)
            g = np.subtract(g, part, out=out)
        np.multiply(g, scales[block], out=out)

    parallel_blocks(spread, blocks)
    return dx, dweight.astype(input.dtype), dbias.astype(input.dtype)


def _affine(variance: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any]:
    """weight / std and bias in float64."""
    rstd = 1 / np.sqrt(np.asarray(variance, np.float64) + eps)
    return rstd * (1 if weight is None else weight), np.zeros_like(rstd) if bias is None else np.asarray(bias, np.float64)


def _keep_where_negative(values: Any, decider: Any, out: Any) -> Any:
    """``values`` where ``decider`` is below 0, else 0; overwrites ``decider``, which may hold no -0.

    A float's sign is its highest bit, also as an integer: shifted down it becomes a mask of all ones or all zeros.
    """
    integer = np.dtype(f"i{decider.itemsize}")
    mask = decider.view(integer)
    np.right_shift(mask, 8 * decider.itemsize - 1, out=mask)
    np.bitwise_and(values.view(integer), mask, out=out.view(integer))
    return out
