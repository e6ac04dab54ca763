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
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np

from minires.device import array_module, device_of
from minires.errors import DeviceError
from minires.modes import state
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
        annotations = [str(p.annotation) for p in parameters.values()]
        self.inputs = tuple(i for i, a in enumerate(annotations) if a in ("Array", "Array | None", "Sequence[Array]"))
        self.sequences = {i for i, a in enumerate(annotations) if a == "Sequence[Array]"}
        self._optional = {i for i, a in enumerate(annotations) if a == "Array | None"}
        self.wanted: tuple[str, ...] = ()
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
        return rule

    def definition(self, function: _F) -> _F:
        """Decorator: ``function`` computes the same as the op out of plain ops (for recorded backward passes)."""
        self.defined = function
        return function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """Compute; record a node if an input is a Tensor that requires a gradient."""
        values = self._bind(args, kwargs)
        arrays, record, wrap = self._unwrap(values)
        if not wrap:
            out = self._compute(arrays)
            return cast(Tensor, out.result if type(out) is Saved else out)
        out = self._compute(arrays)
        intermediates: dict[str, Any] = {}
        if type(out) is Saved:
            out, intermediates = out.result, out.intermediates
        node = None
        if record and state.grad_enabled:
            node = Node(self, values)
        outputs = out if type(out) is tuple else (out,)
        tensors = tuple(self._wrap(o, i, node, values) for i, o in enumerate(outputs))
        if node is not None:
            node.keep(values, arrays, tensors, intermediates)
        if state.anomaly:
            check_finite(self, outputs, "its forward pass", node)
        return cast(Tensor, tensors if type(out) is tuple else tensors[0])

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
        values = list(args)
        for i in range(len(args), len(self.parameters)):
            default = self._defaults[i]
            if default is inspect.Parameter.empty:
                raise TypeError(f"{self.name}: missing argument '{self.parameters[i]}'; it takes {self.__signature__}")
            values.append(default)
        return values

    def _unwrap(self, values: list[Any]) -> tuple[list[Any], bool, bool]:
        """The arrays behind the inputs; whether one of them requires a gradient; whether one of them is a Tensor."""
        arrays, record, wrap = list(values), False, False
        for i, value in enumerate(values):
            if isinstance(value, Tensor):
                arrays[i] = value._array
                wrap = True
                if value.requires_grad and i in self.inputs:
                    record = True
            elif i in self.sequences:
                value = list(value) if isinstance(value, list | tuple) else self._bad_input(i, value)
                values[i] = value
                arrays[i] = [v.data if isinstance(v, Tensor) else v for v in value]
                wrap = wrap or any(isinstance(v, Tensor) for v in value)
                record = record or any(isinstance(v, Tensor) and v.requires_grad for v in value)
                for v, array in zip(value, arrays[i], strict=True):
                    if v is array and not _is_operand(v):
                        self._bad_input(i, v)
            elif i in self.inputs and not _is_operand(value):
                if value is not None or i not in self._optional:
                    self._bad_input(i, value)
        if wrap and any(type(arrays[i]) is not np.ndarray for i in self.inputs):
            self._check_devices(arrays)
        return arrays, record, wrap

    def _bad_input(self, i: int, value: Any) -> list[Any]:
        expected = "a list or tuple of Tensors" if i in self.sequences else "a Tensor, an array or a number"
        raise TypeError(f"{self.name}: '{self.parameters[i]}' must be {expected}, got {type(value).__name__} {value!r:.60}")

    def _check_devices(self, arrays: list[Any]) -> None:
        devices = {device_of(a) for i in self.inputs for a in _as_list(arrays[i]) if getattr(a, "ndim", 0)}
        if len(devices) > 1:
            found = " and ".join(sorted(devices))
            raise DeviceError(f"{self.name}: inputs are on different devices, {found}; use x.to(device)")

    def _wrap(self, out: Any, slot: int, node: Node | None, values: list[Any]) -> Tensor:
        if isinstance(out, np.generic):
            out = np.asarray(out)
        tensor = Tensor._from_op(out, node if node is not None and out.dtype.kind in "fc" else None, slot)
        base = out.base
        for i in self.inputs:  # a view, or the input itself, shares its lock
            for value in _as_list(values[i]):
                if isinstance(value, Tensor) and _is_view(out, base, value._array):
                    tensor._memory = value.memory
        return tensor


def op(forward: Callable[P, Any]) -> Op[P]:
    """Decorator: make a differentiable op of a pure function on arrays. See the head of this module."""
    return Op(forward)


def _is_view(out: Any, base: Any, array: Any) -> bool:
    """Whether ``out``, with ``out.base`` given, is ``array`` or looks at the same memory."""
    return out is array or (base is not None and (base is array or base is array.base))


def _is_operand(value: Any) -> bool:
    return isinstance(value, np.ndarray | int | float | complex | np.generic) or array_module(value) is not np


def _is_complex(value: Any) -> bool:
    return any(getattr(getattr(v, "dtype", None), "kind", "") == "c" for v in _as_list(value))


def _as_list(value: Any) -> list[Any]:
    return value if type(value) is list else [value]
