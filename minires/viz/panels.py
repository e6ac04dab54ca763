"""Pictures and maps side by side, each with its name and its size: the figure that a lesson on images needs most.

Maps of different sizes are drawn equally large, so that a coarse map shows its large pixels. Every map has a colour bar with
the two ends of its scale, since two maps with the same colours may differ a hundredfold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minires.device import to_device
from minires.tensor import Tensor
from minires.viz.figure import BLACK, FEATURES, GREY, MASK, SERIES, Picture

__all__ = ["panels"]

SIGNED = "PuOr_r"  # white at 0, purple below, orange above: distinct for colour-blind readers
SIDE, GAP, LEFT, TOP, BOTTOM = 1.5, 0.16, 0.08, 0.44, 0.3  # inches
KINDS = ("image", "feature", "mask", "signed")

Array = np.ndarray[Any, Any]
Box = Sequence[float]


def panels(
    maps: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    kind: str | Mapping[str, str] | None = None,
    limits: tuple[float, float] | None = None,
    boxes: Mapping[str, Any] | None = None,
    between: Sequence[str] = (),
    numbers: bool = False,
    to_scale: bool = False,
    columns: int | None = None,
    side: float = SIDE,
) -> Picture:
    """Draw pictures and maps in rows.

    Args:
        maps: title → a picture (1, H, W) or (3, H, W), or a map (H, W); arrays or Tensors. Pictures hold numbers in
            [0, 1] or uint8.
        path: where to save the figure, or None.
        kind: how maps are coloured, one word for all or title → word: "feature" (the default: from its least to its
            greatest value), "mask" (from 0 to 1), "signed" (white at 0), or "image" (grey, from 0 to 1).
        limits: one scale (low, high) for all maps of kind "feature" and "signed"; None gives each its own.
        boxes: title → a box (y0, x0, y1, x1) in that panel's pixels, half-open, or label → box for several; a
            label stands outside its box where there is room.
        between: signs to write between neighbours, such as ("·", "=").
        numbers: write the value into each pixel (for small maps), instead of a colour bar.
        to_scale: draw pixels of all panels equally large, so that larger maps are larger; else the panels are.
        columns: panels in a row; all in one row by default.
        side: width of a panel in inches (of the largest if ``to_scale``).

    Raises:
        ValueError: nothing to draw, an array that is neither a picture nor a map, or an unknown kind.
    """
    if not maps:
        raise ValueError("panels: there is nothing to draw")
    items = [_Panel(title, values, kind) for title, values in maps.items()]
    largest = max(max(item.shape) for item in items)
    for item in items:
        item.width, item.height = (n * side / largest for n in item.shape[::-1]) if to_scale else (side, side)
    columns = columns or len(items)
    rows = [items[i : i + columns] for i in range(0, len(items), columns)]
    gap = GAP + (0.14 if any(between) else 0)
    width = 2 * LEFT + max(sum(item.width + gap for item in row) - gap for row in rows)
    top = height = sum(_row_height(row, numbers) for row in rows)
    figure = Picture(width, height)
    signs = iter(between)
    for row in rows:
        tallest, left = max(item.height for item in row), LEFT
        for item in row:
            item.left, item.bottom = left, top - TOP - (tallest + item.height) / 2
            item.draw(figure, limits, numbers, (boxes or {}).get(item.title))
            left += item.width + gap
            if sign := next(signs, ""):
                x, y = (left - gap / 2) / width, (top - TOP - tallest / 2) / height
                figure.text(x, y, sign, ha="center", va="center", fontsize=13, color=BLACK)
        top -= _row_height(row, numbers)
    return figure.write(path)


class _Panel:
    """One picture or map, and its place on the page in inches."""

    left = bottom = width = height = 0.0

    def __init__(self, title: str, values: Any, kind: str | Mapping[str, str] | None) -> None:
        self.title, self.array = title, _array(title, values)
        usual = "image" if self.array.ndim == 3 else "feature"
        self.kind = kind if isinstance(kind, str) else (kind or {}).get(title, usual)
        if self.kind not in KINDS:
            raise ValueError(f"panels: kind must be one of {', '.join(map(repr, KINDS))}, got {self.kind!r}")
        self.shape = self.array.shape[-2:]
        self.has_bar = self.kind != "image"

    def draw(self, figure: Picture, limits: tuple[float, float] | None, numbers: bool, boxes: Any) -> None:
        page = figure.get_size_inches()
        place = (self.left / page[0], self.bottom / page[1], self.width / page[0], self.height / page[1])
        axes = figure.add_axes(place)
        shown = _draw(axes, self.array, self.kind, limits)
        lines = ((0.2, self.title, 9.5, BLACK), (0.05, f"{self.shape[0]} × {self.shape[1]}", 8.0, GREY))
        for above, text, fontsize, color in lines:
            x, y = place[0] + place[2] / 2, (self.bottom + self.height + above) / page[1]
            figure.text(x, y, text, ha="center", va="bottom", fontsize=fontsize, color=color)
        if numbers:
            _write_numbers(axes, self.array, shown, 72 * min(self.width / self.shape[1], self.height / self.shape[0]))
        elif self.has_bar:
            _color_bar(figure, shown, (self.left, self.bottom - 0.15, self.width), (page[0], page[1]))
        _draw_boxes(axes, boxes)


def _row_height(row: list[_Panel], numbers: bool) -> float:
    """Inches that a row takes, with its titles and its colour bars, if it has any."""
    below = BOTTOM if not numbers and any(item.has_bar for item in row) else GAP
    return TOP + max(item.height for item in row) + below


def _array(title: str, values: Any) -> Array:
    array = np.asarray(to_device(values.data if isinstance(values, Tensor) else values, "cpu"))
    if array.ndim == 2 or (array.ndim == 3 and len(array) in (1, 3)):
        return array
    raise ValueError(f"panels: {title!r} must be a map (H, W) or a picture (1, H, W) or (3, H, W), got {array.shape}")


def _draw(axes: Any, array: Array, kind: str, limits: tuple[float, float] | None) -> Any:
    if array.ndim == 3:
        array = array / 255 if array.dtype == np.uint8 else np.clip(array, 0, 1)
        array = array[0] if len(array) == 1 else array.transpose(1, 2, 0)  # (H, W) or (H, W, 3)
    low, high = limits or (float(array.min()), float(array.max()))
    if kind == "signed":
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    elif kind != "feature":
        low, high = 0.0, 1.0
    colors = {"image": "gray", "feature": FEATURES, "mask": MASK, "signed": SIGNED}[kind]
    shown = axes.imshow(array, cmap=colors, vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#bbbbbb", linewidth=0.6)
    return shown


def _color_bar(figure: Picture, shown: Any, place: tuple[float, float, float], page: tuple[float, float]) -> None:
    """A thin bar under a panel, the ends of its scale to the left and right of it. Places in inches."""
    left, bottom, side = place
    margin = 0.27 * side
    box = ((left + margin) / page[0], bottom / page[1], (side - 2 * margin) / page[0], 0.07 / page[1])
    axes = figure.add_axes(box)
    bar = figure.colorbar(shown, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_ticks([])
    low, high = shown.norm.vmin, shown.norm.vmax
    for x, align, value in ((-0.08, "right", low), (1.08, "left", high)):
        text = "0" if abs(value) < (high - low) / 500 else _short(value)
        axes.text(x, 0.45, text, transform=axes.transAxes, ha=align, va="center", fontsize=7.5, color=BLACK)


def _write_numbers(axes: Any, array: Array, shown: Any, cell: float) -> None:
    """The value in each pixel (``cell`` points wide), black or white, whichever shows."""
    fontsize = min(9.0, 0.37 * cell)
    for (row, column), value in np.ndenumerate(array):
        red, green, blue, _ = shown.to_rgba(value)
        color = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        axes.text(column, row, _short(value), ha="center", va="center", fontsize=fontsize, color=color)


def _short(value: float) -> str:
    """Two digits after the point, or two significant ones for tiny and huge numbers; no needless zeros."""
    if value and not 0.01 <= abs(value) < 1000:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "−")


def _draw_boxes(axes: Any, boxes: Mapping[str, Box] | Box | None) -> None:
    if boxes is None:
        return
    from matplotlib.patches import Rectangle

    named = boxes if isinstance(boxes, Mapping) else {"": boxes}
    for i, (label, box) in enumerate(named.items()):
        y0, x0, y1, x1 = (float(edge) for edge in box)
        color = SERIES[(i + 1) % len(SERIES)]
        axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.5))
        if label:
            _write_label(axes, label, (y0, x0, y1), color)


def _write_label(axes: Any, label: str, box: tuple[float, float, float], color: str) -> None:
    """Below the box, so that nothing in it is covered; else above; in a box as high as the panel, inside at the bottom."""
    (y0, x0, y1), rows = box, axes.images[0].get_array().shape[0]
    points = 72 * axes.figure.get_size_inches()[1] * axes.get_position().height / rows  # a pixel's height on paper
    needed = 10 / points  # pixels that a line of text takes
    below = y1 + needed <= rows
    edge = y1 if below or y0 < needed else y0
    back = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.3}
    axes.annotate(
        label, (x0 - 0.5, edge - 0.5), xytext=(0.5, -1.5 if below else 1.5), textcoords="offset points",
        ha="left", va="top" if below else "bottom", fontsize=7, color=color, weight="bold", bbox=back,
    )  # fmt: skip
