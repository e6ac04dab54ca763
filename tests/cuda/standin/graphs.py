"""CUDA graphs of the stand-in: what is done during a capture is written down, undone, and done again at each launch.

A real capture runs nothing. NumPy can only find out what an operation returns by doing it, so a capture here does everything
and puts all memory back to what it was before; memory that was made meanwhile is filled with what nobody can have computed.
So whatever looks at a result of a capture before the graph was launched shows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cuda.standin.array import _poison, ndarray
from tests.cuda.standin.meter import CaptureError, meter

__all__ = ["Capture", "Graph"]


class Graph:
    """What was done during a capture, to be done again. ``launches`` counts how often it was."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work
        self.launches = 0

    def launch(self, stream: Any = None) -> None:
        meter.refuse_in_capture("Graph.launch()")
        self.launches += 1
        for each in self._work:
            each()

    def upload(self, stream: Any = None) -> None:
        meter.refuse_in_capture("Graph.upload()")


class Capture:
    """One capture of a stream, from its making to :meth:`end`."""

    def __init__(self) -> None:
        self._before = {id(owner): (owner, owner.copy()) for owner in _all_memory()}
        self._noting = meter.capturing()
        self._work = self._noting.__enter__()

    def end(self) -> Graph:
        self._noting.__exit__(None, None, None)
        for owner in _all_memory():
            if id(owner) not in self._before:
                _poison(owner)
        for owner, values in self._before.values():
            owner[...] = values
        return Graph(self._work)


def begin(capture: Capture | None) -> Capture:
    if capture is not None:
        raise CaptureError("cupy: this stream is being captured already")
    return Capture()


def end(capture: Capture | None) -> Graph:
    if capture is None:
        raise CaptureError("cupy: this stream is not being captured")
    return capture.end()


def _all_memory() -> list[np.ndarray]:
    """The memory of every array on the stand-in's device."""
    owners = {}
    for each in gc.get_objects():
        if type(each) is ndarray:
            owner = each._host
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
            if owner.flags.writeable:
                owners[id(owner)] = owner
    return list(owners.values())
