"""Counting loss and right answers of a batch in one small launch; see :mod:`minires.training.tally`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels.cpu.tally import tally as plain
from minires.kernels.cuda.build import launch
from minires.precision import is_half

__all__ = ["tally"]

THREADS = 1024  # 32 warps, as in tally.cu


def tally(numbers: Any, logits: Any, loss: Any, labels: Any) -> None:
    """As :func:`minires.kernels.cpu.tally.tally`."""
    if is_half(logits) and loss.dtype == np.float32:  # as autocast leaves them
        logits = logits.astype(np.float32)
    usual = logits.ndim == 2 and labels.ndim == 1 and labels.dtype == np.int64 and loss.dtype == logits.dtype
    if not usual or logits.dtype.kind == "c":
        plain(numbers, logits, loss, labels)
        return
    xp = array_module(numbers)
    arguments = [numbers, xp.ascontiguousarray(logits), loss, xp.ascontiguousarray(labels), *logits.shape]
    launch("tally", "tally", 1, arguments, xp=xp, dtype=logits.dtype, block=THREADS, grid=1)
