"""What is measured: how often the network is right, and how well its attention finds the object.

"The mask looks at the object" is easily said over a picture. Here it is measured, on images whose object has a known
box, against what blind chance would reach. The measured map is |M·F|, the attention-weighted features averaged over
channels. M alone is reported beside it: the sign of a gate is free, so a mask may just as well mark the background (and
leave it to the next layers to subtract). |F| alone is the control that shows what the mask adds to its trunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from minires import functional
from minires.device import array_module, to_device
from minires.modes import no_grad
from minires.operators import raw
from minires.precision import is_half
from minires.tensor import Tensor

__all__ = [
    "Evaluation", "Localisation", "accuracy", "box_share", "energy_in_box", "evaluate", "heatmaps", "logits_and_maps",
    "pointing_hits",
]  # fmt: skip

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Boxes = np.ndarray[Any, np.dtype[np.integer[Any]]]


def accuracy(logits: Any, labels: Any) -> float:
    """Share of rows of ``logits`` (N, classes) whose largest number is at ``labels`` (N,)."""
    scores, wanted = _array(logits), _array(labels)
    return float((scores.argmax(axis=1) == wanted).mean())


def heatmaps(trunk: Any, mask: Any, size: tuple[int, int]) -> dict[str, Floats]:
    """The maps of one attention module, averaged over channels and enlarged bilinearly to the image, corners on corners.

    A convolution of stride 2 with padding 1 puts cell i of its output over pixel 2i of its input. So on images of
    stride·n + 1 pixels a side (29 → 15 → 8) the first and last cells lie over the first and last pixels, and nothing is
    displaced.

    Args:
        trunk: F, (N, C, h, w).
        mask: M, (N, C, h, w) or broadcasting to it; None for a network without masks.
        size: height and width of the image.

    Returns:
        ``"MF"``: mean |M·F|, ``"M"``: mean M, ``"F"``: mean |F|; each (N, H, W), on the device of the trunk. Without a mask
        only ``"F"``.
    """
    features = _wide(trunk)
    maps = {"F": abs(features).mean(axis=1)}  # (N, h, w)
    if mask is not None:
        gate = _wide(mask)
        maps = {"MF": abs(gate * features).mean(axis=1), "M": gate.mean(axis=1), **maps}
    return {name: _enlarge(values, size) for name, values in maps.items()}


def pointing_hits(maps: Floats, boxes: Boxes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The pointing game: whether the strongest point of each map lies inside its box.

    Zhang et al. 2018, "Top-down neural attention by excitation backprop", without their margin of 15 pixels.

    Args:
        maps: (N, H, W).
        boxes: (N, 4) whole numbers y0, x0, y1, x1, half-open.

    Returns:
        (N,) booleans. A blind guess hits with the box's share of the area, see :func:`box_share`.
    """
    strongest = maps.reshape(len(maps), -1).argmax(axis=1)  # (N,)
    rows, columns = strongest // maps.shape[2], strongest % maps.shape[2]
    y0, x0, y1, x1 = boxes.T
    inside: np.ndarray[Any, np.dtype[np.bool_]] = (y0 <= rows) & (rows < y1) & (x0 <= columns) & (columns < x1)
    return inside


def energy_in_box(maps: Floats, boxes: Boxes) -> Floats:
    """The share of each map's sum that lies inside its box, (N,).

    An even map has the box's share of the area. ``maps`` (N, H, W) must not be negative; ``boxes`` as above, on the same
    device.
    """
    xp = array_module(maps)
    y0, x0, y1, x1 = (edge[:, None] for edge in boxes.T)
    rows, columns = xp.arange(maps.shape[1]), xp.arange(maps.shape[2])
    inside = ((y0 <= rows) & (rows < y1))[:, :, None] & ((x0 <= columns) & (columns < x1))[:, None, :]  # (N, H, W)
    total = maps.sum(axis=(1, 2))
    shares: Floats = (maps * inside).sum(axis=(1, 2)) / xp.where(total > 0, total, 1)
    return shares


def box_share(boxes: Boxes, size: tuple[int, int]) -> Floats:
    """The share of an image of ``size`` (height, width) that each box covers, (N,): the level of chance."""
    y0, x0, y1, x1 = boxes.T
    shares: Floats = (y1 - y0) * (x1 - x0) / (size[0] * size[1])
    return shares


@dataclass
class Localisation:
    """How well one attention module finds the object, as means over a test set (all in [0, 1]).

    Attributes:
        module: its name.
        pointing: map name ("MF", "M", "F") → share of images on which the strongest point lies in the box.
        energy: map name → share of the map's sum inside the box.
    """

    module: str
    pointing: dict[str, float] = field(default_factory=dict)
    energy: dict[str, float] = field(default_factory=dict)


@dataclass
class Evaluation:
    """A network on a test set.

    Attributes:
        samples: number of images.
        loss: mean loss.
        accuracy: share of right answers.
        modules: how well each attention module finds the object; empty where no boxes are known.
        area: the boxes' mean share of the image: the chance level of both measures of localisation.
    """

    samples: int
    loss: float
    accuracy: float
    modules: list[Localisation] = field(default_factory=list)
    area: float | None = None


def evaluate(model: Any, batches: Iterable[Any], loss: Any, localise: bool = False, device: str = "cpu") -> Evaluation:
    """Run a network over a test set, in evaluation mode and without recording anything.

    Args:
        model: maps images (N, C, H, W) to logits; for ``localise`` it has ``masks(images)``.
        batches: tuples of images, labels and, for ``localise``, boxes (N, 4).
        loss: ``loss(logits, labels)``, the mean over a batch.
        localise: measure the attention modules as well.
        device: where the network lives.
    """
    count, area = 0, 0.0
    total_loss: Any = 0.0  # from here on these and ``sums`` are numbers on the device: reading one would wait for it
    right: Any = 0
    sums: dict[str, dict[str, Any]] = {}
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            for images, labels, *rest in batches:
                images, labels = images.to(device), labels.to(device)
                logits, maps = logits_and_maps(model, images) if localise else (model(images), [])
                n = len(labels)
                total_loss = total_loss + loss(logits, labels).data.astype(np.float64) * n
                right = right + (_wide(logits).argmax(axis=1) == labels.data).sum()
                count += n
                if localise:
                    boxes = _array(rest[0])
                    area += float(box_share(boxes, images.shape[2:]).sum())
                    _add_localisation(sums, maps, to_device(boxes, device), images.shape[2:])
    finally:
        model.train(was_training)
    if not count:
        raise ValueError("evaluate: there are no test images")
    modules = [_means(name, values, count) for name, values in sums.items()]
    return Evaluation(count, float(total_loss) / count, int(right) / count, modules, area / count if localise else None)


def logits_and_maps(model: Any, images: Tensor) -> tuple[Any, list[Any]]:
    """Logits and the maps of every attention module, from one pass."""
    caught: list[Any] = []
    handle = model.register_forward_hook(lambda module, inputs, output: caught.append(output))
    try:
        maps = list(model.masks(images))
    finally:
        handle.remove()
    return caught[-1], maps


def _add_localisation(sums: dict[str, Any], maps: list[Any], boxes: Boxes, size: tuple[int, int]) -> None:
    for module in maps:
        entry = sums.setdefault(module.name, {})
        for name, heat in heatmaps(module.trunk, module.mask, size).items():
            # A mask normalised over channels (f2) can be negative; its energy is that of its magnitude.
            pair = (pointing_hits(heat, boxes).sum(), energy_in_box(abs(heat), boxes).sum())
            both = array_module(heat).stack([share.astype(np.float64) for share in pair])  # (2,)
            entry[name] = entry.get(name, 0) + both


def _means(module: str, sums: dict[str, Any], count: int) -> Localisation:
    pairs = {name: _array(pair) for name, pair in sums.items()}
    return Localisation(
        module,
        {name: float(pair[0] / count) for name, pair in pairs.items()},
        {name: float(pair[1] / count) for name, pair in pairs.items()},
    )


def _enlarge(maps: Floats, size: tuple[int, int]) -> Floats:
    wide: Any = functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=True)  # (N, 1, H, W)
    return cast(Floats, wide[:, 0])


def _wide(value: Any) -> Any:
    """The array of a Tensor, in float32 if it has 16 bits, since it will be summed up."""
    array = raw(value)
    return array.astype(np.float32) if is_half(array) else array


def _array(value: Any) -> Any:
    return to_device(raw(value), "cpu")
