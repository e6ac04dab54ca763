"""How a mask is enlarged: by interpolation, or by a transposed convolution that starts as bilinear and learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.device import to_device
from minires.nn.attention import Resize
from minires.training.experiments.experiment import Experiment, Measured, Results, Trained, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast

__all__ = ["Upsampling"]

SHOWN = 6  # kernels in the figure


class Upsampling(Experiment):
    """Bilinear, nearest, and a transposed convolution with fixed or learned weights."""

    name = "upsampling"
    claim = "bilinear resizing has a lower error than nearest, and a deconvolution that starts as bilinear gains by learning"
    source = "section 3.1; for the learned one Long et al. 2015, section 3.3"

    def variants(self, scale: str) -> list[Variant]:
        """The four ways."""
        return [
            Variant("bilinear", network(scale)),
            Variant("nearest", network(scale, upsample="nearest")),
            Variant("deconv, frozen", network(scale, upsample="deconv"), {"frozen": True}),
            Variant("deconv, learned", network(scale, upsample="deconv"), {"frozen": False}),
        ]

    def change_model(self, model: Any, variant: Variant) -> None:
        """Freeze the transposed convolutions where they are not to learn."""
        if variant.settings.get("frozen"):
            for kernel in kernels_of(model).values():
                kernel.requires_grad = False

    def measure(self, trained: Trained) -> Measured:
        """How far the kernels have moved from the bilinear one, and those of the mask that moved most."""
        found = {name: to_device(kernel.data, "cpu")[:, 0] for name, kernel in kernels_of(trained.trainer.model).items()}
        if not found or trained.variant.settings["frozen"]:
            return Measured({})
        start = np.outer(*[np.array([0.25, 0.75, 0.75, 0.25])] * 2)  # (4, 4): bilinear by 2
        moved = {name: np.abs(kernels - start).sum(axis=(1, 2)) for name, kernels in found.items()}  # (C,) each
        name = max(moved, key=lambda each: float(moved[each].mean()))
        chosen = np.argsort(-moved[name])[: SHOWN - 1]
        shown = [[round(float(value), 4) for value in found[name][c].ravel()] for c in chosen]
        extra = {"layer": name, "channels": [int(c) for c in chosen], "kernels": shown}
        return Measured({"moved": float(np.concatenate(list(moved.values())).mean() / start.sum())}, extra)

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """Interpolation is better smooth, and learning helps."""
        frozen, learned = "deconv, frozen", "deconv, learned"
        return [
            Contrast("error of nearest above that of bilinear", "error", {"nearest": 1, "bilinear": -1}),
            Contrast("error of the frozen deconv above that of the learned one", "error", {frozen: 1, learned: -1}),
        ]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Error of each, and learned kernels beside the one that they started from."""
        from minires.viz import experiments as figures

        errors = {name: [100 * trial.numbers["error"] for trial in trials] for name, trials in results.items()}
        extra = results["deconv, learned"][0].extra
        start = np.outer(*[np.array([0.25, 0.75, 0.75, 0.25])] * 2)
        kernels = {"start: bilinear": start}
        for channel, values in zip(extra["channels"], extra["kernels"], strict=True):
            kernels[f"channel {channel}"] = np.array(values).reshape(4, 4)
        figures.dots_and_kernels(errors, kernels, path, xlabel="test error, %", layer=extra["layer"])


def kernels_of(model: Any) -> dict[str, Any]:
    """Name → weights (C, 1, 4, 4) of every transposed convolution of the masks."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Resize) and module.deconv is not None:
            found[name] = module.deconv.weight
    return found
