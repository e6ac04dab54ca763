"""Gradients that are a matter of definition: mathematics leaves them open, PyTorch answers otherwise or not at all.

No numeric derivative can tell these. The docstrings and comments of the ops say what is meant; here it is held to.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import Tensor

#: What, function, its inputs, the gradients of the sum of its outputs (None: not looked at).
CASES: list[tuple[str, Callable[..., Any], list[Any], list[Any]]] = [
    ("pow: no derivative for the exponent where the base is not positive",
     F.pow, [[-1.0, 2.0], [-1.0, 1.0]], [None, [0, 2 * math.log(2)]]),
    ("pow-infinite: nor where the result is infinite as well",
     F.pow, [[0.0, -np.inf, 2.0], [-1.0, 2.0, 1.0]], [None, [0, 0, 2 * math.log(2)]]),
    ("clamp: below two equal bounds it is min that was chosen, above them max",
     F.clamp, [[-2.0, 1.0, 2.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
    ("channel_attention: 1 stands in for a norm of 0",
     F.channel_attention, [[[0.0, 0.0], [3.0, 4.0]]], [[[1, 1], [(1 - 0.6 * 1.4) / 5, (1 - 0.8 * 1.4) / 5]]]),
    ("standardize: 1 stands in for a deviation of 0",
     lambda x: F.normalization.standardize(x, (1,), 0.0)[:, 0], [[[2.0, 2.0]]], [[[0.5, -0.5]]]),
    ("binary_cross_entropy: logarithms end at -100, and the divisor at 1e-12",
     lambda x, t: F.binary_cross_entropy(x, t, reduction="sum"), [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]],
     [[-1e12, 1e12, 0, 0], [100, -100, 100, -100]]),
    ("kl_div: a class that is impossible costs nothing",
     lambda x, t: F.kl_div(x, t, reduction="sum"), [[-1.0, -2.0, 0.0], [0.0, 0.5, 1.0]],
     [[0, -0.5, -1], [0, math.log(0.5) + 3, 1]]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].partition(":")[0])
@pytest.mark.parametrize("recorded", [False, True], ids=["ordinary", "recorded"])
def test_the_gradient_is_the_one_that_is_promised(case: Any, recorded: bool) -> None:
    _, function, inputs, expected = case
    leaves = [Tensor(np.array(values), requires_grad=True) for values in inputs]
    with np.errstate(all="ignore"):
        out = function(*leaves)
    wanted = [(leaf, e) for leaf, e in zip(leaves, expected, strict=True) if e is not None]
    with np.errstate(all="warn" if np.isfinite(out.data).all() else "ignore"):  # warnings are errors
        found = mr.grad(out, [leaf for leaf, _ in wanted], np.ones(out.shape), create_graph=recorded)
    for gradient, (_, numbers) in zip(found, wanted, strict=True):
        np.testing.assert_allclose(gradient.data, numbers, rtol=1e-12, atol=1e-12)


def test_the_mean_of_nothing_hands_back_nothing() -> None:
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean itself is 0/0
        y = F.mean(x, 0)
    (gradient,) = mr.grad(y, x, np.ones(3))
    assert gradient.shape == (0, 3)
