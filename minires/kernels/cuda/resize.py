"""Resizing and mean pooling on the GPU: Y = A·X·Bᵀ in one pass, where every output gathers the few inputs that it mixes.

The matrices A and B come from the host, mostly zeros. Here they become tables of taps: where the nonzeros of a row begin,
how many there are, their values. A table is put on the device once and kept by the matrix's content, since nothing may be
copied from the host while a CUDA graph is captured. The gradient is the same function with both matrices transposed, so it
too is a gather without atomic additions, and equal bit for bit from run to run.

Bytes read and written for each output in float32, which is what the time should be: 4·(H·W)/(H'·W') + 4; so 5 for bilinear
upsampling by 2, 20 for its gradient and for 2×2 means, 8 to copy. What overlapping windows read twice comes from the caches.
"""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minires.device import array_module, device_of
from minires.kernels.cuda.build import launch
from minires.kernels.cuda.strips import channels_last, pack_size, strips

__all__ = ["pick", "resample"]

#: Below this number of threads (an H200 holds 270,336 at a time) it pays to let several share the taps of an output, ...
_FEW_THREADS = 1 << 17

#: ... from this number of taps on.
_MANY_TAPS = 16

_BLOCK = 256
_VECTOR_BYTES = 16


def resample(x: Any, rows: Any, columns: Any) -> Any:
    """A·X·Bᵀ for every image and channel.

    Args:
        x: (N, C, H, W), floating point or complex.
        rows: A, (H', H), a NumPy array of float64.
        columns: B, (W', W), likewise.

    Returns:
        (N, C, H', W') in channels-last memory.
    """
    xp = array_module(x)
    x = channels_last(x, xp)
    y = xp.empty((len(x), len(rows), len(columns), x.shape[3]), x.dtype)  # (N, H', W', C)
    if y.size:
        # The weights are real, so a complex number is just two channels: (N, H, W, C) -> (N, H, W, 2·C)
        real = x.dtype if x.dtype.kind != "c" else np.zeros(0, x.dtype).real.dtype
        _gather(x.view(real), y.view(real), _taps(rows, x, xp), _taps(columns, x, xp), xp)
    return y.transpose(0, 3, 1, 2)  # (N, H', W', C) -> (N, C, H', W')


def pick(x: Any, rows: Any, columns: Any) -> Any:
    """Pixel (rows[i], columns[j]) of x (N, C, H, W), of any dtype, as pixel (i, j): (N, C, H', W'), channels-last."""
    xp = array_module(x)
    x = channels_last(x, xp)
    images, height, width, channels = x.shape
    y = xp.empty((images, len(rows), len(columns), channels), x.dtype)  # (N, H', W', C)
    if y.size:
        indices = [_on_device(np.asarray(index, np.int32), x, xp) for index in (rows, columns)]
        pixel = channels * x.dtype.itemsize
        unit = _copy_unit(pixel, x, y)
        shape = strips(images, len(rows), len(columns) * (pixel // unit))
        sizes = [height, width, len(rows), len(columns), pixel // unit, shape.bands, shape.band_rows]
        launch("copy", "pick", 1, [x, y, *indices, *sizes], xp=xp, block=shape.block, grid=shape.grid, UNIT=unit)
    return y.transpose(0, 3, 1, 2)  # (N, H', W', C) -> (N, C, H', W')


class _Taps(NamedTuple):
    """The nonzeros of a matrix, row by row: ``start`` and ``count`` (n,) int32, ``weights`` (n, most), all on the device."""

    start: Any
    count: Any
    weights: Any
    most: int


def _gather(x: Any, y: Any, rows: _Taps, columns: _Taps, xp: ModuleType) -> None:
    """Fill y (N, H', W', C) from x (N, H, W, C), by the kernel that suits the number of taps."""
    images, height, width, channels = x.shape
    new_height, new_width = y.shape[1:3]
    pack = pack_size(channels, x.dtype.itemsize, x, y)
    row_threads = new_width * (channels // pack)
    sizes = [height, width, new_height, new_width, channels]
    arguments = [x, y, *rows, *columns, *sizes]
    if rows.most * columns.most >= _MANY_TAPS and images * new_height * row_threads < _FEW_THREADS:
        lanes = 1  # threads side by side in the channels; the others of the block share the taps
        while lanes < min(32, channels // pack):
            lanes *= 2
        grid = (images * new_height * new_width, -(-channels // (pack * lanes)))
        launch("resize", "resample_windows", 1, arguments, xp=xp, dtype=x.dtype, VEC=pack,
               block=(lanes, _BLOCK // lanes), grid=grid)  # fmt: skip
        return
    shape = strips(images, new_height, row_threads)
    if rows.most <= 2 and columns.most <= 2:
        kernel = "resample_pairs"
    else:
        kernel = "resample_taps" + next((f"_{most}" for most in (4, 6, 8) if columns.most <= most), "")
    arguments += [shape.bands, shape.band_rows]
    launch("resize", kernel, 1, arguments, xp=xp, dtype=x.dtype, block=shape.block, grid=shape.grid, VEC=pack)


#: Tables on the devices. None is ever dropped: a captured graph reads them by their address. They take a few kilobytes each.
_tables: dict[Any, Any] = {}


def _taps(matrix: Any, x: Any, xp: ModuleType) -> _Taps:
    """The table of ``matrix`` on the device of x, in the precision that kernels compute with for x."""
    dtype = np.dtype(np.float64 if x.dtype in (np.float64, np.complex128) else np.float32)
    key = _key(matrix, dtype, x, xp)
    if key not in _tables:
        start, count, weights = _table(matrix)
        device = (xp.asarray(start), xp.asarray(count), xp.asarray(weights.astype(dtype)))
        _tables[key] = _Taps(*device, weights.shape[1])
    taps: _Taps = _tables[key]
    return taps


def _on_device(array: Any, x: Any, xp: ModuleType) -> Any:
    """A NumPy array on the device of x, copied the first time."""
    key = _key(array, array.dtype, x, xp)
    if key not in _tables:
        _tables[key] = xp.asarray(array)
    return _tables[key]


def _key(array: Any, dtype: Any, x: Any, xp: ModuleType) -> Any:
    """What a table depends on: the content of ``array``, and where it shall lie in which precision."""
    content = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()
    return xp, device_of(x), dtype, array.shape, content


def _table(matrix: Any) -> tuple[Any, Any, Any]:
    """From the first nonzero of each row to its last: start (n,), count (n,), weights (n, most), filled up with zeros."""
    used = np.asarray(matrix) != 0  # (n, m)
    any_used = used.any(axis=1)
    start = np.where(any_used, used.argmax(axis=1), 0)
    stop = np.where(any_used, used.shape[1] - used[:, ::-1].argmax(axis=1), 0)
    count = stop - start
    weights = np.zeros((len(used), max(1, int(count.max(initial=0)))))
    for row, values, first, last in zip(weights, matrix, start, stop, strict=True):
        row[: last - first] = values[first:last]
    return start.astype(np.int32), count.astype(np.int32), weights


def _copy_unit(size: int, *arrays: Any) -> int:
    """The most bytes, a power of two up to 16, that divide ``size`` and every array's address."""
    unit = _VECTOR_BYTES
    while size % unit or any(array.data.ptr % unit for array in arrays):
        unit //= 2
    return unit
