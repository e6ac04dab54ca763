"""Contact sheets: an array of errors with any number of axes, laid out on paper as maps of its last two axes.

The maps stand in rows and columns by the axes before, each with its number. A long vector is broken into lines like text. Of
a sheet that is too large for paper the worst maps are shown, and of a map with too many pixels the worst of each block, so
that a single wrong element is always seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.viz.figure import BLACK, GREY

__all__ = ["CELL", "FINE", "FRAME", "NOT_A_NUMBER", "UNDECIDED", "Errors", "Sheet"]

Array = np.ndarray[Any, Any]

FINE, NOT_A_NUMBER, UNDECIDED, FRAME = "#d6e4ef", "#000000", "#a3a3a3", "#8a8a8a"
WRONG = ("#fdd6a4", "#fda055", "#e8601c", "#b03a02", "#742300")  # darker is worse, also without colours
ROWS, COLUMNS, PIXELS, LINE = 6, 10, 64, 32  # the most of maps, of pixels a side, of a vector's elements in a line
CELL, GAP, NUMBER, TITLE = 0.24, 0.07, 0.17, 0.36  # inches: the largest pixel, between maps, a row's number, two lines


class Errors:
    """How errors become colours, the same on the whole page.

    An error is a log10 here: -inf is fine, +inf is a NaN in the gradient, and NaN stands for an element that could not be
    decided. So the largest of several errors is simply their maximum.

    Args:
        low: log10 of the least error that is told apart; everything below has its colour.
    """

    def __init__(self, low: float) -> None:
        from matplotlib.colors import LinearSegmentedColormap, Normalize

        self.low, self.high = low, 0.0
        self.norm = Normalize(self.low, self.high, clip=True)
        self.map = LinearSegmentedColormap.from_list("wrong", WRONG)

    def colors(self, errors: Array) -> Array:
        """RGBA for each error, with a new last axis."""
        from matplotlib.colors import to_rgba

        shown = self.map(self.norm(np.nan_to_num(errors, nan=0.0, posinf=0.0, neginf=self.low)))
        for where, color in ((errors == -np.inf, FINE), (errors == np.inf, NOT_A_NUMBER), (np.isnan(errors), UNDECIDED)):
            shown[where] = to_rgba(color)
        return np.asarray(shown)


class Sheet:
    """One array of errors on paper; ``width`` and ``height`` are in inches, with title and numbers.

    Args:
        title: what the maps are over.
        errors: log10, of any shape, as in :class:`Errors`.
        note: the second line: what is seen.
    """

    def __init__(self, title: str, errors: Array, note: str = "") -> None:
        self.title, self.shape = title, errors.shape
        self.maps, self.row_names, self.column_names = _maps(errors)
        rows, columns = len(self.maps), len(self.maps[0])
        self.pixels = self.maps[0][0].shape
        self.block = tuple(math.ceil(n / PIXELS) for n in (errors.shape[-2:] if errors.ndim > 1 else (1, 1)))
        self.lines = [line for line in (note, self._legend(rows, columns)) if line]
        self.grid = rows, columns
        self.ends = (rows, columns) == (1, 1) and errors.ndim > 0  # a single map: its first and last pixels get numbers
        self.width = self.height = self.cell = 0.0

    def fit(self, width: float, height: float, cell: float = CELL) -> None:
        """Choose the size of a pixel, at most ``cell``, so that the sheet has at most this size."""
        (rows, columns), (high, wide) = self.grid, self.pixels
        above = self._above()
        free = width - self._left() - (columns - 1) * GAP, height - above - (rows - 1) * GAP
        self.cell = max(min(free[0] / (columns * wide), free[1] / (rows * high), cell), 0.01)
        self.width = width
        self.height = above + rows * high * self.cell + (rows - 1) * GAP

    def draw(self, axes: Any, colors: Errors, left: float, top: float) -> None:
        """Draw on axes that count inches."""
        axes.text(left, top, self.title, fontsize=9, color=BLACK, va="top")
        for k, line in enumerate(self.lines):
            axes.text(left, top - 0.17 - 0.14 * k, line, fontsize=7.5, color=GREY, va="top")
        x0, y0 = left + self._left(), top - self._above()
        high, wide = (n * self.cell for n in self.pixels)
        for row, maps in enumerate(self.maps):
            for column, errors in enumerate(maps):
                x, y = x0 + column * (wide + GAP), y0 - row * (high + GAP) - high
                self._draw_map(axes, colors, errors, (x, x + errors.shape[1] * self.cell, y, y + high))
        self._draw_numbers(axes, x0, y0)

    def _draw_numbers(self, axes: Any, left: float, top: float) -> None:
        """Beside the rows and above the columns of maps; of a single map, of its first and last pixels."""
        names = [self.column_names, self.row_names]
        steps = [self.pixels[1] * self.cell + GAP, self.pixels[0] * self.cell + GAP]
        sizes = [steps[0] - GAP, steps[1] - GAP]
        if self.ends:
            needed = [0.2, 0.13]  # inches between two numbers
            last = [n - 1 if (n - 1) * self.cell > r else 0 for n, r in zip(self._last()[::-1], needed, strict=True)]
            names = [[str(k) if k in (0, end) else "" for k in range(end + 1)] for end in last]
            names = [n if k else [] for n, k in zip(names, self._last()[::-1], strict=True)]
            steps = sizes = [self.cell, self.cell]
        room = [0.09 * max(map(len, names[0]), default=0) / steps[0], 0.11 / steps[1]]
        every = [1, 1] if self.ends else [max(1, math.ceil(r)) for r in room]
        for k in range(0, len(names[0]), every[0]):
            x = left + k * steps[0] + sizes[0] / 2
            axes.text(x, top + 0.03, names[0][k], fontsize=7, color=GREY, ha="center", va="bottom")
        for k in range(0, len(names[1]), every[1]):
            y = top - k * steps[1] - sizes[1] / 2
            axes.text(left - 0.05, y, names[1][k], fontsize=7, color=GREY, ha="right", va="center_baseline")

    def _draw_map(self, axes: Any, colors: Errors, errors: Array, extent: tuple[float, float, float, float]) -> None:
        from matplotlib.patches import Rectangle

        axes.imshow(colors.colors(errors), extent=extent, interpolation="nearest", aspect="auto", zorder=2)
        left, right, bottom, top = extent
        if self.cell > 0.06:
            line = {"colors": "white", "linewidths": 0.4, "zorder": 3}
            axes.vlines([left + n * self.cell for n in range(1, errors.shape[1])], bottom, top, **line)
            axes.hlines([bottom + n * self.cell for n in range(1, errors.shape[0])], left, right, **line)
        frame = Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor=FRAME, linewidth=0.5, zorder=4)
        axes.add_patch(frame)
        if self.cell > 0.09:
            for mark, where in (("×", errors == np.inf), ("?", np.isnan(errors))):
                for row, column in np.argwhere(where):
                    place = left + (column + 0.5) * self.cell, top - (row + 0.5) * self.cell
                    size = min(8.0, 50 * self.cell)
                    axes.text(*place, mark, color="white", fontsize=size, ha="center", va="center_baseline", zorder=5)

    def _last(self) -> tuple[int, int]:
        """Pixels down and across of a single map, if it shows the elements one by one; else none."""
        shown = self.ends and max(self.block) == 1
        return (self.pixels[0] if len(self.shape) > 1 else 0, self.pixels[1]) if shown else (0, 0)

    def _left(self) -> float:
        """Room for the numbers of the rows."""
        longest = max((len(name) for name in self.row_names), default=0)
        if self.ends and self._last()[0]:
            longest = len(str(self._last()[0] - 1))
        return 0.07 + 0.062 * longest if longest else 0.0

    def _above(self) -> float:
        """Room for title, notes and the numbers of the columns."""
        return 0.2 + 0.14 * len(self.lines) + (NUMBER if self.column_names or self._last()[1] else 0.03)

    def _legend(self, rows: int, columns: int) -> str:
        """How the axes lie on paper, and what was left out."""
        count = len(self.shape)
        parts = []
        if count == 1 and rows * columns > 1:
            parts.append(f"in lines of {LINE}" if self.shape[0] <= 24 * LINE else "pixel: worst of a few neighbours")
        elif count == 3:
            parts.append("a map for each index of axis 0")
        elif count == 4:
            parts.append("down: axis 0, across: axis 1")
        elif count > 4:
            parts.append(f"down: axes 0 to {count - 4}, across: axis {count - 3}")
        whole = math.prod(self.shape[:-2])
        if count > 2 and whole > rows * columns:
            parts.append(f"the worst {rows * columns} of {whole:,} maps")
        if max(self.block) > 1:
            parts.append(f"pixel: worst of {self.block[0]}×{self.block[1]}")
        return "; ".join(parts)


def _maps(errors: Array) -> tuple[list[list[Array]], list[str], list[str]]:
    """The maps in rows and columns, and the names of rows and columns (none where there is only one)."""
    if errors.ndim < 2:
        return _lines(errors.reshape(-1))
    *leading, high, wide = errors.shape
    columns = leading[-1] if leading else 1
    stacked = errors.reshape(-1, columns, high, wide)  # (rows, columns, H, W)
    down = [", ".join(map(str, index)) for index in np.ndindex(*leading[:-1])]
    across = [str(k) for k in range(columns)]
    rows_shown, columns_shown = _worst(stacked, 0, ROWS), _worst(stacked, 1, COLUMNS)
    maps = [[_blocks(stacked[r, c]) for c in columns_shown] for r in rows_shown]
    row_names = [down[r] for r in rows_shown] if len(leading) > 1 else []
    return maps, row_names, [across[c] for c in columns_shown] if leading else []


def _lines(errors: Array) -> tuple[list[list[Array]], list[str], list[str]]:
    """A vector as lines, like text; of a very long one the worst of every few neighbours."""
    count = len(errors)
    if count > LINE * 24:
        step = math.ceil(count / (LINE * 24))
        errors = np.array([_largest(errors[k : k + step]) for k in range(0, count, step)])
        names = [str(k * step) for k in range(0, len(errors), LINE)]
    else:
        names = [str(k) for k in range(0, count, LINE)]
    if len(errors) <= LINE:
        return [[errors.reshape(1, -1)]], [], []
    return [[errors[k : k + LINE].reshape(1, -1)] for k in range(0, len(errors), LINE)], names, []


def _worst(stacked: Array, axis: int, most: int) -> Sequence[int]:
    """The indices along an axis with the largest errors, in order; all if there are at most ``most``."""
    if stacked.shape[axis] <= most:
        return range(stacked.shape[axis])
    flat = np.moveaxis(stacked, axis, 0).reshape(stacked.shape[axis], -1)
    worst = np.nan_to_num(flat, nan=-1e9, neginf=-1e10, posinf=1e9).max(axis=1)
    return sorted(np.argsort(-worst, kind="stable")[:most].tolist())


def _blocks(errors: Array) -> Array:
    """At most ``PIXELS`` pixels a side: the largest error of each block."""
    steps = [math.ceil(n / PIXELS) for n in errors.shape]
    if max(steps) == 1:
        return errors
    rows, columns = (range(0, n, step) for n, step in zip(errors.shape, steps, strict=True))
    return np.array([[_largest(errors[r : r + steps[0], c : c + steps[1]]) for c in columns] for r in rows])


def _largest(errors: Array) -> float:
    """The largest error; undecided only if all are."""
    known = errors[~np.isnan(errors)]
    return float(known.max()) if known.size else math.nan
