"""Reverse-mode automatic differentiation: the walk back over the tape.

:func:`backward` and :func:`grad` visit the nodes that :mod:`minires.op` recorded, newest first. By then every use of a
node's output has sent its share of the gradient, so each rule runs once, however often paths meet again. The walk is a
loop over a heap, not a recursion: a chain of 100,000 ops is no deeper for it than one of ten.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minires import operators
from minires.device import array_module
from minires.kernels import of as kernels_of
from minires.memory import is_writable, lock, owner_of
from minires.modes import Mode, detect_anomaly, enable_grad, is_grad_enabled, no_grad, state
from minires.op import Op, Saved, op
from minires.tape import Node, check_finite
from minires.tensor import Tensor

__all__ = ["Op", "Saved", "backward", "detect_anomaly", "enable_grad", "grad", "is_grad_enabled", "no_grad", "op"]


def backward(tensor: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Add the derivatives of ``tensor`` to the ``.grad`` of every leaf that it was computed from.

    Args:
        tensor: usually a loss of one element.
        gradient: dL/dtensor, of the shape of ``tensor``; may be left out for one element (then it is 1).
        retain_graph: keep the graph for another pass. Default: the value of ``create_graph``.
        create_graph: record the backward pass as well, so that it can be differentiated again.
    """
    _walk([tensor], [_seed(tensor, gradient)], None, retain_graph, create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The derivatives of the sum of ``outputs`` (each weighted by its ``grad_outputs``) for each of ``inputs``.

    Nothing is added to any ``.grad``. Inputs may be leaves or results of other ops. Returns a tuple of Tensors, with
    None for an input that the outputs do not depend on if ``allow_unused``, else that is an error.
    """
    outs: list[Any] = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    ins: list[Any] = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    seeds = grad_outputs if isinstance(grad_outputs, list | tuple) else [grad_outputs]
    if len(seeds) == 1 and len(outs) > 1 and grad_outputs is None:
        seeds = [None] * len(outs)
    if len(seeds) != len(outs):
        raise ValueError(f"grad: {len(outs)} outputs but {len(seeds)} grad_outputs")
    for i, x in enumerate(ins):
        if not isinstance(x, Tensor) or not x.requires_grad:
            raise ValueError(f"grad: inputs[{i}] does not require a gradient (call requires_grad_() before the forward)")
    found = _walk(outs, [_seed(o, s) for o, s in zip(outs, seeds, strict=True)], ins, retain_graph, create_graph)
    for i, g in enumerate(found):
        if g is None and not allow_unused:
            raise ValueError(f"grad: the outputs do not depend on inputs[{i}]; pass allow_unused=True to get None for it")
    return tuple(found)


def _seed(tensor: Any, gradient: Any) -> Tensor:
    """The gradient to start from, checked."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"backward: expected a Tensor, got {type(tensor).__name__}")
    if not tensor.requires_grad:
        raise ValueError("backward: this Tensor does not depend on anything that requires a gradient")
    if gradient is None:
        if tensor.data.size != 1:
            raise ValueError(
                f"backward: the Tensor has shape {tensor.shape}; without a gradient argument it must have one element, "
                "like a loss (use .sum() or .mean(), or pass gradient=)"
            )
        return Tensor(array_module(tensor.data).ones(tensor.data.shape, tensor.data.dtype))
    if not isinstance(gradient, Tensor):
        gradient = Tensor(array_module(tensor.data).asarray(gradient, dtype=tensor.data.dtype))
    assert isinstance(gradient, Tensor)
    if gradient.shape != tensor.shape:
        raise ValueError(f"backward: the gradient has shape {gradient.shape}, but the Tensor has shape {tensor.shape}")
    return gradient.to(tensor.dtype)


#: Threads that share weights add to the same ``.grad``.
_accumulating = threading.RLock()


class _Sum:
    """A gradient in the making: the first term as it came, the sum of more terms in an array of our own."""

    __slots__ = ("owned", "value")

    def __init__(self, term: Any) -> None:
        self.value = term
        self.owned = False

    def add(self, term: Any) -> None:
        if isinstance(term, np.generic) or isinstance(term, Tensor):
            self.value = self.value + term
        elif self.owned:
            self.value += term
        else:
            self.value = kernels_of(term).add(self.value, term)
            self.owned = getattr(self.value, "ndim", 0) > 0


def _walk(
    roots: list[Tensor], seeds: list[Tensor], targets: list[Tensor] | None, retain: bool | None, recorded: bool
) -> list[Any]:
    """Walk back from ``roots``. With ``targets`` returns their gradients; without, adds to the leaves' ``.grad``."""
    walk = _Walk(None if targets is None else _Targets(targets, roots), recorded if retain is None else retain, recorded)
    with Mode("grad_enabled", recorded), Mode("autocast", None):  # rules run in the dtypes of the forward pass
        for root, seed in zip(roots, seeds, strict=True):
            walk.send(root if root._node is None else root._node, root._slot, seed if recorded else seed.data)
        walk.run()
    return [] if walk.targets is None else walk.targets.results


class _Walk:
    """The walk itself: newest node first, so that a node is reached after all that used its outputs."""

    def __init__(self, targets: _Targets | None, retain: bool, recorded: bool) -> None:
        self.targets, self.retain, self.recorded = targets, retain, recorded
        self._observer = state.observer
        self._pending: dict[Node, list[_Sum | None]] = {}
        self._queue: list[tuple[int, Node]] = []
        self._leaves: dict[Tensor, _Sum] = {}

    def send(self, source: Any, slot: int, gradient: Any, owned: bool = False) -> None:
        """Add a gradient to an output of a node, or to a leaf; ``owned``: nobody else looks at its memory.

        NumPy's results without axes are numbers, no arrays. They take no memory, and are quicker to add up first.
        """
        if isinstance(source, Tensor):
            if self.targets is None and source._hooks is None and not isinstance(gradient, np.generic):
                _accumulate(source, gradient, owned)  # at once: nothing else has to see the whole sum
            elif source in self._leaves:
                self._leaves[source].add(gradient)
            else:
                self._leaves[source] = _Sum(gradient)
            return
        sums = self._pending.get(source)
        if sums is None:
            sums = self._pending[source] = [None] * len(source.outputs)
            heapq.heappush(self._queue, (-source.number, source))
        total = sums[slot]
        if total is None:
            sums[slot] = _Sum(gradient)
        else:
            total.add(gradient)

    def run(self) -> None:
        """Visit every node that something was sent to, then the leaves that had to wait for their whole sum."""
        while self._queue:
            self._visit(heapq.heappop(self._queue)[1])
        for leaf, total in self._leaves.items():
            gradient = _apply_hooks(leaf._hooks, total.value)
            if self.targets is None:
                _accumulate(leaf, gradient)
            else:
                self.targets.collect_leaf(leaf, gradient)

    def _visit(self, node: Node) -> None:
        """Run one node's rule and send the results on; then the node lets go of all that it kept."""
        grads = [None if total is None else total.value for total in self._pending.pop(node)]
        if node.hooks is not None or node.retained is not None:
            grads = [_run_hooks(node, slot, gradient) for slot, gradient in enumerate(grads)]
        if self.targets is None:
            wanted = [edge is not None for edge in node.edges]
        else:
            self.targets.collect(node, grads)
            wanted = self.targets.wanted(node)
            if not any(wanted):
                return
        if self._observer is None:
            results = node.gradients(grads, wanted, self.recorded)
        else:
            results = self._observer.gradients(node, grads, wanted, self.recorded)
        if state.anomaly:
            check_finite(node.op, results, "its backward rule", node)
        edges = node.edges
        fresh = () if self.recorded else _fresh(node, grads, results)
        if not self.retain:
            node.free()
        del grads
        for k, edge in enumerate(edges):
            if edge is not None and results[k] is not None:
                source, slot, _, _ = edge
                self.send(source, slot, results[k], k in fresh)


class _Targets:
    """The inputs that ``grad()`` was asked for: which nodes lead to them, and their gradients as they turn up."""

    def __init__(self, targets: list[Tensor], roots: list[Tensor]) -> None:
        self.results: list[Any] = [None] * len(targets)
        self._leaves: dict[Tensor, list[int]] = {}
        self._slots: dict[Node, list[tuple[int, int]]] = {}
        for i, target in enumerate(targets):
            if target._node is None:
                self._leaves.setdefault(target, []).append(i)
            else:
                self._slots.setdefault(target._node, []).append((target._slot, i))
        self._leading = self._find_leading(roots)

    def _find_leading(self, roots: Iterable[Tensor]) -> set[Node]:
        """All nodes from which some target is reached, found from the oldest node on."""
        seen: set[Node] = set()
        stack = [root._node for root in roots if root._node is not None]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack.extend(edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node))
        leading: set[Node] = set()
        for node in sorted(seen, key=lambda n: n.number):
            if any(self._leads(edge, leading) for edge in node.edges):
                leading.add(node)
        return leading

    def _leads(self, edge: Any, leading: set[Node]) -> bool:
        if edge is None:
            return False
        source, slot, _, _ = edge
        if isinstance(source, Tensor):
            return source in self._leaves
        return source in leading or any(slot == s for s, _ in self._slots.get(source, ()))

    def wanted(self, node: Node) -> list[bool]:
        return [self._leads(edge, self._leading) for edge in node.edges]

    def collect(self, node: Node, grads: list[Any]) -> None:
        for slot, i in self._slots.get(node, ()):
            self.results[i] = _own_tensor(grads[slot])

    def collect_leaf(self, leaf: Tensor, gradient: Any) -> None:
        for i in self._leaves.get(leaf, ()):
            self.results[i] = _own_tensor(gradient)


def _fresh(node: Node, grads: list[Any], results: list[Any]) -> tuple[int, ...]:
    """Which results for leaves are in memory that the rule made for them alone, so that they need no copy to be ``.grad``.

    Not those that look at an upstream gradient or at something kept, as those of ``x + y`` and ``x.reshape(...)`` do, nor
    two that look at the same memory, nor a part of something larger.
    """
    leaves = []
    for k, edge in enumerate(node.edges):
        waits = edge is not None and isinstance(edge[0], Tensor) and edge[0].grad is None
        if waits and not isinstance(results[k], np.generic):
            leaves.append(k)
    if not leaves:
        return ()
    owners = [None if r is None else owner_of(r) for r in results]
    others = [owner_of(g) for g in grads if g is not None] + [memory.owner for memory in node.locks]
    others += [owner_of(part) for value in node.kept.values() if type(value) is tuple for part in value]

    def is_fresh(k: int) -> bool:
        own: Any = owners[k]
        if not hasattr(own, "strides") or own.base is not None:  # as_strided() hides its owner
            return False
        if not is_writable(results[k]):  # or is a broadcast view, even where there was nothing to repeat
            return False
        if not own.ndim or own.size != results[k].size:
            return False
        return sum(own is o for o in owners) == 1 and not any(own is o for o in others)

    return tuple(k for k in leaves if is_fresh(k))


def _own_tensor(gradient: Any) -> Any:
    """A Tensor over a gradient that no other name refers to."""
    if gradient is None:
        return None
    if isinstance(gradient, Tensor):
        return operators.functional.clone(gradient) if gradient.requires_grad else Tensor(gradient.data.copy(order="K"))
    return Tensor(array_module(gradient).array(gradient, order="K"))


def _accumulate(leaf: Tensor, gradient: Any, owned: bool = False) -> None:
    """``leaf.grad += gradient``, in an array that belongs to ``leaf.grad`` alone."""
    if gradient is None or not leaf._requires_grad:  # frozen since the forward pass
        return
    with _accumulating:
        collected = leaf.grad
        if collected is None:
            leaf.grad = Tensor(gradient) if owned else _own_tensor(gradient)
        elif not isinstance(collected, Tensor) or collected._array.shape != gradient.shape:
            found = f"one of shape {collected.shape}" if isinstance(collected, Tensor) else type(collected).__name__
            raise ValueError(f"backward: .grad of a leaf must be None or a Tensor of shape {gradient.shape}, found {found}")
        elif isinstance(gradient, Tensor) or not is_writable(collected._array):
            leaf.grad = collected + gradient  # a graph may hold the old values: the gradient of a gradient
        else:
            values = collected._array
            values += gradient


def _run_hooks(node: Node, slot: int, gradient: Any) -> Any:
    """The hooks of one output, then its ``.grad`` if the Tensor asked to retain it."""
    if gradient is None:
        return None
    if node.hooks is not None:
        gradient = _apply_hooks(node.hooks.get(slot), gradient)
    if node.retained is not None and slot in node.retained:
        tensor = node.retained[slot]()
        if tensor is not None:
            tensor.grad = _own_tensor(gradient) if tensor.grad is None else tensor.grad + gradient
    return gradient


def _apply_hooks(hooks: dict[int, Callable[[Tensor], Any]] | None, gradient: Any) -> Any:
    """Each hook gets a copy that it may edit or replace, so that an edit never reaches another path of the graph."""
    for hook in list((hooks or {}).values()):
        given = _own_tensor(gradient)
        guard = lock(given._array, "create_graph") if given.requires_grad else None  # an edit would not be recorded
        try:
            replaced = hook(given)
        finally:
            if guard is not None:
                guard.release("create_graph")
        if replaced is None:
            replaced = given
        if not isinstance(replaced, Tensor) or (replaced.shape, replaced.dtype) != (given.shape, given.dtype):
            expected = f"None or a Tensor of shape {given.shape} and dtype {given.dtype}"
            raise ValueError(f"hook: expected {expected}, got {replaced!r:.80}")
        gradient = replaced if isinstance(gradient, Tensor) else replaced.data
    return gradient
