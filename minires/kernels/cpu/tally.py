"""Counting loss and right answers in array operations, without waiting for them; see :mod:`minires.training.tally`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.device import array_module

__all__ = ["tally"]


def tally(numbers: Any, logits: Any, loss: Any, labels: Any) -> None:
    """Add a batch to ``numbers``, in place, unless a loss before it was no finite number.

    Args:
        numbers: (6,) float64: Σ loss·N, right answers, images, steps, whether a loss was not finite (0 or 1), and that loss.
        logits: (N, C, ...), whose largest number along the classes is the answer (the first one, if there are several).
        loss: the batch's loss, one element.
        labels: (N, ...) the right answers.
    """
    xp = array_module(numbers)
    count = logits.shape[0]
    value = loss.reshape(()).astype(np.float64)
    right = (logits.argmax(axis=1) == labels).sum().astype(np.float64)
    going, finite = numbers[4] == 0, xp.isfinite(value)
    one = xp.ones((), np.float64)
    share = xp.stack([value * count, right, one * count, one])
    numbers[:4] = xp.where(going & finite, numbers[:4] + share, numbers[:4])
    stops = going & ~finite
    numbers[5] = xp.where(stops, value, numbers[5])
    numbers[4] = xp.where(stops, one, numbers[4])
