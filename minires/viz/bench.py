"""The chart of ``minires bench``: the time of minires as a multiple of what others take, op by op, network by network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minires.viz.figure import BLACK, GREY, SERIES, Picture, plain_axes

__all__ = ["bench"]

Found = Mapping[str, Any]

#: PyTorch, in whatever part it is measured, has bars; the others, measured op by op only, have marks.
_BARS = {"PyTorch": SERIES[0], "PyTorch, channels_last": SERIES[4]}
_MARKS = {
    "DeZero": ("o", SERIES[1]), "Chainer": ("s", SERIES[2]), "MyGrad": ("D", SERIES[3]), "Autograd": ("^", SERIES[5]),
    "tinygrad": ("X", BLACK),
}  # fmt: skip
_NAMES = {"torch, NCHW": "PyTorch", "torch, channels_last": "PyTorch, channels_last"}

_HEIGHT, _HEAD, _LANE = 0.28, 0.3, 0.037  # inches: of a row, of the room over a group, between marks of a row
_WIDTH, _LEFT = 6.4, 0.37  # inches; the share of the width that is left to the names


class _Row(NamedTuple):
    """A row: its name, and the ratio to each other framework."""

    title: str
    ratios: dict[str, float]


def bench(found: Found, path: str | os.PathLike[str] | None = None) -> Picture:
    """Draw ratios on a logarithmic scale: left of the line at 1 minires is the faster one.

    Args:
        found: what ``minires bench --json`` wrote, as a dictionary. Of an op the passes are taken together.
        path: where to save the picture, or None.

    Raises:
        ValueError: nothing was measured beside another framework.
    """
    groups = {
        "single ops, forward and backward together": [_op(case) for case in found.get("ops", {}).get("cases", [])],
        "training steps": [_network(group) for group in found.get("steps", [])],
        "inference": [_network(group) for group in found.get("inference", [])],
    }
    shown = {title: [row for row in rows if row.ratios] for title, rows in groups.items()}
    shown = {title: rows for title, rows in shown.items() if rows}
    if not shown:
        raise ValueError("bench: there is nothing to draw: no other framework was measured")
    places, heads = _places(shown)
    foot = 0.95
    height = places[-1] + 0.5 * _HEIGHT + foot
    figure = Picture(_WIDTH, height)
    axes = figure.add_axes((_LEFT, foot / height, 0.98 - _LEFT, 1 - foot / height))
    rows = [row for group in shown.values() for row in group]
    _prepare(axes, rows, height - foot)
    for title, place in heads.items():
        look: dict[str, Any] = {"fontsize": 9, "color": BLACK, "va": "center", "weight": "bold"}
        axes.text(_LEFT / (_LEFT - 0.98) + 0.015, place, title, transform=axes.get_yaxis_transform(), **look)
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        if i % 2 == 0:  # stripes lead the eye from the name to the marks
            axes.axhspan(place - _HEIGHT / 2, place + _HEIGHT / 2, color="#f5f5f5", zorder=0)
        _draw_row(axes, row, place)
    _legend(figure, {name for row in rows for name in row.ratios}, height)
    return figure.write(path)


def _op(case: Found) -> _Row:
    """Ours over theirs, of the sums over the passes."""

    def seconds(row: Found) -> float:
        return sum(float(row[part]["median"]) for part in ("forward", "backward") if part in row)

    timed = {row["name"]: seconds(row) for row in case["rows"] if "forward" in row}
    ours = timed.pop("minires", None)
    return _Row(case["title"], {name: ours / theirs for name, theirs in timed.items()} if ours else {})


def _network(group: Found) -> _Row:
    title = group["title"].removesuffix(", inference")
    rows = [row for row in group["rows"] if row.get("ratio") and row["name"] in _NAMES]
    return _Row(title, {_NAMES[row["name"]]: row["ratio"] for row in rows})


def _places(shown: Mapping[str, Sequence[_Row]]) -> tuple[list[float], dict[str, float]]:
    """How far down each row is, and the head of each group, in inches."""
    places: list[float] = []
    heads: dict[str, float] = {}
    down = 0.0
    for title, rows in shown.items():
        heads[title] = down + 0.5 * _HEAD
        down += _HEAD
        places += [down + (i + 0.5) * _HEIGHT for i in range(len(rows))]
        down += len(rows) * _HEIGHT + 0.1
    return places, heads


def _prepare(axes: Any, rows: Sequence[_Row], height: float) -> None:
    """The scale, and the line at 1."""
    plain_axes(axes)
    values = np.array([ratio for row in rows for ratio in row.ratios.values()] + [0.5, 1.5])
    axes.set_xscale("log")
    low, high = values.min() / 1.6, values.max() * 1.6
    axes.set(xlim=(low, high), ylim=(height, 0), yticks=[])
    ticks = [tick for tick in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.axvline(1, color=BLACK, linewidth=1, zorder=3)
    axes.set_xlabel("← minires is faster      time of minires / time of the other      slower →", fontsize=8.5, color=GREY)


def _draw_row(axes: Any, row: _Row, place: float) -> None:
    look: dict[str, Any] = {"fontsize": 8.5, "color": BLACK, "va": "center", "ha": "right"}
    axes.text(-0.015, place, row.title, transform=axes.get_yaxis_transform(), **look)
    bars = [name for name in _BARS if name in row.ratios]
    thick = 0.36 * _HEIGHT
    for i, name in enumerate(bars):
        ratio, middle = row.ratios[name], place + (i - (len(bars) - 1) / 2) * thick
        axes.barh(middle, ratio - 1, left=1, height=thick, color=_BARS[name], zorder=2)
    for i, (name, (marker, color)) in enumerate(_MARKS.items()):
        if name in row.ratios:
            height = place + (i - (len(_MARKS) - 1) / 2) * _LANE  # so that equal ratios do not hide each other
            axes.plot(row.ratios[name], height, marker, color=color, markersize=5, markeredgecolor="white",
                      markeredgewidth=0.6, zorder=4)  # fmt: skip


def _legend(figure: Picture, names: set[str], height: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=color, label=name) for name, color in _BARS.items() if name in names]
    handles += [
        Line2D([], [], marker=marker, color=color, linestyle="", markersize=5, label=name)
        for name, (marker, color) in _MARKS.items() if name in names
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=8.5, labelcolor=BLACK,
                  bbox_to_anchor=(0.5, 0.02 / height), handletextpad=0.4, columnspacing=1.6)  # fmt: skip
