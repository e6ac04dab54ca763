"""Batches on their way to the GPU: the next one is copied while the network works on this one.

A copy overlaps with computation only if it starts in page-locked ("pinned") host memory and runs in a stream of its own.
Then nothing orders the two but events, and there are two places where that matters:

* A pinned buffer is filled again only when the copy out of it is done (who fills it waits for the copy's event).
* Device memory for a batch is taken in the consumer's stream, and the copy into it waits for what that stream was given
  until then. So it cannot overwrite the last batch that lived in the same memory, and as the memory of batch i + 1 is taken
  before batch i is handed out, its copy still overlaps with the work on batch i.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from minires.data.dataset import Array
from minires.data.prefetch import prefetched
from minires.device import check, cupy

__all__ = ["on_device"]


def on_device(batches: Iterator[tuple[Array, ...]], device: str, depth: int) -> Generator[tuple[Any, ...]]:
    """The same batches as arrays on a GPU, each copied there while the one before it is being used.

    Use them in the stream that is current when they are asked for.

    Args:
        batches: tuples of NumPy arrays.
        device: "cuda" or "cuda:N".
        depth: how many batches a background thread prepares ahead, in pinned memory; 0 works without a thread.

    Raises:
        DeviceError: there is no such device.
    """
    check(device)
    module = cupy()
    gpu = module.cuda.Device(int(device.partition(":")[2] or 0))
    with gpu:
        stream = module.cuda.Stream(non_blocking=True)
    free: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
    for _ in range(depth + 2):  # as many as wait ready, one that is being filled, one that is being copied
        free.put(_Buffer(module))
    filled = _fill(batches, free)
    if depth:
        filled = prefetched(filled, depth)
    try:
        with contextlib.closing(filled):
            yield from _one_ahead(module, gpu, stream, filled, free)
    finally:
        stream.synchronize()  # pinned memory that goes back to CuPy may be written to at once


def _fill(batches: Iterator[tuple[Array, ...]], free: queue.SimpleQueue[_Buffer]) -> Generator[_Buffer]:
    """Batches in pinned memory; this may run in a thread of its own."""
    for arrays in batches:
        buffer = free.get_nowait()  # there is always one, see above; waiting here could be waiting for ever
        buffer.fill(arrays)
        yield buffer


def _one_ahead(
    module: ModuleType, gpu: Any, stream: Any, filled: Iterator[_Buffer], free: queue.SimpleQueue[_Buffer]
) -> Generator[tuple[Any, ...]]:
    """Begin to copy batch i + 1, then hand out batch i."""
    upcoming: tuple[tuple[Any, ...], Any] | None = None
    for buffer in filled:
        with gpu:
            copy = _copy(module, stream, buffer)
        free.put(buffer)
        current, upcoming = upcoming, copy
        del copy
        if current is not None:
            batch = _when_copied(module, *current)
            del current
            yield batch
            del batch  # or it would live until the next one is ready
    if upcoming is not None:
        yield _when_copied(module, *upcoming)


def _copy(module: ModuleType, stream: Any, buffer: _Buffer) -> tuple[tuple[Any, ...], Any]:
    """Begin to copy a buffer to the GPU; returns the arrays there, and the event after which they hold the batch."""
    arrays = tuple(module.empty(array.shape, array.dtype) for array in buffer.arrays)
    taken = module.cuda.Event(disable_timing=True)
    taken.record(module.cuda.get_current_stream())
    stream.wait_event(taken)  # whoever used this memory before was given its work by now
    for array, pinned in zip(arrays, buffer.arrays, strict=True):
        array.set(pinned, stream=stream)
    buffer.copied = module.cuda.Event(block=True, disable_timing=True)
    buffer.copied.record(stream)
    return arrays, buffer.copied


def _when_copied(module: ModuleType, arrays: tuple[Any, ...], copied: Any) -> tuple[Any, ...]:
    """The arrays, for the current stream: what it does from now on comes after the copy."""
    module.cuda.get_current_stream().wait_event(copied)
    return arrays


class _Buffer:
    """Pinned memory for the arrays of one batch, and the event after which it may be filled again."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._memory: list[tuple[int, Any]] = []  # for each array of a batch, how many bytes there are, and where
        self.arrays: list[Array] = []
        self.copied: Any = None

    def fill(self, arrays: tuple[Array, ...]) -> None:
        """Copy a batch in, after the copy of the last one out of here."""
        if self.copied is not None:
            self.copied.synchronize()
        self.arrays = [self._pinned(i, array) for i, array in enumerate(arrays)]
        for pinned, array in zip(self.arrays, arrays, strict=True):
            pinned[...] = array

    def _pinned(self, i: int, array: Array) -> Array:
        """A pinned array like ``array``."""
        needed = max(array.nbytes, 1)
        if i == len(self._memory):
            self._memory.append((0, None))
        if self._memory[i][0] < needed:
            self._memory[i] = (needed, self._module.cuda.alloc_pinned_memory(needed))
        return np.frombuffer(self._memory[i][1], array.dtype, array.size).reshape(array.shape)
