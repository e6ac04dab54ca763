"""Single ops beside other frameworks', forward and backward timed apart, in turns.

Before an op is timed its output and all its gradients are compared with ours: one that computes something else is an error
and not a time. A turn begins with a run that does not count, which brings caches and threads into the state in which a
framework leaves them for itself. Short ops are repeated within a turn; one that takes seconds gets fewer turns than the
others, and its ratio is then taken over those turns that it took part in.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minires.bench import peers
from minires.bench.cases import Case
from minires.bench.peers.base import Array, Lacking, Peer, Work
from minires.bench.rounds import Budget, Spread

__all__ = ["Found", "load", "measure"]

#: How far an output or a gradient may be from ours, relative to the largest number in it.
TOLERANCE = 1e-3

_ROUNDS, _LEAST = 10, 2  # turns of each framework, and how many it gets even if the time is over
_TURN, _MOST = 0.02, 50  # seconds that a turn should take at least, and how many runs it is made of at most
_UPDATES = 4  # steps of an optimiser before weights are compared
_SLOW = 0.5  # seconds of a run above which a turn has no other before it

Clock = Callable[[], float]
Found = dict[str, Any]


def load(names: Sequence[str], paths: Mapping[str, Path]) -> tuple[list[Peer], dict[str, str]]:
    """The frameworks that can be imported, ours first; and why the others cannot, by name."""
    found, missing = [], {}
    for name in ("minires", *(name for name in peers.NAMES if name in names and name != "minires")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old code on a new Python
                found.append(peers.load(name, paths))
        except Exception as error:  # not installed, or made for another Python, NumPy or machine
            missing[name] = _line(error)
    return found, missing


def measure(case: Case, sides: Sequence[Peer], budget: Budget, clock: Clock = time.perf_counter) -> Found:
    """One op in all frameworks that have it.

    Args:
        case: the op.
        sides: frameworks, ours first.
        budget: the time for this op.
        clock: seconds.
    """
    found: Found = {"name": case.name, "title": case.title, "rows": []}
    runs: list[_Run] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old code on a new NumPy
        expected: list[Array] = []
        for side in sides:
            run = _Run(side, clock)
            try:
                results = run.prepare(case)
                expected = expected or results
                if wrong := _disagreement(results, expected):
                    raise ArithmeticError(wrong)
                runs.append(run)
            except Lacking as lacking:
                found["rows"].append({"name": side.name, "note": str(lacking), "lacking": True})
            except Exception as error:  # the others can still be compared, unless it is ours that they are compared with
                found["rows"].append({"name": side.name, "error": _line(error)})
                if side is sides[0]:
                    break
        _take_turns(runs, budget)
    found["rows"] = [run.row(runs[0]) for run in runs] + found["rows"]
    return found


@dataclass
class _Run:
    """An op in one framework, and its times: of each turn, in seconds of one run."""

    side: Peer
    clock: Clock
    spent: float = 0.0
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    work: Any = None
    repeats: int = 1
    slow: bool = False

    def prepare(self, case: Case) -> list[Array]:
        """Run it for its results (an update some times: it goes on from the one before), and to see how long it takes."""
        work: Work = self.side.work(case)
        self.work = work
        for _ in range(_UPDATES if case.is_update else 1):
            seconds = sum(self._pass())
        results = [np.array(each) for each in work.results()]
        self.slow = seconds > _SLOW
        if not self.slow:  # the first time much is allocated
            seconds = sum(self._pass())
        self.repeats = min(_MOST, max(1, round(_TURN / max(seconds, 1e-9))))
        work.reset()
        return results

    def _pass(self) -> tuple[float, float]:
        """Seconds of a forward pass and of a backward pass."""
        work: Work = self.work
        work.reset()
        begin = self.clock()
        work.forward()
        middle = self.clock()
        if work.has_backward:
            work.backward()
        return middle - begin, self.clock() - middle

    def turn(self) -> None:
        """Take a turn."""
        begin = self.clock()
        if not self.slow:
            self._pass()
        times = np.array([self._pass() for _ in range(self.repeats)]).mean(0)
        self.forward.append(float(times[0]))
        self.backward.append(float(times[1]))
        self.work.reset()  # so that the next one finds the memory
        self.spent += self.clock() - begin

    def row(self, ours: _Run) -> Found:
        """For the table and the JSON file."""
        parts = {"forward": self.forward} | ({"backward": self.backward} if self.work.has_backward else {})
        found: Found = {"name": self.side.name, "note": self.side.note, "rounds": len(self.forward)}
        return found | {part: _part(times, getattr(ours, part)) for part, times in parts.items()}


def _take_turns(runs: Sequence[_Run], budget: Budget) -> None:
    """Round by round, back and forth. Whoever has used up its part of the time misses the rest; we miss none."""
    each = budget.left / max(len(runs), 1)
    for number in range(_ROUNDS):
        if number >= _LEAST and not budget.left:
            break
        for run in runs if number % 2 == 0 else list(reversed(runs)):
            if run is runs[0] or number < (1 if run.slow else _LEAST) or run.spent < each:
                run.turn()


def _part(times: Sequence[float], ours: Sequence[float]) -> Found:
    spread = Spread.of(times)
    ratios = np.asarray(ours[: len(times)]) / np.asarray(times[: len(ours)])  # of each turn that both took part in
    return {
        "median": spread.median, "quartiles": [spread.low, spread.high], "seconds": list(times),
        "ratio": None if ours is times else float(np.median(ratios)),
    }  # fmt: skip


def _disagreement(results: Sequence[Array], expected: Sequence[Array]) -> str:
    """Which of the results differ; empty if none."""
    names = ["output", *(f"gradient {i}" for i in range(1, len(expected)))]
    for name, one, other in zip(names, results, expected, strict=True):
        if one.shape != other.shape:
            return f"{name} has shape {one.shape}, ours {other.shape}"
        apart = float(np.abs(one - other).max() / np.abs(other).max())
        if not apart <= TOLERANCE:
            return f"{name} differs by {apart:.1e} of its largest number, allowed is {TOLERANCE:.0e}"
    return ""


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
