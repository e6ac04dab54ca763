"""gradcheck_model: no false alarm on right networks of every block; every planted mistake is found and named."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import models, nn
from minires.checking.network import gradcheck_model
from minires.device import Array
from minires.functional import activation, convolution, normalization
from minires.op import op
from minires.tensor import Tensor


@contextmanager
def wrong_rule(target, rule):
    """Inside the block ``target`` has another backward rule."""
    right = target.rule
    target.backward(rule)
    try:
        yield right
    finally:
        target.backward(right)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Bilinear(3, 4, 5)
        self.norm = nn.LayerNorm(5)

    def forward(self, left, right):
        return {"scores": self.norm(self.mix(left, right)), "more": [F.sigmoid(left)]}


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.linear = nn.Linear(4, 3)

    def forward(self, words):
        return F.log_softmax(self.linear(F.tanh(self.embedding(words))), -1)


class Custom(nn.Module):
    """A linear layer and whatever function."""

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 3), function

    def forward(self, x):
        return self.function(self.linear(x))


def small_attention():
    return models.small_attention(widths=(8, 16), stem=4)


def stack(*layers):
    return nn.Sequential(*layers)


rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape)


IMAGE = normal(2, 1, 16, 16)
BLOCKS = {
    "linear": lambda: (nn.Linear(3, 2), normal(2, 3), None),
    "mlp": lambda: (stack(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3)), normal(3, 4), normal(3, 3)),
    "softmax": lambda: (stack(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(-1)), normal(3, 4), None),
    "bias before batch norm": lambda: (
        stack(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)), normal(6, 4), normal(6, 3)),
    "norms": lambda: (
        stack(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.InstanceNorm2d(4, affine=True), nn.Softplus(),
              nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.4), nn.Linear(16, 3)),
        normal(3, 2, 6, 6), np.array([0, 1, 2])),
    "pooling": lambda: (
        stack(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 3, 3, 2),
              nn.Upsample(scale_factor=2, mode="bilinear"), nn.LeakyReLU(), nn.Dropout2d(0.3), nn.AdaptiveMaxPool2d(2)),
        normal(3, 2, 8, 8), None),
    "two inputs": lambda: (TwoInputs(), (normal(2, 3), normal(2, 4)), None),
    "words": lambda: (Words(), rng.integers(0, 7, (2, 5)), None),
    "residual unit": lambda: (nn.ResidualUnit(4, 8, 2), normal(2, 4, 5, 5), None),
    "channel attention": lambda: (nn.AttentionModule(8, 1, activation="channel"), normal(2, 8, 4, 4), None),
    "spatial attention": lambda: (
        nn.AttentionModule(8, 1, activation="spatial", upsample="deconv", attention="naive"),
        normal(2, 8, 4, 4), None),
    "local mask": lambda: (nn.AttentionModule(8, 1, mask="local", upsample="nearest"), normal(2, 8, 4, 4), None),
    "attention network": lambda: (small_attention(), IMAGE, np.array([1, 2])),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_right_network_is_right(name, dtype):
    mr.manual_seed(1)
    model, x, y = BLOCKS[name]()
    report = gradcheck_model(model, x, y, dtype=dtype)
    assert report, report
    inputs = [i.name for i in report.inputs]
    assert [n for n in inputs if n in dict(model.named_parameters())] == [n for n, _ in model.named_parameters()]
    assert report.coverage.of == sum(i.size for i in report.inputs)
    if dtype == np.float64 and name in ("mlp", "residual unit", "attention network"):
        assert report.coverage.visible > 0.9 * report.coverage.of


def test_evaluation_mode_points_and_seeds():
    model = small_attention()
    for seed in range(3):
        report = gradcheck_model(model.eval(), IMAGE, np.array([1, 2]), seed=seed, points=2)
        assert report and report.coverage.points == 2, report
    assert not model.training


def test_coverage_says_how_many_errors_would_show():
    report = gradcheck_model(small_attention(), IMAGE, np.array([1, 2]))
    assert "would show an error of 1e-06 of themselves" in str(report.coverage)
    assert "random direction" in str(report.coverage)


# ---------------------------------------------------------------------------------------- planted mistakes


def test_one_weight_off_by_a_millionth_is_found_and_named():
    mr.manual_seed(2)
    model = small_attention()
    name = "stage1.0.trunk.1.conv2.weight"
    weight = dict(model.named_parameters())[name]

    def rule(dy, input, weight, stride, before, dilation, groups, needs):
        dx, dw, db = right(dy, input, weight, stride, before, dilation, groups, needs)
        if weight is tampered._array:
            dw = dw.copy()
            dw[1, 0, 2, 1] *= 1 + 1e-6
        return dx, dw, db

    tampered = weight
    with wrong_rule(convolution._conv2d, rule) as right:
        report = gradcheck_model(model, IMAGE, np.array([1, 2]))
    assert report.verdict == "wrong"
    (wrong,) = [i for i in report.inputs if i.verdict == "wrong"]
    assert (wrong.name, wrong.bad, wrong.worst.index) == (name, 1, (1, 0, 2, 1)), report
    assert wrong.worst.analytic / wrong.worst.numeric - 1 == pytest.approx(1e-6, rel=1e-3)
    assert "Conv2d" in wrong.diagnosis[0].sentence and "all others are right" in wrong.diagnosis[0].sentence
    assert gradcheck_model(model, IMAGE, np.array([1, 2]))


@pytest.mark.parametrize("number", range(6))
def test_any_weight_of_any_tensor(number):
    """Also one with a tiny gradient, and also two at once."""
    choose = np.random.default_rng(number)
    mr.manual_seed(number)
    first = (nn.Conv2d(1, 3, 3), nn.BatchNormReLU(3), nn.Flatten())
    model = stack(*first, nn.Linear(3 * 14 * 14, 4), nn.Tanh(), nn.Linear(4, 3))
    parameters = dict(model.named_parameters())
    names = list(choose.choice(["0.weight", "1.weight", "3.weight", "5.weight", "5.bias"], 2, replace=False))
    places = {name: int(choose.integers(parameters[name].numel())) for name in names}

    class Tampered(nn.Module):  # some parameters go through an op that changes their gradient
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            owners = {name: model.get_submodule(name[0])._parameters for name in names}
            for name, owner in owners.items():
                owner[name[2:]] = tampering(parameters[name], places[name])
            out = self.inner(x)
            for name, owner in owners.items():
                owner[name[2:]] = parameters[name]
            return out

    report = gradcheck_model(Tampered(), IMAGE, np.array([1, 2]))
    wrong = {i.name.removeprefix("inner."): i for i in report.inputs if i.verdict == "wrong"}
    assert set(wrong) == set(names), report
    assert all(d.evidence["op"] == "tampering" for i in wrong.values() for d in i.diagnosis)
    found = {name: int(np.ravel_multi_index(i.worst.index, i.shape)) for name, i in wrong.items() if i.worst}
    assert found.items() <= places.items() and found


@op
def tampering(input: Array, place: int) -> Array:
    return input * 1


@tampering.backward
def _(dy, place):
    dx = dy.copy()
    dx.reshape(-1)[place] *= 1 + 1e-6
    return dx


def test_the_op_whose_input_gradient_is_wrong_is_named():
    mr.manual_seed(3)
    model = small_attention()

    def rule(dy, input, weight, bias, mean, variance, training, eps):
        dx, dw, db = right(dy, input, weight, bias, mean, variance, training, eps)
        return dx * 1.001, dw, db

    with wrong_rule(normalization._batch_norm_relu, rule) as right:
        report = gradcheck_model(model, IMAGE, np.array([1, 2]))
    first = report.inputs[0]
    assert (first.name, first.diagnosis[0].label) == ("stage2.1.conv3.weight", "constant_factor")
    assert first.diagnosis[0].evidence["op"] == "batch_norm_relu"
    assert first.diagnosis[0].evidence["module"] == "norm"
    assert "1001/1000" in first.diagnosis[0].sentence
    verdicts = {i.name: i.verdict for i in report.inputs}
    assert verdicts["stem.0.weight"] == verdicts["x"] == "wrong"
    assert verdicts["norm.weight"] == verdicts["classifier.weight"] == "right"


@pytest.mark.parametrize("factor, label", [(-1, "sign_flipped"), (0, "zero_gradient"), (0.5, "constant_factor")])
def test_multiples_have_their_labels(factor, label):
    mr.manual_seed(4)
    model = stack(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def rule(dy, input, weight, needs):
        dx, dw, db = right(dy, input, weight, needs)
        return dx, dw * factor, db

    with wrong_rule(F.linear, rule) as right:
        report = gradcheck_model(model, normal(5, 4), np.array([0, 1, 2, 1, 0]))
    assert report.labels == {"0.weight": label, "2.weight": label}, report
    evidence = report.inputs[0].diagnosis[0].evidence
    assert (evidence["op"], evidence["input"], evidence["layer"]) == ("linear", "weight", "Linear")
    assert report.inputs[0].bad == report.inputs[0].size


def test_wrong_gradient_of_the_input_alone():
    def rule(dy, y):
        return dy * (1 - y * y) * (1 + 1e-7)

    model = stack(nn.Tanh(), nn.Linear(4, 3))
    with wrong_rule(activation.tanh, rule):
        report = gradcheck_model(model, normal(5, 4))
    assert [i.name for i in report.inputs if i.verdict == "wrong"] == ["x"]
    assert report.inputs[0].diagnosis[0].evidence["op"] == "tanh"


def test_a_graph_that_is_cut():
    report = gradcheck_model(Custom(lambda h: h + F.tanh(h.detach())), normal(5, 4))
    assert {i.verdict for i in report.inputs} == {"wrong"}
    report = gradcheck_model(stack(Custom(lambda h: h.detach()), nn.Linear(3, 2)), normal(5, 4))
    assert report.labels == dict.fromkeys(["x", "0.linear.weight", "0.linear.bias"], "zero_gradient")
    assert "missing" in report.inputs[0].diagnosis[0].sentence and "detach" in report.inputs[0].diagnosis[0].sentence


def spoiled_by(change):
    def rule(dy, y):
        return change(dy * (1 - y * y))

    return rule


def test_not_finite_and_nondeterministic_rules():
    noise = np.random.default_rng(0)
    for change, label in ((lambda g: g * np.nan, "not_finite"), (lambda g: g * noise.random(), "nondeterministic")):

        with wrong_rule(activation.tanh, spoiled_by(change)):
            report = gradcheck_model(stack(nn.Linear(4, 3), nn.Tanh()), normal(5, 4))
        assert set(report.labels.values()) == {label}, report


# ---------------------------------------------------------------------------------------- what cannot be told


def test_a_kink_is_no_mistake():
    model = stack(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with mr.no_grad():
        model.get_submodule("1").weight.fill_(0)  # what the ReLU gets is exactly 0
    report = gradcheck_model(model, normal(5, 4))
    assert report.verdict in ("right", "undecidable") and not any(i.bad for i in report.inputs), report
    report = gradcheck_model(Custom(lambda h: F.maximum(h * 1, h * 2 - h)), normal(5, 4))  # ties everywhere
    assert report, report
    report = gradcheck_model(stack(nn.Linear(4, 3, bias=False), nn.ReLU()), np.zeros((5, 4)))
    assert report.verdict in ("right", "undecidable") and not any(i.bad for i in report.inputs), report


def test_an_infinite_loss_is_undecidable():
    with np.errstate(all="ignore"):
        report = gradcheck_model(Custom(lambda h: h / (h * 0)), normal(5, 4))
    assert report.verdict == "undecidable"


def test_no_time_is_no_error():
    report = gradcheck_model(small_attention(), IMAGE, np.array([1, 2]), max_seconds=0)
    assert report.verdict in ("right", "undecidable")


@op
def rectified(input: Array) -> Array:
    return np.abs(input)  # of a complex number its length: the complex step is lost


@rectified.backward
def _(dy, input):
    return dy * np.sign(input)


def test_differences_take_over_where_complex_numbers_do_not_work():
    x = normal(5, 4)
    report = gradcheck_model(Custom(rectified), x)
    assert report and report.reference == "Richardson differences", report
    with wrong_rule(rectified, lambda dy, input: dy * np.sign(input) * 1.01):
        report = gradcheck_model(Custom(rectified), x)
    assert report.verdict == "wrong" and set(report.labels.values()) == {"constant_factor"}, report
    assert gradcheck_model(Custom(F.tanh), x, reference="richardson").reference == "Richardson differences"


# ---------------------------------------------------------------------------------------- which parameters


def test_frozen_unused_and_chosen_parameters():
    model = stack(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model.get_submodule("0").requires_grad_(False)
    model.unused = nn.Linear(2, 2)
    model._modules.pop("unused")
    extra = Custom(F.tanh)
    extra.spare = nn.Linear(2, 2)
    x = normal(5, 4)
    report = gradcheck_model(model, x)
    assert report and [i.name for i in report.inputs] == ["x", "0.weight", "0.bias", "2.weight", "2.bias"]
    report = gradcheck_model(extra, x)
    assert report and {i.name: i.verdict for i in report.inputs}["spare.weight"] == "right"
    assert [i.name for i in gradcheck_model(model, x, params="2").inputs] == ["x", "2.weight", "2.bias"]
    weight = dict(model.named_parameters())["2.weight"]
    assert [i.name for i in gradcheck_model(model, x, params=[weight]).inputs] == ["x", "2.weight"]
    with pytest.raises(ValueError, match="params"):
        gradcheck_model(model, x, params=["nowhere"])


def test_losses():
    x, model = normal(5, 4), Custom(F.tanh)
    assert gradcheck_model(model, x, normal(5, 3), nn.L1Loss())
    assert gradcheck_model(model, Tensor(x), Tensor(np.array([0, 1, 2, 1, 0])), lambda out, y: F.cross_entropy(out * 2, y))


# ---------------------------------------------------------------------------------------- the two large ones


@pytest.mark.slow
@pytest.mark.parametrize("build, size", [(models.cifar_attention, 32), (models.attention56, 64)], ids=["cifar", "imagenet"])
def test_one_weight_of_attention_56(build, size, capsys):
    mr.manual_seed(0)
    model, x, y = build(), np.random.default_rng(0).standard_normal((2, 3, size, size)), np.array([1, 2])
    names = [name for name, _ in model.named_parameters() if name.endswith("conv2.weight")]
    tampered = dict(model.named_parameters())[names[len(names) // 2]]

    def rule(dy, input, weight, stride, before, dilation, groups, needs):
        dx, dw, db = right(dy, input, weight, stride, before, dilation, groups, needs)
        if weight is tampered._array:
            dw = dw.copy()
            dw[3, 2, 1, 0] *= 1 + 1e-6
        return dx, dw, db

    for plant in (False, True):
        started = time.perf_counter()
        with wrong_rule(convolution._conv2d, rule if plant else convolution._conv2d.rule) as right:
            report = gradcheck_model(model, x, y, max_seconds=240)
        seconds = time.perf_counter() - started
        wrong = [(i.name, i.worst.index) for i in report.inputs if i.verdict == "wrong"]
        assert wrong == ([(names[len(names) // 2], (3, 2, 1, 0))] if plant else []), report
        with capsys.disabled():
            what = "one weight off by 1e-6" if plant else "right"
            print(f"\n{type(model).__name__}, {what}: {seconds:.1f} s; {report.coverage}")
