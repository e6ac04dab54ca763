"""The figures of the paper's experiments: every mean with its standard error, and every single run behind it.

Filled marks are means over seeds, with one standard error to either side; small open circles are the single runs, so that a
reader sees how much two means differ by and whether that says anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minires.training.experiments.statistics import estimate
from minires.viz.figure import BLACK, FEATURES, GREY, MASK, SERIES, Picture, plain_axes

__all__ = ["against_depth", "dots", "dots_and_kernels", "localisation", "trend"]

Path = str | os.PathLike[str] | None
Values = Sequence[float]
Chart = Mapping[str, Mapping[float, Values]]

ROW, TOP, BOTTOM = 0.42, 0.2, 0.78  # inches: a row of dots, and the room above and below all of them
LETTER = 0.078  # inches of width that a letter of size 9.5 takes on average


def dots(rows: Mapping[str, Values], path: Path, *, xlabel: str, notes: Mapping[str, str] | None = None) -> Picture:
    """One row for each network: its mean, the standard error and the single runs, side by side on one scale.

    Args:
        rows: name → a value for each seed.
        path: where to save the figure, or None.
        xlabel: what the values are.
        notes: name → a remark that stands in grey under the name.
    """
    left, height = _label_width([*rows, *(notes or {}).values()]), TOP + ROW * len(rows) + BOTTOM
    figure = Picture(left + 4.6, height)
    axes = _place(figure, left, BOTTOM, 4.4, ROW * len(rows))
    _draw_rows(axes, rows, xlabel, notes or {})
    _caption(figure, rows.values())
    return figure.write(path)


def dots_and_kernels(
    rows: Mapping[str, Values], kernels: Mapping[str, Any], path: Path, *, xlabel: str, layer: str
) -> Picture:
    """:func:`dots`, and below them small kernels with a number in each cell.

    Args:
        rows: name → a value for each seed.
        kernels: title → (h, w).
        path: where to save the figure, or None.
        xlabel: what the values are.
        layer: where the kernels are from.
    """
    left, side, gap, foot = _label_width(rows), 0.98, 0.12, 0.4
    above = foot + side + 0.42
    figure = Picture(max(left + 4.6, len(kernels) * (side + gap) + gap), TOP + ROW * len(rows) + BOTTOM + above)
    axes = _place(figure, left, BOTTOM + above, figure.get_figwidth() - left - 0.2, ROW * len(rows))
    _draw_rows(axes, rows, xlabel, {})
    _caption(figure, rows.values(), above)
    top = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    start = (figure.get_figwidth() - len(kernels) * (side + gap) + gap) / 2
    for i, (title, kernel) in enumerate(kernels.items()):
        panel = _place(figure, start + i * (side + gap), foot, side, side)
        _draw_kernel(panel, np.asarray(kernel), top)
        panel.set_title(title, fontsize=8.5, color=BLACK, pad=4)
    text = f"Kernels of {layer}, seed 0: where they start, and the channels that moved most."
    figure.text(start / figure.get_figwidth(), 0.14 / figure.get_figheight(), text, fontsize=8, color=GREY)
    return figure.write(path)


def trend(charts: Mapping[str, Chart], path: Path, *, xlabel: str, log: bool = False) -> Picture:
    """Lines against a number, one for each kind of network, each named at its own end; a panel for each measure.

    Args:
        charts: what is measured → name of the network → x → a value for each seed.
        path: where to save the figure, or None.
        xlabel: what x is.
        log: whether the values are drawn on a logarithmic scale.
    """
    names = list(dict.fromkeys(name for lines in charts.values() for name in lines))
    width, gap = 4.2 if len(charts) == 1 else 3.2, _label_width(names) + 0.45
    figure = Picture(0.5 + len(charts) * (width + gap) - 0.4, 3.5)
    for i, (title, lines) in enumerate(charts.items()):
        axes = _place(figure, 0.5 + i * (width + gap), 0.8, width, 2.35)
        plain_axes(axes)
        axes.set_yscale("log" if log else "linear")
        for line, shift in zip(lines, _shifts(lines), strict=True):
            number = names.index(line)
            _draw_line(axes, lines[line], SERIES[number], "osD^vX"[number % 6], shift)
        ticks = sorted({x for points in lines.values() for x in points})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.set_xlabel(xlabel, fontsize=9, color=GREY)
        axes.set_title(title, fontsize=10, color=BLACK, loc="left", pad=8)
        if log:
            _plain_log_ticks(axes)
        _name_ends(axes, lines, names)
    _caption(figure, [values for lines in charts.values() for points in lines.values() for values in points.values()])
    return figure.write(path)


def against_depth(charts: Mapping[str, Mapping[float | None, Values]], path: Path, *, xlabel: str, level: str) -> Picture:
    """Panels of one line each against depth, with a network that has no place on the axis as a level line.

    Args:
        charts: title → x → a value for each seed; x is None for the other network.
        path: where to save the figure, or None.
        xlabel: what x is.
        level: what the other network is called.
    """
    width, gap = 2.3, 0.6 + LETTER * len(level)
    figure = Picture(0.5 + len(charts) * (width + gap), 3.1)
    for i, (title, points) in enumerate(charts.items()):
        axes = _place(figure, 0.5 + i * (width + gap), 0.85, width, 1.9)
        plain_axes(axes)
        _draw_line(axes, {x: values for x, values in points.items() if x is not None}, SERIES[0], "o", 0.0)
        if None in points:
            _draw_level(axes, points[None], level)
        axes.set_xticks([x for x in points if x is not None])
        axes.set_xlabel(xlabel, fontsize=9, color=GREY)
        axes.set_title(title, fontsize=10, color=BLACK, loc="left", pad=8)
        if i:
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    _caption(figure, [values for points in charts.values() for values in points.values()])
    return figure.write(path)


def localisation(
    shares: Mapping[str, Mapping[str, Values]], examples: Mapping[str, Any], path: Path, *, chance: str
) -> Picture:
    """How often maps find the object, in a panel for each measure, and the maps of a few images with the object's box.

    Args:
        shares: measure → name of the map → a value for each seed, in per cent.
        examples: "image" (n, H, W), "box" (n, 4) and "maps": name → (n, H, W).
        path: where to save the figure, or None.
        chance: the name among the maps that stands for chance; drawn as a level line.
    """
    names = [name for name in next(iter(shares.values())) if name != chance]
    kinds = list(dict.fromkeys(name.partition(",")[0] for name in names))
    colors = {name: SERIES[kinds.index(name.partition(",")[0]) % len(SERIES)] for name in names}
    left, side, gap = _label_width(names), 0.86, 0.06
    table, sheet, foot = 0.29 * len(names), len(examples["image"]) * (side + gap), 0.34
    bottom = foot + sheet + 0.42 + 0.62  # titles of the pictures, then the caption and the numbers of the axes
    figure = Picture((1 + len(names)) * (side + gap) + 0.3, 0.5 + table + bottom)
    width = (figure.get_figwidth() - left - 0.2) / len(shares)
    for i, (title, values) in enumerate(shares.items()):
        axes = _place(figure, left + i * width, bottom, width - 0.25, table)
        level = estimate(values[chance]).mean
        _draw_rows(axes, {name: values[name] for name in names}, "", {}, i == 0, colors)
        axes.axvline(level, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.text(level, -0.62, f"{chance}, {level:.0f}", fontsize=8, color=GREY, ha="center", va="bottom")
        axes.set_xlim(0, 100)
        axes.set_title(title, fontsize=10, color=BLACK, loc="left", pad=14)
    _caption(figure, [values for each in shares.values() for values in each.values()], bottom - 0.62)
    _draw_examples(figure, examples, names, side, gap, foot)
    text = "The first test images, seed 0; the frame is the object's box. Each map has a scale of its own, dark is low."
    figure.text(0.1 / figure.get_figwidth(), 0.12 / figure.get_figheight(), text, fontsize=8, color=GREY)
    return figure.write(path)


# ------------------------------------------------------------------------------------ parts


def _place(figure: Picture, left: float, bottom: float, width: float, height: float) -> Any:
    """Axes at a place given in inches."""
    wide, high = figure.get_figwidth(), figure.get_figheight()
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


def _label_width(names: Any) -> float:
    return 0.3 + LETTER * max(len(name) for name in names)


def _draw_rows(
    axes: Any, rows: Mapping[str, Values], xlabel: str, notes: Mapping[str, str], named: bool = True,
    colors: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    for i, (name, values) in enumerate(rows.items()):
        found, color = estimate(values), (colors or {}).get(name, SERIES[0])
        axes.hlines(i, *_span(found.mean, found.error), color=color, linewidth=2.2, zorder=3)
        axes.plot(values, [i] * len(values), "o", markersize=4.5, markerfacecolor="none", color=color, alpha=0.55, zorder=2)
        axes.plot(found.mean, i, "o", markersize=6.5, color=color, zorder=4)
        if named:
            shift = -0.14 if name in notes else 0.0
            x = axes.get_yaxis_transform()
            axes.text(-0.03, i + shift, name, transform=x, fontsize=9.5, color=BLACK, ha="right", va="center")
            axes.text(-0.03, i + 0.24, notes.get(name, ""), transform=x, fontsize=8, color=GREY, ha="right", va="center")
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.margins(x=0.08)
    axes.set_xlabel(xlabel, fontsize=9, color=GREY)


def _draw_line(axes: Any, points: Mapping[float, Values], color: str, marker: str, shift: float) -> None:
    places = np.array(sorted(points), float)
    found = [estimate(points[x]) for x in sorted(points)]
    axes.plot(places + shift, [each.mean for each in found], color=color, linewidth=1.8, zorder=3)
    for x, each in zip(places, found, strict=True):
        values = points[float(x)]
        axes.vlines(x + shift, *_span(each.mean, each.error), color=color, linewidth=2.2, zorder=3)
        axes.plot(
            [x + shift] * len(values), values, "o", markersize=4, markerfacecolor="none", color=color, alpha=0.5, zorder=2
        )
        axes.plot(x + shift, each.mean, marker, markersize=6, color=color, zorder=4)


def _draw_level(axes: Any, values: Values, name: str) -> None:
    found = estimate(values)
    axes.axhline(found.mean, color=SERIES[1], linewidth=1.4, linestyle=(0, (4, 3)), zorder=2)
    axes.axhspan(*_span(found.mean, found.error), color=SERIES[1], alpha=0.13, linewidth=0, zorder=1)
    axes.text(1.02, found.mean, name, transform=axes.get_yaxis_transform(), color=SERIES[1], fontsize=9.5, va="center")


def _span(mean: float, error: float | None) -> tuple[float, float]:
    return mean - (error or 0), mean + (error or 0)


def _shifts(lines: Chart) -> list[float]:
    """A small step to the side for each line, so that marks at the same x do not hide each other."""
    places = sorted({x for points in lines.values() for x in points})
    step = min((b - a for a, b in pairwise(places)), default=1.0) * 0.045
    return [(i - (len(lines) - 1) / 2) * step for i in range(len(lines))]


def _plain_log_ticks(axes: Any) -> None:
    """1, 0.5, 0.2, 0.1 ... rather than powers of ten; finer ones if few of those are in sight."""
    low, high = axes.get_ylim()
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [digit * 10.0**power for power in range(-6, 3) for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            break
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _name_ends(axes: Any, lines: Chart, names: Sequence[str]) -> None:
    """Each line's name beside its last point; names that would overlap are pushed apart, lowest first."""
    axes.figure.canvas.draw()  # settles the limits
    ends = []
    for name, points in lines.items():
        last = max(points)
        place = axes.transAxes.inverted().transform(axes.transData.transform((last, estimate(points[last]).mean)))
        ends.append((float(place[1]), name))
    lowest = -1.0
    for height, name in sorted(ends):
        lowest = max(height, lowest + 0.085)
        color = SERIES[names.index(name)]
        axes.text(1.03, lowest, name, transform=axes.transAxes, color=color, fontsize=9.5, va="center", clip_on=False)


def _draw_kernel(axes: Any, kernel: np.ndarray[Any, Any], top: float) -> None:
    axes.imshow(kernel, cmap="PuOr_r", vmin=-top, vmax=top)
    for (row, column), value in np.ndenumerate(kernel):
        ink = "white" if abs(value) > 0.75 * top else BLACK
        axes.text(column, row, f"{value:.2f}".replace("0.", ".", 1), fontsize=6.5, color=ink, ha="center", va="center")
    _bare(axes)


def _draw_examples(
    figure: Picture, examples: Mapping[str, Any], names: Sequence[str], side: float, gap: float, foot: float
) -> None:
    from matplotlib.patches import Rectangle

    maps = {"image": examples["image"], **{name: examples["maps"][name] for name in names}}
    start = (figure.get_figwidth() - len(maps) * (side + gap) + gap) / 2
    count = len(examples["image"])
    for column, (name, values) in enumerate(maps.items()):
        for row in range(count):
            axes = _place(figure, start + column * (side + gap), foot + (count - 1 - row) * (side + gap), side, side)
            colors: Any = {"cmap": "gray", "vmin": 0, "vmax": 1} if name == "image" else {"cmap": FEATURES}
            axes.imshow(np.asarray(values[row]), **({"cmap": MASK} if name.startswith("M,") else colors))
            y0, x0, y1, x1 = examples["box"][row]
            axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=SERIES[1], linewidth=1.2))
            _bare(axes)
            if row == 0:
                axes.set_title(name.replace(", ", "\n").replace(" saliency", "\nsaliency"), fontsize=8, color=BLACK, pad=3)


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _caption(figure: Picture, groups: Any, above: float = 0.0) -> None:
    """What the marks are, at the lower edge or ``above`` inches over it."""
    count = max(len(values) for values in groups)
    text = f"Filled: mean ± standard error over {count} seeds. Open: single runs." if count > 1 else "One run each."
    figure.text(0.1 / figure.get_figwidth(), (above + 0.14) / figure.get_figheight(), text, fontsize=8, color=GREY)
