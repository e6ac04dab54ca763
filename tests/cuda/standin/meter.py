"""What the stand-in watches: how often the host waited for the device, and what a CUDA-graph capture would refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class SyncError(AssertionError):
    """The host waited for the device where it must not."""


class CaptureError(RuntimeError):
    """Something that a CUDA-graph capture refuses."""


class Meter:
    """Counts, and raises while something is forbidden.

    Attributes:
        syncs: what made the host wait → how often.
        uploads: copies from the host to the device.
        launches: kernels of our own that were launched, by name.
        work: during a capture, what has to be done at each replay.
    """

    def __init__(self) -> None:
        self.syncs: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.uploads = 0
        self.work: list[Callable[[], None]] | None = None
        self._forbidden = False

    def sync(self, what: str) -> None:
        """The host waits for a result of the device."""
        self.refuse_in_capture(what)
        if self._forbidden:
            raise SyncError(f"cupy: {what} makes the host wait for the device")
        self.syncs[what] += 1

    def upload(self, what: str) -> None:
        """Numbers go from the host to the device."""
        self.refuse_in_capture(f"{what} (a copy from the host)")
        self.uploads += 1

    def refuse_in_capture(self, what: str) -> None:
        """``what`` cannot be part of a CUDA graph."""
        if self.work is not None:
            raise CaptureError(f"cupy: {what} is not permitted while a stream is being captured")

    @contextmanager
    def no_syncs(self) -> Iterator[None]:
        """Inside, whatever makes the host wait raises :class:`SyncError`."""
        before, self._forbidden = self._forbidden, True
        try:
            yield
        finally:
            self._forbidden = before

    @contextmanager
    def capturing(self) -> Iterator[list[Callable[[], None]]]:
        """Inside, what a capture refuses raises; what is done is noted, so that it can be done again with new numbers."""
        if self.work is not None:
            raise CaptureError("cupy: a stream is already being captured")
        self.work = work = []
        try:
            yield work
        finally:
            self.work = None


meter = Meter()
no_syncs, capturing = meter.no_syncs, meter.capturing


def total_syncs() -> int:
    """How often the host has waited so far."""
    return sum(meter.syncs.values())


def reset() -> None:
    """Start counting anew."""
    meter.__init__()  # type: ignore[misc]


def describe(value: Any) -> str:
    """A value for a message."""
    shape = getattr(value, "shape", None)
    return type(value).__module__ + "." + type(value).__name__ + (f" of shape {shape}" if shape is not None else "")
