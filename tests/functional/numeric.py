"""Numeric derivatives, to hold the rules against: slow, simple, and independent of every rule.

The number that is differentiated is always L = Σ upstream · output, with a *random* upstream gradient. With an upstream of
ones a rule that ignores it passes, and so does a softmax whose rule is 0 (its outputs always sum to 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minires as mr
from minires import Tensor

#: How far two results may differ, relative to the largest number among them.
FORWARD = 1e-11  # against loops or PyTorch, in float64
EXACT = 1e-12  # the same computation in another memory order
FIRST_COMPLEX = 1e-11  # the complex step has no cancellation, so only rounding is left
FIRST_REAL = 1e-7  # differences of numbers of size 1 over steps of 1e-4, extrapolated
SECOND = 1e-6  # differences of gradients
FLOAT32 = 2e-4  # float32 against float64

COMPLEX_STEP = 1e-20
REAL_STEP = 1e-4


class Problem:
    """One call of a function with its floating point arrays as unknowns.

    Attributes:
        arrays: the floating point arrays found among the arguments, in order.
        upstream: one random array for each floating point output.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rng: np.random.Generator
    ):
        self.function, self.args, self.kwargs = function, args, kwargs
        self.arrays: list[np.ndarray] = [value for value in walk([args, kwargs]) if is_unknown(value)]
        self.upstream = [rng.standard_normal(out.shape) for out in self.outputs(self.arrays)]

    def call(self, arrays: list[Any], wrap: Callable[[Any], Any] = lambda array: array) -> Any:
        """The function's result with ``arrays`` in the places of the unknowns; ``wrap`` is applied to constant arrays."""
        values = iter(arrays)

        def put(value: Any) -> Any:
            if is_unknown(value):
                return next(values)
            return wrap(value) if isinstance(value, np.ndarray) else value

        args, kwargs = rebuild([self.args, self.kwargs], put)
        return self.function(*args, **kwargs)

    def outputs(self, arrays: list[Any]) -> list[Tensor]:
        """The floating point (or complex) outputs, as Tensors."""
        result = self.call([a if isinstance(a, Tensor) else Tensor(a) for a in arrays], Tensor)
        return [t for t in walk(result) if isinstance(t, Tensor) and t.dtype.kind in "fc"]

    def loss(self, arrays: list[np.ndarray]) -> Any:
        """L = Σ upstream · output, a number."""
        return sum((u * out.data).sum() for u, out in zip(self.upstream, self.outputs(arrays), strict=True))

    def gradients(self, arrays: list[np.ndarray] | None = None, upstream: list[np.ndarray] | None = None) -> list[Any]:
        """∂L/∂(each unknown) by an ordinary backward pass; None where the outputs do not depend on it."""
        leaves = [Tensor(a, requires_grad=True) for a in (self.arrays if arrays is None else arrays)]
        found = _pull_back(leaves, self.outputs(leaves), upstream or self.upstream, create_graph=False)
        return [None if g is None else g.data for g in found]

    def recorded_gradients(self) -> tuple[list[Tensor], list[Tensor], list[Any]]:
        """The unknowns, the upstream gradients and ∂L/∂(each unknown), all as Tensors of one graph."""
        leaves = [Tensor(a.copy(), requires_grad=True) for a in self.arrays]
        upstream = [Tensor(u.copy(), requires_grad=True) for u in self.upstream]
        return leaves, upstream, _pull_back(leaves, self.outputs(leaves), upstream, create_graph=True)

    def second_gradients(self, weights: list[np.ndarray]) -> list[Any]:
        """The derivatives of S = Σ weight · ∂L/∂(unknown), for the unknowns and then the upstream gradients."""
        leaves, upstream, gradients = self.recorded_gradients()
        total = sum((Tensor(w) * g).sum() for w, g in zip(weights, gradients, strict=True) if g is not None)
        if not isinstance(total, Tensor) or not total.requires_grad:
            return [None] * (len(leaves) + len(upstream))
        return [None if g is None else g.data for g in mr.grad(total, leaves + upstream, allow_unused=True)]


def _pull_back(leaves: list[Tensor], outputs: list[Tensor], upstream: list[Any], create_graph: bool) -> list[Any]:
    pairs = [(out, u) for out, u in zip(outputs, upstream, strict=True) if out.requires_grad]
    if not pairs:
        return [None] * len(leaves)
    outs, seeds = zip(*pairs, strict=True)
    return list(mr.grad(outs, leaves, list(seeds), create_graph=create_graph, allow_unused=True))


def is_unknown(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def walk(value: Any) -> Iterator[Any]:
    """All values inside nested tuples, lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for each in value:
            yield from walk(each)
    else:
        yield value


def rebuild(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists and dictionaries again, with every value in them changed."""
    if isinstance(value, dict):
        return {name: rebuild(each, change) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([rebuild(each, change) for each in value])
    return change(value)


# ------------------------------------------------------------------------------------ derivatives


def complex_step_gradients(problem: Problem) -> list[np.ndarray]:
    """∂L/∂x = Im L(x + ih) / h for each element, exact to rounding because nothing is subtracted."""
    arrays = [a.astype(complex) for a in problem.arrays]
    found = []
    for array in arrays:
        gradient = np.empty(array.shape)
        for index in np.ndindex(array.shape):
            before = array[index]
            array[index] = before + 1j * COMPLEX_STEP
            gradient[index] = problem.loss(arrays).imag / COMPLEX_STEP
            array[index] = before
        found.append(gradient)
    return found


def difference_gradients(problem: Problem) -> list[np.ndarray]:
    """∂L/∂x for each element from central differences at two steps, extrapolated to step 0."""
    arrays = [a.copy() for a in problem.arrays]
    found = []
    for array in arrays:
        gradient = np.empty(array.shape)
        for index in np.ndindex(array.shape):
            before = array[index]

            def along(step: float, array: Any = array, index: Any = index, before: Any = before) -> Any:
                array[index] = before + step
                return problem.loss(arrays)

            gradient[index] = _extrapolated(along)
            array[index] = before
        found.append(gradient)
    return found


def _extrapolated(function: Callable[[float], Any], step: float = REAL_STEP) -> Any:
    """f'(0): (f(h) - f(-h))/2h is off by a multiple of h², which a second step of 2h tells and removes (Richardson)."""
    fine = (function(step) - function(-step)) / (2 * step)
    coarse = (function(2 * step) - function(-2 * step)) / (4 * step)
    return (4 * fine - coarse) / 3


# ------------------------------------------------------------------------------------ checks


def assert_close(actual: Any, expected: Any, tolerance: float, what: str) -> None:
    """Every element within ``tolerance`` times the largest expected number (or 1e-3, if all are small)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(float(finite.max(initial=0)), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, equal_nan=True, err_msg=what)


def check_first(problem: Problem, complex_step: bool) -> None:
    """Every element of the ordinary gradient against the numeric derivative."""
    numeric = complex_step_gradients(problem) if complex_step else difference_gradients(problem)
    tolerance = FIRST_COMPLEX if complex_step else FIRST_REAL
    for i, (gradient, expected) in enumerate(zip(problem.gradients(), numeric, strict=True)):
        gradient = np.zeros_like(expected) if gradient is None else gradient
        assert_close(gradient, expected, tolerance, f"gradient of input array {i}")


def check_second(problem: Problem, rng: np.random.Generator, directions: int = 2) -> None:
    """The derivative of S = Σ w·gradient along random directions of inputs and upstream, against differences of S."""
    weights = [rng.standard_normal(a.shape) for a in problem.arrays]
    second = problem.second_gradients(weights)
    start, count = problem.arrays + problem.upstream, len(problem.arrays)

    def scalar(values: list[np.ndarray]) -> Any:
        found = problem.gradients(values[:count], values[count:])
        return sum((w * g).sum() for w, g in zip(weights, found, strict=True) if g is not None)

    for _ in range(directions):
        ways = [rng.standard_normal(v.shape) for v in start]
        expected = _extrapolated(lambda h, ways=ways: scalar([v + h * way for v, way in zip(start, ways, strict=True)]))
        actual = sum((s * way).sum() for s, way in zip(second, ways, strict=True) if s is not None)
        scale = sum(np.abs(s * way).sum() for s, way in zip(second, ways, strict=True) if s is not None)
        allowed = SECOND * max(float(scale), 1e-2)
        assert abs(actual - expected) <= allowed, f"second derivative {actual}, numerically {expected}"
