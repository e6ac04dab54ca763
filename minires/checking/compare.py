"""The comparison at one point: for every element, is the backward's gradient the derivative of the forward?

The tolerance is nobody's argument. It is ten times the errors that were measured: of the numeric derivative, and of the
backward itself, whose answer is computed again for inputs that differ in their last digits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minires.checking.contract import as_gradient, draw_upstream
from minires.checking.numeric import Slopes
from minires.checking.reference import EPS, Reference, flat, nudged
from minires.checking.report import Worst
from minires.checking.subject import Pullback, Subject, Values

__all__ = ["Comparison", "InputComparison", "Plan", "compare", "split"]

Array = np.ndarray[Any, Any]

UPSTREAMS = 2
LARGEST_JACOBIAN = 1_000_000  # entries; a larger one is not kept, and cannot be diagnosed
#: Rounding that a right formula may have, in ulps of the largest gradient: three or four digits of sixteen, two of seven.
DIGITS = {"float64": 5000, "float32": 64}
BLIND = 0.05  # a tolerance above this share of the gradient's size decides nothing


@dataclass
class InputComparison:
    """One input at one point; arrays over its elements, flattened, the first axis over the upstream gradients.

    Attributes:
        analytic: what the backward gives.
        low: what it should be at least (at a kink there is a range).
        high: what it should be at most.
        tolerance: how far out of the range it may be.
        jacobian: outputs x elements, or None if it is too large.
        error: of the Jacobian.
        sharp: entries of the Jacobian at a kink.
        checked: which elements were compared one by one.
        doubt: elements where the reference turned out not to agree with itself.
        natural: a gradient so small that it is no pity not to see it: a millionth of outputs / inputs.
        ties: elements of groups that have a kink together, whose gradients' sum is wrong, with that sum and the right one.
        crooked: a random direction through all elements found something wrong.
    """

    analytic: Array
    low: Array
    high: Array
    tolerance: Array
    jacobian: Array | None
    error: Array | None
    sharp: Array | None
    checked: Array
    doubt: Array
    natural: float = 0.0
    ties: list[tuple[Array, float, float]] = field(default_factory=list)
    crooked: bool = False

    @property
    def middle(self) -> Array:
        """What the gradient should be."""
        return (self.low + self.high) / 2

    @property
    def bad(self) -> Array:
        """Elements that are wrong; a NaN is."""
        inside = (self.low - self.tolerance <= self.analytic) & (self.analytic <= self.high + self.tolerance)
        wrong = np.asarray(np.any(~inside & np.isfinite(self.tolerance), axis=0) & self.checked & ~self.doubt)
        for elements, _, _ in self.ties:
            wrong[elements] = True
        return wrong

    @property
    def kink(self) -> Array:
        """Elements without a derivative."""
        return np.asarray(np.any(self.high - self.low > self.tolerance, axis=0) & self.checked)

    @property
    def unknown(self) -> Array:
        """Elements that cannot be decided."""
        scale = max(np.where(np.isfinite(self.middle), np.abs(self.middle), 0).max(initial=0), self.natural)
        blind = (self.tolerance > max(BLIND * scale, 1e-30)) & (self.tolerance > BLIND * np.abs(self.analytic))
        blind &= self.analytic != self.middle  # a gradient that is 0 and has to be 0 is no riddle
        undecided = np.any(~np.isfinite(self.tolerance) | blind, axis=0) | self.doubt
        return np.asarray(undecided & self.checked & ~self.bad)

    def worst(self, shape: tuple[int, ...]) -> Worst | None:
        """The element furthest out of its range."""
        if not self.analytic.size:
            return None
        with np.errstate(all="ignore"):
            off = np.maximum(self.low - self.analytic, self.analytic - self.high) / self.tolerance
        off = np.where(np.isfinite(self.analytic), off, np.inf) * np.where(np.isfinite(self.tolerance), 1, 0)
        off[:, ~self.checked] = -np.inf
        off = np.where(np.isnan(off), -np.inf, off)
        if self.bad.any():
            off = np.where(self.bad, off, -np.inf)
        k, e = np.unravel_index(int(np.argmax(off)), off.shape)
        index = tuple(int(n) for n in np.unravel_index(int(e), shape))
        return Worst(index, float(self.analytic[k, e]), float(self.middle[k, e]), float(self.tolerance[k, e]))


@dataclass
class Comparison:
    """All inputs at one point.

    Attributes:
        reference: the numeric derivatives.
        upstream: the upstream gradients (K, outputs).
        inputs: by place in ``subject.wanted``; None where the backward gives nothing that can be compared.
        elements: number of elements compared.
        directions: number of random directions.
    """

    reference: Reference
    upstream: Array
    inputs: list[InputComparison | None]
    elements: int = 0
    directions: int = 0


@dataclass
class Plan:
    """How much can be afforded.

    Attributes:
        dtype: in which the backward is run.
        full: whether every element is compared.
        seconds: time for one point.
        reference: "auto", "complex" or "richardson".
    """

    dtype: Any
    full: bool
    seconds: float
    reference: str


def split(row: Array, like: list[Array], dtype: Any = np.float64) -> list[Array]:
    """The opposite of ``flat``."""
    ends = np.cumsum([o.size for o in like])[:-1]
    parts = zip(np.split(row, ends), like, strict=True)
    return [part.reshape(o.shape).astype(dtype) for part, o in parts]  # each of its output's shape


def compare(subject: Subject, values: Values, plan: Plan, rng: np.random.Generator) -> Comparison:
    """Compare all gradients at one point (``values`` in float64)."""
    reference = Reference(subject, values, rng, plan.reference)
    rows = np.stack([flat(draw_upstream(reference.outputs, rng)) for _ in range(UPSTREAMS)])
    rows = rows.astype(plan.dtype).astype(np.float64)
    analytic, spread = _analytic(subject, reference, rows, plan.dtype, rng)
    result = Comparison(reference, rows, [])
    for k, i in enumerate(subject.wanted):
        if analytic[k] is None:
            result.inputs.append(None)
            continue
        found = _one_input(reference, i, rows, plan, rng)
        found.analytic = analytic[k]
        digits = np.abs(rows) @ _magnitude(found) if found.jacobian is not None else np.abs(found.middle)
        eps = np.finfo(plan.dtype).eps
        largest = np.where(np.isfinite(found.middle), np.abs(found.middle), 0).max(axis=1, initial=0)[:, None]
        floor = eps * (16 * digits + DIGITS[np.dtype(plan.dtype).name] * largest)
        floor += eps * 16 * _flatness(reference, i, rows, plan.dtype)
        lost = eps * eps * (1e6 * found.natural or 1.0)  # what no sum of numbers of the natural size can hold
        found.tolerance = 10 * (found.tolerance + spread[k]) + floor + lost
        if not reference.finite.all():  # no wonder that a gradient is not finite either
            found.doubt |= ~np.isfinite(found.analytic).all(axis=0)
        result.elements += int(found.checked.sum())
        _confirm(reference, i, found, rows)
        if not found.checked.all():
            result.directions += _try_directions(reference, i, found, rows, rng)
        result.inputs.append(found)
    _check_ties(subject, result)
    return result


def _flatness(reference: Reference, i: int, rows: Array, dtype: Any) -> Array:
    """The size of what cancels where a function is flat, such as 1 − y at y = 1 in a sigmoid's slope (upstreams x elements).

    It is about 1 for functions of the size of 1 and smaller for small ones; for large ones it is output / input. Large
    inputs that are subtracted from each other, as in a softmax, bring their own rounding; in float32 it would hide too much.
    """
    outputs = (np.abs(rows) * np.where(reference.finite, np.abs(reference.row), 0)).max(axis=1, initial=0)[:, None]
    inputs = np.abs(reference.values[i].reshape(1, -1))  # (1, elements)
    upstream = np.abs(rows).max(axis=1, initial=0)[:, None]
    rounding = np.maximum(1, inputs / 16) if dtype == np.float64 else 1.0
    large = np.maximum(outputs / np.where(inputs > 0, inputs, 1), upstream * rounding)
    smallest = upstream / 16 if dtype == np.float64 else 0.0  # a loss that is 0 was made of numbers that were not
    return np.asarray(np.maximum(np.minimum(outputs * rounding, large), smallest))


def _magnitude(found: InputComparison) -> Array:
    """The size of every entry of the Jacobian, 0 where it is not finite."""
    assert found.jacobian is not None
    return np.where(np.isfinite(found.jacobian), np.abs(found.jacobian), 0)


def _analytic(
    subject: Subject, reference: Reference, rows: Array, dtype: Any, rng: np.random.Generator
) -> tuple[list[Any], list[Any]]:
    """The backward's gradients (upstreams x elements) for every input, and how much they vary with the last digits."""
    eps = float(np.finfo(dtype).eps)

    def gradients(values: Values, seeds: Array) -> list[Any]:
        pull = subject.pullback(subject.at(values, dtype))
        found = [pull(split(row, reference.outputs, dtype)) for row in seeds]
        stacked: list[Any] = []
        for k, i in enumerate(subject.wanted):
            each = [g.reshape(-1) for f in found if (g := as_gradient(f[k], values[i].shape)) is not None]  # (elements,)
            stacked.append(np.stack(each) if len(each) == len(found) else None)
        return stacked

    with np.errstate(all="ignore"):
        first = gradients(reference.values, rows)
        spread: list[Any] = [None if g is None else np.zeros_like(g) for g in first]
        for _ in range(4):
            nearby = nudged(reference.values, subject.wanted, 4 * eps, rng)
            try:
                again = gradients(nearby, rows * (1 + 2 * eps * rng.choice([-1, 1], rows.shape)))
            except Exception:  # at the edge of where the forward is defined
                continue
            for k, (a, b) in enumerate(zip(first, again, strict=True)):
                if a is not None and b is not None:
                    spread[k] = np.fmax(spread[k], np.where(np.isfinite(a - b), np.abs(a - b), 0))
    for k, s in enumerate(spread):
        if s is not None and s.size:
            spread[k] = np.maximum(s, np.median(s, axis=1, keepdims=True))
    return first, spread


def _elements(reference: Reference, i: int, plan: Plan, rng: np.random.Generator) -> Iterator[int]:
    """The elements to compare: all, or as many random ones as there is time for."""
    size = reference.values[i].size
    if plan.full:
        yield from range(size)
        return
    end = time.perf_counter() + plan.seconds / (2 * len(reference.subject.wanted))
    for number, e in enumerate(rng.permutation(size)):
        if number >= 3 and time.perf_counter() > end:
            return
        yield int(e)


def _one_input(reference: Reference, i: int, rows: Array, plan: Plan, rng: np.random.Generator) -> InputComparison:
    """What the gradient of input ``i`` should be; the backward's own is filled in later."""
    shape, size, count = reference.values[i].shape, reference.values[i].size, len(reference.row)
    keep = plan.full and size * count <= LARGEST_JACOBIAN
    jacobian, error, sharp = (np.zeros((count, size), t) if keep else None for t in (float, float, bool))
    low, high, tolerance = (np.zeros((len(rows), size)) for _ in range(3))
    checked = np.zeros(size, bool)
    used = np.any(rows != 0, axis=0)
    for e in _elements(reference, i, plan, rng):
        slopes = reference.column(i, tuple(int(n) for n in np.unravel_index(e, shape)))
        if jacobian is not None and error is not None and sharp is not None:
            jacobian[:, e], error[:, e], sharp[:, e] = slopes.value, slopes.error, slopes.kink
        low[:, e], high[:, e], tolerance[:, e] = _times(rows[:, used], slopes, used)
        checked[e] = True
    tolerance[~np.isfinite(low + high)] = np.inf
    doubt = np.zeros(size, bool)
    largest = [float(np.abs(v[np.isfinite(v)]).max(initial=0)) for v in (reference.row[used], reference.values[i])]
    natural = 1e-6 * largest[0] / (largest[1] or 1)
    return InputComparison(np.zeros_like(low), low, high, tolerance, jacobian, error, sharp, checked, doubt, natural)


def _times(rows: Array, slopes: Slopes, used: Array) -> tuple[Array, Array, Array]:
    """Upstream gradients times the derivatives of the outputs ``used``: least, greatest, error (upstreams,)."""
    with np.errstate(all="ignore"):
        ends = rows * slopes.low[used], rows * slopes.high[used]
        return np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1), np.abs(rows) @ slopes.error[used]


def _confirm(reference: Reference, i: int, found: InputComparison, rows: Array, limit: int = 12) -> None:
    """Where a gradient seems wrong, ask the reference once more, in another way, before anyone is accused."""
    bad = np.flatnonzero(found.bad)
    shape, used = reference.values[i].shape, np.any(rows != 0, axis=0)
    looked = 0
    for e in bad[np.linspace(0, len(bad) - 1, min(limit, len(bad))).astype(int)] if len(bad) else ():
        slopes = reference.again(i, tuple(int(n) for n in np.unravel_index(e, shape)))
        low, high, error = _times(rows[:, used], slopes, used)
        error = 10 * error + found.tolerance[:, e]
        agrees = (low - error <= found.high[:, e]) & (found.low[:, e] <= high + error)
        looked += 1
        if not np.all(agrees & np.isfinite(error)) or _is_contradicted(reference, i, int(e), found, rows):
            found.doubt[e] = True  # also at the edge of where the forward is defined
        elif np.any(high - low > error):  # a kink that had been overlooked
            found.low[:, e], found.high[:, e] = np.minimum(low, found.low[:, e]), np.maximum(high, found.high[:, e])
            if found.sharp is not None:
                found.sharp[:, e] |= slopes.kink
    if looked and found.doubt[bad].sum() > looked / 2:
        found.doubt[bad] = True


def _is_contradicted(reference: Reference, i: int, e: int, found: InputComparison, rows: Array) -> bool:
    """Whether differences with quite other steps give another derivative: the function wiggles, or has steps."""
    if reference.is_complex:
        return False
    used = np.any(rows != 0, axis=0)
    for slopes in reference.at_other_steps(i, tuple(int(n) for n in np.unravel_index(e, reference.values[i].shape))):
        value, _, error = _times(rows[:, used], slopes, used)
        error = 10 * error + found.tolerance[:, e]
        if np.isfinite(error).all() and np.any((value + error < found.low[:, e]) | (value - error > found.high[:, e])):
            return True
    return False


def _try_directions(
    reference: Reference, i: int, found: InputComparison, rows: Array, rng: np.random.Generator, count: int = 3
) -> int:
    """Where not every element could be compared: random directions, which go through all of them."""
    for _ in range(count):
        u = rng.standard_normal(reference.values[i].shape)
        slopes = reference.along({i: u})
        if slopes.kink.any() or not np.isfinite(slopes.error).all():
            continue
        expected = rows @ slopes.value
        actual = found.analytic @ u.reshape(-1)  # (upstreams, elements) times (elements,)
        spread = np.sqrt((found.tolerance**2).mean(axis=1)) * np.sqrt(u.size) * 3
        digits = 64 * EPS * np.abs(found.analytic) @ np.abs(u.reshape(-1))  # (upstreams,)
        if np.any(~(np.abs(actual - expected) <= 10 * np.abs(rows) @ slopes.error + spread + digits)):
            found.crooked = True
    return count


def _check_ties(subject: Subject, result: Comparison) -> None:
    """Elements that are equal and have a kink together: along their common direction the function may be smooth.

    Then the sum of their gradients is known: 1 for the winners of a maximum, however a rule shares it among them.
    """
    reference = result.reference
    for group in _tied(subject, result):
        directions: dict[int, Array] = {}
        for k, e in group:
            i = subject.wanted[k]
            directions.setdefault(i, np.zeros(reference.values[i].shape)).reshape(-1)[e] = 1.0  # (elements,)
        slopes = reference.differences_along(directions)
        if slopes.kink.any() or not np.isfinite(slopes.error).all():
            continue
        parts = [(result.inputs[k], e) for k, e in group]
        actual = np.asarray(sum(f.analytic[:, e] for f, e in parts if f is not None))
        tolerance = 10 * np.abs(result.upstream) @ slopes.error + sum(f.tolerance[:, e] for f, e in parts if f is not None)
        expected = result.upstream @ slopes.value
        if np.any(np.abs(actual - expected) > tolerance):
            worst = int(np.argmax(np.abs(actual - expected)))
            for k, found in enumerate(result.inputs):
                elements = np.array([e for number, e in group if number == k], int)
                if found is not None and len(elements):
                    found.ties.append((elements, float(actual[worst]), float(expected[worst])))


def _tied(subject: Subject, result: Comparison) -> Iterator[list[tuple[int, int]]]:
    """Groups of (place of the input, element) that are equal and have a kink in the same output."""
    by_output: dict[tuple[int, float], set[tuple[int, int]]] = {}
    for k, found in enumerate(result.inputs):
        if found is None or found.sharp is None or not found.sharp.any():
            continue
        numbers = result.reference.values[subject.wanted[k]].reshape(-1)  # (elements,)
        for o, e in zip(*np.nonzero(found.sharp), strict=True):
            by_output.setdefault((int(o), float(numbers[e])), set()).add((k, int(e)))
    seen: set[tuple[tuple[int, int], ...]] = set()
    for members in by_output.values():
        group = tuple(sorted(members))
        if len(group) > 1 and group not in seen and len(seen) < 200:
            seen.add(group)
            yield list(group)


def one_hot_jacobian(pull: Pullback, outputs: list[Array], k: int, shape: tuple[int, ...], dtype: Any) -> Array | None:
    """The backward's Jacobian (outputs x elements) of one input, from one-hot upstream gradients."""
    count = sum(o.size for o in outputs)
    jacobian = np.zeros((count, int(np.prod(shape))))
    for o in range(count):
        row = np.zeros(count)
        row[o] = 1
        gradient = as_gradient(pull(split(row, outputs, dtype))[k], shape)
        if gradient is None:
            return None
        jacobian[o] = gradient.reshape(-1)  # (elements,)
    return jacobian
