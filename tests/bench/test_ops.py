"""Single ops beside others: our own adapter, peers that are faked, and those that are installed (slow)."""

from __future__ import annotations

import numpy as np
import pytest

from minires.bench import cases, cpu_parts, ops, peers, tables
from minires.bench.cases import Case
from minires.bench.peers.base import Lacking, Work
from minires.bench.peers.ours import Ours
from minires.bench.rounds import Budget

POOL = Case("pool", "max pooling", "max_pool2d", ((2, 3, 9, 8),), {"size": 3, "stride": 2})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scripted(Work):
    """Takes so many seconds forward, and twice as many back."""

    def __init__(self, clock: Clock, seconds: float, result: float) -> None:
        self._clock, self._seconds, self._result = clock, seconds, result

    def reset(self) -> None:
        pass

    def forward(self) -> None:
        self._clock.now += self._seconds

    def backward(self) -> None:
        self._clock.now += 2 * self._seconds

    def results(self) -> list[np.ndarray]:
        return [np.full(3, self._result)]


class Fake:
    note = ""

    def __init__(self, name: str, clock: Clock, seconds: float, result: float = 1.0) -> None:
        self.name, self._made = name, Scripted(clock, seconds, result)

    def work(self, case: Case) -> Work:
        return self._made


class Without(Fake):
    def work(self, case: Case) -> Work:
        raise Lacking("it has no such op")


def test_passes_are_timed_apart_and_compared():
    clock = Clock()
    sides = [Fake("minires", clock, 0.001), Fake("twice", clock, 0.002)]
    sides += [Fake("wrong", clock, 1.0, 1.01), Without("none", clock, 1)]
    found = ops.measure(POOL, sides, Budget(1e6, clock), clock)
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["minires"]["forward"]["median"] == pytest.approx(0.001)
    assert rows["minires"]["forward"]["ratio"] is None
    assert rows["twice"]["backward"]["median"] == pytest.approx(0.004)
    assert rows["twice"]["backward"]["ratio"] == pytest.approx(0.5)
    assert rows["twice"]["rounds"] == 10
    assert rows["wrong"]["error"] == "output differs by 1.0e-02 of its largest number, allowed is 1e-03"
    assert "forward" not in rows["none"]
    names = [side.name for side in sides]
    lines = tables.op(found, names).splitlines()
    assert lines[0].split()[-3:] == ["0.50", "error", "-"]
    assert "wrong: not timed: output differs" in lines[2]
    assert len(tables.op_head(names)) == len(lines[0])


def test_who_takes_seconds_misses_rounds():
    clock = Clock()
    sides = [Fake("minires", clock, 0.01), Fake("slow", clock, 2.0)]
    rows = {row["name"]: row for row in ops.measure(POOL, sides, Budget(30, clock), clock)["rows"]}
    assert rows["minires"]["rounds"] == 10
    assert rows["slow"]["rounds"] == 2  # of 6 seconds each, in half of the 24 that are left after it was compared
    assert rows["slow"]["forward"]["ratio"] == pytest.approx(0.005)


def test_without_ours_nobody_is_timed():
    clock = Clock()
    broken = Fake("minires", clock, 1.0)
    broken.work = lambda case: 1 / 0
    found = ops.measure(POOL, [broken, Fake("other", clock, 1.0)], Budget(1e6, clock), clock)
    assert found["rows"] == [{"name": "minires", "error": "division by zero"}]
    assert "division by zero" in tables.op(found, ["minires", "other"])


def test_different_shapes_are_an_error():
    assert "shape (2,), ours (3,)" in ops._disagreement([np.ones(2)], [np.ones(3)])
    assert ops._disagreement([np.full(3, np.nan)], [np.ones(3)])


def test_an_error_is_the_exit_code():
    found = {"steps": [], "ops": {"cases": [{"rows": [{"name": "a", "error": "it differs"}]}]}}
    assert cpu_parts.has_failed(found)
    assert not cpu_parts.has_failed({"steps": [{"error": ""}]})


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(peers._CLASSES, "dezero", ("nothing_of_that_name", "DeZero"))
    sides, missing = ops.load(["dezero"], {})
    assert [side.name for side in sides] == ["minires"]
    assert missing == {"dezero": "No module named 'minires.bench.peers.nothing_of_that_name'"}


@pytest.mark.parametrize("case", cases.cases(2), ids=lambda case: case.name)
def test_our_adapter_runs_every_case(case):
    work = Ours().work(case)
    work.forward()
    work.backward()
    results = work.results()
    assert len(results) == len(case.shapes) + (not case.is_update)
    assert all(np.isfinite(each).all() and np.abs(each).max() > 0 for each in results)
    if work.has_backward:
        assert [each.shape for each in results[1:]] == list(case.shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", peers.NAMES[1:])
def test_peers_that_are_installed_agree(name):
    try:
        sides, missing = ops.load([name], {})
    except ImportError:
        sides, missing = [], {name: ""}
    if missing:
        pytest.skip(f"{name}: {missing[name]}")
    for case in cases.cases(2):
        found = ops.measure(case, sides, Budget(0))
        assert [row for row in found["rows"] if row.get("error")] == []
