"""What a check found: a verdict for every input, and for a wrong one where it is wrong and what kind of mistake it is.

A report is data. How it reads as text stands in ``text.py``, as a page in ``page.py``, as a picture in ``viz/gradients.py``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["HINTS", "VERDICTS", "Coverage", "Diagnosis", "InputReport", "Maps", "Report", "Worst"]

Array = np.ndarray[Any, Any]

VERDICTS = ("right", "wrong", "undecidable")

#: How much a report gives away, from least to most (for exercises).
HINTS = ("verdict", "where", "class", "full")


@dataclass(frozen=True)
class Diagnosis:
    """One explanation of a wrong gradient.

    Attributes:
        label: the kind of mistake, one word of a fixed vocabulary ("border_missing"); ``docs/gradcheck.md`` explains each.
        sentence: what happened, in words that one can act on.
        evidence: the numbers that it rests on, by name.
    """

    label: str
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Worst:
    """The element that is furthest off, measured in tolerances.

    Attributes:
        index: where it is in the input.
        analytic: what the backward pass gives there.
        numeric: what it should be.
        tolerance: how far apart the two may be, from the measured errors of both.
    """

    index: tuple[int, ...]
    analytic: float
    numeric: float
    tolerance: float


@dataclass(frozen=True)
class Maps:
    """Arrays for the pictures.

    Attributes:
        analytic: the backward pass's gradient, in the input's shape; None if it cannot be shown (wrong shape).
        numeric: what it should be.
        tolerance: how far apart the two may be.
        error_over_output: for every output, how wrong its row of the Jacobian is: the largest difference in the row divided
            by the largest derivative of all; None where no Jacobian was computed.
        jacobians: the analytic and the numeric Jacobian (outputs x inputs, both flattened) if they are small, else None.
    """

    analytic: Array | None
    numeric: Array
    tolerance: Array
    error_over_output: list[Array] | None = None
    jacobians: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class InputReport:
    """The comparison for one input.

    Attributes:
        name: the parameter's name in the function's signature.
        shape: of the input.
        verdict: "right", "wrong", or "undecidable" if no element could be decided.
        bad: number of elements whose gradient is wrong.
        size: number of elements.
        kinks: number of elements at a kink, where there is no derivative (the gradient lies between the one-sided slopes).
        unknown: number of elements where the reference is not finite or too noisy to decide.
        unchecked: number of elements that were only checked along random directions, for want of time.
        worst: the element that is furthest off; None for an input without elements, or whose gradient has no right shape.
        diagnosis: explanations of a wrong gradient, best first.
        maps: arrays for the pictures, if there are any.
    """

    name: str
    shape: tuple[int, ...]
    verdict: str
    bad: int
    size: int
    kinks: int = 0
    unknown: int = 0
    unchecked: int = 0
    worst: Worst | None = None
    diagnosis: tuple[Diagnosis, ...] = ()
    maps: Maps | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Coverage:
    """What a check looked at, so that "right" says right in what.

    Attributes:
        elements: number of elements compared one by one, over all inputs and points.
        of: number of elements that there were.
        directions: number of random directions, each through all elements of an input.
        points: number of points (the given one and random ones near it).
        upstreams: number of random upstream gradients at each point.
        dtype: of inputs and gradients.
    """

    elements: int
    of: int
    directions: int
    points: int
    upstreams: int
    dtype: str

    def __str__(self) -> str:
        parts = [f"{self.elements} of {self.of} elements"] if self.elements else []
        parts += [_count(self.directions, "random direction")] if self.directions else []
        where = f"at {_count(self.points, 'point')} with {_count(self.upstreams, 'random upstream gradient')} each"
        return f"{' and '.join(parts) or 'nothing'} {where}, in {self.dtype}"


@dataclass(frozen=True)
class Report:
    """What a check found. ``bool(report)`` is True if every gradient is right; ``print(report)`` says the rest.

    Attributes:
        function: name of what was checked.
        reference: how the derivatives were computed: "complex step" or "Richardson differences".
        order: 1 for the gradient, 2 for the gradient of the gradient.
        seed: of everything random in the check.
        coverage: what was looked at.
        inputs: one report for each input.
        hints: how much the text gives away: "verdict", "where", "class" or "full".
        seconds: how long it took.
        reproduce: a line of code that repeats the check, if there is one.
        notes: remarks that are no faults here.
    """

    function: str
    reference: str
    order: int
    seed: int
    coverage: Coverage
    inputs: list[InputReport]
    hints: str = "full"
    seconds: float = 0.0
    reproduce: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every gradient is right."""
        return self.verdict == "right"

    @property
    def verdict(self) -> str:
        """The words "right", "wrong" or, if nothing is wrong but something could not be decided, "undecidable"."""
        verdicts = {i.verdict for i in self.inputs}
        return "wrong" if "wrong" in verdicts else "undecidable" if "undecidable" in verdicts else "right"

    @property
    def labels(self) -> dict[str, str]:
        """The best label of every wrong input, by name: ``{"x": "border_missing"}``."""
        return {i.name: i.diagnosis[0].label for i in self.inputs if i.verdict == "wrong" and i.diagnosis}

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        from minires.checking.text import as_text

        return as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from minires.checking.page import as_html

        return as_html(self)

    def to_json(self) -> str:
        """Everything but the arrays, as JSON."""
        from minires.checking.text import as_json

        return as_json(self)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Pictures of where it is wrong: over the input, over the output, and the Jacobians if they are small.

        Args:
            path: where to save the figure, or None.

        Returns:
            The figure (a :class:`~minires.viz.figure.Picture`).
        """
        from minires import viz

        return viz.gradients(self, path)

    def raise_if_wrong(self) -> None:
        """Raise AssertionError, with the report as its text, unless every gradient is right."""
        if not self.ok:
            raise AssertionError(str(self))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
