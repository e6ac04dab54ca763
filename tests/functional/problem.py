"""One call of an op as a problem: its floating point arrays are the unknowns, and the upstream gradient is random.

With an upstream of ones a rule that ignores it passes, and so does a softmax whose rule is 0 (its outputs always sum to 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minires as mr
from minires import Tensor

#: Two ways to compute the same agree to all digits but these: the last three or four.
ROUNDING = 5000


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

    def as_function(self) -> Callable[..., Any]:
        """The call as a function of the unknowns alone, for the checker."""

        def call(*arrays: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.outputs(list(arrays)))

        call.__name__ = getattr(self.function, "__name__", "function")
        return call

    def check(self, **options: Any) -> mr.checking.Report:
        """The gradient checker's report on the call."""
        return mr.gradcheck(self.as_function(), tuple(self.arrays), **options)

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


# ------------------------------------------------------------------------------------ comparing


def assert_close(actual: Any, expected: Any, what: str) -> None:
    """The same numbers but for rounding, in the precision of ``actual`` and relative to the largest number."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    finite = np.abs(expected[np.isfinite(expected)])
    digits = float(np.finfo(actual.dtype).eps) if actual.dtype.kind == "f" else 0.0
    limit = ROUNDING * digits * max(float(finite.max(initial=0)), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit, equal_nan=True, err_msg=what)
