"""Table 5 of the paper: masks against wrong labels.

The paper's reason is equation 2: the mask also weighs the gradient on its way back to the trunk, so it might keep a wrong
label from doing harm. How much of the gradient gets through is measured as well, for right and for wrong labels of the same
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minires import functional
from minires.autograd import grad
from minires.data import ClutteredDigits, ImageDataset
from minires.device import array_module, to_device
from minires.nn import AttentionModule, evaluation_mode
from minires.training.experiments.experiment import ERROR, Column, Experiment, Measured, Results, Trained, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast
from minires.training.sources import Source

__all__ = ["LabelNoise", "passed_gradient", "with_noise"]

RATIOS = (0.1, 0.3, 0.5, 0.7)
KINDS = {"attention": "residual", "no masks": "none"}


class LabelNoise(Experiment):
    """Attention and the same trunk without masks, with 10, 30, 50 and 70 % wrong training labels."""

    name = "label-noise"
    claim = "with many wrong labels (50 and 70 %) attention has a lower error than the same trunk without masks"
    source = "Table 5, equation 2"
    columns = (
        ERROR, Column("train_error", "error on the noisy training labels, %", 100),
        Column("passed_right", "gradient passed by 1 + M, right label", 1, 3),
        Column("passed_wrong", "the same, wrong label", 1, 3),
    )  # fmt: skip

    def variants(self, scale: str) -> list[Variant]:
        """Both networks at each level of noise."""
        ratios = (0.1, 0.5, 0.7) if scale == "micro" else RATIOS
        depth = {"m": 2} if scale in ("cifar", "paper") else {}  # Attention-92 in the paper
        return [
            Variant(f"{kind}, {ratio:.0%} noise", network(scale, attention, **depth), {"kind": kind, "noise": ratio})
            for kind, attention in KINDS.items()
            for ratio in ratios
        ]

    def change_source(self, source: Source, variant: Variant, seed: int) -> None:
        """Draw the wrong labels, once for the whole run.

        For digits each handwritten digit gets its label, right or wrong, which stays the same on every canvas that shows it.
        """
        dataset = source.train.dataset
        holder: Any = dataset.digits if isinstance(dataset, ClutteredDigits) else dataset
        assert isinstance(holder, ImageDataset)
        holder.labels = with_noise(holder.labels, len(source.classes), variant.settings["noise"], seed)

    def measure(self, trained: Trained) -> Measured:
        """How much of the gradient gets through the masks, for right and for wrong labels of the first test images."""
        if trained.variant.settings["kind"] == "no masks":
            return Measured({})
        images, labels, *_ = next(iter(trained.source.test))
        right = np.asarray(to_device(labels.data, "cpu"))
        wrong = with_noise(right, len(trained.source.classes), 1.0, trained.job.seed)
        x, model = images.to(trained.job.device), trained.trainer.model
        passed = [float(passed_gradient(model, x, given).mean()) for given in (right, wrong)]
        return Measured(dict(zip(("passed_right", "passed_wrong"), passed, strict=True)))

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """At 50 and at 70 %."""
        return [
            Contrast(
                f"error without masks above that with attention, {ratio:.0%} noise", "error",
                {f"no masks, {ratio:.0%} noise": 1, f"attention, {ratio:.0%} noise": -1},
            )
            for ratio in (0.5, 0.7)
        ]  # fmt: skip

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Error against noise."""
        from minires.viz import experiments as figures

        lines: dict[str, dict[float, list[float]]] = {}
        for v in variants:
            values = [100 * trial.numbers["error"] for trial in results[v.name]]
            lines.setdefault(v.settings["kind"], {})[100 * v.settings["noise"]] = values
        figures.trend({"test error, %": lines}, path, xlabel="wrong training labels, %")


def with_noise(labels: Any, classes: int, ratio: float, seed: int) -> Any:
    """Labels of which a share is wrong: each is kept with probability 1 - ratio, else it is uniform over the others.

    Args:
        labels: (N,) whole numbers below ``classes``.
        classes: how many there are.
        ratio: the probability of a wrong label.
        seed: chooses which, and what they become.
    """
    random = np.random.default_rng([seed, 5])  # 5: Table 5, so that the seeds of other draws give other numbers
    wrong = random.random(len(labels)) < ratio
    shifts = random.integers(1, classes, len(labels))
    return np.where(wrong, (labels + shifts) % classes, labels)


def passed_gradient(model: Any, images: Any, labels: Any) -> Any:
    """‖(1 + M)·g‖ / ‖g‖ for each image, with g = ∂loss/∂H at the output H = (1 + M)·F of a module; the mean over modules.

    It lies between 1 (masks of 0, where they matter) and 2.

    Args:
        model: a network of residual attention.
        images: a Tensor (N, C, H, W).
        labels: (N,) the labels of the loss, on the CPU.

    Returns:
        (N,) on the CPU.
    """
    masks: list[Any] = []
    joined: list[Any] = []
    handles = []
    for module in model.modules():
        if isinstance(module, AttentionModule) and module.mask is not None:
            handles.append(module.mask.register_forward_hook(lambda module, args, output: masks.append(output.data)))
            handles.append(module.last.register_forward_pre_hook(lambda module, args: joined.append(args[0])))
    try:
        with evaluation_mode(model):
            wanted = array_module(images.data).asarray(labels)
            gradients = grad(functional.cross_entropy(model(images), wanted, reduction="sum"), joined)
    finally:
        for handle in handles:
            handle.remove()
    axes = (1, 2, 3)
    shares = [
        (((1 + m) * g.data) ** 2).sum(axis=axes) / (g.data**2).sum(axis=axes).clip(1e-30)
        for m, g in zip(masks, gradients, strict=True)
    ]
    return to_device(sum(share**0.5 for share in shares) / len(shares), "cpu")
