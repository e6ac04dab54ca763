"""Normalisations."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted

EPS = 1e-5


def batch_norm1d(inputs):
    """Features normalised over the batch."""
    x, gamma, beta = inputs  # (N, D), (D,), (D,)
    return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + EPS) + beta


def _bn1d(x, gamma, g, with_mean):
    inv = 1 / np.sqrt(x.var(0) + EPS)
    hat = (x - x.mean(0)) * inv
    d = g * gamma
    dx = d - hat * (d * hat).mean(0)
    if with_mean:
        dx = dx - d.mean(0)
    return dx * inv, (g * hat).sum(0), g.sum(0)


def batch_norm1d_backward(inputs, grad_output):
    x, gamma, _beta = inputs
    return _bn1d(x, gamma, grad_output, True)


def batch_norm1d_no_mean_term(inputs, grad_output):
    x, gamma, _beta = inputs
    return _bn1d(x, gamma, grad_output, False)


def layer_norm(inputs, eps=1e-5):
    """Each token normalised over its features."""
    x, scale, shift = inputs  # (N, T, D), (D,), (D,)
    c = x - x.mean(-1, keepdims=True)
    return c / np.sqrt((c * c).mean(-1, keepdims=True) + eps) * scale + shift


def layer_norm_backward(inputs, grad_output, eps=1e-5):
    x, scale, _shift = inputs
    c = x - x.mean(-1, keepdims=True)
    sd = np.sqrt((c * c).mean(-1, keepdims=True) + eps)
    hat = c / sd
    d = grad_output * scale
    dvar = -0.5 * (d * c).sum(-1, keepdims=True) / sd**3
    dc = d / sd + 2 * c * dvar / x.shape[-1]
    return dc - dc.mean(-1, keepdims=True), (grad_output * hat).sum((0, 1)), grad_output.sum((0, 1))


def layer_norm_variance_forgotten(inputs, grad_output, eps=1e-5):
    x, scale, _shift = inputs
    c = x - x.mean(-1, keepdims=True)
    sd = np.sqrt((c * c).mean(-1, keepdims=True) + eps)
    dc = grad_output * scale / sd
    return dc - dc.mean(-1, keepdims=True), (grad_output * c / sd).sum((0, 1)), grad_output.sum((0, 1))


def _group_hat(x, groups):
    v = x.reshape(x.shape[0], groups, -1)
    inv = 1 / np.sqrt(v.var(2, keepdims=True) + EPS)
    return (v - v.mean(2, keepdims=True)) * inv, inv


def group_norm(inputs, groups=2):
    """Channels normalised in groups, sample by sample."""
    x, gamma, beta = inputs  # (N, C, H, W), (C,), (C,)
    hat, _ = _group_hat(x, groups)
    return hat.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]


def group_norm_backward(inputs, grad_output, groups=2):
    x, gamma, _beta = inputs
    hat, inv = _group_hat(x, groups)
    d = (grad_output * gamma[:, None, None]).reshape(hat.shape)
    dx = inv * (d - d.mean(2, keepdims=True) - hat * (d * hat).mean(2, keepdims=True))
    dgamma = (grad_output * hat.reshape(x.shape)).sum((0, 2, 3))
    return dx.reshape(x.shape), dgamma, grad_output.sum((0, 2, 3))


def group_norm_fixed_statistics(inputs, grad_output, groups=2):
    x, gamma, _beta = inputs
    hat, inv = _group_hat(x, groups)
    dx = inv * (grad_output * gamma[:, None, None]).reshape(hat.shape)
    dgamma = (grad_output * hat.reshape(x.shape)).sum((0, 2, 3))
    return dx.reshape(x.shape), dgamma, grad_output.sum((0, 2, 3))


def instance_norm(inputs):
    """Every channel of every sample on its own."""
    (x,) = inputs  # (N, C, H, W)
    return (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + EPS)


def _norm_dx(x, g, axes):
    inv = 1 / np.sqrt(x.var(axes, keepdims=True) + EPS)
    hat = (x - x.mean(axes, keepdims=True)) * inv
    return inv * (g - g.mean(axes, keepdims=True) - hat * (g * hat).mean(axes, keepdims=True))


def instance_norm_backward(inputs, grad_output):
    (x,) = inputs
    return (_norm_dx(x, grad_output, (2, 3)),)


def instance_norm_batch_axes(inputs, grad_output):
    (x,) = inputs
    return (_norm_dx(x, grad_output, (0, 2, 3)),)


def rms_norm(inputs):
    """Divided by the root of the mean square."""
    x, gamma = inputs  # (N, D), (D,)
    return gamma * x / np.sqrt((x**2).mean(1, keepdims=True) + EPS)


def _rms_dx(x, gamma, g):
    inv = 1 / np.sqrt((x**2).mean(1, keepdims=True) + EPS)
    d = g * gamma
    return inv * d - x * inv**3 * (d * x).mean(1, keepdims=True)


def rms_norm_backward(inputs, grad_output):
    x, gamma = inputs
    inv = 1 / np.sqrt((x**2).mean(1, keepdims=True) + EPS)
    return _rms_dx(x, gamma, grad_output), (grad_output * x * inv).sum(0)


def rms_norm_gamma_raw(inputs, grad_output):
    x, gamma = inputs
    return _rms_dx(x, gamma, grad_output), (grad_output * x).sum(0)


def weight_norm_linear(inputs):
    """Linear layer whose rows are a direction times a length."""
    x, v, s = inputs  # (N, D), (O, D), (O,)
    return x @ (v * (s / np.sqrt((v**2).sum(1)))[:, None]).T


def weight_norm_linear_backward(inputs, grad_output):
    x, v, s = inputs
    r = np.sqrt((v**2).sum(1))[:, None]
    u = v / r
    dw = grad_output.T @ x
    along = (dw * u).sum(1)
    dv = s[:, None] / r * (dw - along[:, None] * u)
    return grad_output @ (u * s[:, None]), dv, along


def weight_norm_linear_no_projection(inputs, grad_output):
    x, v, s = inputs
    r = np.sqrt((v**2).sum(1))[:, None]
    u = v / r
    dw = grad_output.T @ x
    return grad_output @ (u * s[:, None]), s[:, None] / r * dw, (dw * u).sum(1)


def _normal(*shapes):
    def make(rng):
        return tuple(rng.normal(size=s) for s in shapes)

    return make


def _spread(rng):
    x = rng.normal(size=(3, 2, 3, 4))
    return (x * rng.uniform(0.5, 2.0, (3, 2, 1, 1)) + rng.normal(size=(3, 2, 1, 1)),)


CASES = [
    Planted(
        "batch_norm1d: the gradient's own mean is not taken off",
        batch_norm1d,
        batch_norm1d_backward,
        batch_norm1d_no_mean_term,
        _normal((6, 4), (4,), (4,)),
        {"x": ("bn_missing_mean_term",)},
    ),
    Planted(
        "layer_norm: nothing through the variance",
        layer_norm,
        layer_norm_backward,
        layer_norm_variance_forgotten,
        _normal((2, 3, 7), (7,), (7,)),
        {"x": ("bn_missing_variance_term",)},
    ),
    Planted(
        "group_norm: statistics taken for constants",
        group_norm,
        group_norm_backward,
        group_norm_fixed_statistics,
        _normal((2, 6, 2, 3), (6,), (6,)),
        {"x": ("bn_stats_constant",)},
        {"groups": 3},
    ),
    Planted(
        "instance_norm: backward over the whole batch",
        instance_norm,
        instance_norm_backward,
        instance_norm_batch_axes,
        _spread,
        {"x": ("bn_other_statistics",)},
    ),
    Planted(
        "rms_norm: gamma meets the raw x",
        rms_norm,
        rms_norm_backward,
        rms_norm_gamma_raw,
        _normal((5, 6), (6,)),
        {"gamma": ("missing_chain_factor",)},
    ),
    Planted(
        "weight_norm_linear: the projection is missing",
        weight_norm_linear,
        weight_norm_linear_backward,
        weight_norm_linear_no_projection,
        _normal((4, 5), (3, 5), (3,)),
        {"v": ("missing_term",)},
    ),
]
