"""Table 1 of the paper: what turns the mask branch's scores into a mask."""

from __future__ import annotations

from collections.abc import Sequence

from minires.training.experiments.experiment import ERROR, Column, Experiment, Results, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast

__all__ = ["Activations"]

KINDS = {"f1, mixed": "mixed", "f2, channel": "channel", "f3, spatial": "spatial"}


class Activations(Experiment):
    """Mixed (sigmoid), channel and spatial attention."""

    name = "activations"
    claim = "mixed attention (f1, a sigmoid) has a lower error than channel attention (f2) and spatial attention (f3)"
    source = "Table 1"
    columns = (ERROR, Column("train_error", "training error of the last epoch, %", 100))

    def variants(self, scale: str) -> list[Variant]:
        """The three functions."""
        return [Variant(name, network(scale, activation=activation)) for name, activation in KINDS.items()]

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """Both others have a higher error."""
        first, *others = (variant.name for variant in variants)
        return [Contrast(f"error of {other} above that of {first}", "error", {other: 1, first: -1}) for other in others]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Error of each."""
        from minires.viz import experiments as figures

        formulas = {
            "f1, mixed": "σ(z)",
            "f2, channel": "z / ‖z‖ over channels",
            "f3, spatial": "σ((z − mean) / std) over places",
        }
        errors = {name: [100 * trial.numbers["error"] for trial in trials] for name, trials in results.items()}
        figures.dots(errors, path, xlabel="test error, %", notes=formulas)
