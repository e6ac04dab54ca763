"""The CIFAR Residual Attention Network in PyTorch, wired as ours, to measure against.

Its parameters come in the same order and shapes as ours, so weights can be copied one by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


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

    def forward(self, x):
        a = F.relu(self.bn1(x))
        y = self.conv1(a)
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        return y + (x if self.projection is None else self.projection(a))


class Mask(nn.Module):
    """The encoder-decoder mask, with one unit between neighbouring poolings."""

    def __init__(self, c: int, depth: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList()  # down and skip in turn, as our parameters come
        for _ in range(depth - 1):
            self.steps.extend([Unit(c, c), Unit(c, c)])
        self.bottom = nn.Sequential(Unit(c, c), Unit(c, c))
        self.up = nn.ModuleList(Unit(c, c) for _ in range(depth - 1))
        self.head = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        h, skips = x, []
        for down, skip in zip(self.steps[::2], self.steps[1::2], strict=True):
            h = down(F.max_pool2d(h, 3, 2, ceil_mode=True))
            skips.append(skip(h))
        h = self.bottom(F.max_pool2d(h, 3, 2, ceil_mode=True))
        for up in self.up:
            skip = skips.pop()
            h = up(F.interpolate(h, skip.shape[2:], mode="bilinear", align_corners=True) + skip)
        return torch.sigmoid(self.head(F.interpolate(h, x.shape[2:], mode="bilinear", align_corners=True)))


class AttentionModule(nn.Module):
    """p = 1, t = 2, r = 1."""

    def __init__(self, c: int, depth: int) -> None:
        super().__init__()
        self.first, self.trunk = Unit(c, c), nn.Sequential(Unit(c, c), Unit(c, c))
        self.mask, self.last = Mask(c, depth), Unit(c, c)

    def forward(self, x):
        x = self.first(x)
        return self.last((1 + self.mask(x)) * self.trunk(x))


class CifarAttention(nn.Module):
    """The paper's network for 32×32 images with m modules a stage."""

    def __init__(self, m: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        layers, channels = [], 16
        for i, (width, depth) in enumerate(((64, 3), (128, 2), (256, 1))):
            layers.append(Unit(channels, width, 2 if i else 1))
            layers.extend(AttentionModule(width, depth) for _ in range(m))
            layers.append(Unit(width, width))
            channels = width
        self.body = nn.Sequential(*layers)
        self.norm, self.classifier = nn.BatchNorm2d(channels), nn.Linear(channels, num_classes)

    def forward(self, x):
        h = F.relu(self.norm(self.body(self.stem(x))))
        return self.classifier(h.mean((2, 3)))
