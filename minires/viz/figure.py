"""The paper on which everything is drawn: sizes, fonts and colours that are the same in every picture."""

from __future__ import annotations

import io
import os
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["BLACK", "FEATURES", "GREY", "MASK", "SERIES", "Picture"]

#: Okabe and Ito's colours, which stay distinct for colour-blind readers, without the pale yellow.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
BLACK, GREY = "#222222", "#777777"
FEATURES, MASK = "viridis", "cividis"  # colour maps of even brightness, for features and for masks
DPI = 150


class Picture(Figure):
    """A figure that belongs to nobody else: no pyplot, drawn by Agg, shown by a notebook as PNG.

    Args:
        width: in inches.
        height: in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self)

    def write(self, path: str | os.PathLike[str] | None) -> Picture:
        """Save as PNG (or what the ending of ``path`` says); nothing for None. Returns itself."""
        if path is not None:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            # Without the version of matplotlib in it, the same picture is the same file.
            self.savefig(path, dpi=DPI, metadata={"Software": None} if str(path).endswith(".png") else None)
        return self

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=DPI)
        return out.getvalue()


def plain_axes(axes: Any) -> None:
    """Axes for a plot with lines: no box, a faint horizontal grid, small grey numbers."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=GREY, labelsize=8, length=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
