"""Charts of a few lines, each named at its own end, so that no legend has to be looked up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minires.tensor import Tensor
from minires.viz.figure import BLACK, GREY, SERIES, Picture, plain_axes

__all__ = ["lines"]

Lines = Mapping[str, tuple[Any, Any]]


def lines(
    charts: Mapping[str, Lines],
    path: str | os.PathLike[str] | None = None,
    *,
    xlabel: str | Sequence[str] = "",
    log: bool = False,
    markers: bool = False,
    width: float = 4.2,
    height: float = 2.7,
) -> Picture:
    """Draw charts side by side.

    Args:
        charts: title → name → (x, y), two sequences of equal length; arrays or Tensors. A name keeps its colour.
        path: where to save the figure, or None.
        xlabel: what x is, for all charts or one for each.
        log: whether y is drawn on a logarithmic scale.
        markers: whether each point is marked, for lines of few points.
        width: of a chart in inches.
        height: in inches.

    Raises:
        ValueError: nothing to draw.
    """
    if not charts or not all(charts.values()):
        raise ValueError("lines: there is nothing to draw")
    figure = Picture(width * len(charts), height)
    names = list(dict.fromkeys(name for chart in charts.values() for name in chart))
    labels = [xlabel] * len(charts) if isinstance(xlabel, str) else list(xlabel)
    grid = figure.subplots(1, len(charts), squeeze=False)[0]
    for axes, (title, chart), label in zip(grid, charts.items(), labels, strict=True):
        plain_axes(axes)
        axes.set_yscale("log" if log else "linear")
        axes.minorticks_off()
        axes.set_title(title, fontsize=10, color=BLACK, loc="left")
        axes.set_xlabel(label, fontsize=9, color=GREY)
        for name, (x, y) in chart.items():
            color = SERIES[names.index(name) % len(SERIES)]
            marker = "osD^vX"[names.index(name) % 6] if markers else ""
            axes.plot(_array(x), _array(y), color=color, linewidth=1.8, marker=marker, markersize=4)
        _name_ends(axes, chart, names, log)
    longest = max(len(name) for name in names)
    share = min(0.45, (0.075 * longest + 0.1) / width)  # the room for the names, as a share of a chart
    figure.subplots_adjust(left=0.5 / (width * len(charts)), right=1 - share / len(charts), wspace=0.2 + share / (1 - share))
    figure.subplots_adjust(top=0.87, bottom=0.2)
    return figure.write(path)


def _name_ends(axes: Any, chart: Lines, names: list[str], log: bool) -> None:
    """Each line's name beside its last point; names that would overlap are pushed apart, lowest first."""
    axes.figure.canvas.draw()  # settles the limits
    ends = []
    for name, (x, y) in chart.items():
        point = (float(_array(x)[-1]), float(_array(y)[-1]))
        ends.append((axes.transAxes.inverted().transform(axes.transData.transform(point))[1], name))
    lowest = -1.0
    for height, name in sorted(ends):
        lowest = max(height, lowest + 0.085)
        color = SERIES[names.index(name) % len(SERIES)]
        axes.text(1.02, lowest, name, transform=axes.transAxes, color=color, fontsize=9, va="center", clip_on=False)


def _array(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values.numpy() if isinstance(values, Tensor) else values)
