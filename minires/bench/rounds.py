"""The protocol: sides take turns, a turn is some steps in a row, and medians come with their spread.

Everything here is plain arithmetic on the times that the sides report, so it is tested with a clock of its own. What the
time allowed cuts off is written down beside the result.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Budget", "Plan", "Side", "Spread", "losses_agree", "take_turns"]

Clock = Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """How much is measured. A GPU's figures need 10 warm-up steps, 20 steps between two events and 10 rounds at least."""

    warm_up: int = 10
    steps: int = 20
    rounds: int = 10
    losses: int = 5  # steps whose losses are compared: two or three ordinary ones, then those of a graph
    least_rounds: int = 3  # are made even if the time is over


class Side(ABC):
    """One way to make training steps.

    Attributes:
        name: what a table calls it.
        note: what has to be known about it.
        bytes_held: memory that its allocator holds on the device, or None.
        kernels: kernels of one step, or None.
    """

    name = ""
    note = ""
    bytes_held: int | None = None
    kernels: int | None = None

    @abstractmethod
    def losses(self, count: int) -> list[float]:
        """Make so many steps, and return the loss of each."""

    @abstractmethod
    def time(self, steps: int) -> float:
        """Make so many steps without waiting in between; returns how many seconds they took together."""

    def finish_setup(self) -> None:  # noqa: B027  (most have nothing to do)
        """Called once after the first steps: find out ``bytes_held`` and ``kernels``."""


class Budget:
    """The time that is left for a number of parts."""

    def __init__(self, seconds: float, clock: Clock = time.perf_counter) -> None:
        self._clock, self.end = clock, clock() + seconds

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self.end - self._clock())

    def share(self, parts: int) -> Budget:
        """An equal part of what is left, for the next of so many parts."""
        return Budget(self.left / max(parts, 1), self._clock)


@dataclass(frozen=True)
class Spread:
    """Some times of the same thing, in seconds."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    fastest: float
    slowest: float

    @staticmethod
    def of(seconds: Sequence[float]) -> Spread:
        """The spread of at least one time."""
        low, median, high = (float(value) for value in np.percentile(np.asarray(seconds), [25, 50, 75]))
        return Spread(median, low, high, float(min(seconds)), float(max(seconds)))


@dataclass
class Turns:
    """What :func:`take_turns` found: seconds of a step for each round, by name, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    rounds: int = 0
    cut: str = ""

    def ratio(self, name: str, peer: str) -> float:
        """How many times as long ``name`` takes: the median of the ratios of each round."""
        pairs = np.asarray([self.seconds[name], self.seconds[peer]])  # (2, rounds)
        return float(np.median(pairs[0] / pairs[1]))

    def best(self, names: Sequence[str]) -> str | None:
        """The fastest of some sides."""
        present = [name for name in names if self.seconds.get(name)]
        return min(present, key=lambda name: Spread.of(self.seconds[name]).median, default=None)


def take_turns(sides: Sequence[Side], plan: Plan, budget: Budget) -> Turns:
    """Warm every side up, then time them round by round, until the plan is done or the time is over."""
    turns = Turns({side.name: [] for side in sides})
    for side in sides:
        if plan.warm_up:
            side.time(plan.warm_up)
    for number in range(plan.rounds):
        if number >= plan.least_rounds and not budget.left:
            turns.cut = f"{number} of {plan.rounds} rounds: the time was over"
            break
        order = sides if number % 2 == 0 else list(reversed(sides))  # so that nobody always comes after the same one
        for side in order:
            turns.seconds[side.name].append(side.time(plan.steps) / plan.steps)
        turns.rounds += 1
    return turns


def losses_agree(losses: dict[str, list[float]], tolerance: tuple[float, float]) -> str:
    """Empty if all sides had the same losses; else who had not. ``tolerance``: of the first, and of all."""
    names = list(losses)
    if not names:
        return ""
    first: Any = np.asarray(losses[names[0]])
    for name in names[1:]:
        apart: Any = np.abs(np.asarray(losses[name]) - first) / np.abs(first)
        for worst, allowed, when in ((apart[:1].max(), tolerance[0], "first loss"), (apart.max(), tolerance[1], "losses")):
            if not worst <= allowed:
                return f"{when} of {name} and of {names[0]} differ by {worst:.1e}, allowed are {allowed:.0e}"
    return "" if np.isfinite(first).all() else f"the losses of {names[0]} are not finite"
