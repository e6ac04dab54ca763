"""The Residual Attention Networks of Wang et al. 2017: for ImageNet, for CIFAR, and a narrow one for digits.

All of them are one plan, which :class:`AttentionConfig` fills with numbers: a stem, stages of attention modules with a
residual unit before each that widens the features and shrinks the image, and a linear classifier on the global average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minires.errors import ShapeError
from minires.models.registry import register, unit_of
from minires.nn import (
    AdaptiveAvgPool2d,
    AttentionMaps,
    AttentionModule,
    BatchNormReLU,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    Sequential,
    UnitFactory,
    attention_maps,
    init,
)
from minires.tensor import Tensor

__all__ = [
    "AttentionConfig", "CifarAttention", "ImageNetAttention", "ResidualAttentionNetwork", "attention", "attention56",
    "attention92", "attention_next", "cifar_attention", "small_attention", "wide_attention",
]  # fmt: skip


@dataclass(frozen=True)
class AttentionConfig:
    """The numbers that make a :class:`ResidualAttentionNetwork`.

    Attributes:
        m: number of attention modules of each stage.
        widths: channels of each stage.
        depths: poolings in the masks of each stage.
        in_channels: channels of the image.
        num_classes: number of classes.
        stem: channels of the first convolution.
        stem_kernel: its size.
        stem_stride: its stride.
        stem_pool: whether a 3×3 max-pool of stride 2 follows it.
        first_stride: stride of the first stage's residual unit; that of the other stages is 2.
        after: residual units at the end of each stage, after its modules.
        last_width: channels of the residual units after all stages.
        last_units: how many of those there are.
        last_stride: the stride of the first of them.
        p: units before and after the branches of each module.
        t: units of its trunk.
        r: units between two poolings of its mask.
        attention: "residual", "naive" or "none".
        activation: "mixed", "channel" or "spatial".
        mask: "encoder-decoder" or "local".
        upsample: "bilinear", "nearest" or "deconv".
        min_size: the smallest height and width of the image, in pixels.
        unit: of what everything is made: "residual", "resnext", or a class or function of your own, see
            :data:`minires.nn.UnitFactory`.
    """

    m: Sequence[int]
    widths: Sequence[int]
    depths: Sequence[int]
    in_channels: int = 3
    num_classes: int = 10
    stem: int = 16
    stem_kernel: int = 3
    stem_stride: int = 1
    stem_pool: bool = False
    first_stride: int = 1
    after: int = 1
    last_width: int = 0
    last_units: int = 0
    last_stride: int = 2
    p: int = 1
    t: int = 2
    r: int = 1
    attention: str = "residual"
    activation: str = "mixed"
    mask: str = "encoder-decoder"
    upsample: str = "bilinear"
    min_size: int = 32
    unit: str | UnitFactory = "residual"

    def __post_init__(self) -> None:
        if not len(self.m) == len(self.widths) == len(self.depths) or not self.widths:
            raise ValueError(
                "AttentionConfig: m, widths and depths need one number for each stage, "
                f"got m={self.m}, widths={self.widths}, depths={self.depths}"
            )
        if min(self.m) < 0:
            raise ValueError(f"AttentionConfig: m counts modules, so no number may be negative, got {self.m}")

    def module(self, stage: int) -> AttentionModule:
        """One attention module of a stage (counted from 0)."""
        return AttentionModule(
            self.widths[stage], self.depths[stage], self.p, self.t, self.r, self.attention, self.activation, self.mask,
            self.upsample, unit_of(self.unit),
        )  # fmt: skip


class ResidualAttentionNetwork(Module):
    """stem → (unit → attention modules → units) for each stage → last units → BN, ReLU, average, linear.

    There are no BN and ReLU (``norm`` is empty) where the units end in a ReLU of their own.

    Children, in forward order: ``stem``, then ``unit1``, ``stage1``, ``unit2``, ``stage2``, ..., then ``last``, ``norm``,
    ``pool``, ``flatten``, ``classifier``. Initial weights are He's (MSRA), as in the paper.

    Args:
        config: the numbers.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.layout = config
        unit, padding = unit_of(config.unit), config.stem_kernel // 2
        self.stem = Sequential(
            Conv2d(config.in_channels, config.stem, config.stem_kernel, config.stem_stride, padding, bias=False),
            BatchNormReLU(config.stem),
        )
        if config.stem_pool:
            self.stem.append(MaxPool2d(3, stride=2, ceil_mode=True))
        channels = config.stem
        for i, width in enumerate(config.widths):
            self.add_module(f"unit{i + 1}", unit(channels, width, 2 if i else config.first_stride))
            stage = Sequential(*(config.module(i) for _ in range(config.m[i])))
            self.add_module(f"stage{i + 1}", stage.extend(unit(width, width, 1) for _ in range(config.after)))
            channels = width
        self.last = Sequential()
        for i in range(config.last_units):
            self.last.append(unit(channels, config.last_width, 1 if i else config.last_stride))
            channels = config.last_width
        self.norm = Sequential() if getattr(unit, "activated", False) else BatchNormReLU(channels)
        self.pool = AdaptiveAvgPool2d(1)
        self.flatten = Flatten()
        self.classifier = Linear(channels, config.num_classes)
        self.apply(he_initialisation)

    def forward(self, input: Tensor) -> Tensor:
        """Images (N, in_channels, H, W), H and W at least ``min_size`` → scores (N, num_classes)."""
        check_image(type(self).__name__, input, self.layout.in_channels, self.layout.min_size)
        h = self.stem(input)
        for i in range(1, len(self.layout.widths) + 1):
            h = self.get_submodule(f"unit{i}")(h)
            h = self.get_submodule(f"stage{i}")(h)
        h = self.norm(self.last(h))
        out: Tensor = self.classifier(self.flatten(self.pool(h)))
        return out

    def masks(self, input: Tensor) -> list[AttentionMaps]:
        """Trunk F, mask M and output of every attention module on ``input``; see :func:`minires.nn.attention_maps`."""
        return attention_maps(self, input)


class ImageNetAttention(ResidualAttentionNetwork):
    """The paper's networks for ImageNet (its Table 2); made by :func:`attention`."""


class CifarAttention(ResidualAttentionNetwork):
    """The paper's networks for CIFAR; made by :func:`cifar_attention`."""


def check_image(name: str, input: Any, channels: int, min_size: int) -> None:
    """Raise unless ``input`` is a batch of images with ``channels`` channels, of ``min_size`` pixels or more a side."""
    rule = ""
    if input.ndim != 4:
        rule = "expected a batch of images (N, C, H, W)"
    elif input.shape[1] != channels:
        rule = f"expected images with C={channels} channels"
    elif min(input.shape[2:]) < min_size:
        rule = f"expected images of at least {min_size}×{min_size} pixels"
    if rule:
        raise ShapeError(name, rule, input=(input.shape, "N C H W" if input.ndim == 4 else ""))


def he_initialisation(module: Module) -> None:
    """Convolutions normal with variance 2/fan_in (He et al. 2015), the classifier with 1/fan_in and bias 0."""
    if isinstance(module, Conv2d):
        init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, Linear):
        init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            init.zeros_(module.bias)


#: Attention modules of each stage of AttentionNeXt, by depth.
_NEXT = {56: (1, 1, 1), 92: (1, 2, 3)}


def _per_stage(m: int | Sequence[int], stages: int) -> list[int]:
    return [m] * stages if isinstance(m, int) else list(m)


# ------------------------------------------------------------------------------------ the builders


@register
def attention(
    m: Sequence[int] = (1, 1, 1), num_classes: int = 1000, p: int = 1, t: int = 2, r: int = 1, attention: str = "residual",
    activation: str = "mixed", mask: str = "encoder-decoder", upsample: str = "bilinear",
    unit: str | UnitFactory = "residual",
) -> ImageNetAttention:  # fmt: skip
    """A network for ImageNet: (N, 3, H, W) → (N, num_classes), usually 224×224 (the paper's Table 2).

    Args:
        m: attention modules in the stages of 256, 512 and 1024 channels; (1, 1, 1) is Attention-56, (1, 2, 3) is 92, and
            (2, 3, 4) ... (5, 6, 7) would be 128, 164, 200 and 236, which are not in the paper.
        num_classes: number of classes.
        p: units before and after the branches of each module.
        t: units of its trunk.
        r: units between two poolings of its mask.
        attention: "residual" (1 + M)·F, "naive" M·F, or "none" for the same network without masks.
        activation: of the mask: "mixed", "channel" or "spatial".
        mask: "encoder-decoder" or "local".
        upsample: "bilinear", "nearest" or "deconv".
        unit: "residual", "resnext", or a class or function of your own, see :data:`minires.nn.UnitFactory`.
    """
    return ImageNetAttention(
        AttentionConfig(
            m=_per_stage(m, 3), widths=(256, 512, 1024), depths=(3, 2, 1), num_classes=num_classes, stem=64, stem_kernel=7,
            stem_stride=2, stem_pool=True, after=0, last_width=2048, last_units=3, p=p, t=t, r=r, attention=attention,
            activation=activation, mask=mask, upsample=upsample, unit=unit,
        )
    )  # fmt: skip


@register
def attention56(num_classes: int = 1000) -> ImageNetAttention:
    """Attention-56 for ImageNet: 31.8 million parameters, 6.3 billion multiply-adds at 224×224."""
    return attention((1, 1, 1), num_classes)


@register
def attention92(num_classes: int = 1000) -> ImageNetAttention:
    """Attention-92 for ImageNet: 52.5 million parameters, 10.5 billion multiply-adds at 224×224."""
    return attention((1, 2, 3), num_classes)


@register
def attention_next(depth: int = 56, num_classes: int = 1000) -> ImageNetAttention:
    """AttentionNeXt-56 or 92 for ImageNet: the same modules, made of ResNeXt units (31.3 and 52.1 million parameters).

    The authors' published files end the masks of these two networks in a tanh, where the paper, and this, has a sigmoid.

    Args:
        depth: 56 or 92.
        num_classes: number of classes.
    """
    if depth not in _NEXT:
        raise ValueError(f"attention_next: depth must be one of {', '.join(map(str, _NEXT))}, got {depth}")
    return attention(_NEXT[depth], num_classes, unit="resnext")


@register
def cifar_attention(
    m: int | Sequence[int] = 1, num_classes: int = 10, widths: Sequence[int] = (64, 128, 256),
    depths: Sequence[int] = (3, 2, 1), stem: int = 16, p: int = 1, t: int = 2, r: int = 1, attention: str = "residual",
    activation: str = "mixed", mask: str = "encoder-decoder", upsample: str = "bilinear", in_channels: int = 3,
    unit: str | UnitFactory = "residual",
) -> CifarAttention:  # fmt: skip
    """A network for CIFAR: (N, 3, H, W) → (N, num_classes), usually 32×32, of depth 36·m + 20.

    The paper prints neither widths nor poolings; the defaults are the only reading that fits its Table 6.

    Args:
        m: attention modules of each stage: 1 is Attention-56, 2 is 92, 3 is 128, 4 is 164, 6 is 236.
        num_classes: number of classes.
        widths: channels of each stage.
        depths: poolings in the masks of each stage.
        stem: channels of the first convolution.
        p: units before and after the branches of each module (2 in Attention-452).
        t: units of its trunk (4 in Attention-452).
        r: units between two poolings of its mask (3 in Attention-452).
        attention: "residual" (1 + M)·F, "naive" M·F, or "none" for the same network without masks.
        activation: of the mask: "mixed", "channel" or "spatial".
        mask: "encoder-decoder" or "local".
        upsample: "bilinear", "nearest" or "deconv".
        in_channels: channels of the image.
        unit: "residual", "resnext", or a class or function of your own, see :data:`minires.nn.UnitFactory`.
    """
    return CifarAttention(
        AttentionConfig(
            m=_per_stage(m, len(widths)), widths=widths, depths=depths, in_channels=in_channels, num_classes=num_classes,
            stem=stem, p=p, t=t, r=r, attention=attention, activation=activation, mask=mask, upsample=upsample, unit=unit,
        )
    )  # fmt: skip


@register
def wide_attention(
    m: int | Sequence[int] = 1, num_classes: int = 10, attention: str = "residual", unit: str | UnitFactory = "residual"
) -> CifarAttention:
    """The layout that public ports use for CIFAR: wider, with shallower masks (7.2 million parameters for m = 1).

    Args:
        m: attention modules of each stage.
        num_classes: number of classes.
        attention: "residual", "naive" or "none".
        unit: "residual", "resnext", or a class or function of your own, see :data:`minires.nn.UnitFactory`.
    """
    return CifarAttention(
        AttentionConfig(
            m=_per_stage(m, 3), widths=(128, 256, 512), depths=(2, 1, 0), num_classes=num_classes, stem=32, after=0,
            last_width=1024, last_units=3, last_stride=1, attention=attention, unit=unit,
        )
    )  # fmt: skip


@register
def small_attention(
    num_classes: int = 10, in_channels: int = 1, widths: Sequence[int] = (64, 128), depths: Sequence[int] = (2, 1),
    m: int | Sequence[int] = 1, stem: int = 16, stem_stride: int = 2, after: int = 1, p: int = 1, t: int = 2, r: int = 1,
    attention: str = "residual", activation: str = "mixed", mask: str = "encoder-decoder", upsample: str = "bilinear",
    min_size: int = 16, unit: str | UnitFactory = "residual",
) -> ResidualAttentionNetwork:  # fmt: skip
    """A small network for small images, such as cluttered digits of 28×28 with one channel.

    Args:
        num_classes: number of classes.
        in_channels: channels of the image.
        widths: channels of each stage.
        depths: poolings in the masks of each stage.
        m: attention modules of each stage.
        stem: channels of the first convolution.
        stem_stride: its stride; 2 makes everything after it four times cheaper.
        after: residual units at the end of each stage.
        p: units before and after the branches of each module.
        t: units of its trunk.
        r: units between two poolings of its mask.
        attention: "residual" (1 + M)·F, "naive" M·F, or "none" for the same network without masks.
        activation: of the mask: "mixed", "channel" or "spatial".
        mask: "encoder-decoder" or "local".
        upsample: "bilinear", "nearest" or "deconv".
        min_size: the smallest height and width that it accepts, in pixels.
        unit: "residual", "resnext", or a class or function of your own, see :data:`minires.nn.UnitFactory`.
    """
    return ResidualAttentionNetwork(
        AttentionConfig(
            m=_per_stage(m, len(widths)), widths=widths, depths=depths, in_channels=in_channels, num_classes=num_classes,
            stem=stem, stem_stride=stem_stride, after=after, p=p, t=t, r=r, attention=attention, activation=activation,
            mask=mask, upsample=upsample, min_size=min_size, unit=unit,
        )
    )  # fmt: skip
