"""Indices as CuPy takes them: its own integer and boolean arrays, slices, numbers, lists; never a NumPy array."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cuda.standin import run as border
from tests.cuda.standin.meter import describe, meter


def prepare(index: Any, shape: tuple[int, ...]) -> tuple[Any, bool]:
    """The index as NumPy takes it, and whether it holds an array."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = [_part(part) for part in parts]
    advanced = any(isinstance(p, np.ndarray | list) for p in plain)
    _check_range(plain, shape)
    return (tuple(plain) if isinstance(index, tuple) else plain[0]), advanced


def _part(part: Any) -> Any:
    if part is None or part is Ellipsis or isinstance(part, int | np.integer):
        return part
    if isinstance(part, slice):
        for bound in (part.start, part.stop, part.step):
            if bound is not None and not isinstance(bound, int | np.integer):
                raise TypeError(f"a slice of {describe(bound)} would make the host wait")
        return part
    if type(part) is border.ndarray:
        if part.dtype.kind == "b":
            meter.sync("indexing with a boolean array")
        elif part.dtype.kind not in "iu":
            raise IndexError(f"arrays used as indices must be of integer or boolean type (actual: {part.dtype})")
        return part._host
    if isinstance(part, list):
        meter.upload("a list as an index")
        return np.asarray(part, None if part else np.int32)
    raise TypeError(f"{describe(part)} as an index of a CuPy array")


def _check_range(parts: list[Any], shape: tuple[int, ...]) -> None:
    """Out-of-range integer arrays wrap around on the device, in silence; here they are errors."""
    masks = [p for p in parts if isinstance(p, np.ndarray) and p.dtype.kind == "b"]
    used = sum(p is not None and p is not Ellipsis for p in parts) + sum(mask.ndim - 1 for mask in masks)
    axis = 0
    for part in parts:
        if part is None:
            continue
        if part is Ellipsis:
            axis += len(shape) - used
        elif isinstance(part, np.ndarray) and part.dtype.kind == "b":
            axis += part.ndim
        else:
            if isinstance(part, np.ndarray) and part.size and not -shape[axis] <= part.min() <= part.max() < shape[axis]:
                raise IndexError(f"index {part.min()} to {part.max()} is out of range for axis {axis} of size {shape[axis]}")
            axis += 1


def check_unique(index: Any, shape: tuple[int, ...]) -> None:
    """Of two writes to one element any may win on the device."""
    positions = np.arange(int(np.prod(shape))).reshape(shape)[index].reshape(-1)
    if len(np.unique(positions)) < len(positions):
        raise ValueError("x[index] = value with an index that names an element twice: which value stays is left to chance")
