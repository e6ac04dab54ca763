"""Follows one forward pass: which ops a network calls, on what, in which module.

While a :class:`Tracer` stands in ``state.observer``, the engine lets it make the calls. An op that has no counterpart
elsewhere but a definition in plain ops is followed into that definition. The pass is made twice, on different images and
with different batch sizes: what differs between the two, and did not come out of an op, was computed behind the tracer's
back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minires.modes import Mode, no_grad, state
from minires.nn import Module, evaluation_mode
from minires.tensor import Tensor

__all__ = ["Call", "Trace", "trace"]


@dataclass
class Call:
    """One call of an op.

    Attributes:
        name: of the op.
        values: its arguments by name.
        outputs: what it returned.
        path: names of the modules around it, the network's own first.
    """

    name: str
    values: dict[str, Any]
    outputs: tuple[Any, ...]
    path: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def place(self) -> str:
        """Op and module for a message."""
        return f"op '{self.name}' in {'.'.join(self.path) or 'the network'}"


@dataclass
class Trace:
    """All calls of a forward pass, what went in, and what came out."""

    calls: list[Call]
    inputs: tuple[Tensor, ...]
    output: Any


class Tracer:
    """Makes the calls of ops and keeps them.

    Args:
        knows: whether the name of an op of this package has a counterpart.
    """

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self.calls: list[Call] = []
        self._knows = knows

    def call(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called by the engine in place of the op."""
        values = op._bind(args, kwargs)
        path = tuple(state.modules)
        known = op.__module__.startswith("minires.functional.") and self._knows(op.name)
        if not known and op.defined is not None:
            return op.defined(*values)  # the ops inside come here in their turn
        if not known:
            place = ".".join(path) or "the network"
            raise ValueError(
                f"op '{op.name}' (called in {place}) has no counterpart in ONNX. State its meaning in plain ops with "
                f"@{op.name}.definition, or leave it out of the network"
            )
        with Mode("observer", None):
            result = op(*args, **kwargs)
        outputs = result if type(result) is tuple else (result,)
        self.calls.append(Call(op.name, dict(zip(op.parameters, values, strict=True)), outputs, path))
        return result


def trace(model: Module, inputs: tuple[Tensor, ...], knows: Callable[[str], bool]) -> Trace:
    """Run ``model`` on ``inputs``, in evaluation mode and unrecorded.

    Raises:
        ValueError: it calls an op that is neither known nor defined in plain ops.
    """
    tracer = Tracer(knows)
    with evaluation_mode(model), no_grad(), Mode("autocast", None), Mode("observer", tracer):
        output = model(*inputs)
    return Trace(tracer.calls, inputs, output)
