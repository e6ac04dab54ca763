"""PyTorch, eager, in its default layout and with channels_last memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from minires.bench.peers.base import Array, Peer

__all__ = ["PyTorch", "PyTorchChannelsLast"]


class PyTorch(Peer):
    """Everything lies in memory as (N, C, H, W)."""

    name = "PyTorch"
    form: Any = torch.contiguous_format

    def leaf(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return self.constant(array).requires_grad_()

    def constant(self, array: Array) -> Any:
        """See :class:`Peer`."""
        tensor = torch.from_numpy(array.copy())
        return tensor.contiguous(memory_format=self.form) if tensor.ndim == 4 else tensor

    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """See :class:`Peer`."""
        output.backward(upstream)

    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """See :class:`Peer`."""
        return [self.numpy(leaf.grad) for leaf in leaves]

    def numpy(self, value: Any) -> Array:
        """See :class:`Peer`."""
        found: Array = value.detach().numpy()
        return found

    def conv2d(self, x: Any, weight: Any, stride: int, padding: int, groups: int) -> Any:
        """See :mod:`minires.bench.peers.base`, also below."""
        return F.conv2d(x, weight, None, stride, padding, 1, groups)

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        """From (N, C, H, W), (C, O, kH, kW)."""
        return F.conv_transpose2d(x, weight, None, stride, padding)

    def batch_norm_relu(self, x: Any, weight: Any, bias: Any) -> Any:
        """Two ops."""
        return F.relu(F.batch_norm(x, None, None, weight, bias, training=True))

    def max_pool2d(self, x: Any, size: int, stride: int) -> Any:
        """With ceil_mode."""
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
        """The foreach form, the faster one."""
        tensors = [self.leaf(weight) for weight in weights]
        optimizer = torch.optim.SGD(tensors, nesterov=True, foreach=True, **options)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = self.constant(gradient)
        return optimizer.step, lambda: [self.numpy(tensor) for tensor in tensors]


class PyTorchChannelsLast(PyTorch):
    """Everything lies in memory as (N, H, W, C), weights as well."""

    name = "PyTorch, channels_last"
    form = torch.channels_last
