"""What one planted mistake is: an operation, its right gradient, and a gradient as a student might get it wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Planted"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Planted:
    """A pair of plain NumPy functions with one planted mistake in the backward one.

    Attributes:
        name: the operation and the mistake, for people: "conv2d: the crop after padding is off by one".
        forward: ``forward(inputs, **options)`` returns an array or a tuple of arrays; ``inputs`` is a tuple of arrays.
        right: ``right(inputs, grad_output, **options)`` returns one gradient per input, in a tuple.
        wrong: the same with the mistake.
        inputs: ``inputs(rng)`` makes the tuple of arrays, in float64.
        labels: the name of each input whose gradient is wrong, with the labels that a teacher would give: the best one
            first, then others that are equally true. Where ``twice`` is set, all of them are true at the same time.
        options: keyword options that both functions are called with.
        twice: one gradient has two mistakes.
    """

    name: str
    forward: Callable[..., Any]
    right: Callable[..., Any]
    wrong: Callable[..., Any]
    inputs: Callable[[np.random.Generator], tuple[Array, ...]]
    labels: Mapping[str, tuple[str, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    twice: bool = False

    @property
    def operation(self) -> str:
        """The part of the name before the colon."""
        return self.name.partition(":")[0]
