"""Layers that bring their input to mean 0 and variance 1, over one choice of axes or another.

All compute y = (x - mean) / √(var + eps) · weight + bias. Batch norm takes mean and variance over the batch while it
trains and keeps a moving average of both for evaluation; the others take them within each sample, always.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from minires.nn.module import Module, Parameter
from minires.tensor import Tensor

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNormReLU", "GroupNorm", "InstanceNorm2d", "LayerNorm"]


def _affine(module: Module, shape: Any, weight: bool, bias: bool) -> None:
    """Give ``module`` a weight of ones and a bias of zeros, or None for either."""
    module.register_parameter("weight", Parameter(np.ones(shape, np.float32)) if weight else None)
    module.register_parameter("bias", Parameter(np.zeros(shape, np.float32)) if bias else None)


class _RunningNorm(Module):
    """Batch and instance norm: per channel weight and bias, and moving statistics.

    Attributes:
        weight: (num_features,), initially 1, or None.
        bias: (num_features,), initially 0, or None.
        running_mean: (num_features,), a buffer, or None.
        running_var: (num_features,), a buffer, or None.
        num_batches_tracked: how many batches went into them, an int64 buffer, or None.
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    ranks: tuple[int, ...] = ()

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        _affine(self, num_features, affine, affine)
        tracked = (
            (np.zeros(num_features, np.float32), np.ones(num_features, np.float32), np.zeros((), np.int64))
            if track_running_stats
            else (None, None, None)
        )
        for name, array in zip(("running_mean", "running_var", "num_batches_tracked"), tracked, strict=True):
            self.register_buffer(name, None if array is None else Tensor(array))

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batches seen."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.assign(value)

    def _check(self, input: Tensor) -> None:
        if input.ndim not in self.ranks or input.shape[1] != self.num_features:
            axes = {2: "N C", 3: "N C L", 4: "N C H W"}
            rule = f"expected {' or '.join(axes[r] for r in self.ranks)} with C={self.num_features}"
            raise ShapeError(type(self).__name__, rule, input=(input.shape, axes.get(input.ndim, "")))

    def _statistics(self) -> tuple[Any, Any, bool, float]:
        """Running mean and variance to use, whether to take the batch's own, and the weight of the new batch."""
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            with self.num_batches_tracked.memory.announced_change():
                count = self.num_batches_tracked.data
                count += 1  # not data[...] += 1, which on a GPU adds and then copies
            if self.momentum is None:  # the plain average over all batches so far
                momentum = 1.0 / self.num_batches_tracked.item()
        own = self.training or self.running_mean is None
        keep = not self.training or self.track_running_stats
        return (self.running_mean if keep else None), (self.running_var if keep else None), own, momentum

    def extra_repr(self) -> str:
        """The number of features, and the options that differ from their defaults."""
        defaults = inspect.signature(type(self)).parameters
        names = ("eps", "momentum", "affine", "track_running_stats")
        options = [f"{n}={getattr(self, n)}" for n in names if getattr(self, n) != defaults[n].default]
        return ", ".join([str(self.num_features), *options])


class _BatchNorm(_RunningNorm):
    """Mean and variance of each channel over all samples and positions (Ioffe and Szegedy 2015)."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns the shape of ``input``; in training mode the moving statistics take in this batch."""
        self._check(input)
        mean, var, own, momentum = self._statistics()
        return F.batch_norm(input, mean, var, self.weight, self.bias, own, momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    """Batch norm of (N, C) or (N, C, L).

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: moving = (1 - momentum)·moving + momentum·batch; None for the plain average of all batches.
        affine: learn weight and bias.
        track_running_stats: keep moving statistics; otherwise the batch's own are used in evaluation as well.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of (N, C, H, W); arguments as for :class:`BatchNorm1d`."""

    ranks = (4,)


class BatchNormReLU(BatchNorm2d):
    """max(0, batch norm) in one op, which reads and writes the image once instead of twice.

    It has the parameters, names and arguments of :class:`BatchNorm2d`; every normalisation of the paper is followed by a
    ReLU.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape, ≥ 0."""
        self._check(input)
        mean, var, own, momentum = self._statistics()
        return F.batch_norm_relu(input, mean, var, self.weight, self.bias, own, momentum, self.eps)


class InstanceNorm2d(_RunningNorm):
    """Mean and variance of each channel of each sample over its positions (Ulyanov et al. 2016).

    Arguments as for :class:`BatchNorm1d`, but by default without affine parameters and moving statistics.
    """

    ranks = (4,)

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        self._check(input)
        mean, var, own, momentum = self._statistics()
        return F.instance_norm(input, mean, var, self.weight, self.bias, own, momentum, self.eps)


class LayerNorm(Module):
    """Mean and variance over the last axes of each sample (Ba, Kiros and Hinton 2016).

    Args:
        normalized_shape: sizes of the last axes, over which to normalise (one number: the last axis).
        eps: added to the variance.
        elementwise_affine: learn a weight (and a bias) of that shape.
        bias: learn a bias.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: int | tuple[int, ...] | list[int], eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        _affine(self, self.normalized_shape, elementwise_affine, elementwise_affine and bias)

    def forward(self, input: Tensor) -> Tensor:
        """(..., *normalized_shape) → the same shape."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Mean and variance of each group of channels of each sample (Wu and He 2018).

    Args:
        num_groups: number of groups.
        num_channels: number of channels, a multiple of ``num_groups``.
        eps: added to the variance.
        affine: learn weight and bias per channel.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels must be a multiple of num_groups, got num_channels={num_channels}, "
                f"num_groups={num_groups}"
            )
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        _affine(self, num_channels, affine, affine)

    def forward(self, input: Tensor) -> Tensor:
        """(N, num_channels, ...) → the same shape."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
