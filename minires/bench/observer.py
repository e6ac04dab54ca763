"""Sees every call of an op and of a backward rule: how long it took, in which module, what it moved and what it keeps.

While an :class:`Observer` is in ``state.observer`` the engine lets it make these calls (``Op.__call__`` and the walk of the
backward pass); otherwise that costs a look at one attribute. The observer's own work is timed as well, so that it can be
taken off.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minires.bench import formulas
from minires.memory import owner_of
from minires.modes import Mode, state
from minires.tape import Node
from minires.tensor import Tensor

__all__ = ["BACKWARD", "FORWARD", "Observer", "Tally"]  # fmt: skip

FORWARD, BACKWARD = "forward", "backward"

Path = tuple[str, ...]

#: (op, FORWARD or BACKWARD, path of the module)
Key = tuple[str, str, Path]


@dataclass
class Tally:
    """All calls of one op in one module.

    Attributes:
        calls: how many.
        seconds: that they took.
        flops: operations by formula; None if they are not counted.
        bytes: moved, by formula; None if there is no formula.
        kept: bytes that they keep for the backward pass and nobody kept before.
    """

    calls: int = 0
    seconds: float = 0.0
    flops: int | None = 0
    bytes: int | None = 0
    kept: int = 0

    def add(self, seconds: float, flops: int | None, moved: int | None) -> None:
        """One more call."""
        self.calls += 1
        self.seconds += seconds
        self.flops = None if flops is None or self.flops is None else self.flops + flops
        self.bytes = None if moved is None or self.bytes is None else self.bytes + moved


class Observer:
    """Tallies of all calls inside ``with observer.watching():``.

    Args:
        clock: seconds.
        wait: waits until the device has done all that it was given; called before and after each call.

    Attributes:
        tallies: by op, pass and module.
        inside: seconds spent in ops and rules.
        own: seconds that the observer itself took.
        unknown: names of the ops for which there is no formula.
    """

    def __init__(self, clock: Callable[[], float], wait: Callable[[], None]) -> None:
        self._clock, self._wait = clock, wait
        self.tallies: dict[Key, Tally] = {}
        self.inside = self.own = 0.0
        self.unknown: dict[str, None] = {}
        self._places: dict[int, tuple[Path, int | None]] = {}  # number of a node -> its module, operations of its rule
        self._alive: list[tuple[weakref.ref[Node], Key]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, this thread's ops are observed."""
        self._places.clear()
        self._alive.clear()
        with Mode("observer", self):
            yield

    # ------------------------------------------------------------------------------------- called by the engine

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call of an op. Ops that it calls itself are part of it."""
        self._wait()
        begin = self._clock()
        with Mode("observer", None):
            result = op(*args, **kwargs)
        self._wait()
        end = self._clock()
        outputs = result if type(result) is tuple else (result,)
        node = next((o._node for o in outputs if isinstance(o, Tensor) and o._node is not None), None)
        self._note_forward(op, op._bind(args, kwargs), outputs, node, end - begin)
        self._finish(begin, end)
        return result

    def gradients(self, node: Node, grads: list[Any], wanted: list[bool], recorded: bool) -> list[Any]:
        """Let a node compute its gradients."""
        self._wait()
        begin = self._clock()
        with Mode("observer", None):
            results = node.gradients(grads, wanted, recorded)
        self._wait()
        end = self._clock()
        path, flops = self._places.get(node.number, ((), None))
        moved = None
        if formulas.is_known(node.op.name, node.op.__module__):
            moved = formulas.bytes_moved(node.op.name, _arrays([*grads, *node.kept.values()]), _arrays(results))
        self._tally((node.op.name, BACKWARD, path)).add(end - begin, flops, moved)
        self._finish(begin, end)
        return results

    def _finish(self, begin: float, end: float) -> None:
        self.inside += end - begin
        self.own += self._clock() - end

    # ------------------------------------------------------------------------------------- bookkeeping

    def _tally(self, key: Key) -> Tally:
        return self.tallies.setdefault(key, Tally())

    def _note_forward(self, op: Any, values: list[Any], outputs: tuple[Any, ...], node: Node | None, seconds: float) -> None:
        key = (op.name, FORWARD, tuple(state.modules))
        flops: tuple[int | None, int | None] = (None, None)
        moved = None
        if formulas.is_known(op.name, op.__module__):
            flops = formulas.operations(op.name, _describe(op, values, outputs, node)) or flops
            made = [node.kept[name] for name in op.kept_intermediates] if node is not None else []
            moved = formulas.bytes_moved(op.name, _arrays(values), [*_arrays(outputs), *_arrays(made)])
        else:
            self.unknown[op.name] = None
        self._tally(key).add(seconds, flops[0], moved)
        if node is not None:
            self._places[node.number] = (key[2], flops[1])
            self._alive.append((weakref.ref(node), key))

    def count_kept(self, lasting: Iterable[Any]) -> None:
        """At the end of the forward pass: what the graph keeps, each piece of memory once, for the op that came first.

        Args:
            lasting: arrays that stay anyway and do not count: weights and buffers.
        """
        begin = self._clock()
        seen = {id(owner_of(array)) for array in lasting}
        for reference, key in self._alive:
            node = reference()
            for memory in node.locks if node is not None else ():
                if id(memory.owner) not in seen:  # all are alive, so an id is one memory's
                    seen.add(id(memory.owner))
                    self._tally(key).kept += int(memory.owner.nbytes)
        self.own += self._clock() - begin


def _arrays(values: Iterable[Any]) -> list[Any]:
    """The arrays among values, Tensors, and lists and tuples of those."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, list | tuple):
            found += _arrays(value)
        elif isinstance(value, Tensor):
            found.append(value._array)
        elif hasattr(value, "nbytes") and hasattr(value, "strides"):
            found.append(value)
    return found


def _describe(op: Any, values: list[Any], outputs: tuple[Any, ...], node: Node | None) -> formulas.Call:
    """The call as the formulas want it."""
    edges = iter(node.edges if node is not None else ())
    shapes: dict[str, Any] = {"y": tuple(getattr(outputs[0], "shape", ()))}
    options: dict[str, Any] = {}
    wanted: dict[str, int] = {}
    for i, name in enumerate(op.parameters):
        if i in op.sequences:
            shapes[name] = [tuple(value.shape) for value in values[i]]
            wanted[name] = sum(edge is not None for edge in edges)
        elif i in op.inputs:
            shapes[name] = tuple(getattr(values[i], "shape", ()))
            wanted[name] = int(next(edges, None) is not None)
        else:
            options[name] = values[i]
    return formulas.Call(shapes, options, wanted)
