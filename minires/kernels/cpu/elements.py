"""Single elements: sums that keep their memory order, and elements written to places that are given by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.kernels.cpu.flat import by_blocks
from minires.kernels.cpu.halves import in_float32

__all__ = ["add", "put_add", "put_last"]


#: Elements from which on a second thread is worth it.
_LARGE = 1 << 19


def add(a: Any, b: Any) -> Any:
    """``a + b`` with broadcasting; large arrays of one shape on all threads, in the memory order of ``a``."""
    if not (type(a) is type(b) is np.ndarray and a.size >= _LARGE and a.shape == b.shape and a.dtype == b.dtype):
        return a + b
    return by_blocks(lambda x, y, out: np.add(x, y, out=out), (a, b), 1)[0]


@in_float32()
def put_add(values: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of ``shape`` with ``values`` added at ``index``; an element that is named several times gets the sum."""
    out = np.zeros(shape, values.dtype)
    np.add.at(out, index, values)
    return out


def put_last(values: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of ``shape`` with ``values`` written at ``index``; an element that is named several times gets the last."""
    out = np.zeros(shape, values.dtype)
    out[index] = values
    return out
