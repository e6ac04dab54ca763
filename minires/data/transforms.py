"""Changing images on their way into the network: augmentation and normalisation, a whole batch at a time.

A transform is a callable ``transform(images, rng)`` from a batch (N, C, H, W) to a batch. It takes its random numbers
from the generator it is given and keeps no state, so a ``DataLoader``, which derives one generator for each batch,
gets the same pictures whether they are prepared ahead in a thread or not. (In torchvision a transform sees one image
and draws from a global generator.) Nothing here loops over images or pixels, and the dtype of the input is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minires.data.dataset import Array

__all__ = ["Compose", "Cutout", "Normalize", "PadCrop", "RandomHorizontalFlip", "ToFloat", "Transform"]

Transform = Callable[[Array, np.random.Generator], Array]


class Compose:
    """Apply several transforms, first to last."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Return ``images`` after every transform in turn."""
        for transform in self.transforms:
            images = transform(images, rng)
        return images

    def __repr__(self) -> str:
        """The constructor call."""
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class ToFloat:
    """uint8 images, 0..255, as float32 in [0, 1]; images that are floats already pass unchanged."""

    def __call__(self, images: Array, rng: np.random.Generator | None = None) -> Array:
        """Return float images of the same shape."""
        return np.divide(images, np.float32(255), dtype=np.float32) if images.dtype == np.uint8 else images

    def __repr__(self) -> str:
        """The constructor call."""
        return "ToFloat()"


class Normalize:
    """Subtract each channel's mean and divide by its standard deviation: (x - mean) / std.

    Args:
        mean: one number per channel, or one for all.
        std: the same; positive.

    Raises:
        ValueError: a std is not positive, or mean and std differ in length.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = mean, std
        self._mean = np.asarray(mean, dtype=np.float64).reshape(-1, 1, 1)
        self._std = np.asarray(std, dtype=np.float64).reshape(-1, 1, 1)
        if not (self._std > 0).all():
            raise ValueError(f"Normalize: std must be positive, got {std}")
        if self._mean.size != self._std.size and 1 not in (self._mean.size, self._std.size):
            raise ValueError(f"Normalize: {self._mean.size} means and {self._std.size} standard deviations")

    def __call__(self, images: Array, rng: np.random.Generator | None = None) -> Array:
        """Return normalised images (N, C, H, W) of the same float dtype."""
        self._check(images)
        normalised: Array = (images - self._mean.astype(images.dtype)) / self._std.astype(images.dtype)
        return normalised

    def undo(self, images: Array) -> Array:
        """Turn normalised images back into the original ones, to look at them."""
        self._check(images)
        original: Array = images * self._std.astype(images.dtype) + self._mean.astype(images.dtype)
        return original

    def _check(self, images: Array) -> None:
        if not np.issubdtype(images.dtype, np.floating):
            raise TypeError(f"Normalize: needs float images, got {images.dtype}; put ToFloat() before it")
        channels, wanted = images.shape[-3], max(self._mean.size, self._std.size)
        if wanted not in (1, channels):
            raise ValueError(f"Normalize: {wanted} values for images with {channels} channels, shape {images.shape}")

    def __repr__(self) -> str:
        """The constructor call."""
        return f"Normalize(mean={self.mean}, std={self.std})"


class PadCrop:
    """Pad the images on all sides, then cut a window of the original size at a random place out of each.

    The standard augmentation on CIFAR: it moves the image by up to ``padding`` pixels.

    Args:
        padding: pixels on each side, 0 or more.
        mode: "zeros" or "reflect" (mirror without repeating the border pixel, needs padding < H and W).
    """

    def __init__(self, padding: int = 4, mode: str = "zeros") -> None:
        if padding < 0 or mode not in ("zeros", "reflect"):
            raise ValueError(f"PadCrop: padding >= 0 and mode 'zeros' or 'reflect', got {padding} and {mode!r}")
        self.padding, self.mode = padding, mode

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Return moved images (N, C, H, W); each image moves by its own amount."""
        count, _, height, width = images.shape
        border = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), (0, 0), border, border), "constant" if self.mode == "zeros" else "reflect")
        y, x = rng.integers(0, 2 * self.padding + 1, size=(2, count))
        # Every window as a view (N, C, 2p+1, 2p+1, H, W); the indexing below then copies just one per image.
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        cropped: Array = windows[np.arange(count), :, y, x]  # (N, C, H, W)
        return cropped

    def __repr__(self) -> str:
        """The constructor call."""
        return f"PadCrop(padding={self.padding}, mode={self.mode!r})"


class RandomHorizontalFlip:
    """Mirror each image left to right with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"RandomHorizontalFlip: p is a probability, got {p}")
        self.p = p

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Return images (N, C, H, W), some of them mirrored."""
        mirrored = rng.random(len(images)) < self.p
        return np.where(mirrored[:, None, None, None], images[..., ::-1], images)

    def __repr__(self) -> str:
        """The constructor call."""
        return f"RandomHorizontalFlip(p={self.p})"


class Cutout:
    """Set one square of each image to zero, so that no single part of an object can be relied on.

    The centre of the square may be any pixel; what reaches over the border is lost. After ``Normalize`` zero is the
    mean colour, so put it last. Source: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural
    Networks with Cutout", arXiv:1708.04552.

    Args:
        size: side of the square in pixels, 0 or more.
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"Cutout: size must be 0 or more, got {size}")
        self.size = size

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Return images (N, C, H, W) with a hole each."""
        count, _, height, width = images.shape
        rows = self._covered(rng.integers(0, height, (count, 1)), height)  # (N, H)
        columns = self._covered(rng.integers(0, width, (count, 1)), width)  # (N, W)
        hole = rows[:, None, :, None] & columns[:, None, None, :]  # (N, 1, H, W)
        return np.where(hole, np.zeros((), images.dtype), images)

    def _covered(self, centre: Array, length: int) -> Array:
        start = centre - self.size // 2  # (N, 1)
        position = np.arange(length)
        covered: Array = (position >= start) & (position < start + self.size)
        return covered

    def __repr__(self) -> str:
        """The constructor call."""
        return f"Cutout(size={self.size})"
