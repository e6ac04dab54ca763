"""``gradcheck`` and ``gradcheck_pair`` as they are called: what they take, what they say, what they leave alone."""

from __future__ import annotations

import time

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn

RNG = np.random.default_rng(3)


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
    "upstream ignored": (plain_sigmoid, lambda dy, y: y * (1 - y), 1, {"input": "ignores_upstream"}),
    "sign": (plain_sigmoid, lambda dy, y: -dy * y * (1 - y), 1, {"input": "sign_flipped"}),
    "half a percent": (plain_sigmoid, lambda dy, y: dy * y * (1 - y) * 1.005, 1, {"input": "constant_factor"}),
    "slope of x": (plain_sigmoid, lambda dy, input: dy * input * (1 - input), 1, {"input": "wrong_local_derivative"}),
    "softmax without coupling": (plain_softmax, lambda dy, y: dy * y, 1, {"input": "missing_term"}),
    "zero": (plain_softmax, lambda dy, y: dy * 0, 1, {"input": "zero_gradient"}),
    "swapped": (plain_product, lambda dy, a, b: (dy * a, dy * b), 2, {"a": "gradients_swapped", "b": "gradients_swapped"}),
    "nan": (plain_sigmoid, lambda dy, y: dy * np.nan, 1, {"input": "not_finite"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_rule_of_an_op_is_found_and_named(name):
    forward, rule, count, labels = PLANTED[name]
    report = mr.gradcheck(wrong(forward, rule), tuple(RNG.standard_normal((2, 4)) for _ in range(count)))
    assert not report and not report.ok
    assert report.verdict == "wrong"
    assert report.labels == labels
    with pytest.raises(AssertionError, match=next(iter(labels.values()))):
        report.raise_if_wrong()


def test_the_worst_element_is_named():
    forward, rule = plain_sigmoid, lambda dy, y: dy * y * (1 - y) + dy * np.array([[0, 0, 0], [0, 0.1, 0]])
    (found,) = mr.gradcheck(wrong(forward, rule), RNG.standard_normal((2, 3))).inputs
    assert (found.name, found.bad, found.size, found.worst.index) == ("input", 1, 6, (1, 1))
    assert abs(found.worst.analytic - found.worst.numeric) > found.worst.tolerance


@pytest.mark.parametrize("order", [1, 2])
def test_right_rules_pass_with_the_complex_step(order):
    x, w = RNG.standard_normal((1, 2, 5, 4)), RNG.standard_normal((3, 2, 3, 2))
    report = mr.gradcheck(lambda x, w: F.conv2d(x, w, stride=2), (x, w), order=order)
    assert report.ok and report.reference == "complex step" and report.order == order
    assert [i.name for i in report.inputs] == ["x", "w"] + ["grad_output"] * (order - 1)
    assert report.labels == {}
    assert report.coverage.elements == report.coverage.of and report.coverage.points == 2
    report.raise_if_wrong()


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


def test_a_corner_that_is_not_complex_safe_is_noticed():
    def mostly(input: mr.Array) -> mr.Array:  # np.abs drops the imaginary part, in one element of twenty
        return np.where(np.arange(20) == 7, np.abs(input) ** 3, input**3)

    report = mr.gradcheck(wrong(mostly, lambda dy, input: dy * 3 * input**2), np.abs(RNG.standard_normal(20)) + 0.1)
    assert report.ok and report.reference == "Richardson differences"


def test_a_kink_is_not_held_against_the_rule():
    some = mr.gradcheck(F.relu, np.array([-1.0, 0.0, 2.0]), points=1)
    assert some.ok and some.inputs[0].kinks == 1
    every = mr.gradcheck(F.relu, np.zeros((2, 2)), points=1)
    assert not every and every.verdict == "undecidable"
    beyond = wrong(lambda_relu, lambda dy, input: dy * (input > 0) + dy * 3.0 * (input == 0))  # no subgradient
    assert mr.gradcheck(beyond, np.array([-1.0, 0.0, 2.0])).verdict == "wrong"


def lambda_relu(input: mr.Array) -> mr.Array:
    return np.maximum(input, 0)


def test_winners_that_tie_share_one_gradient():
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])

    def all_winners(x, grad_output):
        return grad_output[:, None] * (x == x.max(axis=1, keepdims=True))

    def evenly(x, grad_output):
        winners = x == x.max(axis=1, keepdims=True)
        return grad_output[:, None] * winners / winners.sum(axis=1, keepdims=True)

    assert mr.gradcheck_pair(lambda x: x.max(axis=1), evenly, x).verdict == "right"
    report = mr.gradcheck_pair(lambda x: x.max(axis=1), all_winners, x)
    assert report.verdict == "wrong" and report.labels == {"x": "several_winners"}


def test_a_wrong_rule_at_the_bottom_of_a_parabola_is_no_kink():
    def parabola(input: mr.Array) -> mr.Array:
        return 50 * input * input

    assert mr.gradcheck(wrong(parabola, lambda dy: dy), np.zeros(3)).verdict == "wrong"


def test_a_module_is_checked_with_its_parameters_in_double_precision():
    layer = nn.BatchNorm1d(4)
    before = {name: t.numpy().copy() for name, t in layer.state_dict().items()}
    report = mr.gradcheck(nn.Sequential(nn.Linear(3, 4), layer), RNG.standard_normal((5, 3)))
    assert report.ok, report
    assert [i.name for i in report.inputs] == ["input", "0.weight", "0.bias", "1.weight", "1.bias"]
    assert layer.weight.dtype == np.float32 and layer.weight.requires_grad and layer.weight.grad is None
    assert all(np.array_equal(t.numpy(), before[name]) for name, t in layer.state_dict().items())


def test_tensors_from_outside_are_checked_if_they_are_named():
    w = mr.tensor(RNG.standard_normal((3, 2)), requires_grad=True)
    report = mr.gradcheck(lambda x: x @ w, RNG.standard_normal((4, 3)), params=[w])
    assert report.ok and [i.name for i in report.inputs] == ["x", "params[0]"]
    assert w.grad is None and w.requires_grad


def test_options_are_passed_on_and_tried_as_explanations():
    def pool(input: mr.Array, power: float = 2.0) -> mr.Array:
        return (input**power).sum(axis=1)

    op = wrong(pool, lambda dy, input: dy[:, None] * 2.0 * input)  # whatever the power is
    x = np.abs(RNG.standard_normal((3, 4))) + 0.5
    assert mr.gradcheck(op, x)
    report = mr.gradcheck(op, x, params={"power": 3.0})
    assert report.labels == {"input": "wrong_variant"} or "missing_chain_factor" in report.labels.values(), report
    named = mr.gradcheck(op, x, params={"power": 3.0}, variants={"the square": lambda x, power: F.sum(x * x, 1)})
    assert any(d.label == "wrong_variant" and "the square" in d.sentence for d in named.inputs[0].diagnosis), named


def test_integers_are_passed_on_and_several_outputs_are_checked():
    labels = np.array([2, 0])
    assert mr.gradcheck(F.cross_entropy, (RNG.standard_normal((2, 3)), labels))
    assert mr.gradcheck(lambda x: F.split(x, 2, 1), RNG.standard_normal((2, 5)))


def test_dropout_draws_the_same_numbers_every_time_and_the_generator_is_put_back():
    mr.manual_seed(5)
    expected = mr.rand(3).numpy()
    mr.manual_seed(5)
    assert mr.gradcheck(lambda x: F.dropout(x, 0.5), RNG.standard_normal((4, 5)))
    assert np.array_equal(mr.rand(3).numpy(), expected)


def test_inputs_may_have_names_and_pairs_any_natural_signature():
    def forward(x, w, scale=2.0):
        return scale * x @ w

    def backward(x, w, grad_output, scale=2.0):
        return scale * grad_output @ w.T, scale * x.T @ grad_output

    def packed_backward(inputs, grad_output):
        return backward(*inputs, grad_output, scale=1.0)

    def upstream_first(grad_output, x, w, scale):
        return backward(x, w, grad_output, scale)

    x, w = RNG.standard_normal((2, 3)), RNG.standard_normal((3, 4))
    for report in (
        mr.gradcheck_pair(lambda inputs: inputs[0] @ inputs[1], packed_backward, (x, w)),
        mr.gradcheck_pair(forward, backward, {"x": x, "w": w}, params={"scale": 3.0}),
        mr.gradcheck_pair(forward, upstream_first, (x, w), params={"scale": 1.0}),
    ):
        assert report.ok, report
    assert [i.name for i in mr.gradcheck_pair(forward, backward, (x, w)).inputs] == ["x", "w"]
    assert mr.gradcheck_pair(np.tanh, lambda x, grad_output: grad_output * (1 - np.tanh(x) ** 2), x)


def test_float32_is_checked_as_float32():
    x = RNG.standard_normal((2, 5)).astype(np.float32)
    report = mr.gradcheck_pair(lambda x: x * x, lambda x, grad_output: 2 * x * grad_output, x)
    assert report.ok and report.coverage.dtype == "float32"
    widened = mr.gradcheck_pair(lambda x: x * x, lambda x, grad_output: np.zeros(x.shape) + 2 * x * grad_output, x)
    assert widened.labels == {"x": "dtype"}
    assert mr.gradcheck(F.sigmoid, x, dtype=np.float64).coverage.dtype == "float64"


def test_slow_functions_are_looked_at_in_part():
    def forward(x):
        time.sleep(0.002)
        return np.tanh(x) @ np.ones(30)

    def backward(x, grad_output):
        return grad_output[:, None] * (1 - np.tanh(x) ** 2)

    x = RNG.standard_normal((20, 30))
    started = time.perf_counter()
    report = mr.gradcheck_pair(forward, backward, x, max_seconds=1.5)
    assert report.ok and 0 < report.inputs[0].unchecked < 600 and report.coverage.directions
    assert time.perf_counter() - started < 15  # many times over, but not the minutes that all of it would take

    def one_off(x, grad_output):
        gradient = backward(x, grad_output)
        gradient[13, 17] *= 1.01
        return gradient

    assert mr.gradcheck_pair(forward, one_off, x, max_seconds=1.5).verdict == "wrong"


def test_other_seeds_draw_other_numbers_and_the_same_seed_the_same():
    forward, rule = plain_sigmoid, lambda dy, y: 2 * dy * y * (1 - y)
    x = RNG.standard_normal((2, 3))
    first, second, other = (mr.gradcheck(wrong(forward, rule), x, seed=s).inputs[0].worst for s in (0, 0, 1))
    assert first == second != other


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mr.gradcheck(F.exp, np.array([1, 2])), ValueError, "none of the inputs is floating point"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), order=3), ValueError, "order must be 1 or 2"),
        (lambda: mr.gradcheck(lambda x: x.detach(), np.ones(2)), ValueError, "no output depends on"),
        (lambda: mr.gradcheck(lambda x: x.numpy(), np.ones(2)), TypeError, "must return Tensors"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), mode="fast"), ValueError, "mode must be 'auto', 'full' or 'directions'"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), reference="fd"), ValueError, "reference must be one of 'auto'"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), hints="all"), ValueError, "hints must be one of 'verdict'"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), points=0), ValueError, "points must be at least 1"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), dtype=np.float16), ValueError, "dtype must be float32 or float64"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), variants=3), ValueError, "variants must be 'auto', None or a dict"),
        (lambda: mr.gradcheck(F.exp, np.ones(2), params=3), TypeError, "params must be a dict of keyword options"),
        (lambda: mr.gradcheck_pair(np.exp, np.exp, np.ones(2), order=2), ValueError, "a second derivative needs"),
        (lambda: mr.gradcheck_pair(lambda x: RNG.random(2), lambda x, g: g, np.ones(2)), ValueError, "be deterministic"),
        (lambda: mr.gradcheck_pair(lambda x: x > 0, lambda x, g: g, np.ones(2)), TypeError, "must return floating point"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
