"""The loss of a network as a function of its inputs and parameters: its value, its gradient, its slope along a direction."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from minires import functional as F
from minires.autograd import grad, no_grad
from minires.checking.borrowed import BorrowedModel, cast, floating_outputs
from minires.checking.calls import complex_values
from minires.checking.directions import Direction, size_of
from minires.checking.report import Array
from minires.nn import Module, Parameter
from minires.tensor import Tensor

__all__ = ["Objective"]


class Objective:
    """The loss as a function of inputs and parameters.

    Attributes:
        names: of what is checked: floating point inputs, then parameters, in forward order.
        values: their float64 arrays, then what else is a floating point number: all other parameters, and the target or the
            weights of the outputs.
        frozen: parameters that were asked for but want no gradient.
    """

    def __init__(
        self, borrowed: BorrowedModel, x: Any, y: Any, loss: Any, params: Any, dtype: Any, seed: int
    ) -> None:
        self.borrowed, self.loss, self.dtype = borrowed, loss, dtype
        self.inputs = [_raw(part) for part in (x if isinstance(x, tuple | list) else (x,))]
        self.target = _raw(y)
        self.floating = [i for i, v in enumerate(self.inputs) if v.dtype.kind == "f"]
        names = _input_names(borrowed.model, len(self.inputs))
        chosen = _chosen(borrowed, params)
        self.parameters = [name for name in chosen if borrowed.parameters[name].requires_grad]
        self.frozen = [name for name in chosen if not borrowed.parameters[name].requires_grad]
        self.names = [names[i] for i in self.floating] + self.parameters
        if not self.names:
            raise ValueError("gradcheck_model: no input is floating point and no parameter wants a gradient")
        given = [np.array(self.inputs[i], np.float64) for i in self.floating]
        self.others = [name for name in borrowed.parameters if name not in self.parameters]
        self.values = [*given, *(borrowed.values[name] for name in (*self.parameters, *self.others))]
        if self.target is None:
            rng = np.random.default_rng(seed)
            with no_grad():
                output, _, _ = self._forward(self.values, np.float64)
                self.values += [rng.standard_normal(o.shape) for o in floating_outputs(output)]
        elif self.target.dtype.kind == "f":
            self.values.append(self.target.astype(np.float64))
        if dtype == np.float32:  # both sides of the comparison at the same point
            self.values = [cast(v, dtype).astype(np.float64) for v in self.values]

    def _forward(self, values: list[Array], dtype: Any, record: bool = False) -> tuple[Any, list[Tensor], list[Array]]:
        """The output, the Tensors that stand for the floating point inputs, and the values that were not used yet."""
        arrays = iter(values)
        tensors = [Tensor(cast(next(arrays), dtype) if i in self.floating else v) for i, v in enumerate(self.inputs)]
        leaves = [tensors[i].requires_grad_(record) for i in self.floating]
        parameters = {name: next(arrays) for name in (*self.parameters, *self.others)}
        output = self.borrowed.run(parameters, tensors, dtype)
        if not floating_outputs(output):
            raise TypeError(f"gradcheck_model: the model must return floating point Tensors, got {type(output).__name__}")
        return output, leaves, list(arrays)

    def run(self, values: list[Array], dtype: Any, record: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The loss, and the leaves that it depends on: one for each of the values."""
        output, leaves, others = self._forward(values, dtype, record)
        leaves += [self.borrowed.parameters[name] for name in self.parameters]
        others = [v.astype(np.zeros(0, dtype).real.dtype) for v in others]
        if self.target is None:
            weighted = [F.sum(o * Tensor(w)) for o, w in zip(floating_outputs(output), others, strict=True)]
            return sum(weighted[1:], weighted[0]), leaves
        target = Tensor(others[0] if others else self.target)
        if self.loss is not None:
            result = self.loss(output, target)
        else:
            result = (F.mse_loss if others else F.cross_entropy)(floating_outputs(output)[0], target)
        if not isinstance(result, Tensor):
            raise TypeError(f"gradcheck_model: the loss must be a Tensor, got {type(result).__name__}")
        if result.numel() != 1:
            raise ValueError(f"gradcheck_model: the loss must have one element, it has shape {result.shape}")
        return result, leaves

    def value(self, values: list[Array]) -> float:
        """The loss."""
        with no_grad():
            return float(self.run(values, np.float64)[0]._array.item())

    def backward(self, values: list[Array]) -> tuple[float, list[Array | None]]:
        """The loss, and what the backward pass says; None for what the loss did not depend on, as the graph knows it."""
        loss, leaves = self.run(values, self.dtype, record=True)
        if not loss.requires_grad:
            return float(loss.item()), [None] * len(leaves)
        found = grad(loss, leaves, allow_unused=True)
        return float(loss.item()), [None if g is None else np.ascontiguousarray(g._array, np.float64) for g in found]

    def gradient(self, values: list[Array]) -> list[Array]:
        """The gradient alone, with zeros for None and for what is not finite."""
        return self.as_numbers(self.backward(values)[1])

    def as_numbers(self, gradient: list[Array | None]) -> list[Array]:
        """A gradient with zeros for None and for what is not finite."""
        found = [np.zeros(v.shape) if g is None else g for v, g in zip(self.values, gradient, strict=False)]
        return [g if np.isfinite(g).all() else np.nan_to_num(g, nan=0, posinf=0, neginf=0) for g in found]

    def slope(self, values: list[Array], direction: Direction) -> tuple[float, float]:
        """The slope of the loss along a direction by the complex step, exact to rounding."""
        stepped, step = complex_values(values, direction)
        with no_grad():
            return float(self.run(stepped, np.complex128)[0]._array.imag.item()) / step, 0.0

    def slope_by_differences(self, values: list[Array], direction: Direction) -> tuple[float, float]:
        """The same by Richardson extrapolation of central differences, at the step that agrees best with itself."""
        here = self.value(values)
        noise = max(abs(self.value(_shifted(values, direction, h)) - here) for h in (1e-15, -1e-15)) + 2**-52 * abs(here)
        best = (0.0, np.inf)
        for h in (1e-2, 1e-3, 1e-4, 1e-5):
            coarse, middle, fine = (self._central(values, direction, h / 2**i) for i in range(3))
            first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3  # error h⁴
            error = abs(second - first) + 4 * noise / h
            if error < best[1]:
                best = ((16 * second - first) / 15, error)  # error h⁶
        return best

    def _central(self, values: list[Array], direction: Direction, h: float) -> float:
        ahead, behind = (self.value(_shifted(values, direction, step)) for step in (h, -h))
        return (ahead - behind) / (2 * h)

    def complex_works(self, values: list[Array], tensors: Iterable[int], rng: np.random.Generator) -> bool:
        """Whether the network carries complex numbers through: the same loss, and a slope that differences confirm.

        The direction moves only these ``tensors``, each by its own size.
        """
        chosen = set(tensors)
        direction: Direction = [
            np.asarray(rng.standard_normal(v.shape)) * size_of(v) if k in chosen else None for k, v in enumerate(values)
        ]
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)  # a step that falls off is no step
                stepped, step = complex_values(values, direction)
                with no_grad():
                    result = complex(self.run(stepped, np.complex128)[0]._array.item())
        except (TypeError, ValueError, NotImplementedError, np.exceptions.ComplexWarning):
            return False
        here = self.value(values)
        if not np.isclose(result.real, here, rtol=1e-9, atol=1e-12):
            return False
        slope = result.imag / step
        for h in (1e-5, 1e-6, 1e-7):  # a kink on the way spoils the difference, so a smaller step gets a chance
            coarse, fine = self._central(values, direction, h), self._central(values, direction, h / 2)
            allowed = 10 * abs(coarse - fine) + 1e-3 * abs(fine) + 1e-14 * (1 + abs(here)) / h
            if abs(slope - fine) <= allowed:
                return True
        return False


def _shifted(values: list[Array], direction: Direction, step: float) -> list[Array]:
    steps = itertools.chain(direction, itertools.repeat(None))  # what stands behind the directions is constant
    return [v if u is None else v + step * u for v, u in zip(values, steps, strict=False)]


def _raw(value: Any) -> Any:
    """The array behind a Tensor; lists of numbers become arrays."""
    return None if value is None else value._array if isinstance(value, Tensor) else np.asarray(value)


def _input_names(model: Module, count: int) -> list[str]:
    """Names of the inputs: those of the parameters of ``forward``; a single one is x."""
    if count == 1:
        return ["x"]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    return [names[i] if i < len(names) else f"x{i}" for i in range(count)]


def _chosen(borrowed: BorrowedModel, params: Any) -> list[str]:
    """The paths of the parameters that ``params`` asks for, in forward order."""
    names = list(borrowed.parameters)
    if params is None:
        return names
    wanted = list(params) if isinstance(params, tuple | list | set) or not isinstance(params, str | Tensor) else [params]
    by_identity = {id(p): name for name, p in borrowed.parameters.items()}
    found: set[str] = set()
    for want in wanted:
        if isinstance(want, Parameter):
            matches = [by_identity[id(want)]] if id(want) in by_identity else []
        else:
            matches = [name for name in names if name == want or name.startswith(f"{want}.")]
        if not matches:
            what = want if isinstance(want, str) else f"a {type(want).__name__}"
            raise ValueError(f"gradcheck_model: params: {what!r} is no parameter of the model, and no module that has any")
        found.update(matches)
    return [name for name in names if name in found]
