"""Prints and tables: what a reader of a network sees."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

import minires as mr
from minires import nn


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNormReLU(8),
        nn.Sequential(nn.ReLU(), nn.ReLU()),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


def test_text():
    assert repr(small()) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)  # weight (8, 3, 3, 3)\n"
        "  (1): BatchNormReLU(8)  # weight (8,), bias (8,)\n"
        "  (2): Sequential(\n"
        "    (0-1): 2 x ReLU()\n"
        "  )\n"
        "  (3): ConvTranspose2d(8, 4, kernel_size=(2, 2), stride=(2, 2))  # weight (8, 4, 2, 2), bias (4,)\n"
        "  (4): AdaptiveAvgPool2d(output_size=1)\n"
        "  (5): Flatten(start_dim=1, end_dim=-1)\n"
        "  (6): Linear(in_features=4, out_features=5, bias=True)  # weight (5, 4), bias (5,)\n"
        ")\n"
        "389 parameters"
    )
    assert repr(nn.ReLU()) == "ReLU()"
    assert repr(nn.BatchNorm2d(3, eps=0.1, affine=False)) == "BatchNorm2d(3, eps=0.1, affine=False)"


def test_modules_with_both_weights_and_children():
    module = nn.Sequential(nn.ReLU())
    module.scale = nn.Parameter(np.zeros(3, np.float32))
    assert repr(module) == "Sequential(  # scale (3,)\n  (0): ReLU()\n)\n3 parameters"


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append(tag)
        assert all(name == "style" for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_well_formed():
    module = nn.Sequential({"<b>": nn.Linear(2, 3)})
    text = module._repr_html_()
    checker = _Checker()
    checker.feed(text)
    assert checker.open == [] and checker.seen.count("details") == 1 and checker.seen.count("tr") == 3
    assert "&lt;b&gt;" in text and "9 parameters" in text


def test_table():
    net = small()
    table = nn.summary(net, (3, 6, 8))
    assert [(r.path, r.kind, r.output_shape, r.parameters, r.macs) for r in table.rows] == [
        ("0", "Conv2d", (1, 8, 6, 8), 216, 216 * 48),
        ("1", "BatchNormReLU", (1, 8, 6, 8), 16, 0),
        ("2.0", "ReLU", (1, 8, 6, 8), 0, 0),
        ("2.1", "ReLU", (1, 8, 6, 8), 0, 0),
        ("3", "ConvTranspose2d", (1, 4, 12, 16), 132, 8 * 48 * 16),
        ("4", "AdaptiveAvgPool2d", (1, 4, 1, 1), 0, 0),
        ("5", "Flatten", (1, 4), 0, 0),
        ("6", "Linear", (1, 5), 25, 20),
    ]
    assert (table.parameters, table.macs) == (389, 216 * 48 + 8 * 48 * 16 + 20)
    lines = str(table).split("\n")
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "MAC"]
    assert lines[2].split() == ["0", "Conv2d", "1×8×6×8", "216", "10,368"]
    assert lines[-1].split() == ["total", "Sequential", "input", "3×6×8", "389", "16,532"]
    assert repr(table) == str(table) and table._repr_html_().startswith("<pre>")
    assert net.training and not any(m._post_hooks for m in net.modules())


def test_table_to_a_depth():
    rows = nn.summary(small(), (3, 6, 8), depth=1).rows
    assert [r.path for r in rows] == ["0", "1", "2", "3", "4", "5", "6"]
    whole = nn.summary(small(), (3, 6, 8), depth=0).rows
    assert [(r.path, r.parameters, r.macs) for r in whole] == [("", 389, 16_532)]


def test_table_counts_shared_modules_once_and_every_call():
    linear = nn.Linear(4, 4, bias=False)
    table = nn.summary(nn.Sequential(linear, nn.Tanh(), linear), (4,))
    assert table.parameters == 16 and table.macs == 32
    assert [(r.path, r.parameters, r.macs) for r in table.rows] == [("0", 16, 32), ("1", 0, 0)]


def test_table_of_a_network_that_takes_integers():
    table = nn.summary(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)), (7,), dtype=np.int64)
    assert [r.output_shape for r in table.rows] == [(1, 7, 3), (1, 7, 2)]
    assert table.macs == 7 * 6


def test_count_parameters():
    net = small()
    net[0].requires_grad_(False)
    assert nn.count_parameters(net) == 389 and nn.count_parameters(net, trainable=True) == 173
    assert isinstance(mr.tensor(1.0), mr.Tensor)
