"""First sealed exam: normalisations."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def batch_norm2d(inputs, eps=1e-3):
    """Per-channel statistics of the batch, then scale and shift."""
    x, gamma, beta = inputs
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * gamma[:, None, None] + beta[:, None, None]


def _batch_norm2d(inputs, g, eps, parts):
    x, gamma, _ = inputs
    axes = (0, 2, 3)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    dxhat = g * gamma[:, None, None]
    dx = dxhat / std
    if "mean" in parts:
        dx = dx - dxhat.mean(axes, keepdims=True) / std
    if "var" in parts:
        dx = dx - xhat * (dxhat * xhat).mean(axes, keepdims=True) / std
    return dx, (g * xhat).sum(axes), g.sum(axes)


def batch_norm2d_backward(inputs, grad_output, eps=1e-3):
    return _batch_norm2d(inputs, grad_output, eps, ("mean", "var"))


def batch_norm2d_backward_like_inference(inputs, grad_output, eps=1e-3):
    return _batch_norm2d(inputs, grad_output, eps, ())


def batch_norm2d_inputs(rng):
    return rng.normal(0.3, 1.2, size=(3, 4, 2, 5)), rng.uniform(0.5, 2, 4), rng.normal(size=4)


def whiten_columns(inputs):
    """Batch norm of (N, D) without an affine part, written the long way round."""
    (x,) = inputs
    centred = x - x.mean(0)
    return centred / np.sqrt((centred**2).mean(0) + 1e-2)


def whiten_columns_backward(inputs, grad_output):
    (x,) = inputs
    n = len(x)
    centred = x - x.mean(0)
    inv = 1 / np.sqrt((centred**2).mean(0) + 1e-2)
    dvar = (grad_output * centred).sum(0) * -0.5 * inv**3
    dcentred = grad_output * inv + dvar * 2 * centred / n
    return (dcentred - dcentred.mean(0),)


def whiten_columns_backward_stops_before_the_mean(inputs, grad_output):
    (x,) = inputs
    n = len(x)
    centred = x - x.mean(0)
    inv = 1 / np.sqrt((centred**2).mean(0) + 1e-2)
    dvar = (grad_output * centred).sum(0) * -0.5 * inv**3
    return (grad_output * inv + dvar * 2 * centred / n,)


def whiten_columns_inputs(rng):
    return (rng.normal(1, 2, size=(6, 3)),)


def layer_norm(inputs, eps=1e-5):
    """Statistics of each row, then scale and shift."""
    x, gamma, beta = inputs
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta


def _layer_norm(inputs, g, eps, ddof, use_var):
    x, gamma, _ = inputs
    axes = tuple(range(x.ndim - 1))
    centred = x - x.mean(-1, keepdims=True)
    xhat = centred / np.sqrt(x.var(-1, keepdims=True) + eps)
    inv = 1 / np.sqrt(x.var(-1, keepdims=True, ddof=ddof) + eps)
    h = centred * inv
    d = g * gamma
    dx = d - d.mean(-1, keepdims=True)
    if use_var:
        dx = dx - h * (d * h).mean(-1, keepdims=True)
    return dx * inv, (g * xhat).sum(axes), g.sum(axes)


def layer_norm_backward(inputs, grad_output, eps=1e-5):
    return _layer_norm(inputs, grad_output, eps, 0, True)


def layer_norm_backward_sample_variance(inputs, grad_output, eps=1e-5):
    return _layer_norm(inputs, grad_output, eps, 1, True)


def layer_norm_backward_without_variance(inputs, grad_output, eps=1e-5):
    return _layer_norm(inputs, grad_output, eps, 0, False)


def layer_norm_inputs(rng):
    return rng.normal(-0.5, 1.5, size=(2, 3, 5)), rng.uniform(0.5, 1.5, 5), rng.normal(size=5)


def instance_norm(inputs, eps=1e-2):
    """Statistics of each sample and channel over time."""
    (x,) = inputs
    return (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + eps)


def instance_norm_backward(inputs, grad_output, eps=1e-2):
    (x,) = inputs
    std = np.sqrt(x.var(2, keepdims=True) + eps)
    xhat = (x - x.mean(2, keepdims=True)) / std
    g = grad_output
    return ((g - g.mean(2, keepdims=True) - xhat * (g * xhat).mean(2, keepdims=True)) / std,)


def instance_norm_backward_divides_only(inputs, grad_output, eps=1e-2):
    (x,) = inputs
    return (grad_output / np.sqrt(x.var(2, keepdims=True) + eps),)


def instance_norm_backward_batch_statistics(inputs, grad_output, eps=1e-2):
    (x,) = inputs
    std = np.sqrt(x.var((0, 2), keepdims=True) + eps)
    xhat = (x - x.mean((0, 2), keepdims=True)) / std
    g = grad_output
    return ((g - g.mean(2, keepdims=True) - xhat * (g * xhat).mean(2, keepdims=True)) / std,)


def instance_norm_inputs(rng):
    return (rng.normal(size=(3, 2, 6)) * rng.uniform(0.5, 2, (3, 2, 1)) + rng.normal(size=(3, 2, 1)),)


def group_norm(inputs, groups=2, eps=1e-3):
    """Statistics of each sample and group of channels."""
    x, gamma = inputs
    xg = x.reshape(len(x), groups, -1)
    xhat = (xg - xg.mean(-1, keepdims=True)) / np.sqrt(xg.var(-1, keepdims=True) + eps)
    return xhat.reshape(x.shape) * gamma[:, None]


def _group_norm(inputs, g, groups, eps, use_mean):
    x, gamma = inputs
    xg = x.reshape(len(x), groups, -1)
    std = np.sqrt(xg.var(-1, keepdims=True) + eps)
    xhat = (xg - xg.mean(-1, keepdims=True)) / std
    d = (g * gamma[:, None]).reshape(xg.shape)
    inner = d - xhat * (d * xhat).mean(-1, keepdims=True)
    if use_mean:
        inner = inner - d.mean(-1, keepdims=True)
    return (inner / std).reshape(x.shape), (g * xhat.reshape(x.shape)).sum((0, 2))


def group_norm_backward(inputs, grad_output, groups=2, eps=1e-3):
    return _group_norm(inputs, grad_output, groups, eps, True)


def group_norm_backward_without_mean(inputs, grad_output, groups=2, eps=1e-3):
    return _group_norm(inputs, grad_output, groups, eps, False)


def group_norm_inputs(rng):
    return rng.normal(0.4, 1, size=(2, 6, 4)), rng.uniform(0.5, 2, 6)


def rms_norm(inputs):
    """Divide by the root mean square, then scale per feature."""
    x, gain = inputs
    return x / np.sqrt((x * x).mean(-1, keepdims=True)) * gain


def rms_norm_backward(inputs, grad_output):
    x, gain = inputs
    rms = np.sqrt((x * x).mean(-1, keepdims=True))
    d = grad_output * gain
    return d / rms - x * (d * x).mean(-1, keepdims=True) / rms**3, (grad_output * x / rms).sum(0)


def rms_norm_backward_gain_from_raw_input(inputs, grad_output):
    x, gain = inputs
    rms = np.sqrt((x * x).mean(-1, keepdims=True))
    d = grad_output * gain
    return d / rms - x * (d * x).mean(-1, keepdims=True) / rms**3, (grad_output * x).sum(0)


def rms_norm_inputs(rng):
    return rng.normal(size=(4, 6)) * rng.uniform(0.5, 3, (4, 1)), rng.uniform(0.5, 2, 6)


def standardised_filter(inputs):
    """A linear layer whose weight rows are standardised first (weight standardisation)."""
    x, w = inputs
    what = (w - w.mean(1, keepdims=True)) / w.std(1, keepdims=True)
    return x @ what.T


def standardised_filter_backward(inputs, grad_output):
    x, w = inputs
    std = w.std(1, keepdims=True)
    what = (w - w.mean(1, keepdims=True)) / std
    d = grad_output.T @ x
    dw = (d - d.mean(1, keepdims=True) - what * (d * what).mean(1, keepdims=True)) / std
    return grad_output @ what, dw


def standardised_filter_backward_std_is_a_constant(inputs, grad_output):
    x, w = inputs
    std = w.std(1, keepdims=True)
    what = (w - w.mean(1, keepdims=True)) / std
    d = grad_output.T @ x
    return grad_output @ what, (d - d.mean(1, keepdims=True)) / std


def standardised_filter_inputs(rng):
    return rng.normal(size=(3, 5)), rng.normal(size=(4, 5))


CASES = [
    Planted("batch_norm2d: only divided by the standard deviation, as at inference", batch_norm2d, batch_norm2d_backward,
            batch_norm2d_backward_like_inference, batch_norm2d_inputs, {"x": ("bn_stats_constant",)}),
    Planted("whitened columns: the gradient stops before the mean is subtracted", whiten_columns, whiten_columns_backward,
            whiten_columns_backward_stops_before_the_mean, whiten_columns_inputs, {"x": ("bn_missing_mean_term",)}),
    Planted("layer_norm: the sample variance (ddof 1) in the backward", layer_norm, layer_norm_backward,
            layer_norm_backward_sample_variance, layer_norm_inputs, {"x": ("bn_other_statistics",)}),
    Planted("layer_norm: the path through the variance is forgotten", layer_norm, layer_norm_backward,
            layer_norm_backward_without_variance, layer_norm_inputs, {"x": ("bn_missing_variance_term",)}),
    Planted("instance_norm: the upstream is only divided", instance_norm, instance_norm_backward,
            instance_norm_backward_divides_only, instance_norm_inputs, {"x": ("bn_stats_constant",)}),
    Planted("instance_norm: statistics over the batch in the backward", instance_norm, instance_norm_backward,
            instance_norm_backward_batch_statistics, instance_norm_inputs, {"x": ("bn_other_statistics",)}),
    Planted("group_norm: the path through the mean is forgotten", group_norm, group_norm_backward,
            group_norm_backward_without_mean, group_norm_inputs, {"x": ("bn_missing_mean_term",)},
            {"groups": 3}),
    Planted("rms_norm: the gain meets the raw instead of the normalised input", rms_norm, rms_norm_backward,
            rms_norm_backward_gain_from_raw_input, rms_norm_inputs, {"gain": ("missing_chain_factor",)}),
    Planted("standardised filter: the standard deviation is taken as a constant", standardised_filter,
            standardised_filter_backward, standardised_filter_backward_std_is_a_constant, standardised_filter_inputs,
            {"w": ("bn_missing_variance_term",)}),
]
