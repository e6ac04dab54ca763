"""Figure 1 of the paper shows pictures of masks on objects; here it is measured how often they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minires.device import to_device
from minires.training.attribution import attribute
from minires.training.experiments.experiment import Column, Experiment, Measured, Results, Trained, Variant
from minires.training.experiments.scales import network
from minires.training.experiments.statistics import Contrast
from minires.training.metrics import box_share, energy_in_box, heatmaps, logits_and_maps, pointing_hits
from minires.training.presets import DIGITS

__all__ = ["Localisation", "maps_of"]

KINDS = ("M", "(1 + M)·F", "|F|", "Grad-CAM")
SALIENCY, CHANCE = "input saliency", "chance"
EXAMPLES = 4


class Localisation(Experiment):
    """Pointing game and energy in the box, for masks, attended features, Grad-CAM and saliency."""

    name = "localisation"
    claim = "masks find the object: the strongest point of M, and of (1 + M)·F, is in its box more often than by chance"
    source = "Figure 1"
    columns = (Column("pointing", "pointing game, %", 100, 1), Column("energy", "energy in the box, %", 100, 1))

    def variants(self, scale: str) -> list[Variant]:
        """One network. The boxes of the objects must be known, so it is trained on digits at every scale."""
        if scale in ("micro", "tiny"):
            job = network(scale)
            if scale == "tiny":  # larger canvases, since a box that fills the canvas is no test
                job = DIGITS.with_(epochs=6, test_every=0)
            return [Variant("ARL", job)]
        return [Variant("ARL", DIGITS.with_(test_every=0, epochs=3 * DIGITS.epochs, options={**DIGITS.options, "m": 2}))]

    def measure(self, trained: Trained) -> Measured:
        """Every kind of map on the test images."""
        sums: dict[str, Any] = {}
        examples: dict[str, Any] = {}
        count = 0
        for images, labels, boxes in trained.source.test:
            frames = np.asarray(to_device(boxes.data, "cpu"))
            maps = maps_of(trained.trainer.model, images.to(trained.job.device), labels.data)
            for name, heat in maps.items():
                pair = [pointing_hits(heat, frames).sum(), energy_in_box(abs(heat), frames).sum()]
                sums[name] = sums.get(name, 0) + np.array(pair, float)
            area = float(box_share(frames, (images.shape[2], images.shape[3])).sum())
            sums[CHANCE] = sums.get(CHANCE, 0) + np.array([area, area])
            examples = examples or _examples(np.asarray(images.data), frames, maps)
            count += len(images)
        numbers = {
            f"{kind}: {name}": float(v)
            for name, pair in sums.items()
            for kind, v in zip(_METRICS, pair / count, strict=True)
        }
        return Measured(numbers, {"maps": list(sums), "examples": examples})

    def rows(self, results: Results) -> Results:
        """A row for each kind of map."""
        trials = next(iter(results.values()))
        names = trials[0].extra["maps"]
        return {name: [Measured({m: t.numbers[f"{m}: {name}"] for m in _METRICS}) for t in trials] for name in names}

    def contrasts(self, variants: Sequence[Variant]) -> list[Contrast]:
        """M, and (1 + M)·F, of every module against chance."""
        return [
            Contrast(f"pointing game of {name} above chance", "pointing", {name: 1, CHANCE: -1})
            for name in (f"{kind}, module {i}" for kind in KINDS[:2] for i in (1, 2))
        ]

    def draw(self, results: Results, variants: Sequence[Variant], path: str) -> None:
        """Both measures of each kind of map, and the maps of a few test images."""
        from minires.viz import experiments as figures

        rows = self.rows(results)
        shares = {c.title: {name: [100 * t.numbers[c.metric] for t in rows[name]] for name in rows} for c in self.columns}
        examples = next(iter(results.values()))[0].extra["examples"]
        figures.localisation(shares, examples, path, chance=CHANCE)


_METRICS = ("pointing", "energy")


def maps_of(model: Any, images: Any, labels: Any) -> dict[str, Any]:
    """Every kind of map, (N, H, W) each, of size and place of the images: for each module those of ``KINDS``, then saliency.

    Args:
        model: an attention network.
        images: a Tensor (N, C, H, W).
        labels: (N,) the classes that Grad-CAM and saliency explain.
    """
    size = (int(images.shape[2]), int(images.shape[3]))
    _, modules = logits_and_maps(model, images)
    asked = attribute(model, images, [module.name for module in modules], labels)
    found: dict[str, Any] = {}
    for i, module in enumerate(modules, 1):
        heat = heatmaps(module.trunk, module.mask, size)
        kinds = (
            heat["M"],
            heatmaps(module.attended, None, size)["F"],
            heat["F"],
            heatmaps(asked.cams[module.name][:, None], None, size)["F"],
        )
        found.update({f"{kind}, module {i}": values for kind, values in zip(KINDS, kinds, strict=True)})
    found[SALIENCY] = asked.saliency
    return {name: np.asarray(to_device(values, "cpu")) for name, values in found.items()}


def _examples(images: Any, frames: Any, maps: Mapping[str, Any]) -> dict[str, Any]:
    """The first few images with their boxes and maps, as plain numbers of three digits."""

    def plain(values: Any) -> Any:
        return [np.round(each, 3).tolist() for each in values[:EXAMPLES]]

    shown = {"image": plain(images[:, 0].astype(float)), "box": frames[:EXAMPLES].tolist()}
    return {**shown, "maps": {name: plain(heat.astype(float)) for name, heat in maps.items()}}
