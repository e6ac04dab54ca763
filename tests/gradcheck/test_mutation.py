"""The mutation test itself: the mutator makes the mistakes that it should, and a fixed few of them are all found."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gradcheck import mutation_run
from tests.gradcheck.equivalent_mutants import EQUIVALENT
from tests.gradcheck.mutation import mutants
from tests.gradcheck.mutation_targets import Target, targets

EVERY = 20  # one mutant in so many runs in this test; all of them run with python -m tests.gradcheck.mutation


def mean(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return np.mean(x, dim, keepdims=keepdim)


def sum(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return np.sum(x, dim, keepdims=keepdim)


def where(condition: Any, a: Any, b: Any) -> Any:
    return np.where(condition, a, b)


# ------------------------------------------------------------------------------------ the mutator


def product_rule(dy, input, other):
    """A docstring is not mutated: x * y."""
    return dy * other, -dy @ input.T


def mean_rule(dy, x, needs, dim=1):
    total = dy - mean(dy, dim, keepdim=True)
    total += x[1:, dim] / 2.5
    if needs.x and x.ndim > 2:
        total = where(x == 0, total, 0)
    return total if needs.dim else None


def loop_rule(dy, columns):
    out = np.zeros(3)
    for cell in columns:
        out[cell] += dy[cell]
    return np.einsum("ij,jk->ik", out, dy)


EXPECTED: list[tuple[Callable[..., Any], list[str]]] = [
    (product_rule, [
        "`dy * other` -> `dy / other`", "`dy * other` -> `dy`", "`dy * other` -> `other`", "`dy * other` -> `-(dy * other)`",
        "`dy * other` -> `dy * input`", "`-dy @ input.T` -> `dy @ input.T`", "`-dy @ input.T` -> `input.T @ -dy`",
        "`-dy @ input.T` -> `-dy @ input`", "`(dy * other, -dy @ input.T)` -> `(-dy @ input.T, dy * other)`",
        "`dy * other` -> `None`", "`-dy @ input.T` -> `None`",
    ]),
    (mean_rule, [
        "`mean(dy, dim, keepdim=True)` -> `sum(dy, dim, keepdim=True)`", "`mean(dy, dim, keepdim=True)` -> `dy`",
        "`mean(dy, dim, keepdim=True)` -> `mean(dy, dim)`", "`mean(dy, dim, keepdim=True)` -> `mean(dy, keepdim=True)`",
        "`mean(dy, dim, keepdim=True)` -> `mean(dy, dim, keepdim=False)`",
        "`dy - mean(dy, dim, keepdim=True)` -> `dy + mean(dy, dim, keepdim=True)`",
        "`dy - mean(dy, dim, keepdim=True)` -> `-mean(dy, dim, keepdim=True)`",
        "`total += x[1:, dim] / 2.5` -> `total = x[1:, dim] / 2.5`", "`total += x[1:, dim] / 2.5` -> `pass`",
        "`total += x[1:, dim] / 2.5` -> `total -= x[1:, dim] / 2.5`", "`x[1:, dim] / 2.5` -> `x[1:, dim] / 5.0`",
        "`x[1:, dim]` -> `x[2:, dim]`", "`x[1:, dim]` -> `x[0:, dim]`",
        "`needs.x and x.ndim > 2` -> `not (needs.x and x.ndim > 2)`", "`needs.x and x.ndim > 2` -> `x.ndim > 2`",
        "`x.ndim > 2` -> `x.ndim >= 2`", "`where(x == 0, total, 0)` -> `where(x == 0, 0, total)`",
        "`where(x == 0, total, 0)` -> `where(x != 0, total, 0)`", "`total = where(x == 0, total, 0)` -> `pass`",
        "`total if needs.dim else None` -> `None if needs.dim else total`",
    ]),
    (loop_rule, [
        "`out[cell] += dy[cell]` -> `out[cell] = dy[cell]`", "`for cell in columns` -> `for cell in list(columns)[1:]`",
        "`for cell in columns` -> `for cell in list(columns)[:-1]`", "`dy[cell]` -> `dy[cell + 1]`",
        "`np.einsum('ij,jk->ik', out, dy)` -> `np.einsum('ji,jk->ik', out, dy)`",
        "`np.einsum('ij,jk->ik', out, dy)` -> `np.einsum('ij,jk->ki', out, dy)`",
        "`np.einsum('ij,jk->ik', out, dy)` -> `np.einsum('ij,jk->ik', dy, out)`",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("function", "expected"), EXPECTED, ids=lambda v: getattr(v, "__name__", ""))
def test_the_mistakes_that_people_make_are_made(function: Any, expected: list[str]) -> None:
    found = [mutant.change for mutant in mutants(function)]
    assert len(set(found)) == len(found)
    missing = [e for e in expected if not any(_says(change, e) for change in found)]
    assert not missing, f"{missing} are not among\n" + "\n".join(found)


def _says(change: str, expected: str) -> bool:
    """A change may be shown inside of more of its line than expected."""
    (before, after), (old, new) = (text.strip("`").split("` -> `") for text in (change.partition(" (2")[0], expected))
    return (before, after) == (old, new) or (old in before and before.replace(old, new, 1) == after)


def test_a_mutant_knows_its_line_and_runs_with_closure_and_defaults() -> None:
    factor = 3.0

    def scaled(dy: Any, *, extra: float = 1.0) -> Any:
        return dy * factor + extra

    by_change = {mutant.change: mutant for mutant in mutants(scaled)}
    mutant = by_change["`dy * factor` -> `dy / factor`"]
    assert mutant.function(6.0) == 3.0 and scaled(6.0) == 19.0
    assert by_change["`dy * factor` -> `dy`"].function(6.0) == 7.0  # one name of the closure fewer
    assert mutant.line == f"test_mutation.py:{scaled.__code__.co_firstlineno + 1}"


def test_a_planted_mutant_is_gone_afterwards_even_after_an_error() -> None:
    mutant = next(m for m in mutants(product_rule) if m.change == "`dy * other` -> `dy`")
    x = np.ones((2, 2))
    with pytest.raises(ZeroDivisionError), mutant.planted():
        assert (product_rule(x, x, 5 * x)[0] == 1).all()
        raise ZeroDivisionError
    assert (product_rule(x, x, 5 * x)[0] == 5).all()


# ------------------------------------------------------------------------------------ our own rules


def test_every_rule_is_a_target_and_every_equivalent_mutant_exists() -> None:
    names = {target.name: target.kind for target in targets()}
    assert names["activation.softmax"] == names["normalization.batch_norm"] == "rule"
    assert names["arithmetic._to_winners"] == names["shaping.put()"] == "helper" and names["linear._as_matrix"] == "shared"
    assert "linear.matmul()" not in names and "shaping._pad_widths" not in names, "no rule calls these"
    assert mutation_run.stale() == []


def test_a_check_that_fails_by_itself_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ImportError("not there")

    monkeypatch.setattr(mutation_run, "examine", broken)
    monkeypatch.setattr(mutation_run, "_known", {})
    target = next(t for t in targets() if t.name == "activation.tanh")
    result = mutation_run.judge(target, mutants(target.function)[0])
    assert "gradcheck tanh" in result.broken and result.by.startswith("test_"), "another test finds it"


def _chosen() -> list[tuple[Target, Any]]:
    """Always the same few, whatever else is added: by a hash of their names."""
    return [
        (target, mutant)
        for target, mutant in mutation_run.everything()
        if zlib.crc32(f"{target.name} {mutant.change}".encode()) % EVERY == 0
        and target.kind != "shared"
        and mutant.change not in EQUIVALENT.get(target.name, {})
    ]


def test_the_chosen_mutants_are_found() -> None:
    results = [mutation_run.judge(target, mutant, thorough=False) for target, mutant in _chosen()]
    assert len(results) > 60
    assert not [f"{r.target} {r.mutant}" for r in results if not r.by], "no test notices these"
    named = [r for r in results if r.by == "gradcheck"]
    assert len([r for r in named if r.label not in mutation_run.GENERAL]) > 0.7 * len(named)
