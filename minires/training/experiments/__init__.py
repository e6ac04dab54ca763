"""The paper's claims, one experiment each: ``minires experiment NAME`` gives a table, a figure and a verdict.

>>> from minires.training import experiments
>>> report = experiments.run(experiments.find("upsampling"), scale="tiny", seeds=3)  # doctest: +SKIP
>>> report.verdict  # doctest: +SKIP
'undecided at this scale'
"""

from __future__ import annotations

from minires.training.experiments.activations import Activations
from minires.training.experiments.depth import Depth
from minires.training.experiments.experiment import Experiment, Measured, Variant
from minires.training.experiments.label_noise import LabelNoise
from minires.training.experiments.localisation import Localisation
from minires.training.experiments.mask_shape import MaskShape
from minires.training.experiments.naive_vs_residual import NaiveVsResidual
from minires.training.experiments.report import Report
from minires.training.experiments.runner import run
from minires.training.experiments.upsampling import Upsampling
from minires.training.experiments.vanishing_features import VanishingFeatures
from minires.training.experiments.wiring import Wiring

__all__ = ["EXPERIMENTS", "Experiment", "Measured", "Report", "Variant", "find", "overview", "run"]

#: Name → experiment, in the order of the documentation.
EXPERIMENTS: dict[str, Experiment] = {
    kind.name: kind()
    for kind in (
        NaiveVsResidual, VanishingFeatures, Activations, MaskShape, Upsampling, LabelNoise, Localisation, Depth, Wiring,
    )
}  # fmt: skip


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def overview() -> str:
    """A line for each experiment: its name, what it tests, and where the paper says so."""
    width = max(map(len, EXPERIMENTS))
    return "\n".join(f"{name:<{width}}  {each.claim} ({each.source})" for name, each in EXPERIMENTS.items())
