"""MyGrad."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.bench.peers.base import Array, Lacking, Peer

__all__ = ["MyGrad"]


class MyGrad(Peer):
    """It has convolution, max pooling, batch norm and the loss; no groups, no transposed convolution, no optimiser."""

    name = "MyGrad"

    def __init__(self) -> None:
        self._mygrad: Any = importlib.import_module("mygrad")
        self._nnet: Any = importlib.import_module("mygrad.nnet")

    def leaf(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return self._mygrad.tensor(array)

    def forget(self, leaves: Sequence[Any]) -> None:
        """See :class:`Peer`."""
        for leaf in leaves:
            leaf.null_grad()

    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """See :class:`Peer`."""
        output.backward(upstream)

    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """See :class:`Peer`."""
        return [leaf.grad for leaf in leaves]

    def numpy(self, value: Any) -> Array:
        """See :class:`Peer`."""
        return np.asarray(value.data)

    def conv2d(self, x: Any, weight: Any, stride: int, padding: int, groups: int) -> Any:
        """See :mod:`minires.bench.peers.base`, also below."""
        if groups > 1:
            raise Lacking("MyGrad has no groups")
        if any((length + 2 * padding - weight.shape[2]) % stride for length in x.shape[2:]):
            raise Lacking("MyGrad wants windows that fill the image")
        return self._nnet.conv_nd(x, weight, stride=stride, padding=padding)

    def batch_norm_relu(self, x: Any, weight: Any, bias: Any) -> Any:
        """Two ops."""
        return self._nnet.relu(self._nnet.batchnorm(x, gamma=weight, beta=bias, eps=1e-5))

    def max_pool2d(self, x: Any, size: int, stride: int) -> Any:
        """Windows that fill the image only."""
        if (x.shape[2] - size) % stride:
            raise Lacking("MyGrad wants windows that fill the image")
        return self._nnet.max_pool(x, (size, size), stride)

    def cross_entropy(self, x: Any, labels: Any) -> Any:
        """Mean over the samples."""
        return self._nnet.softmax_crossentropy(x, labels)
