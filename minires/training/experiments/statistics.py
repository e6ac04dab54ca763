"""When a claim counts as confirmed: one rule, stated once, and computed from the numbers alone.

A claim is that some combination of variants' means, such as (error of A) - (error of B), is above 0. Each mean has a
standard error over seeds, and the errors of independent means add in squares. The rule: the combination has to be more than
:data:`STRICTNESS` of its standard errors away from 0, above for "confirmed", below for "not confirmed"; anything else is
"undecided at this scale". With three seeds for each of two variants a claim of which nothing is true passes in one of 17
cases (Student's t with 4 degrees of freedom), so three seeds are a hint and not a proof.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "CONFIRMED", "NOT_CONFIRMED", "RULE", "STRICTNESS", "UNDECIDED", "Contrast", "Estimate", "Finding", "combine",
    "estimate", "verdict",
]  # fmt: skip

STRICTNESS = 2.0  # standard errors
CONFIRMED, NOT_CONFIRMED, UNDECIDED = "confirmed", "not confirmed", "undecided at this scale"
RULE = (
    f"confirmed if each difference is more than {STRICTNESS:g} of its standard errors above 0, not confirmed if one is more "
    f"than {STRICTNESS:g} below 0, else undecided; the standard error of a mean is s/√seeds, those of a difference add in "
    "squares, and one seed has none"
)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: the mean.
        error: its standard error; None if it is not known, because there was one seed.
        count: how many seeds.
    """

    mean: float
    error: float | None
    count: int

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.mean * factor, None if self.error is None else self.error * abs(factor), self.count)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error s/√n of independent values, s² being their variance with n - 1 below.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("estimate: there is no value")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count), count)


@dataclass(frozen=True)
class Contrast:
    """A claim as a number that is above 0 if it is true: ``constant`` plus a weighted sum of variants' means.

    Attributes:
        text: the claim in words.
        metric: what is compared, a name among the numbers of a trial.
        weights: name of a variant → its weight; for "A has a lower error than B" {B: 1, A: -1}.
        constant: a known number without an error, such as the level of chance.
    """

    text: str
    metric: str
    weights: Mapping[str, float] = field(default_factory=dict)
    constant: float = 0.0


@dataclass(frozen=True)
class Finding:
    """What came out for a contrast: the number, and what follows from it."""

    contrast: Contrast
    value: Estimate
    verdict: str


def combine(weights: Sequence[float], estimates: Sequence[Estimate], constant: float = 0.0) -> Estimate:
    """``constant`` + Σ w·mean, with √Σ (w·error)² as its standard error (None if one of the errors is)."""
    pairs = list(zip(weights, estimates, strict=True))
    mean = constant + math.fsum(weight * each.mean for weight, each in pairs)
    errors = [each.error for each in estimates]
    known = [error for error in errors if error is not None]
    count = min((each.count for each in estimates), default=0)
    if len(known) < len(errors) or not errors:
        return Estimate(mean, None, count)
    return Estimate(mean, math.sqrt(math.fsum((w * e) ** 2 for w, e in zip(weights, known, strict=True))), count)


def verdict(values: Sequence[Estimate]) -> str:
    """What follows for a claim from all its differences; see the rule above.

    With all differences turned round, "confirmed" and "not confirmed" change places for a single difference.
    """
    if any(_clearly_above(each.scaled(-1)) for each in values):
        return NOT_CONFIRMED
    return CONFIRMED if values and all(map(_clearly_above, values)) else UNDECIDED


def _clearly_above(value: Estimate) -> bool:
    return value.error is not None and value.mean > STRICTNESS * value.error
