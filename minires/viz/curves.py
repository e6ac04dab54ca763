"""How training went: loss and accuracy by epoch, from ``metrics.csv``, one or several runs in one picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minires.errors import DataError
from minires.viz.figure import BLACK, GREY, SERIES, Picture, plain_axes

__all__ = ["curves", "read_metrics"]

Run = str | os.PathLike[str]
Points = list[tuple[float, float]]


def curves(runs: Run | Sequence[Run] | Mapping[str, Run], path: str | os.PathLike[str] | None = None) -> Picture:
    """Draw loss and accuracy of one or more runs; training dashed, test solid.

    Args:
        runs: a run's directory, or several, or name → directory. A path of a ``metrics.csv`` itself will do as well.
        path: where to save the picture, or None.

    Raises:
        DataError: a ``metrics.csv`` is missing or cannot be read.
    """
    if isinstance(runs, str | os.PathLike):
        runs = {"": runs}
    named = runs if isinstance(runs, Mapping) else {Path(run).name: run for run in runs}
    tables = {name: read_metrics(run) for name, run in named.items()}
    names = [name for name in tables if name]
    foot = 0.8 + 0.22 * -(-len(names) // 4)  # inches for the axes' label and the legends
    figure = Picture(8.0, 2.4 + foot)
    left, right = figure.subplots(1, 2)
    _draw(left, tables, "loss", 1.0)
    _draw(right, tables, "accuracy", 100.0)
    left.set_title("loss (cross entropy)", fontsize=10, color=BLACK, loc="left")
    right.set_title("accuracy, %", fontsize=10, color=BLACK, loc="left")
    left.set_ylim(bottom=0)
    right.set_ylim(0, 100)
    _legends(figure, names)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.06, right=0.98, top=1 - 0.32 / height, bottom=foot / height, wspace=0.16)
    return figure.write(path)


def read_metrics(run: Run) -> list[dict[str, float | None]]:
    """The rows of a ``metrics.csv``; empty cells are None.

    Raises:
        DataError: the file is missing, empty, or not such a table.
    """
    path = Path(run) / "metrics.csv" if Path(run).is_dir() else Path(run)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{key: float(cell) if cell else None for key, cell in row.items()} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: is no table of metrics ({error})") from None
    if not rows or not {"epoch", "train_loss", "train_accuracy"} <= rows[0].keys():
        raise DataError(f"{path}: is no table of metrics (no rows with epoch, train_loss, train_accuracy)")
    return rows


def _draw(axes: Any, tables: dict[str, list[dict[str, float | None]]], what: str, factor: float) -> None:
    plain_axes(axes)
    for i, rows in enumerate(tables.values()):
        color = SERIES[i % len(SERIES)]
        for kind, style, marker in (("train", "--", ""), ("test", "-", "o")):
            points = _points(rows, f"{kind}_{what}", factor)
            if points:
                epochs, values = zip(*points, strict=True)
                alone = "o" if len(points) == 1 else marker
                axes.plot(epochs, values, style, color=color, linewidth=1.6, marker=alone, markersize=3.5, clip_on=False)
    last = max(row["epoch"] or 0 for rows in tables.values() for row in rows)
    axes.set_xlim(min(1.0, last - 0.5), max(last, 1.5))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch", fontsize=9, color=GREY)


def _points(rows: list[dict[str, float | None]], column: str, factor: float) -> Points:
    pairs = ((row.get("epoch"), row.get(column)) for row in rows)
    return [(epoch, value * factor) for epoch, value in pairs if epoch is not None and value is not None]


def _legends(figure: Picture, names: list[str]) -> None:
    """What the line styles mean; above it, which color is which run."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"loc": "lower center", "frameon": False, "fontsize": 9, "labelcolor": BLACK}
    color = GREY if names else SERIES[0]
    styles = [
        Line2D([], [], color=color, linestyle="--", linewidth=1.6, label="training images"),
        Line2D([], [], color=color, linewidth=1.6, marker="o", markersize=3.5, label="test images"),
    ]
    figure.legend(handles=styles, ncols=2, bbox_to_anchor=(0.5, 0), **look)
    if names:
        runs = [Line2D([], [], color=SERIES[i % len(SERIES)], linewidth=3, label=name) for i, name in enumerate(names)]
        figure.legend(handles=runs, ncols=min(4, len(names)), bbox_to_anchor=(0.5, 0.22 / figure.get_figheight()), **look)
