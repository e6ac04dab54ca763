"""A student's own unit stands wherever the package's own units stand: in a module, in a network, in a checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import models, nn
from minires.models import registry

PAGE = Path(__file__).parents[2] / "docs" / "own_unit.md"
SMALL = {"widths": (8, 16, 32), "stem": 8}


def images(*shape: int) -> mr.Tensor:
    return mr.Tensor(np.random.default_rng(0).standard_normal(shape, np.float32))


@pytest.fixture(autouse=True)
def forgotten_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_units", dict(registry._units))


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's example defines."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    ("build", "shape"),
    [(models.cifar_attention, (2, 3, 32, 32)), (models.small_attention, (2, 1, 29, 29))],
)
def test_the_page_s_inception_unit_trains(build: Any, shape: tuple[int, ...], page: dict[str, Any]):
    sizes = {"widths": (8, 16), "depths": (2, 1), "stem": 8}
    net = build(unit=page["InceptionUnit"], **sizes)
    units = [module for module in net.modules() if type(module) is page["InceptionUnit"]]
    assert units and not any(isinstance(module, nn.ResidualUnit) for module in net.modules())
    F.cross_entropy(net(images(*shape)), mr.tensor([1, 2])).backward()
    assert all(np.isfinite(p.grad.numpy()).all() and p.grad.numpy().any() for p in net.parameters())


def test_a_checkpoint_holds_the_name_of_the_unit(page: dict[str, Any]):
    unit = page["InceptionUnit"]
    net = models.cifar_attention(unit=unit, **SMALL)
    config = json.loads(json.dumps(net.config))
    assert config["unit"] == "InceptionUnit"
    twin = models.build(config)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}
    registry._units.pop("InceptionUnit")  # as in a program that never saw it
    with pytest.raises(ValueError, match=r"unknown unit 'InceptionUnit'; .* imported first, and registered by models.regi"):
        models.build(config)
    assert models.register_unit(unit) is unit and "InceptionUnit" in models.units()
    assert models.build(config).config == net.config


def test_names_of_our_own_units():
    assert models.cifar_attention(unit=nn.ResidualUnit, **SMALL).config["unit"] == "residual"
    assert models.cifar_attention(**SMALL).config["unit"] == "residual"

    def residual(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return nn.ResidualUnit(in_channels, out_channels, stride)

    with pytest.raises(ValueError, match="'residual' is one of the package's own"):
        models.register_unit(residual)


@pytest.mark.parametrize(("channels", "stride"), [(64, 1), (64, 2), (3, 1)])
def test_resnext_unit_step_by_step(channels: int, stride: int):
    """In evaluation mode with fresh statistics, batch norm is a division by √(1 + eps)."""
    unit = nn.ResNeXtUnit(channels, 64, stride).double().eval()
    x = np.random.default_rng(1).standard_normal((2, channels, 5, 6))
    norm = 1 / np.sqrt(1 + 1e-5)

    def one(values: np.ndarray, conv: Any, step: int = 1) -> np.ndarray:
        return np.einsum("nchw,oc->nohw", values[:, :, ::step, ::step], conv.weight.numpy()[:, :, 0, 0]) * norm

    y = np.maximum(one(x, unit.conv1), 0)
    padded = np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernel = unit.conv2.weight.numpy()
    assert kernel.shape == (32, 1, 3, 3)  # each group sees one channel
    z = sum(padded[:, :, u : u + 5 : stride, v : v + 6 : stride] * kernel[:, 0, u, v][:, None, None]
            for u in range(3) for v in range(3)) * norm  # fmt: skip
    changes = channels != 64 or stride != 1
    assert (unit.projection is not None) == changes
    shortcut = one(x, unit.projection[0], stride) if changes else x  # of the input as it is
    expected = np.maximum(one(np.maximum(z, 0), unit.conv3) + shortcut, 0)
    np.testing.assert_allclose(unit(mr.Tensor(x)).numpy(), expected, rtol=1e-10, atol=1e-10)


def test_after_units_that_end_in_a_relu_there_is_no_second_one():
    net = models.cifar_attention(widths=(64, 128), depths=(2, 1), unit="resnext")
    assert len(net.norm) == 0 and [type(layer) for layer in net.stage1[0].mask.head] == [
        nn.Conv2d, nn.BatchNormReLU, nn.Conv2d,
    ]  # fmt: skip
    local = nn.AttentionModule(64, 0, mask="local", unit=nn.ResNeXtUnit)
    assert len(local.mask.head) == 3
    assert net.eval()(images(1, 3, 33, 35)).shape == (1, 10)
