"""What each kernel has to move and to compute, by formula, from the arguments that it is launched with.

Bytes: what must be read and written at least once, so every array once; what threads read twice is the caches' business.
Unless a formula below says otherwise that is the size of all array arguments. Operations: as the source has them for each
element; an exponential, a division, a comparison count as one, a multiply-add as two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minires.kernels.cuda.build import Launch

__all__ = ["Cost", "cost_of_launch", "cost_of_product", "family"]

Arguments = Sequence[Any]


class Cost(NamedTuple):
    """Bytes moved and operations made by one launch."""

    bytes: int
    flops: int

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / max(self.bytes, 1)


def family(name: str) -> str:
    """The kernel without what it was specialised for: pool.max_pool_3x3_stride_2 is pool.max_pool."""
    return re.sub(r"(_wide|_\d+x\d+_stride_\d+|(?<=taps)_\d+)$", "", name)


def cost_of_launch(launch: Launch) -> Cost:
    """The cost of a launch; of a kernel that is not in the table the bytes of its arrays, and no operations."""
    name, a = family(f"{launch.source}.{launch.kernel}"), launch.arguments
    size = _SPECIAL_BYTES[name](launch) if name in _SPECIAL_BYTES else sum(_bytes(value) for value in a)
    return Cost(int(size), int(_OPERATIONS[name](launch)) if name in _OPERATIONS else 0)


def cost_of_product(rows: int, columns: int, depth: int, count: int, itemsize: int, out_itemsize: int, beta: float) -> Cost:
    """The cost of ``count`` products (rows, depth)·(depth, columns); the result is read too where it is added to."""
    factors, results = (rows + columns) * depth, rows * columns
    moved = factors * itemsize + results * out_itemsize * (2 if beta else 1)
    return Cost(count * moved, count * 2 * results * depth)


def _bytes(value: Any) -> int:
    return int(value.nbytes) if getattr(value, "shape", ()) else 0


def _sum(array: Any) -> int:
    """The sum of a small array of the device; this waits for it."""
    return int(array.get().sum())


def _macro(launch: Launch, *names: str) -> int:
    return math.prod(int(dict(launch.macros)[name]) for name in names)


# ---------------------------------------------------------------------------------------------------- operations


def _each(operations: float, argument: int) -> Callable[[Launch], float]:
    """So many operations for each element of an argument."""
    return lambda launch: operations * float(launch.arguments[argument].size)


def _pairs(launch: Launch) -> int:
    """Bilinear with two taps: each input row is mixed once for each output column, then each output of two of those."""
    x, y = launch.arguments[:2]
    return int(3 * (y.size + x.shape[0] * x.shape[1] * y.shape[2] * y.shape[3]))


def _taps(launch: Launch) -> int:
    """Any taps: for output (i, j) and each tap of row i, a multiply-add for each tap of column j, and one more."""
    y, row_count, column_count = launch.arguments[1], launch.arguments[3], launch.arguments[7]
    return int(2 * y.shape[0] * y.shape[3] * _sum(row_count) * (_sum(column_count) + y.shape[2]))


def _windows(launch: Launch) -> int:
    """Rows, channels, taps and outputs of a group; the number of groups is that of the blocks in y."""
    a = launch.arguments
    return 2 * math.prod(int(a[i]) for i in (4, 8, 9, 10, 25)) * launch.grid[1]


def _weight(launch: Launch) -> int:
    a = launch.arguments
    return 2 * math.prod(int(a[i]) for i in (3, 8, 9, 10, 19)) * launch.grid[2]


_OPERATIONS: dict[str, Callable[[Launch], float]] = {
    "clip.norm_partial": lambda launch: 2 * _struct_elements(launch),
    "clip.norm_total": _each(1, 0),
    "clip.clip": lambda launch: _struct_elements(launch),
    "conv.im2col": lambda launch: 0,
    "conv.col2im": _each(1, 0),  # each column is added somewhere
    "conv_mma.add_shares": _each(1, 0),
    "conv_mma.arrange": lambda launch: 0,
    "conv_mma.conv_weight": _weight,
    "conv_mma.conv_windows": _windows,
    "copy.max_pool_gather": lambda launch: 0,
    "copy.pick": lambda launch: 0,
    "crop.draw_images": _each(3, 5),  # /peak, - mean, / std
    "crop.draw_labels": lambda launch: 0,
    "crop.philox_words": lambda launch: 0,
    "depthwise.depthwise": lambda launch: 2 * launch.arguments[2].size * _macro(launch, "KH", "KW"),
    "depthwise.depthwise_input": lambda launch: 2 * launch.arguments[0].size * _macro(launch, "KH", "KW"),
    "depthwise.depthwise_weight": lambda launch: 2 * launch.arguments[1].size * _macro(launch, "KH", "KW"),
    "gate.gate": _each(6, 0),  # -, exp, +, / for the sigmoid, then F + F·M
    "gate.gate_backward": _each(9, 0),  # the sigmoid, g·M, ·F, 1 - M, ·, g +
    "loss.cross_entropy": _each(10, 0),
    "loss.cross_entropy_backward": _each(2, 1),
    "loss.finish": _each(2, 0),
    "loss.sum_rows": _each(2, 0),
    "norm.measure": _each(4, 0),  # Σx; x - centre, its square, the sum
    "norm.merge_statistics": _each(2, 0),
    "norm.normalize": _each(3, 0),  # a multiply-add and the ReLU
    "norm.add_up": _each(7, 0),  # where the ReLU was open: 3; Σg: 1; x - mean, ·g, the sum: 3
    "norm.merge_gradients": _each(1, 0),
    "norm.spread": _each(8, 0),  # the ReLU again: 3; scale·(g - level - slope·(x - mean)): 5
    "optim.adam": lambda launch: 17 * _piece_elements(launch, 6),
    "optim.count_steps": _each(1, 1),
    "optim.count_steps_adam": _each(1, 1),
    "optim.set_options": lambda launch: 0,
    "optim.sgd": lambda launch: 9 * _piece_elements(launch, 5),  # decay 2, velocity 3, looking ahead 2, the step 2
    "pool.max_pool": lambda launch: launch.arguments[1].size * math.prod(launch.arguments[10:12]),  # a comparison each
    "pool.max_pool_scatter": lambda launch: launch.arguments[0].size * (1 + math.prod(launch.arguments[10:12])),
    "resize.resample_pairs": _pairs,
    "resize.resample_taps": _taps,
    "resize.resample_windows": _taps,
    "tally.tally": _each(1, 1),
}


# --------------------------------------------------------------------------------------------------------- bytes


def _im2col(launch: Launch) -> float:
    """A slice of the windows: the part of the image that they see is read, all that they hold is written."""
    x, work, (out_height, out_width) = launch.arguments[0], launch.arguments[3], launch.arguments[8:10]
    rows = int(work) * _macro(launch, "VEC") / int(x.shape[3])
    seen = float(x.nbytes) * min(1.0, rows / (int(x.shape[0]) * int(out_height) * int(out_width)))
    return seen + rows * int(x.shape[3]) * _macro(launch, "KH", "KW") * int(x.itemsize)


def _one_phase(launch: Launch) -> int:
    """All of x and the weight, and as much of the result as this launch fills."""
    a = launch.arguments
    return _bytes(a[0]) + _bytes(a[1]) + int(a[4]) * int(a[25]) * launch.grid[1] * int(a[3].itemsize)


def _piece_elements(launch: Launch, argument: int) -> int:
    """Weights of an optimiser's launch: its table of pieces has their numbers in the last column."""
    return _sum(launch.arguments[argument][:, 3])


def _struct_elements(launch: Launch) -> int:
    return int(launch.arguments[0]["size"].sum())


def _itemsize(launch: Launch) -> int:
    return {"float64": 8, "float32": 4}.get(launch.dtype or "", 2)


_SPECIAL_BYTES: dict[str, Callable[[Launch], float]] = {
    "clip.clip": lambda launch: 2 * _itemsize(launch) * _struct_elements(launch),
    "clip.norm_partial": lambda launch: _itemsize(launch) * _struct_elements(launch),
    "conv.im2col": _im2col,
    "conv_mma.conv_windows": _one_phase,
    "copy.max_pool_gather": lambda launch: 2 * _bytes(launch.arguments[2]) + _bytes(launch.arguments[1]),
    "copy.pick": lambda launch: 2 * _bytes(launch.arguments[1]),
    "crop.draw_images": lambda launch: launch.arguments[5].size * (1 + launch.arguments[5].itemsize),
    "crop.draw_labels": lambda launch: 2 * _bytes(launch.arguments[3]),
    # gradient, weight twice, and velocity (or mean and square) twice
    "optim.adam": lambda launch: 7 * _itemsize(launch) * _piece_elements(launch, 6),
    "optim.sgd": lambda launch: (5 if _bytes(launch.arguments[2]) else 3) * _itemsize(launch) * _piece_elements(launch, 5),
}
