"""``gradcheck``: is the gradient that the backward pass computes the derivative of what the forward pass computes?

The upstream gradient is random, never ones: with ones, a softmax whose gradient is always zero passes, and so does a
sigmoid that ignores its upstream. Every element of every input is compared, and a difference counts only where the
numeric reference can be trusted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minires.autograd import enable_grad, grad, no_grad
from minires.checking.numeric import complex_step, complex_step_works, is_kink, richardson
from minires.tensor import Tensor

__all__ = ["InputReport", "Report", "gradcheck"]


@dataclass(frozen=True)
class InputReport:
    """The comparison for one input.

    Attributes:
        name: the parameter's name in the function's signature.
        shape: of the input.
        verdict: "right", "wrong", or "undecidable" if every element lies at a kink.
        bad: number of elements whose gradient is wrong.
        kinks: number of elements that were left out because the function has no derivative there.
        size: number of elements.
        worst: index of the element that is furthest off, measured in tolerances.
        analytic: the backward pass's gradient there.
        numeric: the reference there.
        tolerance: how far apart the two may be there.
    """

    name: str
    shape: tuple[int, ...]
    verdict: str
    bad: int
    size: int
    worst: tuple[int, ...]
    analytic: float
    numeric: float
    tolerance: float
    kinks: int = 0


@dataclass(frozen=True)
class Report:
    """What :func:`gradcheck` found. ``bool(report)`` is True if every gradient is right."""

    function: str
    reference: str
    order: int
    seed: int
    inputs: list[InputReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every gradient is right."""
        return all(i.verdict == "right" for i in self.inputs)

    @property
    def verdict(self) -> str:
        """The words "right", "wrong" or, if nothing is wrong but something could not be checked, "undecidable"."""
        verdicts = {i.verdict for i in self.inputs}
        return "wrong" if "wrong" in verdicts else "undecidable" if "undecidable" in verdicts else "right"

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        what = "gradient" if self.order == 1 else "second derivative"
        lines = [f"{what} of {self.function}: {self.verdict} (reference: {self.reference}, seed {self.seed})"]
        for i in self.inputs:
            line = f"  {i.name:<12} {i.shape!s:<16} {i.verdict}"
            if i.verdict == "wrong":
                line += f"  {i.bad} of {i.size} elements; worst at {i.worst}: "
                line += f"backward gives {i.analytic:.6g}, should be {i.numeric:.6g} ± {i.tolerance:.1g}"
            if i.kinks:
                line += f"  ({i.kinks} of {i.size} elements lie at a kink, where there is no derivative to compare with)"
            lines.append(line)
        return "\n".join(lines)

    __repr__ = __str__

    def raise_if_wrong(self) -> None:
        """Raise AssertionError with the report as its text if a gradient is wrong."""
        if not self.ok:
            raise AssertionError(str(self))


def gradcheck(fn: Callable[..., Any], inputs: Any, *, order: int = 1, seed: int = 0) -> Report:
    """Compare the gradients of ``fn`` with numeric derivatives, element by element, in float64.

    Args:
        fn: takes Tensors, returns a Tensor or a tuple of Tensors. It must be deterministic.
        inputs: a tuple of arrays or Tensors (or a single one); converted to float64. Integer and boolean ones are passed
            on as they are.
        order: 1 checks the gradient, 2 the gradient of the gradient.
        seed: of the random upstream gradient.

    Returns:
        A :class:`Report`; print it, or use it as a truth value.

    Raises:
        ValueError: no input is floating point, or no output depends on one.
    """
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    values = [np.asarray(v.data if isinstance(v, Tensor) else v) for v in given]
    wanted = [i for i, v in enumerate(values) if v.dtype.kind == "f"]
    if not wanted:
        raise ValueError("gradcheck: none of the inputs is floating point, so there is no gradient to check")
    values = [v.astype(np.float64) if i in wanted else v for i, v in enumerate(values)]
    names = _names(fn, len(values))
    if order == 2:
        fn, values, wanted, names = _first_gradient(fn, values, wanted, names, seed)
    elif order != 1:
        raise ValueError(f"gradcheck: order must be 1 or 2, got {order!r}")
    rng = np.random.default_rng(seed)
    with no_grad():
        upstream = [rng.standard_normal(o.shape) for o in _outputs(fn, values)]

    def loss(arrays: list[Any]) -> Any:
        with no_grad():
            return sum((o.data * g).sum() for o, g in zip(_outputs(fn, arrays), upstream, strict=True))

    analytic = _backward(fn, values, wanted, upstream)
    exact = complex_step_works(loss, values, rng)
    name = getattr(fn, "__name__", type(fn).__name__)
    report = Report(name, "complex step" if exact else "Richardson differences", order, seed)
    for i, gradient in zip(wanted, analytic, strict=True):
        if exact:
            numeric = complex_step(loss, values, i)
            error = np.zeros(numeric.shape)
        else:
            numeric, error = richardson(loss, values, i)
        scale = np.abs(numeric) + (np.abs(numeric).max() if numeric.size else 0.0)
        tolerance = 10 * error + 1e-9 * scale + 1e-12
        report.inputs.append(_compare(names[i], gradient, numeric, tolerance, partial(is_kink, loss, values, i)))
    return report


def _compare(
    name: str, analytic: Any, numeric: Any, tolerance: Any, at_kink: Callable[[tuple[int, ...]], bool]
) -> InputReport:
    bad = ~(np.abs(analytic - numeric) <= tolerance)  # so that a NaN is bad
    kinks = [index for index in zip(*np.nonzero(bad), strict=True) if at_kink(index)]  # only where it matters
    for index in kinks:
        bad[index] = False
    if not analytic.size:
        return InputReport(name, analytic.shape, "right", 0, 0, (), 0.0, 0.0, 0.0)
    off = np.where(bad, np.where(np.isnan(analytic), np.inf, np.abs(analytic - numeric) / tolerance), 0)
    worst = tuple(int(k) for k in np.unravel_index(np.argmax(off), off.shape))
    verdict = "wrong" if bad.any() else "undecidable" if len(kinks) == analytic.size else "right"
    found = (float(analytic[worst]), float(numeric[worst]), float(tolerance[worst]))
    return InputReport(name, analytic.shape, verdict, int(bad.sum()), analytic.size, worst, *found, len(kinks))


def _outputs(fn: Callable[..., Any], arrays: list[Any]) -> list[Tensor]:
    """The floating point outputs of ``fn``, called with Tensors over ``arrays``."""
    result = fn(*(Tensor(np.asarray(a)) for a in arrays))
    outputs = result if isinstance(result, tuple | list) else (result,)
    for o in outputs:
        if not isinstance(o, Tensor):
            raise TypeError(f"gradcheck: the function must return Tensors, got {type(o).__name__}")
    return [o for o in outputs if o.dtype.kind in "fc"]


def _backward(fn: Callable[..., Any], values: list[Any], wanted: list[int], upstream: list[Any]) -> list[Any]:
    """What the backward pass says: one array per wanted input (zeros where the output does not depend on it)."""
    tensors = [Tensor(v.copy(), requires_grad=i in wanted) for i, v in enumerate(values)]
    result = fn(*tensors)
    outputs = [o for o in (result if isinstance(result, tuple | list) else (result,)) if o.dtype.kind in "fc"]
    pairs = [(o, Tensor(g)) for o, g in zip(outputs, upstream, strict=True) if o.requires_grad]
    if not pairs:
        raise ValueError("gradcheck: no output depends on a floating point input in a way that the graph recorded")
    found = grad([o for o, _ in pairs], [tensors[i] for i in wanted], [g for _, g in pairs], allow_unused=True)
    return [np.zeros(values[i].shape) if g is None else g.numpy() for i, g in zip(wanted, found, strict=True)]


def _first_gradient(
    fn: Callable[..., Any], values: list[Any], wanted: list[int], names: list[str], seed: int
) -> tuple[Callable[..., Any], list[Any], list[int], list[str]]:
    """The gradient of ``fn`` as a function of its inputs and of the upstream gradient, to be checked in its turn."""
    rng = np.random.default_rng(seed + 1)
    with no_grad():
        seeds = [rng.standard_normal(o.shape) for o in _outputs(fn, values)]
    count = len(values)

    def gradient(*tensors: Tensor) -> tuple[Tensor, ...]:
        with enable_grad():
            xs = list(tensors[:count])
            for i in wanted:
                xs[i] = xs[i] if xs[i].requires_grad else xs[i].detach().requires_grad_()
            result = fn(*xs)
            outputs = [o for o in (result if isinstance(result, tuple | list) else (result,)) if o.dtype.kind in "fc"]
            found = grad(outputs, [xs[i] for i in wanted], list(tensors[count:]), create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    gradient.__name__ = getattr(fn, "__name__", type(fn).__name__)
    upstream_names = [f"grad_output{i}" if len(seeds) > 1 else "grad_output" for i in range(len(seeds))]
    return gradient, [*values, *seeds], [*wanted, *range(count, count + len(seeds))], [*names, *upstream_names]


def _names(fn: Callable[..., Any], count: int) -> list[str]:
    """Parameter names of ``fn``, as far as its signature tells."""
    fn = getattr(fn, "forward", fn) if hasattr(fn, "named_parameters") else fn  # a module's inputs are those of forward()
    try:
        found = inspect.signature(fn).parameters.values()
        parameters = [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    except (TypeError, ValueError):
        parameters = []
    return [parameters[i] if i < len(parameters) else f"input{i}" for i in range(count)]
