"""tinygrad, which compiles its kernels when they are first run: on the CPU it needs clang.

It computes when it is asked to, and so it is: at the end of the forward pass and of the backward pass, each captured by its
TinyJit, which is how its documentation says that repeated work is run.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.bench.cases import Case
from minires.bench.peers.base import Array, OpWork, Peer, Work

__all__ = ["Tinygrad"]

_CAPTURED = 3  # calls until TinyJit has captured a function


class Tinygrad(Peer):
    """On its CPU device."""

    name = "tinygrad"
    note = "forward and backward captured by TinyJit; backward computes again what it needs of the forward pass"

    def __init__(self) -> None:
        os.environ.setdefault("DEV", "CPU")
        self._tinygrad: Any = importlib.import_module("tinygrad")
        self._optim: Any = importlib.import_module("tinygrad.nn.optim")
        self.constant(np.zeros(2, np.float32)).sum().item()  # says now if there is no compiler

    def work(self, case: Case) -> Work:
        """See :class:`Peer`."""
        found = super().work(case)
        return _Captured(self, found) if isinstance(found, OpWork) else found

    def jit(self, function: Callable[[], Any]) -> Any:
        """Capture a function."""
        captured = self._tinygrad.TinyJit(function)
        for _ in range(_CAPTURED):
            captured()
        return captured

    def leaf(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return self.constant(array)

    def constant(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return self._tinygrad.Tensor(array).realize()

    def wait(self) -> None:
        """See :class:`Peer`."""
        device = self._tinygrad.Device
        device[device.DEFAULT].synchronize()

    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """See :class:`Peer`."""
        found = output.gradient(*leaves, gradient=upstream)
        self._tinygrad.Tensor.realize(*found)
        return found

    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """See :class:`Peer`."""
        return [self.numpy(each) for each in result]

    def numpy(self, value: Any) -> Array:
        """See :class:`Peer`."""
        return np.asarray(value.numpy())

    def conv2d(self, x: Any, weight: Any, stride: int, padding: int, groups: int) -> Any:
        """See :mod:`minires.bench.peers.base`, also below."""
        return x.conv2d(weight, groups=groups, stride=stride, padding=padding)

    def conv_transpose2d(self, x: Any, weight: Any, stride: int, padding: int) -> Any:
        """From (N, C, H, W), (C, O, kH, kW)."""
        return x.conv_transpose2d(weight, stride=stride, padding=padding)

    def batch_norm_relu(self, x: Any, weight: Any, bias: Any) -> Any:
        """As its BatchNorm does it in training."""
        mean = x.mean((0, 2, 3))
        variance = (x - mean.detach().reshape(1, -1, 1, 1)).square().mean((0, 2, 3))
        return x.batchnorm(weight, bias, mean, (variance + 1e-5).rsqrt()).relu()

    def max_pool2d(self, x: Any, size: int, stride: int) -> Any:
        """With ceil_mode."""
        return x.max_pool2d((size, size), stride, ceil_mode=True)

    def avg_pool2d(self, x: Any, size: int) -> Any:
        """Windows side by side."""
        return x.avg_pool2d((size, size))

    def interpolate(self, x: Any, size: int) -> Any:
        """Bilinear."""
        return x.interpolate((size, size), mode="linear", align_corners=True)

    def cross_entropy(self, x: Any, labels: Any) -> Any:
        """Mean over the samples."""
        return x.sparse_categorical_crossentropy(labels)

    def sgd(self, weights: list[Array], gradients: list[Array], **options: float) -> Any:
        """Captured as well."""
        tensors = [self.leaf(weight) for weight in weights]
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = self.constant(gradient)
        optimizer = self._optim.SGD(tensors, nesterov=True, **options)

        def step() -> None:
            with self._tinygrad.Context(TRAINING=1):
                optimizer.step()

        return self._tinygrad.TinyJit(step), lambda: [self.numpy(tensor) for tensor in tensors]


class _Captured(Work):
    """An op whose two passes were captured."""

    def __init__(self, peer: Tinygrad, plain: OpWork) -> None:
        self._peer = peer
        self._forward = peer.jit(lambda: plain.compute().realize())
        self._backward = peer.jit(lambda: plain.differentiate(plain.compute()))
        self._found: list[Any] = [None, None]

    def reset(self) -> None:
        """The captured passes write to the same memory each time."""

    def forward(self) -> None:
        """See :class:`Work`."""
        self._found[0] = self._forward()
        self._peer.wait()

    def backward(self) -> None:
        """See :class:`Work`."""
        self._found[1] = self._backward()
        self._peer.wait()

    def results(self) -> list[Array]:
        """See :class:`Work`."""
        return [self._peer.numpy(self._found[0]), *self._peer.gradients(self._found[1], ())]
