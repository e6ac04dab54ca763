"""Whole networks: any size, gradients everywhere, dtypes, masks, saving and rebuilding."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import models, nn
from minires.errors import ShapeError
from minires.modes import no_grad


def images(*shape: int, dtype: Any = np.float32) -> mr.Tensor:
    return mr.Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype))


def narrow(**options: Any) -> Any:
    return models.cifar_attention(1, widths=(8, 16, 32), stem=8, **options)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (37, 32), (63, 41)])
def test_any_size(size: tuple[int, int]):
    for net in (narrow(), narrow(upsample="deconv"), narrow(upsample="nearest"), models.resnet(11)):
        with no_grad():
            assert net.eval()(images(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize("size", [(32, 32), (45, 33)])
def test_imagenet_networks_take_any_size(size: tuple[int, int]):
    net = models.ImageNetAttention(
        models.AttentionConfig(
            m=(1, 1, 1), widths=(8, 16, 32), depths=(3, 2, 1), num_classes=5, stem=8, stem_kernel=7, stem_stride=2,
            stem_pool=True, after=0, last_width=64, last_units=3,
        )
    )  # fmt: skip
    with no_grad():
        assert net.eval()(images(1, 3, *size)).shape == (1, 5)


def test_small_network_on_digits():
    net = models.small_attention(widths=(8, 16), stem=8)
    with no_grad():
        assert net(images(2, 1, 28, 28)).shape == (2, 10)
        assert net.eval()(images(1, 1, 16, 19)).shape == (1, 10)
    assert [m.mask.shape for m in net.masks(images(2, 1, 28, 28))] == [(2, 8, 14, 14), (2, 16, 7, 7)]


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 3, 31, 40), r"CifarAttention: expected images of at least 32×32 pixels\n  input \(N=1, C=3, H=31, W=40\)"),
        ((1, 1, 32, 32), r"expected images with C=3 channels\n  input \(N=1, C=1, H=32, W=32\)"),
        ((3, 32, 32), r"expected a batch of images \(N, C, H, W\)\n  input \(3, 32, 32\)"),
    ],
)
def test_wrong_images(shape: tuple[int, ...], match: str):
    with pytest.raises(ShapeError, match=match):
        narrow()(images(*shape))


def test_a_wrong_layer_is_named_by_its_path():
    net = narrow()
    net.stage1[0].trunk[1].conv2 = nn.Conv2d(3, 2, 3, padding=1)
    with pytest.raises(ShapeError, match=r"conv2d(.|\n)*in module: CifarAttention.stage1.0.trunk.1.conv2$"):
        net(images(1, 3, 32, 32))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "naive"},
        {"attention": "none"},
        {"activation": "channel"},
        {"activation": "spatial"},
        {"mask": "local"},
        {"upsample": "deconv"},
        {"p": 2, "t": 1, "r": 2},
    ],
    ids=str,
)
def test_gradients_reach_every_parameter_in_float32(options: dict[str, Any]):
    net = narrow(**options)
    scores = net(images(4, 3, 32, 32))
    assert scores.dtype == np.float32
    F.cross_entropy(scores, mr.tensor([1, 2, 3, 4])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == np.float32, name
        assert np.isfinite(parameter.grad.numpy()).all() and parameter.grad.numpy().any(), name
    assert {str(b.dtype) for b in net.buffers()} == {"float32", "int64"}


def test_double_precision_stays_double():
    net = narrow().double()
    scores = net(images(2, 3, 32, 32, dtype=np.float64))
    scores.sum().backward()
    assert scores.dtype == np.float64 and {str(p.grad.dtype) for p in net.parameters()} == {"float64"}


def test_no_masks_means_the_same_net_without_mask_parameters():
    names = [name for name, _ in narrow().named_parameters() if ".mask." not in name]
    assert [name for name, _ in narrow(attention="none").named_parameters()] == names


def test_masks_of_a_network():
    net = narrow()
    net.stage2.eval()  # a frozen stage stays as it is
    before = {name: b.numpy().copy() for name, b in net.named_buffers()}
    modes = [module.training for module in net.modules()]
    maps = net.masks(images(2, 3, 32, 32))
    assert [m.name for m in maps] == ["stage1.0", "stage2.0", "stage3.0"]
    assert [m.trunk.shape for m in maps] == [(2, 8, 32, 32), (2, 16, 16, 16), (2, 32, 8, 8)]
    for each in maps:
        mask, trunk = each.mask.numpy(), each.trunk.numpy()
        assert mask.shape == trunk.shape == each.output.shape and 0 <= mask.min() and mask.max() <= 1
        np.testing.assert_allclose(each.attended.numpy(), (1 + mask) * trunk, rtol=1e-6)
        assert not each.output.requires_grad
        last = net.get_submodule(each.name).last.eval()
        np.testing.assert_array_equal(last(each.attended).numpy(), each.output.numpy())
        last.train()
    net.stage2.eval()
    assert [module.training for module in net.modules()] == modes
    assert all(np.array_equal(b.numpy(), before[name]) for name, b in net.named_buffers())
    assert not any(module._post_hooks or module._pre_hooks for module in net.modules())


def test_masks_without_a_mask_branch():
    maps = narrow(attention="none").masks(images(1, 3, 32, 32))
    assert all(m.mask is None and m.attended is m.trunk for m in maps) and len(maps) == 3


def test_masks_clean_up_after_an_error():
    net = narrow()
    with pytest.raises(ShapeError):
        net.masks(images(1, 3, 8, 8))
    assert net.training and not any(module._post_hooks for module in net.modules())


def test_he_initialisation():
    net = models.cifar_attention(1)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 3000:
            fan_in = np.prod(module.weight.shape[1:])
            assert module.weight.numpy().std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.1)
    assert not net.classifier.bias.numpy().any()


@pytest.mark.parametrize("name", [name for name in models.names() if not name.startswith(("attention", "resnet50"))])
def test_a_network_is_rebuilt_from_its_config(name: str):
    """The large ones for ImageNet: see the next test."""
    net = models.build(name, num_classes=3)
    config = json.loads(json.dumps(net.config))
    twin = models.build(config)
    assert config["name"] == name and type(twin) is type(net) and twin.config == net.config
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}


def test_config_of_imagenet_networks():
    net = models.build("attention", m=[1, 0, 0], num_classes=2)
    assert net.config["m"] == [1, 0, 0] and type(net) is models.ImageNetAttention and net.layout.m == [1, 0, 0]


def test_state_dict_round_trip():
    source, target = narrow(), narrow()
    source(images(2, 3, 32, 32))
    target.load_state_dict(source.state_dict())
    with no_grad():
        a, b = (net.eval()(images(1, 3, 33, 33)).numpy() for net in (source, target))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: models.build("attention57"), "unknown model 'attention57'; known are: attention, attention56"),
        (lambda: models.build({"m": 1}), "unknown model None"),
        (lambda: models.build("resnet", deep=3), "resnet takes no argument 'deep'; it takes: depth, num_classes"),
        (lambda: models.resnet(50), r"depth must be 9·n \+ 2"),
        (lambda: models.cifar_attention((1, 1)), r"one number for each stage, got m=\[1, 1\]"),
        (lambda: models.cifar_attention(-1), "no number may be negative"),
        (lambda: models.attention_next(57), "attention_next: depth must be one of 56, 92, got 57"),
        (lambda: models.cifar_attention(unit="resnest"), "unknown unit 'resnest'; known are: .*residual, resnext"),
        (
            lambda: models.cifar_attention(unit=lambda *sizes: nn.ResidualUnit(*sizes)),
            "it needs a name: use a class or a def",
        ),
        (lambda: nn.ResNeXtUnit(64, 96), "out_channels must be a multiple of 64, got 96"),
    ],
)
def test_wrong_configurations(call: Any, match: str):
    with pytest.raises(ValueError, match=match):
        call()
