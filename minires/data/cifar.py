"""CIFAR-10 and CIFAR-100: the data sets of the paper's ablations, read from their official binary files.

Source: A. Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images",
https://www.cs.toronto.edu/~kriz/cifar.html, which describes the layout: a file is a row of records, each one label
byte (CIFAR-100: the coarse label, then the fine one) and 3,072 pixel bytes, the red, green and blue planes of 32x32.
The SHA-256 sums and sizes of the archives are those with which TensorFlow Datasets checks the same downloads; Toronto
itself publishes only MD5 sums.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from minires.data.dataset import Array, ImageDataset
from minires.data.download import download, extract
from minires.errors import DataError

__all__ = ["CIFAR10", "CIFAR100"]

PIXELS = 3 * 32 * 32


class Source(NamedTuple):
    """Where an official archive is, and what is in it."""

    url: str
    sha256: str
    size: int
    folder: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]


class _Cifar(ImageDataset):
    """What both data sets share: finding the files, fetching them, reading records."""

    source: ClassVar[Source]
    label_ranges: ClassVar[tuple[int, ...]]  # how many classes each label byte of a record distinguishes

    def __init__(self, root: str | os.PathLike[str], train: bool, download: bool, classes: tuple[str, ...]) -> None:
        self.train, self.root = train, Path(root)
        if download:
            self._download()
        parts = [_read_records(path, self.label_ranges) for path in self._files()]
        images, label_bytes = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        self._label_bytes = label_bytes
        super().__init__(images, label_bytes[:, -1], classes)

    def _folder(self) -> Path | None:
        """The folder with all files, which may be ``root`` itself, or None."""
        names = self.source.train_files + self.source.test_files
        for folder in (self.root, self.root / self.source.folder):
            if all((folder / name).is_file() for name in names):
                return folder
        return None

    def _files(self) -> list[Path]:
        names = self.source.train_files if self.train else self.source.test_files
        nested = self.root / self.source.folder
        for folder in (self.root, nested):
            if (folder / names[0]).exists():
                return [folder / name for name in names]
        raise DataError(
            f"{type(self).__name__}: no file {names[0]} in {self.root} or {nested}; "
            f"put the official binary files there, or pass download=True"
        )

    def _download(self) -> None:
        if self._folder() is not None:
            return
        archive = self.root / self.source.url.rsplit("/", 1)[-1]
        download(self.source.url, archive, sha256=self.source.sha256, size=self.source.size)
        extract(archive, self.source.folder, self.source.train_files + self.source.test_files, self.root)
        archive.unlink()  # 170 MB that nobody reads again

    def __repr__(self) -> str:
        """The constructor call and the size."""
        return f"{type(self).__name__}({str(self.root)!r}, train={self.train})  # {len(self)} images, 3x32x32"


class CIFAR10(_Cifar):
    """60,000 photographs in 10 classes: (3, 32, 32) float32 in [0, 1], labels 0..9.

    Args:
        root: the folder with ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, or the one that holds
            the official folder ``cifar-10-batches-bin``.
        train: the 50,000 training images, else the 10,000 test images.
        download: fetch the archive (162 MiB) and unpack it in ``root`` if the files are not there.

    Attributes:
        images: (N, 3, 32, 32) uint8.
        labels: (N,) int64.
        classes: the ten names.

    Any whole number of records is accepted, so a file may be a part of the official one.

    Raises:
        DataError: a file is missing or corrupt (the message names it), or the network does not answer.
    """

    source = Source(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170_052_171,
        folder="cifar-10-batches-bin",
        train_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test_files=("test_batch.bin",),
    )
    label_ranges = (10,)

    def __init__(self, root: str | os.PathLike[str], train: bool = True, download: bool = False) -> None:
        names = "airplane automobile bird cat deer dog frog horse ship truck"
        super().__init__(root, train, download, tuple(names.split()))


class CIFAR100(_Cifar):
    """60,000 photographs in 100 classes, which belong to 20 groups: (3, 32, 32) float32 in [0, 1], labels 0..99.

    Args:
        root: the folder with ``train.bin`` and ``test.bin``, or the one that holds ``cifar-100-binary``.
        train: the 50,000 training images, else the 10,000 test images.
        download: fetch the archive (161 MiB) and unpack it in ``root`` if the files are not there.

    Attributes:
        images: (N, 3, 32, 32) uint8.
        labels: (N,) int64, the fine labels.
        coarse_labels: (N,) int64, 0..19.
        classes: the hundred names.
        coarse_classes: the twenty names.

    Raises:
        DataError: as for ``CIFAR10``.
    """

    source = Source(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        size=168_513_733,
        folder="cifar-100-binary",
        train_files=("train.bin",),
        test_files=("test.bin",),
    )
    label_ranges = (20, 100)

    def __init__(self, root: str | os.PathLike[str], train: bool = True, download: bool = False) -> None:
        super().__init__(root, train, download, tuple(FINE.split()))
        self.coarse_labels = self._label_bytes[:, 0].astype(np.int64)
        self.coarse_classes = tuple(COARSE.split())


def _read_records(path: Path, label_ranges: tuple[int, ...]) -> tuple[Array, Array]:
    """The images (N, 3, 32, 32) uint8 and label bytes (N, labels) of one file."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    length = len(label_ranges) + PIXELS
    if len(content) == 0 or len(content) % length:
        raise DataError(f"{path}: expected a whole number of {length}-byte records, the file has {len(content)} bytes")
    records = content.reshape(-1, length)
    labels = records[:, : len(label_ranges)]
    wrong = (labels >= np.array(label_ranges)).any(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        allowed = " and ".join(f"0..{count - 1}" for count in label_ranges)
        raise DataError(f"{path}: record {first} has label {labels[first].tolist()}, expected {allowed}; wrong file?")
    return records[:, len(label_ranges) :].reshape(-1, 3, 32, 32), labels


COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
    insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2
"""

FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
