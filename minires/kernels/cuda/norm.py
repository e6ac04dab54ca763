"""Batch norm on the GPU, with or without the ReLU behind it.

All of it is bound by memory, so each pass reads its inputs once: one pass for the statistics, one forward, two backward.
What is summed over the whole batch is summed in two steps, always in the same order: first by as many blocks of threads as
keep the GPU busy, then over the blocks. The variance is exact where ``E[x²] - E[x]²`` is not: squares are of distances from
a mean, and parts are joined by the formula of Chan, Golub and LeVeque (1979). Nothing waits for the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minires.device import array_module
from minires.kernels.cpu.norm import follow
from minires.kernels.cuda import plain
from minires.kernels.cuda.build import launch
from minires.kernels.cuda.strips import has_kernel

__all__ = ["batch_norm", "batch_norm_backward", "batch_statistics"]

Matrix = Any  # (M, C): one row for each position of each sample, one column for each channel
Running = tuple[Any, Any]  # (running_mean, running_var), either may be None

_BLOCK = 256  # as in norm.cu
_MOST_ACROSS = 64  # vectors of channels in a block: what is left of its threads goes down the rows
_CHANNELS_MERGED = 8  # by each block of the kernels that join the parts

#: Blocks of a launch: 3 for each of an H200's 132 multiprocessors, which is what they hold at a time. More would come in a
#: second wave, and a thread would have fewer rows to walk over for what it works out once for its channels.
_BLOCKS = 396


class _Tiles(NamedTuple):
    """How a matrix is laid out over blocks: ``across`` vectors of channels by ``down`` rows at a time."""

    across: int
    down: int
    grid: tuple[int, int]  # tiles of channels, parts of the rows
    wide: int  # 1 if channels are read several at a time

    @property
    def parts(self) -> int:
        return self.grid[1]


def _tiles(*matrices: Matrix) -> _Tiles:
    (rows, channels), itemsize = matrices[0].shape, matrices[0].itemsize
    width = 2 if itemsize == 8 else 4  # as in norm.cu
    wide = channels % width == 0 and all(each.data.ptr % (width * itemsize) == 0 for each in matrices)
    vectors = channels // width if wide else channels
    count = -(-vectors // _MOST_ACROSS)
    across = -(-vectors // count)
    down = _BLOCK // across
    parts = max(1, min(_BLOCKS // count, -(-rows // down)))
    return _Tiles(across, down, (count, parts), int(wide))


def _as_matrix(array: Any) -> Matrix:
    """(N, C, ...) as (N·..., C): a view of channels-last memory, else a copy."""
    xp = array_module(array)
    return xp.ascontiguousarray(xp.moveaxis(array, 1, -1)).reshape(-1, array.shape[1])  # (N, ..., C) -> (M, C)


def _new_like(array: Any) -> tuple[Any, Matrix]:
    """Uninitialised channels-last memory in the shape of ``array`` (N, C, ...), and the same memory as a matrix."""
    xp = array_module(array)
    n, c, *sizes = array.shape
    memory = xp.empty((n, *sizes, c), array.dtype)
    return xp.moveaxis(memory, -1, 1), memory.reshape(memory.size // max(c, 1), c)


def batch_statistics(input: Any, running: Running = (None, None), momentum: float = 0.0) -> tuple[Any, Any]:
    """Mean and biased variance of each channel of ``input`` (N, C, ...), float64, each (C,).

    ``running`` (mean, variance) follow them in place: (1 - momentum)·running + momentum·new, with the unbiased variance.
    """
    if not has_kernel(input.dtype) or not input.size:
        return plain.batch_statistics(input, running, momentum)
    xp, x = array_module(input), _as_matrix(input)
    (rows, channels), tiles = x.shape, _tiles(x)
    partial = xp.empty((tiles.parts, 2, channels), np.float64)
    _start("measure", tiles, x, [x, partial, rows, channels, tiles.across])
    mean, variance = xp.empty(channels, np.float64), xp.empty(channels, np.float64)
    fused = tuple(each if _fits(each, _type_of_sums(x)) else None for each in running)
    arguments = [partial, mean, variance, *fused, np.float64(momentum), rows, channels, tiles.parts, tiles.down]
    _start("merge_statistics", tiles, x, arguments, merging=True)
    others = tuple(None if fits is not None else each for fits, each in zip(fused, running, strict=True))
    follow((others[0], others[1]), mean, variance, rows, momentum)
    return mean, variance


def batch_norm(input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, relu: bool) -> Any:
    """(input - mean) / √(variance + eps) · weight + bias for each channel, then max(·, 0) if ``relu``.

    input: (N, C, ...); the others (C,), weight and bias may be None. Returns channels-last memory.
    """
    if not has_kernel(input.dtype):
        return plain.batch_norm(input, mean, variance, weight, bias, eps, relu)
    out, y = _new_like(input)
    if input.size:
        x = _as_matrix(input)
        tiles = _tiles(x)
        channels = _of_channels(x, mean, variance, weight, bias, eps)
        _start("normalize", tiles, x, [x, y, *channels, *x.shape, tiles.across, int(relu)])
    return out


def batch_norm_backward(
    grad_output: Any, input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float, training: bool, relu: bool
) -> tuple[Any, Any, Any]:
    """Gradients of ``input``, ``weight`` and ``bias``: :func:`minires.kernels.cpu.norm.batch_norm_backward`."""
    if not has_kernel(input.dtype) or not input.size:
        return plain.batch_norm_backward(grad_output, input, mean, variance, weight, bias, eps, training, relu)
    xp, x, dy = array_module(input), _as_matrix(input), _as_matrix(grad_output.astype(input.dtype, copy=False))
    out, dx = _new_like(input)
    (rows, count), tiles = x.shape, _tiles(x, dy)
    channels = _of_channels(x, mean, variance, weight, bias, eps)
    partial = xp.empty((tiles.parts, 2, count), np.float64)
    _start("add_up", tiles, x, [dy, x, partial, *channels, rows, count, tiles.across, int(relu)])
    dweight, dbias, level, slope = (xp.empty(count, _type_of_sums(x)) for _ in range(4))
    arguments = [partial, channels[1], dweight, dbias, level, slope, np.float64(eps), rows, count, tiles.parts]
    _start("merge_gradients", tiles, x, arguments, merging=True)
    arguments = [dy, x, dx, *channels[:4], level, slope, channels[4], rows, count, tiles.across, int(training), int(relu)]
    _start("spread", tiles, x, arguments)
    return out, dweight, dbias  # of 16-bit images in float32: sums of many gradients


def _start(kernel: str, tiles: _Tiles, x: Matrix, arguments: list[Any], merging: bool = False) -> None:
    """Start a kernel of norm.cu over a matrix, or (``merging``) one that joins the parts of its channels."""
    grid = -(-x.shape[1] // _CHANNELS_MERGED) if merging else tiles.grid
    launch("norm", kernel, x.size, arguments, xp=array_module(x), dtype=x.dtype, block=_BLOCK, grid=grid, WIDE=tiles.wide)


def _of_channels(x: Matrix, mean: Any, variance: Any, weight: Any, bias: Any, eps: float) -> list[Any]:
    """What the kernels take of each channel: the statistics in float64, weight and bias in the type of sums, eps."""
    xp, sums = array_module(x), _type_of_sums(x)
    kinds = ((mean, np.float64), (variance, np.float64), (weight, sums), (bias, sums))
    vectors = [None if v is None else xp.ascontiguousarray(v.astype(kind, copy=False)) for v, kind in kinds]
    return [*vectors, np.float64(eps)]


def _type_of_sums(x: Any) -> Any:
    return np.float64 if x.dtype == np.float64 else np.float32


def _fits(running: Any, dtype: Any) -> bool:
    """Whether the kernel can update it."""
    return running is not None and running.dtype == dtype and bool(running.flags.c_contiguous)
