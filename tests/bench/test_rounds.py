"""The protocol of a comparison, with sides and a clock of its own."""

from __future__ import annotations

import pytest

from minires.bench import report
from minires.bench.rounds import Budget, Plan, Side, Spread, losses_agree, take_turns


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scripted(Side):
    """Takes so many seconds a step, times those of ``factors`` in turn, and notes when it was asked."""

    def __init__(self, name: str, seconds: float, clock: Clock, diary: list[tuple[str, int]], factors=(1.0,)) -> None:
        self.name, self._seconds, self._clock, self._diary, self._factors = name, seconds, clock, diary, list(factors)

    def losses(self, count):
        return [1.0] * count

    def time(self, steps):
        self._diary.append((self.name, steps))
        factor = self._factors[sum(name == self.name for name, _ in self._diary) % len(self._factors)]
        self._clock.now += steps * self._seconds * factor
        return steps * self._seconds * factor


def scripted(*seconds: float) -> tuple[list[Side], Clock, list[tuple[str, int]]]:
    clock, diary = Clock(), []
    return [Scripted(f"side {i}", each, clock, diary) for i, each in enumerate(seconds)], clock, diary


def test_a_gpu_is_measured_as_long_as_it_has_to_be():
    plan = Plan()
    assert plan.warm_up >= 10
    assert plan.steps >= 20
    assert plan.rounds >= 10


def test_all_warm_up_before_anything_counts_and_then_they_take_turns():
    sides, clock, diary = scripted(1.0, 2.0)
    turns = take_turns(sides, Plan(warm_up=7, steps=3, rounds=2), Budget(1e9, clock))
    assert diary == [("side 0", 7), ("side 1", 7), ("side 0", 3), ("side 1", 3), ("side 1", 3), ("side 0", 3)]
    assert turns.seconds == {"side 0": [1.0, 1.0], "side 1": [2.0, 2.0]}
    assert turns.rounds == 2
    assert turns.cut == ""


def test_time_that_is_over_cuts_rounds_and_says_so():
    sides, clock, _ = scripted(1.0)
    turns = take_turns(sides, Plan(warm_up=0, steps=10, rounds=10, least_rounds=3), Budget(55, clock))
    assert turns.rounds == 6  # the last one began in time
    assert turns.cut == "6 of 10 rounds: the time was over"


def test_some_rounds_are_made_even_without_any_time():
    sides, clock, _ = scripted(1.0)
    assert take_turns(sides, Plan(rounds=10, least_rounds=3), Budget(0, clock)).rounds == 3


def test_the_ratio_is_that_of_each_round_so_that_what_disturbs_both_falls_out():
    clock, diary = Clock(), []
    disturbed = (1.0, 8.0, 1.0, 2.0)
    sides = [Scripted("ours", 1.0, clock, diary, disturbed), Scripted("theirs", 2.0, clock, diary, disturbed)]
    turns = take_turns(sides, Plan(warm_up=0, steps=1, rounds=8), Budget(1e9, clock))
    assert turns.ratio("ours", "theirs") == 0.5
    assert turns.best(["theirs", "ours"]) == "ours"
    assert turns.best(["not there"]) is None


def test_the_budget_is_shared_among_what_is_left():
    clock = Clock()
    budget = Budget(100, clock)
    assert budget.share(4).left == 25
    clock.now = 60
    assert budget.share(2).left == 20
    clock.now = 200
    assert budget.left == 0


def test_spread():
    spread = Spread.of([4.0, 1.0, 2.0, 3.0, 10.0])
    assert (spread.low, spread.median, spread.high, spread.fastest, spread.slowest) == (2.0, 3.0, 4.0, 1.0, 10.0)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ({}, ""),
        ({"a": [1.0, 2.0], "b": [1.0005, 2.01]}, ""),
        ({"a": [1.0, 2.0], "b": [1.002, 2.0]}, "first loss of b and of a differ by 2.0e-03, allowed are 1e-03"),
        ({"a": [1.0, 2.0], "b": [1.0, 2.1]}, "losses of b and of a differ by 5.0e-02, allowed are 1e-02"),
        ({"a": [1.0, 2.0], "b": [1.0, float("nan")]}, "losses of b and of a differ by nan, allowed are 1e-02"),
        ({"a": [float("inf")]}, "the losses of a are not finite"),
    ],
)
def test_nothing_is_timed_before_the_losses_agree(losses, verdict):
    assert losses_agree(losses, (1e-3, 1e-2)) == verdict


def test_a_table_says_what_is_missing():
    row = {"name": "minires", "note": "", "median": 0.002, "quartiles": [0.0019, 0.0021], "ratio": None}
    row |= {"kernels": 900, "bytes_held": 2**30}
    other = row | {"name": "torch, NCHW", "ratio": 0.5, "kernels": None, "bytes_held": None}
    found = {"title": "a network", "precision": "tf32", "batch_size": 128, "error": "", "verdict": "minires takes half"}
    found |= {"cut": "6 of 10 rounds: the time was over"}
    found["rows"] = [row, other, {"name": "torch.compile", "note": "no compiler"}]
    text = report.group(found)
    assert "2.00" in text
    assert "1.90 to 2.10" in text
    assert "64,000" in text
    assert "torch.compile" in text
    assert "not measured: no compiler" in text
    assert "6 of 10 rounds" in text
    assert "scatter" not in text
    assert "scatter widely: torch, NCHW" in report.group(found | {"rows": [row, other | {"quartiles": [0.001, 0.003]}]})
    assert report.group(found | {"error": "the losses differ"}).endswith("not measured: the losses differ")
