"""What an op is: two pure functions, and a decorator that joins them.

What the op computes, and its backward rule::

    @op
    def sigmoid(input: Array) -> Array:
        return 1 / (1 + exp(-input))

    @sigmoid.backward
    def _(dy, y):
        return dy * y * (1 - y)

* The parameters annotated ``Array`` (or ``Array | None``, ``Sequence[Array]``) are the op's inputs, all others its
  options. Called with Tensors an op records a :class:`Node`; called with arrays alone it just computes and returns arrays.
* **The rule's parameter list says what is kept** until the backward pass: ``dy`` is the gradient of the output, ``y`` the
  output itself, an input's or an option's name is that input or option, ``needs`` tells which inputs want a gradient
  (``needs.weight``), ``input_shape`` the shape of ``input`` (which itself need not be kept for that), and any other name
  an intermediate that the forward returned in :class:`Saved`.
* **The rule is written once and runs in two ways**: on arrays in an ordinary backward pass, and on Tensors under
  ``create_graph=True``, where it is itself recorded, so that second derivatives come for free.
* An op that is fused for speed states its meaning once more, in plain ops, as its *definition*
  (``@batch_norm.definition``). Its fast rule then only ever sees arrays; a recorded backward pass differentiates the
  definition instead.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np

from minires import operators
from minires.device import array_module, device_of
from minires.errors import DeviceError
from minires.modes import state
from minires.precision import HALVES, casts
from minires.tape import Node, check_finite
from minires.tensor import Tensor

__all__ = ["Op", "Saved", "op"]

P = ParamSpec("P")
_F = TypeVar("_F", bound=Callable[..., Any])


class Saved:
    """What a forward returns when its rule needs intermediates: the result, and the intermediates by name.

    Intermediates are not differentiable: an argmax or a mask, or, in an op that has a definition, anything.
    """

    __slots__ = ("intermediates", "result")

    def __init__(self, result: Any, **intermediates: Any) -> None:
        self.result = result
        self.intermediates = intermediates


class Op(Generic[P]):
    """A differentiable function; made by the decorator :func:`op`."""

    def __init__(self, forward: Callable[P, Any]) -> None:
        self.forward = forward
        self.name = forward.__name__.strip("_")
        self.rule: Callable[..., Any] | None = None
        self.defined: Callable[..., Any] | None = None
        self.__name__, self.__qualname__ = forward.__name__, forward.__qualname__
        self.__module__, self.__doc__ = forward.__module__, forward.__doc__
        self.__signature__ = inspect.signature(forward)
        parameters = self.__signature__.parameters
        self.parameters = tuple(parameters)
        self._defaults = tuple(p.default for p in parameters.values())
        self._required = sum(default is inspect.Parameter.empty for default in self._defaults)
        annotations = [_annotation(p) for p in parameters.values()]
        self.inputs = tuple(i for i, a in enumerate(annotations) if a in ("Array", "Array | None", "Sequence[Array]"))
        self.needs: dict[tuple[bool, ...], SimpleNamespace] = {}  # what a rule gets for ``needs``, made when first asked for
        self.sequences = {i for i, a in enumerate(annotations) if a == "Sequence[Array]"}
        self._optional = {i for i, a in enumerate(annotations) if a == "Array | None"}
        self._is_input = tuple(i in self.inputs for i in range(len(annotations)))
        self.casts = casts(self.name, self.__module__)
        self.wanted: tuple[str, ...] = ()
        self.only_for: dict[str, int] = {}
        self._plan()
        if not self.inputs:
            raise TypeError(f"{self.name}: an op needs a parameter annotated 'Array'")

    def __repr__(self) -> str:
        return f"<op {self.name}{self.__signature__}>"

    @property
    def source(self) -> str:
        """The source text of what the op computes and of its rule, to be read: ``print(sigmoid.source)``."""
        parts = (self.forward, self.rule, self.defined)
        return "\n\n".join(inspect.getsource(part).rstrip() for part in parts if part is not None)

    def backward(self, rule: _F) -> _F:
        """Decorator: ``rule`` computes the gradients of the inputs; its parameter names say what it needs."""
        self.rule = rule
        self.wanted = tuple(inspect.signature(rule).parameters)
        self._plan()
        return rule

    def definition(self, function: _F) -> _F:
        """Decorator: ``function`` computes the same as the op out of plain ops (for recorded backward passes)."""
        self.defined = function
        self._plan()
        return function

    def keep_only_for(self, **others: str) -> None:
        """``mul.keep_only_for(input="other")``: keep ``input`` only if ``other`` wants a gradient; else the rule gets None.

        Worth a line where an op often meets constants: ``scores * 0.125`` then keeps no scores.
        """
        self.only_for = {name: self.inputs.index(self.parameters.index(other)) for name, other in others.items()}

    def _plan(self) -> None:
        """Sort what has to be kept by where it is found, once and not in every call."""
        names = dict.fromkeys(self.wanted if self.defined is None else (*self.wanted, *self.parameters))
        self.keeps_output = names.pop("y", 0) is None
        position = {name: i for i, name in enumerate(self.parameters)}
        others = [name for name in names if name not in ("dy", "needs")]
        self.kept_values = tuple((name, position[name]) for name in others if name in position)
        others = [name for name in others if name not in position]
        shapes = {name: name.removesuffix("_shape") for name in others if name.endswith("_shape")}
        self.kept_shapes = tuple((name, position[base]) for name, base in shapes.items() if base in position)
        self.kept_intermediates = tuple(name for name in others if shapes.get(name) not in position)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """Compute; record a node if an input is a Tensor that requires a gradient."""
        if state.observer is not None:
            return cast(Tensor, state.observer.call(self, args, kwargs))
        values = self._bind(args, kwargs)
        if state.autocast is not None and self.casts is not None:
            values = self._autocast(values)
        arrays, record, wrap = self._unwrap(values)
        out = self._compute(arrays)
        intermediates: dict[str, Any] = {}
        if type(out) is Saved:
            out, intermediates = out.result, out.intermediates
        if not wrap:
            return cast(Tensor, out)
        outputs = tuple([self._as_array(o) for o in out]) if type(out) is tuple else (self._as_array(out),)
        node = None
        if record and state.grad_enabled:
            node = Node(self, values)
            node.keep(arrays, outputs, intermediates)
        if state.anomaly:
            if node is not None:
                node.remember_place()
            check_finite(self, outputs, "its forward pass", node)
        if type(out) is not tuple:
            return Tensor._from_op(outputs[0], node, 0)
        return cast(Tensor, tuple([Tensor._from_op(y, node, i) for i, y in enumerate(outputs)]))

    def _compute(self, arrays: list[Any]) -> Any:
        if self.defined is not None and any(_is_complex(arrays[i]) for i in self.inputs):
            return self.defined(*arrays)  # the checker's complex step: fast kernels are for real numbers
        return self.forward(*arrays)  # type: ignore[call-arg]

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """All parameter values in order, defaults filled in."""
        if kwargs or len(args) > len(self.parameters):
            try:
                bound = self.__signature__.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}: {error}; it takes {self.__signature__}") from None
            bound.apply_defaults()
            return list(bound.arguments.values())
        if len(args) < self._required:
            raise TypeError(f"{self.name}: missing argument '{self.parameters[len(args)]}'; it takes {self.__signature__}")
        return [*args, *self._defaults[len(args) :]]

    def _autocast(self, values: list[Any]) -> list[Any]:
        """The inputs in the dtype that the op gets inside ``autocast``, if one of them is a Tensor."""
        given = [values[i] for i in self.inputs]
        inputs = [each for value in given for each in (value if isinstance(value, list | tuple) else [value])]
        if not any(isinstance(value, Tensor) for value in inputs):
            return values
        target, eligible = (state.autocast, ("float32", *HALVES)) if self.casts == "16 bits" else (_FLOAT32, HALVES)

        def convert(value: Any) -> Any:
            dtype = getattr(value, "dtype", target)
            if dtype == target or dtype.name not in eligible:
                return value
            return operators.functional.cast(value, target)

        return [
            [convert(each) for each in value] if i in self.sequences and isinstance(value, list | tuple)
            else convert(value) if self._is_input[i] else value
            for i, value in enumerate(values)
        ]  # fmt: skip

    def _unwrap(self, values: list[Any]) -> tuple[list[Any], bool, bool]:
        """The arrays behind the inputs; whether one of them requires a gradient; whether one of them is a Tensor."""
        arrays, record, wrap, scalars, foreign = list(values), False, False, False, False
        for i, value in enumerate(values):
            if isinstance(value, Tensor) and i not in self.sequences:
                arrays[i] = array = value._array
                wrap = True
                record = record or (value._requires_grad and self._is_input[i])
                foreign = foreign or type(array) is not np.ndarray
            elif i in self.sequences:
                values[i], arrays[i] = self._unwrap_sequence(i, value)
                wrap = wrap or any(isinstance(v, Tensor) for v in values[i])
                record = record or any(isinstance(v, Tensor) and v._requires_grad for v in values[i])
                foreign = foreign or any(type(a) is not np.ndarray for a in arrays[i])
            elif not self._is_input[i] or type(value) in _PLAIN:
                continue
            elif isinstance(value, np.ndarray):
                arrays[i] = np.asarray(value)  # a subclass such as np.matrix has a mind of its own
            elif isinstance(value, np.generic):
                scalars = True
            elif _is_operand(value):
                foreign = True
            elif value is not None or i not in self._optional:
                self._bad_input(i, value)
        if wrap and scalars:  # a NumPy number counts as a Python number, which never changes the dtype of a Tensor
            arrays = [v.item() if isinstance(v, np.generic) and self._is_input[i] else v for i, v in enumerate(arrays)]
        if wrap and foreign:
            self._check_devices(arrays)
        return arrays, record, wrap

    def _unwrap_sequence(self, i: int, value: Any) -> tuple[list[Any], list[Any]]:
        """The elements of an input that is a sequence, and the arrays behind them."""
        elements = list(value) if isinstance(value, list | tuple) else self._bad_input(i, value)
        for element in elements:
            if not isinstance(element, Tensor) and not _is_operand(element):
                self._bad_input(i, element)
        return elements, [e._array if isinstance(e, Tensor) else e for e in elements]

    def _bad_input(self, i: int, value: Any) -> list[Any]:
        expected = "a list or tuple of Tensors" if i in self.sequences else "a Tensor, an array or a number"
        raise TypeError(f"{self.name}: '{self.parameters[i]}' must be {expected}, got {type(value).__name__} {value!r:.60}")

    def _check_devices(self, arrays: list[Any]) -> None:
        devices = {device_of(a) for i in self.inputs for a in _as_list(arrays[i]) if getattr(a, "ndim", 0)}
        if len(devices) > 1:
            found = " and ".join(sorted(devices))
            raise DeviceError(f"{self.name}: inputs are on different devices, {found}; use x.to(device)")

    def _as_array(self, out: Any) -> Any:
        """One result of the forward; NumPy's numbers (0-d results) become arrays."""
        if type(out) is np.ndarray:
            return out
        if isinstance(out, np.generic):
            return np.asarray(out)
        if array_module(out) is np:
            raise TypeError(f"{self.name}: its forward must return an array or a tuple of arrays, got {type(out).__name__}")
        return out


def op(forward: Callable[P, Any]) -> Op[P]:
    """Decorator: make a differentiable op of a pure function on arrays. See the head of this module."""
    return Op(forward)


def _annotation(parameter: inspect.Parameter) -> str:
    """A parameter's annotation as text without module names, alike whether Python keeps it as an object or as text."""
    annotation = parameter.annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\w+\.", "", text)


#: What needs no further look when it is given for an input.
_PLAIN = (np.ndarray, float, int)

_FLOAT32 = np.dtype(np.float32)


def _is_operand(value: Any) -> bool:
    return isinstance(value, np.ndarray | int | float | complex | np.generic) or array_module(value) is not np


def _is_complex(value: Any) -> bool:
    return any(getattr(getattr(v, "dtype", None), "kind", "") == "c" for v in _as_list(value))


def _as_list(value: Any) -> list[Any]:
    return value if type(value) is list else [value]
