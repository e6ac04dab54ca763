"""Every planted mistake is found and named, and no right backward is accused."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from minires.checking.planted.case import Planted
from tests.gradcheck.exam import EVERY, NOT_NAMED, OTHERWISE, SETS, dtype_of, examine, is_named

LABELS = set("""
shape dtype damages_gout damages_input aliases_gout state_leak nondeterministic not_finite low_precision ignores_upstream
missing_broadcast_sum zero_gradient sign_flipped constant_factor gradients_swapped identity_branch_lost axis_swapped
axis_reversed border_missing not_accumulated_over_axis overlap_overwritten window_offset_skipped kernel_flipped
operand_transposed spatial_shift wrong_variant bn_stats_constant bn_missing_mean_term bn_missing_variance_term
bn_other_statistics several_winners wrong_routing missing_chain_factor wrong_local_derivative missing_operand missing_term
factor_per_element mixed_over_axis wrong_weights unexplained
""".split())

every = pytest.mark.parametrize("case", EVERY, ids=lambda c: c.name)


@every
def test_a_planted_mistake_is_found_and_named(case: Planted) -> None:
    report = examine(case, case.wrong, dtype=dtype_of(case))
    assert report.verdict == "wrong", report
    wrong = {i.name for i in report.inputs if i.verdict == "wrong"}
    assert set(case.labels) <= wrong, report
    if case.name in NOT_NAMED:
        for name, labels in case.labels.items():
            (named,) = [[d.label for d in i.diagnosis] for i in report.inputs if i.name == name]
            assert named[0] in ("unexplained", *labels) and set(named[:3]) & set(labels), report  # at least it is guessed
    elif case.name in OTHERWISE:
        assert set(report.labels.values()) == {OTHERWISE[case.name]}, report
    else:
        assert is_named(case, report), report
    if not set(report.labels.values()) & {"damages_gout", "damages_input"}:  # which concern the call as a whole
        assert wrong == set(case.labels), report
    assert str(report).count("\n") < 25


@every
def test_the_right_backward_is_right(case: Planted) -> None:
    report = examine(case, case.right)
    assert report.verdict == "right", report


#: float32 inside is no mistake in float32; and what keeps its first call has had that in another test.
IN_BOTH = [c for c in EVERY if not set(c.labels.values()) & {("low_precision",), ("dtype",), ("state_leak",)}]


@pytest.mark.parametrize("case", IN_BOTH[::7], ids=lambda c: c.name)
def test_float32_finds_the_same(case: Planted) -> None:
    assert examine(case, case.right, seed=1, dtype=np.float32).verdict == "right"
    report = examine(case, case.wrong, seed=1, dtype=np.float32)
    assert report.verdict == "wrong", report
    assert case.name in NOT_NAMED or case.name in OTHERWISE or is_named(case, report), report


def test_every_label_is_planted_in_three_operations() -> None:
    """In the package's set, and once more in those of the tests."""
    for cases in (SETS["package"], [c for name, each in SETS.items() if name != "package" for c in each]):
        operations = defaultdict(set)
        for case in cases:
            for labels in case.labels.values():
                for label in labels if case.twice else labels[:1]:
                    operations[label].add(case.operation)
        assert set(operations) == LABELS
        assert {label: len(found) for label, found in operations.items() if len(found) < 3} == {}
        assert sum(case.twice for case in cases) >= 4


@pytest.mark.parametrize("name", SETS)
def test_names_are_unique_in_each_set(name: str) -> None:
    names = [case.name for case in SETS[name]]
    assert len(set(names)) == len(names)
