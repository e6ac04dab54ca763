"""Is a gradient of very many elements right? A look along a few directions, chosen so that every element is seen.

Along a direction u the gradient g promises the slope ⟨g, u⟩, and one evaluation of the function with complex numbers tells
the true slope to rounding. If u were random numbers of one size, the sum of a million terms would hide an element whose own
gradient is small. So each element gets a share of its own size: with u = ±r/|g| (r random in [½, 3/2]) every term of the sum
is ±r, and an element that is off by a millionth of itself moves the sum by a millionth, whether its gradient is 1 or 1e-9.

What limits this is rounding. An element whose gradient g comes with the error n (measured: gradients are computed again
after the arguments moved by a few ulps) brings n/|g| into the sum. Elements are therefore *sorted by that quotient* into a
few directions, such that none of them is noisier than its elements can bear. What is left, the elements whose gradient is
hardly more than rounding, among them the zeros, is looked at with u = ±r/n, where all that is not rounding stands out.

The tolerance of a comparison is ten times its own measured error: how far apart the results at two points are that lie a
few ulps apart, and what the errors of all elements add up to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minires.checking.report import Array

__all__ = ["Comparison", "Difference", "Direction", "moved", "size_of"]

#: How each tensor moves; None: not at all.
Direction = list[Array | None]

#: A direction is given only so many elements that they add up to this error, where every element's share is about 1.
NOISE = 2e-8

SENSITIVITY = 1e-6  # an element that is off by this part of itself is to be seen
DIRECTIONS = 3  # at most, besides the one for what is left over
MARGIN = 10.0  # between the measured error and the tolerance
ULPS = 64.0  # of the natural scale that are always allowed
JITTER = 1e-8  # how far away further points are, in parts of each value
SURE = 100.0  # so many times its change among those points a difference must be to count as an error


@dataclass(frozen=True)
class Difference:
    """``value`` = ⟨gradient, direction⟩ - slope, and how large it may be."""

    value: float
    tolerance: float

    @property
    def is_wrong(self) -> bool:
        """Whether the two disagree; a NaN does."""
        return not abs(self.value) <= self.tolerance


class Comparison:
    """A gradient and the slopes of its function, at one point.

    Args:
        gradient: one array of derivatives for each of the values but the constants.
        slope: ``slope(values, direction)``, the derivative along a direction and an estimate of its error.
        values: the point, float64 arrays; behind those that are checked may come constants, on which rounding depends too.
        rng: draws the directions.
        ulp: spacing of the numbers in which the gradient is computed: 2⁻⁵² in float64.
        smooth: False where slopes come from differences: then directions are gentle, of the size of the values.
        known: the gradient at the point, if it has been computed already.

    Attributes:
        points: the given one, one a few ulps beside it, and, once :meth:`confirmed` was called, two that are further off.
        gradients: there.
        sizes: of each tensor, the root mean square of its values.
        noise: of each tensor, the root mean square of its gradient's error.
        least: what that error is at least.
    """

    def __init__(
        self,
        gradient: Callable[[list[Array]], list[Array]],
        slope: Callable[[list[Array], Direction], tuple[float, float]],
        values: list[Array],
        rng: np.random.Generator,
        ulp: float = 2.0**-52,
        smooth: bool = True,
        known: list[Array] | None = None,
    ) -> None:
        self.slope, self.rng, self.ulp, self.smooth = slope, rng, ulp, smooth
        self._gradient = gradient
        self.points = [values, _jittered(values, rng, ulp)]
        self.gradients = [known or gradient(values), gradient(self.points[1])]
        self.sizes = [size_of(v) for v in values[: len(self.gradients[0])]]
        whole = self.ulp * self._weight()
        self.least = [whole / (size * max(v.size, 1) ** 0.5) for v, size in zip(values, self.sizes, strict=False)]
        self.noise = [self._noise_of(k) for k in range(len(self.sizes))]
        self.excess = 1.0  # how much larger than predicted the errors turned out to be
        self.used = 0  # directions
        self.visible = 0  # elements that would have been seen, had they been off by a millionth

    def _noise_of(self, k: int) -> float:
        """Measured; at least an ulp of the tensor's own gradient, and of the whole one (for moves by each tensor's size).

        For where a network saturates, as in 1 - σ(x), a gradient may be nothing but the rounding of something larger.
        """
        first = self.gradients[0][k]
        return float(max(_rms(self.gradients[1][k] - first), 0.5 * self.ulp * _rms(first), self.least[k]))

    # -------------------------------------------------------------------------------- directions

    def directions(self) -> Iterator[Direction]:
        """Directions that share all elements between them, those with the clearest gradients first."""
        if not self.smooth:
            yield [self._random(v.shape) * s for v, s in zip(self.points[0], self.sizes, strict=False)]
            return
        upper = np.inf
        for lower in [*self._borders(), 0.0]:
            direction = [self._between(k, lower, upper) for k in range(len(self.noise))]
            upper = lower
            if any(u is not None for u in direction):
                yield direction
        silent = [self._silent(k) for k in range(len(self.noise))]
        if any(u is not None for u in silent):
            yield silent

    def _quotient(self, k: int) -> Array:
        """|gradient| / noise of every element of a tensor."""
        return np.abs(self.gradients[0][k]) / (self.noise[k] or 1.0)

    def _borders(self) -> list[float]:
        """Quotients that separate the directions: powers of 2, each as low as :data:`NOISE` allows."""
        squares = np.zeros(2048)  # of the elements' noise, by the exponent of their quotient
        for k in range(len(self.noise)):
            quotient = self._quotient(k).ravel()
            quotient = quotient[quotient >= 1]  # the others are nothing but rounding
            exponents = np.clip(np.frexp(quotient)[1] + 1024, 0, 2047)
            squares += np.bincount(exponents, quotient**-2.0, 2048)
        borders: list[float] = []
        total = 0.0
        for exponent in range(2047, -1, -1):
            if not squares[exponent]:
                continue
            total += squares[exponent]
            if total > NOISE**2:
                borders.append(2.0 ** (exponent - 1024))
                total = squares[exponent]
            if len(borders) == DIRECTIONS or total > NOISE**2:
                return borders
        return borders if total == 0 else [*borders, 1.0]

    def _between(self, k: int, lower: float, upper: float) -> Array | None:
        """The part of a direction in tensor ``k``: the elements whose quotient is at least ``lower``, below ``upper``."""
        if self.noise[k] == 0:
            return None
        gradient, quotient = self.gradients[0][k], self._quotient(k)
        chosen = (quotient >= lower) & (quotient < upper)
        if not chosen.any():
            return None
        if lower > 0:
            scale = 1 / np.where(chosen, np.abs(gradient), 1)
        else:
            scale = np.full(gradient.shape, 1 / self.noise[k])
        return np.where(chosen, self._random(gradient.shape) * scale, 0)

    def _silent(self, k: int) -> Array | None:
        """Where the whole gradient is 0, every tensor moves by its own size."""
        values = self.points[0][k]
        return self._random(values.shape) * self.sizes[k] if self.noise[k] == 0 and values.size else None

    def _random(self, shape: tuple[int, ...]) -> Array:
        """±r with r in [½, 3/2]: no two elements' shares cancel but by chance."""
        numbers = self.rng.uniform(-1, 1, shape)
        return numbers + np.copysign(0.5, numbers)

    def within(self, k: int) -> Direction:
        """A new direction that moves tensor ``k`` alone."""
        direction: Direction = [None] * len(self.noise)
        if self.noise[k] == 0 or not self.smooth:
            direction[k] = self._random(self.points[0][k].shape) * self.sizes[k]
        else:
            # Elements below a hundredth of the typical gradient count as that: or else they would drown all others in noise.
            gradient = np.abs(self.gradients[0][k])
            direction[k] = self._random(gradient.shape) / np.maximum(gradient, max(0.01 * _rms(gradient), self.noise[k]))
        return direction

    # -------------------------------------------------------------------------------- comparing

    def along(self, direction: Direction, points: int = 1) -> Difference:
        """Compare along a direction; at one point the error is predicted, at two it is measured as well."""
        differences, errors = zip(*(self._at(i, direction) for i in range(points)), strict=True)
        predicted = self._predicted(direction)
        if points > 1:
            spread = float(np.ptp(differences))
            if predicted > 0:
                self.excess = max(self.excess, min(spread / predicted, 100.0))
            predicted = max(predicted, spread)
        else:
            predicted *= self.excess
        value = float(np.median(differences))
        return Difference(value, MARGIN * (predicted + max(errors)) + self._floor(direction))

    def confirmed(self, direction: Direction) -> Difference:
        """Compare along a direction, with an error that includes what moving by a few ulps does not show.

        An example is 1 - σ(x) for a large x, whose rounding error is the same for the next x. So this looks a hair's breadth
        away as well. What is off by about as much there, but not in the same way, is off by rounding.
        """
        while len(self.points) < 4:
            self.points.append([v * (1 + JITTER * self.rng.uniform(-1, 1, v.shape)) for v in self.points[0]])
            self.gradients.append(self._gradient(self.points[-1]))
        here = self.along(direction)
        change = max(abs(self._at(i, direction)[0] - here.value) for i in (2, 3))
        return Difference(here.value, here.tolerance + SURE * change)

    def _at(self, i: int, direction: Direction) -> tuple[float, float]:
        """⟨gradient, direction⟩ - slope at point number ``i``, and the error of the slope."""
        slope, error = self.slope(self.points[i], direction)
        return _product(self.gradients[i], direction) - slope, error

    def _predicted(self, direction: Direction) -> float:
        """The error of ⟨gradient, direction⟩: as if those of the elements were independent, and as they really add up."""
        total = squares = 0.0
        for k, u in enumerate(direction):
            if u is not None:
                shift = (self.gradients[1][k] - self.gradients[0][k]) * u
                total += float(shift.sum())
                squares += max(float(np.vdot(shift, shift)), self.least[k] ** 2 * float(np.vdot(u, u)))
        return float(max(abs(total), squares**0.5))

    def _floor(self, direction: Direction) -> float:
        """A few ulps of what the elements share."""
        squares = 0.0
        for k, u in enumerate(direction):
            if u is not None:
                share = (self.gradients[0][k] * u).ravel()
                squares += float(np.vdot(share, share))
        return float(ULPS * self.ulp * squares**0.5)

    def _weight(self) -> float:
        """The natural scale of a slope where every value moves by its own size."""
        pairs = zip(self.gradients[0], self.sizes, strict=True)
        return float(sum(float(np.vdot(g, g)) * size**2 for g, size in pairs) ** 0.5)

    def count_visible(self, direction: Direction, tolerance: float) -> int:
        """How many elements would have been seen along ``direction``, had they alone been off by a millionth."""
        shares = (np.abs(g * u) for g, u in zip(self.gradients[0], direction, strict=True) if u is not None)
        return sum(int(np.count_nonzero(SENSITIVITY * share > tolerance)) for share in shares)

    def relative_noise(self) -> float:
        """Error of the whole gradient in parts of it."""
        noise = sum(n * n * g.size for n, g in zip(self.noise, self.gradients[0], strict=True)) ** 0.5
        size = sum(float(np.vdot(g, g)) for g in self.gradients[0]) ** 0.5
        return float(noise / size) if size else 0.0


def moved(values: list[Array], rng: np.random.Generator, distance: float) -> list[Array]:
    """A random point nearby: every tensor moves by ``distance`` of its own size."""
    return [v + distance * size_of(v) * rng.standard_normal(v.shape) for v in values]


def _jittered(values: list[Array], rng: np.random.Generator, ulp: float) -> list[Array]:
    """Every value off by up to four ulps."""
    return [v * (1 + ulp * rng.integers(-4, 5, v.shape, dtype=np.int8)) for v in values]


def _product(gradient: list[Array], direction: Direction) -> float:
    return sum(float(np.vdot(g, u)) for g, u in zip(gradient, direction, strict=True) if u is not None)


def _rms(array: Array) -> float:
    return float(np.sqrt(np.vdot(array, array) / max(array.size, 1)))


def size_of(values: Array) -> float:
    """The root mean square of the values; 1 where all are 0."""
    return _rms(values) or 1.0
