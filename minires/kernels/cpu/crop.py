"""Training batches from images that stay where they are: gather, move, mirror and normalise, in one function.

The random numbers come from a counter-based generator: a function of (seed, epoch, number of the sample) and of nothing
else. So it does not matter in which batch, in which order or on which device a sample is prepared; this version in NumPy and
the kernel for the GPU give the same picture.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Augmentation", "draw_batch", "philox"]


class Augmentation(NamedTuple):
    """How :func:`draw_batch` changes images.

    Attributes:
        padding: an image moves by up to this many pixels in each direction.
        reflect: what comes in over the border is the image mirrored at it, else 0 (before normalising).
        flip: the probability that an image is mirrored left to right.
        peak: the stored value that stands for 1.0.
        seed: key of the random numbers, 64 bits.
    """

    padding: int
    reflect: bool
    flip: float
    peak: int
    seed: int


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four random 32-bit numbers for each counter (four 32-bit numbers) and key (two).

    Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3. Each of the ten
    rounds multiplies two words by constants and mixes the halves of the products with the other words and the key.
    """
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    low, high = key
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)  # 32 × 32 → 64 bits
        a = (second >> np.uint64(32)) ^ b ^ np.uint64(low)
        c = (first >> np.uint64(32)) ^ d ^ np.uint64(high)
        b, d = second & np.uint64(0xFFFFFFFF), first & np.uint64(0xFFFFFFFF)
        low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def draw_batch(
    images: Any, labels: Any, order: Any, place: Any, count: int, mean: Any, std: Any, how: Augmentation
) -> tuple[Any, Any]:
    """The next ``count`` samples of an epoch; the place in it moves on by as many.

    Args:
        images: (samples, H, W, C) uint8.
        labels: (samples,) int64.
        order: (n,) int32, the sample numbers in the order of the epoch.
        place: (2,) int64, the epoch's number and how many samples of it are done; changed in place.
        count: how many samples to draw; after the last one of the epoch the first one follows.
        mean: (C,) of the dtype wanted.
        std: (C,) of that dtype.
        how: what is done to the images.

    Returns:
        Images (count, C, H, W), channels-last in memory, (x/peak - mean)/std of the moved and mirrored images; labels.
    """
    _, height, width, _ = images.shape
    index = order[(place[1] + np.arange(count)) % len(order)]  # (N,)
    key = (how.seed & 0xFFFFFFFF, how.seed >> 32 & 0xFFFFFFFF)
    down, right, mirror, _ = philox((index, place[0], 0, 0), key)
    span = np.uint64(2 * how.padding + 1)
    rows = np.arange(height) + _shift(down, span, how.padding)  # (N, H)
    columns = np.arange(width) + _shift(right, span, how.padding)  # (N, W)
    columns = np.where((mirror < threshold(how.flip))[:, None], columns[:, ::-1], columns)
    inside = _inside(rows, height)[:, :, None, None] & _inside(columns, width)[:, None, :, None]  # (N, H, W, 1)
    rows, columns = _into(rows, height), _into(columns, width)
    pixels = images[index[:, None, None], rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    if not how.reflect:
        pixels = np.where(inside, pixels, 0)
    out = (pixels.astype(mean.dtype) / mean.dtype.type(how.peak) - mean) / std
    place[1] += count
    return out.transpose(0, 3, 1, 2), labels[index]  # (N, C, H, W)


def threshold(probability: float) -> int:
    """A random 32-bit number is below this with that probability."""
    return round(probability * 2**32)


def _shift(random: Any, span: Any, padding: int) -> Any:
    """A whole number from -padding to padding for each random 32-bit number, (N, 1)."""
    return ((random * span) >> np.uint64(32)).astype(np.int64)[:, None] - padding


def _inside(position: Any, length: int) -> Any:
    return (position >= 0) & (position < length)


def _into(position: Any, length: int) -> Any:
    """Positions beyond the border, mirrored at it without repeating the border's pixel."""
    last = length - 1
    return np.clip(last - abs(last - abs(position)), 0, last)
