"""Linear maps that act on rows and columns apart, Y = A·X·Bᵀ, as two matrix products on channels-last memory.

Bilinear resizing and average pooling are both of this form; so are their gradients, with A and B transposed. What was
measured (float32, one BLAS thread, 64×64×16×16 to 32×32, best of 15): two products 2.0 to 3.3 ms, interpolating between
picked rows and picked columns 6.0 ms, although the products multiply mostly zeros. Whether rows or columns come first made
no difference that stood out from the noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.kernels.cpu.blas import one_thread
from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import aligned_empty, parallel_blocks, scratch

__all__ = ["pick", "resample"]

#: Bytes of the half-done image in a block: it stays in the second-level cache between the two products.
_BLOCK_BYTES = 1 << 19

#: Rows of a matrix that are multiplied at once. They touch only a short run of columns, so that the zeros of a large
#: matrix cost nothing: the work grows with the size of the image, not with its square.
_BAND_ROWS = 32

Band = tuple[int, int, int, int]  # rows from, to; columns from, to


@in_float32()
def resample(x: Any, rows: Any, columns: Any) -> Any:
    """A·X·Bᵀ for every image and channel.

    Args:
        x: (N, C, H, W), floating point or complex.
        rows: A, (H', H), float64: rounded here to the precision of x.
        columns: B, (W', W), likewise.

    Returns:
        (N, C, H', W') in channels-last memory.
    """
    nhwc = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    images, height, width, channels = nhwc.shape
    out = aligned_empty((images, len(rows), len(columns), channels), x.dtype)  # (N, H', W', C)
    if out.size:
        real = np.zeros(0, x.dtype).real.dtype
        rows, columns = rows.astype(real, copy=False), columns.astype(real, copy=False)
        row_bands, column_bands = _bands(rows), _bands(columns)
        at_once = max(1, _BLOCK_BYTES // max(1, len(rows) * width * channels * x.itemsize))

        def resample_images(part: slice) -> None:
            block = np.ascontiguousarray(nhwc[part])  # (n, H, W, C), a view if it can be one
            half = scratch(0, (len(block), len(rows), width, channels), x.dtype)  # (n, H', W, C)
            # All columns and channels of a row are one long vector: (n, H, W·C) -> (n, H', W·C)
            flat = (len(block), -1, width * channels)
            _multiply(rows, row_bands, block.reshape(len(block), height, -1), half.reshape(flat))
            _multiply(columns, column_bands, half, out[part])  # (n, H', W, C) -> (n, H', W', C)

        with one_thread:
            parallel_blocks(resample_images, [slice(i, i + at_once) for i in range(0, images, at_once)])
    return out.transpose(0, 3, 1, 2)


def pick(x: Any, rows: Any, columns: Any) -> Any:
    """Pixel (rows[i], columns[j]) of x (N, C, H, W), of any dtype, as pixel (i, j): (N, C, H', W'), channels-last."""
    nhwc = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    picked = nhwc.take(rows, axis=1).take(columns, axis=2)  # (N, H', W', C)
    return picked.transpose(0, 3, 1, 2)


def _multiply(matrix: Any, bands: list[Band], x: Any, out: Any) -> None:
    """``out = matrix @ x`` over the last two axes, without most of the zeros of the matrix."""
    for top, bottom, first, last in bands:
        np.matmul(matrix[top:bottom, first:last], x[..., first:last, :], out=out[..., top:bottom, :])


def _bands(matrix: Any) -> list[Band]:
    """The matrix in bands of rows, each with the run of columns that holds all its nonzeros."""
    bands = []
    for top in range(0, len(matrix), _BAND_ROWS):
        used = np.flatnonzero(matrix[top : top + _BAND_ROWS].any(axis=0))
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)  # all zero: one column of zeros does
        bands.append((top, min(top + _BAND_ROWS, len(matrix)), first, last))
    return bands
