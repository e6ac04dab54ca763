"""How the few hot loops run fast: the same functions for each kind of device.

Ops call ``kernels.of(x).name(...)``; which implementation that is depends on where ``x`` lives. Tricks (layout, blocks,
buffers, threads) stay in here, so that the ops above read like their formulas.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels import cpu

__all__ = ["of"]


def of(array: Any) -> ModuleType:
    """The kernels for the device on which ``array`` lives."""
    if type(array) is np.ndarray or array_module(array) is np:
        return cpu
    from minires.kernels import cuda  # only when an array is there: ctypes, sources and all that

    return cuda
