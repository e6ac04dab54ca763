"""Derivatives by evaluation alone: what a backward rule is compared with.

Two references, best first. The **complex step**, Im f(x + iεu)/ε with ε = 1e-100, needs no subtraction and no choice of a
step, and is exact to rounding, but the function has to accept complex numbers (all ops of minires do). Where it does not,
**Richardson extrapolation** of central differences at h, h/2 and h/4 takes its place. Its step follows from the measured
noise of the function, it shrinks where the function turns out to be curved or to have a kink nearby, and it says for every
output how far it can be trusted.

At a kink (ReLU at 0) there is no derivative. The slopes to the left and to the right are reported instead, and every number
between them is a legitimate gradient. Looking at central differences alone will not do: at the bottom of |x| they agree
with each other perfectly, on a slope of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["STEP", "Slopes", "at_steps", "first_step", "measured_noise", "richardson"]

Array = np.ndarray[Any, Any]

#: s → (f(x + s·u) for all outputs, flattened; the step that was really made, after rounding)
Line = Callable[[float], tuple[Array, float]]

STEP = 1e-100  # of the complex step
KINK = 0.35  # the gap between the one-sided slopes shrinks by 4 when h does, on a smooth function; at a kink it stays
TARGET = 1e-10  # relative error at which there is no need to look for a better step
ATTEMPTS = 15  # steps down to h/8^14, some 1e-13 of the first


@dataclass
class Slopes:
    """The derivatives of all outputs along one direction.

    Attributes:
        value: the derivatives.
        error: how far off they may be.
        low: the smaller one-sided slope at a kink; ``value`` elsewhere.
        high: the larger one.
    """

    value: Array
    error: Array
    low: Array
    high: Array

    @property
    def kink(self) -> Array:
        """Where there is no derivative."""
        return self.high > self.low


def measured_noise(line: Line, spacing: float) -> Array:
    """The rounding noise of every output: what third differences over 16 close points leave of a smooth function.

    The median of them is taken, so that a kink among the points does not pass for noise. Taken at three spacings: from afar
    curvature looks like noise, and near by the steps of a function that is float32 inside may all be equal, by chance or
    because there are none. So the second smallest counts.
    """
    swing = np.abs(line(0.1)[0] - line(-0.1)[0])
    levels = []
    largest = np.zeros(len(swing))
    for factor in (1.0, 1e-2, 1e-4):
        values = np.stack([line(k * spacing * factor)[0] for k in range(-8, 8)])
        largest = np.fmax(largest, np.abs(values).max(axis=0))
        third = np.abs(np.diff(values, n=3, axis=0))
        found = np.median(third, axis=0) / (0.6745 * np.sqrt(20))  # a third difference of unit noise has a variance of 20
        steps = np.abs(np.diff(values, axis=0))
        jump = np.where(steps > 0, steps, np.inf).min(axis=0)
        is_quantum = (steps == 0).any(axis=0) & (jump < 1e-5 * swing)  # a larger jump is a step of the function itself
        found = np.where(is_quantum, np.maximum(found, jump), found)
        says_nothing = (steps == 0).all(axis=0) & (swing > 0)
        levels.append(np.where(says_nothing | ~np.isfinite(found), np.inf, found))
    ordered = np.sort(levels, axis=0)
    noise = np.where(np.isfinite(ordered[1]), ordered[1], ordered[0])
    floor = np.finfo(np.float64).eps / 4 * largest
    return np.asarray(np.maximum(np.where(np.isfinite(noise), noise, 0), np.where(np.isfinite(floor), floor, 0)))


def first_step(noise: Array, outputs: Array, size: float) -> float:
    """The step at which Richardson's error (h⁶) and the noise (1/h) balance, for numbers of ``size``."""
    finite = outputs[np.isfinite(outputs)]
    magnitude = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    relative = float(np.median(noise)) / magnitude if magnitude else 0.0
    return float(2 * np.clip(relative, 1e-17, 1e-4) ** (1 / 7) * (size or 1.0))


def richardson(line: Line, noise: Array, start: float) -> Slopes:
    """The derivative at 0 of all outputs along a line, by differences.

    Args:
        line: the function along the line.
        noise: of every output.
        start: the first step; see :func:`first_step`.
    """
    middle = line(0.0)
    result = _Best(len(middle[0]), noise)
    h = start
    for attempt in range(ATTEMPTS):
        result.take(_Attempt(line, middle, noise, h))
        if result.is_good() or (attempt > 1 and not result.can_gain(h / 8)):
            break
        h /= 8
    if result.is_noisy():  # a larger step has less of it
        for h in (8 * start, 64 * start):
            result.take(_Attempt(line, middle, noise, h), larger=True)
    return result.slopes()


def at_steps(line: Line, noise: Array, steps: set[float]) -> list[Slopes]:
    """The derivatives at 0 once for each of several steps; where they are smooth and finite, they ought to agree."""
    middle = line(0.0)
    attempts = [_Attempt(line, middle, noise, h) for h in sorted(steps)]
    return [Slopes(a.value, np.where(a.finite & ~a.kink, a.error, np.inf), a.value, a.value) for a in attempts]


class _Attempt:
    """Differences at h, h/2 and h/4, and what follows from them."""

    def __init__(self, line: Line, middle: tuple[Array, float], noise: Array, h: float) -> None:
        self.h = h
        f, x = middle
        central, ahead, behind, gap = [], [], [], []
        for step in (h, h / 2, h / 4):
            (f_ahead, x_ahead), (f_behind, x_behind) = line(step), line(-step)
            with np.errstate(all="ignore"):
                central.append((f_ahead - f_behind) / (x_ahead - x_behind))
                ahead.append((f_ahead - f) / (x_ahead - x))
                behind.append((f - f_behind) / (x - x_behind))
            gap.append(np.abs(ahead[-1] - behind[-1]))
        with np.errstate(all="ignore"):
            first, second = (4 * central[1] - central[0]) / 3, (4 * central[2] - central[1]) / 3  # errors of order h⁴
            self.value = (16 * second - first) / 15  # of order h⁶
            self.error = np.abs(second - first) + 4 * noise / h
            self.kink = (gap[2] > KINK * gap[0]) & (gap[2] > 64 * noise / h)
            slopes = [2 * side[2] - side[1] for side in (ahead, behind)]
            rough = [2 * side[1] - side[0] for side in (ahead, behind)]
            self.low, self.high = np.minimum(*slopes), np.maximum(*slopes)
            self.gap = gap[2]
            self.side_error = np.abs(slopes[0] - rough[0]) + np.abs(slopes[1] - rough[1]) + 16 * noise / h
        self.finite = np.isfinite(self.value) & np.isfinite(self.error)


class _Best:
    """The most trustworthy of several attempts, for every output by itself."""

    def __init__(self, count: int, noise: Array) -> None:
        self.noise = noise
        self.value, self.error = np.full(count, np.nan), np.full(count, np.inf)
        self.low, self.high = np.full(count, np.nan), np.full(count, np.nan)
        self.side_error = np.full(count, np.inf)
        self.kink = np.zeros(count, bool)

    def take(self, attempt: _Attempt, larger: bool = False) -> None:
        """Keep of an attempt what is better than all before; of one with a larger step what the others do not contradict."""
        smooth = attempt.finite & ~attempt.kink
        better = smooth & (attempt.error < self.error)
        if not larger:
            sharp = attempt.finite & attempt.kink & (attempt.gap / 2 > 4 * attempt.side_error)
            at_last = sharp & (attempt.side_error <= self.side_error)
            for name in ("low", "high", "side_error"):
                getattr(self, name)[at_last] = getattr(attempt, name)[at_last]
            # A kink that a smaller step still shows is one; a value that a smaller step reaches smoothly is none.
            self.kink[sharp & (attempt.gap / 2 > self.error)] = True
            self.kink[sharp & ~np.isfinite(self.error)] = True
            self.kink[better & (attempt.error < 0.05 * (self.high - self.low))] = False
        else:
            better &= ~self.kink & (np.abs(attempt.value - self.value) <= 10 * (attempt.error + self.error))
        self.value[better], self.error[better] = attempt.value[better], attempt.error[better]

    def _scale(self) -> Array:
        known = np.where(np.isfinite(self.value), np.abs(self.value), 0)
        return known + (known.max() if known.size else 0)

    def is_good(self) -> bool:
        """Whether every output is known so well that no other step is needed."""
        return bool(np.all(self.error <= TARGET * self._scale() + 1e-300) and not self.kink.any())

    def can_gain(self, h: float) -> bool:
        """Whether a step of ``h`` can still do better, its noise being what it is."""
        smooth = (4 * self.noise / h < self.error) & ~(self.error <= TARGET * self._scale())
        sharp = self.kink & (16 * self.noise / h < 0.05 * (self.high - self.low))
        return bool(np.any(smooth) or np.any(sharp))

    def is_noisy(self) -> bool:
        """Whether noise is what spoils some output."""
        return bool(np.any(~self.kink & np.isfinite(self.error) & (self.error > 1e-7 * self._scale()) & (self.noise > 0)))

    def slopes(self) -> Slopes:
        """What was found, with the side slopes where there is a kink."""
        value = np.where(self.kink, (self.low + self.high) / 2, self.value)
        error = np.where(self.kink, self.side_error, self.error)
        return Slopes(value, error, np.where(self.kink, self.low, value), np.where(self.kink, self.high, value))
