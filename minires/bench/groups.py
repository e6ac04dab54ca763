"""One comparison of whole networks: set up all sides, see that they compute the same, let them take turns.

Whether a side makes training steps or only looks at images does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minires as mr
from minires import functional as F
from minires.bench.networks import Network
from minires.bench.observer import Observer
from minires.bench.rounds import Budget, Plan, Side, Spread, Turns, take_turns
from minires.modes import no_grad

__all__ = ["EAGER", "Maker", "add_limits", "count_work", "line", "measure_group", "outputs_agree"]

#: The names of the sides that ratios are taken to (as in torch_side.py, which may not be importable).
EAGER = ("torch, NCHW", "torch, channels_last")

#: Arrays of an update's size that it moves: the gradient read, weights and velocity read and written.
_UPDATE = 5

Maker = Callable[[], Side]
Found = dict[str, Any]


def measure_group(
    found: Found,
    makers: Sequence[tuple[str, Maker]],
    plan: Plan,
    budget: Budget,
    probe: Callable[[Side], Any],
    agree: Callable[[dict[str, Any]], str],
) -> Found:
    """All sides on one network.

    Args:
        found: what is known of the comparison; the result is this with more in it.
        makers: name → how each side is made, ours first.
        plan: how much is measured.
        budget: the time for it.
        probe: what has to agree, of one side; called before anything is timed.
        agree: name → what was probed; returns a sentence if it does not agree.
    """
    found |= {"rows": [], "cut": "", "verdict": None, "error": ""}
    sides, probed = [], {}
    for name, make in makers:
        try:
            side = make()
            probed[side.name] = probe(side)
            side.finish_setup()
            sides.append(side)
        except Exception as error:  # out of memory, no compiler: the others can still be compared
            found["rows"].append({"name": name, "note": line(error)})
    found["error"] = agree(probed)
    if found["error"] or not sides:
        found["error"] = found["error"] or "no side could be set up: " + "; ".join(row["note"] for row in found["rows"])
        return found
    turns = take_turns(sides, plan, budget)
    best = turns.best(EAGER)
    found["rows"] = [_row(side, turns, sides[0].name) for side in sides] + found["rows"]
    found["rounds"], found["cut"], found["best_peer"] = turns.rounds, turns.cut, best
    if best is not None:
        ratio = turns.ratio(sides[0].name, best)
        found["ratio"] = ratio
        found["verdict"] = f"{sides[0].name} takes {ratio:.2f} × the time of {best}, the faster eager one"
    return found


def _row(side: Side, turns: Turns, ours: str) -> Found:
    spread = Spread.of(turns.seconds[side.name])
    return {
        "name": side.name, "note": side.note, "median": spread.median, "quartiles": [spread.low, spread.high],
        "range": [spread.fastest, spread.slowest], "seconds": turns.seconds[side.name],
        "ratio": None if side.name == ours else turns.ratio(ours, side.name),
        "kernels": side.kernels, "bytes_held": side.bytes_held,
    }  # fmt: skip


def outputs_agree(outputs: dict[str, Any], tolerance: float) -> str:
    """Empty if all sides put out the same; else who does not."""
    names = list(outputs)
    for name in names[1:]:
        first: Any = np.asarray(outputs[names[0]])
        apart = float(np.abs(outputs[name] - first).max() / np.abs(first).max())
        if not apart <= tolerance:
            return f"outputs of {name} and of {names[0]} differ by {apart:.1e} of the largest, allowed are {tolerance:.0e}"
    return ""


def count_work(network: Network, train: bool) -> tuple[int, int]:
    """Operations and bytes of a training step, or of looking at a batch, by the formulas of our ops.

    Each op reads its inputs and writes its outputs once, so another framework, with other ops, moves other amounts.
    """
    model, (images, labels) = network.model(), network.batches()[0]
    model.train(train)
    observer = Observer(lambda: 0.0, lambda: None)
    with observer.watching():
        if train:
            F.cross_entropy(model(mr.from_numpy(images)), mr.from_numpy(labels)).backward()
        else:
            with no_grad():
                model(mr.from_numpy(images))
    flops = sum(tally.flops or 0 for tally in observer.tallies.values())
    moved = sum(tally.bytes or 0 for tally in observer.tallies.values())
    update = _UPDATE * sum(parameter.data.nbytes for parameter in model.parameters()) if train else 0
    return flops, moved + update


def add_limits(found: Found, work: tuple[int, int], ceilings: Found) -> None:
    """To each row, which part of what the machine can do it reaches: operations of all sides, bytes of ours."""
    found["flops"], found["bytes"] = work
    for i, row in enumerate(row for row in found["rows"] if "median" in row):
        row["of_product"] = work[0] / row["median"] / ceilings["products"]["fp32"]
        if i == 0:
            row["of_copy"] = work[1] / row["median"] / ceilings["copy"]


def line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
