"""``gradcheck``: is the gradient that the backward pass computes the derivative of what the forward pass computes?

The upstream gradient is random, never ones: with ones, a softmax whose gradient is always zero passes, and so does a sigmoid
that ignores its upstream. There is no tolerance to choose: the errors of both sides are measured. And a difference is not
held against the backward where the function has a kink, or where the reference does not agree with itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.checking import diagnosis
from minires.checking.compare import Comparison, InputComparison, Plan, compare, one_hot_jacobian
from minires.checking.contract import Contract, examine, look_at_the_other_dtype
from minires.checking.diagnosis.case import Case, View
from minires.checking.reference import flat
from minires.checking.report import HINTS, Coverage, Diagnosis, InputReport, Maps, Report
from minires.checking.subject import Pair, Subject, TensorFunction, Values, order_two

__all__ = ["gradcheck", "gradcheck_pair"]

Array = np.ndarray[Any, Any]
SMALL = 64  # rows and columns up to which a Jacobian is kept for the picture


@dataclass(frozen=True)
class _Settings:
    mode: str
    reference: str
    dtype: Any
    seed: int
    points: int
    variants: Any
    hints: str
    max_seconds: float

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "full", "directions"):
            raise ValueError(f"gradcheck: mode must be 'auto', 'full' or 'directions', got {self.mode!r}")
        if self.hints not in HINTS:
            raise ValueError(f"gradcheck: hints must be one of {', '.join(map(repr, HINTS))}, got {self.hints!r}")
        if self.points < 1:
            raise ValueError(f"gradcheck: points must be at least 1, got {self.points!r}")
        if not (self.variants is None or self.variants == "auto" or isinstance(self.variants, Mapping)):
            raise ValueError(f"gradcheck: variants must be 'auto', None or a dict of functions, got {self.variants!r}")
        if self.dtype is not None and np.dtype(self.dtype) not in (np.float32, np.float64):
            raise ValueError(f"gradcheck: dtype must be float32 or float64, got {np.dtype(self.dtype)}")


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    *,
    params: Any = None,
    mode: str = "auto",
    reference: str = "auto",
    dtype: Any = None,
    order: int = 1,
    seed: int = 0,
    points: int = 2,
    variants: Any = "auto",
    hints: str = "full",
    max_seconds: float = 10.0,
) -> Report:
    """Compare the gradients of a function of Tensors with numeric derivatives, element by element, and name the mistake.

    Args:
        fn: takes Tensors, returns a Tensor or a tuple of Tensors; an op, a function or a module (whose parameters are then
            checked too). It must be deterministic; minires' own generator is set back before every call.
        inputs: a tuple of arrays or Tensors (or a single one), or a dict of them by name. Integer and boolean ones are
            passed on as they are.
        params: a dict of keyword options for ``fn``; or Tensors that it uses (a list, or a module), to be checked too.
        mode: "full" compares every element, "directions" random elements and random directions through all of them, "auto"
            is "full" if there is time.
        reference: "complex" (the complex step), "richardson" (differences), or "auto", the best that works.
        dtype: float64 or float32, in which the backward runs; None for that of the inputs.
        order: 1 checks the gradient, 2 the gradient of the gradient.
        seed: of everything random in the check.
        points: how many points to look at: the given one, and random ones near it.
        variants: alternatives to try as explanations of a wrong gradient: "auto" changes the keyword options in turn, None
            tries none, a dict gives name → function like ``fn``.
        hints: how much the printed report gives away: "verdict", "where", "class" or "full".
        max_seconds: how long it may take, roughly.

    Returns:
        A :class:`Report`; print it, or use it as a truth value.

    Raises:
        ValueError: no input is floating point or no output depends on one; or an argument is not among those allowed.
        TypeError: ``fn`` does not return Tensors.
    """
    settings = _Settings(mode, reference, dtype, seed, points, variants, hints, max_seconds)
    if order not in (1, 2):
        raise ValueError(f"gradcheck: order must be 1 or 2, got {order!r}")
    subject = TensorFunction(fn, inputs, params)
    if order == 2:
        subject = order_two(subject, seed)
    try:
        with np.errstate(all="ignore"):
            return _check(subject, settings, order)
    finally:
        subject.close()


def gradcheck_pair(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Any,
    *,
    params: Any = None,
    mode: str = "auto",
    reference: str = "auto",
    dtype: Any = None,
    order: int = 1,
    seed: int = 0,
    points: int = 2,
    variants: Any = "auto",
    hints: str = "full",
    max_seconds: float = 10.0,
) -> Report:
    """Compare a backward in plain NumPy with the derivatives of its forward, element by element, and name the mistake.

    Args:
        forward: ``forward(inputs, **options)`` takes a tuple of arrays and returns an array or a tuple of arrays;
            ``forward(x, w, **options)`` is understood too.
        backward: ``backward(inputs, grad_output, **options)`` returns one gradient per input, in a tuple (None for an
            integer input); ``backward(x, w, grad_output)`` and ``backward(grad_output, x, w)`` are understood too.
        inputs: as in :func:`gradcheck`.
        params: a dict of the keyword options that both are called with.
        mode: see :func:`gradcheck`, as for the others.
        reference: see there.
        dtype: see there.
        order: only 1; there is nothing to differentiate in plain NumPy.
        seed: see there.
        points: see there.
        variants: see there; the functions in a dict are like ``forward``.
        hints: see there.
        max_seconds: see there.

    Returns:
        A :class:`Report`.

    Raises:
        ValueError: as :func:`gradcheck`; or the forward is not deterministic.
    """
    if order != 1:
        raise ValueError(f"gradcheck_pair: order must be 1, got {order!r}; a second derivative needs a function of Tensors")
    settings = _Settings(mode, reference, dtype, seed, points, variants, hints, max_seconds)
    with np.errstate(all="ignore"):
        return _check(Pair(forward, backward, inputs, params), settings, order)


# ------------------------------------------------------------------------------------ one check


def _check(subject: Subject, settings: _Settings, order: int) -> Report:
    started = time.perf_counter()
    rng = np.random.default_rng([settings.seed, len(subject.values)])  # not the numbers that the inputs were drawn from
    first = subject.values[subject.wanted[0]]
    dtype = np.dtype(settings.dtype or (first.dtype if first.dtype in (np.float32, np.float64) else np.float64))
    base = subject.at(subject.at(subject.values, dtype), np.float64)
    contract = examine(subject, subject.at(base, dtype), rng)
    usable = not all(contract.is_fatal(k) and not _has_shape(contract, k) for k in range(len(subject.wanted)))
    comparisons: list[Comparison] = []
    if usable:
        comparisons = _compare_points(subject, base, dtype, settings, rng, started)
    reports = [_one_report(subject, k, contract, comparisons, settings, rng, started) for k in range(len(subject.wanted))]
    name = "not needed" if not comparisons else (
        "complex step" if all(c.reference.is_complex for c in comparisons) else "Richardson differences"
    )  # fmt: skip
    of = sum(subject.values[i].size for i in subject.wanted) * max(len(comparisons), 1)
    coverage = Coverage(
        sum(c.elements for c in comparisons), of, sum(c.directions for c in comparisons), max(len(comparisons), 1),
        len(comparisons[0].upstream) if comparisons else 1, dtype.name,
    )  # fmt: skip
    notes = look_at_the_other_dtype(subject, base, dtype, rng) if settings.dtype is None else ()
    seconds = time.perf_counter() - started
    return Report(subject.name, name, order, settings.seed, coverage, reports, settings.hints, seconds, notes=notes)


def _compare_points(
    subject: Subject, base: Values, dtype: Any, settings: _Settings, rng: np.random.Generator, started: float
) -> list[Comparison]:
    plan = _plan(subject, base, dtype, settings)
    found = [compare(subject, base, plan, rng)]
    for _ in range(settings.points - 1):
        spent = time.perf_counter() - started
        if spent > 0.45 * settings.max_seconds:
            break
        another = _nearby_comparison(subject, base, plan, rng, found[0])
        if another is not None:
            found.append(another)
    return found


def _plan(subject: Subject, base: Values, dtype: Any, settings: _Settings) -> Plan:
    """Time a forward pass, and see whether every element can be compared."""
    clock = time.perf_counter()
    subject.forward([v.copy() for v in base])
    once = time.perf_counter() - clock
    clock = time.perf_counter()
    subject.forward([v.copy() for v in base])
    once = min(once, time.perf_counter() - clock)
    size = sum(base[i].size for i in subject.wanted)
    needed = size * once * (10 if settings.reference == "richardson" else 4)
    full = settings.mode == "full" or (settings.mode == "auto" and needed < 0.5 * settings.max_seconds)
    return Plan(dtype, full, 0.4 * settings.max_seconds / max(settings.points, 1), settings.reference)


def _nearby_comparison(
    subject: Subject, base: Values, plan: Plan, rng: np.random.Generator, first: Comparison
) -> Comparison | None:
    """The comparison at a random point near the given one, if there is one where the function is finite."""
    for boldness in (0.2, 0.02, 0.0):
        values = [_nearby(v, boldness, rng) if i in subject.wanted else v for i, v in enumerate(base)]
        values = subject.at(subject.at(values, plan.dtype), np.float64)
        try:
            with np.errstate(all="ignore"):
                outputs = subject.forward([v.copy() for v in values])
            same_shapes = [o.shape for o in outputs] == [o.shape for o in first.reference.outputs]
            if same_shapes and np.array_equal(np.isfinite(flat(outputs)), first.reference.finite):
                return compare(subject, values, plan, rng)
        except Exception:
            continue
    return None


def _nearby(values: Array, boldness: float, rng: np.random.Generator) -> Array:
    """Numbers like the given ones: mixed among themselves, so that their range stays, and moved a little beyond."""
    finite = np.isfinite(values)
    if not finite.all():
        moved = values.copy()
        moved[finite] = _nearby(values[finite], boldness, rng)
        return moved
    if not values.size:
        return values.copy()
    shuffled = [rng.permutation(values.reshape(-1)).reshape(values.shape) for _ in range(2)]  # the input's shape
    share = rng.uniform(0, 1, values.shape)
    mixed = share * shuffled[0] + (1 - share) * shuffled[1]
    size = float(np.sqrt(np.mean(values**2))) or boldness
    moved = mixed + boldness * size * rng.uniform(-1, 1, values.shape)
    if boldness and values.min() > 0:
        moved = mixed * (1 + boldness * rng.uniform(-1, 1, values.shape))
    return moved


# ------------------------------------------------------------------------------------ one input's report


def _one_report(
    subject: Subject, k: int, contract: Contract, comparisons: list[Comparison], settings: _Settings,
    rng: np.random.Generator, started: float,
) -> InputReport:  # fmt: skip
    i = subject.wanted[k]
    name, shape, size = subject.names[i], subject.values[i].shape, subject.values[i].size
    faults = list(contract.faults[k])
    found = [(c, part) for c in comparisons if (part := c.inputs[k]) is not None]
    if not found:
        verdict = "wrong" if faults else "right"
        return InputReport(name, shape, verdict, size if faults else 0, size, diagnosis=tuple(faults))
    _, part = max(found, key=lambda pair: int(pair[1].bad.sum()))
    bad = int(part.bad.sum())
    wrong = any(p.bad.any() or p.crooked for _, p in found)
    decided = any((p.checked & ~p.kink & ~p.unknown).any() for _, p in found)
    verdict = "wrong" if wrong or faults else "right" if decided or not size else "undecidable"
    summed = next((d for d in faults if d.label == "shape"), None)
    if any((p.bad & ~np.isfinite(p.analytic).all(axis=0)).any() for _, p in found):
        faults.append(_not_finite([p for _, p in found]))
        wrong = False
    error = jacobians = None
    explained: list[Diagnosis] = []
    if wrong and not (contract.is_fatal(k) and not summed):
        explained, error, jacobians = _diagnose(subject, k, found, comparisons, settings, rng, started)
        faults += explained
    if summed is not None and _was_broadcast(summed) and (not wrong or explained[0].label != "unexplained"):
        then = "it is right" if not wrong else "then there is a second mistake"
        faults[faults.index(summed)] = Diagnosis(
            "missing_broadcast_sum", f"has the broadcast shape {summed.evidence['found']}; it has to be summed over the "
            f"axes along which {name} {shape} was broadcast, {then}", summed.evidence)  # fmt: skip
    maps = None
    if size:
        u = 0
        tolerance = np.where(part.kink | part.unknown | ~part.checked, np.inf, part.tolerance[u])
        maps = Maps(part.analytic[u].reshape(shape), part.middle[u].reshape(shape), tolerance.reshape(shape), error,
                    jacobians)  # fmt: skip
    kinks, unknown = int(found[0][1].kink.sum()), int(found[0][1].unknown.sum())
    unchecked = int((~part.checked).sum())
    return InputReport(name, shape, verdict, bad, size, kinks, unknown, unchecked, part.worst(shape), tuple(faults), maps)


def _has_shape(contract: Contract, k: int) -> bool:
    """Whether a gradient has only a wrong shape, so that it may turn out right after summing."""
    return all(d.label == "shape" and "found" in d.evidence for d in contract.faults[k])


def _not_finite(parts: list[InputComparison]) -> Diagnosis:
    count = max(int((p.bad & ~np.isfinite(p.analytic).all(axis=0)).sum()) for p in parts)
    return Diagnosis("not_finite", f"is NaN or infinite for {count} element{'' if count == 1 else 's'} where the derivative "
                     "is finite: an overflow, 0/0 or ∞ − ∞ that the forward avoids", {"elements": count})  # fmt: skip


def _was_broadcast(fault: Diagnosis) -> bool:
    found, expected = fault.evidence["found"], fault.evidence["expected"]
    return int(np.prod(found)) > int(np.prod(expected))


def _diagnose(
    subject: Subject, k: int, found: list[tuple[Comparison, InputComparison]], comparisons: list[Comparison],
    settings: _Settings, rng: np.random.Generator, started: float,
) -> tuple[list[Diagnosis], list[Array] | None, tuple[Array, Array] | None]:  # fmt: skip
    """Explanations of a wrong gradient; how wrong every output's row is; both Jacobians if they are small."""
    ties = [tie for _, part in found for tie in part.ties]
    if ties and not any((part.bad & ~part.kink).any() for _, part in found):
        return [diagnosis.of_ties(ties)], None, None
    views = []
    remaining = settings.max_seconds - (time.perf_counter() - started)
    for comparison in comparisons:
        view = _view(subject, k, comparison, max(remaining, 1.0) / (2 * len(comparisons)))
        if view is not None:
            views.append(view)
    if not views:
        parts = [part for _, part in found]
        return diagnosis.of_elements(parts), None, None
    case = Case(subject, k, views, settings.variants, rng, started + 1.5 * settings.max_seconds)
    kept = diagnosis.first_call_kept(case)
    explained = [*([kept] if kept else []), *diagnosis.of(case)]
    return explained, case.error_over_output(), case.small_jacobians(SMALL)


def _view(subject: Subject, k: int, comparison: Comparison, seconds: float) -> View | None:
    """The two Jacobians at one point, if there is time for the backward's."""
    part, reference = comparison.inputs[k], comparison.reference
    if part is None or part.jacobian is None or part.error is None or part.sharp is None:
        return None
    dtype = np.float64
    clock = time.perf_counter()
    pull = subject.pullback(subject.at(reference.values, dtype))
    pull([np.zeros(o.shape, dtype) for o in reference.outputs])
    if (time.perf_counter() - clock) * len(reference.row) > seconds:
        return None
    with np.errstate(all="ignore"):
        analytic = one_hot_jacobian(pull, reference.outputs, k, reference.values[subject.wanted[k]].shape, dtype)
    if analytic is None:
        return None
    others = [None if c is None else c.jacobian for c in comparison.inputs]
    return View(reference, analytic, part.jacobian, part.error, part.sharp, others)
