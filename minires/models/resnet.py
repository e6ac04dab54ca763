"""The pre-activation residual network: the paper's baseline, made of the same units and without masks."""

from __future__ import annotations

from collections.abc import Sequence

from minires.models.registry import register
from minires.models.residual_attention import check_image, he_initialisation
from minires.nn import AdaptiveAvgPool2d, BatchNormReLU, Conv2d, Flatten, Linear, Module, ResidualUnit, Sequential
from minires.tensor import Tensor

__all__ = ["ResNet", "resnet", "resnet164"]


class ResNet(Module):
    """conv 3×3 → ``units`` residual units a stage → BN, ReLU, global average, linear (He et al. 2016).

    Children, in forward order: ``stem``, ``stage1``, ``stage2``, ..., ``norm``, ``pool``, ``flatten``, ``classifier``.
    The stem is a bare convolution: the first unit begins with batch norm and ReLU anyway.

    Args:
        units: residual units of each stage.
        widths: channels of each stage; from the second on its first unit halves the image.
        stem: channels of the first convolution.
        in_channels: channels of the image.
        num_classes: number of classes.
    """

    def __init__(
        self, units: int, widths: Sequence[int] = (64, 128, 256), stem: int = 16, in_channels: int = 3, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.in_channels, self.stages = in_channels, len(widths)
        self.stem = Conv2d(in_channels, stem, 3, padding=1, bias=False)
        channels = stem
        for i, width in enumerate(widths):
            stage = Sequential(ResidualUnit(channels, width, 2 if i else 1))
            self.add_module(f"stage{i + 1}", stage.extend(ResidualUnit(width, width) for _ in range(units - 1)))
            channels = width
        self.norm = BatchNormReLU(channels)
        self.pool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.classifier = Linear(channels, num_classes)
        self.apply(he_initialisation)

    def forward(self, input: Tensor) -> Tensor:
        """Images (N, in_channels, H, W), at least 32×32 → scores (N, num_classes)."""
        check_image(type(self).__name__, input, self.in_channels, 32)
        h = self.stem(input)
        for i in range(1, self.stages + 1):
            h = self.get_submodule(f"stage{i}")(h)
        out: Tensor = self.classifier(self.flatten(self.pool(self.norm(h))))
        return out


@register
def resnet(depth: int = 164, num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """A pre-activation residual network for CIFAR of ``depth`` = 9·n + 2 layers, n units a stage.

    Args:
        depth: number of layers.
        num_classes: number of classes.
        in_channels: channels of the image.
    """
    if depth < 11 or (depth - 2) % 9:
        raise ValueError(f"resnet: depth must be 9·n + 2 (11, 20, 29, ..., 164, ...), got {depth}")
    return ResNet((depth - 2) // 9, in_channels=in_channels, num_classes=num_classes)


@register
def resnet164(num_classes: int = 10) -> ResNet:
    """ResNet-164, the paper's baseline on CIFAR: 1.7 million parameters."""
    return resnet(164, num_classes)
