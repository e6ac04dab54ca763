"""The examinations: planted mistakes in operations that the checker was not written for, by several authors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import checking
from minires.checking.planted import CASES
from minires.checking.planted.case import Planted
from tests.gradcheck import (
    planted_algebra,
    planted_losses,
    planted_sequences,
    planted_vision,
    sealed_fifth,
    sealed_first,
    sealed_fourth,
    sealed_second,
    sealed_sixth,
    sealed_third,
)

#: The set that ships with the package, and those of the tests.
SETS: dict[str, list[Planted]] = {
    "package": CASES,
    "sequences": planted_sequences.CASES,
    "algebra": planted_algebra.CASES,
    "vision": planted_vision.CASES,
    "losses": planted_losses.CASES,
    "first sealed exam": sealed_first.CASES,
    "second sealed exam": sealed_second.CASES,
    "third sealed exam": sealed_third.CASES,
    "fourth sealed exam": sealed_fourth.CASES,
    "fifth sealed exam": sealed_fifth.CASES,
    "sixth sealed exam": sealed_sixth.CASES,
}
#: Cases in which the checker sees things otherwise than their author, on purpose.
LEFT_OUT = {
    "embedding_bag: no slot for the ids": "who returns gradients of the floating point inputs alone is understood",
    "triplet_loss: differences written over the inputs": "only the inputs that are written over are blamed, not all three",
}
EVERY = [case for cases in SETS.values() for case in cases if case.name not in LEFT_OUT]

#: Found, but not named: what the gradient would have to be compared with is hidden inside the forward. They are called
#: "unexplained", which is better than a wrong name.
NOT_NAMED = {
    "rnn: = for += over time": "the steps of the recurrence cannot be told apart from outside",
    "rnn: wh untransposed": "only one of the places where wh is used has it wrong",
    "layer_norm: the statistics of the columns": "five numbers a group are too few to tell",
    "layer norm: columns": "five numbers a group are too few to tell",
    "best path: the backpointers are taken along the other axis": "the path is hidden in the recursion",
    "Elman net: the input weights keep one time step": "the steps of the recurrence cannot be told apart from outside",
    "GRU blend: the old state's path through the candidate is lost": "the path is no term of its own in the Jacobian",
    "repulsion: no reaction, only the first of a pair gets the force": "pairs are not seen from outside",
    "lstm_cell: forget gate forgotten": "the gate is computed inside",
    "cross_entropy: target not subtracted": "the target is smoothed inside",
    "weight_norm_linear: the projection is missing": "the normalisation is hidden behind a product",
    "squeeze_excite: x gets no gradient through its mean": "the path is hidden behind two layers",
    "rnn: w gradient assigned in the loop over time": "the steps of the recurrence cannot be told apart from outside",
    "smoothed cross-entropy: the targets are not subtracted": "the targets are smoothed inside",
    "attention: the softmax is differentiated without its row sum": "the softmax is hidden between two products",
}

#: Named otherwise than by the author, and with equal right.
OTHERWISE = {
    "inverse: the upstream gradient is transposed": "axis_swapped",
    "focal: weight as a constant": "wrong_local_derivative",
    "one_pole: later outputs forgotten": "wrong_local_derivative",
    "barycentric_blend: weights of the next corner": "spatial_shift",
    "take columns: repeated columns are added once": "border_missing",
    "unfold2d: the loop starts at one": "border_missing",
    "power spectrum: the inverse transform counts inner frequencies twice": "wrong_weights",
    "sum of the largest: one too many gets its share": "wrong_variant",
}


def inputs_of(case: Planted, seed: int = 0, dtype: Any = np.float64) -> tuple[Any, ...]:
    """The case's inputs for a seed, with floating point ones in ``dtype``."""
    values = [np.asarray(v) for v in case.inputs(np.random.default_rng(1000 + seed))]
    return tuple(v.astype(dtype) if v.dtype.kind == "f" else v for v in values)


def dtype_of(case: Planted) -> Any:
    """The dtype in which the mistake shows: a buffer of float64 is one for float32 inputs only, and the other way round."""
    if not any("dtype" in labels for labels in case.labels.values()):
        return np.float64
    return np.float64 if examine(case, case.wrong, dtype=np.float64).verdict == "wrong" else np.float32


def examine(case: Planted, backward: Any, seed: int = 0, dtype: Any = np.float64, **options: Any) -> checking.Report:
    """The checker's report on one of the case's backwards."""
    values = inputs_of(case, seed, dtype)
    return checking.gradcheck_pair(case.forward, backward, values, params=dict(case.options), seed=seed, **options)


def is_named(case: Planted, report: checking.Report) -> bool:
    """Whether every wrong input has one of its labels at first place (of a double mistake, all of them)."""
    for name, labels in case.labels.items():
        (found,) = [[d.label for d in i.diagnosis] for i in report.inputs if i.name == name]
        if not found or found[0] not in labels or (case.twice and not set(labels) <= set(found)):
            return False
    return True
