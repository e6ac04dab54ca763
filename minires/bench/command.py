"""``minires bench``: machine, ceilings, kernels, then whole steps beside PyTorch's; printed, and written as JSON.

Each part is printed as soon as it is known, so that a run that is broken off has shown something. A part that fails says so
in its place, and the rest goes on.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from minires.bench import ceilings, cpu_parts, kernels, networks, report
from minires.bench.groups import EAGER, Maker, add_limits, count_work, line, measure_group
from minires.bench.networks import Network, Precision
from minires.bench.ours import CpuSide, CudaSide
from minires.bench.record import taking_stock
from minires.bench.rounds import Budget, Plan, Side, losses_agree
from minires.device import check, cupy, parse

__all__ = ["Bench", "run"]

#: Seconds for everything, unless told. A GPU's run stays under ten minutes with what cannot be stopped in between.
_SECONDS, _QUICK_SECONDS = {"cuda": 510.0, "cpu": 1200.0}, 150.0

#: Shares of the time: the kernel table, and on the CPU the single ops, may take so much of what is left when they begin.
_KERNEL_SHARE, _OPS_SHARE = 0.15, 0.4

#: Compiling takes PyTorch a minute or so for each network and precision: so only this precision is compiled, and only if so
#: many seconds are left beside those that each comparison needs.
_COMPILED, _COMPILE_SECONDS, _GROUP_SECONDS = "tf32", 100.0, 25.0


def run(options: argparse.Namespace) -> int:
    """Measure (or read what was measured), print, write, draw; returns 1 if a comparison failed."""
    for option, path, suffixes in (("--json", options.json, None), ("--plot", options.plot, (".png", ".svg", ".pdf"))):
        _check_output(option, path, suffixes)
    if options.read:
        cpu_parts.draw(cpu_parts.read(options.read), options.plot)
        return 0
    kind, _ = parse(options.device)
    check(options.device)
    chosen = _chosen(networks.of_device(kind, options.quick and not options.networks), options.networks)
    seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS[kind])
    bench = Bench(options.device, kind, _plan(kind, options.quick), Budget(seconds), options.only, options.quick)
    bench.peers, bench.peer_paths = options.peers, dict(options.peer_path)
    if kind == "cuda":
        with cupy().cuda.Device(parse(options.device)[1]):
            bench.measure(chosen)
    else:
        bench.measure(chosen)
    if options.json is not None:
        options.json.write_text(report.as_json(bench.found), encoding="utf-8")
        print(f"\nwritten to {options.json}")
    if options.plot is not None:
        cpu_parts.draw(bench.found, options.plot)
    return int(cpu_parts.has_failed(bench.found))


def _check_output(option: str, path: Path | None, suffixes: tuple[str, ...] | None) -> None:
    """Raise ValueError if nothing can be written there: better now than after twenty minutes."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option} {path}: expected the name of a file in a folder that exists")
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{option} {path}: expected a name that ends in {', '.join(suffixes)}")


def _chosen(known: Sequence[Network], names: Sequence[str] | None) -> list[Network]:
    unknown = sorted(set(names or ()) - {network.name for network in known})
    if unknown:
        names_known = ", ".join(network.name for network in known)
        raise ValueError(f"--networks: {unknown[0]!r} is not one of {names_known}")
    return [network for network in known if not names or network.name in names]


def _plan(kind: str, quick: bool) -> Plan:
    plan = Plan() if kind == "cuda" else Plan(warm_up=1, steps=1, losses=3)
    return replace(plan, rounds=5) if quick else plan


class Bench:
    """One run.

    Attributes:
        found: everything, as it is written to the JSON file.
        peers: names of the frameworks that single ops are compared with; None: all that are there.
        peer_paths: name → where one lies that is not installed.
    """

    peers: Sequence[str] | None = None
    peer_paths: Mapping[str, Path] = MappingProxyType({})

    def __init__(
        self, device: str, kind: str, plan: Plan, budget: Budget, only: str | None = None, quick: bool = False
    ) -> None:
        self._device, self._kind, self._plan, self._budget = device, kind, plan, budget
        self._only, self._quick, self._started = only, quick, time.perf_counter()
        self._has_torch = find_spec("torch") is not None
        self.found: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": report.machine(device), "protocol": asdict(plan), "ceilings": None, "kernels": {}, "steps": [],
        }  # fmt: skip

    def measure(self, chosen: Sequence[Network]) -> None:
        """All parts, in the order in which they are wanted when the time with a GPU is short."""
        print("\n".join(f"{name:<16}  {value}" for name, value in self.found["machine"].items()))
        if not self._has_torch:
            print("PyTorch is not installed, so minires is measured alone (pip install torch)")
        on_cpu = self._kind == "cpu"
        if self._only in (None, "ceilings", "kernels") or (on_cpu and self._only in ("steps", "inference")):
            self._measure_ceilings()
        if self._only in (None, "kernels") and not on_cpu:
            for i, network in enumerate(chosen):
                parts = (len(chosen) - i) / (_KERNEL_SHARE if self._only is None else 1)
                self._measure_kernels(network, Budget(self._budget.left / parts))
        if on_cpu and self._only in (None, "ops"):
            share = Budget(self._budget.left * (_OPS_SHARE if self._only is None else 1))
            self.found["ops"] = cpu_parts.measure_ops(self.peers, self.peer_paths, share)
        if self._only in (None, "steps"):
            self._measure_steps(chosen)
        if on_cpu:
            self._measure_on_cpu(chosen)
        self.found["seconds"] = round(time.perf_counter() - self._started, 1)
        print(f"\n{self.found['seconds']:.0f} s in all")

    # -------------------------------------------------------------------------------------------- parts

    def _measure_ceilings(self) -> None:
        kinds = networks.precisions(self._kind)
        if self._kind == "cuda":
            xp: Any = cupy()
            limits = ceilings.measure(xp, ceilings.Stopwatch(xp), kinds, *_CUDA_SIZES)
            xp.get_default_memory_pool().free_all_blocks()
        else:
            limits = ceilings.measure(np, ceilings.WallStopwatch(), kinds, *_CPU_SIZES)
        self.found["ceilings"] = asdict(limits)
        print("\nCeilings\n" + report.ceilings(self.found["ceilings"]))

    def _measure_kernels(self, network: Network, budget: Budget) -> None:
        precision = networks.precisions(self._kind)[0]
        title = f"Kernels of a step: {network.title}, {precision.name}"
        try:
            side = CudaSide(network, precision, self._device, graph=False)
            side.losses(2)  # compiles them, and makes what lasts
            with taking_stock() as stock:
                side.once()
            with precision.chosen():
                rows = kernels.measure(stock.entries, cupy(), budget)
        except Exception as error:
            self.found["kernels"][network.name] = {"error": line(error)}
            print(f"\n{title}\n  not measured: {line(error)}")
            return
        del side, stock
        self._release()
        together = [asdict(row) for row in kernels.per_kernel(rows)]
        self.found["kernels"][network.name] = {
            "precision": precision.name, "sizes": [asdict(row) for row in rows], "kernels": together,
        }  # fmt: skip
        copy = self.found["ceilings"]["copy"] if self.found["ceilings"] else None
        print(f"\n{title}\n{report.kernels(together, copy)}")

    def _measure_steps(self, chosen: Sequence[Network]) -> None:
        groups = [(network, precision) for network in chosen for precision in networks.precisions(self._kind)]
        after = len(chosen) if self._kind == "cpu" and self._only is None else 0  # inference needs time as well
        for i, (network, precision) in enumerate(groups):
            found = self._measure_group(network, precision, len(groups) - i + after)
            if self._kind == "cpu":
                add_limits(found, count_work(network, train=True), self.found["ceilings"])
            self.found["steps"].append(found)
            self._release()
            print("\n" + report.group(found))

    def _measure_on_cpu(self, chosen: Sequence[Network]) -> None:
        """What is measured on the CPU only."""
        if self._only in (None, "inference"):
            self.found["inference"] = []
            for i, network in enumerate(chosen):
                budget = self._budget.share(len(chosen) - i)
                found = cpu_parts.measure_inference(network, self._plan, budget, self._has_torch, self.found["ceilings"])
                self.found["inference"].append(found)
                self._release()
        if self._only in (None, "memory"):
            self.found["memory"] = cpu_parts.measure_memory(chosen, self._has_torch)
        if self._only == "scaling":
            self.found["scaling"] = cpu_parts.measure_scaling(self._plan, self._budget, self._quick)

    def _release(self) -> None:
        """Give the device's memory back, so that the next one finds all of it."""
        gc.collect()
        if self._kind == "cuda":
            cupy().get_default_memory_pool().free_all_blocks()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()

    # -------------------------------------------------------------------------------------------- one comparison

    def _measure_group(self, network: Network, precision: Precision, left: int) -> dict[str, Any]:
        """All sides on one network; ``left`` comparisons share the time, this one included."""
        found: dict[str, Any] = {
            "network": network.name, "title": network.title, "precision": precision.name, "batch_size": network.batch_size,
            "losses": {},
        }  # fmt: skip

        def probe(side: Side) -> list[float]:
            found["losses"][side.name] = side.losses(self._plan.losses)
            return list(found["losses"][side.name])

        makers = self._makers(network, precision, left)
        budget = self._budget.share(left)
        return measure_group(found, makers, self._plan, budget, probe, lambda all_: losses_agree(all_, precision.tolerance))

    def _makers(self, network: Network, precision: Precision, left: int) -> list[tuple[str, Maker]]:
        """How each side is made, ours first."""
        device = self._device
        if self._kind == "cpu":
            makers: list[tuple[str, Maker]] = [("minires", lambda: CpuSide(network, precision))]
        else:
            makers = [
                ("minires, CUDA graph", lambda: CudaSide(network, precision, device, graph=True)),
                ("minires, step by step", lambda: CudaSide(network, precision, device, graph=False)),
            ]
        if not self._has_torch:
            return makers
        from minires.bench.torch_side import TorchSide

        for name, layout in zip(EAGER, ("NCHW", "channels_last"), strict=True):
            makers.append((name, lambda layout=layout: TorchSide(network, precision, device, layout)))  # type: ignore[misc]
        if self._kind == "cuda":
            makers.append(("torch CUDA graph", lambda: TorchSide(network, precision, device, "channels_last", "graph")))
            makers.append(("torch.compile", lambda: self._compiled(network, precision, left)))
        return makers

    def _compiled(self, network: Network, precision: Precision, left: int) -> Side:
        from minires.bench.torch_side import TorchSide

        if self._quick or precision.name != _COMPILED:
            raise RuntimeError(f"compiled in {_COMPILED} only, and not with --quick: it takes a minute or more")
        if self._budget.left < _COMPILE_SECONDS + left * _GROUP_SECONDS:
            raise RuntimeError(f"only {self._budget.left:.0f} s were left for {left} comparisons, and compiling takes long")
        return TorchSide(network, precision, self._device, "channels_last", "compile")


#: bytes to copy, side of the matrices, repeats between two events, rounds
_CUDA_SIZES = (1 << 30, 8192, 10, 10)
_CPU_SIZES = (1 << 26, 1024, 2, 10)
