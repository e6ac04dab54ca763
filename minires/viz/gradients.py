"""Where a gradient is wrong: over the input, over the output, and, if they are small, the two Jacobians.

The picture over the output is the one that finds a dead border: the gradient of the input is then wrong everywhere a little,
but whole rows of the Jacobian are. All errors on a page share one scale, from "fine" (within the measured tolerance) to as
large as the gradient itself.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from minires.viz.figure import BLACK, GREY, Picture
from minires.viz.panels import SIGNED
from minires.viz.sheets import CELL, FINE, FRAME, NOT_A_NUMBER, UNDECIDED, Errors, Sheet

if TYPE_CHECKING:
    from minires.checking.report import InputReport, Maps, Report

__all__ = ["gradients"]

Array = np.ndarray[Any, Any]

WIDTH, MARGIN, TALLEST = 7.6, 0.14, 3.2  # inches: the page, its border, a sheet at most
INPUTS, OUTPUTS = 3, 2  # on one page, at most
LEAST = -8.0  # log10 of the relative error from where on wrong is told from more wrong
HEAD, HEADING, SPACE, FOOT = 0.42, 0.3, 0.24, 0.62  # inches
SIDE, LEFT = 280, 0.25  # elements of a Jacobian's side, at most; inches left of it


def gradients(report: Report, path: str | os.PathLike[str] | None = None) -> Picture:
    """Draw where the gradients of a report are wrong.

    Args:
        report: of :func:`minires.gradcheck` and its like. At most three inputs are drawn, of a wrong report wrong ones.
        path: where to save the figure, or None.

    Returns:
        The figure. Errors are log10 of |backward − numeric| / largest |numeric|; elements within the tolerance are "fine".
    """
    from minires.checking.text import headline, ranked, shortened

    order = ranked(report.inputs)
    chosen = [i for i in order if i.verdict == "wrong"] or order
    blocks = [_Block(report, i) for i in chosen[:INPUTS]]
    colors = Errors(_least(blocks))
    height = HEAD + sum(block.layout(1 / (0.7 + 0.3 * len(blocks))) for block in blocks) + FOOT
    figure = Picture(WIDTH, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, height))
    axes.autoscale(False)
    axes.axis("off")
    what, _, how = headline(replace(report, function=shortened(report.function))).partition(" (")
    axes.text(MARGIN, height - 0.12, what, fontsize=10.5, color=BLACK, va="top", weight="bold")
    axes.text(WIDTH - MARGIN, height - 0.13, how.rstrip(")"), fontsize=8, color=GREY, va="top", ha="right")
    top = height - HEAD
    for block in blocks:
        block.draw(axes, colors, top)
        top -= block.height
    _draw_scale(axes, colors, blocks, len(chosen) - len(blocks))
    return figure.write(path)


class _Block:
    """One input: its heading, the sheets over input and output, and the Jacobians."""

    def __init__(self, report: Report, i: InputReport) -> None:
        self.input, self.maps = i, i.maps
        self.heading, self.label = _heading(report, i)
        self.left: list[Sheet] = []
        self.right: list[Sheet] = []
        self.words = ""
        self.height = 0.0
        self.jacobians = None if self.maps is None else self.maps.jacobians
        if not i.size:
            self.words = f"{i.name} has no elements"
        elif self.maps is None or self.maps.analytic is None:
            self._without_gradient()
        else:
            self._sheets(self.maps, self.maps.analytic)

    def _without_gradient(self) -> None:
        if self.input.verdict == "right":
            errors = np.full(self.input.shape, -np.inf)
            note = f"wrong elements: 0 of {self.input.size:,}"
            self.left.append(Sheet(f"error over the input, {_sizes(self.input.shape)}", errors, note))
        else:
            wrong = self.input.verdict == "wrong"
            self.words = "there is no gradient of the input's shape to draw" if wrong else "no element could be compared"

    def _sheets(self, maps: Maps, analytic: Array) -> None:
        from minires.checking.text import distinct

        errors, floor = _errors(analytic, maps.numeric, maps.tolerance)
        if not self.input.bad:  # what differs nevertheless is at a kink
            errors = np.where(errors > -np.inf, np.nan, errors)
        title, note = (
            f"error over the input, {_sizes(self.input.shape)}",
            f"wrong elements: {self.input.bad:,} of {self.input.size:,}",
        )
        if not errors.ndim:
            note = "backward gives {}, should be {}".format(*distinct(float(analytic), float(maps.numeric)))
        self.left.append(Sheet(title, errors, note))
        found = [_output_errors(e, floor) for e in maps.error_over_output or []]
        kept = sorted(range(len(found)), key=lambda k: -np.count_nonzero(found[k] > -np.inf))[:OUTPUTS]
        for k in sorted(kept):
            over = "over the output" if len(found) == 1 else f"over output {k}"
            note = f"outputs whose derivatives are wrong: {np.count_nonzero(found[k] > -np.inf):,} of {found[k].size:,}"
            if found[k].size > 1 or len(found) > 1:
                self.right.append(Sheet(f"error {over}, {_sizes(found[k].shape)}", found[k], note))

    def layout(self, share: float) -> float:
        """Choose the sizes, a ``share`` of the largest ones; returns the height in inches."""
        inner = WIDTH - 2 * MARGIN
        tallest = share * (TALLEST if self.input.verdict == "wrong" else TALLEST / 2)
        for sheet in self.left + self.right:
            sheet.fit((inner - SPACE) / 2 if self.right else inner, tallest / max(1, len(self.right)), share * CELL)
        heights = [sum(s.height for s in column) + 0.15 * max(0, len(column) - 1) for column in (self.left, self.right)]
        self.sheets_height = max(*heights, 0.25 if self.words else 0.0)
        self.jacobian_size = (0.0, 0.0)
        if self.jacobians is not None and self.jacobians[1].size > 1:
            self.jacobian_size = _jacobian_size(self.jacobians[1], share * 2.3)
        extra = self.jacobian_size[1] + 0.72 if self.jacobian_size[1] else 0.0
        self.height = HEADING + self.sheets_height + extra + SPACE
        return self.height

    def draw(self, axes: Any, colors: Errors, top: float) -> None:
        """Draw below ``top``."""
        from matplotlib.lines import Line2D

        axes.add_line(Line2D([MARGIN, WIDTH - MARGIN], [top, top], color="#cccccc", linewidth=0.7))
        axes.text(MARGIN, top - 0.09, self.heading, fontsize=9.5, color=BLACK, va="top", weight="bold")
        axes.text(WIDTH - MARGIN, top - 0.09, self.label, fontsize=9, color="#b03a02", va="top", ha="right", weight="bold")
        top -= HEADING + 0.03
        if self.words:
            axes.text(MARGIN, top - 0.02, self.words, fontsize=8.5, color=GREY, va="top")
        inner = WIDTH - 2 * MARGIN
        for column, left in ((self.left, MARGIN), (self.right, MARGIN + (inner + SPACE) / 2)):
            y = top
            for sheet in column:
                sheet.draw(axes, colors, left, y)
                y -= sheet.height + 0.15
        if self.jacobians is not None and self.jacobian_size[1]:
            _draw_jacobians(axes, self.jacobians, self.jacobian_size, top - self.sheets_height - 0.2)


def _heading(report: Report, i: InputReport) -> tuple[str, str]:
    """What is said of the input, and the label if the hint level allows it."""
    from minires.checking.text import gradient_name, shows

    name = gradient_name(i)
    if i.verdict == "wrong":
        label = i.diagnosis[0].label if i.diagnosis and shows(report, "class") else ""
        return f"{name} is wrong", label
    return f"{name} is right" if i.verdict == "right" else f"{name} cannot be decided here", ""


# ------------------------------------------------------------------------------------ errors as log10


def _errors(analytic: Array, numeric: Array, tolerance: Array) -> tuple[Array, float]:
    """log10 of the relative errors (see :class:`Errors`), and of the largest tolerance, relative as well."""
    scale = _largest(numeric) or _largest(analytic) or 1.0
    with np.errstate(all="ignore"):
        difference = np.abs(analytic - numeric)
        errors = np.where(difference <= tolerance, -np.inf, np.log10(difference / scale))
    errors = np.where(np.isfinite(analytic), errors, np.inf)
    errors = np.where(np.isfinite(numeric) & np.isfinite(tolerance), errors, np.nan)
    floor = _largest(tolerance) / scale
    return np.asarray(errors), math.log10(floor) if floor > 0 else -math.inf


def _output_errors(errors: Array, floor: float) -> Array:
    """log10 of the errors of the rows; fine is what lies within the tolerance of the entries."""
    errors = np.asarray(errors, np.float64)
    with np.errstate(all="ignore"):
        logs = np.where(errors > 0, np.log10(errors), -np.inf)
    logs = np.where(logs <= max(floor + 0.5, -13.0), -np.inf, logs)
    return np.asarray(np.where(np.isnan(errors), np.inf, logs))


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if len(shape) > 1 else f"{shape[0]} elements" if shape else "a number"


def _largest(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


# ------------------------------------------------------------------------------------ the Jacobians


def _jacobian_size(jacobian: Array, tallest: float) -> tuple[float, float]:
    """Width and height of one of the three pictures in inches: square entries, unless that makes a thread of it."""
    rows, columns = jacobian.shape
    widest = (WIDTH - 2 * MARGIN - LEFT - 2 * SPACE) / 3
    side = min(widest / columns, tallest / rows, CELL)
    return max(columns * side, min(0.7, columns * CELL)), max(rows * side, min(0.35, rows * CELL))


def _draw_jacobians(axes: Any, pair: tuple[Array, Array], size: tuple[float, float], top: float) -> None:
    """What the backward pass gives, what it should, and the difference, in the same colours; white is 0."""
    analytic, numeric = pair
    rows, columns = numeric.shape
    high = _largest(numeric) or _largest(analytic) or 1.0
    with np.errstate(all="ignore"):
        drawn = {"backward gives": analytic, "should be": numeric, "difference": analytic - numeric}
    axes.text(MARGIN, top, "Jacobian: a row for each output, a column for each input", fontsize=9, color=BLACK, va="top")
    width, height = size
    bottom, left = top - 0.43 - height, MARGIN + LEFT
    for title, values in drawn.items():
        _draw_matrix(axes, _strongest(values), high, (left, left + width, bottom, bottom + height))
        axes.text(left + width / 2, bottom + height + 0.04, title, fontsize=8, color=BLACK, ha="center", va="bottom")
        left += max(width, 0.95) + SPACE
    grey: dict[str, Any] = {"fontsize": 7, "color": GREY}
    axes.text(MARGIN + LEFT - 0.05, bottom + height, "0", ha="right", va="top", **grey)
    axes.text(MARGIN + LEFT, bottom - 0.04, "0", ha="left", va="top", **grey)
    if rows > 1 and height > 0.3:
        axes.text(MARGIN + LEFT - 0.05, bottom, str(rows - 1), ha="right", va="bottom", **grey)
    if columns > 1:
        axes.text(MARGIN + LEFT + width, bottom - 0.04, str(columns - 1), ha="right", va="top", **grey)
    _draw_signed_scale(axes, high, top - 0.06)


def _draw_matrix(axes: Any, values: Array, high: float, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    left, right, bottom, top = extent
    shown = np.ma.masked_invalid(values)
    style = {"interpolation": "nearest", "aspect": "auto", "zorder": 2}
    axes.imshow(shown, cmap=_signed_map(), vmin=-high, vmax=high, extent=extent, **style)
    axes.add_patch(
        Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor=FRAME, linewidth=0.5, zorder=4)
    )


def _draw_signed_scale(axes: Any, high: float, y: float) -> None:
    right, width = WIDTH - MARGIN - 0.4, 1.1
    _draw_matrix(axes, np.linspace(-high, high, 101).reshape(1, -1), high, (right - width, right, y - 0.04, y + 0.04))
    for x, align, text in ((right - width - 0.05, "right", f"−{high:.3g}"), (right + 0.05, "left", f"{high:.3g}")):
        axes.text(x, y, text, fontsize=7, color=BLACK, ha=align, va="center_baseline")


def _signed_map() -> Any:
    from matplotlib import colormaps

    return colormaps[SIGNED].with_extremes(bad=NOT_A_NUMBER)


def _strongest(values: Array) -> Array:
    """At most ``SIDE`` rows and columns: of each block the entry furthest from 0."""
    steps = [math.ceil(n / SIDE) for n in values.shape]
    if max(steps) == 1:
        return values
    padded = np.zeros([math.ceil(n / s) * s for n, s in zip(values.shape, steps, strict=True)])
    padded[: values.shape[0], : values.shape[1]] = values
    rows, columns = (n // s for n, s in zip(padded.shape, steps, strict=True))
    blocks = padded.reshape(rows, steps[0], columns, steps[1]).transpose(
        0, 2, 1, 3
    )  # (rows, columns, block rows, block columns)
    tiles = blocks.reshape(rows, columns, -1)  # (rows, columns, entries of a block)
    best = np.abs(tiles).argmax(axis=2)
    return np.asarray(np.take_along_axis(tiles, best[:, :, None], axis=2)[:, :, 0])


# ------------------------------------------------------------------------------------ the scale


def _shown(blocks: list[_Block]) -> Array:
    """All errors on the page, one after the other."""
    maps = [m for block in blocks for sheet in block.left + block.right for row in sheet.maps for m in row]
    return np.concatenate([np.empty(0), *(m.ravel() for m in maps)])


def _least(blocks: list[_Block]) -> int:
    """log10 of where the scale begins: just below nearly all errors that are shown."""
    shown = _shown(blocks)
    wrong = shown[np.isfinite(shown)]
    least = math.floor(float(np.quantile(wrong, 0.05))) if wrong.size else LEAST
    return int(min(max(least, LEAST), -2))


def _draw_scale(axes: Any, colors: Errors, blocks: list[_Block], more: int) -> None:
    """The one colour bar, at the foot of the page, with swatches for what has no place on it."""
    from matplotlib.patches import Rectangle

    shown = _shown(blocks)
    y, high, x = 0.33, 0.13, MARGIN
    swatches = [("fine", FINE, True)]
    swatches += [("NaN or infinite", NOT_A_NUMBER, bool((shown == np.inf).any()))]
    swatches += [("not decided", UNDECIDED, bool(np.isnan(shown).any()))]
    for name, color, present in swatches:
        if present:
            axes.add_patch(Rectangle((x, y), 0.2, high, facecolor=color, edgecolor=FRAME, linewidth=0.5))
            axes.text(x + 0.26, y + high / 2, name, fontsize=7.5, color=BLACK, va="center_baseline")
            x += 0.26 + 0.06 * len(name) + 0.22
    left, right = max(x + 0.4, 3.0), WIDTH - MARGIN - 0.55
    ramp = np.linspace(colors.low, colors.high, 256).reshape(1, -1)
    axes.imshow(colors.colors(ramp), extent=(left, right, y, y + high), aspect="auto", interpolation="nearest", zorder=2)
    axes.add_patch(Rectangle((left, y), right - left, high, fill=False, edgecolor=FRAME, linewidth=0.5, zorder=4))
    span = colors.high - colors.low
    for power in range(0, int(colors.low) - 1, -2 if span > 4 else -1):
        at = left + (right - left) * (power - colors.low) / span
        text = "1" if power == 0 else f"10$^{{{power}}}$"
        axes.text(at, y - 0.03, text, fontsize=7, color=GREY, ha="center", va="top")
    axes.text(right + 0.07, y + high / 2, "wrong", fontsize=7.5, color=BLACK, va="center_baseline")
    note = "error, relative to the largest derivative"
    axes.text((left + right) / 2, y + high + 0.03, note, fontsize=7.5, color=BLACK, ha="center", va="bottom")
    if more > 0:
        axes.text(
            MARGIN, 0.1, f"and {more} more {'input' if more == 1 else 'inputs'}", fontsize=7.5, color=GREY, va="bottom"
        )
