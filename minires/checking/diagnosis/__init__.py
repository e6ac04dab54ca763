"""The diagnosis of a wrong gradient: hypotheses in a fixed order, and the first that explains every entry is the best.

Simple explanations come first. A wrong name is worse than none, so each hypothesis has to reproduce the backward's whole
Jacobian at every point within the numerical error; what none of them does is called unexplained, with a word on where it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from minires.checking.compare import InputComparison
from minires.checking.diagnosis.case import Case
from minires.checking.diagnosis.factors import (
    factor_per_element,
    missing_chain_factor,
    missing_operand,
    wrong_local_derivative,
)
from minires.checking.diagnosis.guesses import guesses
from minires.checking.diagnosis.layout import axis_reversed, axis_swapped, spatial_shift, upstream_rearranged
from minires.checking.diagnosis.lost import (
    border_missing,
    not_accumulated_over_axis,
    overlap_overwritten,
    window_offset_skipped,
    without_lost_rows,
)
from minires.checking.diagnosis.normalization import normalization, other_statistics
from minires.checking.diagnosis.operands import (
    hidden_operand_transposed,
    kernel_flipped,
    operand_transposed,
    wrong_variant,
)
from minires.checking.diagnosis.scaling import (
    common_ratio,
    constant,
    gradients_swapped,
    identity_branch_lost,
    low_precision,
    zero_gradient,
)
from minires.checking.diagnosis.terms import leaking, missing_term, mixed_over_axis, unexplained, wrong_weights
from minires.checking.diagnosis.winners import several_winners, wrong_routing
from minires.checking.report import Diagnosis

__all__ = ["first_call_kept", "of", "of_elements", "of_ties"]

Array = np.ndarray[Any, Any]
Hypothesis = Callable[[Case], Diagnosis | None]

PLAIN: tuple[Hypothesis, ...] = (low_precision, zero_gradient, constant, gradients_swapped, identity_branch_lost)

STRUCTURAL: tuple[Hypothesis, ...] = (
    axis_swapped, axis_reversed, not_accumulated_over_axis, border_missing, overlap_overwritten, window_offset_skipped,
    kernel_flipped, operand_transposed, spatial_shift, wrong_variant, normalization, several_winners, wrong_routing,
    missing_chain_factor, missing_operand, missing_term, wrong_local_derivative, mixed_over_axis,
)  # fmt: skip

#: Those whose prediction may be off by a constant factor on top.
FREE: tuple[Hypothesis, ...] = (
    gradients_swapped, axis_swapped, axis_reversed, kernel_flipped, operand_transposed, spatial_shift, wrong_variant,
    upstream_rearranged,
)  # fmt: skip

#: Explanations that say less, for what neither one of the above nor two mistakes at once explain.
VAGUE: tuple[Hypothesis, ...] = (
    other_statistics, wrong_weights, upstream_rearranged, hidden_operand_transposed, leaking, factor_per_element,
)  # fmt: skip

UNFORESEEN = (ArithmeticError, ValueError, IndexError, TypeError)
MOST = 3  # explanations in a report


def of(case: Case) -> list[Diagnosis]:
    """The explanations of a wrong gradient, best first; behind one that leaves a question, what it may be."""
    found = _explanations(case)
    return [*found, *guesses(case, found)]


def _explanations(case: Case) -> list[Diagnosis]:
    if len(case.outputs) > 1 and case.rows is None:
        return _of_several_outputs(case)
    found = _first(case, PLAIN, 1) or _first(case, STRUCTURAL, MOST)
    times = found[0].evidence.get("times", 1.0) if found else 1.0
    if found and found[0].label != "missing_term" and abs(times - 1) > 1e-6:
        return [found[0], _second(1 / times), *found[1:]]
    return found or _of_two(case) or _first(case, VAGUE, MOST) or [unexplained(case)]


def first_call_kept(case: Case) -> Diagnosis | None:
    """Right at the first point that the backward was called at, wrong at all others: it goes on with what it met there."""
    first, *others = case.views
    if not others or case.differs(first).any():
        return None
    floating = [first.reference.values[i] for i in case.subject.wanted]
    if any(v.size > 1 and np.ptp(v[np.isfinite(v)]) == 0 for v in floating if np.isfinite(v).any()):
        return None  # numbers that are all equal may hide a mistake of another kind
    if not all(v.support.any() and case.differs(v)[v.support].mean() > 0.4 for v in others):
        return None
    return Diagnosis("state_leak", "is right for the inputs of the first call and wrong for others: something from the "
                     "first call is kept and used again")  # fmt: skip


def _first(case: Case, hypotheses: tuple[Hypothesis, ...], most: int) -> list[Diagnosis]:
    """The first explanations that hold, ``most`` at most, as far as there is time."""
    found: list[Diagnosis] = []
    for hypothesis in hypotheses:
        if case.is_late() or len(found) == most:
            break
        # A hypothesis calls the student's code at points that nobody foresaw; what fails there explains nothing.
        with np.errstate(all="ignore"), warnings.catch_warnings(), suppress(*UNFORESEEN):
            warnings.simplefilter("ignore")
            diagnosis = hypothesis(case)
            if diagnosis is not None:
                found.append(diagnosis)
    return found


def _of_two(case: Case) -> list[Diagnosis]:
    """Two mistakes at once: a factor, and one of the others."""
    once = without_lost_rows(case)
    if once is not None:
        first, rest = once
        found = _first(rest, (border_missing, overlap_overwritten, window_offset_skipped), 1)
        if found:
            return [first, *found]
    for c in dict.fromkeys(c for c in (common_ratio(case), -1.0) if c is not None and abs(c - 1) > 1e-6):
        found = _first(case.scaled(c), STRUCTURAL, 1)
        if found:
            return [*found, _second(c)]
    found = _first(_without_identity(case), (kernel_flipped, operand_transposed, wrong_variant), 1)
    if found:
        lost = "has a second mistake: the path on which the input goes to the output unchanged is missing too"
        return [*found, Diagnosis("identity_branch_lost", lost)]
    free = case.free()
    found = _first(free, FREE, 1)
    if found and free.factor:
        return [*found, _second(free.factor)]
    for c in (2, 0.5, 3, 1 / 3, -2, -0.5, *(s for n in {*case.out_shape, *case.shape} if n > 3 for s in (n, 1 / n))):
        found = [] if case.is_late() else _first(case.scaled(c), (normalization,), 1)
        if found:
            return [*found, _second(c)]
    return []


def _without_identity(case: Case) -> Case:
    """The case as it would be if the upstream gradient itself were added (no case at all if the shapes differ)."""
    square = case.out_shape == case.shape
    return case.with_views(lambda v: replace(v, analytic=v.analytic + np.eye(len(v.analytic))) if square else v)


def _second(c: float) -> Diagnosis:
    """The factor that comes on top of another mistake."""
    if abs(c + 1) < 1e-6:
        return Diagnosis("sign_flipped", "has a second mistake: its sign is wrong too", {"factor": -1.0})
    return Diagnosis("constant_factor", f"has a second mistake: besides, it is {c:.6g} times what it should be",
                     {"factor": c})  # fmt: skip


def _of_several_outputs(case: Case) -> list[Diagnosis]:
    """Explanations that hold for every output that is concerned."""
    found = _first(case, PLAIN, 1)
    if found:
        return found
    parts = [case.of_output(number) for number in range(len(case.outputs))]
    wrong = [p for p in parts if any(p.differs(v).any() for v in p.views)]
    each = [{d.label: d for d in _explanations(p)} for p in wrong]
    common = [d for label, d in each[0].items() if all(label in e for e in each[1:])] if each else []
    if len(wrong) < len(parts) and any(d.label == "zero_gradient" for d in common):
        numbers = [n for n, p in enumerate(parts) if any(q is p for q in wrong)]
        return [Diagnosis("missing_term", f"lacks all that comes by way of output {', '.join(map(str, numbers))}; what "
                          "comes by way of the others is right", {"outputs": numbers})]  # fmt: skip
    if common and len(wrong) < len(parts):
        numbers = [n for n, p in enumerate(parts) if any(q is p for q in wrong)]
        where = f"(output {', '.join(map(str, numbers))} only) "
        common = [Diagnosis(d.label, where + d.sentence, d.evidence) for d in common]
    return common or [unexplained(case)]


def of_ties(ties: list[tuple[Array, float, float]]) -> Diagnosis:
    """The explanation where elements that are equal share a gradient wrongly."""
    elements, actual, expected = ties[0]
    evidence = {"elements": len(elements), "sum": actual, "expected": expected}
    if abs(actual) > abs(expected):
        return Diagnosis("several_winners", f"gives {len(elements)} equal elements {actual / expected:.3g} times the "
                         "gradient that they have to share: each of them counts as the winner", evidence)  # fmt: skip
    sentence = f"gives {len(elements)} equal elements together {actual:.6g} instead of {expected:.6g}"
    return Diagnosis("wrong_routing", sentence, evidence)


def of_elements(parts: list[InputComparison]) -> list[Diagnosis]:
    """Explanations without Jacobians, for inputs or outputs too large for them: zero, a constant factor, or where."""
    analytic = np.concatenate([p.analytic[:, p.checked].reshape(-1) for p in parts])  # (numbers,), as the next two
    right = np.concatenate([p.middle[:, p.checked].reshape(-1) for p in parts])
    slack = np.concatenate([p.tolerance[:, p.checked].reshape(-1) for p in parts])
    advice = "smaller inputs (a few hundred elements) tell more"
    if not analytic.any() and np.isfinite(analytic).all():
        return [Diagnosis("zero_gradient", f"is 0 everywhere, but the output does depend on this input; {advice}")]
    known = np.isfinite(analytic + right + slack)
    c = float((analytic * right)[known].sum() / (float((right**2)[known].sum()) or 1.0))
    if known.all() and c and np.all(np.abs(analytic - c * right) <= slack * (1 + abs(c)) + 1e-7 * np.abs(c * right)):
        among = f"in the {known.sum()} numbers compared"
        if abs(c + 1) < 1e-6:
            return [Diagnosis("sign_flipped", f"is right but for its sign, {among}", {"factor": c})]
        if abs(c - 1) > 1e-6:
            return [Diagnosis("constant_factor", f"is {c:.6g} times what it should be, {among}", {"factor": c})]
    bad = np.any([p.bad for p in parts], axis=0)
    where = f"{int(bad.sum())} of {int(parts[0].checked.sum())} elements compared are wrong"
    if not bad.any():
        where = "random directions through all elements find a difference that no element looked at shows"
    return [Diagnosis("unexplained", f"{where}; {advice}", {"bad": int(bad.sum())})]
