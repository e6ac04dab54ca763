"""DeZero, from its repository (``--peer-path dezero=DIR``)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.bench.peers.base import Array, Lacking, Peer

__all__ = ["DeZero"]


class DeZero(Peer):
    """It has neither groups, nor a resize, nor Nesterov momentum."""

    name = "DeZero"

    def __init__(self) -> None:
        self._dezero: Any = importlib.import_module("dezero")
        self._F: Any = importlib.import_module("dezero.functions")

    def leaf(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return self._dezero.Variable(array)

    def forget(self, leaves: Sequence[Any]) -> None:
        """See :class:`Peer`."""
        for leaf in leaves:
            leaf.cleargrad()

    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """See :class:`Peer`."""
        if upstream is not None:
            output.grad = self._dezero.Variable(upstream)
        output.backward()

    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """See :class:`Peer`."""
        return [leaf.grad.data for leaf in leaves]

    def numpy(self, value: Any) -> Array:
        """See :class:`Peer`."""
        return np.asarray(value.data)

    def conv2d(self, x: Any, weight: Any, stride: int, padding: int, groups: int) -> Any:
        """See :mod:`minires.bench.peers.base`, also below."""
        if groups > 1:
            raise Lacking("DeZero has no groups")
        return self._F.conv2d(x, weight, None, stride, padding)

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        """From (N, C, H, W), (C, O, kH, kW)."""
        return self._F.deconv2d(x, weight, None, stride, padding)

    def batch_norm_relu(self, x: Any, weight: Any, bias: Any) -> Any:
        """Two ops; the running statistics are an argument that cannot be left out."""
        zeros = np.zeros(weight.shape, np.float32)
        return self._F.relu(self._F.batch_nrom(x, weight, bias, zeros, zeros.copy(), eps=1e-5))

    def max_pool2d(self, x: Any, size: int, stride: int) -> Any:
        """Whole windows only."""
        if (x.shape[2] - size) % stride:
            raise Lacking("DeZero pools whole windows only")
        return self._F.pooling(x, size, stride)

    def avg_pool2d(self, x: Any, size: int) -> Any:
        """Windows side by side."""
        return self._F.average_pooling(x, size, size)

    def cross_entropy(self, x: Any, labels: Any) -> Any:
        """Mean over the samples."""
        return self._F.softmax_cross_entropy(x, labels)
