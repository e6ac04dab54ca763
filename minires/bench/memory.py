"""How much memory a training step needs above the weights: each side makes steps in a process of its own.

The process builds the network, the optimiser and the batches, notes what it occupies, lets the system's record of its peak
begin anew (Linux: ``/proc/self/clear_refs``), makes some steps, and reads the peak. Where the record cannot begin anew the
peak since the process began is taken, which is the same unless building the network took more than a step.

Run as ``python -m minires.bench.memory SIDE NETWORK BATCH STEPS`` this module is such a process: one line of JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minires.bench import networks
from minires.bench.networks import Network

__all__ = ["SIDES", "measure", "peak_of"]

#: Ours first. The others are PyTorch's layouts.
SIDES = ("minires", "torch, NCHW", "torch, channels_last")

_STEPS = 3  # the second step already finds all state that an optimiser makes at its first
_SECONDS = 300.0

Found = dict[str, Any]
_Run = Callable[[str, Network], Found]


def measure(network: Network, sides: Sequence[str], run: _Run | None = None) -> Found:
    """The peaks of all sides on one network; ``run`` (for tests) stands for the process."""
    rows = []
    for side in sides:
        try:
            rows.append({"name": side, "ratio": None, **(run or _in_process)(side, network)})
        except Exception as error:  # out of memory, no PyTorch: the others can still be compared
            rows.append({"name": side, "error": " ".join(str(error).split()) or type(error).__name__})
    ours = rows[0].get("peak")
    for row in rows[1:]:
        if ours is not None and row.get("peak"):
            row["ratio"] = ours / row["peak"]
    return {"network": network.name, "title": network.title, "rows": rows}


def _in_process(side: str, network: Network) -> Found:
    command = [sys.executable, "-m", "minires.bench.memory", side, network.name, str(network.batch_size), str(_STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"the process ended with {done.returncode}").splitlines()[-1])
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_of(work: Callable[[], Any]) -> Found:
    """Bytes that this process occupies before ``work()``, and at most during it above that; and how it was measured."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what building left over is not to be taken for nothing
    before = _status("VmRSS") or _peak_since_start()
    anew = _begin_anew()
    work()
    peak = (_status("VmHWM") if anew else None) or _peak_since_start()
    method = "VmHWM after /proc/self/clear_refs" if anew else "getrusage, since the process began"
    return {"before": before, "peak": max(0, peak - before), "method": method}


def _begin_anew() -> bool:
    """Let the record of the peak begin at what is occupied now; False where this is impossible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _status("VmHWM") is not None


def _status(name: str) -> int | None:
    """A line of /proc/self/status in bytes; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _peak_since_start() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def _process(side: str, name: str, batch: str, steps: str) -> Found:
    """What one process does."""
    known = {network.name: network for network in networks.of_device("cpu", quick=False)}
    network, precision = replace(known[name], batch_size=int(batch)), networks.precisions("cpu")[0]
    made: Any
    if side == SIDES[0]:
        from minires import cli
        from minires.bench.ours import CpuSide

        cli._keep_freed_memory()  # as in "minires train"
        made = CpuSide(network, precision)
    else:
        from minires.bench.torch_side import TorchSide

        made = TorchSide(network, precision, "cpu", side.removeprefix("torch, "))
    return peak_of(lambda: made.losses(int(steps)))


if __name__ == "__main__":
    print(json.dumps(_process(*sys.argv[1:])))
