"""Whether the time of a step grows in a straight line: with the images in a batch, and with the depth of the network.

A line is fitted so that relative distances are small (the points of a small batch count as much as those of a large one).
What is above it at the left is the cost of calls; what bends upwards at the right would be memory or caches giving out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import models
from minires.bench.networks import Network, Precision
from minires.bench.ours import CpuSide
from minires.bench.rounds import Budget, Plan, Side, Spread, take_turns

__all__ = ["Sweep", "fit", "measure", "sweeps"]

Found = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """Networks that differ in one number.

    Attributes:
        name: short.
        title: for a table or a picture.
        what: the number that changes.
        points: the number → the network.
    """

    name: str
    title: str
    what: str
    points: dict[int, Network]


def sweeps(quick: bool = False) -> list[Sweep]:
    """Batches of 16 to 256 images, and 1 to 6 attention modules a stage; fewer if ``quick``."""
    batches, modules, batch = ((16, 32, 64), (1, 2, 3), 16) if quick else ((16, 32, 64, 128, 192, 256), range(1, 7), 32)
    return [
        Sweep("batch", "CIFAR Attention-56 by batch size", "images", {size: _cifar(1, size) for size in batches}),
        Sweep("depth", f"CIFAR attention network by depth, batch {batch}", "m", {m: _cifar(m, batch) for m in modules}),
    ]


def _cifar(m: int, batch: int) -> Network:
    return Network(f"m{m}b{batch}", f"m = {m}, batch {batch}", lambda: models.cifar_attention(m), batch, (3, 32, 32), 10)


def measure(
    sweep: Sweep, precision: Precision, plan: Plan, budget: Budget, make: Callable[[Network, Precision], Side] = CpuSide
) -> Found:
    """Step times of all points, in turns, and the line through them."""
    sides = {x: make(network, precision) for x, network in sweep.points.items()}
    for x, side in sides.items():
        side.name = str(x)
        side.losses(1)
    turns = take_turns(list(sides.values()), plan, budget)
    spreads = {x: Spread.of(turns.seconds[side.name]) for x, side in sides.items()}
    offset, slope, deviation = fit(list(spreads), [spread.median for spread in spreads.values()])
    points = [
        {"x": x, "median": s.median, "quartiles": [s.low, s.high], "seconds": turns.seconds[str(x)],
         "fitted": offset + slope * x} for x, s in spreads.items()
    ]  # fmt: skip
    return {
        "name": sweep.name, "title": sweep.title, "what": sweep.what, "points": points, "offset": offset, "slope": slope,
        "deviation": deviation, "rounds": turns.rounds, "cut": turns.cut,
    }  # fmt: skip


def fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Offset and slope of the line that is nearest to y in relative terms, and the largest relative distance from it."""
    along, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    columns = np.stack([np.ones_like(along), along], axis=1) / up[:, None]  # (points, 2)
    offset, slope = np.linalg.lstsq(columns, np.ones_like(up), rcond=None)[0]
    return float(offset), float(slope), float(np.abs(up / (offset + slope * along) - 1).max())
