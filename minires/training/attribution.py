"""Where a trained network looks, asked by gradients: Grad-CAM and input saliency, as plain functions on arrays.

An attention module shows its mask; any network can be asked after the fact. Both answers are derivatives of one class's
score, for a layer's features or for the pixels, so both need one backward pass and change nothing in the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from minires.autograd import grad
from minires.device import array_module
from minires.modes import enable_grad
from minires.nn import evaluation_mode
from minires.tensor import Tensor

__all__ = ["Attribution", "attribute"]


class Attribution(NamedTuple):
    """What :func:`attribute` found.

    Attributes:
        cams: layer → Grad-CAM, (N, h, w) in the layer's own resolution, not negative.
        saliency: (N, H, W), not negative.
        classes: (N,) the classes whose scores were explained.
    """

    cams: dict[str, Any]
    saliency: Any
    classes: Any


def attribute(model: Any, images: Any, layers: Sequence[str] = (), classes: Any = None) -> Attribution:
    """Grad-CAM at some layers, and input saliency, from one pass forward and one back.

    With score s of an image's class, Grad-CAM of a layer with features A (N, C, h, w) is ReLU(Σ_c α_c·A_c), α_c being the
    mean of ∂s/∂A_c over places (Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2). Saliency is the greatest |∂s/∂x| over
    the channels of a pixel (Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks", section 3.1).

    Args:
        model: maps images (N, C, H, W) to logits; it runs in evaluation mode, which is undone afterwards.
        images: (N, C, H, W), an array or a Tensor on the model's device.
        layers: paths of modules whose output is (N, C, h, w).
        classes: (N,) the class to explain for each image; None for the one that the network chooses.

    Raises:
        ValueError: no image, or a layer that the model has not, or that its forward pass does not use.
    """
    array = images.data if isinstance(images, Tensor) else images
    if array.ndim != 4 or not len(array):
        raise ValueError(f"attribute: expected images (N, C, H, W) and at least one, got shape {array.shape}")
    x = Tensor(array, requires_grad=True)
    with evaluation_mode(model), enable_grad(), _listening(model, layers) as heard:
        logits = model(x)
        wanted = logits.data.argmax(axis=1) if classes is None else array_module(array).asarray(classes)  # (N,)
        chosen = array_module(array).zeros_like(logits.data)
        chosen[np.arange(len(array)), wanted] = 1
        features = [_heard(heard, layer) for layer in layers]
        *slopes, slope = grad(logits, [*features, x], Tensor(chosen))
    cams = {layer: _cam(a.data, s.data) for layer, a, s in zip(layers, features, slopes, strict=True)}
    return Attribution(cams, abs(slope.data).max(axis=1), wanted)


def _cam(features: Any, slopes: Any) -> Any:
    """(N, C, h, w) both → (N, h, w)."""
    weight = slopes.mean(axis=(2, 3), keepdims=True)  # (N, C, 1, 1)
    return (weight * features).sum(axis=1).clip(0)


def _heard(heard: dict[str, Tensor], layer: str) -> Tensor:
    if layer not in heard:
        raise ValueError(f"attribute: the forward pass does not use layer {layer!r}")
    return heard[layer]


@contextmanager
def _listening(model: Any, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What some layers return, by their paths."""
    known = dict(model.named_modules())
    wrong = [layer for layer in layers if layer not in known]
    if wrong:
        raise ValueError(f"attribute: the model has no layer {wrong[0]!r}")
    heard: dict[str, Tensor] = {}
    handles = []
    for layer in layers:

        def note(module: Any, args: Any, output: Tensor, layer: str = layer) -> None:
            heard[layer] = output

        handles.append(known[layer].register_forward_hook(note))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
