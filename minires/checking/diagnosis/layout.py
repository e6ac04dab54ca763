"""Mistakes that put right numbers in wrong places: axes exchanged or reversed, a picture moved by some pixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minires.checking.diagnosis.case import Case, Prediction, axes_in_words, exchanges, moved_axes, subsets
from minires.checking.report import Diagnosis

__all__ = ["axis_reversed", "axis_swapped", "spatial_shift", "upstream_rearranged"]

Array = np.ndarray[Any, Any]
FARTHEST = 4  # indices that a gradient may have moved by


def axis_swapped(case: Case) -> Diagnosis | None:
    """The gradient with axes of equal size exchanged."""
    for order in exchanges(case.shape):
        if case.fits(_columns(case, partial(np.transpose, axes=order))):
            moved = moved_axes(order)
            return Diagnosis("axis_swapped", f"is right after exchanging its axes {moved}",
                             {"axes": moved, "of": "gradient"})  # fmt: skip
    return None


def axis_reversed(case: Case) -> Diagnosis | None:
    """The gradient back to front along some axes."""
    for axes in _reversible(case.shape):
        if case.fits(_columns(case, partial(np.flip, axis=axes))):
            return Diagnosis("axis_reversed", f"is right, but back to front along {axes_in_words(axes)}",
                             {"axes": axes, "of": "gradient"})  # fmt: skip
    return None


def upstream_rearranged(case: Case) -> Diagnosis | None:
    """The gradient that belongs to an upstream gradient with axes exchanged or reversed; or reversed in both places."""
    return _upstream_swapped(case) or _upstream_reversed(case) or _both_reversed(case)


def _upstream_swapped(case: Case) -> Diagnosis | None:
    for order in exchanges(case.out_shape):
        if case.fits(_rows(case, partial(np.transpose, axes=order))):
            moved = moved_axes(order)
            return Diagnosis("axis_swapped", f"is that of an upstream gradient whose axes {moved} are exchanged",
                             {"axes": moved, "of": "grad_output"})  # fmt: skip
    return None


def _upstream_reversed(case: Case) -> Diagnosis | None:
    for axes in _reversible(case.out_shape):
        if case.fits(_rows(case, partial(np.flip, axis=axes))):
            return Diagnosis("axis_reversed", f"is that of an upstream gradient back to front along {axes_in_words(axes)}",
                             {"axes": axes, "of": "grad_output"})  # fmt: skip
    return None


def _both_reversed(case: Case) -> Diagnosis | None:
    for axes, outer in itertools.product(_reversible(case.shape), _reversible(case.out_shape)):
        if len(axes) != len(outer) or not case.fits(_both(case, axes, outer)):
            continue
        evidence, where = {"axes": axes, "of": "both"}, axes_in_words(axes)
        if all(_is_window(case, a) or not _is_one_sided(case, outer, axes) for a in axes):
            return Diagnosis("kernel_flipped", f"is that of a kernel reversed along {where}: it has to be flipped here and "
                             "is not, or it is and must not be", evidence)  # fmt: skip
        return Diagnosis("axis_reversed", f"runs in the wrong direction along {where}: both it and the upstream gradient "
                         "have to be reversed", evidence)  # fmt: skip
    return None


def _is_one_sided(case: Case, outer: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether outputs depend on earlier elements alone, or on later ones alone, as in a running sum."""
    patterns = [case.project(b, a) for b, a in zip(outer, axes, strict=True)]
    return all(not np.triu(p, 1).any() or not np.tril(p, -1).any() for p in patterns)


def spatial_shift(case: Case) -> Diagnosis | None:
    """The gradient moved by a few indices: what was cropped or padded began at the wrong place.

    What moves in from outside the input is not known, so only the part that was there before is compared.
    """
    axes = [a for a, n in enumerate(case.shape) if n >= 3 and (a or len(case.shape) == 1 or _is_window(case, a))]
    for axes_moved in subsets(axes[-3:], 2):
        steps = [[s for s in range(-FARTHEST, FARTHEST + 1) if s and 2 * abs(s) <= case.shape[a]] for a in axes_moved]
        for shift in sorted(itertools.product(*steps), key=lambda s: sum(map(abs, s))):
            if _is_moved(case, axes_moved, shift):
                return _shifted(axes_moved, shift)
    for a in {pair[1] for kind in ("band", "diagonal") for pair in case.pairs[kind]}:
        for s in range(1, case.shape[a]):
            if case.fits(_columns(case, partial(np.roll, shift=s, axis=a))):
                return _shifted((a,), (s if 2 * s <= case.shape[a] else s - case.shape[a],))
    return None


def _shifted(axes: tuple[int, ...], shift: tuple[int, ...]) -> Diagnosis:
    by = ", ".join(f"{s:+d} along axis {a}" for a, s in zip(axes, shift, strict=True))
    return Diagnosis("spatial_shift", f"is right, but moved by {by}: something is cropped, padded or indexed from the wrong "
                     "place", {"axes": axes, "shift": shift})  # fmt: skip


def _is_moved(case: Case, axes: tuple[int, ...], shift: tuple[int, ...]) -> bool:
    """Whether the backward's gradient at ``i + shift`` is the right one at ``i``, wherever both exist."""
    case.factor = None
    here: list[Any] = [slice(None)] * len(case.shape)
    there = list(here)
    for a, s in zip(axes, shift, strict=True):
        n = case.shape[a]
        here[a], there[a] = slice(max(0, -s), n - max(0, s)), slice(max(0, s), n + min(0, s))
    for view in case.views:
        grid = (len(view.value), *case.shape)
        actual = view.analytic.reshape(grid)[(slice(None), *there)]  # (outputs, part of the input axes)
        right = view.value.reshape(grid)[(slice(None), *here)]  # (outputs, part of the input axes)
        slack = (view.tolerance + 1e-7 * np.abs(view.value)).reshape(grid)[(slice(None), *here)]  # the same
        seen = np.abs(right) > 1e-6 * view.scale
        if 2 * seen.sum() < (np.abs(view.value) > 1e-6 * view.scale).sum() or not case.equal_parts(actual, right, slack):
            return False
    return True


def _is_window(case: Case, a: int) -> bool:
    return any(pair[1] == a for pair in case.pairs["band"])


def _reversible(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Groups of axes that have a front and a back."""
    return list(subsets(k for k, n in enumerate(shape) if n > 1))


def _columns(case: Case, change: Callable[[Array], Array]) -> Prediction:
    """The numeric Jacobian with the input's elements in other places."""
    places = _places(case.shape, change)
    return lambda view: np.asarray(view.value[:, places])


def _rows(case: Case, change: Callable[[Array], Array]) -> Prediction:
    """The numeric Jacobian with the output's elements in other places."""
    places = _places(case.out_shape, change)
    return lambda view: np.asarray(view.value[places])


def _both(case: Case, axes: tuple[int, ...], outer: tuple[int, ...]) -> Prediction:
    """The numeric Jacobian with the input reversed along ``axes`` and the output along ``outer``."""
    columns, rows = _places(case.shape, partial(np.flip, axis=axes)), _places(case.out_shape, partial(np.flip, axis=outer))
    return lambda view: np.asarray(view.value[rows][:, columns])


def _places(shape: tuple[int, ...], change: Callable[[Array], Array]) -> Array:
    """Where each element comes from when an array of that shape is changed."""
    numbers = np.arange(int(np.prod(shape))).reshape(shape)  # every element's own place, (*shape)
    return change(numbers).reshape(-1)  # (elements,)
