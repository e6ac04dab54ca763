"""Mistakes of ops that select: an output depends on the winner along some axis, and only that one may get its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.diagnosis.case import Case
from minires.checking.report import Diagnosis

__all__ = ["several_winners", "wrong_routing"]

Array = np.ndarray[Any, Any]


def several_winners(case: Case) -> Diagnosis | None:
    """A maximum whose gradient goes to more than one element."""
    return _several_of_one(case) or _several_of_many(case) or _several_inputs(case)


def _several_of_one(case: Case) -> Diagnosis | None:
    for right, found in _lines(case):
        wrong = (right != found).any(axis=(0, 2))
        if _depends_on_values(right) and found.sum(axis=2).max() > 1 and wrong.any():
            most = int(found.sum(axis=2).max())
            return Diagnosis("several_winners", f"gives the gradient of one output to up to {most} elements, but only the "
                             "one that was selected may have it", {"most": most})  # fmt: skip
    return None


def _several_of_many(case: Case) -> Diagnosis | None:
    """A sum over the largest few: rows of equal entries, and more of them in the backward's."""
    if len(case.views) < 2 or all(np.array_equal(v.support, case.views[0].support) for v in case.views):
        return None
    for view in case.views:
        if (view.support.sum(axis=1) < 2).any():
            return None
        found = np.abs(view.analytic) > 1e-6 * view.scale
        weight = np.abs(np.where(view.support, view.value, 0)).max(axis=1, keepdims=True)
        even = np.all(~view.support | (np.abs(np.abs(view.value) - weight) <= view.tolerance * 4))
        same = np.all(~found | (np.abs(np.abs(view.analytic) - weight) <= view.tolerance * 4))
        if not (even and same) or (view.support & ~found).any() or np.array_equal(found, view.support):
            return None
    return Diagnosis("several_winners", "gives gradient to elements that were not selected, besides those that were")


def _several_inputs(case: Case) -> Diagnosis | None:
    """A maximum of several inputs: one that loses gets gradient too."""
    supports, extra = [], False  # extra: some loser gets gradient
    for view in case.views:
        others = [np.abs(j) > 1e-6 * view.scale for k, j in enumerate(view.others) if j is not None and k != case.k]
        if len(others) != len(case.subject.wanted) - 1 or not others:
            return None
        losing = np.any([o.any(axis=1) for o in others], axis=0)
        if ((sum(o.sum(axis=1) for o in others) + view.support.sum(axis=1)) != 1).any():
            return None
        found = np.abs(view.analytic) > 1e-6 * view.scale
        extra |= bool((found & ~view.support)[losing].any()) and not (view.support & ~found).any()
        supports.append(view.support)
    if not extra or all(np.array_equal(s, supports[0]) for s in supports):
        return None
    return Diagnosis("several_winners", "gets gradient from outputs that selected another input")


def wrong_routing(case: Case) -> Diagnosis | None:
    """A selection whose gradient goes to an element that was not selected."""
    for right, found in _lines(case):
        moved = (right & ~found).any() and (found & ~right).any()
        by_index = any(v.dtype.kind in "iub" for v in case.subject.values) and _is_selection(case)
        if found.sum(axis=2).max() <= 1 and moved and (_depends_on_values(right) or by_index):
            count = int((right != found).any(axis=(0, 2)).sum())
            return Diagnosis("wrong_routing", f"goes to the wrong element for {count} outputs: each takes one of several, "
                             "and another one gets its gradient")  # fmt: skip
    return None


def _is_selection(case: Case) -> bool:
    """Whether every output is one of the inputs, in the backward too."""
    return all((v.support.sum(axis=1) <= 1).all() and np.isin(np.round(np.abs(v.analytic) / v.scale, 6), (0, 1)).all()
               for v in case.views)  # fmt: skip


def _lines(case: Case) -> list[tuple[Array, Array]]:
    """Where outputs select one index: (right, found), each (points, lines, indices), by all elements and by every axis."""
    kinds = []
    axes = [None, *(a for a, n in enumerate(case.shape) if n > 1 and len(case.shape) > 1)]
    for a in axes:
        right = np.stack([_along(view.support, case.shape, a) for view in case.views])
        found = np.stack([_along(np.abs(v.analytic) > 1e-6 * v.scale, case.shape, a) for v in case.views])
        if right.sum(axis=2).max(initial=0) <= 1:
            kinds.append((right, found))
    return kinds


def _along(entries: Array, shape: tuple[int, ...], axis: int | None) -> Array:
    """Entries of a Jacobian (outputs, elements) as lines along an axis of the input, or along all of it (None)."""
    if axis is None:
        return entries
    grid = entries.reshape(len(entries), *shape)  # (outputs, input axes)
    return np.moveaxis(grid, axis + 1, -1).reshape(-1, shape[axis])  # (lines, indices)


def _depends_on_values(right: Array) -> bool:
    """Whether the index that is selected differs between points."""
    chosen, some = np.argmax(right, axis=2), np.asarray(right.any(axis=2))  # (points, lines)
    return bool(((chosen[1:] != chosen[0]) & some[1:] & some[0]).any())
