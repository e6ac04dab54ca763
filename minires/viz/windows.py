"""How the windows of a pooling or a convolution lie on a row of pixels, drawn so that the count can be read off."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from minires.viz.figure import BLACK, GREY, SERIES, Picture

__all__ = ["windows"]

CELL, LANE, MARGIN = 0.3, 0.16, 0.1  # inches: a pixel, the distance of two bars, the border


def windows(
    sizes: int | Sequence[int],
    kernel: int = 3,
    stride: int = 2,
    ceil_mode: bool = True,
    path: str | os.PathLike[str] | None = None,
) -> Picture:
    """Draw rows of pixels and, under each, the windows that slide over it, without padding.

    Args:
        sizes: pixels in the row; several make several rows.
        kernel: pixels in a window.
        stride: pixels between two windows' first pixels.
        ceil_mode: whether a window may reach over the end (its part outside is drawn dashed), or is left out.
        path: where to save the figure, or None.
    """
    rows = [sizes] if isinstance(sizes, int) else list(sizes)
    counts = [_count(size, kernel, stride, ceil_mode) for size in rows]
    longest = max(rows)
    heights = [CELL + 3 * LANE + 0.22 for _ in rows]
    width, height = 2 * MARGIN + (longest + 1.2) * CELL + 1.7, sum(heights) + MARGIN
    figure = Picture(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    top = height - MARGIN
    for size, count, step in zip(rows, counts, heights, strict=True):
        _draw_row(axes, size, count, kernel, stride, top)
        text = f"{size} pixels → {count} windows"
        axes.text(MARGIN + (longest + 1.2) * CELL, top - CELL / 2, text, va="center", fontsize=9, color=BLACK)
        top -= step
    return figure.write(path)


def _count(size: int, kernel: int, stride: int, ceil_mode: bool) -> int:
    """The number of windows; in ceil mode the last must still begin inside."""
    full, rest = divmod(size - kernel, stride)
    return full + 1 + int(ceil_mode and rest > 0 and (full + 1) * stride < size)


def _draw_row(axes: Any, size: int, count: int, kernel: int, stride: int, top: float) -> None:
    from matplotlib.patches import Rectangle

    for i in range(size):
        place = (MARGIN + i * CELL, top - CELL)
        axes.add_patch(Rectangle(place, CELL, CELL, facecolor="#eeeeee", edgecolor="white", linewidth=1.5))
        axes.text(place[0] + CELL / 2, place[1] + CELL / 2, str(i), ha="center", va="center", fontsize=8, color=GREY)
    for k in range(count):
        color = SERIES[k % len(SERIES)]
        start, end = k * stride, k * stride + kernel
        y = top - CELL - LANE * (1 + k % 2) + 0.02
        axes.plot([MARGIN + start * CELL + 0.04, MARGIN + min(end, size) * CELL - 0.04], [y, y], color=color, linewidth=3.5)
        if end > size:
            outside = [MARGIN + size * CELL + 0.04, MARGIN + end * CELL - 0.04]
            axes.plot(outside, [y, y], color=color, linewidth=2, linestyle=(0, (1.2, 0.8)))
        middle = MARGIN + (start + min(end, size)) / 2 * CELL
        axes.text(middle, top - CELL - 3 * LANE, str(k), ha="center", va="center", fontsize=8, color=color, weight="bold")
