"""The parts of ``minires bench`` that are measured on the CPU only, each printed when it is known; and their picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minires.bench import cases, memory, networks, ops, peers, report, scaling, tables
from minires.bench.groups import EAGER, Maker, add_limits, count_work, measure_group, outputs_agree
from minires.bench.networks import Network
from minires.bench.ours import CpuInference
from minires.bench.rounds import Budget, Plan
from minires.errors import DataError

__all__ = ["draw", "has_failed", "measure_inference", "measure_memory", "measure_ops", "measure_scaling", "read"]

Found = dict[str, Any]

#: Rounds of the scaling plots: a round is a dozen steps, some of them long.
_SCALING = {"rounds": 5, "least_rounds": 2, "warm_up": 1}


def measure_ops(names: Sequence[str] | None, paths: Mapping[str, Path], budget: Budget) -> Found:
    """Single ops in all frameworks that are there."""
    sides, missing = ops.load(names or peers.NAMES, paths)
    print("\nSingle ops; ours / theirs")
    for name, reason in missing.items():
        print(f"  {name} is left out: {reason}")
    for side in sides:
        if side.note:
            print(f"  {side.name}: {side.note}")
    shown = [side.name for side in sides]
    print(tables.op_head(shown))
    rows = []
    known = cases.cases()
    for i, case in enumerate(known):
        rows.append(ops.measure(case, sides, budget.share(len(known) - i)))
        print(tables.op(rows[-1], shown), flush=True)
    return {"peers": shown, "missing": missing, "notes": {s.name: s.note for s in sides if s.note}, "cases": rows}


def measure_inference(network: Network, plan: Plan, budget: Budget, has_torch: bool, ceilings: Found) -> Found:
    """A network in evaluation mode, ours and PyTorch's."""
    makers: list[tuple[str, Maker]] = [("minires", lambda: CpuInference(network))]
    if has_torch:
        from minires.bench.torch_side import TorchInference

        for name, layout in zip(EAGER, ("NCHW", "channels_last"), strict=True):
            makers.append((name, lambda layout=layout: TorchInference(network, layout)))  # type: ignore[misc]
    precision = networks.precisions("cpu")[0]
    found: Found = {
        "network": network.name, "title": f"{network.title}, inference", "precision": precision.name,
        "batch_size": network.batch_size, "unit": "ms a batch",
    }  # fmt: skip

    def probe(side: Any) -> Any:
        return side.outputs()

    measure_group(found, makers, plan, budget, probe, lambda outputs: outputs_agree(outputs, ops.TOLERANCE))
    add_limits(found, count_work(network, train=False), ceilings)
    print("\n" + report.group(found), flush=True)
    return found


def measure_memory(chosen: Sequence[Network], has_torch: bool) -> list[Found]:
    """The peak of a training step above the weights."""
    found = [memory.measure(network, memory.SIDES if has_torch else memory.SIDES[:1]) for network in chosen]
    print("\nPeak memory of a training step above what building it took\n" + tables.memory(found), flush=True)
    return found


def measure_scaling(plan: Plan, budget: Budget, quick: bool) -> list[Found]:
    """Step time against batch size and depth."""
    known = scaling.sweeps(quick)
    plan = replace(plan, **_SCALING)
    precision = networks.precisions("cpu")[0]
    found = []
    for i, sweep in enumerate(known):
        found.append(scaling.measure(sweep, precision, plan, budget.share(len(known) - i)))
        print("\n" + tables.scaling(found[-1]), flush=True)
    return found


def has_failed(found: Found) -> bool:
    """Whether something was not timed because it is wrong."""
    groups = [*found["steps"], *found.get("inference", [])]
    rows = [row for case in found.get("ops", {}).get("cases", []) for row in case["rows"]]
    return any(each.get("error") for each in (*groups, *rows))


def read(paths: Sequence[Path]) -> Found:
    """What was written before, of several files together: the last one that has a part counts.

    Raises:
        DataError: a file is missing or was not written by ``minires bench``.
    """
    found: Found = {}
    for path in paths:
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from None
        if not isinstance(one, dict) or "steps" not in one:
            raise DataError(f"{path}: was not written by minires bench")
        found |= {name: part for name, part in one.items() if part}
    return found


def draw(found: Found, path: Path | None) -> None:
    """Write the chart of ratios, and the lines of scaling beside it, as far as they were measured."""
    from minires import viz

    if path is None:
        raise ValueError("--read: where is the picture to go? Say it with --plot FILE")
    if _has_ratios(found):
        viz.bench(found, path)
        print(f"drawn to {path}")
    if found.get("scaling"):
        beside = path.with_stem(f"{path.stem}-scaling")
        viz.scaling(found["scaling"], beside)
        print(f"drawn to {beside}")


def _has_ratios(found: Found) -> bool:
    """Whether anything was measured beside another framework."""
    groups = [*found.get("steps", []), *found.get("inference", []), *found.get("ops", {}).get("cases", [])]
    return any(len(group["rows"]) > 1 for group in groups)
