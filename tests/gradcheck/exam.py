"""The examinations: planted mistakes in operations that the checker was not written for, by several authors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import checking
from minires.checking.planted import CASES
from minires.checking.planted.case import Planted
from tests.gradcheck import planted_algebra, planted_losses, planted_sequences, planted_vision

#: The set that ships with the package, and those of the tests.
SETS: dict[str, list[Planted]] = {
    "package": CASES,
    "sequences": planted_sequences.CASES,
    "algebra": planted_algebra.CASES,
    "vision": planted_vision.CASES,
    "losses": planted_losses.CASES,
}
EVERY = [case for cases in SETS.values() for case in cases]

#: Found, but not named: what the gradient would have to be compared with is hidden inside the forward. They are called
#: "unexplained", which is better than a wrong name.
NOT_NAMED = {
    "rnn: = for += over time": "the steps of the recurrence cannot be told apart from outside",
    "rnn: wh untransposed": "only one of the places where wh is used has it wrong",
    "layer_norm: the statistics of the columns": "five numbers a group are too few to tell",
    "layer norm: columns": "five numbers a group are too few to tell",
}

#: Named otherwise than by the author, and with equal right.
OTHERWISE = {
    "inverse: the upstream gradient is transposed": "axis_swapped",
    "focal: weight as a constant": "wrong_local_derivative",
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
