"""The tape: what one recorded call of an op leaves behind for the backward pass.

Nodes point from outputs to inputs only, to parent *nodes* or leaf Tensors, never to intermediate Tensors. So there are no
reference cycles, an intermediate array lives only if some rule names it, and reference counting alone frees everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from minires import operators
from minires.device import array_module
from minires.errors import AnomalyError, FreedGraphError, InPlaceError, MissingRuleError
from minires.memory import Memory, lock
from minires.modes import enable_grad, state, user_line
from minires.precision import INEXACT
from minires.tensor import Tensor

if TYPE_CHECKING:
    from minires.op import Op

__all__ = ["Node", "check_finite"]

#: Where an input came from: its node or, for a leaf, the Tensor itself; which output of the node; and the shape and the
#: dtype that it had, which its gradient gets. (A plain tuple: there is one for every use of a Tensor.)
Edge = tuple[Any, int, tuple[int, ...], Any]

_numbers = itertools.count()

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Node:
    """One recorded call of an op: where its inputs came from, and what its rule needs.

    Attributes:
        edges: for every input in order (sequences flattened) an :data:`Edge`, or None where no gradient is wanted.
        kept: name → value for what the rule names.
        locks: the memory of every array among those.
        version: the sum of the versions of ``locks``; since these only ever grow, it tells whether one has changed.
    """

    __slots__ = (
        "__weakref__", "caller", "edges", "freed", "hooks", "kept", "locks", "number", "op", "outputs", "path", "retained",
        "version",
    )  # fmt: skip

    def __init__(self, op: Op[Any], values: list[Any]) -> None:
        self.locks: tuple[Memory, ...] = ()
        self.version = 0
        self.op = op
        self.number = next(_numbers)
        self.edges: list[Edge | None] = []
        for i in op.inputs:
            if i in op.sequences:
                self.edges += [_edge(value) for value in values[i]]
            else:
                self.edges.append(_edge(values[i]))
        self.kept: Mapping[str, Any] = _NOTHING  # no dict of its own where there is nothing to put into it
        self.outputs: tuple[Any, ...] = (None,)  # shape, dtype and array module of each, where there are several
        self.hooks: dict[int, dict[int, Callable[[Tensor], Any]]] | None = None
        self.retained: dict[int, Any] | None = None  # output number -> weak reference to the Tensor that wants .grad
        self.freed = False
        self.caller = self.path = ""

    def remember_place(self) -> None:
        """For messages: the line of the caller's code, and the path of the module it was called in."""
        self.caller, self.path = user_line(), ".".join(state.modules)

    def keep(self, arrays: list[Any], outputs: tuple[Any, ...], intermediates: dict[str, Any]) -> None:
        """Keep what the rule names, and lock it against changes in place."""
        op = self.op
        kept: dict[str, Any] = {}
        if len(outputs) > 1:
            self.outputs = tuple((y.shape, y.dtype, array_module(y)) for y in outputs)
        for name, i in op.kept_values:  # an input may serve the gradient of one other alone, and that may want none
            other = op.only_for.get(name)
            kept[name] = arrays[i] if other is None or self.edges[other] is not None else None
        for name, i in op.kept_shapes:
            kept[name] = getattr(arrays[i], "shape", ())
        for name in op.kept_intermediates:
            if name not in intermediates:
                raise TypeError(f"{op.name}: its rule asks for '{name}', but that is no parameter and not in Saved")
            kept[name] = intermediates[name]
        if op.keeps_output:
            kept["y"] = outputs if len(outputs) > 1 else outputs[0]
        if kept:
            self.kept = kept
            self._lock()

    def _lock(self) -> None:
        locks = []
        for name, value in self.kept.items():
            several = type(value) is list or (name == "y" and type(value) is tuple)
            for array in value if several else (value,):
                if hasattr(array, "base"):  # an array; what else is kept are numbers, shapes and the like
                    memory = lock(array, self.op.name)
                    self.version += memory.version
                    locks.append(memory)
        self.locks = tuple(locks)

    def free(self) -> None:
        """Let go of everything that the rule kept. The edges stay: they say what the outputs depended on."""
        self.kept, self.freed = _NOTHING, True
        self._release()

    def _release(self) -> None:
        locks, self.locks = self.locks, ()
        for memory in locks:
            memory.release(self.op.name)

    __del__ = _release

    # -------------------------------------------------------------------------------- running the rule

    def gradients(self, grads: list[Any], wanted: list[bool], recorded: bool) -> list[Any]:
        """The gradient of every input (flattened), given those of the outputs. None where none is wanted."""
        self.check_usable()
        if len(grads) > 1:
            dy = tuple(self._zeros(i, recorded) if g is None else g for i, g in enumerate(grads))
        else:
            dy = grads[0]
        if recorded and self.op.defined is not None:
            return self._differentiate_definition(dy, wanted)
        rule = self.op.rule
        if rule is None:
            raise MissingRuleError(f"{self.op.name}: this op has no backward rule, but a gradient has to pass through it")
        kept = self._as_tensors() if recorded else self.kept
        arguments = [
            dy if name == "dy" else self._needs(wanted) if name == "needs" else kept[name] for name in self.op.wanted
        ]
        return self._flatten(rule(*arguments), wanted, recorded)

    def check_usable(self) -> None:
        """Raise if the graph was freed, or if an array that was kept has changed since."""
        if self.freed:
            raise FreedGraphError(
                f"backward() has been here before: what {self.op.name} kept for its gradient was freed by the first pass. "
                "Run the forward pass again, or call the first backward() with retain_graph=True."
            )
        if self.locks and sum([memory.version for memory in self.locks]) != self.version:
            raise InPlaceError(
                f"{self.op.name}: an array that it needs for its gradient was changed (an optimiser's step, or loaded "
                "weights) after it had been recorded. Run the forward pass again after the change."
            )

    def _zeros(self, slot: int, recorded: bool) -> Any:
        shape, dtype, xp = self.outputs[slot]
        zeros = xp.zeros(shape, dtype)
        return Tensor(zeros) if recorded else zeros

    def _needs(self, wanted: list[bool]) -> SimpleNamespace:
        """``wanted`` by input name; a list for an input that is a sequence."""
        op, key = self.op, tuple(wanted)
        if key in op.needs:
            return op.needs[key]
        flags = iter(wanted)
        names: dict[str, Any] = {}
        for i in op.inputs:  # an op has one sequence at most, its last input, and that takes all flags that are left
            names[op.parameters[i]] = list(flags) if i in op.sequences else next(flags)
        needs = SimpleNamespace(**names)
        if not op.sequences:  # which may have any length, so that there would be no end of keys
            op.needs[key] = needs
        return needs

    def _as_tensors(self) -> dict[str, Any]:
        """What was kept, as Tensors that know where they came from (for a recorded backward pass)."""
        kept, edges = dict(self.kept), iter(self.edges)
        for i in self.op.inputs:
            name = self.op.parameters[i]
            own_edges = list(edges) if i in self.op.sequences else [next(edges)]
            if name in kept:
                values = kept[name] if i in self.op.sequences else [kept[name]]
                attached = [self._reattach(v, e) for v, e in zip(values, own_edges, strict=True)]
                kept[name] = attached if i in self.op.sequences else attached[0]
        if "y" in kept:
            y = kept["y"]
            outputs = tuple(Tensor._from_op(v, self, i) for i, v in enumerate(y if type(y) is tuple else (y,)))
            kept["y"] = outputs if type(y) is tuple else outputs[0]
        return kept

    def _reattach(self, value: Any, edge: Any) -> Any:
        """A kept array as the Tensor it was: the leaf itself, an output of its node, or a constant."""
        if value is None or isinstance(value, int | float | complex):
            return value
        if edge is None:
            return Tensor(value) if hasattr(value, "dtype") else value
        source, slot, _, _ = edge
        if isinstance(source, Tensor):
            if source._array is not value:
                raise InPlaceError(
                    f"{self.op.name}: the .data of a leaf that it needs for its gradient was replaced after it had been "
                    "recorded. Run the forward pass again after the change."
                )
            return source
        return Tensor._from_op(value, source, slot)

    def _differentiate_definition(self, dy: Any, wanted: list[bool]) -> list[Any]:
        """The gradients as Tensors, by recording the op's definition on its inputs and walking back over that."""
        from minires.autograd import grad  # the walk imports the tape, so the tape imports the walk only here

        kept = self._as_tensors()
        inputs: list[Any] = []
        assert self.op.defined is not None
        for i in self.op.inputs:
            name = self.op.parameters[i]
            if kept[name] is None:
                inputs.append(None)
                continue
            # An identity node in front of each input ends the walk there; what lies behind is walked by the outer pass.
            kept[name] = operators.functional.clone(kept[name])
            inputs.append(kept[name])
        with enable_grad():
            out = self.op.defined(*(kept[name] for name in self.op.parameters))
        chosen = [x for x, want in zip(inputs, wanted, strict=True) if want]
        found = iter(grad(out, chosen, dy, create_graph=True, allow_unused=True))
        return [next(found) if want else None for want in wanted]

    def _flatten(self, result: Any, wanted: list[bool], recorded: bool) -> list[Any]:
        """One gradient an input, in order; checks that the rule returned as many as there are inputs."""
        op = self.op
        parts = result if len(op.inputs) > 1 and isinstance(result, tuple) else (result,)
        if len(parts) != len(op.inputs):
            names = ", ".join(op.parameters[i] for i in op.inputs)
            raise TypeError(f"{op.name}: its rule returned {len(parts)} gradient(s), expected one for each of: {names}")
        if op.sequences:
            lists = [part if i in op.sequences else (part,) for i, part in zip(op.inputs, parts, strict=True)]
            parts = tuple(itertools.chain.from_iterable(lists))
            if len(parts) != len(wanted):
                raise TypeError(f"{op.name}: its rule returned {len(parts)} gradients for {len(wanted)} inputs")
        fitting: list[Any] = [None] * len(parts)
        for number, gradient in enumerate(parts):
            if gradient is not None and wanted[number]:
                fitting[number] = self._fit(gradient, self.edges[number], number, recorded)
        return fitting

    def _fit(self, gradient: Any, edge: Any, number: int, recorded: bool) -> Any:
        """Undo broadcasting, and give the gradient the dtype of its input."""
        _, _, shape, dtype = edge
        if isinstance(gradient, Tensor) != recorded or not hasattr(gradient, "dtype"):
            expected = "a Tensor (under create_graph=True a rule may only use minires' ops)" if recorded else "an array"
            found = f"{type(gradient).__name__} for input number {number}"
            raise TypeError(f"{self.op.name}: its rule returned {found}, expected {expected}")
        if gradient.shape != shape:
            if not _broadcasts(shape, gradient.shape):
                raise ValueError(
                    f"{self.op.name}: its rule returned a gradient of shape {tuple(gradient.shape)} for input number "
                    f"{number}, which has shape {shape}"
                )
            gradient = operators.functional.sum_to_size(gradient, shape)
        if gradient.dtype is not dtype and gradient.dtype != dtype:
            gradient = operators.functional.cast(gradient, dtype)
        return gradient


def _edge(value: Any) -> Edge | None:
    """The edge to an input; None if it wants no gradient."""
    if not isinstance(value, Tensor) or not value._requires_grad:
        return None
    source, array = value if value._node is None else value._node, value._array
    return source, value._slot, array.shape, array.dtype


def _broadcasts(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    offset = len(large) - len(small)
    return offset >= 0 and all(s in (1, n) for s, n in zip(small, large[offset:], strict=True))


def check_finite(op: Op[Any], arrays: Iterable[Any], where: str, node: Node | None) -> None:
    """Raise AnomalyError if one of ``arrays`` (None and integers are passed over) holds a NaN or an infinity."""
    for array in arrays:
        array = array.data if isinstance(array, Tensor) else array
        if array is None or getattr(getattr(array, "dtype", None), "kind", "") not in INEXACT:
            continue
        xp = array_module(array)
        if not bool(xp.isfinite(array).all()):
            kind = "NaN" if bool(xp.isnan(array).any()) else "infinity"
            caller = node.caller if node is not None else user_line()
            path = node.path if node is not None else ".".join(state.modules)
            raise AnomalyError(
                f"{op.name}: {where} made the first {kind}, in an array of shape {tuple(array.shape)}"
                + (f"\n  in module: {path}" if path else "")
                + (f"\n  called at {caller}" if caller else "")
            )
