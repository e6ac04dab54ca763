"""Chainer, the last release of which is older than NumPy 1.24: names that NumPy has dropped since are given back to it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.bench.peers.base import Array, Peer

__all__ = ["Chainer"]

#: All that Chainer 7.8 needs of an older NumPy where these ops are concerned.
_DROPPED: dict[str, Any] = {
    "sctypes": {"int": [np.int8, np.int16, np.int32, np.int64], "float": [np.float16, np.float32, np.float64]},
    "float": float,
    "int": int,
}


class Chainer(Peer):
    """Its NumPy half; neither ChainerX nor iDeep are used.

    Its Nesterov momentum is not compared: it computes something else, a mix of the velocities before and after the update.
    """

    name = "Chainer"

    def __init__(self) -> None:
        for name, value in _DROPPED.items():
            if name not in vars(np):
                setattr(np, name, value)
        self._chainer: Any = importlib.import_module("chainer")
        self._F: Any = importlib.import_module("chainer.functions")

    def leaf(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return self._chainer.Variable(array)

    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """See :class:`Peer`."""
        if upstream is not None:
            output.grad = upstream
        output.backward()

    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """See :class:`Peer`."""
        return [leaf.grad for leaf in leaves]

    def numpy(self, value: Any) -> Array:
        """See :class:`Peer`."""
        return np.asarray(value.data)

    def conv2d(self, x: Any, weight: Any, stride: int, padding: int, groups: int) -> Any:
        """See :mod:`minires.bench.peers.base`, also below."""
        return self._F.convolution_2d(x, weight, None, stride, padding, groups=groups)

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        """From (N, C, H, W), (C, O, kH, kW)."""
        return self._F.deconvolution_2d(x, weight, None, stride, padding)

    def batch_norm_relu(self, x: Any, weight: Any, bias: Any) -> Any:
        """Two ops."""
        return self._F.relu(self._F.batch_normalization(x, weight, bias, eps=1e-5))

    def max_pool2d(self, x: Any, size: int, stride: int) -> Any:
        """Covers everything, as ceil_mode does."""
        return self._F.max_pooling_2d(x, size, stride)

    def avg_pool2d(self, x: Any, size: int) -> Any:
        """Windows side by side."""
        return self._F.average_pooling_2d(x, size)

    def interpolate(self, x: Any, size: int) -> Any:
        """Bilinear; corners are aligned."""
        return self._F.resize_images(x, (size, size))

    def cross_entropy(self, x: Any, labels: Any) -> Any:
        """Mean over the samples."""
        return self._F.softmax_cross_entropy(x, labels.astype(np.int32))
