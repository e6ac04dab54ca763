"""How kernels over images are cut into blocks of threads, and how many channels a thread takes.

Neighbouring threads take neighbouring channels, since these lie side by side in memory, and then neighbouring columns. Each
thread walks down a few rows: what depends on its column is worked out once, and what depends on the row is the same for the
whole block, so it never divides a warp. The grid is (image and band of rows, part of a row).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Strips", "channels_last", "has_kernel", "pack_size", "strips"]

#: Rows that a thread walks down at most.
_MOST_ROWS = 8

#: Fewer rows for each where that many threads would not come together: an H200 holds 270,336 at a time.
_ENOUGH_THREADS = 1 << 19

_BLOCK = 256
_VECTOR_BYTES = 16


class Strips(NamedTuple):
    """The launch of a kernel in which each thread walks down ``band_rows`` rows of one column."""

    bands: int
    band_rows: int
    grid: tuple[int, int]
    block: tuple[int]


def strips(images: int, rows: int, row_threads: int) -> Strips:
    """The launch for ``images`` images of ``rows`` rows, each of which takes ``row_threads`` threads."""
    band_rows = _MOST_ROWS
    while band_rows > 1 and images * -(-rows // band_rows) * row_threads < _ENOUGH_THREADS:
        band_rows //= 2
    bands = -(-rows // band_rows)
    block = min(_BLOCK, -(-row_threads // 32) * 32)
    return Strips(bands, band_rows, (images * bands, -(-row_threads // block)), (block,))


def has_kernel(dtype: Any) -> bool:
    """Whether there are CUDA kernels for numbers of this type; complex numbers and integers go the plain way."""
    return np.dtype(dtype).name in ("float32", "float64", "float16", "bfloat16")


def pack_size(size: int, itemsize: int, *arrays: Any) -> int:
    """How many of ``size`` neighbouring elements a thread moves at once: a power of two, 16 bytes at most.

    It divides ``size``, and the memory of each of ``arrays`` begins at a multiple of it (a slice may begin anywhere).
    """
    pack = max(1, _VECTOR_BYTES // itemsize)
    while pack > 1 and (size % pack or any(array.data.ptr % (pack * array.dtype.itemsize) for array in arrays)):
        pack //= 2
    return pack


def channels_last(x: Any, xp: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C) without gaps: a view of channels-last memory, else a copy."""
    nhwc = xp.ascontiguousarray(x.transpose(0, 2, 3, 1))
    if nhwc.size and nhwc[0].size >= np.iinfo(np.int32).max:
        raise ValueError(f"the CUDA kernels count within an image in 32 bits: {x.shape[1:]} has too many elements")
    return nhwc
