"""Where along a direction is the gradient wrong? By halving: first among the tensors, then among the elements of one.

A difference ⟨gradient, u⟩ - slope is linear in u. So one evaluation for one half of what u moves tells about the other half
as well, and among n tensors a single wrong one is found with log₂(n) evaluations.

Often two do: give each of the n a weight of its own, 1/n, 2/n, …, 1. If a single one is wrong, the difference is multiplied
by just its weight, which tells its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minires.checking.directions import Comparison, Difference, Direction
from minires.checking.report import Array

__all__ = ["constant_factor", "wrong_element", "wrong_tensors"]

#: There may be hundreds of wrong tensors in front of a wrong rule; once so many were confirmed there is no doubt.
CONFIRM = 32

Numbers = np.ndarray[Any, np.dtype[np.intp]]


def wrong_tensors(
    comparison: Comparison, direction: Direction, found: Difference, out_of_time: Callable[[], bool], confirm: int = CONFIRM
) -> Iterator[tuple[int, bool]]:
    """The numbers of the tensors whose gradient is wrong along ``direction``, the last one first.

    Args:
        comparison: gradient and slopes.
        direction: one along which the two differ.
        found: that difference.
        out_of_time: asked before each evaluation.
        confirm: how many of the tensors are looked at once more, to tell a wrong gradient from one that rounding spoiled.

    Yields:
        The number of a tensor, and whether it is known to be wrong; False if the time was over before that was decided.
    """
    movable = np.array([k for k, u in enumerate(direction) if u is not None])

    def moving(run: Numbers, weights: Array | float = 1.0) -> Direction:
        scales = dict(zip(run.tolist(), np.broadcast_to(weights, run.shape).tolist(), strict=True))
        return [scales[k] * u if u is not None and k in scales else None for k, u in enumerate(direction)]

    runs = [_weighed(comparison, movable, found, moving) or (movable, found)]
    while runs:
        run, difference = runs.pop()
        if len(run) == 1:
            confirm -= 1
            if confirm < 0 or comparison.confirmed(moving(run)).is_wrong:
                yield int(run[0]), True
            continue
        if out_of_time():
            yield from ((int(k), False) for k in reversed(run))
            continue
        first, last = run[: len(run) // 2], run[len(run) // 2 :]
        after = comparison.along(moving(last))
        before = Difference(difference.value - after.value, difference.tolerance)
        runs += [(part, d) for part, d in ((first, before), (last, after)) if d.is_wrong]


def wrong_element(
    comparison: Comparison, direction: Direction, tensor: int, out_of_time: Callable[[], bool]
) -> tuple[tuple[int, ...], bool] | None:
    """The index of an element of a tensor whose gradient is wrong, and whether all others are right; None without time.

    Of two wrong halves the one with the larger difference is searched on.
    """
    u = direction[tensor]
    assert u is not None
    flat = u.reshape(-1)  # (elements,)

    def moving(run: Numbers, weights: Array | float = 1.0) -> Direction:
        part = np.zeros(flat.size)
        part[run] = flat[run] * weights
        return [part.reshape(u.shape) if k == tensor else None for k in range(len(direction))]

    run = np.flatnonzero(flat)
    difference = whole = comparison.along(moving(run))
    narrow: tuple[Numbers, Difference] | None = (run, difference)
    while narrow is not None and len(run) > 8:
        narrow = _weighed(comparison, run, difference, moving)
        run, difference = narrow or (run, difference)
    while len(run) > 1:
        if out_of_time():
            return None
        first, last = run[: len(run) // 2], run[len(run) // 2 :]
        after = comparison.along(moving(last))
        before = Difference(difference.value - after.value, difference.tolerance)
        run, difference = (last, after) if abs(after.value) > abs(before.value) else (first, before)
    if not len(run):
        return None
    difference = comparison.along(moving(run))
    if not difference.is_wrong:
        return None
    index = tuple(int(i) for i in np.unravel_index(run[0], u.shape))
    return index, not Difference(whole.value - difference.value, whole.tolerance).is_wrong


def constant_factor(comparison: Comparison, tensor: int, directions: int = 3) -> float | None:
    """c, if the gradient of a tensor is c times the right one along several directions; else None."""
    products, slopes, tolerances = [], [], []
    for _ in range(directions):
        direction = comparison.within(tensor)
        difference = comparison.along(direction)
        gradient, u = comparison.gradients[0][tensor], direction[tensor]
        products.append(float(np.vdot(gradient, u)) if u is not None else 0.0)
        slopes.append(products[-1] - difference.value)
        tolerances.append(difference.tolerance)
    slope, product, tolerance = (np.array(v) for v in (slopes, products, tolerances))
    if not np.isfinite(slope).all() or not slope.any():
        return None
    factor = float(product @ slope / (slope @ slope))
    # The factor is itself the result of a fit, so its error, times the slopes, comes on top of that of the products.
    allowed = tolerance * (1 + abs(factor)) * 2
    return factor if (np.abs(product - factor * slope) <= allowed).all() else None


def _weighed(
    comparison: Comparison, run: Numbers, difference: Difference, moving: Callable[..., Direction]
) -> tuple[Numbers, Difference] | None:
    """The few neighbours in a run that the whole difference comes from, and theirs; None if it comes from more of them."""
    count = len(run)
    if count < 4 or not np.isfinite(difference.value):
        return None
    weighed = comparison.along(moving(run, np.arange(1, count + 1) / count))
    centre = weighed.value / difference.value * count - 1
    reach = 0.5 + count * (weighed.tolerance + difference.tolerance) / abs(difference.value)
    if not (np.isfinite(centre) and -1 < centre < count and reach < count / 8):
        return None
    part = run[max(0, int(np.floor(centre - reach))) : int(np.ceil(centre + reach)) + 1]
    inside = comparison.along(moving(part))
    outside = Difference(difference.value - inside.value, difference.tolerance)
    return None if outside.is_wrong or not inside.is_wrong else (part, inside)
