"""Element by element work on large arrays, in blocks that go to threads.

The arrays may be in any memory layout without gaps (C order, channels-last); what comes out has the layout of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires.kernels.cpu.threads import aligned_empty, parallel_blocks

__all__ = ["by_blocks"]

#: Several steps on a block are fastest with 0.25 MB on one thread. Two want fewer and longer NumPy calls, since between two
#: calls they wait for the interpreter's lock.
BLOCK_BYTES = 1 << 19


def by_blocks(compute: Callable[..., None], inputs: tuple[Any, ...], results: int) -> list[Any]:
    """Call ``compute`` with the blocks of all inputs and of as many new arrays as there are ``results``; returns those."""
    first = inputs[0]
    axes = tuple(int(i) for i in np.argsort([-abs(stride) for stride in first.strides], kind="stable"))
    back = tuple(int(i) for i in np.argsort(axes))
    flat = [np.ascontiguousarray(array.transpose(axes)).reshape(-1) for array in inputs]
    fresh = [aligned_empty(tuple(first.shape[i] for i in axes), first.dtype) for _ in range(results)]
    flat += [array.reshape(-1) for array in fresh]
    step = max(1, BLOCK_BYTES // first.itemsize)
    parallel_blocks(lambda start: compute(*(array[start : start + step] for array in flat)), range(0, first.size, step))
    return [array.transpose(back) for array in fresh]
