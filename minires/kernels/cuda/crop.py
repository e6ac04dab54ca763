"""Training batches made on the GPU from images that live there; see :mod:`minires.kernels.cpu.crop`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels.cpu.crop import Augmentation, threshold
from minires.kernels.cuda.build import launch

__all__ = ["draw_batch"]


def draw_batch(
    images: Any, labels: Any, order: Any, place: Any, count: int, mean: Any, std: Any, how: Augmentation
) -> tuple[Any, Any]:
    """As :func:`minires.kernels.cpu.crop.draw_batch`, in two launches, which may be captured: the place is read there."""
    xp, dtype = array_module(images), mean.dtype
    _, height, width, channels = images.shape
    out = xp.empty((count, height, width, channels), dtype)
    marks = xp.empty(count, np.int64)
    low, high = np.uint32(how.seed & 0xFFFFFFFF), np.uint32(how.seed >> 32 & 0xFFFFFFFF)
    arguments = [
        images, order, place, mean, std, out, count, order.size, height, width, channels, how.padding, int(how.reflect),
        np.int64(threshold(how.flip)), float(how.peak), low, high,
    ]  # fmt: skip
    launch("crop", "draw_images", count * height * width, arguments, xp=xp, dtype=dtype)
    launch("crop", "draw_labels", 256, [labels, order, place, marks, count, order.size], xp=xp, dtype=dtype)
    return out.transpose(0, 3, 1, 2), marks  # (N, C, H, W)
