"""A network as an ONNX file: one forward pass is traced, and every op that it calls becomes one or a few of ONNX's."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.device import to_device
from minires.export.builder import Builder
from minires.export.ops import EMITTERS
from minires.export.protobuf import Graph, model_bytes
from minires.export.trace import Trace, trace
from minires.export.translator import translator_graph
from minires.io import write_atomically
from minires.models import Translator
from minires.nn import Module
from minires.tensor import Tensor

__all__ = ["graph_of", "to_onnx"]

INPUT, OUTPUT = "input", "output"


def to_onnx(model: Module, path: str | os.PathLike[str], shape: Sequence[int] | None = None, resize: bool = False) -> Graph:
    """Write a network to an ONNX file (opset 18), as it is in evaluation mode. No package is needed for that.

    The input is called ``input``, the output ``output``; both begin with a batch axis of any length. Height and width of the
    images are fixed. Weights keep their names.

    Args:
        model: the network; its input is one Tensor of its weights' dtype, and so is its output.
        path: the file.
        shape: of one image, (C, H, W), without the batch. None for a :class:`minires.models.Translator`, whose file has two
            inputs instead, ``source`` and ``target``, numbers of words of any length (int64), as its forward pass has.
        resize: write bilinear resizing as ONNX's Resize op. By default it is two products with constant matrices, as minires
            itself computes it: Resize is less exact (its coordinates are float32), which deep networks amplify.

    Returns:
        What was written.

    Raises:
        ValueError: an op has no counterpart in ONNX, something depends on the image without an op, or the network is too
            large for the format (2 GiB).
    """
    from minires import __version__

    if isinstance(model, Translator):
        graph = translator_graph(model)
    elif shape is None:
        raise ValueError(f"to_onnx: expected the shape (C, H, W) of an image for {type(model).__name__}, got None")
    else:
        graph = graph_of(model, shape, resize)
    config = getattr(model, "config", None)
    metadata = {"minires.model": json.dumps(config)} if config is not None else None
    write_atomically(path, model_bytes(graph, __version__, metadata))
    return graph


def graph_of(model: Module, shape: Sequence[int], resize: bool = False) -> Graph:
    """The graph that :func:`to_onnx` writes of a network for images."""
    first, second = (_traced(model, (batch, *shape), seed=batch) for batch in (2, 3))
    return Builder(model, first, second, resize).build(EMITTERS, [INPUT], OUTPUT)


def _traced(model: Module, shape: Sequence[int], seed: int) -> Trace:
    like: Any = next(iter(model.parameters()), None)
    dtype, device = (np.dtype(np.float32), "cpu") if like is None else (like.dtype, like.device)
    images = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return trace(model, (Tensor(to_device(images, device)),), EMITTERS.__contains__)
