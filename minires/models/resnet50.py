"""ResNet-50 as torchvision has it, name by name, so that weights move between the two without a table.

It is the network that most pretrained weights exist for (He et al., CVPR 2016, with the stride in the 3×3 convolution of a
unit, "v1.5"): 25.6 million parameters, 4.1 billion multiply-adds at 224×224, no attention. Every parameter and buffer has
the name and shape that ``torchvision.models.resnet50().state_dict()`` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence

from minires import functional as F
from minires.models.registry import register
from minires.models.residual_attention import check_image, he_initialisation
from minires.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    BatchNormReLU,
    Conv2d,
    Linear,
    MaxPool2d,
    Module,
    Sequential,
)
from minires.tensor import Tensor

__all__ = ["Bottleneck", "ImageNetResNet", "resnet50"]


class Bottleneck(Module):
    """ReLU(BN(conv 1×1), BN(conv 3×3), BN(conv 1×1) + shortcut), a ReLU after each of the first two (He et al. 2016).

    Args:
        in_channels: C of the input.
        width: channels of the first two convolutions; the output has four times as many.
        stride: step of the 3×3 convolution, and of the shortcut's.
    """

    downsample: Sequential | None

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = BatchNormReLU(width)
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNormReLU(width)
        self.conv3 = Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = BatchNorm2d(out_channels)
        self.downsample = None
        if in_channels != out_channels or stride != 1:
            self.downsample = Sequential(Conv2d(in_channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels))

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) → (N, 4·width, ⌈H/stride⌉, ⌈W/stride⌉), ≥ 0."""
        shortcut = input if self.downsample is None else self.downsample(input)
        residual = self.bn3(self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(input))))))
        return F.relu(residual + shortcut)


class ImageNetResNet(Module):
    """conv 7×7/2, BN, ReLU, max-pool /2 → four layers of bottlenecks → global average, linear.

    Children, in forward order: ``conv1``, ``bn1``, ``maxpool``, ``layer1`` ... ``layer4``, ``avgpool``, ``fc``.

    Args:
        units: bottlenecks of each layer; the first of all but the first layer halves the image.
        width: channels inside the units of the first layer; each layer doubles them.
        num_classes: number of classes.
    """

    def __init__(self, units: Sequence[int] = (3, 4, 6, 3), width: int = 64, num_classes: int = 1000) -> None:
        super().__init__()
        self.layers = len(units)
        self.conv1 = Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = BatchNormReLU(width)
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        channels = width
        for i, count in enumerate(units):
            layer = Sequential()
            for k in range(count):
                layer.append(Bottleneck(channels, width << i, 2 if i and not k else 1))
                channels = 4 * width << i
            self.add_module(f"layer{i + 1}", layer)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes)
        self.apply(he_initialisation)

    def forward(self, input: Tensor) -> Tensor:
        """Images (N, 3, H, W), at least 32×32 → scores (N, num_classes)."""
        check_image(type(self).__name__, input, 3, 32)
        h = self.maxpool(self.bn1(self.conv1(input)))
        for i in range(1, self.layers + 1):
            h = self.get_submodule(f"layer{i}")(h)
        out: Tensor = self.fc(F.flatten(self.avgpool(h), 1))
        return out


@register
def resnet50(num_classes: int = 1000) -> ImageNetResNet:
    """ResNet-50 for ImageNet, with torchvision's names: 25.6 million parameters, for weights from PyTorch.

    Args:
        num_classes: number of classes.
    """
    return ImageNetResNet(num_classes=num_classes)
