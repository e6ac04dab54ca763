"""Max pooling on the GPU: a byte for each winner, and a gradient that every pixel collects for itself.

As on the CPU the forward pass keeps the number of the cell that won, one byte. The gradient is a gather: an input pixel asks
the windows that contain it, in a fixed order, whether it was their winner. So no two threads ever add to one place, no
atomic additions are needed, and the sums are equal bit for bit from run to run (they are even those of the CPU's kernel).
Means need no kernels of their own: they are linear and separable (:mod:`minires.kernels.cuda.resize`).

Bytes read and written for each output of a 3×3 window at stride 2 in float32, which is what the time should be: forward
4·4 + 4 + 1 = 21; gradient the same 21, the other way round; gather 4 + 1 + 4 = 9, although sectors of 32 bytes are moved.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels.cuda import plain
from minires.kernels.cuda.build import launch
from minires.kernels.cuda.strips import channels_last, has_kernel, pack_size, strips
from minires.kernels.window import Window

__all__ = ["max_pool", "max_pool_gather", "max_pool_scatter"]

#: Windows with kernels of their own: kernel and stride, without dilation.
_COMPILED = {((3, 3), (2, 2)): "_3x3_stride_2", ((2, 2), (2, 2)): "_2x2_stride_2"}


def max_pool(x: Any, window: Window) -> tuple[Any, Any]:
    """The largest value in every window, and the number of the cell that held it (the first of equals; NaN wins).

    x is (N, C, H, W), real; both results are (N, C, H', W') in channels-last memory, the cell numbers as uint8 (int32 for
    windows of more than 255 cells). Every window must hold a part of the input (:meth:`Window.always_sees_input`).
    """
    if not has_kernel(x.dtype):
        return plain.max_pool(x, window)
    xp = array_module(x)
    x = channels_last(x, xp)
    shape = (len(x), *window.output_size, x.shape[3])  # (N, H', W', C)
    y, winners = xp.empty(shape, x.dtype), xp.empty(shape, np.uint8 if window.cells <= 255 else np.int32)
    if y.size:
        _launch("max_pool", [x, y, winners], y.shape, window, xp)
    return y.transpose(0, 3, 1, 2), winners.transpose(0, 3, 1, 2)  # (N, H', W', C) -> (N, C, H', W')


def max_pool_scatter(dy: Any, offsets: Any, window: Window) -> Any:
    """Add every dy (N, C, H', W') to zeros of (N, C, H, W), at the place where its window had its maximum."""
    if not has_kernel(dy.dtype):
        return plain.max_pool_scatter(dy, offsets, window)
    xp = array_module(dy)
    dy, offsets = channels_last(dy, xp), channels_last(offsets, xp)
    dx = xp.empty((len(dy), *window.input_size, dy.shape[3]), dy.dtype)  # (N, H, W, C)
    if dx.size:
        _launch("max_pool_scatter", [dy, offsets, dx], dx.shape, window, xp)
    return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def max_pool_gather(x: Any, offsets: Any, window: Window) -> Any:
    """The value of x (N, C, H, W), of any dtype, where every window had its maximum: (N, C, H', W')."""
    xp = array_module(x)
    x, offsets = channels_last(x, xp), channels_last(offsets, xp)
    y = xp.empty(offsets.shape, x.dtype)  # (N, H', W', C)
    if y.size:
        images, rows, columns, channels = y.shape
        shape = strips(images, rows, columns * channels)
        sizes = [*window.input_size, rows, columns, channels, shape.bands, shape.band_rows]
        arguments = [x, offsets, y, *sizes, *_flat(window)]
        kernel = "max_pool_gather" + ("_wide" if window.cells > 255 else "")
        unit = x.dtype.itemsize
        launch("copy", kernel, 1, arguments, xp=xp, block=shape.block, grid=shape.grid, UNIT=unit)
    return y.transpose(0, 3, 1, 2)  # (N, H', W', C) -> (N, C, H', W')


def _launch(kernel: str, arrays: list[Any], work: tuple[int, ...], window: Window, xp: ModuleType) -> None:
    """Start a kernel whose threads walk down the columns of images of shape ``work``, (N, rows, columns, C)."""
    images, rows, columns, channels = work
    dtype = arrays[0].dtype
    pack = pack_size(channels, dtype.itemsize, *arrays)
    shape = strips(images, rows, columns * (channels // pack))
    sizes = [*window.input_size, *window.output_size, channels, shape.bands, shape.band_rows]
    if window.cells > 255:
        kernel += "_wide"
    elif window.dilation == (1, 1):
        kernel += _COMPILED.get((window.kernel, window.stride), "")
    arguments = [*arrays, *sizes, *_flat(window)]
    launch("pool", kernel, 1, arguments, xp=xp, dtype=dtype, block=shape.block, grid=shape.grid, VEC=pack)


def _flat(window: Window) -> tuple[int, ...]:
    return (*window.kernel, *window.stride, *window.padding, *window.dilation)
