"""How many sentences go wrong, by their length: the chart for which attention was invented."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from minires.viz.figure import BLACK, GREY, SERIES, Picture, plain_axes

__all__ = ["lengths"]

_MARKERS = "osD^vX"


def lengths(
    networks: Mapping[str, Mapping[int, tuple[int, int]]],
    path: str | os.PathLike[str] | None = None,
    *,
    longest: int | None = None,
    unit: str = "words of the source sentence",
    least: int = 5,
) -> Picture:
    """Draw the share of sentences with a mistake by the length of the sentence, a line for each network.

    Args:
        networks: name → length → (sentences of this length, how many of them have a mistake).
        path: where to save the picture, or None.
        longest: the longest sentences of the training; what lies beyond is shaded.
        unit: what the length counts.
        least: lengths with fewer sentences are left out.

    Raises:
        ValueError: no length has enough sentences.
    """
    shares = {
        name: [(length, 100 * wrong / count) for length, (count, wrong) in sorted(counts.items()) if count >= least]
        for name, counts in networks.items()
    }
    if not all(shares.values()) or not shares:
        raise ValueError("lengths: there is nothing to draw")
    figure = Picture(6.4, 3.4)
    axes = figure.add_axes((0.09, 0.145, 0.87, 0.655))
    plain_axes(axes)
    first, last = (choose(length for points in shares.values() for length, _ in points) for choose in (min, max))
    axes.set_xlim(first - 0.5, last + 0.5)
    if longest is not None and longest < last:
        _shade(axes, longest + 0.5, last + 0.5)
    for i, (name, points) in enumerate(shares.items()):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=SERIES[i % len(SERIES)], linewidth=1.8, marker=_MARKERS[i % 6], markersize=4.5, label=name,
                  clip_on=False, zorder=3)  # fmt: skip
    axes.set_ylim(0, max(10.0, *(1.08 * y for points in shares.values() for _, y in points)))
    axes.set_xticks(range(first, last + 1))
    axes.set_xlabel(unit, fontsize=9, color=GREY)
    figure.text(0.02, 0.97, "sentences with a mistake, %", fontsize=10, color=BLACK, va="top")
    look: dict[str, Any] = {"loc": "upper left", "frameon": False, "fontsize": 9, "labelcolor": BLACK}
    figure.legend(ncols=min(3, len(shares)), bbox_to_anchor=(0.01, 0.93), **look)
    return figure.write(path)


def _shade(axes: Any, start: float, end: float) -> None:
    axes.axvspan(start, end, color="#f2f2f2", linewidth=0, zorder=0)
    axes.text(end, 1.02, "longer than any in training", transform=axes.get_xaxis_transform(), fontsize=8, color=GREY,
              ha="right", va="bottom")  # fmt: skip
