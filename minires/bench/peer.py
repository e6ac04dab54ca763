"""The same networks in PyTorch, wired as ours, to measure against.

One plan, :class:`minires.models.residual_attention.AttentionConfig`, makes both, and the parameters come in the same order
and shapes, so that weights can be copied one by one. The wiring is the paper's, shared with no public port. This module
imports PyTorch, so it is imported only where PyTorch was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Network", "twin_of"]


def twin_of(model: Any) -> Network:
    """A PyTorch network that computes what ``model`` does, one of :mod:`minires.models`, from the same weights.

    Raises:
        ValueError: the network has options that the twin has not.
    """
    config = model.layout
    usual = (config.attention, config.activation, config.mask, config.upsample)
    if usual != ("residual", "mixed", "encoder-decoder", "bilinear"):
        raise ValueError(f"there is no PyTorch network for attention, activation, mask and upsampling {usual}")
    network = Network(config)
    ours = [parameter.numpy() for parameter in model.parameters()]
    theirs = list(network.parameters())
    if [weight.shape for weight in ours] != [tuple(parameter.shape) for parameter in theirs]:
        raise ValueError("the two networks differ in their parameters")
    with torch.no_grad():
        for parameter, weight in zip(theirs, ours, strict=True):
            parameter.copy_(torch.tensor(weight))
    return network


class Unit(nn.Module):
    """A pre-activation bottleneck."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        middle = out // 4
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, middle, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(middle), nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(middle), nn.Conv2d(middle, out, 1, bias=False)
        changes = channels != out or stride != 1
        self.projection = nn.Conv2d(channels, out, 1, stride, bias=False) if changes else None

    def forward(self, x: Any) -> Any:
        """(N, channels, H, W) → (N, out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        a = F.relu(self.bn1(x))
        y = self.conv1(a)
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        return y + (x if self.projection is None else self.projection(a))


def _units(channels: int, count: int) -> Any:
    return nn.Sequential(*(Unit(channels, channels) for _ in range(count)))


class Mask(nn.Module):
    """The encoder-decoder mask."""

    def __init__(self, c: int, depth: int, r: int) -> None:
        super().__init__()
        self.depth = depth
        self.steps = nn.ModuleList()  # down and skip in turn, as our parameters come
        for _ in range(depth - 1):
            self.steps.extend([_units(c, r), Unit(c, c)])
        self.bottom = _units(c, 2 * r)
        self.up = nn.ModuleList(_units(c, r) for _ in range(depth - 1))
        self.head = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        """(N, c, H, W) → the mask, of the same shape."""
        h, skips = x, []
        for down, skip in zip(self.steps[::2], self.steps[1::2], strict=True):
            h = down(_pool(h))
            skips.append(skip(h))
        h = self.bottom(_pool(h) if self.depth else h)
        for up in self.up:
            skip = skips.pop()
            h = up(_resize(h, skip) + skip)
        return torch.sigmoid(self.head(_resize(h, x) if self.depth else h))


def _pool(h: Any) -> Any:
    return F.max_pool2d(h, 3, 2, ceil_mode=True)


def _resize(h: Any, like: Any) -> Any:
    return F.interpolate(h, like.shape[2:], mode="bilinear", align_corners=True)


class AttentionModule(nn.Module):
    """H = (1 + M)·F between p units before and p after."""

    def __init__(self, c: int, depth: int, p: int, t: int, r: int) -> None:
        super().__init__()
        self.first, self.trunk = _units(c, p), _units(c, t)
        self.mask, self.last = Mask(c, depth, r), _units(c, p)

    def forward(self, x: Any) -> Any:
        """(N, c, H, W) → the same shape."""
        x = self.first(x)
        return self.last((1 + self.mask(x)) * self.trunk(x))


class Network(nn.Module):
    """stem → (unit → attention modules → units) for each stage → last units → BN, ReLU, average, linear."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        padding = config.stem_kernel // 2
        self.stem = nn.Sequential(
            nn.Conv2d(config.in_channels, config.stem, config.stem_kernel, config.stem_stride, padding, bias=False),
            nn.BatchNorm2d(config.stem), nn.ReLU(),
        )  # fmt: skip
        self.stem_pool = config.stem_pool
        layers: list[Any] = []
        channels = config.stem
        stages: Sequence[tuple[int, int, int]] = list(zip(config.m, config.widths, config.depths, strict=True))
        for i, (count, width, depth) in enumerate(stages):
            layers.append(Unit(channels, width, 2 if i else config.first_stride))
            layers.extend(AttentionModule(width, depth, config.p, config.t, config.r) for _ in range(count))
            layers.extend(Unit(width, width) for _ in range(config.after))
            channels = width
        for i in range(config.last_units):
            layers.append(Unit(channels, config.last_width, 1 if i else config.last_stride))
            channels = config.last_width
        self.body = nn.Sequential(*layers)
        self.norm, self.classifier = nn.BatchNorm2d(channels), nn.Linear(channels, config.num_classes)

    def forward(self, x: Any) -> Any:
        """Images (N, C, H, W) → scores (N, classes)."""
        h = self.stem(x)
        h = self.body(_pool(h) if self.stem_pool else h)
        return self.classifier(F.relu(self.norm(h)).mean((2, 3)))
