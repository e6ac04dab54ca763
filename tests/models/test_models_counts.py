"""The networks are the paper's to the last parameter, layer and multiply-add (Wang et al. 2017, Tables 1, 2 and 6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import models, nn
from minires.modes import no_grad

#: What is built once for all tests of this file; nothing here changes a network.
build = cache(lambda name, *options: models.build(name, **dict(options)))

PARAMETERS = {
    ("attention56",): 31_810_728,
    ("attention92",): 52_466_344,
    ("cifar_attention",): 1_030_394,
    ("cifar_attention", ("m", 2)): 1_841_274,
    ("cifar_attention", ("m", 3)): 2_652_154,
    ("cifar_attention", ("m", 4)): 3_463_034,
    ("cifar_attention", ("m", 6)): 5_084_794,
    ("cifar_attention", ("m", 6), ("p", 2), ("t", 4), ("r", 3)): 10_181_242,
    ("cifar_attention", ("num_classes", 100)): 1_030_394 + 23_130,
    ("wide_attention",): 7_202_794,
    ("resnet164",): 1_703_258,
}


@pytest.mark.parametrize("config", PARAMETERS, ids=str)
def test_parameters(config: tuple[Any, ...]):
    model = build(*config)
    assert nn.count_parameters(model) == nn.count_parameters(model, trainable=True) == PARAMETERS[config]


@pytest.mark.parametrize(
    ("m", "count"), [((2, 3, 4), 65_294_504), ((3, 4, 5), 78_122_664), ((4, 5, 6), 90_950_824), ((5, 6, 7), 103_778_984)]
)
def test_parameters_of_the_larger_family(m: tuple[int, ...], count: int):
    """More of the modules of Attention-56 (building them all would take seconds)."""
    net = build("attention56")
    modules = [nn.count_parameters(net.get_submodule(f"stage{i}.0")) for i in (1, 2, 3)]
    assert nn.count_parameters(net) + sum((k - 1) * n for k, n in zip(m, modules, strict=True)) == count


def test_parameters_of_attention_next():
    """Of its two stages of several modules one module each is built: 92 has the modules of 56, once more or twice."""
    net = build("attention_next")
    modules = [nn.count_parameters(net.get_submodule(f"stage{i}.0")) for i in (1, 2, 3)]
    assert nn.count_parameters(net) == 31_318_824
    assert 31_318_824 + modules[1] + 2 * modules[2] == 52_102_952


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (("resnet50",), 25_557_032),
        (("attention_next", ("depth", 92)), 52_102_952),
        (("attention", ("m", (2, 3, 4))), 65_294_504),
        (("attention", ("m", (3, 4, 5))), 78_122_664),
        (("attention", ("m", (4, 5, 6))), 90_950_824),
        (("attention", ("m", (5, 6, 7))), 103_778_984),
    ],
    ids=str,
)
def test_parameters_of_large_networks_as_built(config: tuple[Any, ...], count: int):
    assert nn.count_parameters(models.build(config[0], **dict(config[1:]))) == count


def test_batch_norm_statistics():
    statistics = [b for name, b in build("attention56").named_buffers() if "running" in name]
    assert 31_810_728 + sum(b.numel() for b in statistics) == 31_883_432


def test_parameters_of_each_row_of_table_2():
    net = build("attention56")
    rows = {
        "stem": 9_408 + 128,
        "unit1": 73_728 + 384,
        "stage1.0": 976_896,
        "unit2": 376_832 + 1_024,
        "stage2.0": 3_046_912,
        "unit3": 1_507_328 + 2_048,
        "stage3.0": 8_804_352,
        "last.0": 6_033_408,
        "last.1": 4_462_592,
        "last.2": 4_462_592,
        "norm": 4_096,
        "classifier": 2_049_000,
    }
    assert {path: nn.count_parameters(net.get_submodule(path)) for path in rows} == rows
    assert sum(rows.values()) == 31_810_728
    assert [name for name, _ in net.named_children()] == [
        "stem", "unit1", "stage1", "unit2", "stage2", "unit3", "stage3", "last", "norm", "pool", "flatten", "classifier",
    ]  # fmt: skip


def calls_of_one_forward(monkeypatch: pytest.MonkeyPatch, net: Any, size: int) -> dict[str, int]:
    """How often one forward pass calls each kind of op; a fused op counts as what it computes."""
    kinds = {
        "conv2d": ["conv"], "conv_transpose2d": ["deconv"], "batch_norm": ["norm"], "batch_norm_relu": ["norm", "relu"],
        "relu": ["relu"], "max_pool2d": ["max-pool"], "avg_pool2d": ["pool"], "adaptive_avg_pool2d": ["average"],
        "interpolate": ["resize"], "sigmoid": ["sigmoid"], "linear": ["linear"], "residual_attention": ["attention"],
        "naive_attention": ["naive"], "gated_residual": ["sigmoid", "attention"],
    }  # fmt: skip
    seen: Counter[str] = Counter()
    inside: list[str] = []  # an op that is made of others counts once

    def counting(function: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            seen.update([] if inside else names)
            inside.append(names[0])
            try:
                return function(*args, **kwargs)
            finally:
                inside.pop()

        return counted

    for name, names in kinds.items():
        monkeypatch.setattr(F, name, counting(getattr(F, name), names))
    with no_grad():
        net.eval()(mr.Tensor(np.zeros((1, 3, size, size), np.float32)))
    return dict(seen)


LAYERS = {
    ("attention56",): (110, 107, 107, 7, 6, 3),
    ("attention92",): (179, 176, 176, 11, 10, 6),
}


@pytest.mark.parametrize("config", LAYERS, ids=str)
def test_layers_of_one_forward(config: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch):
    conv, norm, relu, pool, resize, sigmoid = LAYERS[config]
    assert calls_of_one_forward(monkeypatch, build(*config), 32) == {
        "conv": conv, "norm": norm, "relu": relu, "max-pool": pool, "resize": resize, "sigmoid": sigmoid,
        "attention": sigmoid, "average": 1, "linear": 1,
    }  # fmt: skip


@pytest.mark.parametrize("m", [1, 2])
def test_layers_of_a_cifar_network(m: int, monkeypatch: pytest.MonkeyPatch):
    """Stem, 6 units (3 of them project), and per module: 4 units around, 8, 5 or 2 in the mask, and the mask's head."""
    units = 6 + m * (3 * 4 + 8 + 5 + 2)
    assert calls_of_one_forward(monkeypatch, models.cifar_attention(m), 32) == {
        "conv": 1 + 3 * units + 3 + 2 * 3 * m, "norm": 2 + 3 * units + 2 * 3 * m, "relu": 2 + 3 * units + 2 * 3 * m,
        "max-pool": 6 * m, "resize": 6 * m, "sigmoid": 3 * m, "attention": 3 * m, "average": 1, "linear": 1,
    }  # fmt: skip


#: A network with one module a stage, the size of its image, and GMAC for different numbers of modules a stage.
GMAC: dict[tuple[Any, ...], tuple[int, dict[tuple[int, int, int], float]]] = {
    ("attention56",): (224, {(1, 1, 1): 6.271, (1, 2, 3): 10.534}),
    ("cifar_attention",): (32, {(1, 1, 1): 0.123, (2, 2, 2): 0.212, (3, 3, 3): 0.301, (4, 4, 4): 0.390, (6, 6, 6): 0.568}),
    ("cifar_attention", ("p", 2), ("t", 4), ("r", 3)): (32, {(6, 6, 6): 0.984}),
    ("wide_attention",): (32, {(1, 1, 1): 0.694}),
    ("attention_next",): (224, {(1, 1, 1): 6.419, (1, 2, 3): 10.704}),
}


@pytest.mark.parametrize(
    "config", [pytest.param(c, marks=[pytest.mark.slow] * (c[0] == "attention_next")) for c in GMAC], ids=str
)
def test_multiply_adds(config: tuple[Any, ...]):
    """All modules of a stage cost the same, so one of each is run and the others are added."""
    size, expected = GMAC[config]
    table = nn.summary(build(*config), (3, size, size), depth=2)
    assert table.parameters == nn.count_parameters(build(*config)) == sum(row.parameters for row in table.rows)
    assert table.macs == sum(row.macs for row in table.rows)
    modules = [next(row.macs for row in table.rows if row.path == f"stage{i}.0") for i in (1, 2, 3)]
    for m, gmac in expected.items():
        assert round((table.macs + sum((k - 1) * n for k, n in zip(m, modules, strict=True))) / 1e9, 3) == gmac


def test_parameters_come_in_forward_order():
    """In a unit: BN, conv, BN, conv, BN, conv, projection; in a module: first units, trunk, mask, last units."""
    net = models.cifar_attention(1, widths=(8, 16, 32))
    names = [name for name, _ in net.named_parameters()]
    unit = ["bn1.weight", "bn1.bias", "conv1.weight", "bn2.weight", "bn2.bias", "conv2.weight", "bn3.weight", "bn3.bias",
            "conv3.weight"]  # fmt: skip
    assert names[:3] == ["stem.0.weight", "stem.1.weight", "stem.1.bias"]
    assert names[3:13] == [f"unit1.{name}" for name in [*unit, "projection.weight"]]
    assert list(net.state_dict())[6:12] == [
        f"unit1.{name}"
        for name in ("bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked",
                     "conv1.weight")
    ]  # fmt: skip
    parts: list[str] = []
    for name in names:
        if name.startswith("stage1.0."):
            parts.append(".".join(name.split(".")[2:4]))
    assert list(dict.fromkeys(parts)) == [
        "first.0", "trunk.0", "trunk.1", "mask.down1", "mask.skip1", "mask.down2", "mask.skip2", "mask.bottom", "mask.up2",
        "mask.up1", "mask.head", "last.0",
    ]  # fmt: skip
    assert list(dict.fromkeys(name.split(".")[0] for name in names)) == [
        "stem", "unit1", "stage1", "unit2", "stage2", "unit3", "stage3", "norm", "classifier",
    ]  # fmt: skip


def test_parameters_are_listed_in_the_order_in_which_the_forward_pass_uses_them():
    net = models.cifar_attention(1, widths=(8, 16, 32), upsample="deconv")
    used: list[str] = []
    for path, module in net.named_modules():
        if not list(module.children()) and list(module.parameters()):
            module.register_forward_pre_hook(lambda _, args, path=path: used.append(path))
    with no_grad():
        net.eval()(mr.Tensor(np.zeros((1, 3, 32, 32), np.float32)))
    listed = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in net.named_parameters()))
    order = [path for path in used if "projection" not in path]  # computed early, listed after the unit's convolutions
    assert order == [path for path in listed if "projection" not in path]
    assert sorted(used) == sorted(listed)
