"""Matrix products on several cores without BLAS's own threads.

BLAS can split a product over threads itself, but its threads wait for work by spinning. Beside the threads that run our
blocks they fight for the same cores, and on a machine with anything else to do a training step of half a second took
thirty. So inside a kernel BLAS is told to use one thread (:data:`one_thread`), and the rows of a product are split here,
over the same few threads as every other loop. Other NumPy code of the process keeps its BLAS threads.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import get_num_threads, parallel_blocks

__all__ = ["matmul", "one_thread", "row_blocks"]

#: Multiply-adds below which a second thread costs more than it gains.
_WORTH_A_THREAD = 1 << 20


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
    """Equal runs of ``rows`` for the threads, or a single one if ``work`` multiply-adds in all are too few to share."""
    parts = min(get_num_threads(), rows) if work >= _WORTH_A_THREAD else 1
    borders = [rows * i // parts for i in range(parts + 1)]
    return [slice(borders[i], borders[i + 1]) for i in range(parts)]


@in_float32(inputs=2)
def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """``a @ b`` for a (M, K) and b (K, N); the rows of ``a`` are shared between the threads."""
    if a.ndim != 2 or b.ndim != 2:
        with one_thread:
            return np.matmul(a, b, out=out)
    if out is None:
        out = np.empty((a.shape[0], b.shape[1]), np.result_type(a, b))
    with one_thread:
        parallel_blocks(lambda rows: np.matmul(a[rows], b, out=out[rows]), row_blocks(len(a), a.size * b.shape[1]))
    return out
