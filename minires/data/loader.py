"""Batches for training: shuffled by a seed, prepared ahead, and able to continue in the middle of an epoch.

The rule that makes runs repeatable: everything random is a pure function of ``(seed, epoch, batch)``. The order of an
epoch comes from the seed and the epoch's number, the augmentation of a batch from these and the batch's number. So
nothing depends on the speed of a thread, a run that was interrupted continues with exactly the batches it would have
had, and what has to be saved for that is two integers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from minires.data.dataset import Array, Dataset, collate
from minires.data.pinned import on_device
from minires.data.prefetch import prefetched
from minires.data.transforms import ToFloat, Transform
from minires.tensor import Tensor

__all__ = ["DataLoader"]


class DataLoader:
    """Iterate over a data set in batches; each pass over the loader is one epoch.

    A batch is a tuple with one Tensor per part of a sample: images (N, C, H, W) float32 first, then labels (N,) int64
    and whatever else the data set has. Each new pass is the next epoch, also when the last one was left with
    ``break``. Run one pass at a time.

    Args:
        dataset: a ``Dataset``, or anything with ``__len__`` and ``__getitem__``.
        batch_size: samples in a batch.
        shuffle: visit the samples in a new random order each epoch, else always in their own order.
        drop_last: leave out a last batch that is not full.
        seed: chooses the orders and the augmentation, 0 or more.
        prefetch: how many batches a background thread prepares ahead; 0 works without a thread. The batches are the
            same, bit for bit.
        transform: ``transform(images, rng) -> images`` on each batch of images, see ``minires.data.transforms``.
            Images that are still uint8 after it become float32 in [0, 1].
        device: where the batches are handed out, "cpu", "cuda" or "cuda:N". The next one is copied to a GPU while the last
            one is being used (see ``minires.data.ResidentLoader`` for images that live there altogether).

    Raises:
        ValueError: a wrong argument, an empty data set, or not one full batch with ``drop_last``.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        seed: int = 0,
        prefetch: int = 2,
        transform: Transform | None = None,
        device: str = "cpu",
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("prefetch", prefetch, 0)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"DataLoader: {name} must be a whole number of at least {least}, got {value!r}")
        if len(dataset) == 0:
            raise ValueError("DataLoader: the data set is empty")
        if drop_last and len(dataset) < batch_size:
            raise ValueError(f"DataLoader: drop_last=True leaves no batch of {batch_size} from a data set of {len(dataset)}")
        self.dataset, self.transform, self.device = dataset, transform, device
        self.batch_size, self.shuffle, self.drop_last = int(batch_size), shuffle, drop_last
        self.seed, self.prefetch = int(seed), int(prefetch)
        self._epoch = 0  # of the pass that runs, or of the next one if none has started
        self._batch = 0  # batches of that epoch handed out already
        self._started = False  # whether a pass over that epoch has begun
        self._passes = 0  # how many passes were ever begun: only the newest one moves the position

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def epoch(self) -> int:
        """The number of the epoch that runs now or, between two passes, of the next one."""
        return self._epoch

    def order(self, epoch: int) -> npt.NDArray[np.intp]:
        """The sample numbers in the order of that epoch; a pure function of the seed and the epoch."""
        if not self.shuffle:
            return np.arange(len(self.dataset), dtype=np.intp)
        return self._generator(epoch, 0).permutation(len(self.dataset)).astype(np.intp)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that epoch, from its start.

        A position that was loaded is kept if it lies in this very epoch, so that a training loop which calls
        ``set_epoch`` for each epoch also continues in the middle of one. A data set with ``set_epoch`` is told.
        """
        if epoch < 0:
            raise ValueError(f"DataLoader: epochs count from 0, got {epoch}")
        if self._started or epoch != self._epoch:
            self._epoch, self._batch, self._started = epoch, 0, False
        self._tell_dataset(epoch)

    def state_dict(self) -> dict[str, int | bool]:
        """The position (``epoch``, and ``batch``: how many of its batches were handed out) and what it depends on."""
        return {"epoch": self._epoch, "batch": self._batch, **self._settings()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position: the next pass yields the rest of that epoch, bit for bit.

        When all batches of the epoch had been handed out but its pass had not ended, that rest is empty.

        Raises:
            ValueError: this loader would not make the same batches as the one that was saved.
        """
        for name, value in self._settings().items():
            if state.get(name) != value:
                raise ValueError(f"DataLoader: the saved position is for {name}={state.get(name)}, this has {value}")
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if epoch < 0 or not 0 <= batch <= len(self):
            raise ValueError(f"DataLoader: no position epoch {epoch}, batch {batch} with {len(self)} batches an epoch")
        self._epoch, self._batch, self._started = epoch, batch, False

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Begin a pass: the batches of one epoch, or the rest of it after ``load_state_dict``."""
        if self._started:
            self._epoch, self._batch = self._epoch + 1, 0
        self._started = True
        self._passes += 1
        self._tell_dataset(self._epoch)
        return self._run(self._epoch, self._batch, self._passes)

    def _run(self, epoch: int, first: int, number: int) -> Iterator[tuple[Tensor, ...]]:
        batches = self._ahead(self._batches(epoch, first))
        with contextlib.closing(batches):
            for position, arrays in enumerate(batches, start=first + 1):
                if number == self._passes:
                    self._batch = position
                yield tuple(Tensor(array) for array in arrays)
        if number == self._passes:
            self._epoch, self._batch, self._started = epoch + 1, 0, False

    def _ahead(self, batches: Generator[tuple[Array, ...]]) -> Generator[tuple[Any, ...]]:
        """The same batches on the loader's device, prepared before they are asked for."""
        if self.device != "cpu":
            return on_device(batches, self.device, self.prefetch)
        return prefetched(batches, self.prefetch) if self.prefetch else batches

    def _batches(self, epoch: int, first: int) -> Generator[tuple[Array, ...]]:
        order = self.order(epoch)
        for batch in range(first, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self._load(indices, self._generator(epoch, 1 + batch))

    def _load(self, indices: npt.NDArray[np.intp], rng: np.random.Generator) -> tuple[Array, ...]:
        if hasattr(self.dataset, "__getitems__"):
            images, *others = self.dataset.__getitems__(indices, rng)
        else:
            images, *others = collate([self.dataset[int(index)] for index in indices])
        if self.transform is not None:
            images = self.transform(images, rng)
        return ToFloat()(images), *(_wide(other) for other in others)

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, stream])

    def _settings(self) -> dict[str, int | bool]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "samples": len(self.dataset),
        }

    def _tell_dataset(self, epoch: int) -> None:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __repr__(self) -> str:
        """For example ``DataLoader(1438 samples, batch_size=64, 23 batches)``."""
        return f"DataLoader({len(self.dataset)} samples, batch_size={self.batch_size}, {len(self)} batches)"


def _wide(array: Array) -> Array:
    """Whole numbers as int64, the dtype that losses expect of labels."""
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
