"""The stand-in keeps the rules of CuPy, and CuPy itself keeps them where there is one: so the stand-in cannot drift."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.cuda import standin
from tests.cuda.rules import RULES, Rule

every = pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name.replace(" ", "-"))


@every
def test_rule(rule: Rule, cuda: ModuleType) -> None:
    if rule.kind == "works":
        actual = rule.run(cuda)
        if not isinstance(actual, np.ndarray):
            assert type(actual) is cuda.ndarray, f"expected a CuPy array, got {type(actual).__name__}"
            actual = actual.get()
        assert (actual.dtype, actual.shape) == (rule.expected.dtype, rule.expected.shape)
        np.testing.assert_array_equal(actual, rule.expected)
    elif rule.kind == "raises" or hasattr(cuda, "__standin__"):
        with pytest.raises(rule.expected):
            rule.run(cuda)
    else:
        pytest.skip("CuPy allows it; only the stand-in is so strict")


def test_names_are_unique() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)


# ------------------------------------------------------------------------------------ waiting, and capturing

WAITS = {
    "get": lambda x: x.get(), "item": lambda x: x.sum().item(), "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()), "bool": lambda x: bool(x.sum()), "tolist": lambda x: x.tolist(),
    "str": lambda x: str(x), "repr": lambda x: repr(x), "format": lambda x: f"{x.sum():.2f}",
    "mask": lambda x: x[x > 1], "if": lambda x: 1 if x.sum() > 1 else 0,
    "max of Python": lambda x: max(x.sum(), x.max()),
}  # fmt: skip


@pytest.mark.parametrize("name", WAITS)
def test_every_wait_is_counted_and_can_be_forbidden(name: str, standin: ModuleType) -> None:
    from tests.cuda.standin import SyncError, no_syncs, total_syncs

    x = standin.asarray(np.arange(3, dtype=np.float32))
    assert total_syncs() == 0
    WAITS[name](x)
    assert total_syncs() == 1
    with no_syncs(), pytest.raises(SyncError):
        WAITS[name](x)


REFUSED: dict[str, Any] = {
    "upload": lambda xp, x: xp.asarray(np.zeros(3)), "number": lambda xp, x: xp.asarray(3.0),
    "list": lambda xp, x: x[[0, 1]],
    "get": lambda xp, x: x.get(), "float": lambda xp, x: float(x.sum()), "matmul": lambda xp, x: x @ x,
    "einsum": lambda xp, x: xp.einsum("i,i->", x, x), "argsort": lambda xp, x: xp.argsort(x),
    "synchronize": lambda xp, x: xp.cuda.get_current_stream().synchronize(),
    "set": lambda xp, x: x.set(np.zeros(3, np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_capture_refuses_what_cannot_be_in_a_graph(name: str, standin: ModuleType) -> None:
    from tests.cuda.standin import CaptureError, capturing

    x = standin.ones(3, np.float32)
    with capturing(), pytest.raises(CaptureError):
        REFUSED[name](standin, x)


def test_a_graph_does_its_work_again(standin: ModuleType) -> None:
    x, total = standin.ones((2, 3), np.float32), standin.zeros((), np.float32)
    stream = standin.cuda.Stream(non_blocking=True)
    standin.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        y = (x * 2).T[0] + standin.arange(2)
        y[1:] += 10
        total += y.sum()
        graph = stream.end_capture()
    stream.synchronize()
    x[...] = standin.full((2, 3), 5, np.float32)
    total.fill(0)
    graph.launch()
    assert y.tolist() == [10, 21] and total.item() == 31
    graph.launch()
    assert total.item() == 62


def test_a_stream_waits_for_the_stream_before(standin: ModuleType) -> None:
    from tests.cuda.standin.order import RaceError

    cuda, x = standin.cuda, standin.ones(3, np.float32)
    one, other = cuda.Stream(non_blocking=True), cuda.Stream(non_blocking=True)
    with one, pytest.raises(RaceError):
        x + x
    one.wait_event(cuda.get_current_stream().record())
    with one:
        x += x
    with pytest.raises(RaceError):
        x.get(stream=other)
    event = one.record()
    with one:
        x += x
    other.wait_event(event)
    with other, pytest.raises(RaceError):
        x[...] = 0
    event.record(one)
    event.synchronize()
    with other:
        x[...] = 0
    assert x.get(stream=other).tolist() == [0, 0, 0]
    x += 1


def test_what_minires_does_not_use_is_not_there(standin: ModuleType) -> None:
    for name in ("random", "linalg", "fft", "percentile", "errstate", "unique"):
        with pytest.raises(AttributeError):
            getattr(standin, name)


def test_outside_of_the_fixture_there_is_no_stand_in() -> None:
    import sys

    assert getattr(sys.modules.get("cupy"), "__standin__", False) is False
    with standin.installed() as module:
        assert sys.modules["cupy"] is module
    assert getattr(sys.modules.get("cupy"), "__standin__", False) is False
