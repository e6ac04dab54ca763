"""Where the network looks: for each image and attention module the trunk F, the mask M, and what goes on, (1 + M)·F.

A module has as many masks as channels, so a picture of "the" mask is a choice. Here it is the mean over channels, and for
features the mean magnitude. The masks of one module share a scale over all images, with a colour bar below them. Feature
maps have no natural unit: F and (1 + M)·F of one module on one image share a scale, others do not, as the caption says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.device import array_module, to_device
from minires.tensor import Tensor
from minires.training.metrics import heatmaps, logits_and_maps
from minires.viz.figure import BLACK, FEATURES, GREY, MASK, SERIES, Picture

__all__ = ["masks"]

PANEL, GAP, MODULE_GAP = 0.92, 0.06, 0.2  # inches
TOP, BOTTOM, LEFT, RIGHT, ROW_GAP = 0.52, 0.94, 0.1, 0.1, 0.26

Array = np.ndarray[Any, Any]


def masks(
    model: Any,
    images: Any,
    boxes: Any = None,
    labels: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    shown: Any = None,
) -> Picture:
    """Draw a contact sheet: a row for each image, three panels for each attention module.

    Args:
        model: a network with ``masks(images)``.
        images: (N, C, H, W), as the network wants them (a Tensor or an array); about 4 to 8 fit on a page.
        boxes: (N, 4) y0, x0, y1, x1 of the object in pixels, half-open; drawn in every panel. Or None.
        labels: (N,) true classes, or None.
        path: where to save the picture, or None.
        classes: names of the classes; numbers if None.
        shown: (N, C, H, W) in [0, 1], the images as people should see them; default ``images``.

    Raises:
        ValueError: no images, or a network without attention modules.
    """
    x = images if isinstance(images, Tensor) else Tensor(array_module(images).asarray(images))
    if x.ndim != 4 or not len(x):
        raise ValueError(f"masks: expected images (N, C, H, W) and at least one, got shape {x.shape}")
    logits, maps = logits_and_maps(model, x)
    if not maps:
        raise ValueError("masks: this network has no attention modules to draw")
    pictures = _array(x if shown is None else shown)
    sheet = _Sheet(len(x), maps)
    titles = _titles(_array(logits).argmax(axis=1), labels, classes)
    frames = [None] * len(x) if boxes is None else list(_array(boxes))
    size = (int(x.shape[2]), int(x.shape[3]))
    peaks = [_peaks(module, size) for module in maps]
    for row in range(len(x)):
        sheet.draw_image(row, pictures[row], titles[row], frames[row], [peak[row] for peak in peaks])
        for column, module in enumerate(maps):
            sheet.draw_module(row, column, module, size, frames[row])
    sheet.finish(boxes is not None, any(module.mask is not None for module in maps))
    return sheet.figure.write(path)


class _Sheet:
    """The page: places panels by their row and module, and keeps the scale of the masks."""

    def __init__(self, rows: int, modules: list[Any]) -> None:
        self.rows, self.modules = rows, modules
        self.panels = [3 if module.mask is not None else 1 for module in modules]
        self.width = LEFT + PANEL + sum(MODULE_GAP + n * PANEL + (n - 1) * GAP for n in self.panels) + RIGHT
        self.height = TOP + rows * (PANEL + ROW_GAP) - ROW_GAP + 0.16 + BOTTOM
        self.figure = Picture(self.width, self.height)
        self.joined = sorted({_joined_name(module) for module in modules if module.mask is not None})
        means = [None if module.mask is None else _array(module.mask).mean(axis=1) for module in modules]
        self.ranges = [(0.0, 1.0) if m is None else (float(m.min()), float(m.max())) for m in means]

    def _axes(self, row: int, left: float) -> Any:
        bottom = self.height - TOP - row * (PANEL + ROW_GAP) - PANEL
        box = (left / self.width, bottom / self.height, PANEL / self.width, PANEL / self.height)
        axes = self.figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def _left(self, column: int, panel: int) -> float:
        before = sum(MODULE_GAP + n * PANEL + (n - 1) * GAP for n in self.panels[:column])
        return LEFT + PANEL + before + MODULE_GAP + panel * (PANEL + GAP)

    def draw_image(self, row: int, picture: Array, title: tuple[str, str], frame: Any, peaks: list[Any]) -> None:
        axes = self._axes(row, LEFT)
        shown = np.clip(picture, 0, 1)
        extent = (-0.5, picture.shape[2] - 0.5, picture.shape[1] - 0.5, -0.5)
        axes.imshow(shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1, extent=extent)
        _draw_frame(axes, frame)
        for i, peak in enumerate(peaks):
            if peak is not None:
                axes.plot(peak[1], peak[0], linestyle="", **_marker(i))
        axes.set_xlabel(title[0], fontsize=8, color=title[1], labelpad=3)
        if row == 0:
            axes.set_title("image", fontsize=9, color=BLACK, pad=4)

    def draw_module(self, row: int, column: int, module: Any, size: tuple[int, int], frame: Any) -> None:
        trunk, attended = (np.abs(_array(part)[row]).mean(axis=0) for part in (module.trunk, module.attended))  # (h, w)
        top = float(max(trunk.max(), attended.max())) or 1.0
        drawn: list[tuple[str, Array, dict[str, Any]]] = [("trunk F", trunk, {"cmap": FEATURES, "vmin": 0, "vmax": top})]
        if module.mask is not None:
            mask = np.broadcast_to(_array(module.mask)[row].mean(axis=0), trunk.shape)
            low, high = self.ranges[column]
            drawn.append(("mask M", mask, {"cmap": MASK, "vmin": low, "vmax": high}))
            drawn.append((_joined_name(module), attended, {"cmap": FEATURES, "vmin": 0, "vmax": top}))
        for panel, (name, values, scale) in enumerate(drawn):
            axes = self._axes(row, self._left(column, panel))
            axes.imshow(values, extent=_extent(values.shape, size), interpolation="nearest", **scale)
            axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
            _draw_frame(axes, frame)
            if row == 0:
                axes.set_title(name, fontsize=9, color=BLACK, pad=4)
        if row == 0:
            middle = (self._left(column, 0) + self._left(column, self.panels[column] - 1) + PANEL) / 2
            channels, height, width = module.trunk.shape[1:]
            text = f"module {column + 1}: {channels} channels, {height}×{width}"
            y = 1 - 0.1 / self.height
            self.figure.text(middle / self.width, y, text, ha="center", va="top", fontsize=9, color=BLACK, weight="bold")

    def finish(self, with_boxes: bool, with_masks: bool) -> None:
        """Colour bar, key of the markers, caption."""
        names = " and ".join(["F", *self.joined])
        text = f"{names}: mean magnitude over channels, a scale for each image and module."
        text += " M: mean over channels." if with_masks else ""
        self.figure.text(LEFT / self.width, 0.07 / self.height, text, fontsize=7.5, color=GREY, va="bottom")
        self._key(with_boxes)
        for column, module in enumerate(self.modules):
            if module.mask is not None:
                self._color_bar(column)

    def _key(self, with_boxes: bool) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        handles: list[Any] = [Patch(fill=False, edgecolor=SERIES[1], linewidth=1.2, label="true box")] if with_boxes else []
        handles += [
            Line2D([], [], linestyle="", label=f"strongest |M·F|, module {i + 1}", **_marker(i))
            for i, module in enumerate(self.modules)
            if module.mask is not None
        ]
        anchor = (LEFT / self.width, 0.24 / self.height)
        self.figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=anchor, ncols=min(len(handles), 4) or 1, frameon=False,
            fontsize=8, labelcolor=BLACK, handletextpad=0.5, columnspacing=1.4, borderpad=0, borderaxespad=0,
        )  # fmt: skip

    def _color_bar(self, column: int) -> None:
        """The scale of one module's masks, right below them."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        left, bottom, width, height = self._left(column, 1), BOTTOM - 0.16, PANEL, 0.07
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        low, high = self.ranges[column]
        scale = ScalarMappable(Normalize(low, high), MASK)
        bar = self.figure.colorbar(scale, cax=axes, orientation="horizontal", ticks=[low, high], format="%.2f")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7.5, colors=BLACK, length=0, pad=2)
        first, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")


def _extent(cells: tuple[int, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a map in pixels: its corner cells are centred on the image's corner pixels."""
    (half_height, bottom), (half_width, right) = (
        ((side - 1) / (count - 1) / 2, side - 1) if count > 1 else (side / 2, (side - 1) / 2)
        for count, side in zip(cells, size, strict=True)
    )
    left, top = (0.0 if cells[1] > 1 else right), (0.0 if cells[0] > 1 else bottom)
    return left - half_width, right + half_width, bottom + half_height, top - half_height


def _peaks(module: Any, size: tuple[int, int]) -> list[Any]:
    """(row, column) of the strongest |M·F| on each image, or None for a module without a mask."""
    if module.mask is None:
        return [None] * len(module.trunk)
    heat = _array(heatmaps(module.trunk, module.mask, size)["MF"])
    rows, columns = np.divmod(heat.reshape(len(heat), -1).argmax(axis=1), heat.shape[2])
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _titles(predicted: Array, labels: Any, classes: Sequence[str] | None) -> list[tuple[str, str]]:
    """Text and colour under each image."""
    names = [str(classes[int(p)]) if classes else str(int(p)) for p in predicted]
    if labels is None:
        return [(f"predicted {name}", BLACK) for name in names]
    titles = []
    for name, guess, label in zip(names, predicted, _array(labels), strict=True):
        truth = str(classes[int(label)]) if classes else str(int(label))
        right = int(guess) == int(label)
        titles.append((f"predicted {name}" if right else f"predicted {name}, is {truth}", BLACK if right else SERIES[1]))
    return titles


def _draw_frame(axes: Any, frame: Any) -> None:
    if frame is not None:
        from matplotlib.patches import Rectangle

        y0, x0, y1, x1 = (int(edge) for edge in frame)
        place = (x0 - 0.5, y0 - 0.5)
        axes.add_patch(Rectangle(place, x1 - x0, y1 - y0, fill=False, edgecolor=SERIES[1], linewidth=1.2, clip_on=False))


def _marker(module: int) -> dict[str, Any]:
    """How the strongest point of a module is marked: another shape and colour for each."""
    shape = "ox^sDv"[module % 6]
    color = (SERIES[4], SERIES[5], SERIES[3], SERIES[2])[module % 4]
    return {"marker": shape, "markersize": 5, "markeredgewidth": 1.6, "color": color, "markerfacecolor": "none"}


def _joined_name(module: Any) -> str:
    """What the third panel shows, (1 + M)·F or M·F, found from the numbers."""
    trunk, mask, attended = (_array(part) for part in (module.trunk, module.mask, module.attended))
    return "(1 + M)·F" if np.allclose(attended, (1 + mask) * trunk, rtol=1e-3, atol=1e-5) else "M·F"


def _array(value: Any) -> Array:
    return np.asarray(to_device(value.data if isinstance(value, Tensor) else value, "cpu"))
