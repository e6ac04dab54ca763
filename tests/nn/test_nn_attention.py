"""Residual unit, mask and attention module: what the paper says about them, in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.errors import ShapeError


def images(*shape: int, dtype: Any = np.float32) -> mr.Tensor:
    return mr.Tensor(np.random.default_rng(1).standard_normal(shape).astype(dtype))


def batch_norm_relu(x: np.ndarray, bn: Any) -> np.ndarray:
    """In training mode, in plain NumPy."""
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    scale, shift = bn.weight.numpy()[:, None, None], bn.bias.numpy()[:, None, None]
    return np.maximum((x - mean) / np.sqrt(var + bn.eps) * scale + shift, 0)


def conv1x1(x: np.ndarray, conv: Any, stride: int = 1) -> np.ndarray:
    return np.einsum("nchw,oc->nohw", x[:, :, ::stride, ::stride], conv.weight.numpy()[:, :, 0, 0])


# ------------------------------------------------------------------------------------------------ the unit


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (8, 2), (6, 1), (6, 2)])
def test_unit_step_by_step(channels: int, stride: int):
    unit = nn.ResidualUnit(channels, 8, stride).double()
    x = images(3, channels, 5, 7, dtype=np.float64)
    out = unit(x).numpy()
    a = batch_norm_relu(x.numpy(), unit.bn1)
    y = batch_norm_relu(conv1x1(a, unit.conv1), unit.bn2)
    padded = np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernel = unit.conv2.weight.numpy()
    z = sum(
        np.einsum("nchw,oc->nohw", padded[:, :, u : u + 5 : stride, v : v + 7 : stride], kernel[:, :, u, v])
        for u in range(3)
        for v in range(3)
    )
    z = conv1x1(batch_norm_relu(z, unit.bn3), unit.conv3)
    if channels == 8 and stride == 1:
        assert unit.projection is None
        shortcut = x.numpy()  # raw, before batch norm
    else:
        shortcut = conv1x1(a, unit.projection, stride)  # of the activated input
    np.testing.assert_allclose(out, z + shortcut, rtol=1e-10, atol=1e-10)


def test_unit_refuses_fractional_channels():
    with pytest.raises(ValueError, match="out_channels must be a multiple of 4, got 10"):
        nn.ResidualUnit(8, 10)


# ------------------------------------------------------------------------------------------------ the mask


def test_masks_without_pooling_and_with():
    for depth in range(4):
        mask = nn.SoftMask(8, depth)
        out = mask(images(2, 8, 17, 22))
        assert out.shape == (2, 8, 17, 22) and 0 < out.numpy().min() and out.numpy().max() < 1
        units = sum(isinstance(m, nn.ResidualUnit) for m in mask.modules())
        assert units == (2 if depth < 1 else 2 + 3 * (depth - 1))
        assert sum(isinstance(m, nn.Resize) for m in mask.modules()) == depth


def test_the_mask_sees_the_whole_image_and_the_local_one_does_not():
    def reach(mask: nn.Module) -> int:
        mask.eval()
        x = images(1, 8, 32, 32).requires_grad_()
        mask(x)[0, :, 16, 16].sum().backward()
        return int((np.abs(x.grad.numpy()).sum((0, 1)) > 0).sum())

    assert reach(nn.LocalMask(8)) <= 7 * 7
    assert reach(nn.SoftMask(8, 3)) > 200


@pytest.mark.parametrize("upsample", ["bilinear", "nearest", "deconv"])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (15, 14)])
def test_resize(upsample: str, size: tuple[int, int]):
    pooled = nn.MaxPool2d(3, 2, ceil_mode=True)(images(1, 2, *size))
    assert nn.Resize(2, upsample)(pooled, size).shape == (1, 2, *size)


def test_resize_examples():
    x = mr.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    rows = nn.Resize(1)(x, (4, 4)).numpy()[0, 0]
    np.testing.assert_allclose(rows[1], [1.6667, 2, 2.3333, 2.6667], atol=1e-4)
    ramp = mr.Tensor(np.broadcast_to(np.arange(8, dtype=np.float32), (1, 1, 8, 8)))
    inner = nn.Resize(1, "deconv")(ramp, (16, 16)).numpy()[0, 0, 5, 4:9]
    np.testing.assert_allclose(inner, [1.75, 2.25, 2.75, 3.25, 3.75], rtol=1e-6)


def test_too_small_an_image():
    with pytest.raises(ShapeError, match=r"SoftMask: 3 poolings(.|\n)*H=7, W=9\)\n  in module: AttentionModule.mask$"):
        nn.AttentionModule(8, 3)(images(1, 8, 7, 9))
    assert nn.AttentionModule(8, 3)(images(2, 8, 8, 9)).shape == (2, 8, 8, 9)


# ------------------------------------------------------------------------------------------------ the module


def test_forms_of_attention():
    module = nn.AttentionModule(8, 1)
    maps = nn.attention_maps(module, images(2, 8, 9, 9))[0]
    trunk, mask = maps.trunk.numpy(), maps.mask.numpy()
    assert maps.name == "AttentionModule"
    np.testing.assert_allclose(maps.attended.numpy(), (1 + mask) * trunk, rtol=1e-6)
    module.attention = "naive"
    np.testing.assert_allclose(nn.attention_maps(module, images(2, 8, 9, 9))[0].attended.numpy(), mask * trunk, rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask", ["encoder-decoder", "local"])
def test_with_the_mask_forced_to_zero_a_module_is_its_trunk_and_last_unit(training: bool, mask: str):
    module = nn.AttentionModule(8, 2, mask=mask).train(training)
    plain = nn.AttentionModule(8, 2, attention="none").train(training)
    state = module.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    x = images(2, 8, 9, 11)
    expected = plain(x).numpy()
    assert not np.allclose(module(x).numpy(), expected)
    with nn.force_mask(module, 0.0):
        out = module(x)
        np.testing.assert_array_equal(out.numpy(), expected)
        assert not nn.attention_maps(module, x)[0].mask.numpy().any()
        out.sum().backward()
    assert all(p.grad is None for p in module.mask.parameters())
    assert all(p.grad is not None for p in module.trunk.parameters())
    assert not np.allclose(module(x).numpy(), expected)


def test_mask_activations():
    x = images(2, 8, 9, 11)
    channel = nn.attention_maps(nn.AttentionModule(8, 1, activation="channel"), x)[0].mask.numpy()
    np.testing.assert_allclose((channel**2).sum(1), 1, rtol=1e-5)
    spatial = nn.attention_maps(nn.AttentionModule(8, 1, activation="spatial"), x)[0].mask.numpy().astype(np.float64)
    scores = np.log(spatial / (1 - spatial))
    np.testing.assert_allclose(scores.mean((2, 3)), 0, atol=1e-3)


def test_any_unit_class():
    def unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, padding=1), nn.ReLU())

    module = nn.AttentionModule(5, 2, unit=unit)
    assert module(images(1, 5, 8, 8)).shape == (1, 5, 8, 8)
    assert not any(isinstance(m, nn.ResidualUnit) for m in module.modules())


def test_gradient_of_the_module_is_right():
    """The directional derivative of a whole module, by central differences in float64."""
    module = nn.AttentionModule(4, 2).double()
    x = images(2, 4, 9, 8, dtype=np.float64)
    weights = images(2, 4, 9, 8, dtype=np.float64)
    (module(x) * weights).sum().backward()
    rng = np.random.default_rng(5)
    steps = [rng.standard_normal(p.shape) for p in module.parameters()]
    slope = sum(float((p.grad.numpy() * s).sum()) for p, s in zip(module.parameters(), steps, strict=True))
    values = []
    for h in (1e-6, -2e-6):
        for parameter, step in zip(module.parameters(), steps, strict=True):
            parameter.assign(parameter.data + h * step)
        values.append((module(x) * weights).sum().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: nn.AttentionModule(8, 1, attention="soft"), "must be one of 'residual', 'naive', 'none', got 'soft'"),
        (lambda: nn.AttentionModule(8, 1, activation="relu"), "activation must be one of 'mixed', 'channel', 'spatial'"),
        (lambda: nn.AttentionModule(8, 1, mask="global"), "mask must be one of 'encoder-decoder', 'local', got 'global'"),
        (lambda: nn.AttentionModule(8, 1, upsample="cubic"), "upsample must be one of 'bilinear', 'nearest', 'deconv'"),
        (lambda: nn.AttentionModule(8, 1, t=0), "p must be >= 0 and t >= 1"),
        (lambda: nn.SoftMask(8, -1), "depth must be >= 0 and r >= 1"),
        (lambda: nn.LocalMask(8, activation=""), "LocalMask: activation must be one of"),
    ],
)
def test_wrong_options(call: Any, match: str):
    with pytest.raises(ValueError, match=match):
        call()


def test_batch_norm_relu_is_batch_norm_and_relu():
    fused, plain = nn.BatchNormReLU(3), nn.BatchNorm2d(3)
    x = images(2, 3, 4, 5)
    np.testing.assert_allclose(fused(x).numpy(), F.relu(plain(x)).numpy(), rtol=1e-5, atol=1e-6)
    assert list(fused.state_dict()) == list(plain.state_dict())
    for name, value in fused.state_dict().items():
        np.testing.assert_allclose(value.numpy(), plain.state_dict()[name].numpy(), rtol=1e-6)


def test_prints():
    text = repr(nn.AttentionModule(8, 1, attention="naive", mask="local", activation="channel"))
    assert "AttentionModule(attention='naive'" in text and "LocalMask(activation='channel'" in text
    text = repr(nn.SoftMask(8, 1, upsample="nearest"))
    assert text.startswith("SoftMask(depth=1, activation='mixed'") and "(resize0): Resize(mode='nearest')" in text
