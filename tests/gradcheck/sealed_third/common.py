"""Draws shared by the modules of this exam."""

from __future__ import annotations

import numpy as np


def apart(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Distinct values in random order, so that no maximum is a tie."""
    n = int(np.prod(shape))
    values = np.linspace(-1.7, 1.9, n) + rng.uniform(-0.3, 0.3, n) * 3.6 / n
    return rng.permutation(values).reshape(shape)


def off_zero(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Both signs, no value near the kink at nought."""
    sign = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    sign.flat[0], sign.flat[-1] = 1.0, -1.0
    return sign * rng.uniform(0.15, 1.8, shape)


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values between a half and two."""
    return rng.uniform(0.5, 2.0, shape)
