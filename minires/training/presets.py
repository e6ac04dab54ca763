"""What a training run is made of, in one place: the data, the network, the optimiser, and how long.

A :class:`Job` is plain values only, so it is also what a run writes to ``config.json`` and to its checkpoint. ``DIGITS`` is
the main job, what ``python -m minires train`` does when it is told nothing; ``CIFAR`` is the paper's recipe (section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minires.training.settings import Settings

__all__ = ["CIFAR", "DIGITS", "FOLDER", "PRESETS", "RECIPES", "Job"]

_CHOICES = {
    "data": ("digits", "cifar10", "cifar100", "folder"),
    "attention": ("residual", "naive", "none"),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "multistep", "constant"),
    "precision": ("highest", "high", "medium"),
    "autocast": (None, "bfloat16", "float16"),
}


@dataclass(frozen=True)
class Job(Settings):
    """One training run.

    Attributes:
        data: "digits" (cluttered, with boxes), "cifar10", "cifar100" or "folder" (a folder of pictures for each class).
        root: directory of the data files; not for "digits".
        size: side of the images of a folder in pixels.
        canvas: side of the digits' canvases in pixels.
        digit: side of the digits in pixels.
        clutter: fragments of other digits on each canvas.
        noise: standard deviation of the noise on each canvas.
        train_images: canvases drawn for each epoch, new ones in every epoch.
        test_images: canvases of the test set.
        model: name of the network, see ``minires.models.names()``.
        options: arguments of the network, other than ``attention``, ``num_classes`` and ``in_channels``.
        attention: "residual" (ARL), "naive" (NAL) or "none" (the same network without masks).
        epochs: passes over the training images.
        batch_size: images in a step.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        lr: highest learning rate.
        momentum: of "sgd".
        weight_decay: see the optimiser.
        schedule: "cosine" to 0, "multistep" (÷10 at each milestone), or "constant"; per step.
        warmup: share of all steps in which the rate rises from almost 0.
        milestones: for "multistep", as shares of all steps.
        label_smoothing: see ``cross_entropy``.
        augment: move (pad 4, crop) and mirror the training images.
        test_every: measure on the test images every so many epochs (0: at the end only). Nothing is chosen by it.
        seed: of weights, order and canvases. The test canvases are always the same.
        device: "cpu" or "cuda".
        graph: on a GPU, make the training step a CUDA graph; None: if it can be one.
        precision: of float32 products on a GPU, see ``minires.set_float32_matmul_precision``.
        autocast: "bfloat16" or "float16" for mixed precision, see ``minires.autocast``; None for float32.
    """

    data: str = "digits"
    root: str | None = None
    size: int = 32
    canvas: int = 28
    digit: int = 14
    clutter: int = 4
    noise: float = 0.1
    train_images: int = 4000
    test_images: int = 2000
    model: str = "small_attention"
    options: Mapping[str, Any] = field(default_factory=dict)
    attention: str = "residual"
    epochs: int = 10
    batch_size: int = 64
    optimizer: str = "adamw"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.1
    milestones: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    augment: bool = False
    test_every: int = 1
    seed: int = 0
    device: str = "cpu"
    graph: bool | None = None
    precision: str = "highest"
    autocast: str | None = None

    def __post_init__(self) -> None:
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}
        object.__setattr__(self, "options", plain)  # as JSON gives it back, so that a job equals its copy from a file
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "train_images", "test_images", "size", "canvas", "digit"):
            _need(name, getattr(self, name), 1)
        for name in ("seed", "clutter", "test_every", "noise", "weight_decay", "momentum"):
            _need(name, getattr(self, name), 0)
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr: expected a number > 0, got {self.lr}")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number in [0, 1), got {getattr(self, name)}")
        if self.data != "digits" and self.root is None:
            raise ValueError(f"root: data {self.data!r} needs the directory of its files")

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        return {**super().to_dict(), "milestones": list(self.milestones)}


def _need(name: str, value: float, least: int) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name}: expected a number of at least {least}, got {value}")


#: The main job. All of it was chosen on canvases made of a fifth of the training digits, which the others did not contain.
#: 29 = 4·7 + 1 pixels: the corner cells of both modules' maps (15×15 and 8×8) lie over the corner pixels of the canvas.
#: Units before and after the branches of the modules (p) cost more time than they bring accuracy in a network this small.
DIGITS = Job(
    canvas=29,
    options={"widths": (64, 128), "depths": (2, 1), "stem": 32, "stem_stride": 2, "after": 0, "p": 0, "t": 1, "r": 1},
    epochs=9,
    lr=0.01,
    label_smoothing=0.05,
    test_every=3,
)

#: The paper's recipe for CIFAR: 160,000 steps of 64 images (205 epochs), ÷10 after 64,000 and 96,000.
CIFAR = Job(
    data="cifar10",
    root=".",
    model="cifar_attention",
    epochs=205,
    optimizer="sgd",
    lr=0.1,
    weight_decay=1e-4,
    schedule="multistep",
    warmup=0.0,
    milestones=(0.4, 0.6),
    augment=True,
)

#: The same network for a GPU: fewer and larger steps, one rise and fall of the rate, smoothed labels.
FAST_CIFAR = CIFAR.with_(
    epochs=150, batch_size=128, weight_decay=5e-4, schedule="cosine", warmup=0.1, label_smoothing=0.1, precision="high",
    test_every=10,
)  # fmt: skip

#: A user's own pictures.
FOLDER = CIFAR.with_(data="folder", epochs=60, optimizer="adamw", lr=2e-3, weight_decay=0.05, schedule="cosine", warmup=0.05)

PRESETS = {"digits": DIGITS, "cifar10": CIFAR, "cifar100": CIFAR.with_(data="cifar100"), "folder": FOLDER}

#: What ``minires train --recipe`` knows.
RECIPES = {"paper-cifar": CIFAR, "fast-cifar": FAST_CIFAR}
