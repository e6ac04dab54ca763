"""Single elements on the GPU: sums that keep their memory order, and elements written to places that are given by index.

An index may name one element many times. Atomic additions would then come in another order in every run, and so round
otherwise; therefore values are sorted by their target first, and each target's values are added in pairs, pairs of pairs and
so on: always the same tree, without waiting for the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.device import array_module

__all__ = ["add", "put_add", "put_last"]


def add(a: Any, b: Any) -> Any:
    """``a + b`` with broadcasting, in the memory order of the operands.

    CuPy's operators answer in C order, which would turn channels-last images around for every kernel that follows.
    """
    alike = getattr(a, "ndim", 0) > 1 and getattr(b, "shape", ()) == a.shape and a.dtype == b.dtype
    if not alike or a.flags.c_contiguous:
        return a + b
    xp = array_module(a)
    return xp.add(a, b, out=xp.empty_like(a))


def put_add(values: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of ``shape`` with ``values`` added at ``index``; an element that is named several times gets the sum."""
    xp, positions = array_module(values), _positions(values, index, shape)
    out = xp.zeros(shape, values.dtype)
    flat = values.reshape(-1)
    if not flat.size:
        return out
    order = xp.argsort(positions)  # stable: equal positions stay in their order
    position, total = positions[order], flat[order]
    step = 1
    while step < len(total):  # afterwards total[i] is the sum of all up to i with the same position
        same = position[step:] == position[:-step]
        total = xp.concatenate((total[:step], total[step:] + xp.where(same, total[:-step], 0)))
        step *= 2
    targets = xp.arange(out.size)
    last = xp.searchsorted(position, targets, side="right") - 1  # -1, and so the largest position, before the first
    found = position[last] == targets
    return xp.where(found, total[last], 0).astype(values.dtype, copy=False).reshape(shape)


def put_last(values: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of ``shape`` with ``values`` written at ``index``; an element that is named several times gets the last."""
    xp, positions = array_module(values), _positions(values, index, shape)
    out = xp.zeros(shape, values.dtype)
    flat = values.reshape(-1)
    if not flat.size:
        return out
    writer = xp.full(out.size, -1, np.int32)
    xp.maximum.at(writer, positions, xp.arange(len(flat), dtype=np.int32))  # atomics on integers do not depend on the order
    return xp.where(writer >= 0, flat[writer], 0).astype(values.dtype, copy=False).reshape(shape)


def _positions(values: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """The places that ``index`` names, counted in C order, in one row."""
    xp = array_module(values)
    count = 1
    for size in shape:
        count *= size
    return xp.arange(count).reshape(shape)[index].reshape(-1)
