"""The residual units of which the paper's networks are made.

The usual one is a pre-activation bottleneck (He et al. 2016): the input is normalised before each convolution and nothing
follows the addition, so the sum runs through the whole network untouched: the identity of which the attention module makes
use. The other is ResNeXt's (Xie et al. 2017), for the paper's AttentionNeXt. Any other module that takes the same three
numbers will do as well, a student's own too.
"""

from __future__ import annotations

from collections.abc import Callable

from minires import functional as F
from minires.nn.containers import Sequential
from minires.nn.layers import Conv2d
from minires.nn.module import Module
from minires.nn.normalization import BatchNorm2d, BatchNormReLU
from minires.tensor import Tensor

__all__ = ["ResNeXtUnit", "ResidualUnit", "UnitFactory", "units"]

#: ``unit(in_channels, out_channels, stride)``: a class such as :class:`ResidualUnit`, or a function that makes a module that
#: maps (N, in_channels, H, W) to (N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉). Where its output has already passed a ReLU, the
#: class or function says so by an attribute ``activated = True``; what follows it then begins with a convolution.
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


class ResNeXtUnit(Module):
    """Three convolutions 1×1, 3×3, 1×1 of which the second is one of 32 groups, each followed by batch norm.

    ::

        y   = ReLU(BN(conv1x1(x)))               in_channels → middle
        y   = ReLU(BN(conv3x3/s(y), 32 groups))  middle → middle
        y   = BN(conv1x1(y))                     middle → out_channels
        out = ReLU(y + x)                        if neither channels nor size change
        out = ReLU(y + BN(conv1x1/s(x)))         otherwise

    This is the unit in the authors' files of AttentionNeXt: normalised after each convolution, not before.

    Args:
        in_channels: C of the input.
        out_channels: C of the output, a multiple of 2·groups; middle = out_channels / 2.
        stride: step s of the 3×3 convolution.
        groups: of the 3×3 convolution (the paper's "cardinality").
    """

    activated = True
    projection: Sequential | None

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 32) -> None:
        super().__init__()
        if out_channels < 1 or out_channels % (2 * groups):
            raise ValueError(f"ResNeXtUnit: out_channels must be a multiple of {2 * groups}, got {out_channels}")
        middle = out_channels // 2
        self.conv1 = Conv2d(in_channels, middle, 1, bias=False)
        self.bn1 = BatchNormReLU(middle)
        self.conv2 = Conv2d(middle, middle, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = BatchNormReLU(middle)
        self.conv3 = Conv2d(middle, out_channels, 1, bias=False)
        self.bn3 = BatchNorm2d(out_channels)
        self.projection = None
        if in_channels != out_channels or stride != 1:
            self.projection = Sequential(Conv2d(in_channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels))

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) → (N, out_channels, ⌈H/s⌉, ⌈W/s⌉), ≥ 0."""
        shortcut = input if self.projection is None else self.projection(input)
        residual = self.bn3(self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(input))))))
        return F.relu(residual + shortcut)


def units(unit: UnitFactory, channels: int, count: int) -> Sequential:
    """``count`` units in a row that keep channels and size."""
    return Sequential(*(unit(channels, channels, 1) for _ in range(count)))
