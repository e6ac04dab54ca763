"""Guards an array that a backward rule still needs against being changed in place.

A gradient computed from a changed array is silently wrong, the worst bug a teaching framework can have. So while a node
of the graph keeps an array, the array is *locked*: NumPy itself refuses to write to it, and minires' own in-place
methods raise an error that names the op. Changes that have to happen anyway (an optimiser's step, loading weights) are
*announced*: they raise a version number, and a backward pass that meets an older version says so.

What cannot be seen: a further NumPy view of the same memory that the caller made before it was wrapped. ``tensor()`` copies,
so this takes ``from_numpy`` and some intent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from minires.errors import InPlaceError

__all__ = ["Memory", "memory_of_foreign"]


class Memory:
    """The lock and the version number shared by all Tensors that look at the same memory.

    Attributes:
        version: how many announced changes there were.
        holders: names of the ops that need the memory unchanged, one entry per array kept.
    """

    __slots__ = ("__weakref__", "_locked", "_root", "holders", "version")

    def __init__(self, root: Any) -> None:
        self.version = 0
        self.holders: list[str] = []
        self._root = root
        self._locked: list[np.ndarray[Any, Any]] = []

    def lock(self, array: Any, op: str) -> None:
        """``op`` keeps ``array``: nobody may write to it until :meth:`release`."""
        self.holders.append(op)
        for each in (self._root,) if array is self._root else (self._root, array):
            if type(each) is np.ndarray and each.flags.writeable:
                each.flags.writeable = False
                self._locked.append(each)

    def release(self, op: str) -> None:
        """``op`` needs its array no more; the last release makes the memory writable again."""
        self.holders.remove(op)
        if not self.holders:
            for array in self._locked:  # the root comes first: a view can only be writable over a writable root
                array.flags.writeable = True
            self._locked.clear()

    @contextmanager
    def announced_change(self) -> Iterator[None]:
        """Allow writes inside the ``with`` block although an op may still need the old values.

        A backward pass over a graph that was recorded before then raises instead of using the new values.
        """
        self.version += 1
        for array in self._locked:
            array.flags.writeable = True
        try:
            yield
        finally:
            for array in self._locked:
                array.flags.writeable = False

    def check_writable(self, what: str) -> None:
        """Raise if an op still needs this memory. ``what`` names the change that was tried."""
        if self.holders:
            names = ", ".join(sorted(set(self.holders)))
            raise InPlaceError(
                f"{what}: this array may not be changed in place, because the backward rule of {names} still needs it. "
                "Call backward() first, drop the graph, or work on a copy (x.clone())."
            )


#: Memories of arrays that the user owns, by the id of the owning array (which the Memory keeps alive, so ids stay valid).
_foreign: WeakValueDictionary[int, Memory] = WeakValueDictionary()


def memory_of_foreign(array: Any) -> Memory:
    """The Memory of an array that came from outside: one per owner, however many views of it were wrapped."""
    owner = array
    while type(getattr(owner, "base", None)) is np.ndarray:
        owner = owner.base
    memory = _foreign.get(id(owner))
    if memory is None:
        memory = _foreign[id(owner)] = Memory(owner)
    return memory
