"""How the time of a step grows: measured points, and the line that is nearest to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from minires.viz.figure import BLACK, GREY, SERIES, Picture, plain_axes

__all__ = ["scaling"]

#: What is under an axis, by the name of what changes.
_LABELS = {"images": "images in a batch", "m": "attention modules a stage, m"}


def scaling(found: Sequence[Mapping[str, Any]], path: str | os.PathLike[str] | None = None) -> Picture:
    """Draw step times beside their lines; the thin strokes reach from quartile to quartile.

    Args:
        found: the part "scaling" of what ``minires bench --only scaling --json`` wrote.
        path: where to save the picture, or None.

    Raises:
        ValueError: nothing to draw.
    """
    if not found:
        raise ValueError("scaling: there is nothing to draw")
    width = 3.6 * len(found)
    figure = Picture(width, 2.9)
    for i, (axes, sweep) in enumerate(zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True)):
        _draw(axes, sweep, SERIES[i])
    figure.subplots_adjust(left=0.42 / width, right=1 - 0.1 / width, top=0.8, bottom=0.17, wspace=0.2)
    return figure.write(path)


def _draw(axes: Any, sweep: Mapping[str, Any], color: str) -> None:
    plain_axes(axes)
    x = [point["x"] for point in sweep["points"]]
    median = [point["median"] for point in sweep["points"]]
    around = [
        [point["median"] - point["quartiles"][0] for point in sweep["points"]],
        [point["quartiles"][1] - point["median"] for point in sweep["points"]],
    ]
    end = 1.04 * x[-1]
    line = [sweep["offset"] + sweep["slope"] * at for at in (0, end)]
    axes.plot([0, end], line, color=GREY, linewidth=1, zorder=2)
    axes.errorbar(x, median, around, fmt="o", color=color, markersize=5, elinewidth=1, zorder=3)
    axes.set(xlim=(0, end), ylim=(min(0.0, line[0]), 1.06 * max(*median, line[1])), xticks=x)
    axes.set_xlabel(_LABELS.get(sweep["what"], sweep["what"]), fontsize=9, color=GREY)
    axes.set_title(f"{sweep['title']}\n", fontsize=9.5, color=BLACK, loc="left")
    note = f"seconds a step; within {100 * sweep['deviation']:.1f} % of a line"
    axes.text(0, 1.03, note, transform=axes.transAxes, fontsize=8.5, color=GREY)
