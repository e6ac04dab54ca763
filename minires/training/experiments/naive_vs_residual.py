"""Table 3 of the paper: (1 + M)·F (ARL) against M·F (NAL), at growing depth."""

from __future__ import annotations

from collections.abc import Sequence

from minires.training.experiments.experiment import Experiment, Results, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast

__all__ = ["NaiveVsResidual"]

KINDS = {"ARL": "residual", "NAL": "naive"}


class NaiveVsResidual(Experiment):
    """Residual against naive attention learning with m = 1, 2, 3, 4 modules a stage."""

    name = "naive-vs-residual"
    claim = "residual attention learning (ARL) has a lower error than naive attention learning (NAL), more so with depth"
    source = "Table 3"

    def variants(self, scale: str) -> list[Variant]:
        """Both kinds at each depth."""
        depths = (1, 2) if scale == "micro" else (1, 2, 3, 4)
        return [
            Variant(f"{kind}, m = {m}", network(scale, attention, m=m), {"kind": kind, "m": m})
            for kind, attention in KINDS.items()
            for m in depths
        ]

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """The deeper half together, and how the gap grows from the shallowest to the deepest."""
        depths = sorted({variant.settings["m"] for variant in variants})
        deep, first, last = depths[len(depths) // 2 :], depths[0], depths[-1]
        share = 1 / len(deep)
        better = {f"{kind}, m = {m}": sign * share for m in deep for kind, sign in (("NAL", 1), ("ARL", -1))}
        growth = {f"NAL, m = {last}": 1, f"ARL, m = {last}": -1, f"NAL, m = {first}": -1, f"ARL, m = {first}": 1}
        return [
            Contrast(f"error of NAL above that of ARL, mean of m = {' and '.join(map(str, deep))}", "error", better),
            Contrast(f"that gap at m = {last} above the gap at m = {first}", "error", growth),
        ]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Error against m."""
        from minires.viz import experiments as figures

        lines: dict[str, dict[float, list[float]]] = {}
        for v in variants:
            values = [100 * trial.numbers["error"] for trial in results[v.name]]
            lines.setdefault(v.settings["kind"], {})[v.settings["m"]] = values
        named = {f"{kind}: {'(1 + M)·F' if kind == 'ARL' else 'M·F'}": points for kind, points in lines.items()}
        figures.trend({"test error, %": named}, path, xlabel="attention modules a stage, m")
