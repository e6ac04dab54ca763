"""Each layer hands its options to the op of its name: compared with a direct call of the op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.errors import ShapeError


def values(*shape: int, positive: bool = False) -> mr.Tensor:
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    return mr.Tensor(np.abs(x) if positive else x)


IMAGE = values(2, 4, 7, 9)
ROWS = values(3, 5)
PROBABLE = mr.Tensor(np.linspace(0.1, 0.9, 15, dtype=np.float32).reshape(3, 5))
CLASSES = mr.tensor([1, 0, 4])
WEIGHTS = values(5, positive=True)
COLUMNS = values(2, 8, 48)

#: name, the layer, its inputs, and the same as a direct call of the op.
CASES: list[tuple[str, Any, tuple[Any, ...], Callable[..., Any]]] = [
    ("linear", nn.Linear(5, 3), (ROWS,), lambda m, x: F.linear(x, m.weight, m.bias)),
    ("bilinear", nn.Bilinear(5, 5, 2), (ROWS, PROBABLE), lambda m, x, y: F.bilinear(x, y, m.weight, m.bias)),
    (
        "conv",
        nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2),
        (IMAGE,),
        lambda m, x: F.conv2d(x, m.weight, m.bias, (2, 1), (1, 0), (1, 2), 2),
    ),
    ("conv-same", nn.Conv2d(4, 6, 3, padding="same"), (IMAGE,), lambda m, x: F.conv2d(x, m.weight, m.bias, 1, "same")),
    (
        "conv-transpose",
        nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 2),
        (IMAGE,),
        lambda m, x: F.conv_transpose2d(x, m.weight, None, 2, 1, 1, 2, 2),
    ),
    (
        "max-pool",
        nn.MaxPool2d(3, 2, 1, 1, ceil_mode=True),
        (IMAGE,),
        lambda m, x: F.max_pool2d(x, 3, 2, 1, 1, ceil_mode=True),
    ),
    ("avg-pool", nn.AvgPool2d(3, 2, 1, True, False), (IMAGE,), lambda m, x: F.avg_pool2d(x, 3, 2, 1, True, False)),
    ("avg-pool-divisor", nn.AvgPool2d(2, divisor_override=3), (IMAGE,), lambda m, x: F.avg_pool2d(x, 2, divisor_override=3)),
    ("adaptive-avg", nn.AdaptiveAvgPool2d((3, 2)), (IMAGE,), lambda m, x: F.adaptive_avg_pool2d(x, (3, 2))),
    ("adaptive-max", nn.AdaptiveMaxPool2d(3), (IMAGE,), lambda m, x: F.adaptive_max_pool2d(x, 3)),
    ("upsample", nn.Upsample(scale_factor=2), (IMAGE,), lambda m, x: F.interpolate(x, scale_factor=2)),
    (
        "upsample-bilinear",
        nn.Upsample((5, 12), mode="bilinear", align_corners=True),
        (IMAGE,),
        lambda m, x: F.interpolate(x, (5, 12), mode="bilinear", align_corners=True),
    ),
    (
        "batch-norm",
        nn.BatchNorm2d(4, 1e-3, 0.3).eval(),
        (IMAGE,),
        lambda m, x: F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, False, 0.3, 1e-3),
    ),
    ("batch-norm-1d", nn.BatchNorm1d(5, affine=False), (ROWS,), lambda m, x: F.batch_norm(x, None, None, None, None, True)),
    ("layer-norm", nn.LayerNorm([7, 9], 1e-3), (IMAGE,), lambda m, x: F.layer_norm(x, (7, 9), m.weight, m.bias, 1e-3)),
    ("layer-norm-no-bias", nn.LayerNorm(5, bias=False), (ROWS,), lambda m, x: F.layer_norm(x, (5,), m.weight)),
    ("group-norm", nn.GroupNorm(2, 4), (IMAGE,), lambda m, x: F.group_norm(x, 2, m.weight, m.bias)),
    ("instance-norm", nn.InstanceNorm2d(4), (IMAGE,), lambda m, x: F.instance_norm(x)),
    ("relu", nn.ReLU(inplace=True), (ROWS,), lambda m, x: F.relu(x)),
    ("leaky-relu", nn.LeakyReLU(0.2), (ROWS,), lambda m, x: F.leaky_relu(x, 0.2)),
    ("sigmoid", nn.Sigmoid(), (ROWS,), lambda m, x: F.sigmoid(x)),
    ("tanh", nn.Tanh(), (ROWS,), lambda m, x: F.tanh(x)),
    ("softplus", nn.Softplus(2.0, 1.0), (ROWS,), lambda m, x: F.softplus(x, 2.0, 1.0)),
    ("silu", nn.SiLU(), (ROWS,), lambda m, x: F.silu(x)),
    ("gelu", nn.GELU("tanh"), (ROWS,), lambda m, x: F.gelu(x, "tanh")),
    ("softmax", nn.Softmax(0), (ROWS,), lambda m, x: F.softmax(x, 0)),
    ("log-softmax", nn.LogSoftmax(1), (ROWS,), lambda m, x: F.log_softmax(x, 1)),
    ("dropout-off", nn.Dropout(0.9).eval(), (ROWS,), lambda m, x: x),
    ("dropout2d-off", nn.Dropout2d(0.9).eval(), (IMAGE,), lambda m, x: x),
    ("embedding", nn.Embedding(6, 3), (CLASSES,), lambda m, i: F.embedding(i, m.weight)),
    ("flatten", nn.Flatten(2), (IMAGE,), lambda m, x: x.reshape(2, 4, 63)),
    ("unflatten", nn.Unflatten(-3, (2, -1)), (IMAGE,), lambda m, x: x.reshape(2, 2, 2, 7, 9)),
    ("unfold", nn.Unfold(2, 1, 0, 1), (IMAGE,), lambda m, x: F.unfold(x, 2, 1, 0, 1)),
    ("fold", nn.Fold((7, 9), 2), (values(2, 16, 48),), lambda m, x: F.fold(x, (7, 9), 2)),
    (
        "cross-entropy",
        nn.CrossEntropyLoss(WEIGHTS, 0, "sum", 0.1),
        (ROWS, CLASSES),
        lambda m, x, t: F.cross_entropy(x, t, weight=WEIGHTS, ignore_index=0, reduction="sum", label_smoothing=0.1),
    ),
    (
        "nll",
        nn.NLLLoss(WEIGHTS, reduction="none"),
        (ROWS, CLASSES),
        lambda m, x, t: F.nll_loss(x, t, weight=WEIGHTS, reduction="none"),
    ),
    ("mse", nn.MSELoss("sum"), (ROWS, PROBABLE), lambda m, x, t: F.mse_loss(x, t, reduction="sum")),
    ("l1", nn.L1Loss(), (ROWS, PROBABLE), lambda m, x, t: F.l1_loss(x, t)),
    ("smooth-l1", nn.SmoothL1Loss(beta=0.3), (ROWS, PROBABLE), lambda m, x, t: F.smooth_l1_loss(x, t, beta=0.3)),
    ("bce", nn.BCELoss(WEIGHTS), (PROBABLE, PROBABLE), lambda m, x, t: F.binary_cross_entropy(x, t, weight=WEIGHTS)),
    (
        "bce-logits",
        nn.BCEWithLogitsLoss(pos_weight=WEIGHTS),
        (ROWS, PROBABLE),
        lambda m, x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=WEIGHTS),
    ),
    ("kl-div", nn.KLDivLoss("batchmean"), (ROWS, PROBABLE), lambda m, x, t: F.kl_div(x, t, reduction="batchmean")),
]


@pytest.mark.parametrize(("name", "layer", "inputs", "direct"), CASES, ids=[c[0] for c in CASES])
def test_layer_is_its_op(name: str, layer: nn.Module, inputs: tuple[Any, ...], direct: Callable[..., Any]):
    out = layer(*inputs)
    np.testing.assert_array_equal(out.numpy(), direct(layer, *inputs).numpy())
    assert out.dtype == np.float32
    assert repr(layer).startswith(f"{type(layer).__name__}(")


def test_max_pool_and_unpool():
    pooled, indices = nn.MaxPool2d(2, return_indices=True)(IMAGE)
    restored = nn.MaxUnpool2d(2)(pooled, indices, output_size=(7, 9))
    assert restored.shape == IMAGE.shape
    np.testing.assert_array_equal(np.sort(restored.numpy()[restored.numpy() != 0]), np.sort(pooled.numpy().ravel()))
    _, where = nn.AdaptiveMaxPool2d(2, return_indices=True)(IMAGE)
    assert where.shape == (2, 4, 2, 2) and where.dtype == np.int64
    assert "kernel_size=2" in repr(nn.MaxUnpool2d(2))


def test_dropout_follows_the_mode():
    mr.manual_seed(0)
    x = mr.Tensor(np.ones((20, 30, 2, 2), np.float32))
    for layer, groups in ((nn.Dropout(0.25), 2400), (nn.Dropout2d(0.25), 600)):
        out = layer(x).numpy()
        assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
        kept = out.any(axis=(2, 3)).mean() if groups == 600 else (out > 0).mean()
        assert kept == pytest.approx(0.75, abs=0.06)
        assert np.array_equal(layer.eval()(x).numpy(), x.numpy())


def test_conv_transpose_reaches_a_given_size():
    layer = nn.ConvTranspose2d(4, 4, 4, 2, 1)
    assert layer(IMAGE).shape == (2, 4, 14, 18)
    assert layer(IMAGE, output_size=(15, 18)).shape == (2, 4, 15, 18)
    with pytest.raises(ShapeError, match=r"output_size \(16, 18\) is out of reach, possible are \(14, 18\) to \(15, 19\)"):
        layer(IMAGE, output_size=(16, 18))


# ------------------------------------------------------------------------------------------------ moving statistics


def test_batch_norm_tracks_mean_and_variance():
    layer, x = nn.BatchNorm2d(4, momentum=0.1), IMAGE.numpy()
    layer(IMAGE)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * x.mean((0, 2, 3)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * x.var((0, 2, 3), ddof=1), rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1
    before = layer.running_mean.numpy().copy()
    layer.eval()(IMAGE)
    assert np.array_equal(layer.running_mean.numpy(), before) and layer.num_batches_tracked.item() == 1
    layer.reset_running_stats()
    assert layer.running_var.tolist() == [1] * 4 and layer.num_batches_tracked.item() == 0


def test_cumulative_average():
    layer = nn.BatchNorm2d(4, momentum=None)
    batches = [values(2, 4, 3, 5), values(6, 4, 2, 2), values(3, 4, 4, 4)]
    for batch in batches:
        layer(batch)
    means = [b.numpy().mean((0, 2, 3)) for b in batches]
    np.testing.assert_allclose(layer.running_mean.numpy(), np.mean(means, axis=0), rtol=1e-5, atol=1e-7)


def test_without_tracking_the_batch_counts_in_evaluation_too():
    layer = nn.BatchNorm2d(4, track_running_stats=False)
    a, b = layer(IMAGE).numpy(), layer.eval()(IMAGE).numpy()
    np.testing.assert_array_equal(a, b)
    assert layer.running_mean is None and list(layer.state_dict()) == ["weight", "bias"]


def test_two_forward_passes_before_one_backward():
    layer = nn.BatchNorm2d(4)
    loss = (layer(IMAGE) * IMAGE).sum() + (layer(IMAGE * 2) * IMAGE).sum()
    loss.backward()
    assert layer.num_batches_tracked.item() == 2 and layer.weight.grad is not None


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: nn.BatchNorm2d(3)(IMAGE), r"BatchNorm2d: expected N C H W with C=3\n  input \(N=2, C=4, H=7, W=9\)"),
        (lambda: nn.BatchNorm1d(4)(IMAGE), "BatchNorm1d: expected N C or N C L with C=4"),
        (lambda: nn.Linear(0, 3), "in_features must be a whole number >= 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 3.5), r"kernel_size must be a whole number >= 1, got \(3.5, 3.5\)"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "multiples of groups, got in_channels=3, out_channels=4, groups=2"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="reflect"), "padding_mode must be 'zeros', got 'reflect'"),
        (lambda: nn.GroupNorm(3, 4), "multiple of num_groups, got num_channels=4, num_groups=3"),
        (lambda: nn.Dropout(1.5), "p must be a probability between 0 and 1, got 1.5"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), "padding_idx 3 is out of range for 3 rows"),
        (lambda: nn.MSELoss("average"), "reduction must be 'mean', 'sum' or 'none', got 'average'"),
    ],
)
def test_wrong_options(call: Callable[[], Any], match: str):
    with pytest.raises(ValueError, match=match):
        call()


def test_buffers_of_losses_move_with_them():
    loss = nn.CrossEntropyLoss(WEIGHTS)
    assert loss.double().weight.dtype == np.float64
