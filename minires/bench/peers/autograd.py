"""Autograd, which differentiates NumPy code: what is no function of NumPy or SciPy is written as its users would."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.bench.peers.base import Array, Lacking, Peer

__all__ = ["Autograd"]


class Autograd(Peer):
    """Convolution without stride or groups, and what is plain arithmetic; no pooling."""

    name = "Autograd"

    def __init__(self) -> None:
        self._make_vjp: Any = importlib.import_module("autograd").make_vjp
        self._np: Any = importlib.import_module("autograd.numpy")
        self._convolve: Any = importlib.import_module("autograd.scipy.signal").convolve
        self._logsumexp: Any = importlib.import_module("autograd.scipy.special").logsumexp

    def leaf(self, array: Array) -> Any:
        """See :class:`Peer`."""
        return array

    def forget(self, leaves: Sequence[Any]) -> None:
        """Arrays have no gradients."""

    def call(self, function: Callable[..., Any], leaves: Sequence[Any]) -> Any:
        """Returns (what makes the backward pass, value)."""
        return self._make_vjp(lambda inputs: function(*inputs))(tuple(leaves))

    def shape(self, output: Any) -> tuple[int, ...]:
        """See :class:`Peer`."""
        return np.shape(output[1])

    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """See :class:`Peer`."""
        return output[0](1.0 if upstream is None else upstream)

    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """See :class:`Peer`."""
        return list(result)

    def numpy(self, value: Any) -> Array:
        """See :class:`Peer`."""
        return np.asarray(value[1])

    def conv2d(self, x: Any, weight: Any, stride: int, padding: int, groups: int) -> Any:
        """See :mod:`minires.bench.peers.base`, also below. Its convolution turns the kernel over, so turn it before."""
        if stride > 1 or groups > 1:
            raise Lacking("Autograd's convolution has neither stride nor groups")
        if padding:
            x = self._np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode="constant")
        return self._convolve(x, weight[:, :, ::-1, ::-1], axes=([2, 3], [2, 3]), dot_axes=([1], [1]), mode="valid")

    def batch_norm_relu(self, x: Any, weight: Any, bias: Any) -> Any:
        """By the formula."""
        anp = self._np
        centred = x - anp.mean(x, (0, 2, 3), keepdims=True)  # (N, C, H, W)
        deviation = anp.sqrt(anp.mean(centred * centred, (0, 2, 3), keepdims=True) + 1e-5)  # (1, C, 1, 1)
        shape = (1, -1, 1, 1)
        return anp.maximum(centred / deviation * weight.reshape(shape) + bias.reshape(shape), 0)

    def cross_entropy(self, x: Any, labels: Any) -> Any:
        """By the formula."""
        return self._np.mean(self._logsumexp(x, axis=1) - x[np.arange(len(labels)), labels])
