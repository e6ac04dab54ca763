"""Figure 4 of the paper: with naive attention learning the features fade from stage to stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minires.device import to_device
from minires.modes import no_grad
from minires.training.experiments.experiment import Column, Experiment, Measured, Results, Trained, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast

__all__ = ["VanishingFeatures", "responses"]

#: The networks for digits have three stages here, as the paper's have.
_DEEP: dict[str, dict[str, Any]] = {
    "micro": {"widths": (8, 8, 8), "depths": (2, 1, 1), "m": 2},
    "tiny": {"widths": (32, 64, 128), "depths": (2, 1, 1), "m": 3},
    "cifar": {"m": 4},
    "paper": {"m": 4},
}
STAGES = 3


class VanishingFeatures(Experiment):
    """The mean response of each stage, relative to the first, of ARL, NAL and a ResNet."""

    name = "vanishing-features"
    claim = "with naive attention learning the features vanish stage by stage, with residual attention learning they do not"
    source = "Figure 4"
    columns = (
        Column("response2", "stage 2 / stage 1", 1, 3), Column("response3", "stage 3 / stage 1", 1, 3),
        *(Column(f"stage{i}", f"mean response, stage {i}", 1, 3) for i in range(1, STAGES + 1)),
        Column("error", "test error, %", 100),
    )  # fmt: skip

    def variants(self, scale: str) -> list[Variant]:
        """Both kinds of attention, and residual units alone."""
        options = _DEEP[scale]
        plain = network(scale, "none", **options)
        if scale in ("cifar", "paper"):
            plain = replace(network(scale), model="resnet164", options={})
        jobs = {"ARL": network(scale, **options), "NAL": network(scale, "naive", **options), "ResNet": plain}
        return [Variant(name, job) for name, job in jobs.items()]

    def measure(self, trained: Trained) -> Measured:
        """Mean |output| of each stage on the test images, and relative to the first."""
        found = responses(trained.trainer.model, trained.source.test, trained.job.device)
        relative = {f"response{i}": value / found[0] for i, value in enumerate(found, 1)}
        return Measured({**relative, **{f"stage{i}": value for i, value in enumerate(found, 1)}})

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """NAL is below the other two, at the second stage and at the third."""
        return [
            Contrast(f"stage {stage} / stage 1 of {other} above that of NAL", f"response{stage}", {other: 1, "NAL": -1})
            for stage in range(2, STAGES + 1)
            for other in ("ARL", "ResNet")
        ]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Response against stage, on a logarithmic scale."""
        from minires.viz import experiments as figures

        charts = {
            title: {
                v.name: {float(i): [t.numbers[f"{metric}{i}"] for t in results[v.name]] for i in range(1, STAGES + 1)}
                for v in variants
            }
            for title, metric in (("mean |response|, relative to stage 1", "response"), ("mean |response|", "stage"))
        }
        figures.trend(charts, path, xlabel="stage", log=True)


def responses(model: Any, batches: Any, device: str) -> list[float]:
    """The mean magnitude of what each stage returns, in evaluation mode, over all images, places and channels.

    Args:
        model: has the children ``stage1``, ``stage2``, ...
        batches: tuples whose first part are images.
        device: where the model lives.
    """
    stages = [model.get_submodule(f"stage{i}") for i in range(1, STAGES + 1)]
    sums, count = np.zeros(STAGES), 0
    heard: list[float] = []
    handles = [
        stage.register_forward_hook(lambda module, args, output: heard.append(float(abs(output.data).mean())))
        for stage in stages
    ]
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            for images, *_ in batches:
                heard.clear()
                model(images.to(device))
                sums, count = sums + np.array(heard) * len(images), count + len(images)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return [float(value) for value in to_device(sums / count, "cpu")]
