"""Mistakes in a sum: a term is missing, or samples or channels are mixed; and what is left when nothing explains it."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np

from minires.checking.diagnosis.case import Case, View, axes_in_words, subsets
from minires.checking.diagnosis.functions import OF_X, PARTS
from minires.checking.report import Diagnosis

__all__ = ["leaking", "missing_term", "mixed_over_axis", "unexplained", "wrong_weights"]

Array = np.ndarray[Any, Any]


def missing_term(case: Case) -> Diagnosis | None:
    """What is missing has a pattern of its own: a constant at regular places, a function of x, a product of two vectors."""
    if all(not v.analytic.any() and np.all(case.differs(v) == v.support) for v in case.views):
        return None  # everything is missing, not a term
    for kind in (_constant_term, _row_constant, _function_term, _operand_term, _product_rule, _one_use, _product_term,
                 _direct_path):  # fmt: skip
        found = kind(case)
        if found is not None:
            return found
    return None


def _missing(view: View) -> Array:
    """The right Jacobian minus the backward's."""
    return np.where(view.known, view.value - view.analytic, 0)


def _constant_term(case: Case) -> Diagnosis | None:
    """The −1 of a one-hot: one entry in every row or sample, all of the same size."""
    first = case.views[0]
    if len(case.views) > 1 and all(case.equal_parts(v.value, first.value, v.tolerance) for v in case.views[1:]):
        return None  # of a linear function there are no such terms
    sizes, counts = [], []
    for view in case.views:
        missing = _missing(view)
        places = np.abs(missing) > view.tolerance
        if not places.any():
            continue
        rows = places.any(axis=1)
        others = (view.support & ~places)[rows].sum(axis=1)
        if len(np.unique(np.round(missing[places] / view.scale, 7))) > 1:
            return None
        if (places & ~view.support).any() or np.any(others < places[rows].sum(axis=1)):
            return None  # a constant is missing in an otherwise right gradient, or this is something else
        sizes.append(float(missing[places][0]))
        counts.append(places[rows].sum(axis=1))
    if not sizes or np.ptp(sizes) > 1e-6 * max(map(abs, sizes)):
        return None
    every = np.concatenate(counts)
    if every.min() != every.max():
        return None
    of_them = "1 element" if every[0] == 1 else f"{every[0]} elements"
    return Diagnosis("missing_term", f"lacks a constant, {sizes[0]:.6g}, in {of_them} of every output's gradient: a term "
                     "such as the one-hot of a label", {"constant": sizes[0], "per_output": int(every[0])})  # fmt: skip


def _row_constant(case: Case) -> Diagnosis | None:
    """One number for all elements of an output: what a divisor contributes, the sum of all elements for instance."""
    found = False
    for view in case.views:
        missing = _missing(view)
        rows = (np.abs(missing) > view.tolerance).any(axis=1)
        for o in np.flatnonzero(rows):
            used = view.support[o] | (np.abs(missing[o]) > view.tolerance[o])
            numbers = missing[o, used]
            if used.sum() < 4 or np.ptp(numbers) > 10 * view.tolerance[o].max() or np.ptp(view.analytic[o, used]) == 0:
                return None
            found = True
    if not found:
        return None
    return Diagnosis("missing_term", "lacks one and the same number for all elements of an output: what a divisor or a mean "
                     "that depends on all of them contributes (the second term of the quotient rule, say)")  # fmt: skip


def _function_term(case: Case) -> Diagnosis | None:
    """A multiple of x, of its sign, … in every column, the same multiple at every point: a penalty, say."""
    if int(np.prod(case.out_shape)) != 1 and not all(_one_row_each(v) and _missing_inside(v) for v in case.views):
        return None
    for name, f in {**OF_X, **PARTS}.items():
        if name in BRANCHES and case.out_shape == case.shape:
            continue  # elementwise, for some elements only: then it is rather the wrong function there
        predicted = []
        for view in case.views:
            with np.errstate(all="ignore"):
                term = f(case.x(view))[None, :]  # (1, elements)
                predicted.append(np.where(case.support | (np.abs(_missing(view)) > view.tolerance), term, 0))
        c = _common_multiple(case, predicted)
        if c is not None:
            times = "" if abs(c - 1) < 1e-6 else f"{c:.6g} · "
            sign = ": perhaps it is there once, with the wrong sign" if abs(abs(c) - 2) < 1e-6 else ""
            return Diagnosis("missing_term", f"lacks the term {times}{name}{sign}", {"term": name, "times": c})
    return None


BRANCHES = ("[x > 0]", "[x < 0]", "sign x")


def _common_multiple(case: Case, terms: list[Array]) -> float | None:
    """c, if what is missing is c times the term at every point, of two at least."""
    factors = []
    for view, term in zip(case.views, terms, strict=True):
        missing = _missing(view)
        below = float((term**2).sum())
        c = float((term * missing).sum()) / below if below and np.isfinite(below) else 0.0
        if not c or not np.all(np.abs(missing - c * term) <= view.tolerance + 1e-6 * abs(c) * np.abs(term)):
            return None
        factors.append(c)
    return factors[0] if len(factors) > 1 and np.ptp(factors) <= 1e-6 * max(map(abs, factors)) else None


def _one_row_each(view: View) -> bool:
    """Whether every element goes to one output at most."""
    return bool((view.support.sum(axis=0) <= 1).all())


def _operand_term(case: Case) -> Diagnosis | None:
    """A multiple of another input's values, such as the target in a cross-entropy."""
    if not all(_one_row_each(v) and _missing_inside(v) for v in case.views):
        return None
    for i, name in enumerate(case.subject.names):
        if i == case.input or case.subject.values[i].shape != case.shape:
            continue
        rows = [np.asarray(v.reference.values[i], np.float64).reshape(1, -1) for v in case.views]  # (1, elements)
        c = _common_multiple(case, [np.where(case.support, row, 0) for row in rows])
        if c is not None:
            return Diagnosis("missing_term", f"lacks the term {c:.6g} · {name}", {"term": name, "factor": c})
    return None


def _missing_inside(view: View) -> bool:
    """Whether nothing is missing where the derivative is 0."""
    return not np.any((np.abs(_missing(view)) > view.tolerance) & ~view.support)


def _product_rule(case: Case) -> Diagnosis | None:
    """For y = x·h(x) elementwise: one of the two terms h(x) = y/x and x·h'(x) is missing."""
    if case.out_shape != case.shape or not all(v.is_one_to_one for v in case.views):
        return None
    for missing, name in ((False, "x·h′(x)"), (True, "h(x)")):
        fits = True
        for view in case.views:
            with np.errstate(all="ignore"):
                h = np.where(case.support, (case.y(view) / case.x(view))[None, :], 0)
            slack = 10 * view.tolerance + 1e-6 * np.abs(h)
            fits &= bool(np.all(np.abs((_missing(view) if missing else view.analytic) - h) <= slack))
        if fits:
            return Diagnosis("missing_term", f"lacks the term {name} of the derivative of a product y = x·h(x)",
                             {"term": name})  # fmt: skip
    return None


def _direct_path(case: Case) -> Diagnosis | None:
    """What is missing goes from each element to its own output, by a factor: a path past a sum, such as (1 − z)·h."""
    if case.out_shape != case.shape or len(case.views[0].value) < 3:
        return None
    for view in case.views:
        places = np.abs(_missing(view)) > view.tolerance
        diagonal = np.eye(len(places), dtype=bool)
        if (places & ~diagonal).any() or not places[diagonal].all() or np.median(view.support.sum(axis=1)) < 2:
            return None
        if np.all(np.abs(_missing(view) - 2 * view.value)[diagonal] <= view.tolerance[diagonal] * 4):
            return None  # a sign
    return Diagnosis("missing_term", "lacks a path from each element to its own output (a diagonal of the Jacobian): one of "
                     "the places where the input is used is forgotten")  # fmt: skip


def _one_use(case: Case) -> Diagnosis | None:
    """An input that is used k times, in a function of degree k in it: the gradient of fewer uses.

    By Euler's rule for homogeneous functions, J·x = k·y.
    """
    shares = set()
    for view in case.views:
        x, y = case.x(view), case.y(view)
        right, found = view.value @ x, view.analytic @ x
        size = np.abs(y).max(initial=0)
        k, share = (float(r @ y / (y @ y)) if size else 0.0 for r in (right, found))
        if not any(abs(k - n) < 1e-6 for n in (2, 3, 4)) or not view.known.all():
            return None
        if np.abs(right - k * y).max() > 1e-6 * size or np.abs(found - share * y).max() > 1e-6 * size:
            return None
        shares.add((round(share, 5), round(k)))
    if len(shares) != 1:
        return None
    found_uses, uses = shares.pop()
    if found_uses not in (1, 2, 3) or found_uses >= uses:
        return None
    return Diagnosis("missing_term", f"belongs to {found_uses:.0f} of the {uses} places where the input is used; the "
                     "gradients of all of them have to be added", {"uses": uses, "found": int(found_uses)})  # fmt: skip


def _product_term(case: Case) -> Diagnosis | None:
    """What is missing is a product u·vᵀ in every block: the coupling of a softmax, the projection of a normalisation.

    What is there is diagonal then. Else the product may be there, with wrong vectors.
    """
    for view in case.views:
        if not _one_by_one_found(view):
            return None
        blocks = list(_blocks(view))
        if not blocks:
            return None
        for rows, columns in blocks:
            part = _missing(view)[np.ix_(rows, columns)]
            if min(part.shape) < 3 or not part.any():
                return None
            for matrix, is_one in ((part, True), (view.value[np.ix_(rows, columns)], False)):
                singular = np.linalg.svd(matrix, compute_uv=False)
                if (singular[1] <= 1e-7 * singular[0] + 1e-9 * view.scale) != is_one:
                    return None
    return Diagnosis("missing_term", "lacks a product of two vectors in every sample, such as the coupling −y·Σ(dy·y) of a "
                     "softmax or the projection of a normalisation: a term of the sum is forgotten")  # fmt: skip


def _one_by_one_found(view: View) -> bool:
    """Whether the backward's Jacobian is that of an elementwise function."""
    found = np.abs(view.analytic) > 1e-9 * view.scale
    return bool((found.sum(axis=1) <= 1).all() and (found.sum(axis=0) <= 1).all())


def _blocks(view: View) -> list[tuple[Array, Array]]:
    """The blocks that the Jacobian falls into: (rows, columns)."""
    pattern = view.support | (np.abs(_missing(view)) > view.tolerance)
    blocks, done = [], np.zeros(len(pattern), bool)
    for o in range(len(pattern)):
        if done[o] or not pattern[o].any():
            continue
        rows = np.arange(len(pattern)) == o
        columns = pattern[o]
        while not np.array_equal(rows, wider := np.asarray(pattern[:, columns].any(axis=1))):
            rows, columns = wider, np.asarray(pattern[wider].any(axis=0))
        done |= rows
        blocks.append((np.flatnonzero(rows), np.flatnonzero(columns)))
    return blocks


def mixed_over_axis(case: Case) -> Diagnosis | None:
    """Gradients of different samples, channels or positions added up or averaged; or leaking from one to another."""
    for of_input, whose in ((True, "its"), (False, "the upstream gradient's")):
        if not of_input and len(case.outputs) > 1:
            continue
        shape = case.shape if of_input else case.out_shape
        groups = subsets((a for a, n in enumerate(shape) if n > 1), 3)
        for axes, how in itertools.product(groups, ("summed", "averaged")):
            if case.fits(partial(_mixed, case, of_input, axes, how)):
                return Diagnosis("mixed_over_axis", f"is {how} over {whose} {axes_in_words(axes)}, and all along it get the "
                                 "same: gradients of different elements are mixed", {"axes": axes, "how": how})  # fmt: skip
    return None


def _mixed(case: Case, of_input: bool, axes: tuple[int, ...], how: str, view: View) -> Array:
    """The numeric Jacobian summed or averaged over axes of the input or of the output."""
    outputs, elements = view.value.shape
    grid, first = ((outputs, *case.shape), 1) if of_input else ((*case.out_shape, elements), 0)
    cube = view.value.reshape(grid)  # (outputs, input axes) or (output axes, elements)
    shifted = tuple(a + first for a in axes)
    cube = cube.sum(axis=shifted, keepdims=True) if how == "summed" else cube.mean(axis=shifted, keepdims=True)
    return np.asarray(np.broadcast_to(cube, grid).reshape(view.value.shape))  # (outputs, elements)


def leaking(case: Case) -> Diagnosis | None:
    """Some of the gradient of one sample, channel or position goes to another one."""
    for b, a in itertools.product(range(len(case.out_shape)), range(len(case.shape))):
        strange = np.any([(np.abs(v.analytic) > 1e-7 * v.scale) & ~v.support & v.known for v in case.views], axis=0)
        apart = _apart(case.project(b, a))
        more = any((np.abs(v.analytic) > 1e-7 * v.scale).sum() > v.support.sum() for v in case.views)
        if more and apart is not None and 2 * (case.project(b, a, strange) & apart).sum() >= apart.sum():
            kind = {0: "sample", 1: "channel"}.get(a, "position") if len(case.shape) > 1 else "element"
            return Diagnosis("mixed_over_axis", f"of one {kind} contains that of others (axis {a}): a sum or a mean is "
                             "taken over an axis that has to be kept", {"axes": (a,), "how": "leaks"})  # fmt: skip
    return None


def _apart(pattern: Array) -> Array | None:
    """Pairs of an output's and an input's index that never meet because they belong to different samples or groups.

    Two indices belong together if a chain of meetings leads from one to the other; None if all do.
    """
    meets = pattern
    while True:
        wider = np.asarray(meets @ meets.T.astype(int) @ meets > 0)  # one meeting further: (outputs', inputs')
        if np.array_equal(meets, wider):
            break
        meets = wider
    blocks = len({tuple(row) for row in meets if row.any()})
    return ~meets if blocks > 1 else None


def wrong_weights(case: Case) -> Diagnosis | None:
    """Every output takes its gradient from the right elements with wrong weights."""
    sums, sorted_rows = True, True
    for view in case.views:
        nonzero = np.abs(view.analytic) > 1e-7 * view.scale
        if (nonzero & ~view.support & view.known).any() or not nonzero.any():
            return None
        slack = view.tolerance.max(axis=1) * 10 + 1e-6 * view.scale
        sums &= bool(np.all(np.abs(view.analytic.sum(axis=1) - view.value.sum(axis=1)) <= slack))
        difference = np.abs(np.sort(view.analytic, axis=1) - np.sort(view.value, axis=1)).max(axis=1)
        sorted_rows &= bool(np.all(difference <= slack))
    if not (sums or sorted_rows):
        return None
    how = "the weights of an output are exchanged" if sorted_rows else "they still add up to the same sum"
    return Diagnosis("wrong_weights", f"goes to the right elements with wrong weights ({how})", {"sums_equal": sums})


def unexplained(case: Case) -> Diagnosis:
    """Wrong in none of the known ways: say where."""
    wrong = np.any([case.differs(v) for v in case.views], axis=0)
    rows, columns = wrong.any(axis=1), wrong.any(axis=0)
    places = [_where(rows, case.out_shape, "output"), _where(columns, case.shape, "input")]
    parts = [f"{int(wrong.sum())} of {wrong.size} entries of the Jacobian are wrong", *(p for p in places if p)]
    return Diagnosis("unexplained", f"is wrong, in none of the ways that have a name: {'; '.join(parts)}",
                     {"wrong": int(wrong.sum()), "of": int(wrong.size)})  # fmt: skip


def _where(wrong: Array, shape: tuple[int, ...], what: str) -> str:
    """Where wrong rows or columns are, if not everywhere: along which axis only some indices are affected."""
    if wrong.all() or not shape:
        return ""
    grid = wrong.reshape(shape)  # the output's axes, or the input's
    found = []
    for a, n in enumerate(shape):
        hit = np.flatnonzero(grid.any(axis=tuple(k for k in range(len(shape)) if k != a)))
        if len(hit) < n:
            found.append(f"axis {a} at {_list(hit)}")
    return f"only in the {what}'s {', '.join(found)}" if found else f"in {int(wrong.sum())} of {wrong.size} {what} elements"


def _list(numbers: Array) -> str:
    return ", ".join(map(str, numbers[:6])) + (" …" if len(numbers) > 6 else "")
