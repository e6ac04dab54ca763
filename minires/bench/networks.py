"""What is measured: networks with their batches, and how exactly float32 numbers are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import minires as mr
from minires import models
from minires.modes import get_float32_matmul_precision, set_float32_matmul_precision

__all__ = ["Batch", "Network", "Precision", "of_device", "precisions"]

Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # images (N, C, H, W) float32, labels (N,) int64

#: Batches that the steps go through in turn, so that no step sees what the one before it saw.
_BATCHES = 3


@dataclass(frozen=True)
class Network:
    """A network and the batches it is trained on.

    Attributes:
        name: short, for the command line.
        title: for a table.
        build: makes it.
        batch_size: images in a batch.
        shape: C, H, W of an image.
        classes: how many there are.
    """

    name: str
    title: str
    build: Callable[[], Any]
    batch_size: int
    shape: tuple[int, int, int]
    classes: int

    def model(self) -> Any:
        """The network on the CPU, with the same weights each time."""
        mr.manual_seed(0)
        return self.build()

    def batches(self) -> list[Batch]:
        """Normal random numbers, never zeros: a GPU computes zeros with less power, and so faster."""
        rng = np.random.default_rng(0)
        shape = (self.batch_size, *self.shape)
        return [
            (rng.standard_normal(shape, np.float32), rng.integers(0, self.classes, self.batch_size)) for _ in range(_BATCHES)
        ]


def _cifar(batch_size: int) -> Network:
    title = f"CIFAR Attention-56, batch {batch_size}"
    return Network("cifar", title, lambda: models.cifar_attention(1), batch_size, (3, 32, 32), 10)


def of_device(kind: str, quick: bool) -> list[Network]:
    """The networks that are measured on "cuda" or "cpu"; the first alone if ``quick``."""
    if kind == "cuda":
        wide = Network("wide", "CIFAR Attention-56, wide, batch 128", models.wide_attention, 128, (3, 32, 32), 10)
        large = Network("imagenet", "ImageNet Attention-56, batch 64", models.attention56, 64, (3, 224, 224), 1000)
        networks = [_cifar(128), wide, large]
    else:
        size = 16 if quick else 64
        digits = Network("digits", f"digits, batch {size}", models.small_attention, size, (1, 29, 29), 10)
        wide = Network("wide", "CIFAR Attention-56, wide, batch 32", models.wide_attention, 32, (3, 32, 32), 10)
        large = Network("imagenet", "ImageNet Attention-56, batch 4", models.attention56, 4, (3, 224, 224), 1000)
        networks = [digits, _cifar(64), wide, large]
    return networks[:1] if quick else networks


@dataclass(frozen=True)
class Precision:
    """How both sides multiply float32 numbers.

    Attributes:
        name: "fp32", "tf32" or "bf16".
        word: for :func:`minires.set_float32_matmul_precision` and PyTorch's function of that name.
        tolerance: how far the losses of the two sides may differ, relatively: before the first update, and in the steps
            after it, in which differences of rounding grow.
        autocast: whether the network computes in bfloat16.
    """

    name: str
    word: str
    tolerance: tuple[float, float]
    autocast: bool = False

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Inside, minires computes like this."""
        before = get_float32_matmul_precision()
        set_float32_matmul_precision(self.word)
        try:
            with mr.autocast("bfloat16") if self.autocast else nullcontext():
                yield
        finally:
            set_float32_matmul_precision(before)


def precisions(kind: str) -> list[Precision]:
    """Those that can be measured on "cuda" or "cpu"."""
    strict = Precision("fp32", "highest", (1e-4, 2e-2))
    if kind == "cpu":
        return [strict]
    known = [Precision("tf32", "high", (1e-2, 5e-2)), strict]
    if find_spec("ml_dtypes") is not None:
        known.append(Precision("bf16", "high", (3e-2, 1e-1), autocast=True))
    return known
