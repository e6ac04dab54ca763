"""Normalisations, losses and regularisers."""


# ruff: noqa: RUF059  (the packed style names every input)
from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _normal(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


def _whiten(x, axes, eps, ddof=0):
    """The standardised array and its standard deviation."""
    mean = x.mean(axis=axes, keepdims=True)
    std = np.sqrt(x.var(axis=axes, keepdims=True, ddof=ddof) + eps)
    return (x - mean) / std, std


def _through(g, xhat, std, axes):
    """Gradient through the standardisation, mean and variance included."""
    return (g - g.mean(axis=axes, keepdims=True) - xhat * (g * xhat).mean(axis=axes, keepdims=True)) / std


# ---------------------------------------------------------------- normalisations


def batch_norm1d(inputs, eps=1e-5):
    """Batch statistics of features: x (N, F)."""
    x, gamma, beta = inputs
    xhat, _ = _whiten(x, 0, eps)
    return gamma * xhat + beta


def batch_norm1d_backward(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    xhat, std = _whiten(x, 0, eps)
    return _through(grad_output * gamma, xhat, std, 0), (grad_output * xhat).sum(axis=0), grad_output.sum(axis=0)


def batch_norm1d_wrong_fixed(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    xhat, std = _whiten(x, 0, eps)
    return grad_output * gamma / std, (grad_output * xhat).sum(axis=0), grad_output.sum(axis=0)


def batch_norm2d(inputs, eps=1e-5):
    """Statistics per channel of images: x (N, C, H, W)."""
    x, gamma, beta = inputs
    xhat, _ = _whiten(x, (0, 2, 3), eps)
    return gamma[:, None, None] * xhat + beta[:, None, None]


def batch_norm2d_backward(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    axes = (0, 2, 3)
    xhat, std = _whiten(x, axes, eps)
    dx = _through(grad_output * gamma[:, None, None], xhat, std, axes)
    return dx, (grad_output * xhat).sum(axis=axes), grad_output.sum(axis=axes)


def batch_norm2d_wrong_spread(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    axes = (0, 2, 3)
    xhat, std = _whiten(x, axes, eps)
    dxhat = grad_output * gamma[:, None, None]
    dx = (dxhat - dxhat.mean(axis=axes, keepdims=True)) / std
    return dx, (grad_output * xhat).sum(axis=axes), grad_output.sum(axis=axes)


def layer_norm(inputs, eps=1e-5):
    """Each token is standardised by itself: x (N, T, D)."""
    x, gamma, beta = inputs
    xhat, _ = _whiten(x, -1, eps)
    return xhat * gamma + beta


def _layer_norm_others(x, grad_output, eps):
    xhat, _ = _whiten(x, -1, eps)
    return (grad_output * xhat).sum(axis=(0, 1)), grad_output.sum(axis=(0, 1))


def layer_norm_backward(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    xhat, std = _whiten(x, -1, eps)
    return _through(grad_output * gamma, xhat, std, -1), *_layer_norm_others(x, grad_output, eps)


def layer_norm_wrong_centre(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    xhat, std = _whiten(x, -1, eps)
    dxhat = grad_output * gamma
    dx = (dxhat - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)) / std
    return dx, *_layer_norm_others(x, grad_output, eps)


def layer_norm_wrong_divisor(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    xhat, std = _whiten(x, -1, eps, ddof=1)
    return _through(grad_output * gamma, xhat, std, -1), *_layer_norm_others(x, grad_output, eps)


def group_norm(inputs, eps=1e-5):
    """Two groups of channels: x (N, C, L)."""
    x, gamma, beta = inputs
    n, c, length = x.shape
    xhat, _ = _whiten(x.reshape(n, 2, -1), 2, eps)
    return xhat.reshape(n, c, length) * gamma[:, None] + beta[:, None]


def group_norm_backward(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    n = x.shape[0]
    xhat, std = _whiten(x.reshape(n, 2, -1), 2, eps)
    dxhat = (grad_output * gamma[:, None]).reshape(n, 2, -1)
    dgamma = (grad_output * xhat.reshape(x.shape)).sum(axis=(0, 2))
    return _through(dxhat, xhat, std, 2).reshape(x.shape), dgamma, grad_output.sum(axis=(0, 2))


def group_norm_wrong_centre(inputs, grad_output, eps=1e-5):
    x, gamma, beta = inputs
    n = x.shape[0]
    xhat, std = _whiten(x.reshape(n, 2, -1), 2, eps)
    dxhat = (grad_output * gamma[:, None]).reshape(n, 2, -1)
    dx = dxhat / std - xhat * np.mean(dxhat * xhat, axis=2, keepdims=True) / std
    dgamma = (grad_output * xhat.reshape(x.shape)).sum(axis=(0, 2))
    return dx.reshape(x.shape), dgamma, grad_output.sum(axis=(0, 2))


def instance_norm(inputs, eps=1e-5):
    """Each channel of each image by itself: x (N, C, H, W)."""
    (x,) = inputs
    return _whiten(x, (2, 3), eps)[0]


def instance_norm_backward(inputs, grad_output, eps=1e-5):
    (x,) = inputs
    xhat, std = _whiten(x, (2, 3), eps)
    return (_through(grad_output, xhat, std, (2, 3)),)


def instance_norm_wrong_fixed(inputs, grad_output, eps=1e-5):
    (x,) = inputs
    return (grad_output / np.sqrt(x.var(axis=(2, 3), keepdims=True) + eps),)


def instance_norm_wrong_batch(inputs, grad_output, eps=1e-5):
    (x,) = inputs
    xhat, std = _whiten(x, (0, 2, 3), eps)
    return (_through(grad_output, xhat, std, (2, 3)),)


def weight_standardisation(inputs, eps=1e-4):
    """Every filter gets mean zero and variance one: w (O, C, k)."""
    (w,) = inputs
    return _whiten(w, (1, 2), eps)[0]


def weight_standardisation_backward(inputs, grad_output, eps=1e-4):
    (w,) = inputs
    what, std = _whiten(w, (1, 2), eps)
    return (_through(grad_output, what, std, (1, 2)),)


def weight_standardisation_wrong_spread(inputs, grad_output, eps=1e-4):
    (w,) = inputs
    _, std = _whiten(w, (1, 2), eps)
    dw = grad_output / std
    dw -= dw.mean(axis=(1, 2), keepdims=True)
    return (dw,)


# ---------------------------------------------------------------- losses and regularisers


def mean_squared_error(inputs):
    """Scalar mean of squared differences."""
    p, t = inputs
    return np.mean((p - t) ** 2)


def mean_squared_error_backward(inputs, grad_output):
    p, t = inputs
    dp = grad_output * 2 * (p - t) / p.size
    return dp, -dp


def mean_squared_error_wrong_alone(inputs, grad_output):
    p, t = inputs
    dp = 2 * (p - t) / p.size
    return dp, -dp


def _softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(inputs):
    """Mean of -log softmax at the labels."""
    logits, labels = inputs
    p = _softmax(logits)
    return -np.mean(np.log(p[np.arange(len(labels)), labels]))


def cross_entropy_backward(inputs, grad_output):
    logits, labels = inputs
    d = _softmax(logits)
    d[np.arange(len(labels)), labels] -= 1
    return d * grad_output / len(labels), None


def cross_entropy_wrong_target(inputs, grad_output):
    logits, labels = inputs
    return _softmax(logits) * grad_output / len(labels), None


def kl_divergence(inputs):
    """Sum of p log(p / q) per row, for positive arrays."""
    p, q = inputs
    return (p * (np.log(p) - np.log(q))).sum(axis=1)


def kl_divergence_backward(inputs, grad_output):
    p, q = inputs
    g = grad_output[:, None]
    return g * (np.log(p) - np.log(q) + 1), -g * p / q


def kl_divergence_wrong_sign(inputs, grad_output):
    p, q = inputs
    g = grad_output[:, None]
    return g * (np.log(p) - np.log(q) + 1), g * p / q


def gaussian_kl(inputs):
    """Distance of a diagonal normal distribution from the standard one, per sample."""
    mu, logvar = inputs
    return 0.5 * (mu * mu + np.exp(logvar) - 1 - logvar).sum(axis=1)


def gaussian_kl_backward(inputs, grad_output):
    mu, logvar = inputs
    g = grad_output[:, None]
    return g * mu, 0.5 * g * (np.exp(logvar) - 1)


def gaussian_kl_wrong_summand(inputs, grad_output):
    mu, logvar = inputs
    g = grad_output[:, None]
    return g * mu, 0.5 * g * np.exp(logvar)


def multiclass_hinge(inputs):
    """The largest violation of the margin, per sample."""
    scores, labels = inputs
    rows = np.arange(len(labels))
    margins = 1 + scores - scores[rows, labels][:, None]
    margins[rows, labels] = 0
    return np.maximum(margins.max(axis=1), 0)


def multiclass_hinge_backward(inputs, grad_output):
    scores, labels = inputs
    d = np.zeros_like(scores)
    for n, label in enumerate(labels):
        margins = 1 + scores[n] - scores[n, label]
        margins[label] = 0
        worst = np.argmax(margins)
        if margins[worst] > 0:
            d[n, worst] += grad_output[n]
            d[n, label] -= grad_output[n]
    return d, None


def multiclass_hinge_wrong_rivals(inputs, grad_output):
    scores, labels = inputs
    d = np.zeros_like(scores)
    for n, label in enumerate(labels):
        margins = 1 + scores[n] - scores[n, label]
        margins[label] = 0
        if np.any(margins > 0):
            d[n, margins > 0] += grad_output[n]
            d[n, label] -= grad_output[n]
    return d, None


def orthogonality_penalty(inputs):
    """Squared distance of W'W from the identity."""
    (w,) = inputs
    return ((w.T @ w - np.eye(w.shape[1], dtype=w.dtype)) ** 2).sum()


def orthogonality_penalty_backward(inputs, grad_output):
    (w,) = inputs
    return (4 * grad_output * (w @ (w.T @ w - np.eye(w.shape[1], dtype=w.dtype))),)


def orthogonality_penalty_wrong_two(inputs, grad_output):
    (w,) = inputs
    return (2 * grad_output * (w @ (w.T @ w - np.eye(w.shape[1], dtype=w.dtype))),)


CASES = [
    Planted(
        "batch norm 1d: mean and variance as constants",
        batch_norm1d, batch_norm1d_backward, batch_norm1d_wrong_fixed, _normal((6, 4), (4,), (4,)),
        {"x": ("bn_stats_constant",)},
    ),
    Planted(
        "batch norm 2d: the way through the variance is forgotten",
        batch_norm2d, batch_norm2d_backward, batch_norm2d_wrong_spread, _normal((2, 3, 4, 5), (3,), (3,)),
        {"x": ("bn_missing_variance_term",)},
    ),
    Planted(
        "layer norm: the way through the mean is forgotten",
        layer_norm, layer_norm_backward, layer_norm_wrong_centre, _normal((2, 3, 7), (7,), (7,)),
        {"x": ("bn_missing_mean_term",)},
    ),
    Planted(
        "layer norm: the unbiased variance in the backward only",
        layer_norm, layer_norm_backward, layer_norm_wrong_divisor, _normal((3, 2, 6), (6,), (6,)),
        {"x": ("bn_other_statistics",)},
    ),
    Planted(
        "group norm: the way through the mean is forgotten",
        group_norm, group_norm_backward, group_norm_wrong_centre, _normal((2, 4, 5), (4,), (4,)),
        {"x": ("bn_missing_mean_term",)},
    ),
    Planted(
        "instance norm: statistics as constants",
        instance_norm, instance_norm_backward, instance_norm_wrong_fixed, _normal((2, 3, 4, 5)),
        {"x": ("bn_stats_constant",)},
    ),
    Planted(
        "instance norm: mean and variance of the whole batch",
        instance_norm, instance_norm_backward, instance_norm_wrong_batch, _normal((3, 2, 5, 4)),
        {"x": ("bn_other_statistics",)},
    ),
    Planted(
        "weight standardisation: only the mean is passed on",
        weight_standardisation, weight_standardisation_backward, weight_standardisation_wrong_spread,
        _normal((4, 3, 5)), {"w": ("bn_missing_variance_term",)},
    ),
    Planted(
        "mean squared error: forgets that the loss may be scaled",
        mean_squared_error, mean_squared_error_backward, mean_squared_error_wrong_alone, _normal((3, 4), (3, 4)),
        {"p": ("ignores_upstream",), "t": ("ignores_upstream",)},
    ),
    Planted(
        "cross entropy: the one-hot is not subtracted",
        cross_entropy, cross_entropy_backward, cross_entropy_wrong_target,
        lambda rng: (rng.standard_normal((4, 5)), rng.integers(0, 5, 4)), {"logits": ("missing_term",)},
    ),
    Planted(
        "kl divergence: sign of the second argument",
        kl_divergence, kl_divergence_backward, kl_divergence_wrong_sign,
        lambda rng: (rng.uniform(0.3, 2, (3, 5)), rng.uniform(0.3, 2, (3, 5))), {"q": ("sign_flipped",)},
    ),
    Planted(
        "gaussian kl: derivative of the linear summand is forgotten",
        gaussian_kl, gaussian_kl_backward, gaussian_kl_wrong_summand, _normal((3, 4), (3, 4)),
        {"logvar": ("missing_term",)},
    ),
    Planted(
        "multiclass hinge: every rival is pushed, not only the worst",
        multiclass_hinge, multiclass_hinge_backward, multiclass_hinge_wrong_rivals,
        lambda rng: (rng.uniform(-0.4, 0.4, (4, 6)), rng.integers(0, 6, 4)), {"scores": ("several_winners",)},
    ),
    Planted(
        "orthogonality penalty: two instead of four",
        orthogonality_penalty, orthogonality_penalty_backward, orthogonality_penalty_wrong_two,
        _normal((5, 3)), {"w": ("constant_factor",)},
    ),
]
