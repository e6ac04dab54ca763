"""Matrix products on several cores without BLAS's own threads, and tall ones in small pieces.

BLAS can split a product over threads itself, but its threads wait for work by spinning. Beside the threads that run our
blocks they fight for the same cores, and on a machine with anything else to do a training step of half a second took
thirty. So inside a kernel BLAS is told to use one thread (:data:`one_thread`), and the rows of a product are split here,
over the same few threads as every other loop. Other NumPy code of the process keeps its BLAS threads.

The matrices of a convolution are tall and thin: one row for each position, one column for each channel. A large product is
first copied into an order that its inner loop likes, and for a thin matrix that copy costs as much as the product. OpenBLAS
skips it where M·K·N is at most 100³. So :func:`product` and :func:`gram` cut a tall matrix into such pieces, and hand all of
them to NumPy in one call, as a stack. Measured on one core of an AVX-512 server, float32, 65,536 rows:

* (M, 16) @ (16, 64): 74 GFLOP/s in one piece, 157 in pieces; (M, 64) @ (64, 64): 102 and 176, of 200 at best.
* (16, M) @ (M, 64), a weight's gradient: 61 and 101 GFLOP/s; (64, M) @ (M, 64): 89 and 130.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import parallel_blocks

__all__ = ["gram", "matmul", "one_thread", "product", "row_blocks"]

#: Multiply-adds below which a second thread costs more than it gains, and the runs of rows that are shared from there on.
_WORTH_A_THREAD, _RUNS = 1 << 20, 4

#: Multiply-adds of a piece at most, and its least rows in :func:`product` and :func:`gram`; with fewer, one piece is faster.
_PIECE, _LEAST_ROWS, _LEAST_GRAM_ROWS = 990_000, 16, 48


class _OneThread:
    """Context manager: BLAS runs on the calling thread alone. May be nested, and entered by several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._libraries is None:  # looked up once: it walks all shared libraries of the process
                from threadpoolctl import ThreadpoolController

                self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            if self._depth == 0:
                self._before = [library.get_num_threads() for library in self._libraries]
                self._set([1] * len(self._libraries))
            self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._set(self._before)

    def _set(self, counts: list[int]) -> None:
        for library, count in zip(self._libraries or [], counts, strict=True):
            library.set_num_threads(count)


one_thread = _OneThread()


def row_blocks(rows: int, work: int) -> list[slice]:
    """Equal runs of ``rows``, or a single one if ``work`` multiply-adds in all are too few to share.

    How many there are does not depend on the threads, since BLAS may round differently for other numbers of rows.
    """
    parts = min(_RUNS, rows) if work >= _WORTH_A_THREAD else 1
    borders = [rows * i // parts for i in range(parts + 1)]
    return [slice(borders[i], borders[i + 1]) for i in range(parts)]


def product(a: Any, b: Any, out: Any) -> None:
    """``out = a @ b`` for a (..., M, K), b (..., K, N) and out (..., M, N) with a large M, on this thread."""
    rows, piece = a.shape[-2], _piece(a.shape[-1] * b.shape[-1])
    if not _LEAST_ROWS <= piece < rows:
        np.matmul(a, b, out=out)
        return
    whole = rows - rows % piece
    shape = (*a.shape[:-2], whole // piece, piece)
    pieces = a[..., :whole, :].reshape(*shape, a.shape[-1])  # (..., M, K) -> (..., M / piece, piece, K)
    np.matmul(pieces, b[..., None, :, :], out=out[..., :whole, :].reshape(*shape, b.shape[-1]))
    if whole < rows:
        np.matmul(a[..., whole:, :], b, out=out[..., whole:, :])


def gram(a: Any, b: Any) -> Any:
    """``aᵀ @ b`` for a (..., M, K) and b (..., M, N) with a large M: (..., K, N), on this thread."""
    if a.shape[-1] > b.shape[-1]:  # the wider matrix on the right: 100 instead of 82 GFLOP/s for (64, M) @ (M, 16)
        return gram(b, a).swapaxes(-1, -2)  # (..., N, K) -> (..., K, N)
    rows, piece = a.shape[-2], _piece(a.shape[-1] * b.shape[-1])
    if not _LEAST_GRAM_ROWS <= piece < rows:
        return np.matmul(a.swapaxes(-1, -2), b)
    whole = rows - rows % piece
    # (..., M, K) -> (..., pieces, piece, K)
    left, right = (m[..., :whole, :].reshape(*m.shape[:-2], whole // piece, piece, m.shape[-1]) for m in (a, b))
    total = np.matmul(left.swapaxes(-1, -2), right).sum(axis=-3)  # (..., pieces, K, N) -> (..., K, N)
    if whole < rows:
        total += np.matmul(a[..., whole:, :].swapaxes(-1, -2), b[..., whole:, :])
    return total


def _piece(work: int) -> int:
    """Rows of a piece, if each takes so much ``work`` (multiply-adds): a multiple of 16 from 16 on, vectors of AVX-512."""
    rows = _PIECE // max(work, 1)
    return rows - rows % 16 if rows > 16 else rows


@in_float32(inputs=2)
def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """``a @ b`` for a (M, K) and b (K, N); the rows of ``a`` are shared between the threads."""
    if a.ndim != 2 or b.ndim != 2:
        with one_thread:
            return np.matmul(a, b, out=out)
    if out is None:
        out = np.empty((a.shape[0], b.shape[1]), np.result_type(a, b))
    with one_thread:
        parallel_blocks(lambda rows: product(a[rows], b, out=out[rows]), row_blocks(len(a), a.size * b.shape[1]))
    return out
