"""One wrong gradient, ready for diagnosis: the backward's Jacobian beside the numeric one, at several points.

A hypothesis says what a mistake would have produced; the case says whether that is what the backward did produce, in every
entry and at every point, within the numerical error. Several points matter: a factor of 0.25 at one point may be a constant,
or the slope of a sigmoid at 0.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from minires.checking.diagnosis.variants import changed_options
from minires.checking.numeric import STEP, first_step, richardson
from minires.checking.reference import Reference, flat
from minires.checking.subject import Pair, Subject, TensorFunction, Values

__all__ = ["Case", "Prediction", "View", "axes_in_words", "exchanges", "moved_axes", "subsets"]

Array = np.ndarray[Any, Any]
Forward = Callable[[Values], list[Array]]


@dataclass
class View:
    """The Jacobians (outputs x elements, flattened) at one point.

    Attributes:
        reference: the point, and the forward's result there.
        analytic: from the backward, by one-hot upstream gradients.
        numeric: from the forward.
        error: of the numeric one.
        sharp: entries at a kink, where the numeric one means nothing.
        others: the numeric Jacobian of every input in ``subject.wanted``, where there is one.
    """

    reference: Reference
    analytic: Array
    numeric: Array
    error: Array
    sharp: Array
    others: list[Array | None]

    @cached_property
    def scale(self) -> float:
        """The largest entry of the numeric Jacobian, or of the other one if that is 0."""
        known = np.where(np.isfinite(self.numeric) & ~self.sharp, np.abs(self.numeric), 0)
        return float(known.max(initial=0)) or float(np.abs(self.analytic).max(initial=0)) or 1.0

    @cached_property
    def tolerance(self) -> Array:
        """How far apart two entries may be and still count as equal."""
        error = np.where(self.sharp | ~np.isfinite(self.error + self.numeric), np.inf, 20 * self.error)
        return error + 1e-9 * self.scale + 1e-7 * np.where(np.isfinite(self.numeric), np.abs(self.numeric), 0)

    @cached_property
    def support(self) -> Array:
        """Where the derivative is not 0."""
        return (np.abs(self.numeric) > self.tolerance) & np.isfinite(self.tolerance)

    @property
    def is_one_to_one(self) -> bool:
        """Whether no output depends on two elements, and no element has two outputs: the function works elementwise."""
        return bool((self.support.sum(axis=1) <= 1).all() and (self.support.sum(axis=0) <= 1).all())

    @cached_property
    def value(self) -> Array:
        """The numeric Jacobian with 0 where it is not known."""
        return np.where(np.isfinite(self.tolerance), self.numeric, 0)

    @cached_property
    def known(self) -> Array:
        """Entries that can be compared."""
        return np.isfinite(self.tolerance)


#: What a mistake would have made of the Jacobian at a point; None if it cannot have been made there.
Prediction = Callable[[View], Array | None]


class Case:
    """A wrong gradient of one input.

    Args:
        subject: what was checked.
        k: the input's place in ``subject.wanted``.
        views: the Jacobians at several points.
        variants: "auto", None, or name → alternative function.
        rng: for random directions.
        deadline: when to stop trying, on the clock of ``time.perf_counter``.
    """

    def __init__(
        self, subject: Subject, k: int, views: list[View], variants: Any, rng: np.random.Generator, deadline: float
    ) -> None:
        self.subject, self.k, self.views, self.variants, self.rng, self.deadline = subject, k, views, variants, rng, deadline
        self.input = subject.wanted[k]
        self.shape: tuple[int, ...] = subject.values[self.input].shape
        self.outputs = views[0].reference.outputs
        self.out_shape: tuple[int, ...] = self.outputs[0].shape if len(self.outputs) == 1 else (len(views[0].numeric),)
        self.rows: Array | None = None  # of all outputs, the rows that are looked at
        self.is_free = False  # whether a prediction may be off by one constant factor
        self.factor: float | None = None  # what that factor was found to be

    # -------------------------------------------------------------------------------- comparing

    def fits(self, predict: Prediction) -> bool:
        """Whether a prediction is what the backward computes, at every point."""
        self.factor = None
        for view in self.views:
            predicted = predict(view)
            if predicted is None:
                return False
            if not self.equal_parts(view.analytic, predicted, view.tolerance + 1e-7 * np.abs(predicted)):
                return False
        return True

    def equal_parts(self, actual: Array, predicted: Array, slack: Array) -> bool:
        """Whether all of ``actual`` is as predicted; in a free case, up to one factor for all points."""
        with np.errstate(invalid="ignore", over="ignore"):
            if self.is_free:
                if self.factor is None:
                    known = np.isfinite(slack)
                    below = float((predicted[known] ** 2).sum())
                    self.factor = float((actual * predicted)[known].sum()) / below if below else 0.0
                seen = np.abs(predicted[np.isfinite(slack)]).max(initial=0) > 1e-6 * np.abs(actual).max(initial=0)
                if not seen or not 1e-3 < abs(self.factor) < 1e3 or abs(self.factor - 1) < 1e-6:
                    return False
                predicted, slack = self.factor * predicted, slack * (1 + abs(self.factor))
            return bool(np.all(np.abs(actual - predicted) <= slack))

    def differs(self, view: View) -> Array:
        """Entries that are wrong."""
        return np.asarray(~(np.abs(view.analytic - view.value) <= view.tolerance))

    def with_views(self, change: Callable[[View], View]) -> Case:
        """The same case with other Jacobians."""
        case = Case(self.subject, self.k, [change(v) for v in self.views], self.variants, self.rng, self.deadline)
        case.rows, case.out_shape, case.is_free = self.rows, self.out_shape, self.is_free
        return case

    def free(self) -> Case:
        """The same case, in which predictions may be off by a constant factor."""
        case = self.with_views(lambda v: v)
        case.is_free = True
        return case

    def scaled(self, c: float) -> Case:
        """The case as it would be if the backward's gradient were divided by ``c``."""
        return self.with_views(lambda v: replace(v, analytic=v.analytic / c))

    def of_output(self, number: int) -> Case:
        """The case with one of several outputs only."""
        ends = np.cumsum([0, *(o.size for o in self.outputs)])
        rows = slice(int(ends[number]), int(ends[number + 1]))

        def part(view: View) -> View:
            others = [None if o is None else o[rows] for o in view.others]
            return View(view.reference, view.analytic[rows], view.numeric[rows], view.error[rows], view.sharp[rows], others)

        case = self.with_views(part)
        case.rows, case.out_shape = np.arange(rows.start, rows.stop), self.outputs[number].shape
        return case

    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() > self.deadline

    # -------------------------------------------------------------------------------- values

    def x(self, view: View) -> Array:
        """The input's values, flattened: one for each column."""
        return np.asarray(view.reference.values[self.input].reshape(-1))  # (elements,)

    def y(self, view: View) -> Array:
        """The output's values, flattened: one for each row."""
        return view.reference.row if self.rows is None else view.reference.row[self.rows]

    def other_inputs(self) -> Iterator[int]:
        """The numbers of the other floating point inputs."""
        yield from (i for i in self.subject.wanted if i != self.input)

    # -------------------------------------------------------------------------------- derivatives of changed forwards

    def explains(self, values: Callable[[View], Values], forward: Forward | None = None) -> bool:
        """Whether the backward's Jacobian is the numeric one of a forward at changed values, or of another forward.

        Compared along random directions, for all outputs at once: an accidental agreement is out of the question.
        """
        self.factor = None
        for view in self.views:
            changed = values(view)
            for _ in range(2):
                u = self.rng.standard_normal(self.shape)
                found = self.slope(view, changed, u, forward)
                if found is None:
                    return False
                slope, error = found
                actual = view.analytic @ u.reshape(-1)  # (outputs, elements) times (elements,)
                spread = np.where(np.isfinite(view.tolerance), view.tolerance, 0)
                slack = error + 3 * np.sqrt((spread**2).sum(axis=1)) + 1e-8 * np.abs(slope).max(initial=0)
                slack = np.where(view.known.all(axis=1), slack, np.inf)
                if np.all(~np.isfinite(slack)) or not self.equal_parts(actual, slope, slack):
                    return False
        return True

    def slope(self, view: View, values: Values, u: Array, forward: Forward | None = None) -> tuple[Array, Array] | None:
        """The derivative of a forward at ``values`` along ``u`` in this input, and its error; None if it has none.

        Args:
            view: the point that the values belong to; it says whether the complex step works, and how much noise there is.
            values: of all inputs.
            u: an array of the input's shape.
            forward: the subject's if None.
        """
        run = forward or self.subject.forward
        if view.reference.is_complex:
            values = [v.astype(np.complex128) if k in self.subject.wanted else v for k, v in enumerate(values)]

        def moved(step: Any) -> Array:
            outputs = run([v + step * u if k == self.input else v.copy() for k, v in enumerate(values)])
            if [o.shape for o in outputs] != [o.shape for o in self.outputs]:
                raise ValueError("another shape, so no explanation")
            return flat(outputs)

        try:
            with np.errstate(all="ignore"):
                if view.reference.is_complex:
                    slope = np.imag(moved(1j * STEP)) / STEP
                    error = np.zeros(len(slope))
                else:
                    noise = view.reference.noise
                    found = richardson(lambda s: (moved(s), s), noise, first_step(noise, view.reference.row, 1.0))
                    slope, error = found.value, 10 * found.error
        except Exception:  # the forward does not like these values or options
            return None
        if slope.shape != view.reference.row.shape or not np.isfinite(slope).all():
            return None
        return (slope, error) if self.rows is None else (slope[self.rows], error[self.rows])

    def alternatives(self) -> Iterator[tuple[str, Forward]]:
        """Other forwards that the backward may belong to: (in words, function)."""
        if isinstance(self.variants, Mapping):
            for name, function in self.variants.items():
                yield name, self._like_forward(function)
        elif self.variants == "auto":
            for name, value in changed_options(self.subject):
                words = f"{name}={value!r} (here {name}={self.subject.keywords[name]!r})"
                yield words, partial(self.subject.forward, **{name: value})

    def _like_forward(self, function: Callable[..., Any]) -> Forward:
        """A function given as a variant, called as the subject calls its own."""
        subject = copy.copy(self.subject)
        if isinstance(subject, Pair):
            subject._forward = function
        else:
            assert isinstance(subject, TensorFunction)
            subject.fn = function
        return subject.forward

    # -------------------------------------------------------------------------------- structure

    @cached_property
    def support(self) -> Array:
        """Where the derivative is not 0 at some point (outputs x elements)."""
        return np.asarray(np.any([v.support for v in self.views], axis=0))

    def relation(self, b: int, a: int, support: Array | None = None) -> str:
        """How index ``o`` of output axis ``b`` meets index ``i`` of input axis ``a`` in the Jacobian.

        "diagonal": only o = i. "band": every o meets a part of the i, which moves with o. "full" otherwise.
        """
        pattern = self.project(b, a, support)
        n, m = pattern.shape
        if n == m and n > 1 and not np.any(pattern & ~np.eye(n, dtype=bool)):
            return "diagonal"
        if n < 2 or m < 2 or pattern.all():
            return "full"
        rows = [np.flatnonzero(r) for r in pattern if r.any()]
        if len(rows) < 2:
            return "full"
        first, last = np.array([r[0] for r in rows]), np.array([r[-1] for r in rows])
        moves = np.all(np.diff(first) >= 0) and np.all(np.diff(last) >= 0) and first[-1] > first[0] and last[-1] > last[0]
        centre = np.array([r.mean() for r in rows])  # with a dilation the windows begin now earlier, now later
        drifts = np.all(np.diff(centre) >= 0) and centre[-1] > centre[0] and max(map(len, rows)) < m
        moves = moves or (drifts and min(map(len, rows)) < max(map(len, rows)) and pattern.sum() < 0.6 * pattern.size)
        return "band" if moves else "full"

    def project(self, b: int, a: int, support: Array | None = None) -> Array:
        """Which indices of output axis ``b`` and input axis ``a`` meet (n_b x n_a)."""
        support = self.support if support is None else support
        grid = support.reshape(self.out_shape + self.shape)  # (output axes, input axes)
        rest = tuple(k for k in range(grid.ndim) if k not in (b, len(self.out_shape) + a))
        return np.asarray(grid.any(axis=rest))

    @cached_property
    def pairs(self) -> dict[str, list[tuple[int, int]]]:
        """Pairs (output axis, input axis) by their relation; each input axis in its closest pair only."""
        found: dict[str, list[tuple[int, int]]] = {"diagonal": [], "band": []}
        for a in range(len(self.shape)):
            for kind in ("diagonal", "band"):
                matches = [b for b in range(len(self.out_shape)) if self.relation(b, a) == kind]
                if matches:
                    found[kind].append((matches[-1] if a and len(matches) > 1 else matches[0], a))
                    break
        return found

    # -------------------------------------------------------------------------------- for pictures

    def error_over_output(self) -> list[Array]:
        """For every output, the largest error in its row of the Jacobian, relative to the largest derivative."""
        off = [np.abs(np.where(v.known, v.analytic - v.value, 0)) / v.scale for v in self.views]
        worst = np.max([error.max(axis=1) for error in off], axis=0)
        ends = np.cumsum([o.size for o in self.outputs])[:-1]
        parts = zip(np.split(worst, ends), self.outputs, strict=True)
        return [part.reshape(o.shape) for part, o in parts]  # each of its output's shape

    def small_jacobians(self, limit: int) -> tuple[Array, Array] | None:
        """Both Jacobians at the first point, if they have no more than ``limit`` rows and columns."""
        view = self.views[0]
        return (view.analytic, view.numeric) if max(view.numeric.shape) <= limit else None


def subsets(items: Any, most: int | None = None) -> Iterator[tuple[Any, ...]]:
    """All subsets but the empty one, small ones first."""
    items = list(items)
    for size in range(1, (most or len(items)) + 1):
        yield from itertools.combinations(items, size)


def exchanges(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of the axes that leave the shape as it is and move something, simple exchanges first."""
    orders = [p for p in itertools.permutations(range(len(shape))) if all(shape[a] == shape[k] for k, a in enumerate(p))]
    moving = [p for p in orders if any(a != k and shape[a] > 1 for k, a in enumerate(p))]
    yield from sorted(moving, key=lambda p: sum(a != k for k, a in enumerate(p)))


def moved_axes(order: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that an order moves."""
    return tuple(k for k, a in enumerate(order) if a != k)


def axes_in_words(axes: tuple[int, ...]) -> str:
    """``axis 1`` or ``axes 1, 2``."""
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
