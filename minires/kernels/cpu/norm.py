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

The variance of a block is ``E[x²] - E[x]²`` only where the mean is not large beside the deviations, so that the difference
loses two bits at most; else the block sums distances from its mean and their squares, which takes an array more. The blocks
are joined by the formula of Chan, Golub and LeVeque (1979) in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import aligned_empty, parallel_blocks, scratch

__all__ = ["batch_norm", "batch_norm_backward", "batch_statistics", "follow"]

Matrix = Any  # (M, C): one row for each position of each sample, one column for each channel
Running = tuple[Any, Any]  # (running_mean, running_var), either may be None

#: A thread on its own is fastest with 0.5 MB, which stay in the second-level cache. But between two NumPy calls it needs the
#: interpreter's lock, and waits some 50 µs if another thread has it, as long as a call takes on 1 MB. So blocks are large,
#: as long as there are a few for each thread. (64×64×32×32 on two cores, backward: 9.4 ms with 1 MB, 8.2 with 4 MB.)
BLOCK_BYTES, _LEAST_BYTES, _SHARES = 1 << 22, 1 << 20, 4

WIDE = 8192  # elements of a folded row for element by element work
NARROW = 4096  # elements of a folded row for sums over the rows

#: How many standard deviations a mean may be from 0 until a difference of products costs too many digits.
_FAR = 4.0

#: E[x]² as a share of E[x²] from which on their difference would lose more than two bits.
_LARGE_MEAN = 0.75


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
    """One number for each channel, repeated to the width of a folded row: ``vectors[fold]``."""

    def __init__(self, values: Any, dtype: Any) -> None:
        self._by_fold = {1: np.asarray(values).astype(dtype) + 0}  # no -0, see _keep_where_negative

    def __getitem__(self, fold: int) -> Any:
        repeated = self._by_fold.get(fold)
        if repeated is None:
            rows = np.empty((fold, len(self._by_fold[1])), self._by_fold[1].dtype)
            rows[...] = self._by_fold[1]  # np.tile() takes five times as long
            repeated = self._by_fold[fold] = rows.reshape(-1)  # (fold, C) -> (fold·C,)
        return repeated


def _as_matrix(array: Any) -> Matrix:
    """(N, C, ...) as (N·..., C): a view of channels-last memory, else a copy."""
    last = array.transpose(0, *range(2, array.ndim), 1)  # (N, ..., C)
    return np.ascontiguousarray(last).reshape(-1, array.shape[1])  # (M, C)


def _new_like(array: Any) -> tuple[Any, Matrix]:
    """Uninitialised channels-last memory in the shape of ``array`` (N, C, ...), and the same memory as a matrix."""
    n, c, *sizes = array.shape
    memory = aligned_empty((n, *sizes, c), array.dtype)
    return memory.transpose(0, array.ndim - 1, *range(1, array.ndim - 1)), memory.reshape(-1, c)


def _split(matrix: Matrix) -> list[Block]:
    """The blocks of a matrix. All fold as many rows; if that leaves rows over, the last block has those."""
    rows, channels = matrix.shape
    if matrix.size == 0:
        return []
    narrow = _part_of(rows, max(1, NARROW // channels))
    fold = narrow * _part_of(rows // narrow, max(1, -(-WIDE // (narrow * channels))))
    size = min(BLOCK_BYTES, max(_LEAST_BYTES, matrix.nbytes // _SHARES))
    step = max(1, size // (matrix.itemsize * channels * fold)) * fold
    folded = rows - rows % fold
    spans = [(start, min(start + step, folded), fold, narrow) for start in range(0, folded, step)]
    if folded < rows:
        spans.append((folded, rows, 1, 1))
    return [Block(i, *span) for i, span in enumerate(spans)]


@lru_cache(maxsize=1000)
def _part_of(rows: int, most: int) -> int:
    """A number up to ``most`` that divides ``rows``, if one is at least half as large; else ``most`` itself."""
    most = min(most, rows)
    return next((part for part in range(most, most // 2, -1) if rows % part == 0), most)


def _for_each(function: Callable[[Block], None], blocks: list[Block]) -> None:
    """Call ``function`` for all blocks: on all threads, unless there is only one and a few rows left over."""
    if len(blocks) == 2 and blocks[1].fold < blocks[0].fold:
        function(blocks[0])
        function(blocks[1])
    else:
        parallel_blocks(function, blocks)


@in_float32(results=0)
def batch_statistics(input: Any, running: Running = (None, None), momentum: float = 0.0) -> tuple[Any, Any]:
    """Mean and biased variance of each channel of ``input`` (N, C, ...), float64, each (C,).

    ``running`` (mean, variance) follow them in place: (1 - momentum)·running + momentum·new, with the unbiased variance.
    """
    matrix = _as_matrix(input)
    blocks = _split(matrix)
    channels = matrix.shape[1]
    counts = np.array([float(block.stop - block.start) for block in blocks])[:, None]  # (blocks, 1)
    means, squares = np.zeros((2, len(blocks), channels))

    def measure(block: Block) -> None:
        x, narrow, count = block.of(matrix), block.narrow * channels, block.stop - block.start
        flat = x.reshape(-1, narrow)
        means[block.number] = mean = _by_channel(np.add.reduce(flat, axis=0), channels) / count
        squared = _by_channel(np.einsum("nc,nc->c", flat, flat), channels)
        shift = count * mean**2
        if np.all(shift <= _LARGE_MEAN * squared):
            squares[block.number] = squared - shift
            return
        centre = mean.astype(x.dtype)
        distance = np.subtract(x, np.tile(centre, block.fold), out=scratch(0, x.shape, x.dtype)).reshape(-1, narrow)
        rest = _by_channel(np.add.reduce(distance, axis=0), channels) / count  # what rounding had left out of the mean
        means[block.number] = centre + rest
        squares[block.number] = _by_channel(np.einsum("nc,nc->c", distance, distance), channels) - count * rest**2

    _for_each(measure, blocks)
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
    line = _line(mean, variance, weight, bias, eps, input.dtype, relu)
    zero = _Vectors(np.zeros(x_all.shape[1]), input.dtype)

    def normalize(block: Block) -> None:
        x, y, fold = block.of(x_all), block.of(y_all), block.fold
        if line.origin is not None:
            x = np.subtract(x, line.origin[fold], out=y)
        np.multiply(x, line.scale[fold], out=y)
        if not line.is_knee:
            np.add(y, line.offset[fold], out=y)
        if relu:
            np.maximum(y, zero[fold], out=y)

    _for_each(normalize, _split(x_all))
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
    blocks, channels = _split(x_all), x_all.shape[1]
    line = _line(mean, variance, weight, bias, eps, input.dtype, relu)
    negative = line if line.is_knee else _line(mean, variance, weight, bias, eps, input.dtype, relu, sign=-1)
    origin = _Vectors(mean, input.dtype) if line.origin is None else line.origin
    sums, products = np.zeros((2, len(blocks), channels))  # Σg and Σg·(origin - x) of each block

    def add_up(block: Block) -> None:
        x, g, fold = block.of(x_all), block.of(dy_all), block.fold
        distance = np.subtract(origin[fold], x, out=scratch(0, x.shape, x.dtype))
        if relu:  # a number below 0 where the ReLU is open, to the last bit by what the forward pass saw
            decider, mask = distance, scratch(1, x.shape, x.dtype)
            if not line.is_knee:
                far = line.origin is not None
                decider = np.multiply(distance if far else x, (line if far else negative).scale[fold], out=mask)
                np.add(decider, negative.offset[fold], out=decider)
            g = _keep_where_negative(g, decider, mask, out=block.of(dx_all))
        g, distance = g.reshape(-1, block.narrow * channels), distance.reshape(-1, block.narrow * channels)
        sums[block.number] = _by_channel(np.add.reduce(g, axis=0), channels)
        products[block.number] = _by_channel(np.einsum("nc,nc->c", g, distance), channels)

    _for_each(add_up, blocks)
    rstd = 1 / np.sqrt(np.asarray(variance, np.float64) + eps)
    dbias = sums.sum(axis=0)
    dweight = ((origin[1].astype(np.float64) - mean) * dbias - products.sum(axis=0)) * rstd
    _spread(dx_all if relu else dy_all, x_all, dx_all, mean, rstd, weight, (dweight, dbias) if training else None)
    return dx, dweight.astype(input.dtype), dbias.astype(input.dtype)


def _spread(g_all: Any, x_all: Any, dx_all: Any, mean: Any, rstd: Any, weight: Any, sums: tuple[Any, Any] | None) -> None:
    """Fill ``dx_all`` with weight/std·(g - mean(g) - x̂·mean(g·x̂)); without ``sums`` = (Σg·x̂, Σg) with weight/std·g.

    That is scale·g + slope·(x - mean) + level for each channel. Where no mean is far from 0, slope·mean joins the level.
    """
    scale, dtype, count = (rstd if weight is None else rstd * weight), x_all.dtype, max(len(x_all), 1)
    dweight, dbias = (0 * rstd, 0 * rstd) if sums is None else sums
    slope, level = -scale * rstd * dweight / count, -scale * dbias / count
    centre = _Vectors(mean, dtype) if np.any(np.abs(mean) * rstd > _FAR) else None
    scales, slopes, levels = (_Vectors(v, dtype) for v in (scale, slope, level if centre else level - slope * mean))

    def spread(block: Block) -> None:
        out, fold = block.of(dx_all), block.fold
        np.multiply(block.of(g_all), scales[fold], out=out)
        if sums is None:
            return
        x, part = block.of(x_all), scratch(0, out.shape, out.dtype)
        if centre:
            x = np.subtract(x, centre[fold], out=part)
        np.multiply(x, slopes[fold], out=part)
        np.add(part, levels[fold], out=part)
        np.add(out, part, out=out)

    _for_each(spread, _split(x_all))


class _Line(NamedTuple):
    """Batch norm of each channel as a straight line: (input - origin)·scale + offset.

    If no mean is far from 0 it needs no origin (None); else that is the mean, or the sum would lose digits. With a ReLU
    behind it, only the part above the *knee* matters, where the line crosses 0. If that is near, it is the origin, and there
    is no offset; one difference then serves the ReLU's mask and the weight's gradient as well.
    """

    scale: _Vectors
    offset: _Vectors
    origin: _Vectors | None
    is_knee: bool


def _line(mean: Any, variance: Any, weight: Any, bias: Any, eps: float, dtype: Any, relu: bool, sign: int = 1) -> _Line:
    """The line of batch norm; with ``sign`` -1 its scale and offset negated."""
    std, mean = np.sqrt(np.asarray(variance, np.float64) + eps), np.asarray(mean, np.float64)
    slope = np.ones_like(std) if weight is None else np.asarray(weight, np.float64)
    shift = np.zeros_like(std) if bias is None else np.asarray(bias, np.float64)
    scale, origin, is_knee = slope / std, None, False
    if np.any(np.abs(mean) > _FAR * std):
        origin = _Vectors(mean, dtype)
    elif relu and np.all(slope > 0) and np.all(np.abs(shift) <= slope) and np.all(np.isfinite(std)):
        origin, is_knee = _Vectors(mean - shift / slope * std, dtype), True
    offset = shift - scale * (mean if origin is None else mean - origin[1])
    return _Line(_Vectors(sign * scale, dtype), _Vectors(sign * offset, dtype), origin, is_knee)


def _keep_where_negative(values: Any, decider: Any, mask: Any, out: Any) -> Any:
    """``values`` where ``decider``, which may not hold -0, is below 0, else 0. ``mask`` is overwritten; may be ``decider``.

    A float's sign is its highest bit, also when it is read as an integer: shifted down it becomes a mask of all ones or all
    zeros. (A sum is -0 only if both its terms are, and no offset is; a difference of equal numbers is +0.)
    """
    integer = np.dtype(f"i{decider.itemsize}")
    np.right_shift(decider.view(integer), 8 * decider.itemsize - 1, out=mask.view(integer))
    np.bitwise_and(values.view(integer), mask.view(integer), out=out.view(integer))
    return out
