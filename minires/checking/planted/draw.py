"""Random inputs for the planted mistakes: each function makes what ``Planted.inputs`` wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["followed_by", "normal", "positive"]

Draw = Callable[[np.random.Generator], tuple[Any, ...]]


def normal(*shapes: tuple[int, ...]) -> Draw:
    """Independent standard normal arrays of these shapes."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def positive(*shapes: tuple[int, ...]) -> Draw:
    """Arrays of these shapes with numbers between 0.5 and 2."""
    return lambda rng: tuple(rng.uniform(0.5, 2.0, shape) for shape in shapes)


def followed_by(draw: Draw, indices: Any) -> Draw:
    """The arrays of ``draw``, then a fixed array of integers: labels, or rows of a table."""
    return lambda rng: (*draw(rng), np.array(indices))
