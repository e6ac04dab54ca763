"""The data of a job: its loaders, its classes, and how its pictures become what the network wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minires.data import (
    CIFAR10,
    CIFAR100,
    ClutteredDigits,
    Compose,
    DataLoader,
    Dataset,
    ImageFolder,
    Normalize,
    PadCrop,
    RandomHorizontalFlip,
    ResidentLoader,
    Subset,
    ToFloat,
    random_split,
    read_image,
    resize,
)
from minires.data.transforms import Transform
from minires.training.presets import Job

__all__ = ["Source", "open_source", "picture_side", "read_pictures"]

TEST_SEED = 1704  # of the test canvases, the same for every run
TEST_BATCH = 200


@dataclass
class Source:
    """Everything a job needs to know of its data.

    Attributes:
        train: the training loader.
        test: the test loader, in fixed order; its batches hold boxes as a third part if ``boxes``.
        classes: names of the classes.
        channels: C of an image.
        side: height and width of an image in pixels.
        boxes: whether the object's box is known.
    """

    train: DataLoader
    test: DataLoader
    classes: Sequence[str]
    channels: int
    side: int
    boxes: bool = False

    def first_test_images(self, count: int) -> tuple[np.ndarray[Any, Any], ...]:
        """Images as the network wants them, as people want them, labels, and boxes where known: the first ``count``."""
        count = min(count, len(self.test.dataset))
        images, labels, *boxes = self.test.dataset.__getitems__(range(count))
        shown = ToFloat()(images)
        wanted = shown if self.test.transform is None else self.test.transform(shown, np.random.default_rng(0))
        return wanted, shown, labels, *boxes


def open_source(job: Job, download: bool = False) -> Source:
    """Open the data of a job.

    Args:
        job: what to open.
        download: fetch CIFAR if its files are not there.

    Raises:
        DataError: files are missing or corrupt.
        ValueError: settings that do not go together.
    """
    if job.data == "digits":
        return _digits(job)
    train, test, side = _pictures(job, download)
    normalize = Normalize(*_statistics(job))
    moves: list[Transform] = [PadCrop(4), RandomHorizontalFlip()] if job.augment else []
    classes = (train.dataset if isinstance(train, Subset) else train).classes  # type: ignore[attr-defined]
    # A GPU keeps pictures of 32 × 32 in its memory; larger ones are read as they are needed, and copied there meanwhile.
    loader = ResidentLoader if job.device != "cpu" and job.data != "folder" else DataLoader
    augment, device = Compose([*moves, ToFloat(), normalize]), job.device
    return Source(
        loader(train, job.batch_size, shuffle=True, seed=job.seed, transform=augment, device=device),
        loader(test, TEST_BATCH, transform=Compose([ToFloat(), normalize]), device=device),
        classes, channels=3, side=side,
    )  # fmt: skip


def read_pictures(job: Job, paths: Sequence[str], invert: bool = False) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A user's own pictures, cut to a square and scaled to the size that the job's network was trained on.

    Returns:
        Images as the network wants them, and as people want them, (N, C, side, side) float32 both.

    Raises:
        DataError: a file is missing or no picture.
    """
    side = picture_side(job)
    shown = np.stack([ToFloat()(resize(read_image(path), side)) for path in paths])  # (N, 3, side, side)
    if invert:
        shown = 1 - shown
    if job.data == "digits":
        luma = np.array([0.299, 0.587, 0.114], np.float32).reshape(3, 1, 1)  # ITU-R BT.601
        grey = (shown * luma).sum(axis=1, keepdims=True)  # (N, 1, side, side)
        return grey, grey
    return Normalize(*_statistics(job))(shown), shown


def picture_side(job: Job) -> int:
    """Height and width of the job's images in pixels."""
    return {"digits": job.canvas, "folder": job.size}.get(job.data, 32)


def _digits(job: Job) -> Source:
    look: dict[str, Any] = {"canvas": job.canvas, "digit": job.digit, "clutter": job.clutter, "noise": job.noise}
    train = ClutteredDigits(True, job.train_images, seed=job.seed, fresh=True, **look)
    test = ClutteredDigits(False, job.test_images, seed=TEST_SEED, with_boxes=True, **look)
    return Source(
        DataLoader(train, job.batch_size, shuffle=True, seed=job.seed, device=job.device), DataLoader(test, TEST_BATCH),
        train.classes, channels=1, side=job.canvas, boxes=True,
    )  # fmt: skip


def _pictures(job: Job, download: bool) -> tuple[Dataset, Dataset, int]:
    root = Path(job.root or ".")
    if job.data != "folder":
        kind = CIFAR10 if job.data == "cifar10" else CIFAR100
        return kind(root, train=True, download=download), kind(root, train=False), 32
    held_out = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if held_out is not None and (root / "train").is_dir():
        train, test = ImageFolder(root / "train", job.size), ImageFolder(held_out, job.size)
        if train.classes != test.classes:
            raise ValueError(f"{root}: train and {held_out.name} have different class folders")
        return train, test, job.size
    parts = random_split(ImageFolder(root, job.size), [0.8, 0.2], seed=0)
    return parts[0], parts[1], job.size


def _statistics(job: Job) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each channel: the customary ones for CIFAR, nominal ones for other pictures."""
    if job.data == "cifar10":
        return (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    if job.data == "cifar100":
        return (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
