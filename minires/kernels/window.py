"""Where a sliding window falls: the geometry that pooling, unfold and fold share, on every device.

All of them visit the cells of the window one by one, not the positions of the image: for each of the kH·kW cells they move
one strided slice of the input, which holds what this cell sees at every output position. Cells that stick out into the
padding are left out of the slices, so that no padded copy is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Window"]

Pair = tuple[int, int]
Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Window:
    """A window of ``kernel`` cells at all its output positions; each attribute is a pair (vertical, horizontal).

    At output position o, cell k of an axis sees input position ``o·stride - padding + k·dilation``. Cells are numbered row
    by row: cell (i, j) has the number ``i·kW + j``.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    input_size: Pair
    output_size: Pair

    @property
    def cells(self) -> int:
        """How many cells the window has."""
        return self.kernel[0] * self.kernel[1]

    def taps(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Slices, Slices]]:
        """For every cell: its number, the output positions at which it lies inside the input, and what it sees there.

        Only output rows ``start`` to ``stop`` are visited; the output slices count from ``start``.
        """
        rows = (start, self.output_size[0] if stop is None else stop)
        columns = (0, self.output_size[1])
        for i in range(self.kernel[0]):
            outputs_y, inputs_y = self._span(0, i, rows)
            for j in range(self.kernel[1]):
                outputs_x, inputs_x = self._span(1, j, columns)
                yield i * self.kernel[1] + j, (outputs_y, outputs_x), (inputs_y, inputs_x)

    def _span(self, axis: int, cell: int, outputs: Pair) -> Slices:
        """The output positions, among ``outputs``, at which a cell lies inside the input, and the input positions."""
        stride, origin = self.stride[axis], cell * self.dilation[axis] - self.padding[axis]
        first = max(outputs[0], -(origin // stride))  # the first o with o·stride + origin >= 0
        last = min(outputs[1] - 1, (self.input_size[axis] - 1 - origin) // stride)
        if last < first:
            return slice(0, 0), slice(0, 0)
        seen = slice(first * stride + origin, last * stride + origin + 1, stride)
        return slice(first - outputs[0], last + 1 - outputs[0]), seen

    def origins(self, axis: int) -> Any:
        """The input position of cell 0 at each output position along an axis; negative in the padding."""
        return np.arange(self.output_size[axis]) * self.stride[axis] - self.padding[axis]

    def first_cells(self) -> Any:
        """The number of the first cell that lies inside the input, for every output position: (H', W')."""
        first = [np.maximum(0, -(self.origins(axis) // self.dilation[axis])) for axis in (0, 1)]
        return first[0][:, None] * self.kernel[1] + first[1]

    def always_sees_input(self) -> bool:
        """Whether at every output position at least one cell lies inside the input."""
        for axis in (0, 1):
            origins = self.origins(axis)
            first = np.maximum(0, -(origins // self.dilation[axis]))
            if np.any((first >= self.kernel[axis]) | (origins + first * self.dilation[axis] >= self.input_size[axis])):
                return False
        return True
