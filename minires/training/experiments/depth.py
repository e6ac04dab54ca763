"""Section 4.1 of the paper: networks of depth 36m + 20 train, and deeper ones are better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from minires.training.experiments.experiment import ERROR, MACS, PARAMETERS, Column, Experiment, Results, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast
from minires.training.presets import Job

__all__ = ["Depth"]

RESNET = "ResNet"


class Depth(Experiment):
    """m = 1 to 6 attention modules a stage, beside a ResNet of the same units."""

    name = "depth"
    claim = "deeper networks have a lower error, and one of m = 2 has a lower error than a ResNet of no fewer multiply-adds"
    source = "section 4.1, Table 6"
    columns = (ERROR, PARAMETERS, MACS, Column("ms_per_step", "ms a step", digits=0))

    def variants(self, scale: str) -> list[Variant]:
        """Each depth, and the ResNet (164 layers with the paper's networks)."""
        depths = (1, 2) if scale == "micro" else range(1, 7)
        found = [Variant(f"m = {m}", _job(scale, m=m), {"m": m}) for m in depths]
        if scale in ("cifar", "paper"):
            return [*found, Variant(RESNET, replace(network(scale), model="resnet164", options={}))]
        # Without masks a module is its trunk of t units; so many of them that it costs as much as m = 2.
        return [*found, Variant(RESNET, _job(scale, "none", t=7))]

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """The deepest beats the shallowest, and m = 2 the ResNet."""
        last = max(variant.settings["m"] for variant in variants if variant.name != RESNET)
        return [
            Contrast(f"error of m = 1 above that of m = {last}", "error", {"m = 1": 1, f"m = {last}": -1}),
            Contrast(f"error of the {RESNET} above that of m = 2", "error", {RESNET: 1, "m = 2": -1}),
        ]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Error, multiply-adds and time per step against m."""
        from minires.viz import experiments as figures

        panels = {
            "test error, %": ("error", 100.0),
            "million multiply-adds": ("macs", 1e-6),
            "ms a step": ("ms_per_step", 1.0),
        }
        charts = {
            title: {v.settings.get("m"): [factor * t.numbers[metric] for t in results[v.name]] for v in variants}
            for title, (metric, factor) in panels.items()
        }
        figures.against_depth(charts, path, xlabel="attention modules a stage, m", level=RESNET)


def _job(scale: str, attention: str = "residual", **options: int) -> Job:
    """As usual, but the deepest of the small networks take so long that they are trained for fewer epochs."""
    job = network(scale, attention, **options)
    return replace(job, epochs=4) if scale == "tiny" else job
