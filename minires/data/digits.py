"""Real handwritten digits that come with the package, so that the first example needs no download.

The data are the *Optical Recognition of Handwritten Digits* of E. Alpaydin and C. Kaynak (1998), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/): scanned
forms from 43 people; each digit was normalised to a 32x32 bitmap, and the "on" pixels of each 4x4 block were counted.
So an image has 8x8 pixels with values 0..16. The file holds the 1,797 images of the original test set (13 writers), as
scikit-learn ships them; values and labels were only stored as uint8. It was made once by ::

    digits = sklearn.datasets.load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    train = np.ones(len(labels), bool)
    shuffle = np.random.RandomState(1998)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        train[shuffle.permutation(members)[: round(len(members) / 5)]] = False
    np.savez_compressed("digits.npz", images=images, labels=labels, train=train)

The split into 1,438 train and 359 test images (a fifth of each class) is stored rather than drawn again, so no change
in a random number generator can ever move a test image into the training set. Both parts come from the same writers:
accuracy on it says how well new digits of known hands are read.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from minires.data.dataset import Array, ImageDataset
from minires.errors import DataError

__all__ = ["Digits"]

PEAK = 16  # the number of pixels in the 4x4 blocks that were counted


class Digits(ImageDataset):
    """1,797 handwritten digits of 8x8 pixels: (1, 8, 8) float32 in [0, 1], labels 0..9.

    Attributes:
        images: (N, 1, 8, 8) uint8, 0..16; N is 1,438 for ``train=True`` and 359 for ``train=False``.
        labels: (N,) int64.
        indices: (N,) the number of each image in the original 1,797; train and test share none.
    """

    def __init__(self, train: bool = True) -> None:
        images, labels, in_train = _read(Path(__file__).with_name("digits.npz"))
        self.train = train
        self.indices = np.flatnonzero(in_train == train)
        super().__init__(images[self.indices, None], labels[self.indices], tuple("0123456789"), peak=PEAK)

    def __repr__(self) -> str:
        """The constructor call and the size."""
        return f"Digits(train={self.train})  # {len(self)} images, 1x8x8"


def _read(path: Path) -> tuple[Array, Array, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels, train = archive["images"], archive["labels"], archive["train"]
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise DataError(f"{path}: this part of the package cannot be read, install it again ({error})") from error
    if images.shape != (1797, 8, 8) or labels.shape != (1797,) or train.shape != (1797,):
        raise DataError(f"{path}: expected 1797 images of 8x8 with labels, got {images.shape}")
    return images, labels, train
