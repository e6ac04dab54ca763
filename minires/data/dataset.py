"""What a data set is: something with a length that hands out samples by number.

A training loop asks for whole batches, so a data set here has a second way in beside PyTorch's ``dataset[i]``:
``__getitems__(indices)`` returns the arrays of a batch at once. That is one NumPy indexing operation where a loop over
samples would cost a hundred Python calls, and it is why no worker processes are needed. A data set that does not
define it gets a plain version which stacks single samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Dataset", "ImageDataset", "Subset", "TensorDataset", "collate", "random_split"]

Array = npt.NDArray[Any]
Indices = Sequence[int] | npt.NDArray[np.integer[Any]]


class Dataset(ABC):
    """A numbered collection of samples; subclass it and define ``__len__`` and ``__getitem__``.

    A sample of an image data set is ``(image, label)``: float32 of shape (C, H, W) with values in [0, 1], and an int.
    More arrays may follow. A data set that changes from epoch to epoch also defines ``set_epoch(epoch)``, which the
    ``DataLoader`` calls.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Sample number ``index``; raises IndexError outside of the data set."""

    def __getitems__(self, indices: Indices, rng: np.random.Generator | None = None) -> tuple[Array, ...]:
        """The samples ``indices`` as one batch.

        Args:
            indices: sample numbers, in the order wanted.
            rng: random numbers for a data set that varies its samples; the built-in ones do not use it.

        Returns:
            One array per part of a sample, for example images (N, C, H, W) and int64 labels (N,). (PyTorch's method of
            this name returns a list of samples.)
        """
        return collate([self[int(index)] for index in indices])

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The samples, one after the other."""
        return (self[index] for index in range(len(self)))


def collate(samples: Sequence[tuple[Any, ...]]) -> tuple[Array, ...]:
    """Stack samples into a batch: each array gets a new first axis, ints become int64 and floats float32.

    Raises:
        ValueError: there is no sample, or the arrays of two samples differ in shape.
    """
    if not samples:
        raise ValueError("collate: a batch needs at least one sample")
    return tuple(_stack(part) for part in zip(*samples, strict=True))


def _stack(values: Sequence[Any]) -> Array:
    arrays = [np.asarray(value) for value in values]
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"collate: sample {number} of the batch has shape {array.shape}, but sample 0 has {arrays[0].shape}"
            )
    stacked = np.stack(arrays)
    # Python's numbers come without a width: labels are int64 on every platform, other numbers are float32.
    if isinstance(values[0], int):
        return stacked.astype(np.int64)
    return stacked.astype(np.float32) if isinstance(values[0], float) else stacked


class TensorDataset(Dataset):
    """Arrays (or Tensors) whose first axis counts the samples; sample i is row i of each.

    Values are handed out as they are: images of a batch are float32 only if they are stored so. (The ``DataLoader``
    turns uint8 images into float32.)

    Raises:
        ValueError: no array was given, one has no axes, or the lengths differ.
    """

    def __init__(self, *tensors: Any) -> None:
        if not tensors:
            raise ValueError("TensorDataset: give at least one array")
        self.tensors: tuple[Array, ...] = tuple(_as_array(each) for each in tensors)
        if any(each.ndim == 0 for each in self.tensors):
            raise ValueError("TensorDataset: an array without axes has no samples")
        lengths = [len(each) for each in self.tensors]
        if len(set(lengths)) > 1:
            raise ValueError(f"TensorDataset: all arrays need the same length, these have {lengths}")

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Row ``index`` of every array; a whole number comes as an int."""
        rows = [each[index] for each in self.tensors]
        return tuple(int(row) if isinstance(row, np.integer) else row for row in rows)

    def __getitems__(self, indices: Indices, rng: np.random.Generator | None = None) -> tuple[Array, ...]:
        """Rows ``indices`` of every array, copied."""
        rows = np.asarray(indices, dtype=np.intp)
        return tuple(each[rows] for each in self.tensors)

    def __repr__(self) -> str:
        """For example ``TensorDataset(float32 (100, 1, 8, 8), int64 (100,))``."""
        return f"TensorDataset({', '.join(f'{each.dtype} {each.shape}' for each in self.tensors)})"


def _as_array(value: Any) -> Array:
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


class ImageDataset(Dataset):
    """Images kept in memory as small integers, handed out as float32 in [0, 1].

    The integers take a quarter of the memory (CIFAR-10: 150 MB instead of 600 MB); only the images of a batch are
    ever converted.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        classes: the name of each label.
        peak: the stored value that stands for 1.0.
    """

    def __init__(self, images: Array, labels: Array, classes: Sequence[str], peak: int = 255) -> None:
        self.images, self.labels = images, labels.astype(np.int64)
        self.classes = tuple(classes)
        self.peak = peak

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], int]:
        """Image ``index`` as float32 (C, H, W) in [0, 1], and its label."""
        return self._to_float(self.images[index]), int(self.labels[index])

    def __getitems__(self, indices: Indices, rng: np.random.Generator | None = None) -> tuple[Array, ...]:
        """Images (N, C, H, W) float32 in [0, 1] and labels (N,) int64."""
        rows = np.asarray(indices, dtype=np.intp)
        return self._to_float(self.images[rows]), self.labels[rows]

    def _to_float(self, images: Array) -> npt.NDArray[np.float32]:
        return np.divide(images, np.float32(self.peak), dtype=np.float32)


class Subset(Dataset):
    """The samples ``indices`` of another data set, in that order (nothing is copied).

    Raises:
        IndexError: an index lies outside of ``dataset``.
    """

    def __init__(self, dataset: Dataset, indices: Indices) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.intp)
        outside = (self.indices < -len(dataset)) | (self.indices >= len(dataset))
        if outside.any():
            raise IndexError(f"Subset: index {self.indices[outside][0]} in a data set of {len(dataset)} samples")

    def __len__(self) -> int:
        """The number of indices."""
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Sample ``indices[index]`` of the data set."""
        return self.dataset[int(self.indices[index])]

    def __getitems__(self, indices: Indices, rng: np.random.Generator | None = None) -> tuple[Array, ...]:
        """A batch of the data set, by the numbers in this subset."""
        return self.dataset.__getitems__(self.indices[np.asarray(indices, dtype=np.intp)], rng)

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the data set, if it wants to know."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


def random_split(dataset: Dataset, lengths: Sequence[int | float], seed: int = 0) -> list[Subset]:
    """Deal the samples into disjoint subsets at random, the same way for the same seed.

    Args:
        dataset: what to split.
        lengths: samples per part, adding up to ``len(dataset)``, or fractions adding up to 1.
        seed: chooses the split. (PyTorch takes a ``generator`` here.)

    Raises:
        ValueError: the lengths do not add up.
    """
    counts = _split_lengths(lengths, len(dataset))
    order = np.random.default_rng(seed).permutation(len(dataset))
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(counts)[:-1])]


def _split_lengths(lengths: Sequence[int | float], total: int) -> list[int]:
    if not lengths or min(lengths) < 0:
        raise ValueError(f"random_split: lengths must not be negative, got {list(lengths)}")
    if any(isinstance(length, float) for length in lengths):
        if abs(sum(lengths) - 1) > 1e-6:
            raise ValueError(f"random_split: fractions must add up to 1, {list(lengths)} add up to {sum(lengths):g}")
        # Rounding the borders, not the lengths, makes them add up to the total.
        borders = [round(total * sum(lengths[: part + 1])) for part in range(len(lengths))]
        return [int(length) for length in np.diff([0, *borders])]
    if sum(lengths) != total:
        raise ValueError(f"random_split: {list(lengths)} add up to {sum(lengths)}, but there are {total} samples")
    return [int(length) for length in lengths]
