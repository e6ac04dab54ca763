"""The gradient checker: right rules pass, planted bugs do not, and a kink is nobody's fault."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.checking.numeric import complex_step, richardson

RNG = np.random.default_rng(0)


def wrong(forward, rule):
    op = mr.op(forward)
    op.backward(rule)
    return op


def plain_sigmoid(input: mr.Array) -> mr.Array:
    return 1 / (1 + np.exp(-input))


def plain_softmax(input: mr.Array) -> mr.Array:
    e = np.exp(input)
    return e / e.sum(-1, keepdims=True)


def plain_product(a: mr.Array, b: mr.Array) -> mr.Array:
    return a * b


PLANTED = {
    "upstream ignored": (plain_sigmoid, lambda dy, y: y * (1 - y), 1),
    "sign": (plain_sigmoid, lambda dy, y: -dy * y * (1 - y), 1),
    "half a percent": (plain_sigmoid, lambda dy, y: dy * y * (1 - y) * 1.005, 1),
    "softmax without coupling": (plain_softmax, lambda dy, y: dy * y * (1 - y), 1),
    "zero": (plain_softmax, lambda dy, y: dy * 0, 1),
    "swapped": (plain_product, lambda dy, a, b: (dy * a, dy * b), 2),
    "nan": (plain_sigmoid, lambda dy, y: dy * np.nan, 1),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name):
    forward, rule, count = PLANTED[name]
    report = mr.gradcheck(wrong(forward, rule), tuple(RNG.standard_normal((2, 3)) for _ in range(count)))
    assert not report
    assert report.verdict == "wrong"
    assert "backward gives" in str(report)
    with pytest.raises(AssertionError, match="worst at"):
        report.raise_if_wrong()


def test_the_worst_element_is_named():
    forward, rule = plain_sigmoid, lambda dy, y: dy * y * (1 - y) + np.array([[0, 0, 0], [0, 0.1, 0]])
    (found,) = mr.gradcheck(wrong(forward, rule), RNG.standard_normal((2, 3))).inputs
    assert (found.name, found.bad, found.size, found.worst) == ("input", 1, 6, (1, 1))
    assert found.analytic - found.numeric == pytest.approx(0.1)


@pytest.mark.parametrize("order", [1, 2])
def test_right_rules_pass_with_the_complex_step(order):
    x, w = RNG.standard_normal((1, 2, 5, 4)), RNG.standard_normal((3, 2, 3, 2))
    report = mr.gradcheck(lambda x, w: F.conv2d(x, w, stride=2), (x, w), order=order)
    assert report.ok and report.reference == "complex step"
    assert [i.name for i in report.inputs] == ["x", "w"] + ["grad_output"] * (order - 1)


def test_a_second_derivative_that_the_rule_hides_is_found():
    def cube(input: mr.Array) -> mr.Array:
        return input**3

    x = RNG.standard_normal(4)
    hidden = wrong(cube, lambda dy, input: dy * mr.Tensor(3 * np.asarray(input) ** 2) if isinstance(dy, mr.Tensor)
                   else dy * 3 * input**2)  # fmt: skip
    assert mr.gradcheck(hidden, x)
    assert not mr.gradcheck(hidden, x, order=2)


def test_functions_that_are_not_complex_fall_back_to_differences():
    def real_only(input: mr.Array) -> mr.Array:
        return np.asarray(input).real.astype(np.float64) ** 3

    report = mr.gradcheck(wrong(real_only, lambda dy, input: dy * 3 * input**2), RNG.standard_normal((2, 3)))
    assert report.ok and report.reference == "Richardson differences"
    assert not mr.gradcheck(wrong(real_only, lambda dy, input: dy * 3.001 * input**2), RNG.standard_normal((2, 3)))


def test_a_kink_is_not_held_against_the_rule():
    some = mr.gradcheck(F.relu, np.array([-1.0, 0.0, 2.0]))
    assert some.ok and some.inputs[0].kinks == 1
    assert "1 of 3 elements lie at a kink" in str(some)
    every = mr.gradcheck(F.relu, np.zeros((2, 2)))
    assert not every and every.verdict == "undecidable"


def test_a_wrong_rule_at_the_bottom_of_a_parabola_is_no_kink():
    def parabola(input: mr.Array) -> mr.Array:
        return 50 * input * input

    assert mr.gradcheck(wrong(parabola, lambda dy: dy), np.zeros(3)).verdict == "wrong"


def test_a_module_is_checked_by_the_names_of_its_forward():
    report = mr.gradcheck(mr.nn.Linear(3, 2).to(np.float64), RNG.standard_normal((4, 3)))
    assert report.ok
    assert report.inputs[0].name == "input"


def test_integers_are_passed_on_and_several_outputs_are_checked():
    labels = np.array([2, 0])
    assert mr.gradcheck(F.cross_entropy, (RNG.standard_normal((2, 3)), labels))
    assert mr.gradcheck(lambda x: F.split(x, 2, 1), RNG.standard_normal((2, 5)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mr.gradcheck(F.exp, np.array([1, 2])), ValueError, "none of the inputs is floating point"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), order=3), ValueError, "order must be 1 or 2"),
        (lambda: mr.gradcheck(lambda x: x.detach(), np.ones(2)), ValueError, "no output depends on"),
        (lambda: mr.gradcheck(lambda x: x.numpy(), np.ones(2)), TypeError, "must return Tensors"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_both_references_agree():
    def function(values):
        return (values[0] ** 3 * np.exp(values[1])).sum()

    values = [RNG.standard_normal((2, 2)), RNG.standard_normal((2, 2))]
    for which in range(2):
        slopes, errors = richardson(function, values, which)
        exact = complex_step(function, values, which)
        assert (np.abs(slopes - exact) <= 10 * errors + 1e-12).all()
        assert errors.max() < 1e-8
