"""A few threads for loops over blocks, and the scratch memory that each of them works in.

NumPy releases the interpreter's lock inside its loops, so plain threads keep all cores busy as long as a block is large
enough. Two rules make this safe and repeatable. No matrix product inside a worker, unless BLAS was told to keep to one
thread (:mod:`minires.kernels.cpu.blas`): its own threads would fight these. And no result that depends on which thread was
first: each block writes to its own place, and whoever needs a sum adds the blocks' shares in their order afterwards. So
results are equal bit for bit from run to run, and for any number of threads.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import numpy as np

__all__ = ["aligned_empty", "get_num_threads", "parallel_blocks", "scratch", "set_num_threads"]

Block = TypeVar("Block")

#: Vector instructions load 64 bytes; memory that starts at a multiple of it is read and written up to twice as fast.
_ALIGNMENT = 64


class _Worker(threading.Thread):
    """A thread that waits for one function at a time.

    Two bare locks hand the work over and back. A queue of futures takes some 90 µs a call, as long as half of a small op.
    """

    def __init__(self) -> None:
        super().__init__(name="minires", daemon=True)
        self._begin, self._end = threading.Lock(), threading.Lock()
        self._begin.acquire()
        self._end.acquire()
        self._work: Callable[[], Any] | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        _local.is_worker = True
        while True:
            self._begin.acquire()
            if self._work is None:
                return
            try:
                self._work()
            except BaseException as error:  # handed to the caller, who raises it
                self._error = error
            self._work = None
            self._end.release()

    def hand(self, work: Callable[[], Any]) -> None:
        """Begin with ``work``."""
        self._work = work
        self._begin.release()

    def wait(self) -> BaseException | None:
        """Wait until the work is done; the error that ended it, or None."""
        self._end.acquire()
        error, self._error = self._error, None
        return error

    def stop(self) -> None:
        """End the thread."""
        self._begin.release()
        self.join()


class _Pool:
    """The worker threads, started when they are first needed. ``busy`` is held by whoever has given them work."""

    def __init__(self) -> None:
        self.threads = _cores()
        self.process = os.getpid()
        self.busy = threading.Lock()
        self._workers: list[_Worker] = []

    def workers(self) -> list[_Worker]:
        """``threads - 1`` workers (the caller works as well); new ones after a fork, which does not copy threads."""
        if self.process != os.getpid():
            self.process, self._workers = os.getpid(), []
        while len(self._workers) < self.threads - 1:
            self._workers.append(_Worker())
        return self._workers

    def resize(self, threads: int) -> None:
        """Use ``threads`` threads from now on."""
        with self.busy:
            if self.process == os.getpid():
                for worker in self._workers:
                    worker.stop()
            self._workers, self.threads = [], threads


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_local = threading.local()
_pool = _Pool()


def get_num_threads() -> int:
    """How many threads work on the blocks of one op."""
    return _pool.threads


def set_num_threads(threads: int) -> None:
    """Let ``threads`` (at least 1) threads work on the blocks of one op. BLAS has a setting of its own."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"set_num_threads: expected a whole number >= 1, got {threads!r}")
    _pool.resize(threads)


def parallel_blocks(function: Callable[[Block], Any], blocks: Sequence[Block]) -> None:
    """Call ``function`` for every block; with two blocks or more, on all threads.

    Each thread gets one run of neighbouring blocks, so the split is always the same. Calls from inside a worker run in that
    worker, and a second caller, who finds the workers taken, works alone. ``function`` returns nothing: it writes to a place
    of its own, and takes temporaries from :func:`scratch`.
    """
    threads = min(_pool.threads, len(blocks))
    if threads < 2 or getattr(_local, "is_worker", False) or not _pool.busy.acquire(blocking=False):
        _run(function, blocks)
        return
    try:
        borders = [len(blocks) * i // threads for i in range(threads + 1)]
        workers = _pool.workers()[: threads - 1]
        for i, worker in enumerate(workers, start=1):
            worker.hand(partial(copy_context().run, _run, function, blocks[borders[i] : borders[i + 1]]))
        try:
            _run(function, blocks[: borders[1]])
        finally:  # nobody may still be writing when the caller goes on, not even after an error
            errors = [worker.wait() for worker in workers]
    finally:
        _pool.busy.release()
    for error in errors:
        if error is not None:
            raise error


def _run(function: Callable[[Block], Any], blocks: Sequence[Block]) -> None:
    for block in blocks:
        function(block)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """As ``np.empty`` (C order), starting at a multiple of 64 bytes, which ``np.empty`` does not promise."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    aligned: np.ndarray[Any, Any] = memory[start : start + size].view(dtype).reshape(shape)
    return aligned


def scratch(number: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Temporary memory number ``number`` of this thread, with whatever is in it; valid until the same number is asked for.

    It is kept from call to call, so a loop over blocks finds it in the cache and never waits for fresh pages.
    """
    views: dict[Any, np.ndarray[Any, Any]] = _local.__dict__.setdefault("views", {})
    view = views.get((number, shape, dtype))
    if view is None:
        buffers: dict[int, np.ndarray[Any, Any]] = _local.__dict__.setdefault("buffers", {})
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if number not in buffers or buffers[number].size < size:
            buffers[number] = aligned_empty((size,), np.uint8)
            views.clear()
        if len(views) > 100:  # views are small, but a program may see any number of shapes
            views.clear()
        view = views[number, shape, dtype] = buffers[number][:size].view(dtype).reshape(shape)
    return view
