"""Which op is to blame for a wrong gradient of a network: every call of an op is checked alone, on the inputs it has there.

A wrong rule spoils the gradients of everything in front of it, so the list of wrong parameters alone says little. But a call
of an op is a function like any other. So the network runs forward once more, and then each call that may be to blame is
compared with its own slopes, for a random upstream gradient. A call that fails is wrong by itself, not because of what came
to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.autograd import enable_grad, grad, no_grad
from minires.checking.directions import Comparison, Direction, moved
from minires.checking.report import Array
from minires.modes import state
from minires.op import Op
from minires.random import get_rng_state, set_rng_state
from minires.tape import Node
from minires.tensor import Tensor

__all__ = ["STEP", "Fault", "complex_values", "faulty_calls"]

#: Of the complex step: so small that its square is nothing, so large that its products do not underflow.
STEP = 1e-30


@dataclass(frozen=True)
class Fault:
    """A call of an op whose rule is wrong on its own.

    Attributes:
        op: name of the op.
        input: the input whose gradient is wrong.
        path: of the module in which it was called ("" for the loss).
        spoiled: numbers of the leaves whose gradient comes through that input.
        number: of the node; later calls have larger ones.
    """

    op: str
    input: str
    path: str
    spoiled: frozenset[int]
    number: int


def complex_values(values: list[Array], direction: Direction) -> tuple[list[Array], float]:
    """The values, those that move as complex numbers a tiny step along the direction; and the length of that step."""
    largest = max((float(np.abs(u).max()) for u in direction if u is not None and u.size), default=1.0)
    step = STEP if largest < 1e10 else STEP * 1e10 / largest
    stepped = list(values)
    for k, u in enumerate(direction):
        if u is not None:
            stepped[k] = np.empty(values[k].shape, np.complex128)
            stepped[k].real = values[k]
            np.multiply(u, step, out=stepped[k].imag)
    return stepped, step


def faulty_calls(
    forward: Callable[[], tuple[Tensor, list[Tensor]]], wrong: set[int], rng: Any, out_of_time: Callable[[], bool]
) -> list[Fault] | None:
    """Run a network forward and check the calls of ops in it that may have spoiled the gradients.

    Args:
        forward: runs the network and returns its loss and its leaves.
        wrong: numbers of the leaves whose gradient is wrong, or may be. A call through which the gradient of a right leaf
            comes as well is not to blame.
        rng: draws upstream gradients and directions.
        out_of_time: asked before each call.

    Returns:
        The inputs of calls that are wrong, the last call first; None if the time was over before all were looked at.
    """
    calls: list[tuple[_Call, Node, str]] = []
    with enable_grad(), _watched(lambda call, node: calls.append((call, node, ".".join(state.modules[1:])))):
        loss, leaves = forward()
    behind = _leaves_behind(loss, leaves)
    found = []
    for call, node, path in reversed(calls):
        spoiled = {edge: behind(node.edges[edge]) for _, _, edge in call.slots}
        suspects = {edge for edge, numbers in spoiled.items() if numbers and numbers <= wrong}
        if suspects and out_of_time():
            return None
        for edge, name in call.wrong_inputs(rng) if suspects else ():
            if edge in suspects:
                found.append(Fault(call.op.name, name, path, spoiled[edge], node.number))
    return sorted(found, key=lambda fault: -fault.number)


@contextmanager
def _watched(visit: Callable[[_Call, Node], None]) -> Iterator[None]:
    """Call ``visit`` after every recorded call of an op that this thread makes inside the ``with`` block."""
    plain, thread = Op.__call__, threading.get_ident()

    def watched(op: Op[Any], *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return plain(op, *args, **kwargs)
        before = get_rng_state()
        out = plain(op, *args, **kwargs)
        first = out[0] if isinstance(out, tuple) else out
        if isinstance(first, Tensor) and first.grad_fn is not None:
            visit(_Call(op, args, kwargs, first.grad_fn, before), first.grad_fn)
        return out

    setattr(Op, "__call__", watched)  # noqa: B010 - a method is replaced on purpose, for a while
    try:
        yield
    finally:
        setattr(Op, "__call__", plain)  # noqa: B010


class _Call:
    """One call of an op as a function of those inputs that want a gradient."""

    def __init__(self, op: Op[Any], args: Any, kwargs: Any, node: Node, random: Any) -> None:
        self.op, self.random = op, random
        self.bound = op._bind(args, kwargs)
        self.slots: list[tuple[int, int | None, int]] = []  # parameter, place in a sequence, number of the edge
        edge = 0
        for i in op.inputs:
            for place, _ in enumerate(self.bound[i]) if i in op.sequences else [(None, 0)]:
                if node.edges[edge] is not None:
                    self.slots.append((i, place, edge))
                edge += 1

    def wrong_inputs(self, rng: Any) -> list[tuple[int, str]]:
        """Number of the edge and name for every input whose gradient is wrong here; none if that cannot be told."""
        values = [np.array(self._given(i, place), np.float64) for i, place, _ in self.slots]
        try:
            with np.errstate(all="ignore"):
                # Not at the point itself: a ReLU of exactly 0 has no slope, and says nothing about the rule.
                return self._compare(moved(values, rng, 1e-4), rng)
        except (TypeError, ValueError, ArithmeticError, NotImplementedError, Warning):
            return []  # the op cannot do complex numbers, or not these values

    def _given(self, i: int, place: int | None) -> Any:
        value = self.bound[i] if place is None else self.bound[i][place]
        return value._array if isinstance(value, Tensor) else value

    def _outputs(self, arrays: list[Any]) -> list[Tensor]:
        set_rng_state(self.random)
        values = [list(v) if i in self.op.sequences else v for i, v in enumerate(self.bound)]
        for (i, place, _), array in zip(self.slots, arrays, strict=True):
            if place is None:
                values[i] = array
            else:
                values[i][place] = array
        out = self.op(*values)
        return [o for o in (out if isinstance(out, tuple) else (out,)) if o.dtype.kind in "fc"]

    def _compare(self, values: list[Array], rng: Any) -> list[tuple[int, str]]:
        with no_grad():
            outputs = self._outputs([Tensor(v) for v in values])
        count, values = len(values), [*values, *(rng.standard_normal(o.shape) for o in outputs)]  # constants: upstream

        def gradient(arrays: list[Array]) -> list[Array]:
            with enable_grad():
                tensors = [Tensor(a.copy(), requires_grad=True) for a in arrays[:count]]
                upstream = [Tensor(g.copy()) for g in arrays[count:]]
                found = grad(self._outputs(tensors), tensors, upstream, allow_unused=True)
            return [np.zeros(t.shape) if g is None else g._array for t, g in zip(tensors, found, strict=True)]

        def slope(arrays: list[Array], direction: Direction) -> tuple[float, float]:
            stepped, step = complex_values(arrays, direction)
            with no_grad():
                outputs = self._outputs([Tensor(a.astype(np.complex128, copy=False)) for a in stepped[:count]])
            terms = (np.sum(o._array.imag * g) for o, g in zip(outputs, arrays[count:], strict=True))
            return float(sum(terms)) / step, 0.0

        comparison = Comparison(gradient, slope, values, rng)
        wrong: dict[int, str] = {}
        for direction in comparison.directions():
            if comparison.along(direction, points=2).is_wrong:
                for k, u in enumerate(direction):
                    alone: Direction = [u if j == k else None for j in range(len(direction))]
                    if u is not None and comparison.along(alone).is_wrong and comparison.confirmed(alone).is_wrong:
                        i, _, edge = self.slots[k]
                        wrong[edge] = self.op.parameters[i]
        return list(wrong.items())


def _leaves_behind(loss: Tensor, leaves: list[Tensor]) -> Callable[[Any], frozenset[int]]:
    """A function that tells from which of the leaves an edge of the graph was computed."""
    numbers = {id(leaf): 1 << k for k, leaf in enumerate(leaves)}
    seen: dict[Node, int] = {}
    stack = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen[node] = 0
            stack.extend(edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node))

    def behind(edge: Any) -> int:
        source = None if edge is None else edge[0]  # the node, or a leaf
        return seen.get(source, 0) if isinstance(source, Node) else numbers.get(id(source), 0)

    for node in sorted(seen, key=lambda n: n.number):
        for edge in node.edges:
            seen[node] |= behind(edge)
    return lambda edge: frozenset(k for k in range(len(leaves)) if behind(edge) >> k & 1)
