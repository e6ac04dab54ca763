"""What a backward must keep to before any number in it is looked at.

It returns one gradient per input, in that input's shape and dtype; writes into nothing that it was given; hands out no
memory of its upstream gradient; gives the same answer twice; and is linear in the upstream gradient, so 0 for an upstream
gradient of 0.

A fault found here needs no derivative to be proved, and makes every comparison of numbers pointless or misleading.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np

from minires.checking.report import Diagnosis
from minires.checking.subject import MISSING, Pair, Pullback, Subject, Values, WrongNumber

__all__ = ["FATAL", "Contract", "as_gradient", "draw_upstream", "examine", "look_at_the_other_dtype"]

Array = np.ndarray[Any, Any]

#: After these there is nothing more to learn from the numbers.
FATAL = ("shape", "missing_broadcast_sum", "state_leak", "nondeterministic", "ignores_upstream", "not_linear")


class Contract:
    """The faults of every input, by its place in ``subject.wanted``, in the order in which they were found."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.faults: dict[int, list[Diagnosis]] = defaultdict(list)

    def add(self, which: int | None, label: str, sentence: str, **evidence: Any) -> None:
        """Note a fault of one gradient, or of all of them (None)."""
        for k in range(len(self.subject.wanted)) if which is None else (which,):
            self.faults[k].append(Diagnosis(label, sentence, evidence))

    def is_fatal(self, which: int) -> bool:
        """Whether the numbers of a gradient mean nothing."""
        return any(d.label in FATAL or d.evidence.get("fatal") for d in self.faults[which])


def draw_upstream(outputs: list[Array], rng: np.random.Generator, dtype: Any = np.float64) -> list[Array]:
    """A random upstream gradient; 0 where the output itself is not finite."""
    drawn = [np.asarray(rng.standard_normal(o.shape), dtype) for o in outputs]
    return [np.where(np.isfinite(o), g, 0).astype(dtype) for o, g in zip(outputs, drawn, strict=True)]


def as_gradient(found: Any, shape: tuple[int, ...]) -> Array | None:
    """A gradient as an array of the right shape, summed over broadcast axes where that makes it right; or None."""
    if found is None:
        return np.zeros(shape)
    if found is MISSING:
        return None
    array = np.asarray(found)
    if array.dtype.kind not in "fiub":
        return None
    if array.shape != shape:
        return sum_to(array, shape) if array.size > int(np.prod(shape)) else None
    return array.astype(np.float64)


def sum_to(array: Array, shape: tuple[int, ...]) -> Array | None:
    """``array`` summed over the axes along which ``shape`` was broadcast to it; None if it was not.

    Axes are matched from the end, as NumPy does; else in order wherever they fit, such as (C,) in (N, C, H, W).
    """
    array = array.astype(np.float64)
    extra = array.ndim - len(shape)
    if extra >= 0 and all(s in (1, n) for s, n in zip(shape, array.shape[extra:], strict=True)):
        axes = tuple(range(extra)) + tuple(k + extra for k, s in enumerate(shape) if s == 1 and array.shape[k + extra] != 1)
        return np.asarray(array.sum(axis=axes).reshape(shape))  # the input's shape, sizes 1 put back
    sizes = tuple(s for s in shape if s > 1)
    for kept in itertools.combinations(range(array.ndim), len(sizes)):
        if tuple(array.shape[k] for k in kept) == sizes:
            rest = tuple(k for k in range(array.ndim) if k not in kept)
            return np.asarray(array.sum(axis=rest).reshape(shape))  # the input's shape, sizes 1 put back
    return None


def examine(subject: Subject, values: Values, rng: np.random.Generator) -> Contract:
    """Call the backward a few times with what ought to give known answers."""
    contract = Contract(subject)
    outputs = subject.forward([v.copy() for v in values])
    if not outputs or any(o.dtype.kind == "c" for o in outputs):
        kinds = ", ".join(str(o.dtype) for o in outputs) or "nothing"
        raise TypeError(f"gradcheck: {subject.name} must return real floating point numbers, got {kinds}")
    dtype = outputs[0].dtype
    upstream = draw_upstream(outputs, rng, dtype)
    if isinstance(subject, Pair):
        try:
            _look_at_memory(subject, values, upstream, contract)
        except WrongNumber as error:
            contract.add(None, "shape", f"{error}: return one for each input, in a tuple", fatal=True)
            return contract
    pull = subject.pullback(values)
    first = pull([g.copy() for g in upstream])
    kept = [_copy(g) for g in first]
    _look_at_shapes(contract, values, first)
    if any(d.label == "dtype" and d.evidence.get("fatal") for faults in contract.faults.values() for d in faults):
        return contract
    _call_again(contract, pull, upstream, kept)
    if isinstance(subject, Pair):
        _call_after_another_forward(subject, values, upstream, kept, contract, rng)
    other = draw_upstream(outputs, rng, dtype)
    second, nothing = pull(other), pull([np.zeros_like(g) for g in other])
    summed = pull([(a + 2 * b).astype(dtype) for a, b in zip(upstream, other, strict=True)])
    rounding = 1e-12 * max((float(np.abs(o[np.isfinite(o)]).max(initial=0)) for o in outputs), default=0.0)
    _compare_again(contract, kept, pull([g.copy() for g in upstream]))
    for k, (a, b, zero, both) in enumerate(zip(kept, second, nothing, summed, strict=True)):
        if not contract.is_fatal(k):
            _is_linear(contract, k, (a, b, zero, both), rounding, 1e-4 if dtype == np.float64 else 0.05)
    for k, (now, before) in enumerate(zip(first, kept, strict=True)):
        if not contract.is_fatal(k) and now is not None and not np.array_equal(now, before, equal_nan=True):
            contract.add(k, "state_leak", "the array returned by one call is changed by the next: it is kept somewhere and "
                         "used again; make a fresh array in every call")  # fmt: skip
    return contract


def _copy(gradient: Any) -> Any:
    return gradient if gradient is None or gradient is MISSING else np.array(gradient)


def _look_at_memory(subject: Pair, values: Values, upstream: list[Array], contract: Contract) -> None:
    subject.pullback(values)  # runs the forward, as before every backward
    given, seeds = [v.copy() for v in values], [g.copy() for g in upstream]
    found = subject.call_backward(given, seeds)
    names = [subject.names[i] for i in range(len(values)) if not np.array_equal(given[i], values[i], equal_nan=True)]
    if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(seeds, upstream, strict=True)):
        contract.add(None, "damages_gout", "writes into its upstream gradient, which other ops still need: work on a copy")
    for name in names:
        damaged = [k for k, i in enumerate(subject.wanted) if subject.names[i] == name]
        sentence = f"writes into its input {name}, which others still need: work on a copy"
        for k in damaged or (None,):  # None: an integer input has no gradient of its own, so all are at fault
            contract.add(k, "damages_input", sentence, input=name)
    for k, gradient in enumerate(found):
        if isinstance(gradient, np.ndarray) and any(np.shares_memory(gradient, g) for g in seeds):
            contract.add(k, "aliases_gout", "returns memory of its upstream gradient: whoever adds to one changes the "
                         "other; return a copy")  # fmt: skip


def _look_at_shapes(contract: Contract, values: Values, found: list[Any]) -> None:
    for k, (i, gradient) in enumerate(zip(contract.subject.wanted, found, strict=True)):
        if gradient is None:
            continue
        if gradient is MISSING:
            contract.add(k, "shape", "is not returned at all: return one gradient for each input, in a tuple", fatal=True)
            continue
        array = np.asarray(gradient)
        if array.dtype.kind not in "fiub":
            contract.add(k, "dtype", f"is {array.dtype}, expected {values[i].dtype}", fatal=True)
        elif array.shape != values[i].shape:
            contract.add(k, "shape", f"has shape {array.shape}, but its input has shape {values[i].shape}",
                         found=array.shape, expected=values[i].shape)  # fmt: skip
        elif array.dtype != values[i].dtype and contract.subject.contract:
            contract.add(k, "dtype", f"is {array.dtype}, but its input is {values[i].dtype}: make buffers with the input's "
                         "dtype", found=str(array.dtype), expected=str(values[i].dtype))  # fmt: skip


def look_at_the_other_dtype(
    subject: Subject, values: Values, dtype: Any, rng: np.random.Generator
) -> tuple[str, ...]:
    """A remark for every gradient that is right in ``dtype`` but does not keep the other one, though the forward does."""
    if not isinstance(subject, Pair):
        return ()
    other = np.dtype(np.float32 if dtype == np.float64 else np.float64)
    try:
        with np.errstate(all="ignore"):
            inputs = subject.at(values, other)
            outputs = subject.forward([v.copy() for v in inputs])
            found = subject.pullback(inputs)(draw_upstream(outputs, rng, other))
    except Exception:  # made for one dtype only
        return ()
    if any(o.dtype != other for o in outputs):
        return ()
    return tuple(f"for inputs of {other}, d{subject.names[i]} is {gradient.dtype}: make buffers with the input's dtype"
                 for i, gradient in zip(subject.wanted, found, strict=True)
                 if isinstance(gradient, np.ndarray) and gradient.dtype != other)  # fmt: skip


def _call_again(contract: Contract, pull: Pullback, upstream: list[Array], first: list[Any]) -> None:
    """The same call three times more: a backward has no memory and does not roll dice."""
    calls = [first, *([_copy(g) for g in pull([u.copy() for u in upstream])] for _ in range(3))]
    for k in range(len(first)):
        if first[k] is MISSING:
            continue
        series = [np.asarray(c[k], np.float64).reshape(-1) for c in calls if c[k] is not None and np.ndim(c[k]) >= 0]
        if len(series) < 4 or any(s.shape != series[0].shape for s in series):
            continue
        steps = [b - a for a, b in itertools.pairwise(series)]
        size = max(float(np.nanmax(np.abs(s), initial=0)) for s in series)
        if not any(np.nanmax(np.abs(d), initial=0) > 1e-9 * size for d in steps):
            continue
        if _is_regular(steps, size):
            contract.add(k, "state_leak", "gives another answer when it is called again: something from earlier calls is "
                         "added or kept", calls=[float(np.nansum(s)) for s in series])  # fmt: skip
        else:
            contract.add(k, "nondeterministic", "gives another answer every time, for the same input and upstream gradient: "
                         "it depends on random numbers or on uninitialised memory")  # fmt: skip


def _call_after_another_forward(
    subject: Pair, values: Values, upstream: list[Array], first: list[Any], contract: Contract, rng: np.random.Generator
) -> None:
    """The backward is given its inputs; what another forward left behind must not matter."""
    others = [rng.permutation(v.reshape(-1)).reshape(v.shape) * (1 + 0.1 * rng.uniform(-1, 1, v.shape)).astype(v.dtype)
              if i in subject.wanted else v.copy() for i, v in enumerate(values)]  # fmt: skip
    try:
        with np.errstate(all="ignore"):
            subject.forward(others)
    except Exception:  # not every function likes numbers that it was not given
        return
    again = subject.call_backward([v.copy() for v in values], [g.copy() for g in upstream])
    subject.forward([v.copy() for v in values])
    for k, (a, b) in enumerate(zip(first, again, strict=True)):
        if contract.is_fatal(k) or a is None or b is None or np.shape(a) != np.shape(b):
            continue
        if not _is_same(a, b):
            contract.add(k, "state_leak", "depends on what the last forward left behind, not on the inputs that it is given")


def _is_same(a: Any, b: Any) -> bool:
    """Equal but for the last digits; where one is not finite the other is not either."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    finite = np.isfinite(a)
    size = np.abs(a[finite]).max(initial=0)
    return np.array_equal(finite, np.isfinite(b)) and bool(np.abs(a - b)[finite].max(initial=0) <= 1e-6 * size)


def _compare_again(contract: Contract, first: list[Any], again: list[Any]) -> None:
    """The first call once more, after calls with other upstream gradients."""
    for k, (a, b) in enumerate(zip(first, again, strict=True)):
        if contract.is_fatal(k) or a is None or b is None or np.shape(a) != np.shape(b):
            continue
        if not _is_same(a, b):
            contract.add(k, "state_leak", "depends on the upstream gradient of the call before: something is kept between "
                         "calls")  # fmt: skip


def _is_regular(steps: list[Array], size: float) -> bool:
    """Whether an answer changes in a pattern (it grows, settles, alternates), not at random."""
    a, b, c = steps
    small = 1e-9 * size
    still = [float(np.abs(d).max(initial=0)) <= small for d in steps]
    if any(still):
        return True
    if np.abs(a + b).max() <= small or (a.size == 1 and np.abs(b - a).max() <= 1e-6 * np.abs(a).max()):
        return True
    along = [np.dot(p, q) ** 2 / (np.dot(p, p) * np.dot(q, q)) for p, q in ((a, b), (b, c))]
    return a.size > 1 and min(along) > 1 - 1e-9


def _is_linear(contract: Contract, k: int, found: tuple[Any, Any, Any, Any], rounding: float, digits: float) -> None:
    """``found`` for upstream gradients a, b, 0 and a + 2b; up to ``rounding`` or a share of ``digits`` may be rounding."""
    a, b, zero, both = found
    if a is None or b is None or np.shape(a) != np.shape(b):
        return
    a, b, both = (np.asarray(g, np.float64) for g in (a, b, both))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return
    size = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    if zero is not None and not np.abs(np.asarray(zero, np.float64)).max(initial=0) <= 1e-6 * size + rounding:
        same = bool(np.abs(a - b).max(initial=0) <= 1e-6 * size)
        constant = "does not depend on the upstream gradient at all: multiply by grad_output"
        offset = "is not 0 for an upstream gradient of 0: a term is not multiplied by grad_output"
        contract.add(k, "ignores_upstream", constant if same else offset)
    elif not np.abs(both - a - 2 * b).max(initial=0) <= digits * size + rounding:
        contract.add(k, "unexplained", "is not linear in the upstream gradient: for grad_output = a + 2b it is not what it "
                     "is for a plus twice what it is for b", fatal=True, where="upstream")  # fmt: skip
