"""What the machine can do at best: copying memory, and multiplying large matrices. Measured in the same run as all else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minires.bench.networks import Precision
from minires.bench.rounds import Spread
from minires.kernels.cpu.threads import get_num_threads, parallel_blocks
from minires.precision import bfloat16

__all__ = ["Ceilings", "Stopwatch", "WallStopwatch", "measure"]


class Stopwatch:
    """Times work on a GPU by events on a stream of its own.

    Args:
        xp: CuPy.
    """

    def __init__(self, xp: Any) -> None:
        self._xp, self.stream = xp, xp.cuda.Stream(non_blocking=True)

    def time(self, work: Callable[[], Any], repeats: int = 1) -> float:
        """Seconds that the GPU needs for ``work()``, on average over some in a row; after all work that was given before."""
        cuda = self._xp.cuda
        start, end = cuda.Event(), cuda.Event()
        self.stream.wait_event(cuda.get_current_stream().record())  # the operands may still be on their way
        with self.stream:
            start.record(self.stream)
            for _ in range(repeats):
                work()
            end.record(self.stream)
            end.synchronize()
        return float(cuda.get_elapsed_time(start, end)) / 1e3 / repeats


class WallStopwatch:
    """The same on the CPU, by the clock on the wall."""

    def time(self, work: Callable[[], Any], repeats: int = 1) -> float:
        """Seconds for ``work()``, on average over some in a row."""
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - begin) / repeats


@dataclass
class Ceilings:
    """Bytes (read and written) and operations in a second, by name; medians."""

    copy: float
    products: dict[str, float]

    def product(self, precision: str) -> float | None:
        """Of matrices in a precision."""
        return self.products.get(precision)


def measure(
    xp: Any, watch: Any, kinds: Sequence[Precision], copy_bytes: int, side: int, repeats: int, rounds: int
) -> Ceilings:
    """Copy ``copy_bytes`` from one array to another, and multiply square matrices of ``side``; a CPU with all threads."""
    from minires.kernels import of as kernels_of

    copy = _time_copy(xp, watch, copy_bytes, repeats, rounds)
    rng = np.random.default_rng(0)
    host = rng.standard_normal((side, side), np.float32)
    matrices = [xp.asarray(host), xp.asarray(host[::-1].copy()), xp.zeros((side, side), np.float32)]
    products = {}
    for kind in kinds:
        dtype = bfloat16() if kind.autocast else np.dtype(np.float32)
        a, b, out = (each.astype(dtype, copy=False) for each in matrices)
        with kind.chosen():
            seconds = _best(watch, partial(kernels_of(a).matmul, a, b, out=out), repeats, rounds)
        products[kind.name] = 2 * side**3 / seconds
    return Ceilings(2 * copy_bytes / copy, products)


def _time_copy(xp: Any, watch: Any, size: int, repeats: int, rounds: int) -> float:
    source, target = xp.zeros(size // 4, np.float32), xp.zeros(size // 4, np.float32)

    def copy(part: slice = slice(None)) -> None:
        target[part] = source[part]

    if xp is not np:
        return _best(watch, copy, repeats, rounds)
    source.fill(1)  # zeros that nobody wrote are all one page
    count = get_num_threads()  # one core alone does not keep the memory busy
    parts = [slice(source.size * i // count, source.size * (i + 1) // count) for i in range(count)]
    return _best(watch, lambda: parallel_blocks(copy, parts), repeats, rounds)


def _best(watch: Any, work: Callable[[], Any], repeats: int, rounds: int) -> float:
    for _ in range(3):
        watch.time(work)
    return Spread.of([watch.time(work, repeats) for _ in range(rounds)]).median
