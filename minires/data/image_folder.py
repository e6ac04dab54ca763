"""Your own pictures: a folder per class, any common file format, always the same array in the end.

Picture files come as palette, greyscale, 16-bit, CMYK, with transparency or turned by the camera. ``read_image`` makes
all of that 8-bit RGB as a viewer would show it, and turns everything that can be wrong with a file into one
``DataError`` that names it. Pillow does the decoding; it is imported only when the first picture is read.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minires.data.dataset import Array, Dataset, Indices
from minires.errors import DataError

__all__ = ["ImageFolder", "read_image", "resize"]

Bytes = npt.NDArray[np.uint8]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MOST_PIXELS = 80_000_000  # a small file may claim to be a huge picture, to fill the memory


def read_image(path: str | os.PathLike[str]) -> Bytes:
    """Read a picture file as RGB, (3, H, W) uint8.

    PNG, JPEG and what else Pillow reads; of an animation the first frame. Transparent parts are laid on white, 16-bit
    values scaled to 8 bits, and a rotation noted by the camera (EXIF) is carried out.

    Raises:
        DataError: the file is missing, truncated, no picture, or larger than 80 million pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if math.prod(image.size) > MOST_PIXELS:
                raise DataError(f"{path}: {image.width}x{image.height} pixels, more than {MOST_PIXELS:,} are not read")
            image.load()
            pixels = np.array(_to_rgb(ImageOps.exif_transpose(image)))  # (H, W, 3)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # Pillow's decoders raise a dozen different types on corrupt files
        raise DataError(f"{path}: cannot be read as a picture ({error or type(error).__name__})") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit greyscale; Pillow's own conversion would clip at 255
        values = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating point pixels have no agreed range")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def resize(image: Bytes, size: int) -> Bytes:
    """Cut the largest square out of the middle and scale it to ``size`` x ``size``.

    Bilinear; when it shrinks, over all pixels that fall into a new one (antialiasing).

    Args:
        image: (3, H, W) uint8.
        size: new height and width in pixels, at least 1.
    """
    from PIL import Image

    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.uint8 or size < 1:
        raise ValueError(f"resize: needs (3, H, W) uint8 and size >= 1, got {image.shape} {image.dtype} and {size}")
    height, width = image.shape[1:]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = image[:, top : top + side, left : left + side].transpose(1, 2, 0)  # (side, side, 3)
    small = Image.fromarray(np.ascontiguousarray(square)).resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


class ImageFolder(Dataset):
    """Pictures sorted into one folder per class: ``root/cat/1.jpg``, ``root/dog/nested/2.png``, ...

    Images are (3, H, W) float32 in [0, 1], decoded again each time they are asked for; labels are the places of the
    folder names in sorted order.

    Args:
        root: the folder with the class folders.
        size: cut and scale every picture to (3, size, size), see ``resize``. Without it batches need pictures of one
            size.

    Attributes:
        classes: folder names, sorted.
        class_to_idx: the label of each.
        samples: a (path, label) pair for each picture, in sorted order.

    Raises:
        DataError: no such folder, no class folders in it, or a class without pictures.
    """

    def __init__(self, root: str | os.PathLike[str], size: int | None = None) -> None:
        if size is not None and size < 1:
            raise ValueError(f"ImageFolder: size must be at least 1, got {size}")
        self.root, self.size = Path(root), size
        if not self.root.is_dir():
            raise DataError(f"ImageFolder: {self.root} is not a folder")
        folders = sorted(each for each in self.root.iterdir() if each.is_dir() and not each.name.startswith("."))
        if not folders:
            raise DataError(f"ImageFolder: {self.root} holds no folders; expected one per class with pictures in it")
        self.classes = tuple(folder.name for folder in folders)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.samples = [(path, label) for label, folder in enumerate(folders) for path in _pictures(folder)]
        self.labels = np.array([label for _, label in self.samples], dtype=np.int64)

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], int]:
        """Picture ``index`` as float32 (3, H, W) in [0, 1], and its label."""
        path, label = self.samples[index]
        image = read_image(path)
        if self.size is not None:
            image = resize(image, self.size)
        return np.divide(image, np.float32(255), dtype=np.float32), label

    def __getitems__(self, indices: Indices, rng: np.random.Generator | None = None) -> tuple[Array, ...]:
        """Images (N, 3, H, W) float32 and labels (N,) int64.

        Raises:
            DataError: a picture cannot be read, or the pictures differ in size and ``size`` was not given.
        """
        samples = [self[int(index)] for index in indices]
        for index, (image, _) in zip(indices, samples, strict=True):
            if image.shape != samples[0][0].shape:
                raise DataError(
                    f"{self.samples[int(index)][0]}: shape {image.shape} where the rest of the batch has "
                    f"{samples[0][0].shape}; give ImageFolder a size"
                )
        return np.stack([image for image, _ in samples]), np.array([label for _, label in samples], dtype=np.int64)

    def __repr__(self) -> str:
        """The constructor call and the size."""
        return f"ImageFolder({str(self.root)!r}, size={self.size})  # {len(self)} images, {len(self.classes)} classes"


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    visible = [path for path in found if not path.name.startswith(".")]
    if not visible:
        raise DataError(f"ImageFolder: {folder} holds no pictures ({' '.join(EXTENSIONS)})")
    return visible
