"""Loss and right answers of an epoch, counted where the network lives, so that the host need not wait for each batch.

Reading one number from a GPU means waiting until all work before it is done. So every step adds its share to a few numbers
in device memory, and the host looks at them now and then: for the progress bar at a copy that is some steps old and
therefore complete, without waiting; at the end of an epoch at the numbers themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import kernels
from minires.device import cupy

__all__ = ["Count", "Tally"]

EVERY = 16  # steps between two looks of the progress bar


@dataclass(frozen=True)
class Count:
    """What was counted.

    Attributes:
        loss: the sum of the batches' losses, each times its number of images.
        right: right answers.
        images: images behind these two.
        steps: steps behind them.
        bad: the first loss that was no finite number; None if all were. Nothing is counted from that step on.
    """

    loss: float
    right: int
    images: int
    steps: int
    bad: float | None


class Tally:
    """The numbers of one epoch on a GPU. Make and use it within the stream of the training steps."""

    def __init__(self) -> None:
        xp = cupy()
        self._numbers = xp.zeros(6, np.float64)  # loss, right, images, steps, whether one was not finite, and which
        self._copy = xp.zeros(6, np.float64)
        self._reader = xp.cuda.Stream(non_blocking=True)
        self._copied: Any = None  # the event after the last copy
        self._calls = 0

    def start(self, loss: float, right: int) -> None:
        """Begin to count; ``loss`` and ``right`` are what an interrupted epoch had counted already."""
        self._numbers[...] = cupy().asarray(np.array([loss, right, 0, 0, 0, 0], np.float64))
        self._copied, self._calls = None, 0

    def add(self, logits: Any, loss: Any, labels: Any) -> None:
        """Count a batch, on the device: logits (N, C), the loss, labels (N,); all arrays."""
        kernels.of(logits).tally(self._numbers, logits, loss, labels)

    def peek(self, stream: Any) -> Count | None:
        """Call it after every step: once in a while it returns a count, which is some steps old."""
        self._calls += 1
        if self._calls % EVERY:
            return None
        found = None
        if self._copied is not None:
            self._reader.wait_event(self._copied)
            found = _count(self._copy.get(stream=self._reader))
        self._copy[...] = self._numbers
        self._copied = stream.record()
        return found

    def read(self) -> Count:
        """The count of all steps; waits for them."""
        return _count(self._numbers.get())


def _count(numbers: Any) -> Count:
    loss, right, images, steps, stopped, bad = (float(number) for number in numbers)
    return Count(loss, int(right), int(images), int(steps), bad if stopped else None)
