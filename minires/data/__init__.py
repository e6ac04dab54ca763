"""Data: where images come from, and how they reach the network in batches.

``Digits``, ``ClutteredDigits`` and ``photograph`` come with the package; ``CIFAR10``, ``CIFAR100`` and ``ImageFolder``
read files. A ``DataLoader`` makes batches of any of them. Importing this needs NumPy only: Pillow is loaded when the
first picture is read. Sentences come from ``minires.data.numerals``, numbers written out in English and in Chinese.
"""

from __future__ import annotations

from minires.data.cifar import CIFAR10, CIFAR100
from minires.data.cluttered import ClutteredDigits
from minires.data.dataset import Dataset, ImageDataset, Subset, TensorDataset, random_split
from minires.data.digits import Digits
from minires.data.image_folder import ImageFolder, read_image, resize
from minires.data.loader import DataLoader
from minires.data.numerals import from_chinese, from_english, to_chinese, to_english
from minires.data.photograph import photograph
from minires.data.resident import ResidentLoader
from minires.data.sentences import UnknownWordError, Vocabulary
from minires.data.transforms import Compose, Cutout, Normalize, PadCrop, RandomHorizontalFlip, ToFloat

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "ClutteredDigits",
    "Compose",
    "Cutout",
    "DataLoader",
    "Dataset",
    "Digits",
    "ImageDataset",
    "ImageFolder",
    "Normalize",
    "PadCrop",
    "RandomHorizontalFlip",
    "ResidentLoader",
    "Subset",
    "TensorDataset",
    "ToFloat",
    "UnknownWordError",
    "Vocabulary",
    "from_chinese",
    "from_english",
    "photograph",
    "random_split",
    "read_image",
    "resize",
    "to_chinese",
    "to_english",
]
