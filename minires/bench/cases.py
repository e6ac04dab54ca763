"""The single ops that ``minires bench --only ops`` puts beside other frameworks', at the sizes of the CIFAR Attention-56.

A case is data only: which op, of which shapes, with which options. What the numbers are is drawn from a seed, so every
framework computes with the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

__all__ = ["Case", "cases"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """One op at one size.

    Attributes:
        name: short, unique.
        title: for tables and pictures.
        op: the method of a peer (see :class:`minires.bench.peers.base.Peer`) that computes it.
        shapes: of the inputs that get gradients: activations first, then weights. For "sgd": of the weights.
        options: the method's other arguments.
        classes: of a loss, the number of classes; labels (N,) are then drawn as well.
    """

    name: str
    title: str
    op: str
    shapes: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0

    @property
    def is_update(self) -> bool:
        """Whether it is a step of an optimiser, which has no backward pass."""
        return self.op == "sgd"

    def inputs(self) -> list[Array]:
        """Normal random numbers; weights of a sum scaled, so that outputs are about as large as inputs."""
        rng = np.random.default_rng(7)
        scales = [1.0, *(1 / math.sqrt(math.prod(shape[1:])) if len(shape) == 4 else 1.0 for shape in self.shapes[1:])]
        return [
            (rng.standard_normal(shape, np.float32) * np.float32(scale))
            for shape, scale in zip(self.shapes, scales, strict=True)
        ]

    def upstream(self, shape: tuple[int, ...]) -> Array:
        """The gradient that comes into the backward pass of an output of this shape; of a loss 1."""
        return np.random.default_rng(8).standard_normal(shape, np.float32) if shape else np.ones((), np.float32)

    def labels(self) -> Array:
        """(N,) int64."""
        return np.random.default_rng(9).integers(0, self.classes, self.shapes[0][0])


#: Of the SGD step; the learning rate is large enough for a wrong rule to be seen.
_SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


@cache
def cases(batch: int = 64) -> tuple[Case, ...]:
    """All of them; ``batch`` images where the issue of the layer's size does not say otherwise."""
    from minires import models

    weights = tuple(tuple(p.shape) for p in models.cifar_attention(1).parameters())
    large = (batch, 64, 32, 32)
    same = {"stride": 1, "padding": 1, "groups": 1}
    half = batch // 2
    return (
        Case("conv1x1", "1×1 convolution, 64 → 16", "conv2d", (large, (16, 64, 1, 1)), same | {"padding": 0}),
        Case("conv3x3", "3×3 convolution, 16 → 16", "conv2d", ((batch, 16, 32, 32), (16, 16, 3, 3)), same),
        Case("conv3x3wide", "3×3 convolution, 64 → 64", "conv2d", ((half, 64, 32, 32), (64, 64, 3, 3)), same),
        Case("strided", "3×3 convolution, stride 2", "conv2d", ((batch, 32, 32, 32), (32, 32, 3, 3)), same | {"stride": 2}),
        Case("grouped", "3×3 convolution, 4 groups", "conv2d", (large, (64, 16, 3, 3)), same | {"groups": 4}),
        Case("transposed", "4×4 transposed, stride 2", "conv_transpose2d", ((half, 64, 16, 16), (64, 32, 4, 4)),
             {"stride": 2, "padding": 1}),
        Case("norm", "batch norm + ReLU", "batch_norm_relu", (large, (64,), (64,))),
        Case("maxpool3", "max pooling 3×3, stride 2", "max_pool2d", (large,), {"size": 3, "stride": 2}),
        Case("maxpool2", "max pooling 2×2", "max_pool2d", (large,), {"size": 2, "stride": 2}),
        Case("avgpool", "average pooling 2×2", "avg_pool2d", (large,), {"size": 2}),
        Case("resize", "bilinear resize, 16² → 32²", "interpolate", ((batch, 64, 16, 16),), {"size": 32}),
        Case("loss", "cross-entropy, 10 classes", "cross_entropy", ((batch, 10),), classes=10),
        Case("losswide", "cross-entropy, 1000 classes", "cross_entropy", ((4 * batch, 1000),), classes=1000),
        Case("sgd", "SGD step, 1.03 M weights", "sgd", weights, _SGD),
    )  # fmt: skip
