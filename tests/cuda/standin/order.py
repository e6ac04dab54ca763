"""What a stream may take for done. On a GPU streams run side by side, and only events and waits of the host order them.

The stand-in does everything at once, so it keeps the books instead: each stream counts its work, memory knows in which
stream it was used last, and a stream that touches it without having waited for that is refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

__all__ = ["RaceError", "Track", "host_waited", "touch"]


class RaceError(AssertionError):
    """Memory is used in a stream that did not wait for the stream that used it before."""


class Track:
    """The work of one stream: how much there is, and how much of other streams it comes after."""

    def __init__(self) -> None:
        self.count = 0
        self.after: dict[Track, int] = {}

    def snapshot(self) -> dict[Track, int]:
        """What is done once all work so far is."""
        return {**self.after, self: self.count}

    def wait(self, snapshot: dict[Track, int]) -> None:
        """What comes now comes after that."""
        _merge(self.after, snapshot)


#: The track of the current stream; set by runtime.py.
current: Callable[[], Track]

_done: dict[Track, int] = {}  # what the host has waited for, and with it whatever it gives to any stream from now on
_last: dict[int, tuple[Any, Track, int]] = {}  # id of an array that owns memory -> itself (weak), where it was used last


def host_waited(snapshot: dict[Track, int]) -> None:
    """The host has waited for this work."""
    _merge(_done, snapshot)


def touch(track: Track, values: Iterable[Any], what: str) -> None:
    """One more piece of work in a stream, on all arrays among ``values``."""
    track.count += 1
    for value in values:
        if isinstance(value, tuple | list):
            touch(track, value, what)
        elif isinstance(value, np.ndarray):
            _touch(track, value, what)


def _touch(track: Track, array: Any, what: str) -> None:
    while isinstance(array.base, np.ndarray):
        array = array.base
    found = _last.get(id(array))
    if found is not None and found[0]() is array and found[1] is not track:
        _, other, count = found
        if max(track.after.get(other, 0), _done.get(other, 0)) < count:
            raise RaceError(f"cupy: {what} uses memory of shape {array.shape}, on which another stream may still be at work")
    _last[id(array)] = weakref.ref(array), track, track.count


def _merge(into: dict[Track, int], snapshot: dict[Track, int]) -> None:
    for track, count in snapshot.items():
        into[track] = max(into.get(track, 0), count)
