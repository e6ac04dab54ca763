"""Batches from images that live on the GPU: nothing crosses the bus in an epoch but the order of its samples.

CIFAR is 150 MB as bytes, little for a GPU, while preparing a batch on the CPU takes longer than a training step. Here one
kernel makes a batch out of the stored images. Its random numbers depend on the seed, the epoch and the sample alone (a
counter-based generator, :func:`minires.kernels.cpu.crop.philox`), so the CPU and the GPU make the same pictures. A
``DataLoader`` with the same seed has the samples in the same order, but moves them otherwise: it draws for a whole batch.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from minires.data.dataset import Array, Dataset, ImageDataset, Subset
from minires.data.loader import DataLoader
from minires.data.transforms import Compose, Normalize, PadCrop, RandomHorizontalFlip, ToFloat, Transform
from minires.device import array_module, parse, to_device
from minires.kernels import of as kernels_of
from minires.kernels.cpu.crop import Augmentation
from minires.precision import INEXACT

__all__ = ["ResidentLoader"]


class ResidentLoader(DataLoader):
    """A ``DataLoader`` for an image data set that fits into the memory of the device.

    The images are stored there when the first pass begins. In a CUDA graph use :meth:`begin` once for each epoch, before
    the replays, and :meth:`draw` in the captured step: each replay then takes the next batch.

    Args:
        dataset: an ``ImageDataset`` or a ``Subset`` of one.
        batch_size: samples in a batch.
        shuffle: visit the samples in a new random order each epoch.
        drop_last: leave out a last batch that is not full.
        seed: chooses the orders and the augmentation, 0 or more.
        transform: any of ``PadCrop``, ``RandomHorizontalFlip``, ``ToFloat`` and ``Normalize``, in this order.
        device: where the images live and the batches are made, "cpu", "cuda" or "cuda:N".
        dtype: of the batches.

    Raises:
        TypeError: another kind of data set, or images that are not bytes.
        ValueError: another transform, or a wrong argument.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int = 0,
        transform: Transform | None = None,
        device: str = "cuda",
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(
            dataset, batch_size, shuffle, drop_last=drop_last, seed=seed, prefetch=0, transform=transform, device=device
        )
        images, _, peak = _stored(dataset)
        if images.dtype != np.uint8:
            raise TypeError(f"ResidentLoader: expected images of bytes, got {images.dtype}")
        parse(device)
        if np.dtype(dtype).kind not in INEXACT:
            raise TypeError(f"ResidentLoader: dtype must be a floating point one, got {np.dtype(dtype)}")
        self._how, mean, std = _recipe(transform, images.shape, peak, self.seed)
        self._statistics = mean.astype(dtype), std.astype(dtype)
        self._on_device: tuple[Any, ...] | None = None
        self._order: Any = None
        self._place: Any = None
        self._reader: object = None  # the last iterator that drew a batch

    def begin(self, epoch: int, batch: int = 0) -> None:
        """Make ``batch`` of ``epoch`` the next one to be drawn. Not inside a capture: the order goes to the device here."""
        order = self.order(epoch).astype(np.int32)
        place = np.array([epoch, batch * self.batch_size], np.int64)
        if self._on_device is None:
            images, labels, _ = _stored(self.dataset)
            channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))  # (samples, H, W, C)
            self._on_device = tuple(to_device(each, self.device) for each in (channels_last, labels, *self._statistics))
            self._order, self._place = to_device(order, self.device), to_device(place, self.device)
            return
        self._order[...] = array_module(self._order).asarray(order)  # the same memory: a captured kernel reads it
        self._place[...] = array_module(self._place).asarray(place)

    def draw(self, count: int | None = None) -> tuple[Any, Any]:
        """The next ``count`` samples (a batch) of the epoch that was begun: images (N, C, H, W) and labels, raw arrays."""
        if self._on_device is None:
            raise RuntimeError("ResidentLoader: call begin(epoch) before the first draw()")
        images, labels, mean, std = self._on_device
        batch: tuple[Any, Any] = kernels_of(images).draw_batch(
            images, labels, self._order, self._place, count or self.batch_size, mean, std, self._how
        )
        return batch

    def _batches(self, epoch: int, first: int) -> Generator[tuple[Any, ...]]:
        me = object()
        for batch in range(first, len(self)):
            if self._reader is not me:  # at the beginning, and after another iterator, since all share one place
                self.begin(epoch, batch)
                self._reader = me
            yield self.draw(min(self.batch_size, len(self.dataset) - batch * self.batch_size))

    def _ahead(self, batches: Generator[tuple[Array, ...]]) -> Generator[tuple[Any, ...]]:
        return batches  # a GPU works ahead of the host by itself

    def __repr__(self) -> str:
        """For example ``ResidentLoader(50000 samples on cuda, batch_size=128, 391 batches)``."""
        return (
            f"ResidentLoader({len(self.dataset)} samples on {self.device}, batch_size={self.batch_size}, "
            f"{len(self)} batches)"
        )


def _stored(dataset: Dataset) -> tuple[Array, Array, int]:
    """Images (N, C, H, W), labels (N,), and the value that stands for 1.0."""
    if isinstance(dataset, Subset):
        images, labels, peak = _stored(dataset.dataset)
        return images[dataset.indices], labels[dataset.indices], peak
    if not isinstance(dataset, ImageDataset):
        raise TypeError(f"ResidentLoader: expected an ImageDataset or a Subset of one, got {type(dataset).__name__}")
    return dataset.images, dataset.labels, dataset.peak


def _recipe(
    transform: Transform | None, shape: tuple[int, ...], peak: int, seed: int
) -> tuple[Augmentation, npt.NDArray[Any], npt.NDArray[Any]]:
    """What the transforms come to: the augmentation, and mean and standard deviation of each channel."""
    steps = transform.transforms if isinstance(transform, Compose) else [] if transform is None else [transform]
    kinds = (PadCrop, RandomHorizontalFlip, ToFloat, Normalize)
    places = [next((i for i, kind in enumerate(kinds) if type(step) is kind), len(kinds)) for step in steps]
    if len(kinds) in places or any(a >= b for a, b in pairwise(places)):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"ResidentLoader: transform may be any of {names}, each once and in this order; got {transform!r}")
    found = dict(zip(places, steps, strict=True))
    crop, flip, normalize = found.get(0), found.get(1), found.get(3)
    padding, reflect = (crop.padding, crop.mode == "reflect") if isinstance(crop, PadCrop) else (0, False)
    if reflect and padding >= min(shape[2:]):
        raise ValueError(f"ResidentLoader: PadCrop({padding}, 'reflect') needs images larger than {shape[2:]}")
    mean, std = (normalize.mean, normalize.std) if isinstance(normalize, Normalize) else (0.0, 1.0)
    probability = flip.p if isinstance(flip, RandomHorizontalFlip) else 0.0
    wide = [np.broadcast_to(np.asarray(value, np.float64), (shape[1],)) for value in (mean, std)]
    return Augmentation(padding, reflect, probability, peak, seed), wide[0], wide[1]
