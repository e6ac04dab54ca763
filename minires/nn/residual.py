"""The residual unit of which the paper's networks are made: a pre-activation bottleneck (He et al. 2016).

The input is normalised before each convolution and nothing follows the addition, so the sum runs through the whole
network untouched: the identity of which the attention module makes use.
"""

from __future__ import annotations

from collections.abc import Callable

from minires.nn.containers import Sequential
from minires.nn.layers import Conv2d
from minires.nn.module import Module
from minires.nn.normalization import BatchNormReLU
from minires.tensor import Tensor

__all__ = ["ResidualUnit", "UnitFactory", "units"]

#: ``unit(in_channels, out_channels, stride)``: a class such as :class:`ResidualUnit`, or a function that makes a module.
UnitFactory = Callable[[int, int, int], Module]


class ResidualUnit(Module):
    """Three convolutions 1×1, 3×3, 1×1, each after batch norm and ReLU, added to a shortcut.

    ::

        a   = ReLU(BN(x))
        y   = conv1x1(a)               in_channels → middle
        y   = conv3x3/s(ReLU(BN(y)))   middle → middle
        y   = conv1x1(ReLU(BN(y)))     middle → out_channels
        out = y + x                    if neither channels nor size change
        out = y + conv1x1/s(a)         otherwise

    Args:
        in_channels: C of the input.
        out_channels: C of the output, a multiple of 4; middle = out_channels / 4.
        stride: step s of the 3×3 convolution.
    """

    projection: Conv2d | None

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if out_channels < 4 or out_channels % 4:
            raise ValueError(f"ResidualUnit: out_channels must be a multiple of 4, got {out_channels}")
        middle = out_channels // 4
        self.bn1 = BatchNormReLU(in_channels)
        self.conv1 = Conv2d(in_channels, middle, 1, bias=False)
        self.bn2 = BatchNormReLU(middle)
        self.conv2 = Conv2d(middle, middle, 3, stride, padding=1, bias=False)
        self.bn3 = BatchNormReLU(middle)
        self.conv3 = Conv2d(middle, out_channels, 1, bias=False)
        changes = in_channels != out_channels or stride != 1
        self.projection = Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) → (N, out_channels, ⌈H/s⌉, ⌈W/s⌉)."""
        activated = self.bn1(input)
        shortcut = input if self.projection is None else self.projection(activated)
        residual = self.conv3(self.bn3(self.conv2(self.bn2(self.conv1(activated)))))
        out: Tensor = residual + shortcut
        return out


def units(unit: UnitFactory, channels: int, count: int) -> Sequential:
    """``count`` units in a row that keep channels and size."""
    return Sequential(*(unit(channels, channels, 1) for _ in range(count)))
