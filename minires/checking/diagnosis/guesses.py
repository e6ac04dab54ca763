"""Second thoughts: what it may be if nothing explains the gradient, or only something that says little.

A guess proves nothing. It stands behind the explanations, never in front, and it says what it is taken from: how the wrong
Jacobian lies to the right one, and where entries are lost or in excess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minires.checking.diagnosis.case import Case, View
from minires.checking.diagnosis.normalization import is_normalization
from minires.checking.report import Diagnosis

__all__ = ["guesses"]

MOST = 2
OPEN = {"unexplained", "wrong_local_derivative"}  # explanations that leave a question


def guesses(case: Case, found: list[Diagnosis]) -> list[Diagnosis]:
    """The likeliest kinds of mistake besides those found, two at most; none if what was found leaves no question."""
    best = found[0].label
    if best not in OPEN or len(found) > 1:
        return []
    traits = Traits.of(case)
    labels = dict.fromkeys(label for label, holds in _tests(case, traits, best) if holds and label != best)
    return [Diagnosis(label, f"perhaps {SENTENCES[label]}", {"guess": True, **traits.as_evidence()})
            for label in list(labels)[:MOST]]  # fmt: skip


SENTENCES = {
    "bn_other_statistics": "the statistics are not the forward's, which is a normalisation",
    "wrong_routing": "it goes to other elements: all that should arrive does, somewhere else",
    "operand_transposed": "a square matrix is used the other way round: nothing is lost, and nothing points the right way",
    "not_accumulated_over_axis": "some of the places where it is used are lost (= for += in a loop, say): what is there "
    "points the right way and is too short",
    "missing_term": "a term of a sum, one of the paths to the output, is forgotten",
    "missing_operand": "a factor is forgotten: what is there points the right way and is too long",
}


@dataclass(frozen=True)
class Traits:
    """What can be seen of a wrong Jacobian, the worst of all points.

    Attributes:
        cosine: of the angle between the wrong Jacobian and the right one.
        length: of the wrong one, the right one being 1 (Frobenius norm).
        lost: share of the wrong entries in which the backward has 0.
        excess: whether it has numbers where the derivative is 0.
        same_numbers: whether it has the right numbers in other places.
    """

    cosine: float
    length: float
    lost: float
    excess: bool
    same_numbers: bool

    @classmethod
    def of(cls, case: Case) -> Traits:
        """Of a case with finite Jacobians."""
        each = [_traits(case, view) for view in case.views]
        return min(each, key=lambda t: t.cosine)

    def as_evidence(self) -> dict[str, float]:
        """Numbers for the report."""
        return {"cosine": round(self.cosine, 3), "length": round(self.length, 3), "lost": round(self.lost, 3)}


def _traits(case: Case, view: View) -> Traits:
    found = np.where(view.known & np.isfinite(view.analytic), view.analytic, 0)
    right, wrong = view.value, case.differs(view)
    size = np.linalg.norm(right) or 1.0
    length = float(np.linalg.norm(found) / size)
    cosine = float((found * right).sum() / size**2 / (length or 1.0))
    gone = np.abs(found) <= 1e-9 * view.scale
    same = np.allclose(np.sort(found, axis=None), np.sort(right, axis=None), rtol=1e-6, atol=1e-7 * view.scale)
    lost = float(gone[wrong].mean()) if wrong.any() else 0.0
    return Traits(cosine, length, lost, bool((~gone & ~view.support).any()), same)


def _tests(case: Case, t: Traits, found: str) -> list[tuple[str, bool]]:
    """The labels in the order in which they are believed, and whether the traits speak for them."""
    is_loss = int(np.prod(case.out_shape)) == 1
    is_parameter = not is_loss and not any(b == 0 for b, _ in case.pairs["diagonal"])  # no axis of samples of its own
    square = any(_is_square(case.subject.values[i].shape) for i in case.subject.wanted)
    points_right = t.cosine > 0.4 and not t.excess
    return [
        ("bn_other_statistics", is_normalization(case)),
        ("wrong_routing", t.same_numbers and t.excess),
        ("not_accumulated_over_axis", points_right and is_parameter and t.length < 1),
        ("operand_transposed", square and abs(t.cosine) < 0.5 and not t.lost),
        ("missing_term", points_right or (found == "unexplained" and not t.excess)),
        ("missing_operand", points_right and t.length > 1 and t.lost < 0.1),
        ("not_accumulated_over_axis", points_right and t.length < 1 and is_loss),
        ("wrong_routing", t.excess),
    ]


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and shape[-1] == shape[-2] > 1
