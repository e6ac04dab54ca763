"""Mistakes in the gradient of batch, layer, instance and group normalisation.

Within a group of m elements y = (x − μ)/σ, times and plus something. The Jacobian's row of output o is

    k_o · (δ_oi − 1/m − x̂_o·x̂_i/m),

where the second term comes from the mean and the third from the variance. Whatever is forgotten or taken from other
statistics, the difference stays in the span of the vectors δ_o, 1 and x̂; its coefficients tell which mistake it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from minires.checking.diagnosis.case import Case, View, subsets
from minires.checking.report import Diagnosis

__all__ = ["is_normalization", "normalization", "other_statistics"]

Array = np.ndarray[Any, Any]
SMALLEST = 4  # elements of a group: three vectors span everything in less


def normalization(case: Case) -> Diagnosis | None:
    """The forgotten terms, by their coefficients."""
    return _itself(case) or _within_something(case)


def _itself(case: Case) -> Diagnosis | None:
    """For a normalisation by itself: every output belongs to one element."""
    if len(case.views[0].value) != case.views[0].value.shape[1]:
        return None
    kinds: set[str] = set()
    for view in case.views:
        groups = list(_groups(view, view.support, view.value))
        if not groups:
            return None
        for rows, columns in groups:
            found = _compare(case, view, rows, columns)
            if found is None:
                return None
            kinds |= found
    kinds.discard("right")
    if len(kinds) != 1 or kinds == {"bn_other_statistics"}:
        return None
    (kind,) = kinds
    return Diagnosis(kind, SENTENCES[kind])


def _has_its_shape(block: Array, scale: float) -> bool:
    """Whether a group's block is diagonal + a·1ᵀ + u·zᵀ for some vectors, as with any mean and variance.

    Then the differences between columns, off the diagonal, are in the same ratio in every row.
    """
    m = len(block)
    if m < 5:
        return False
    for i, j, k in itertools.islice(itertools.combinations(range(m), 3), 20):
        rows = [o for o in range(m) if o not in (i, j, k)]
        first, second = block[rows, i] - block[rows, j], block[rows, i] - block[rows, k]
        if np.abs(np.outer(first, second) - np.outer(second, first)).max() > 1e-7 * scale * scale:
            return False
    return True


def _within_something(case: Case) -> Diagnosis | None:
    """For a normalised input that something else is computed of, such as standardised weights.

    Its Jacobian's rows are at right angles to 1 and x̂ in every group; what is forgotten is a combination of the two.
    """
    for axes in subsets(range(len(case.shape))):
        answers = [_forgotten(case, view, axes) for view in case.views]
        if all(answers):
            kinds: set[str] = set().union(*(a for a in answers if a))
            kind = "bn_stats_constant" if len(kinds) > 1 else kinds.pop()
            return Diagnosis(kind, SENTENCES[kind], {"axes": axes})
    return None


def _forgotten(case: Case, view: View, axes: tuple[int, ...]) -> set[str] | None:
    """Which of the two terms are forgotten if the groups lie along ``axes``; None if what is missing is something else."""
    rest = tuple(a for a in range(len(case.shape)) if a not in axes)
    m = int(np.prod([case.shape[a] for a in axes]))
    if m < SMALLEST or not view.known.all():
        return None

    def grouped(rows: Array) -> Array:
        """(rows, elements) as (rows, groups, members of a group)."""
        grid = rows.reshape(len(rows), *case.shape)  # (rows, input axes)
        grid = grid.transpose(0, *(a + 1 for a in rest), *(a + 1 for a in axes))  # (rows, axes of groups, axes of members)
        return grid.reshape(len(rows), -1, m)  # (rows, groups, m)

    x = grouped(case.x(view)[None])  # (1, groups, m)
    x = x - x.mean(axis=2, keepdims=True)
    x = x / np.sqrt((x * x).mean(axis=2, keepdims=True))
    right, lost = grouped(view.value), grouped(view.analytic - view.value)
    length = np.sqrt((right**2).sum(axis=2)) * np.sqrt(m) + 1e-9 * view.scale
    if np.any(np.abs(right.sum(axis=2)) > 1e-6 * length) or np.any(np.abs((right * x).sum(axis=2)) > 0.05 * length):
        return None
    constant, along = lost.mean(axis=2), (lost * x).mean(axis=2)
    slack = grouped(view.tolerance).max(axis=2) * 4 + 1e-7 * view.scale
    if np.any(np.abs(lost - constant[..., None] - along[..., None] * x) > slack[..., None]):
        return None
    found = {"bn_missing_mean_term"} if np.any(np.abs(constant) > slack) else set()
    return found | ({"bn_missing_variance_term"} if np.any(np.abs(along) > slack) else set())


def is_normalization(case: Case) -> bool:
    """Whether the forward normalises its input, whatever the backward does."""
    if len(case.views[0].value) != case.views[0].value.shape[1]:
        return False
    for view in case.views:
        groups = list(_groups(view, view.support, view.value))
        if not groups or any(_compare(case, view, rows, columns, same=True) is None for rows, columns in groups):
            return False
    return True


def other_statistics(case: Case) -> Diagnosis | None:
    """What is left: the gradient of a normalisation over other groups, or with another mean or variance."""
    if not is_normalization(case):
        return None
    for view in case.views:
        groups = list(_groups(view, view.support, view.value))
        found = [_compare(case, view, rows, columns) for rows, columns in groups]
        support = np.abs(view.analytic) > 1e-9 * view.scale
        if None in found and not list(_groups(view, support, view.analytic, 2)):
            if not all(_has_its_shape(view.analytic[np.ix_(rows, columns)], view.scale) for rows, columns in groups):
                return None
    return Diagnosis("bn_other_statistics", SENTENCES["bn_other_statistics"])


SENTENCES = {
    "bn_stats_constant": "treats mean and variance as constants: they depend on the input too, and both of their terms are "
    "missing: dx = (dy − mean(dy) − x̂·mean(dy·x̂))/σ",
    "bn_missing_mean_term": "lacks the term that comes from the mean, − mean(dy)",
    "bn_missing_variance_term": "lacks the term that comes from the variance, − x̂·mean(dy·x̂)",
    "bn_other_statistics": "is that of a normalisation with other statistics than the forward's: another mean, variance, "
    "count or group",
}


def _groups(view: View, support: Array, jacobian: Array, least: int = SMALLEST) -> Iterator[tuple[Array, Array]]:
    """(rows, columns) of every group, if a Jacobian falls into groups whose rows sum to 0."""
    done = np.zeros(support.shape[1], bool)
    for o in range(len(support)):
        columns = np.flatnonzero(support[o])
        if len(columns) < least:
            return
        if done[columns].any():
            continue
        rows = np.flatnonzero(support[:, columns].any(axis=1))
        if len(rows) != len(columns) or np.abs(jacobian[rows].sum(axis=1)).max() > 1e-6 * view.scale * len(columns):
            return
        done[columns] = True
        yield rows, columns


def _compare(case: Case, view: View, rows: Array, columns: Array, same: bool = False) -> set[str] | None:
    """The kinds of mistake in one group; None if this is no normalisation, or not one of these mistakes."""
    m = len(columns)
    x = case.x(view)[columns]
    x = (x - x.mean()) / (x.std() or 1.0)
    position = {int(c): n for n, c in enumerate(columns)}
    kinds: set[str] = set()
    for o in rows:
        right, found = view.value[o, columns], view.analytic[o, columns]
        slack = view.tolerance[o, columns].max() * 4 + 1e-7 * view.scale
        delta = np.zeros(m)
        delta[position.get(int(o), 0)] = 1
        basis = np.stack([delta, np.ones(m), x], axis=1)
        parts = _coefficients(basis, right, slack)
        if parts is None or abs(parts[1] + parts[0] / m) > 1e-5 * abs(parts[0]) or abs(parts[0]) <= slack:
            return None  # not k·(δ − 1/m − …)
        if same or np.all(np.abs(found - right) <= slack):
            kinds.add("right")
            continue
        mine = _coefficients(basis, found, slack)
        if mine is None:
            return None
        kinds.add(_kind(parts, mine, slack))
    if same:
        return kinds
    outside = np.setdiff1d(np.arange(view.analytic.shape[1]), columns)
    if np.abs(view.analytic[np.ix_(rows, outside)]).max(initial=0) > 1e-6 * view.scale:
        return None
    return kinds


def _kind(right: Array, found: Array, slack: float) -> str:
    """The mistake that turns the coefficients of (δ, 1, x̂) into those found."""
    same = np.abs(found - right) <= 2 * slack
    gone = np.abs(found) <= 2 * slack
    if same[0] and gone[1] and gone[2]:
        return "bn_stats_constant"
    if same[0] and gone[1] and same[2]:
        return "bn_missing_mean_term"
    if same[0] and same[1] and gone[2]:
        return "bn_missing_variance_term"
    return "bn_other_statistics"


def _coefficients(basis: Array, row: Array, slack: float) -> Array | None:
    """The row as a combination of the basis, or None if it is none."""
    solution = np.linalg.lstsq(basis, row, rcond=None)[0]
    return solution if np.all(np.abs(basis @ solution - row) <= slack) else None
