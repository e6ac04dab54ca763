"""Prepare the next batches while the network works on this one.

One thread and a bounded queue are enough: NumPy releases Python's lock in its loops, so preparing a batch overlaps
with the matrix products of training. The hard part of such a thread is its end. Here it ends in every case: when the
work runs out, when the work fails (the consumer then gets the exception), and when the consumer loses interest.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

__all__ = ["prefetched"]

T = TypeVar("T")


def prefetched(items: Iterator[T], depth: int) -> Generator[T]:
    """The same items in the same order, computed up to ``depth`` ahead in a background thread.

    The thread starts with the first item that is asked for. Leaving the loop early (``break``, an exception, or
    dropping the iterator) stops it and waits for it, which takes at most the time of one item.

    Raises:
        BaseException: whatever ``items`` raises, at the place in the sequence where it happened.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    worker = threading.Thread(target=_produce, args=(items, ready, stop), name="minires-prefetch", daemon=True)
    worker.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "end":
                return
            if kind == "error":
                try:
                    raise item
                finally:
                    del item  # the exception's traceback holds this frame; without this the frame would hold it too
            yield item
            del item  # while we wait for the next batch this one may be freed
    finally:
        _shut_down(worker, ready, stop)


def _produce(items: Iterator[Any], ready: queue.Queue[tuple[str, Any]], stop: threading.Event) -> None:
    try:
        for item in items:
            ready.put(("item", item))
            if stop.is_set():
                return
        ready.put(("end", None))
    except BaseException as error:
        ready.put(("error", error))


def _shut_down(worker: threading.Thread, ready: queue.Queue[tuple[str, Any]], stop: threading.Event) -> None:
    stop.set()
    # The worker puts at most one more item before it sees the flag: an emptied queue has room for that, so it can
    # not block for ever, and no polling is needed.
    while not ready.empty():
        ready.get_nowait()
    if worker is not threading.current_thread():
        worker.join()
