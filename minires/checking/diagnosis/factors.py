"""Mistakes in a factor: the derivative of an inner function, a statistic or an operand is forgotten, or is another function.

If the backward's Jacobian times f(x) is the right one, f was forgotten. f is looked for among the derivatives that people
write, of the input's own elements (a factor for every column), of the output's (for every row), of means and deviations, and
of the other inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minires.checking.compare import one_hot_jacobian
from minires.checking.diagnosis.case import Case, View, subsets
from minires.checking.diagnosis.functions import OF_Q, OF_X, OF_Y
from minires.checking.report import Diagnosis
from minires.checking.subject import Values

__all__ = ["factor_per_element", "missing_chain_factor", "missing_operand", "wrong_local_derivative"]

Array = np.ndarray[Any, Any]
Factor = Callable[[View], Array]  # for every element (1, elements), for every output (outputs, 1), or one for all (1, 1)
Statistic = Callable[..., Array]  # of an array, called with axis and keepdims as NumPy's are

#: As a missing factor these are believed only where nothing else is there: else it is rather a factor too many.
INVERSES = ("1/x", "1/x²", "−1/x²", "1/√x", "1/y", "1/y²", "1/(2y)")


def missing_chain_factor(case: Case) -> Diagnosis | None:
    """The derivative of an inner function or a statistic is not multiplied in."""
    for name, factor in itertools.chain(_own(case), _statistics(case)):
        c = _explains(case, factor) if name != "1" else None
        if c is not None and not (name in INVERSES and _is_elementwise(case) and not _is_constant(case)):
            return _diagnosis("missing_chain_factor", name, c)
    return _missing_deviation(case) or _missing_slope(case)


def _is_constant(case: Case) -> bool:
    """Whether all entries that are not 0 have one size."""
    return all(np.ptp(np.abs(v.analytic[v.support])) <= 1e-6 * v.scale for v in case.views if v.support.any())


def _is_elementwise(case: Case) -> bool:
    return all(view.is_one_to_one for view in case.views)


def _missing_slope(case: Case) -> Diagnosis | None:
    """The slope of a hidden sigmoid or tanh: a factor between 0 and 1/4, or 0 and 1, for every output or every element."""
    ratios = _ratios(case)
    if ratios is None or not ratios[2] or _is_fixed(ratios[1]):
        return None
    with np.errstate(all="ignore"):
        factor = 1 / np.concatenate([r[np.isfinite(r)] for r in ratios[1]])
    if len(factor) < 4 or not (factor.min() > 0 and factor.max() <= 1 and np.isfinite(factor).all()):
        return None
    name = "sigmoid, σ(1 − σ)" if factor.max() <= 0.25 else "tanh, 1 − tanh²"
    least, most = float(factor.min()), float(factor.max())
    return Diagnosis("missing_chain_factor", f"has to be multiplied by numbers from {least:.3g} to {most:.3g}, which looks "
                     f"like the slope of an inner {name}: the derivative of the activation is forgotten",
                     {"least": least, "most": most})  # fmt: skip


def missing_operand(case: Case) -> Diagnosis | None:
    """Another input that the forward multiplies with is forgotten: the gradient would be right if it were all ones."""
    name = _right_for_ones(case)
    if name is not None:
        return Diagnosis("missing_operand", f"would be right if {name} were 1 everywhere: {name} is forgotten as a factor",
                         {"operand": name})  # fmt: skip
    for i, name, factor in _operands(case):
        c = _explains(case, factor)
        if c is not None:
            is_operand = name == case.subject.names[i] or _is_linear(case)
            found = _diagnosis("missing_operand" if is_operand else "missing_chain_factor", name, c)
            return Diagnosis(found.label, found.sentence, {**found.evidence, "operand": case.subject.names[i]})
    ratios = _ratios(case)
    if ratios is None or _is_fixed(ratios[1]) or not _is_linear(case):
        return None
    return Diagnosis("missing_operand", "lacks a factor that depends on other inputs alone (the output is linear in this "
                     "one): one of the operands that it is multiplied with is forgotten, or not the right one")  # fmt: skip


def _right_for_ones(case: Case) -> str | None:
    """The input or option for which the backward behaves as if it were 1 everywhere."""
    for i, name in enumerate(case.subject.names):
        if i != case.input and case.explains(partial(_with_ones, i)):
            return name
    for name, value in case.subject.keywords.items():
        if isinstance(value, np.ndarray):
            ones: dict[str, Any] = {name: np.ones_like(value)}
            forward = partial(case.subject.forward, **ones)
            if case.explains(lambda view: view.reference.values, forward):
                return name
    return None


def _with_ones(i: int, view: View) -> Values:
    values = list(view.reference.values)
    values[i] = np.ones_like(values[i])
    return values


def _diagnosis(label: str, name: str, c: float) -> Diagnosis:
    times = "" if abs(c - 1) < 1e-6 else f" times {c:.6g}"
    return Diagnosis(label, f"would be right if multiplied by {name}{times}: that factor is forgotten",
                     {"factor": name, "times": c})  # fmt: skip


def _explains(case: Case, factor: Factor) -> float | None:
    """c, if the backward's Jacobian times the factor is c times the right one at every point; not for a constant factor."""
    varies = False
    above = below = 0.0
    products = []
    for view in case.views:
        with np.errstate(all="ignore"):
            f = factor(view)
            product = view.analytic * f
        if not np.isfinite(product[view.known]).all():
            return None
        used = np.broadcast_to(f, product.shape)[view.support]
        varies |= bool(used.size and np.ptp(used) > 1e-6 * np.abs(used).max())
        products.append((view, product, f))
        above += float((product * view.value)[view.known].sum())
        below += float((product**2)[view.known].sum())
    if not below or not (varies or len({round(float(np.mean(f)), 9) for _, _, f in products}) > 1):
        return None
    c = above / below
    if abs(c - 1) < 1e-7:
        c = 1.0
    elif not _is_plain(c):
        return None
    for view, product, f in products:
        size = np.abs(np.broadcast_to(f, product.shape)).max(initial=0)
        if not np.all(np.abs(c * product - view.value)[view.known] <= (view.tolerance * (1 + size))[view.known]):
            return None
    return c


def _is_plain(c: float) -> bool:
    """Whether a number is one that people forget or add: ±1, a small whole number, or one over it."""
    size = abs(c)
    return any(abs(n - round(n)) < 1e-6 * n and 1 <= round(n) <= 128 for n in (size, 1 / size if size else 0.5))


def _own(case: Case) -> Iterator[tuple[str, Factor]]:
    """Every function of the input's elements, and every one of the output's."""
    for name, f in OF_X.items():
        yield name, partial(_of_x, case, f)
    for name, f in OF_Y.items():
        yield name, partial(_of_y, case, f)


def _of_x(case: Case, f: Callable[[Array], Array], view: View) -> Array:
    return f(case.x(view))[None, :]  # (1, elements)


def _of_y(case: Case, f: Callable[[Array], Array], view: View) -> Array:
    return f(case.y(view))[:, None]  # (outputs, 1)


def _mean_square(v: Array, axis: Any, keepdims: bool) -> Array:
    return np.asarray((v * v).mean(axis=axis, keepdims=keepdims))


#: In words → function, called with axis and keepdims.
STATISTICS: dict[str, Statistic] = {
    "the mean": np.mean, "the sum": np.sum, "the standard deviation": np.std, "the variance": np.var,
    "the norm": lambda v, axis, keepdims: np.sqrt((v * v).sum(axis=axis, keepdims=keepdims)), "the maximum": np.max,
    "the sum of exponentials": lambda v, axis, keepdims: np.exp(v).sum(axis=axis, keepdims=keepdims),
    "the mean square": _mean_square,
    "the root mean square": lambda v, axis, keepdims: np.sqrt(_mean_square(v, axis, keepdims)),
}  # fmt: skip


def _statistics(case: Case) -> Iterator[tuple[str, Factor]]:
    """Mean, sum, norm and deviation over groups of the input's axes, for every column or for every row."""
    for i, axes in _groupings(case):
        whose = "" if i == case.input else f" of {case.subject.names[i]}"
        for (name, f), power, by_row in itertools.product(STATISTICS.items(), (1, -1), (False, True)):
            words = f"{'one over ' if power < 0 else ''}{name}{whose} over axes {list(axes)}"
            yield words, _statistic_factor(case, f, i, axes, power, by_row)


def _statistic_factor(case: Case, f: Statistic, i: int, axes: tuple[int, ...], power: int, by_row: bool) -> Factor:
    def factor(view: View) -> Array:
        statistic = f(view.reference.values[i], axis=axes, keepdims=True) ** power
        return _spread(case, statistic, axes, by_row)

    return factor


def _groupings(case: Case) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Floating point inputs with groups of their axes over which statistics may have been taken."""
    for i in (case.input, *case.other_inputs()):
        shape = case.subject.values[i].shape
        if i == case.input or shape in (case.shape, case.out_shape):
            yield from ((i, axes) for axes in subsets(range(len(shape))))


def _spread(case: Case, statistic: Array, axes: tuple[int, ...], by_row: bool) -> Array:
    """A statistic (size 1 along ``axes``) for every column of the Jacobian, or for every row if the shapes allow it."""
    if not by_row:
        try:
            return np.broadcast_to(statistic, case.shape).reshape(1, -1)  # (1, elements)
        except ValueError:
            return np.full((1, 1), np.nan)
    for shape in (statistic.shape, tuple(n for a, n in enumerate(statistic.shape) if a not in axes)):
        try:
            return np.broadcast_to(statistic.reshape(shape), case.out_shape).reshape(-1, 1)  # (outputs, 1)
        except ValueError:
            continue
    return np.full((1, 1), np.nan)


def _missing_deviation(case: Case) -> Diagnosis | None:
    """One over a standard deviation with an unknown eps: 1/r² − variance is the same number in every group."""
    ratios = _ratios(case)
    if ratios is None or len(case.views) < 2:
        return None
    shape = case.shape if ratios[0] == "column" else case.out_shape
    powers = {"one over the standard deviation": -2, "the standard deviation": 2}
    squares: dict[str, Statistic] = {"": np.var, " without the mean": _mean_square}
    for (i, axes), (name, power), (kind, square) in itertools.product(_groupings(case), powers.items(), squares.items()):
        if case.subject.values[i].shape != shape:
            continue
        offsets: list[Array] = []
        for view, ratio in zip(case.views, ratios[1], strict=True):
            variance = square(view.reference.values[i], axis=axes, keepdims=True)
            with np.errstate(all="ignore"):
                offset = (1 / ratio) ** power - np.broadcast_to(variance, shape).reshape(-1)  # (elements,) or (outputs,)
            offsets.append(offset[np.isfinite(offset)])
        every = np.concatenate(offsets)
        if every.size > 2 and -1e-9 <= every.min() and np.ptp(every) <= 1e-6 and every.max() < 0.1:
            return _diagnosis("missing_chain_factor", f"{name}{kind} over axes {list(axes)}", 1.0)
    return None


def _operands(case: Case) -> Iterator[tuple[int, str, Factor]]:
    """Functions of the other inputs, broadcast to this input or to the output in every way that fits."""
    for i in case.other_inputs():
        for name, f in OF_Q.items():
            for by_row, shape in ((False, case.shape), (True, case.out_shape)):
                for placed in _placements(case.subject.values[i].shape, shape):
                    yield i, name.format(q=case.subject.names[i]), _operand_factor(i, f, placed, shape, by_row)


def _operand_factor(
    i: int, f: Callable[[Array], Array], placed: tuple[int, ...], shape: tuple[int, ...], by_row: bool
) -> Factor:
    def factor(view: View) -> Array:
        q = np.broadcast_to(f(view.reference.values[i]).reshape(placed), shape)  # the input's axes, or the output's
        return q.reshape((-1, 1) if by_row else (1, -1))  # (outputs, 1) or (1, elements)

    return factor


def _placements(small: tuple[int, ...], large: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Shapes with which an array of shape ``small`` is broadcast to ``large``, its axes in order."""
    sizes = tuple(n for n in small if n > 1)
    for axes in itertools.combinations(range(len(large)), len(sizes)):
        if all(large[a] == n for a, n in zip(axes, sizes, strict=True)):
            yield tuple(large[a] if a in axes else 1 for a in range(len(large)))


# ------------------------------------------------------------------------------------ other functions


def wrong_local_derivative(case: Case) -> Diagnosis | None:
    """An elementwise derivative that is another function of x: same support, and no matter where an element stands."""
    ratios = _ratios(case)
    if ratios is None or _is_fixed(ratios[1]) or _is_linear(case):
        return None
    for name, factor in _own(case) if _is_elementwise(case) else ():
        if case.fits(partial(_diagonal, case, factor)):
            return Diagnosis("wrong_local_derivative", f"is {name}, which is not the derivative here", {"function": name})
    one_each = all((v.support.sum(axis=1) <= 1).all() for v in case.views)
    if not (_is_local(case) if ratios[0] == "column" or one_each else _same_everywhere(case)):
        return None
    what = "element" if ratios[0] == "column" else "output"
    return Diagnosis("wrong_local_derivative", f"is wrong by a factor that depends on the {what}'s value alone: the "
                     "derivative of the elementwise function is another one", {})  # fmt: skip


def _diagonal(case: Case, factor: Factor, view: View) -> Array:
    """The Jacobian of an elementwise function with that derivative."""
    with np.errstate(all="ignore"):
        return np.where(case.support, factor(view), 0)


def _ratios(case: Case) -> tuple[str, list[Array], bool] | None:
    """("column" or "row", ratios, informative) if the Jacobian is right but for a factor for every column or every row.

    Where every column has a single entry, a factor for every column says nothing.
    """
    most = {"column": case.support.sum(axis=0).max(initial=0), "row": case.support.sum(axis=1).max(initial=0)}
    for kind in sorted(most, key=lambda k: most[k] <= 1):  # the telling one first
        found = []
        for view in case.views:
            common = _common_ratio(view, axis=0 if kind == "column" else 1)
            if common is None:
                break
            found.append(common)
        else:
            return kind, found, bool(most[kind] > 1)
    return None


def _is_fixed(ratios: list[Array]) -> bool:
    """Whether the factors are the same at all points, so that they depend on the place alone."""
    known = np.all([np.isfinite(r) for r in ratios], axis=0)
    return len(ratios) > 1 and bool(np.all([np.abs(r - ratios[0])[known] <= 1e-6 * np.abs(r[known]) for r in ratios]))


def _common_ratio(view: View, axis: int) -> Array | None:
    """The factor of every column (axis 0) or row (axis 1) of the backward's Jacobian; None if there is no such factor.

    It is NaN where all derivatives are 0.
    """
    right = np.where(view.support, view.value, 0)
    found = np.where(view.known, view.analytic, 0)
    if axis == 1:
        right, found = right.T, found.T  # (elements, outputs)
    below = (right**2).sum(axis=0)
    with np.errstate(all="ignore"):
        ratio = np.where(below > 0, (found * right).sum(axis=0) / below, np.nan)
    slack = (view.tolerance if axis == 0 else view.tolerance.T) * (1 + np.abs(np.nan_to_num(ratio)))
    return ratio if np.all(np.abs(found - np.nan_to_num(ratio) * right) <= slack) else None


def _is_linear(case: Case) -> bool:
    """Whether the Jacobian does not depend on the input itself: then its factors come from other inputs."""
    view = case.views[0]
    values = list(view.reference.values)
    x = values[case.input]
    values[case.input] = (x[::-1] if case.shape else x) * 0.7 + 0.1
    u = case.rng.standard_normal(case.shape)
    found = case.slope(view, values, u)
    if found is None:
        return False
    right = view.value @ u.reshape(-1)  # (outputs, elements) times (elements,)
    return bool(np.all(np.abs(found[0] - right) <= found[1] + 1e-6 * np.abs(right).max(initial=0)))


def _is_local(case: Case) -> bool:
    """Whether the derivatives with respect to an element depend on that element alone, not on its neighbours."""
    view, size = case.views[0], int(np.prod(case.shape))
    for e in case.rng.choice(size, min(3, size), replace=False):
        values = list(view.reference.values)
        others = values[case.input].reshape(-1)  # (elements,)
        moved = case.rng.permutation(others)
        moved[e] = others[e]
        values[case.input] = moved.reshape(case.shape)  # the input's axes
        u = np.zeros(case.shape)
        u.reshape(-1)[e] = 1  # (elements,)
        found = case.slope(view, values, u)
        if found is None or not np.all(np.abs(found[0] - view.value[:, e]) <= 10 * view.tolerance[:, e] + found[1]):
            return False
    return True


def _same_everywhere(case: Case) -> bool:
    """Whether the factor is the same for all outputs where all inputs are constant arrays: it depends on values only."""
    subject, view = case.subject, case.views[0]
    values = [np.full(v.shape, float(np.mean(np.abs(v))) + 0.1 * i) if i in subject.wanted else v
              for i, v in enumerate(view.reference.values)]  # fmt: skip
    u = np.random.default_rng(0).standard_normal(case.shape)
    try:
        with np.errstate(all="ignore"):
            right = case.slope(view, values, u)
            outputs = subject.forward([v.copy() for v in values])
            found = one_hot_jacobian(subject.pullback(values), outputs, case.k, case.shape, np.float64)
    except Exception:
        return False
    if right is None or found is None:
        return False
    found = found if case.rows is None else found[case.rows]
    with np.errstate(all="ignore"):
        ratio = (found @ u.reshape(-1)) / right[0]  # (outputs,)
    ratio = ratio[np.abs(right[0]) > 1e-6 * np.abs(right[0]).max(initial=0)]
    return bool(ratio.size and np.ptp(ratio) <= 1e-6 * np.abs(ratio).max())


def factor_per_element(case: Case) -> Diagnosis | None:
    """Right but for a factor that varies from element to element, or from output to output."""
    ratios = _ratios(case)
    if ratios is None or not (ratios[2] or _is_fixed(ratios[1])):
        return None
    kind, found, _ = ratios
    every = np.concatenate([r[np.isfinite(r)] for r in found])
    least, most = float(every.min()), float(every.max())
    what = "element" if kind == "column" else "output"
    return Diagnosis("factor_per_element", f"is right but for a factor that varies with the {what}, from {least:.4g} to "
                     f"{most:.4g}: a count, a weight or a normalisation differs from {what} to {what}",
                     {"least": least, "most": most})  # fmt: skip
