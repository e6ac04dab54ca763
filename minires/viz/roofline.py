"""Where the kernels of a step stand below what the machine can do: a roofline, and the time that each needs at least.

The roofline (Williams, Waterman and Patterson 2009): a kernel that makes I operations for each byte it moves can make no
more than min(peak, I·bandwidth) of them in a second. Left of the edge of the roof memory decides, right of it arithmetic.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minires.viz.figure import BLACK, GREY, SERIES, Picture, plain_axes

__all__ = ["Kernel", "roofline"]


@dataclass(frozen=True)
class Kernel:
    """One kernel of a step, with all its launches taken together.

    Attributes:
        name: for a label.
        kind: kernels of one kind have one colour.
        count: launches in a step.
        bytes: moved by all of them.
        flops: made by all of them.
        peak: which of the roofs is its own.
        seconds: measured, all launches together; None puts it on the roof, where it can be at best.
    """

    name: str
    kind: str
    count: int
    bytes: float
    flops: float
    peak: str
    seconds: float | None = None

    def least(self, bandwidth: float, peaks: Mapping[str, float]) -> float:
        """Seconds that its bytes or its operations need, whichever is longer."""
        return max(self.bytes / bandwidth, self.flops / peaks[self.peak])


def roofline(
    kernels: Sequence[Kernel],
    bandwidth: float,
    peaks: Mapping[str, float],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    note: str = "",
    smallest: float = 5e-3,
) -> Picture:
    """Draw the roof with the kernels of a step, and below it the time that each of them takes.

    Args:
        kernels: all of a step.
        bandwidth: bytes in a second.
        peaks: name → operations in a second.
        path: where to save the figure, or None.
        title: over both.
        note: under both; what is measured and what is not.
        smallest: kernels with a smaller share of the time have no name. The roof leaves out what computes nothing.

    Raises:
        ValueError: nothing to draw.
    """
    if not kernels:
        raise ValueError("roofline: there is nothing to draw")
    kinds = list(dict.fromkeys(kernel.kind for kernel in kernels))
    colors = {kind: SERIES[i % len(SERIES)] for i, kind in enumerate(kinds)}
    times = {kernel: kernel.seconds or kernel.least(bandwidth, peaks) for kernel in kernels}
    ranked = sorted(kernels, key=lambda kernel: -times[kernel])
    shown = [kernel for kernel in ranked if times[kernel] > smallest * sum(times.values())]
    bars = 0.2 * (len(shown) + 1) + 0.5
    width, height = 7.6, 4.6 + bars + 0.75
    figure = Picture(width, height)
    roof = figure.add_axes((0.08, (bars + 0.72) / height, 0.89, 4.1 / height))
    rest = [kernel for kernel in ranked if kernel not in shown]
    large = 2e-3 * max(kernel.bytes for kernel in kernels)  # the time of smaller ones is that of a launch
    named = [kernel for kernel in shown if kernel.flops > 0.04 * kernel.bytes and kernel.bytes > large]
    nameless = [kernel for kernel in rest if kernel.flops > 0.04 * kernel.bytes]
    _draw_roof(roof, named, nameless, bandwidth, peaks, colors)
    _draw_bars(figure.add_axes((0.32, 0.4 / height, 0.58, (bars - 0.5) / height)), shown, rest, times, colors)
    figure.text(0.02, 1 - 0.2 / height, title, fontsize=11, color=BLACK, va="center")
    figure.text(0.02, 0.15 / height, note, fontsize=8.5, color=GREY, va="center")
    return figure.write(path)


# ---------------------------------------------------------------------------------------------------------- the roof


def _draw_roof(
    axes: Any, kernels: Sequence[Kernel], nameless: Sequence[Kernel], bandwidth: float, peaks: Mapping[str, float],
    colors: dict[str, str],
) -> None:  # fmt: skip
    plain_axes(axes)
    top, edges = max(peaks.values()), {name: peak / bandwidth for name, peak in peaks.items()}
    last = max(edges.values())
    low, high = 0.5 * min([0.1, *(kernel.flops / kernel.bytes for kernel in [*kernels, *nameless])]), 14 * last
    floor = 0.7 * min([low * bandwidth, *(kernel.flops / kernel.seconds for kernel in kernels if kernel.seconds)])
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, 2 * top))
    axes.minorticks_off()
    powers = range(math.ceil(math.log10(floor)), math.floor(math.log10(2 * top)) + 1)
    axes.set_yticks([10.0**i for i in powers], [f"{10**i / 1e12:g} T" for i in powers])
    axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.plot([low, last], [low * bandwidth, last * bandwidth], color=BLACK, linewidth=1.3)
    for name, peak in peaks.items():
        axes.plot([edges[name], high], [peak, peak], color=BLACK, linewidth=1.3)
        text = f"{name}, {peak / 1e12:,.0f} T a second"
        axes.text(high, 1.1 * peak, text, fontsize=8.5, color=BLACK, ha="right", va="bottom")
    start, end = axes.transData.transform([(low, low * bandwidth), (last, last * bandwidth)])
    angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
    place = 0.06 * last
    axes.text(place, 1.35 * place * bandwidth, f"memory, {bandwidth / 1e12:.1f} TB a second", fontsize=8.5, color=BLACK,
              ha="center", va="bottom", rotation=angle, rotation_mode="anchor")  # fmt: skip
    most = max((kernel.bytes for kernel in kernels), default=1)
    _draw_names(axes, _draw_discs(axes, kernels, most, bandwidth, peaks, colors), bandwidth, peaks, colors)
    _draw_discs(axes, nameless, most, bandwidth, peaks, colors)
    axes.set_xlabel("operations for each byte moved", fontsize=9, color=GREY)
    axes.set_title("operations in a second", fontsize=9, color=GREY, loc="left")


Spot = tuple[float, float, Kernel]


def _draw_discs(
    axes: Any, kernels: Sequence[Kernel], most: float, bandwidth: float, peaks: Mapping[str, float], colors: dict[str, str]
) -> list[Spot]:
    """A disc for each kernel, its area in proportion to the bytes (``most`` is the largest); returns where they are."""
    spots = []
    for kernel in kernels:
        x = kernel.flops / kernel.bytes
        y = min(peaks[kernel.peak], x * bandwidth) if kernel.seconds is None else kernel.flops / kernel.seconds
        axes.scatter(x, y, s=16 + 260 * kernel.bytes / most, color=colors[kernel.kind], alpha=0.85, linewidths=0, zorder=3)
        spots.append((x, y, kernel))
    return spots


def _draw_names(
    axes: Any, discs: Sequence[Spot], bandwidth: float, peaks: Mapping[str, float], colors: dict[str, str]
) -> None:
    """Names in the free room right of the roof, each with a line to its disc."""

    def to_axes(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        return float(across), float(up)

    spots = [(*to_axes(x, y), kernel) for x, y, kernel in discs]
    spots.sort(key=lambda spot: (spot[1], spot[0]))
    low = axes.get_xlim()[0]
    foot, slope_to = to_axes(low, low * bandwidth), to_axes(100 * low, 100 * low * bandwidth)
    slope = (slope_to[1] - foot[1]) / (slope_to[0] - foot[0])
    heights = _downwards([up - 0.035 for _, up, _ in spots], 0.04, 0.022)
    words = [to_axes(low, peak)[1] + 0.025 for peak in peaks.values()]  # what is written over the flat parts of the roof
    heights = [
        next((word - 0.05 for word in words if across > 0.5 and abs(height - word) < 0.04), height)
        for (across, _, _), height in zip(spots, heights, strict=True)
    ]
    heights = _downwards(heights, 0.04, 0.022)
    for (across, up, kernel), height in zip(spots, heights, strict=True):
        left = max(across, foot[0] + (height - foot[1]) / slope) + 0.05
        color = colors[kernel.kind]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.8, "shrinkA": 1, "shrinkB": 0}
        axes.annotate(kernel.name, (across, up), (left, height), "axes fraction", "axes fraction", fontsize=8, color=color,
                      va="center", arrowprops=line | {"relpos": (0, 0.5)})  # fmt: skip


def _downwards(places: Sequence[float], distance: float, low: float) -> list[float]:
    """Ascending places, each moved down until it is ``distance`` below the next; up again where that ends below ``low``."""
    out = list(places)
    for i in reversed(range(len(out) - 1)):
        out[i] = min(out[i], out[i + 1] - distance)
    for i in range(len(out)):
        out[i] = max(out[i], out[i - 1] + distance if i else low)
    return out


# ---------------------------------------------------------------------------------------------------------- the bars


def _draw_bars(
    axes: Any, shown: Sequence[Kernel], rest: Sequence[Kernel], times: Mapping[Kernel, float], colors: dict[str, str]
) -> None:
    plain_axes(axes)
    axes.grid(visible=False)
    bars = [(kernel.name, kernel.count, times[kernel], colors[kernel.kind]) for kernel in shown]
    if rest:
        bars.append(("all others", sum(k.count for k in rest), sum(times[k] for k in rest), GREY))
    longest = max(seconds for _, _, seconds, _ in bars)
    for i, (name, count, seconds, color) in enumerate(bars):
        axes.barh(-i, 1e3 * seconds, color=color, height=0.72)
        axes.text(1e3 * (seconds + 0.01 * longest), -i, f"{1e3 * seconds:.3f}", fontsize=8, color=GREY, va="center")
        beside = axes.get_yaxis_transform()
        axes.text(-0.015, -i, f"{name}, {count} ×", transform=beside, fontsize=8, color=color, va="center", ha="right")
    word = "measured" if all(kernel.seconds is not None for kernel in shown) else "at least"
    axes.set(xlim=(0, 1.1e3 * longest), ylim=(0.4 - len(bars), 0.6), xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)
    total = 1e3 * sum(seconds for _, _, seconds, _ in bars)
    axes.set_title(f"milliseconds of a step, {word}: together {total:.2f}", fontsize=9, color=GREY, loc="left", x=-0.4)
