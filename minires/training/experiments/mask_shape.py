"""Table 4 of the paper: a mask branch that shrinks and enlarges the image, or one that stays at full size."""

from __future__ import annotations

from collections.abc import Sequence

from minires.training.experiments.experiment import Experiment, Results, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast

__all__ = ["MaskShape"]

PLAIN, EQUAL, LOCAL = "encoder–decoder", "encoder–decoder, longer trunk", "local convolutions"

#: Trunk units with which the first costs nearly as much as the last, and no more; in the paper's networks 2 are usual.
_TRUNK = {"micro": 3, "tiny": 3, "cifar": 4, "paper": 4}


class MaskShape(Experiment):
    """Encoder–decoder masks against local convolutions (three units at full size)."""

    name = "mask-shape"
    claim = "an encoder–decoder mask has a lower error than one of local convolutions at equal multiply-adds"
    source = "Table 4"

    def variants(self, scale: str) -> list[Variant]:
        """Both shapes as they are, and the cheaper one with trunks that make up for the difference in cost."""
        return [
            Variant(PLAIN, network(scale, mask="encoder-decoder")),
            Variant(EQUAL, network(scale, mask="encoder-decoder", t=_TRUNK[scale])),
            Variant(LOCAL, network(scale, mask="local")),
        ]

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """The local one has a higher error than the other of equal cost."""
        return [Contrast(f"error of {LOCAL} above that of {EQUAL}", "error", {LOCAL: 1, EQUAL: -1})]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Error of each, with its cost."""
        from minires.viz import experiments as figures

        errors = {name: [100 * trial.numbers["error"] for trial in trials] for name, trials in results.items()}
        costs = {name: f"{trials[0].numbers['macs'] / 1e6:.1f} million MAC" for name, trials in results.items()}
        figures.dots(errors, path, xlabel="test error, %", notes=costs)
