"""minires itself, which all others are compared to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import minires as mr
from minires import functional as F
from minires import optim
from minires.bench.peers.base import Array, Peer
from minires.tensor import Tensor

__all__ = ["Ours"]


class Ours(Peer):
    """Activations lie channels-last in memory, as its layers leave them; weights as they are in its layers."""

    name = "minires"

    def leaf(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return Tensor(_channels_last(array), requires_grad=True)

    def constant(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return Tensor(_channels_last(array))

    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """See :class:`Peer`."""
        output.backward(upstream)

    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """See :class:`Peer`."""
        return [leaf.grad.numpy() for leaf in leaves]

    def numpy(self, value: Any) -> Array:
        """See :class:`Peer`."""
        return np.asarray(value.numpy())

    def conv2d(self, x: Any, weight: Any, stride: int, padding: int, groups: int) -> Any:
        """See :mod:`minires.bench.peers.base`, also below."""
        return F.conv2d(x, weight, None, stride, padding, 1, groups)

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        """From (N, C, H, W), (C, O, kH, kW)."""
        return F.conv_transpose2d(x, weight, None, stride, padding)

    def batch_norm_relu(self, x: Any, weight: Any, bias: Any) -> Any:
        """One fused op."""
        return F.batch_norm_relu(x, None, None, weight, bias, training=True)

    def max_pool2d(self, x: Any, size: int, stride: int) -> Any:
        """With ceil_mode, as in the network."""
        return F.max_pool2d(x, size, stride, ceil_mode=True)

    def avg_pool2d(self, x: Any, size: int) -> Any:
        """Windows side by side."""
        return F.avg_pool2d(x, size)

    def interpolate(self, x: Any, size: int) -> Any:
        """Bilinear."""
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=True)

    def cross_entropy(self, x: Any, labels: Any) -> Any:
        """Mean over the samples."""
        return F.cross_entropy(x, labels)

    def sgd(self, weights: list[Array], gradients: list[Array], **options: float) -> Any:
        """All weights lie in one flat buffer."""
        tensors = [mr.nn.Parameter(mr.from_numpy(weight)) for weight in weights]
        optimizer = optim.SGD(tensors, nesterov=True, **options)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = mr.from_numpy(gradient)
        return optimizer.step, lambda: [tensor.numpy() for tensor in tensors]


def _channels_last(array: Array) -> Array:
    """The memory of an activation; a kernel's (its height is small) stays."""
    if array.ndim != 4 or array.shape[2] < 8:
        return array
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # memory (N, H, W, C)
