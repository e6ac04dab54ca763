"""Mistakes that leave the Jacobian as it is but for one number, or put another input's in its place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from minires.checking.diagnosis.case import Case, View, axes_in_words, subsets
from minires.checking.report import Diagnosis

__all__ = ["constant", "gradients_swapped", "identity_branch_lost", "low_precision", "zero_gradient"]

Array = np.ndarray[Any, Any]
ROUNDING = 3e-6  # single precision keeps seven digits; a double-precision backward that errs less than this lost some


def low_precision(case: Case) -> Diagnosis | None:
    """Right to seven digits, in a check that asks for sixteen."""
    worst = 0.0
    for view in case.views:
        off = np.abs(np.where(view.known, view.analytic - view.value, 0))
        if not np.isfinite(off).all():
            return None
        worst = max(worst, float(off.max()) / view.scale)
    if not 0 < worst < ROUNDING:
        return None
    return Diagnosis("low_precision", f"is right to {-math.log10(worst):.0f} digits only: something in the backward is "
                     "computed in float32", {"relative_error": worst})  # fmt: skip


def zero_gradient(case: Case) -> Diagnosis | None:
    """No gradient at all."""
    if all(np.abs(v.analytic).max(initial=0) <= 1e-12 * v.scale for v in case.views):
        return Diagnosis("zero_gradient", "is 0 everywhere, but the output does depend on this input")
    return None


def constant(case: Case) -> Diagnosis | None:
    """One number times the right Jacobian, the same at every point."""
    c = _ratio(case)
    if c is None or not np.isfinite(c) or c == 0 or abs(c - 1) < 1e-9 or not case.fits(lambda v: c * v.value):
        return None
    if abs(c + 1) < 1e-6:
        return Diagnosis("sign_flipped", "is right but for its sign", {"factor": -1.0})
    name = name_factor(c, case)
    return Diagnosis("constant_factor", f"is {c:.6g} times what it should be{f', that is {name}' if name else ''}",
                     {"factor": c, "name": name})  # fmt: skip


def _ratio(case: Case) -> float | None:
    """The multiple of the right Jacobian that comes closest to the backward's."""
    above = sum(float((v.analytic * v.value)[v.known].sum()) for v in case.views)
    below = sum(float((v.value**2)[v.known].sum()) for v in case.views)
    return above / below if below else None


def common_ratio(case: Case) -> float | None:
    """The number that most nonzero entries of the backward's Jacobian are off by, if there is one."""
    ratios = []
    for view in case.views:
        both = view.support & (np.abs(view.analytic) > 1e-6 * view.scale)
        ratios.append(view.analytic[both] / view.value[both])
    every = np.sort(np.concatenate(ratios))
    if len(every) < 4:
        return None
    half = max(2, int(0.3 * len(every)))
    width = every[half:] - every[:-half]
    start = int(np.argmin(width))
    c = float(np.median(every[start : start + half]))
    return c if width[start] <= 1e-5 * abs(c) and c and np.isfinite(c) else None


def name_factor(c: float, case: Case) -> str:
    """A factor as a product of sizes of axes, if it is one: "1/60, one over the size of output axes 0, 2, 3"."""
    sign, size = ("−" if c < 0 else ""), abs(c)
    for shape, name in ((case.out_shape, "output"), (case.shape, "input")):
        for axes in subsets(range(len(shape))):
            product = math.prod(shape[a] for a in axes)
            if product > 3 and math.isclose(size, product, rel_tol=1e-6):
                return f"{sign}{product}, the size of {name} {axes_in_words(axes)}"
            if product > 3 and math.isclose(size, 1 / product, rel_tol=1e-6):
                return f"{sign}1/{product}, one over the size of {name} {axes_in_words(axes)}"
    return next((sign + text for text, value in _simple_numbers() if math.isclose(size, value, rel_tol=1e-6)), "")


def _simple_numbers() -> Iterator[tuple[str, float]]:
    """Numbers that people forget or add, in words and as they are: n and 1/n, then roots and ratios of neighbours."""
    for n in range(2, 101):
        yield from ((f"{n}", n), (f"1/{n}", 1 / n))
    for n in range(2, 101):
        yield from ((f"√{n}", math.sqrt(n)), (f"1/√{n}", 1 / math.sqrt(n)))
        yield from ((f"{n - 1}/{n}", (n - 1) / n), (f"{n}/{n - 1}", n / (n - 1)))


def _other(k: int, view: View) -> Array | None:
    return view.others[k]


def gradients_swapped(case: Case) -> Diagnosis | None:
    """The gradient of another input, of the same shape."""
    names, wanted = case.subject.names, case.subject.wanted
    for k, i in enumerate(wanted):
        if i == case.input or case.subject.values[i].shape != case.shape:
            continue

        if case.fits(partial(_other, k)):
            return Diagnosis("gradients_swapped", f"is the gradient of {names[i]}: the gradients are returned in another "
                             "order than the inputs, or the wrong operand is used", {"other": names[i]})  # fmt: skip
    return None


def _is_block(rows: Array, case: Case) -> bool:
    """Whether rows form a block of the output: all of it, or the part where an input is concatenated."""
    indices = np.argwhere(rows.reshape(case.out_shape))  # (rows, output axes)
    return len(indices) == int(np.prod(np.ptp(indices, axis=0) + 1))


def identity_branch_lost(case: Case) -> Diagnosis | None:
    """An input that goes to the output unchanged besides being used: that path is missing."""
    place: Array | None = None
    for view in case.views:
        lost = view.value - view.analytic
        ones = np.abs(lost - 1) <= view.tolerance + 1e-7
        if not np.all(ones | (np.abs(lost) <= view.tolerance)) or not view.known.all():
            return None
        if not np.all(ones.sum(axis=0) == 1) or np.any(ones.sum(axis=1) > 1):
            return None
        if place is not None and not np.array_equal(ones, place):
            return None
        place = ones
    if place is None or not _is_block(np.asarray(place.any(axis=1)), case):
        return None
    return Diagnosis("identity_branch_lost", "lacks exactly the upstream gradient itself: the input also reaches the output "
                     "directly (as in y = x + f(x)), and the gradient of that path was not added")  # fmt: skip
