"""Of several inputs often only one wants a gradient: weights yes, data no. A rule may then skip the others, not it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import Tensor
from tests.functional import table
from tests.functional.problem import Problem, assert_close
from tests.functional.sample import Sample


def problem_of(sample: Sample) -> Problem:
    rng = sample.rng()
    return Problem(sample.function, *sample.make(rng), rng)


def pull_back(problem: Problem, leaves: list[Tensor], upstream: list[Any], wanted: list[Tensor], record: bool) -> list[Any]:
    """The gradients of the leaves that are wanted; None where the outputs do not depend on one."""
    pairs = [(out, u) for out, u in zip(problem.outputs(leaves), upstream, strict=True) if out.requires_grad]
    if not pairs:
        return [None] * len(wanted)
    outputs, seeds = zip(*pairs, strict=True)
    return list(mr.grad(outputs, wanted, list(seeds), create_graph=record, allow_unused=True))


@pytest.mark.parametrize("sample", table.samples(), ids=lambda s: s.name)
def test_each_input_alone_gets_the_gradient_that_it_gets_among_others(sample: Sample) -> None:
    problem = problem_of(sample)
    for i, expected in enumerate(problem.gradients()):
        leaves = [Tensor(a, requires_grad=k == i) for k, a in enumerate(problem.arrays)]
        (found,) = pull_back(problem, leaves, problem.upstream, [leaves[i]], record=False)
        if expected is not None:
            found = 0 * expected if found is None else found.data
            assert_close(found, expected, f"gradient of input array {i}, alone")


def second_gradients(problem: Problem, wanted: slice) -> list[Any]:
    """The derivatives of a number made of all first gradients, for some of the leaves: the unknowns, then the upstream."""
    leaves = [Tensor(v.copy(), requires_grad=True) for v in problem.arrays + problem.upstream]
    count = len(problem.arrays)
    first = pull_back(problem, leaves[:count], leaves[count:], leaves[:count], record=True)
    total = sum(((k + 2) * (g * g).sum() for k, g in enumerate(first) if g is not None), Tensor(np.zeros(())))
    if not total.requires_grad:
        return [None] * len(leaves[wanted])
    return [None if g is None else g.data for g in mr.grad(total, leaves[wanted], allow_unused=True)]


@pytest.mark.parametrize("sample", [s for s in table.samples() if s.smooth and s.second], ids=lambda s: s.name)
def test_each_second_derivative_alone_is_what_it_is_among_others(sample: Sample) -> None:
    problem = problem_of(sample)
    for i, expected in enumerate(second_gradients(problem, slice(None))):
        (found,) = second_gradients(problem, slice(i, i + 1))
        assert (found is None) == (expected is None)
        if expected is not None:
            assert_close(found, expected, f"second derivative for leaf {i}, alone")
