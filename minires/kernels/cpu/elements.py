"""Single elements: sums that keep their memory order, and elements written to places that are given by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.kernels.cpu.halves import in_float32

__all__ = ["add", "put_add", "put_last"]


def add(a: Any, b: Any) -> Any:
    """``a + b`` with broadcasting, in the memory order of the operands."""
    return a + b


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
