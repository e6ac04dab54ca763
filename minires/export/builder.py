"""From the calls of a traced pass to a graph: every value gets a name, every call the ONNX ops that its entry says.

The entries, one for each op, are in :mod:`minires.export.ops`; this module gives them what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.device import to_device
from minires.export.protobuf import ELEMENTS, Graph, Node
from minires.export.trace import Call, Trace
from minires.nn import Module
from minires.operators import raw
from minires.tensor import Tensor

__all__ = ["Builder", "Emitter"]

BATCH = "N"


class Builder:
    """Makes the graph of a network.

    Args:
        model: the network; its weights keep their names.
        first: a traced pass.
        second: another one, of another batch size and other values.
        resize: write bilinear resizing as ONNX's Resize rather than as two matrix products.
    """

    def __init__(self, model: Module, first: Trace, second: Trace, resize: bool = False) -> None:
        self.graph, self.resize = Graph(type(model).__name__), resize
        self._first, self._second = first, second
        self._names: dict[int, str] = {}  # id of a Tensor or an array of the first pass → the name of its value
        self._twins: dict[int, int] = {}  # id of it → id of what stands in its place in the second pass
        self._kept: list[Any] = []  # keeps the ids valid
        self._used: dict[str, int] = {}
        self._weights: dict[int, str] = {}
        self._state = model.state_dict()
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._weights[id(tensor)] = self._weights[id(tensor.data)] = name
            self._used[name] = 0
        self._weight_names = set(self._weights.values())
        self.call: Call
        self.twin: Call

    # -------------------------------------------------------------------------------- the walk

    def build(self, emitters: dict[str, Emitter], names: Sequence[str], output: str) -> Graph:
        """The whole graph; the first axis of what goes in and comes out may have any length.

        Args:
            emitters: what becomes of an op's call, by the op's name.
            names: of the inputs.
            output: of the output.
        """
        for name, mine, other in zip(names, self._first.inputs, self._second.inputs, strict=True):
            self.graph.inputs[name] = _kind(mine)
            self._used[name] = 0
            self._bind(mine, other, name)
        self._used[output] = 0
        if [c.name for c in self._first.calls] != [c.name for c in self._second.calls]:
            raise ValueError("the network calls other ops for other images, so no fixed graph can compute it")
        for call, twin in zip(self._first.calls, self._second.calls, strict=True):
            self.call, self.twin = call, twin
            made = emitters[call.name](self, call)
            results = [made] if isinstance(made, str) else made
            for name, mine, other in zip(results, call.outputs, twin.outputs, strict=True):
                self._bind(mine, other, name)
        last = self._first.output
        if not isinstance(last, Tensor) or id(last) not in self._names:
            raise ValueError(f"the network's output must be one Tensor out of an op, got {type(last).__name__}")
        self.graph.nodes.append(Node("Identity", [self._names[id(last)]], [output], f"/{output}"))
        self.graph.outputs[output] = _kind(last)
        return self.graph

    def _bind(self, mine: Any, other: Any, name: str) -> None:
        """From here on ``mine`` (in the second pass, ``other``) is the value ``name``; so is the array inside."""
        for one, two in ((mine, other), (raw(mine), raw(other))):
            self._names[id(one)], self._twins[id(one)] = name, id(two)
            self._kept += (one, two)

    # -------------------------------------------------------------------------------- for the entries

    def ref(self, name: str) -> str:
        """The name of an argument's value: of what an op made, of a weight, or of a constant, which a number is as well.

        Args:
            name: of the op's parameter.
        """
        return self._value(self.call[name], self.twin[name])

    def refs(self, name: str) -> list[str]:
        """The same for an argument that is a sequence."""
        return [self._value(mine, other) for mine, other in zip(self.call[name], self.twin[name], strict=True)]

    def _value(self, mine: Any, other: Any) -> str:
        if id(mine) in self._names:
            if self._twins[id(mine)] != id(other):
                self._depends()
            return self._names[id(mine)]
        if id(mine) in self._weights:
            weight = self._weights[id(mine)]
            if weight not in self.graph.constants:
                self.graph.constants[weight] = np.asarray(to_device(raw(mine), "cpu"))
            return weight
        self._same(mine, other)
        if not hasattr(mine, "dtype"):  # a Python number takes the dtype of what it meets
            return self.constant(np.array(mine, self.call.outputs[0].dtype))
        return self.constant(np.asarray(to_device(raw(mine), "cpu")))

    def beside(self, weight: Any, name: str, value: Any) -> str:
        """A copy of a buffer that stands beside ``weight`` in a module, under the buffer's own name if it is one."""
        path = f"{self._weights.get(id(weight), '').rpartition('.')[0]}.{name}".removeprefix(".")
        if path not in self._state or not _equal(self._state[path], value):
            return self.constant(np.asarray(to_device(raw(value), "cpu")))
        self.graph.constants[path] = np.asarray(to_device(raw(value), "cpu"))
        return path

    def option(self, name: str) -> Any:
        """An option of the call, which must be the same in both passes."""
        value = self.call[name]
        self._same(value, self.twin[name])
        return value

    def shape(self, name: str) -> list[int]:
        """An option that is a shape: a size that differs between the passes, at one place at most, is -1."""
        mine, other = self.call[name], self.twin[name]
        mine, other = ([each] if isinstance(each, int) else list(each) for each in (mine, other))
        differing = [i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b]
        if len(differing) > 1 or (differing and -1 in mine):
            raise ValueError(f"{self.call.place()}: the batch must be one axis of the new shape {tuple(mine)}")
        return [-1 if i in differing else int(size) for i, size in enumerate(mine)]

    def constant(self, array: Any) -> str:
        """A constant; the same small one is kept once."""
        array = np.asarray(array)
        if array.dtype.name not in ELEMENTS:
            raise ValueError(f"{self.call.place()}: a constant of dtype {array.dtype} has no counterpart in ONNX")
        for name, known in self.graph.constants.items() if array.size <= 8 else ():
            same = name not in self._weight_names and known.dtype == array.dtype and known.shape == array.shape
            if same and known.tobytes() == array.tobytes():
                return name
        name = self._unique("constant")
        self.graph.constants[name] = array
        return name

    def integers(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A constant number of the dtype of the call's output."""
        return self.constant(np.array(value, self.call.outputs[0].dtype))

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """One more op, of one output; see :meth:`nodes`."""
        return self.nodes(kind, inputs, 1, **attributes)[0]

    def nodes(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """One more op.

        Args:
            kind: ONNX's name.
            inputs: names of values.
            outputs: how many it has.
            **attributes: its options.

        Returns:
            The names of its outputs.
        """
        name = self._unique("/" + "/".join((*self.call.path[1:], kind)))
        made = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        self.graph.nodes.append(Node(kind, list(inputs), made, name, attributes))
        return made

    def in_dtype(self, name: str) -> str:
        """An argument's value, cast to the dtype of the call's output."""
        value, wanted = self.call[name], self.call.outputs[0].dtype
        if not hasattr(value, "dtype") or value.dtype == wanted:
            return self.ref(name)
        return self.node("Cast", [self.ref(name)], to=ELEMENTS[np.dtype(wanted).name])

    def _same(self, mine: Any, other: Any) -> None:
        if not _equal(mine, other):
            self._depends()

    def _depends(self) -> None:
        raise ValueError(
            f"{self.call.place()}: what it is given depends on the images, but was not computed by an op, so the graph "
            "cannot follow it"
        )

    def _unique(self, name: str) -> str:
        count = self._used.get(name)
        self._used[name] = 0 if count is None else count + 1
        return name if count is None else f"{name}_{count + 1}"


#: Adds the ops of a call and returns the names of their results.
Emitter = Callable[[Builder, Call], str | list[str]]


def _kind(tensor: Tensor) -> tuple[str, tuple[int | str, ...]]:
    return str(tensor.dtype), (BATCH, *tensor.shape[1:])


def _equal(mine: Any, other: Any) -> bool:
    """Whether two options are equal, arrays and what holds arrays included."""
    if isinstance(mine, Tensor | np.ndarray) or hasattr(mine, "__array__"):
        if not hasattr(other, "dtype"):
            return False
        one, two = (np.asarray(to_device(raw(each), "cpu")) for each in (mine, other))
        return one.shape == two.shape and bool(np.array_equal(one, two, equal_nan=one.dtype.kind == "f"))
    if isinstance(mine, list | tuple):
        return isinstance(other, list | tuple) and len(mine) == len(other) and all(map(_equal, mine, other))
    return bool(mine == other)
