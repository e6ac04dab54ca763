"""Optimisers on the GPU: one launch updates all parameters of a flat buffer, and nothing waits for the host.

On the CPU a rule walks the flat arrays in blocks that fit its cache. A GPU wants the opposite, a single launch for
everything, so here each rule is one kernel, which reads every gradient where it lies. What changes between steps is kept in
device memory (the options are written there when they changed, the kernels themselves count the steps): the launch is the
same each time and may be captured in a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.device import array_module, cupy
from minires.kernels.cuda.build import launch
from minires.modes import state as mode

__all__ = ["FusedUpdate", "clip_by_norm", "for_blocks", "fused_update", "gradient_norm"]

POINTERS = 480  # addresses in one launch: its arguments may take 4 KiB
TENSORS = 240  # the same with a size for each
PIECE = 256 * 8  # elements of a block, as in optim.cu
OPTIONS = 6
BLOCKS = 64  # at most for each tensor of a norm

_GRADIENTS = np.dtype([("at", np.uint64, (POINTERS,))])
_TENSORS = np.dtype([("at", np.uint64, (TENSORS,)), ("size", np.int64, (TENSORS,))])


def for_blocks(work: Callable[[int, int, Any, Any], None], spans: Sequence[tuple[int, int]], dtype: Any, many: bool) -> None:
    """Call ``work(start, stop, a, b)`` for all ``spans``, with two arrays to overwrite (for rules without a kernel)."""
    for start, stop in spans:
        work(start, stop, cupy().empty(stop - start, dtype), cupy().empty(stop - start, dtype))


def fused_update(
    rule: str, data: Any, state: dict[str, Any], starts: Sequence[int], ends: Sequence[int]
) -> FusedUpdate | None:
    """The update ``rule`` ("sgd" or "adam") of flat arrays in one launch.

    Args:
        rule: name of the kernel.
        data: (total,) the weights.
        state: name → (total,) the optimiser's numbers for each weight.
        starts: where each parameter begins in ``data``.
        ends: where it ends.
    """
    return FusedUpdate(rule, data, state, starts, ends)


class FusedUpdate:
    """An optimiser's rule on a flat buffer; call it with the gradients and the numbers of the rule.

    The numbers are, for "sgd": lr, momentum, 1 - dampening, weight decay, Nesterov (0 or 1); for "adam": lr, β₁, β₂, eps,
    weight decay, whether that is apart from the gradient (0 or 1).
    """

    def __init__(self, rule: str, data: Any, state: dict[str, Any], starts: Sequence[int], ends: Sequence[int]) -> None:
        self._rule, self._data, self._state = rule, data, state
        self._xp = xp = array_module(data)
        self._count = len(starts)
        self._steps = xp.zeros(self._count, np.int32)
        self._corrections = xp.zeros((self._count, 2), np.float64)
        self._options = xp.zeros(OPTIONS, np.float64)
        self._numbers: tuple[float, ...] | None = None
        rows = _pieces(starts, ends)
        self._pieces = xp.asarray(rows)
        #: for each launch: its first parameter, and its rows in the table of pieces
        firsts = range(0, self._count, POINTERS)
        borders = [int(border) for border in np.searchsorted(rows[:, 0], [*firsts, self._count])]
        self._launches = list(zip(firsts, borders[:-1], borders[1:], strict=True))

    @property
    def steps(self) -> list[int]:
        """The updates that each parameter has had. Reading them waits for the GPU."""
        return [int(step) for step in self._steps.get()]

    @steps.setter
    def steps(self, values: Sequence[int]) -> None:
        self._steps[...] = self._xp.asarray(np.asarray(values, np.int32))

    def refresh(self, numbers: Sequence[float]) -> None:
        """Write the numbers of the rule to the device if they changed since the last time."""
        values = tuple(float(number) for number in numbers)
        if values != self._numbers:
            padded = [np.float64(value) for value in (*values, *[0.0] * (OPTIONS - len(values)))]
            self._launch("set_options", 1, [self._options, *padded], block=32)
            self._numbers = values

    def __call__(self, gradients: Sequence[Any], numbers: Sequence[float]) -> None:
        """Update every parameter with a gradient.

        Args:
            gradients: for each parameter its gradient with the elements in the order of the flat array, or None.
            numbers: see the class; inside a capture those on the device stay as they are.
        """
        if not mode.capturing:
            self.refresh(numbers)
        kept = [self._readable(each) for each in gradients]  # alive until the launch: its memory is freed in order
        for first, begin, end in self._launches:
            some = kept[first : first + POINTERS]
            if any(each is not None for each in some):
                self._update(_addresses(some), first, len(some), begin, end)

    def _readable(self, gradient: Any) -> Any:
        if gradient is None or (gradient.flags.c_contiguous and gradient.dtype == self._data.dtype):
            return gradient
        return self._xp.ascontiguousarray(gradient, dtype=self._data.dtype)

    def _update(self, gradients: Any, first: int, count: int, begin: int, end: int) -> None:
        pieces, blocks = self._pieces[begin:end], (end - begin, 1, 1)
        if self._rule == "sgd":
            self._launch("count_steps", count, [gradients, self._steps, first, count])
            velocity = self._state.get("momentum_buffer")
            arguments = [gradients, self._data, velocity, self._steps, self._options, pieces, first]
        else:
            self._launch("count_steps_adam", count, [gradients, self._steps, self._corrections, self._options, first, count])
            mean, square = self._state["exp_avg"], self._state["exp_avg_sq"]
            arguments = [gradients, self._data, mean, square, self._corrections, self._options, pieces, first]
        self._launch(self._rule, end - begin, arguments, grid=blocks)

    def _launch(self, kernel: str, work: int, arguments: list[Any], **options: Any) -> None:
        launch("optim", kernel, work, arguments, xp=self._xp, dtype=self._data.dtype, **options)


def gradient_norm(gradients: Sequence[Any], p: float) -> Any:
    """The p-norm of all elements of ``gradients``, a float64 array without axes on the device; nothing waits for it."""
    xp = array_module(gradients[0])
    norm = {2.0: 2, math.inf: 0}.get(float(p), 1)
    chunks = _chunks([_dense(each)[0] for each in gradients if each.size])
    sizes = [_blocks(some) * len(some) for some in chunks]
    partial = xp.zeros(max(sum(sizes), 1), np.float64)
    ends = np.cumsum(sizes).tolist()
    for some, size, end in zip(chunks, sizes, ends, strict=True):
        _launch_tensors("norm_partial", [_table(some), partial[end - size : end], np.float64(p)], some, norm)
    total = xp.empty((), np.float64)
    arguments = [partial, total, np.float64(p), partial.size]
    launch("clip", "norm_total", 256, arguments, xp=xp, dtype=np.dtype(np.float64), NORM=norm)
    return total


def clip_by_norm(gradients: Sequence[Any], norm: Any, limit: float) -> None:
    """Multiply all ``gradients`` by limit/(norm + 1e-6), in place, where that is below 1 (or NaN)."""
    dense = [_dense(each) for each in gradients if each.size]
    for some in _chunks([memory for memory, _ in dense]):
        _launch_tensors("clip", [_table(some), norm, np.float64(limit)], some, 2)
    for (memory, copied), gradient in zip(dense, [each for each in gradients if each.size], strict=True):
        if copied:
            gradient[...] = memory


def _pieces(starts: Sequence[int], ends: Sequence[int]) -> np.ndarray[Any, Any]:
    """(pieces, 4) int64: parameter, first element in it, the same in the flat array, and how many; see optim.cu."""
    first, last = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    counts = -(-(last - first) // PIECE)  # pieces of each parameter
    owner = np.repeat(np.arange(len(first)), counts)
    within = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)) * PIECE
    flat = first[owner] + within
    return np.stack([owner, within, flat, np.minimum(last[owner] - flat, PIECE)], axis=1)


def _addresses(arrays: Sequence[Any]) -> Any:
    """The struct ``Gradients`` of optim.cu: an array of one element is passed to a kernel by value."""
    table = np.zeros((), _GRADIENTS)
    table["at"][: len(arrays)] = [0 if array is None else array.data.ptr for array in arrays]
    return table


def _table(arrays: Sequence[Any]) -> Any:
    """The struct ``Tensors`` of clip.cu."""
    table = np.zeros((), _TENSORS)
    table["at"][: len(arrays)] = [array.data.ptr for array in arrays]
    table["size"][: len(arrays)] = [array.size for array in arrays]
    return table


def _chunks(arrays: Sequence[Any]) -> list[list[Any]]:
    """The arrays sorted by dtype, and at most TENSORS of them together."""
    kinds: dict[Any, list[Any]] = {}
    for array in arrays:
        kinds.setdefault(array.dtype, []).append(array)
    return [some[i : i + TENSORS] for some in kinds.values() for i in range(0, len(some), TENSORS)]


def _dense(array: Any) -> tuple[Any, bool]:
    """The array itself if its elements lie without gaps, in whatever order of the axes; else a copy that does, and True."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    if array.transpose(order).flags.c_contiguous:
        return array, False
    return array_module(array).ascontiguousarray(array), True


def _blocks(arrays: Sequence[Any]) -> int:
    """How many blocks work on each of the arrays."""
    largest: int = max(array.size for array in arrays)
    return min(-(-largest // PIECE), BLOCKS)


def _launch_tensors(kernel: str, arguments: list[Any], arrays: Sequence[Any], norm: int) -> None:
    xp, grid = array_module(arrays[0]), (_blocks(arrays), len(arrays), 1)
    launch("clip", kernel, len(arrays), arguments, xp=xp, dtype=arrays[0].dtype, grid=grid, NORM=norm)
