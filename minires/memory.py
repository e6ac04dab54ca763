"""Guards an array that a backward rule still needs against being changed in place.

A gradient computed from a changed array is silently wrong, the worst bug a teaching framework can have. So while a node
of the graph keeps an array, the array is *locked*: NumPy itself refuses to write to it, and minires' own in-place
methods raise an error that names the op. Changes that have to happen anyway (an optimiser's step, loading weights) are
*announced*: they raise a version number, and a backward pass that meets an older version says so.

One :class:`Memory` stands for all arrays that look at the same memory, whoever wrapped them, and exists only while an op
keeps one of them.

What cannot be seen: a NumPy view of the memory that the caller made before it was locked (``row = array[0]``, or
``row = x.data[0]``), any write to a raw CuPy array, and one to an array over memory that is not NumPy's (``numpy()`` of
a PyTorch tensor, DLPack, ``as_strided``): NumPy could lock that, but never unlock it. All take some intent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minires.errors import InPlaceError

__all__ = ["Memory", "is_writable", "lock", "memory_of", "owner_of", "protect"]


class Memory:
    """The lock and the version number of one piece of memory.

    Attributes:
        version: how many announced changes there were since it was locked.
        holders: for each op that needs the memory unchanged, how many of its arrays are kept.
    """

    __slots__ = ("_changing", "_owner_locked", "_views", "holders", "owner", "version")

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.version = 0
        self.holders: dict[str, int] = {}
        self._owner_locked = self._changing = False
        self._views: list[np.ndarray[Any, Any]] | None = None  # those that were locked with their owner

    def release(self, op: str) -> None:
        """``op`` needs one of its arrays no more; the last release makes the memory writable again."""
        with _guard:
            self.holders[op] -= 1  # and no call in between, after which the collector might free another holder
            if self.holders[op] == 0:
                del self.holders[op]
            if not self.holders:
                _held.pop(id(self.owner), None)
                self._set_writable(True)
                self._owner_locked, self._views = False, None

    def forbid_writing(self, array: Any) -> None:
        """Make ``array``, which looks at this memory, read-only until the last release."""
        if isinstance(array, np.ndarray) and array.flags.writeable and _can_be_unlocked(array):
            array.setflags(write=self._changing)
            if array is self.owner:
                self._owner_locked = True
            else:
                self._views = self._views or []
                self._views.append(array)

    def _set_writable(self, value: bool) -> None:
        if self._owner_locked:  # comes first: a view can only be writable over a writable owner
            self.owner.setflags(write=value)
        for view in self._views or ():
            view.setflags(write=value)

    @contextmanager
    def announced_change(self) -> Iterator[None]:
        """Allow writes inside the ``with`` block although an op may still need the old values.

        A backward pass over a graph that was recorded before then raises instead of using the new values.
        """
        nested, self._changing = self._changing, True
        self.version += 1
        self._set_writable(True)
        try:
            yield
        finally:
            self._changing = nested
            self._set_writable(nested)

    def check_writable(self, what: str) -> None:
        """Raise if an op still needs this memory. ``what`` names the change that was tried."""
        if self.holders:
            names = ", ".join(sorted(self.holders))
            raise InPlaceError(
                f"{what}: this array may not be changed in place, because the backward rule of {names} still needs it. "
                "Call backward() first, drop the graph, or work on a copy (x.clone())."
            )


#: The memories that are locked now, by the id of the array that owns them (kept alive by the Memory, so ids stay valid).
_held: dict[int, Memory] = {}

#: Threads may share weights. Reentrant, since a graph may be freed (and release its locks) at any moment.
_guard = threading.RLock()


def lock(array: Any, op: str) -> Memory:
    """``op`` keeps ``array``: nobody may write to its memory until :meth:`Memory.release`."""
    owner = owner_of(array)
    with _guard:
        memory = _held.get(id(owner)) or Memory(owner)
        memory.holders[op] = memory.holders.get(op, 0) + 1
        _held[id(owner)] = memory  # after it is counted: the collector may just have freed the last holder
        memory.forbid_writing(owner)
        if array is not owner:
            memory.forbid_writing(array)
    return memory


def memory_of(array: Any) -> Memory:
    """The Memory that ``array`` looks at; a new one, which nobody else knows of, if it is not locked."""
    owner = owner_of(array)
    return _held.get(id(owner)) or Memory(owner)


def protect(array: Any) -> None:
    """If the memory of ``array`` is locked, make this view of it read-only as well."""
    if _held and isinstance(array, np.ndarray) and array.flags.writeable:
        with _guard:
            memory = _held.get(id(owner_of(array)))
            if memory is not None:
                memory.forbid_writing(array)


def is_writable(array: Any) -> bool:
    """Whether ``array`` may be changed: no op keeps its memory, and NumPy has no objection."""
    return getattr(array.flags, "writeable", True) and id(owner_of(array)) not in _held


def _can_be_unlocked(array: Any) -> bool:
    """Whether NumPy would let a read-only ``array`` become writable again: if it or its base owns, or has, the memory."""
    while isinstance(array, np.ndarray):
        if array.base is None:
            return True
        array = array.base
    try:
        return not memoryview(array).readonly
    except TypeError:  # no buffer: NumPy cannot tell whether the memory may be written to
        return False


def owner_of(array: Any) -> Any:
    """The array whose memory ``array`` looks at: itself, or what it is a view of."""
    while (base := getattr(array, "base", None)) is not None and hasattr(base, "base"):
        array = base  # as_strided() puts an object of its own, which is no array, in between
    return array
