"""Planted mistakes in normalisation layers, in softmax, and in reductions and broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.planted.case import Planted
from minires.checking.planted.draw import normal, positive

__all__ = ["CASES"]

_EPSILON = 1e-5


# Normalisation --------------------------------------------------------------------------------------------------------


def _standardised(x: Any, axes: Any, unbiased: bool = False) -> Any:
    """The standardised x, and the standard deviation."""
    centred = x - x.mean(axis=axes, keepdims=True)
    deviation = np.sqrt(x.var(axis=axes, ddof=int(unbiased), keepdims=True) + _EPSILON)
    return centred / deviation, deviation


def _through_statistics(
    x: Any, dx_hat: Any, axes: Any, mean: bool = True, variance: bool = True, others: Any = None, unbiased: bool = False
) -> Any:
    """From the gradient of the standardised x to that of x; the switches make the mistakes."""
    x_hat, deviation = _standardised(x, axes if others is None else others, unbiased)
    dx = dx_hat
    if mean:
        dx = dx - dx_hat.mean(axis=axes, keepdims=True)
    if variance:
        dx = dx - x_hat * (dx_hat * x_hat).mean(axis=axes, keepdims=True)
    return dx / deviation


def batch_norm(inputs: Any) -> Any:
    """Each channel of (N, C) standardised over the batch, scaled and moved."""
    x, gamma, beta = inputs
    mean = x.mean(axis=0)
    variance = ((x - mean) ** 2).mean(axis=0)
    return gamma * (x - mean) / np.sqrt(variance + _EPSILON) + beta


def _batch_norm(inputs: Any, grad_output: Any, **switches: bool) -> Any:
    x, gamma, _ = inputs
    x_hat, _ = _standardised(x, 0)
    dx = _through_statistics(x, gamma * grad_output, 0, **switches)
    return dx, (grad_output * x_hat).sum(axis=0), grad_output.sum(axis=0)


def batch_norm_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of batch_norm."""
    return _batch_norm(inputs, grad_output)


def _batch_norm_constants(inputs: Any, grad_output: Any) -> Any:
    return _batch_norm(inputs, grad_output, mean=False, variance=False)


def _batch_norm_no_mean(inputs: Any, grad_output: Any) -> Any:
    return _batch_norm(inputs, grad_output, mean=False)


def _batch_norm_no_variance_dgamma_mean(inputs: Any, grad_output: Any) -> Any:
    dx, dgamma, dbeta = _batch_norm(inputs, grad_output, variance=False)
    return dx, dgamma / len(grad_output), dbeta


def _batch_norm_unbiased(inputs: Any, grad_output: Any) -> Any:
    return _batch_norm(inputs, grad_output, unbiased=True)


def layer_norm(inputs: Any) -> Any:
    """Each row of (N, C) standardised, scaled and moved."""
    x, gamma, beta = inputs
    return gamma * _standardised(x, 1)[0] + beta


def _layer_norm(inputs: Any, grad_output: Any, **switches: Any) -> Any:
    x, gamma, _ = inputs
    dx = _through_statistics(x, gamma * grad_output, 1, **switches)
    return dx, (grad_output * _standardised(x, 1)[0]).sum(axis=0), grad_output.sum(axis=0)


def layer_norm_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of layer_norm."""
    return _layer_norm(inputs, grad_output)


def _layer_norm_constants(inputs: Any, grad_output: Any) -> Any:
    return _layer_norm(inputs, grad_output, mean=False, variance=False)


def _layer_norm_no_mean_halved(inputs: Any, grad_output: Any) -> Any:
    dx, dgamma, dbeta = _layer_norm(inputs, grad_output, mean=False)
    return dx / 2, dgamma, dbeta


def _layer_norm_batch_statistics(inputs: Any, grad_output: Any) -> Any:
    return _layer_norm(inputs, grad_output, others=0)


def instance_norm(inputs: Any) -> Any:
    """Each channel of each image of (N, C, H, W) standardised, and scaled by gamma."""
    x, gamma = inputs
    mean, variance = x.mean(axis=(2, 3), keepdims=True), x.var(axis=(2, 3), keepdims=True)
    return gamma[:, None, None] * (x - mean) / np.sqrt(variance + _EPSILON)


def _instance_norm(inputs: Any, grad_output: Any, **switches: Any) -> Any:
    x, gamma = inputs
    dx = _through_statistics(x, gamma[:, None, None] * grad_output, (2, 3), **switches)
    return dx, (grad_output * _standardised(x, (2, 3))[0]).sum(axis=(0, 2, 3))


def instance_norm_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of instance_norm."""
    return _instance_norm(inputs, grad_output)


def _instance_norm_constants(inputs: Any, grad_output: Any) -> Any:
    return _instance_norm(inputs, grad_output, mean=False, variance=False)


def _instance_norm_no_variance(inputs: Any, grad_output: Any) -> Any:
    return _instance_norm(inputs, grad_output, variance=False)


def _instance_norm_batch_statistics(inputs: Any, grad_output: Any) -> Any:
    return _instance_norm(inputs, grad_output, others=(0, 2, 3))


def group_norm(inputs: Any, groups: int = 2) -> Any:
    """The channels of (N, C, L) standardised in groups, scaled and moved."""
    x, gamma, beta = inputs
    grouped = x.reshape(len(x), groups, -1)
    return gamma[:, None] * _standardised(grouped, 2)[0].reshape(x.shape) + beta[:, None]


def _group_norm(inputs: Any, grad_output: Any, groups: int = 2, **switches: Any) -> Any:
    x, gamma, _ = inputs
    grouped = x.reshape(len(x), groups, -1)
    dx = _through_statistics(grouped, (gamma[:, None] * grad_output).reshape(grouped.shape), 2, **switches)
    x_hat = _standardised(grouped, 2)[0].reshape(x.shape)
    return dx.reshape(x.shape), (grad_output * x_hat).sum(axis=(0, 2)), grad_output.sum(axis=(0, 2))


def group_norm_backward(inputs: Any, grad_output: Any, groups: int = 2) -> Any:
    """Gradients of group_norm."""
    return _group_norm(inputs, grad_output, groups)


def _group_norm_no_mean(inputs: Any, grad_output: Any, groups: int = 2) -> Any:
    return _group_norm(inputs, grad_output, groups, mean=False)


def _group_norm_no_variance(inputs: Any, grad_output: Any, groups: int = 2) -> Any:
    return _group_norm(inputs, grad_output, groups, variance=False)


def _group_norm_swapped(inputs: Any, grad_output: Any, groups: int = 2) -> Any:
    dx, dgamma, dbeta = _group_norm(inputs, grad_output, groups)
    return dx, dbeta, dgamma


def residual_norm(inputs: Any) -> Any:
    """The input plus its standardised rows."""
    (x,) = inputs
    return x + _standardised(x, 1)[0]


def residual_norm_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of residual_norm."""
    (x,) = inputs
    return (grad_output + _through_statistics(x, grad_output, 1),)


def _residual_norm_branch_lost(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (_through_statistics(x, grad_output, 1),)


def unit_rows(inputs: Any) -> Any:
    """Each row divided by its length."""
    (x,) = inputs
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def unit_rows_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of unit_rows: what points along the row is taken out."""
    (x,) = inputs
    length = np.sqrt((x * x).sum(axis=1, keepdims=True))
    y = x / length
    return ((grad_output - y * (grad_output * y).sum(axis=1, keepdims=True)) / length,)


def _unit_rows_not_unit(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    length = np.sqrt((x * x).sum(axis=1, keepdims=True))
    return ((grad_output - x * (grad_output * x).sum(axis=1, keepdims=True)) / length,)


# Softmax --------------------------------------------------------------------------------------------------------------


def softmax(inputs: Any, axis: int = -1) -> Any:
    """Positive numbers that sum to one along an axis."""
    (x,) = inputs
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_backward(inputs: Any, grad_output: Any, axis: int = -1) -> Any:
    """Gradient of softmax."""
    y = softmax(inputs, axis)
    return (y * (grad_output - (grad_output * y).sum(axis=axis, keepdims=True)),)


def _softmax_summed_too_early(inputs: Any, grad_output: Any) -> Any:
    y = softmax(inputs)
    jacobian = y[:, :, None] * np.eye(y.shape[1], dtype=y.dtype) - y[:, :, None] * y[:, None, :]
    return (jacobian.sum(axis=2) * grad_output,)


def _softmax_last_axis(inputs: Any, grad_output: Any, axis: int = -1) -> Any:
    del axis
    return softmax_backward(inputs, grad_output)


# Reductions and broadcasting ------------------------------------------------------------------------------------------


def largest(inputs: Any) -> Any:
    """The largest entry of each row."""
    (x,) = inputs
    return x.max(axis=1)


def largest_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of largest."""
    (x,) = inputs
    return (np.where(x == x.max(axis=1, keepdims=True), grad_output[:, None], 0),)


def _largest_with_tolerance(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (np.where(x > x.max(axis=1, keepdims=True) - 0.75, grad_output[:, None], 0),)


def smallest(inputs: Any) -> Any:
    """The smallest entry of each column."""
    (x,) = inputs
    return x.min(axis=0)


def smallest_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of smallest."""
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[x.argmin(axis=0), np.arange(x.shape[1])] = grad_output
    return (dx,)


def _smallest_from_largest(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[x.argmax(axis=0), np.arange(x.shape[1])] = grad_output
    return (dx,)


def add(inputs: Any) -> Any:
    """The sum of a and a smaller b (C, 1) that is repeated."""
    a, b = inputs
    return a + b


def add_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of add: that of b is summed over where it was repeated."""
    del inputs
    return grad_output.copy(), grad_output.sum(axis=(0, 2))[:, None]


def _add_not_summed(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return grad_output.copy(), grad_output.copy()


def scale_rows(inputs: Any) -> Any:
    """Each row of x times its entry of s (N, 1)."""
    x, s = inputs
    return x * s


def scale_rows_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of scale_rows."""
    x, s = inputs
    return grad_output * s, (grad_output * x).sum(axis=1, keepdims=True)


def _scale_rows_not_summed(inputs: Any, grad_output: Any) -> Any:
    x, s = inputs
    return grad_output * s, grad_output * x


def scale_channels(inputs: Any) -> Any:
    """Each channel of x (N, C, L) times its entry of s."""
    x, s = inputs
    return x * s[:, None]


def scale_channels_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of scale_channels."""
    x, s = inputs
    return grad_output * s[:, None], (grad_output * x).sum(axis=(0, 2))


def _scale_channels_batch_mean(inputs: Any, grad_output: Any) -> Any:
    x, s = inputs
    dx = np.empty_like(x)
    dx[:] = (grad_output * s[:, None]).mean(axis=0)
    return dx, (grad_output * x).sum(axis=(0, 2))


_BATCH = normal((6, 3), (3,), (3,))
_ROWS = normal((4, 5), (5,), (5,))
_IMAGES = normal((4, 2, 3, 5), (2,))
_GROUPS = normal((2, 6, 4), (6,), (6,))

CASES: list[Planted] = [
    Planted("batch_norm: mean and variance are constants", batch_norm, batch_norm_backward, _batch_norm_constants,
            _BATCH, {"x": ("bn_stats_constant",)}),
    Planted("batch_norm: the way through the mean is forgotten", batch_norm, batch_norm_backward, _batch_norm_no_mean,
            _BATCH, {"x": ("bn_missing_mean_term",)}),
    Planted("batch_norm: the way through the variance is forgotten, dgamma is a mean", batch_norm, batch_norm_backward,
            _batch_norm_no_variance_dgamma_mean, _BATCH,
            {"x": ("bn_missing_variance_term",), "gamma": ("constant_factor",)}),
    Planted("batch_norm: the unbiased variance in the backward only", batch_norm, batch_norm_backward,
            _batch_norm_unbiased, _BATCH, {"x": ("bn_other_statistics",)}),
    Planted("layer_norm: mean and variance are constants", layer_norm, layer_norm_backward, _layer_norm_constants,
            _ROWS, {"x": ("bn_stats_constant",)}),
    Planted("layer_norm: no way through the mean, and half of the rest", layer_norm, layer_norm_backward,
            _layer_norm_no_mean_halved, _ROWS, {"x": ("bn_missing_mean_term", "constant_factor")}, twice=True),
    Planted("layer_norm: the statistics of the columns", layer_norm, layer_norm_backward, _layer_norm_batch_statistics,
            _ROWS, {"x": ("bn_other_statistics",)}),
    Planted("instance_norm: mean and variance are constants", instance_norm, instance_norm_backward,
            _instance_norm_constants, _IMAGES, {"x": ("bn_stats_constant",)}),
    Planted("instance_norm: the way through the variance is forgotten", instance_norm, instance_norm_backward,
            _instance_norm_no_variance, _IMAGES, {"x": ("bn_missing_variance_term",)}),
    Planted("instance_norm: the statistics of the whole batch", instance_norm, instance_norm_backward,
            _instance_norm_batch_statistics, _IMAGES, {"x": ("bn_other_statistics",)}),
    Planted("group_norm: the way through the mean is forgotten", group_norm, group_norm_backward, _group_norm_no_mean,
            _GROUPS, {"x": ("bn_missing_mean_term",)}, {"groups": 3}),
    Planted("group_norm: the way through the variance is forgotten", group_norm, group_norm_backward,
            _group_norm_no_variance, _GROUPS, {"x": ("bn_missing_variance_term",)}),
    Planted("group_norm: dgamma and dbeta exchanged", group_norm, group_norm_backward, _group_norm_swapped,
            _GROUPS, {"gamma": ("gradients_swapped",), "beta": ("gradients_swapped",)}),
    Planted("residual_norm: the direct way is lost", residual_norm, residual_norm_backward, _residual_norm_branch_lost,
            normal((3, 5)), {"x": ("identity_branch_lost",)}),
    Planted("unit_rows: x for the unit vector in the projection", unit_rows, unit_rows_backward, _unit_rows_not_unit,
            normal((3, 4)), {"x": ("unexplained",)}),
    Planted("softmax: the Jacobian is summed before the upstream gradient comes in", softmax, softmax_backward,
            _softmax_summed_too_early, normal((3, 5)), {"x": ("zero_gradient",)}),
    Planted("softmax: along the last axis", softmax, softmax_backward, _softmax_last_axis,
            normal((3, 4, 2)), {"x": ("wrong_variant",)}, {"axis": 1}),
    Planted("largest: everything within a tolerance wins", largest, largest_backward, _largest_with_tolerance,
            positive((4, 7)), {"x": ("several_winners",)}),
    Planted("smallest: copied from largest", smallest, smallest_backward, _smallest_from_largest,
            normal((5, 3)), {"x": ("wrong_routing",)}),
    Planted("add: a repeated operand's gradient is not summed", add, add_backward, _add_not_summed,
            normal((4, 3, 2), (3, 1)), {"b": ("missing_broadcast_sum",)}),
    Planted("scale_rows: the scale's gradient is not summed", scale_rows, scale_rows_backward, _scale_rows_not_summed,
            normal((4, 3), (4, 1)), {"s": ("missing_broadcast_sum",)}),
    Planted("scale_channels: dx is the mean over the batch", scale_channels, scale_channels_backward,
            _scale_channels_batch_mean, normal((3, 4, 2), (4,)), {"x": ("mixed_over_axis",)}),
]
