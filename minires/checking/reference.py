"""The numeric Jacobian of a subject at one point, one column for every element of an input.

Decides between the two references of ``numeric.py``: the complex step must give the same values as the real function, and
slopes that differences confirm, for every output and along every input. That also finds a function that is complex-safe in
part only, such as one with ``np.abs`` in a corner.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np

from minires.checking.numeric import STEP, Line, Slopes, at_steps, first_step, measured_noise, richardson
from minires.checking.subject import Subject, Values

__all__ = ["Reference", "flat", "nudged"]

Array = np.ndarray[Any, Any]
REFERENCES = ("auto", "complex", "richardson")
EPS = np.finfo(np.float64).eps


def flat(outputs: list[Array]) -> Array:
    """All outputs in one row of numbers."""
    return outputs[0].reshape(-1) if len(outputs) == 1 else np.concatenate([o.reshape(-1) for o in outputs])  # (N,)


def nudged(values: Values, wanted: list[int], eps: float, rng: np.random.Generator) -> Values:
    """The floating point inputs with their last digits changed. Equal numbers stay equal, so that ties stay ties."""
    every = np.concatenate([values[i].reshape(-1) for i in wanted])  # (elements of all inputs,)
    _, place = np.unique(every, return_inverse=True)
    factors = (1 + eps * rng.uniform(-1, 1, len(every)))[place]
    ends = np.cumsum([values[i].size for i in wanted])[:-1]
    moved = list(values)
    for i, factor in zip(wanted, np.split(factors, ends), strict=True):
        moved[i] = values[i] * factor.reshape(values[i].shape)  # the input's shape
    return moved


class Reference:
    """Numeric derivatives at a point.

    Attributes:
        values: the point, floating point inputs in float64.
        outputs: the forward's result there.
        is_complex: whether the complex step is used.
        noise: rounding noise of every output.
        jitter: how much the derivative of every output along a direction of length 1 varies when the inputs change by a few
            units in the last place: the error of the complex step.
        kinky: outputs that have a kink at this point.
    """

    def __init__(self, subject: Subject, values: Values, rng: np.random.Generator, prefer: str = "auto") -> None:
        if prefer not in REFERENCES:
            raise ValueError(f"gradcheck: reference must be one of {', '.join(map(repr, REFERENCES))}, got {prefer!r}")
        self.subject, self.values = subject, values
        self.outputs = self._evaluate(values)
        self.row = flat(self.outputs).astype(np.float64)
        if not np.allclose(self.row, flat(self._evaluate(values)), rtol=1e-9, atol=0, equal_nan=True):
            raise ValueError(
                f"gradcheck: {subject.name} gives two results for the same input; a forward must be deterministic"
            )
        self.finite = np.isfinite(self.row)
        directions = {i: self._direction(i, rng) for i in subject.wanted}
        rounding = EPS / 4 * np.where(self.finite, np.abs(self.row), 0)
        self.noise = np.maximum(measured_noise(self._line(directions), 3e-6), rounding)
        self.jitter = np.zeros(len(self.row))
        self.kinky = np.zeros(len(self.row), bool)
        with np.errstate(all="ignore"):
            self.is_complex = prefer != "richardson" and self._complex_works(directions, rng)
        if prefer == "complex" and not self.is_complex:
            raise ValueError(f"gradcheck: {subject.name} does not carry complex numbers through; use reference='auto'")

    def column(self, i: int, index: tuple[int, ...]) -> Slopes:
        """The derivatives of all outputs with respect to one element of input ``i``."""
        if not np.isfinite(self.values[i][index]):  # an infinity, as masks have them: nothing can be said
            nothing = np.zeros(len(self.row))
            return Slopes(nothing, nothing + np.inf, nothing, nothing)
        if not self.is_complex:
            return self._differences(i, index)
        moved = list(self._complex_values)
        moved[i] = moved[i].copy()
        moved[i][index] += 1j * STEP
        value = np.imag(self._flat(moved)) / STEP
        slopes = Slopes(value, self.jitter + 8 * EPS * np.abs(value), value, value)
        if self.kinky.any():
            sides = self._differences(i, index)
            slopes.low, slopes.high = (np.where(sides.kink, s, value) for s in (sides.low, sides.high))
            slopes.error = np.where(sides.kink, sides.error, slopes.error)
        return slopes

    def along(self, directions: dict[int, Array]) -> Slopes:
        """The derivatives of all outputs along a direction: input number → array of the input's shape."""
        if self.is_complex and not self.kinky.any():
            value = self._complex_along(directions)
            length = np.sqrt(sum(float((u**2).sum()) for u in directions.values()))
            return Slopes(value, self.jitter * length + 8 * EPS * np.abs(value), value, value)
        return self.differences_along(directions)

    def again(self, i: int, index: tuple[int, ...]) -> Slopes:
        """A column once more, by differences with other steps."""
        return self._differences(i, index, 0.37)

    def at_other_steps(self, i: int, index: tuple[int, ...]) -> list[Slopes]:
        """A column with several fixed steps, far apart; they follow from the element's own size too."""
        own = abs(float(self.values[i][index]))
        first, other = (self._first_step(size) for size in (max(own, self._rms(i)), own or self._rms(i)))
        return at_steps(self._column_line(i, index), self.noise, {first, first / 30, first / 1000, other, other / 30})

    def differences_along(self, directions: dict[int, Array]) -> Slopes:
        """:meth:`along` by differences alone, which see kinks."""
        return richardson(self._line(directions), self.noise, self._first_step(1.0))

    # -------------------------------------------------------------------------------- evaluation

    def _direction(self, i: int, rng: np.random.Generator) -> Array:
        """Every finite element moves by about its own size, none by next to nothing."""
        shape = self.values[i].shape
        moves = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape) * self._sizes(i)
        return np.where(np.isfinite(self.values[i]), moves, 0)

    def _evaluate(self, values: Values, strict: bool = False) -> list[Array]:
        """The outputs; ``strict`` where an imaginary part that is dropped would be a derivative that is lost."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            if strict:
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
            return self.subject.forward([v.copy() for v in values])

    def _flat(self, values: Values) -> Array:
        """The outputs near the point, in one row; NaN where the forward refuses (a probability above 1)."""
        try:
            return flat(self._evaluate(values))
        except Exception:
            return np.full(len(self.row), np.nan)

    def _line(self, directions: dict[int, Array]) -> Line:
        def line(step: float) -> tuple[Array, float]:
            moved = [v + step * directions[i] if i in directions else v for i, v in enumerate(self.values)]
            return self._flat(moved).astype(np.float64), step

        return line

    def _differences(self, i: int, index: tuple[int, ...], shorter: float = 1.0) -> Slopes:
        start = self._first_step(max(abs(float(self.values[i][index])), self._rms(i)))
        return richardson(self._column_line(i, index), self.noise, shorter * start)

    def _column_line(self, i: int, index: tuple[int, ...]) -> Line:
        """The outputs where one element of an input moves."""
        start = self.values[i][index]

        def line(step: float) -> tuple[Array, float]:
            moved = list(self.values)
            moved[i] = self.values[i].copy()
            moved[i][index] = start + step
            return self._flat(moved).astype(np.float64), float(moved[i][index] - start)

        return line

    def _first_step(self, size: float) -> float:
        return first_step(self.noise, self.row, size)

    def _sizes(self, i: int) -> Array:
        """The natural size of a step for every element of an input: its own size, or that of the others."""
        v = self.values[i]
        return np.maximum(np.where(np.isfinite(v), np.abs(v), 0), self._rms(i) or 1.0)

    def _rms(self, i: int) -> float:
        finite = self.values[i][np.isfinite(self.values[i])]
        return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0

    # -------------------------------------------------------------------------------- the complex step

    @cached_property
    def _complex_values(self) -> Values:
        """All inputs as complex numbers, for a forward that uses gradients: those of real inputs would have to be real."""
        return [v.astype(np.complex128) if i in self.subject.wanted else v for i, v in enumerate(self.values)]

    def _complex_along(self, directions: dict[int, Array], values: Values | None = None) -> Array:
        moved = list(self._complex_values if values is None else values)
        for i, u in directions.items():
            moved[i] = moved[i] + 1j * STEP * u
        return np.asarray(np.imag(self._flat(moved)) / STEP)

    def _complex_works(self, directions: dict[int, Array], rng: np.random.Generator) -> bool:
        """Whether the complex step can be used; measures its error, and finds kinks, on the way."""
        checked = np.zeros(len(self.row), bool)
        for i, u in directions.items():
            try:
                moved = [v + 1j * STEP * u if k == i else v for k, v in enumerate(self._complex_values)]
                stepped = flat(self._evaluate(moved, strict=True))
            except Exception:
                return False
            if stepped.shape != self.row.shape:
                return False
            if not np.allclose(stepped.real, self.row, rtol=1e-12, atol=1e3 * self.noise.max(initial=0), equal_nan=True):
                return False
            value = np.imag(stepped) / STEP
            checks = richardson(self._line({i: u}), self.noise, self._first_step(1.0))
            usable = np.isfinite(checks.error) & ~checks.kink & self.finite
            scale = np.abs(value[usable]).max(initial=0)
            if not np.all(np.abs(value - checks.value)[usable] <= 10 * checks.error[usable] + 1e-8 * scale):
                return False
            self.kinky |= checks.kink
            checked |= usable
            length = float(np.sqrt((u**2).sum()))
            for _ in range(2):
                nearby = [v.astype(np.complex128) if k in directions else v
                          for k, v in enumerate(nudged(self.values, self.subject.wanted, 4 * EPS, rng))]  # fmt: skip
                spread = np.abs(self._complex_along({i: u}, nearby) - value) / (length or 1.0)
                self.jitter = np.fmax(self.jitter, spread)
        return bool(checked.any() or not checked.size)
