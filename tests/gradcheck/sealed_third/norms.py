"""Normalisations, activations and gates."""

# ruff: noqa: RUF059
from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted

from .common import apart, off_zero, positive

# ---------------------------------------------------------------- batch norm of images


def batch_norm2d(inputs, eps=1e-5):
    x, gamma, beta = inputs
    mu = x.mean(axis=(0, 2, 3), keepdims=True)
    var = ((x - mu) ** 2).mean(axis=(0, 2, 3), keepdims=True)
    return gamma[None, :, None, None] * (x - mu) / np.sqrt(var + eps) + beta[None, :, None, None]


def _bn2d(inputs, grad_output, eps):
    x, gamma, _ = inputs
    mu = x.mean(axis=(0, 2, 3), keepdims=True)
    inv = 1 / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + eps)
    hat = (x - mu) * inv
    return hat, inv, grad_output * gamma[:, None, None]


def batch_norm2d_backward(inputs, grad_output, eps=1e-5):
    hat, inv, d = _bn2d(inputs, grad_output, eps)
    ax = (0, 2, 3)
    dx = inv * (d - d.mean(axis=ax, keepdims=True) - hat * (d * hat).mean(axis=ax, keepdims=True))
    return dx, (grad_output * hat).sum(axis=ax), grad_output.sum(axis=ax)


def batch_norm2d_wrong(inputs, grad_output, eps=1e-5):
    hat, inv, d = _bn2d(inputs, grad_output, eps)
    return d * inv, (grad_output * hat).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


# ---------------------------------------------------------------- layer norm of tokens


def layer_norm(inputs, eps=1e-5):
    x, g, b = inputs
    m = x.mean(axis=-1, keepdims=True)
    s = np.sqrt(((x - m) ** 2).mean(axis=-1, keepdims=True) + eps)
    return (x - m) / s * g + b


def _layer_norm(inputs, grad_output, eps, mean_term):
    x, g, _ = inputs
    n = x.shape[-1]
    m = x.mean(axis=-1, keepdims=True)
    s = np.sqrt(((x - m) ** 2).mean(axis=-1, keepdims=True) + eps)
    hat = (x - m) / s
    d = grad_output * g
    dx = n * d - hat * np.sum(d * hat, axis=-1, keepdims=True)
    if mean_term:
        dx = dx - d.sum(axis=-1, keepdims=True)
    rest = tuple(range(x.ndim - 1))
    return dx / (n * s), np.sum(grad_output * hat, axis=rest), grad_output.sum(axis=rest)


def layer_norm_backward(inputs, grad_output, eps=1e-5):
    return _layer_norm(inputs, grad_output, eps, True)


def layer_norm_wrong(inputs, grad_output, eps=1e-5):
    return _layer_norm(inputs, grad_output, eps, False)


# ---------------------------------------------------------------- group norm


def group_norm(inputs, groups=2, eps=1e-5):
    x, gamma = inputs
    t = x.reshape(x.shape[0], groups, -1)
    t = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + eps)
    return t.reshape(x.shape) * gamma.reshape(-1, 1, 1)


def _group_norm(inputs, grad_output, groups, eps, variance):
    x, gamma = inputs
    t = x.reshape(x.shape[0], groups, -1)
    std = np.sqrt(t.var(-1, keepdims=True) + eps)
    hat = (t - t.mean(-1, keepdims=True)) / std
    d = (grad_output * gamma.reshape(-1, 1, 1)).reshape(t.shape)
    dt = d - d.mean(-1, keepdims=True)
    if variance:
        dt -= hat * (d * hat).mean(-1, keepdims=True)
    return (dt / std).reshape(x.shape), (grad_output * hat.reshape(x.shape)).sum(axis=(0, 2, 3))


def group_norm_backward(inputs, grad_output, groups=2, eps=1e-5):
    return _group_norm(inputs, grad_output, groups, eps, True)


def group_norm_wrong(inputs, grad_output, groups=2, eps=1e-5):
    return _group_norm(inputs, grad_output, groups, eps, False)


# ---------------------------------------------------------------- instance norm


def instance_norm(inputs, eps=1e-5):
    (x,) = inputs
    mu = np.einsum("nchw->nc", x)[..., None, None] / (x.shape[2] * x.shape[3])
    return (x - mu) / np.sqrt(np.var(x, axis=(2, 3), keepdims=True) + eps)


def _instance(x, grad_output, axes, eps):
    inv = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + eps)
    hat = (x - x.mean(axis=axes, keepdims=True)) * inv
    means = grad_output.mean(axis=axes, keepdims=True), (grad_output * hat).mean(axis=axes, keepdims=True)
    return inv * (grad_output - means[0] - hat * means[1])


def instance_norm_backward(inputs, grad_output, eps=1e-5):
    return (_instance(inputs[0], grad_output, (2, 3), eps),)


def instance_norm_wrong(inputs, grad_output, eps=1e-5):
    return (_instance(inputs[0], grad_output, (0, 2, 3), eps),)


# ---------------------------------------------------------------- layer norm over whole images


def image_layer_norm(inputs, eps=1e-6):
    """Mean and variance over channels, rows and columns of each sample."""
    (x,) = inputs
    flat = x.reshape(len(x), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return (flat / np.sqrt((flat**2).mean(axis=1, keepdims=True) + eps)).reshape(x.shape)


def _image_layer_norm(inputs, grad_output, eps, ddof):
    (x,) = inputs
    dx = np.empty_like(x)
    for i, (sample, g) in enumerate(zip(x, grad_output, strict=True)):
        std = np.sqrt(sample.var(ddof=ddof) + eps)
        hat = (sample - sample.mean()) / std
        dx[i] = (g - g.mean() - hat * (g * hat).mean()) / std
    return (dx,)


def image_layer_norm_backward(inputs, grad_output, eps=1e-6):
    return _image_layer_norm(inputs, grad_output, eps, 0)


def image_layer_norm_wrong(inputs, grad_output, eps=1e-6):
    return _image_layer_norm(inputs, grad_output, eps, 1)


# ---------------------------------------------------------------- root mean square norm


def rms_norm(inputs, eps=1e-6):
    x, gain = inputs
    return gain * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def rms_norm_backward(inputs, grad_output, eps=1e-6):
    x, gain = inputs
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    d = grad_output * gain
    dx = r * d - x * r**3 * np.mean(d * x, axis=-1, keepdims=True)
    return dx, np.einsum("ntd,ntd->d", grad_output, x * r)


def rms_norm_wrong(inputs, grad_output, eps=1e-6):
    dx, _ = rms_norm_backward(inputs, grad_output, eps)
    return dx, np.einsum("ntd->d", grad_output)


# ---------------------------------------------------------------- rows of length one


def l2_normalize(inputs):
    (x,) = inputs
    return x / np.sqrt((x * x).sum(axis=1, keepdims=True))


def l2_normalize_backward(inputs, grad_output):
    (x,) = inputs
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    y = x / norm
    return ((grad_output - y * np.sum(y * grad_output, axis=1, keepdims=True)) / norm,)


def l2_normalize_wrong(inputs, grad_output):
    (x,) = inputs
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    y = x / norm
    return ((grad_output - y * np.sum(y * grad_output)) / norm,)


# ---------------------------------------------------------------- activations


def sigmoid(inputs):
    (x,) = inputs
    return 1 / (1 + np.exp(-x))


def sigmoid_backward(inputs, grad_output):
    y = sigmoid(inputs)
    return (grad_output * y * (1 - y),)


def sigmoid_wrong(inputs, grad_output):
    (x,) = inputs
    return (grad_output * x * (1 - x),)


def glu(inputs):
    a, b = inputs
    return a * np.tanh(b)


def glu_backward(inputs, grad_output):
    a, b = inputs
    t = np.tanh(b)
    da, db = grad_output * t, grad_output * a * (1 - t * t)
    return da, db


def glu_wrong(inputs, grad_output):
    a, b = inputs
    t = np.tanh(b)
    da, db = grad_output * t, grad_output * a * (1 - t * t)
    return db, da


def elu(inputs, alpha=1.0):
    (x,) = inputs
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(inputs, grad_output, alpha=1.0):
    (x,) = inputs
    return (np.where(x > 0, grad_output, grad_output * alpha * np.exp(np.minimum(x, 0))),)


def elu_wrong(inputs, grad_output, alpha=1.0):
    (x,) = inputs
    y = elu(inputs, alpha)
    return (np.where(x > 0, grad_output, grad_output * y),)


def softplus(inputs):
    (x,) = inputs
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(inputs, grad_output):
    (x,) = inputs
    small = np.exp(-np.abs(x))
    return (grad_output * np.where(x > 0, 1 / (1 + small), small / (1 + small)),)


def softplus_wrong(inputs, grad_output):
    (x,) = inputs
    e = np.exp(x)
    return (grad_output * e / (1 + e),)


def _softplus_inputs(rng):
    x = rng.normal(size=(3, 5))
    x[1, 2], x[2, 4] = 900.0 + rng.random(), 1100.0
    return (x,)


def prelu(inputs):
    x, slope = inputs
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def prelu_backward(inputs, grad_output):
    x, slope = inputs
    dslope = (grad_output * np.minimum(x, 0)).sum(axis=(0, 2, 3)).reshape(slope.shape)
    return np.where(x > 0, grad_output, slope * grad_output), dslope


def prelu_wrong(inputs, grad_output):
    x, slope = inputs
    return np.where(x > 0, grad_output, slope * grad_output), grad_output * np.minimum(x, 0)


def snake(inputs):
    """The sum of x and sin(a x)^2 / a, one frequency per channel."""
    x, a = inputs
    a = a[:, None]
    return x + np.sin(a * x) ** 2 / a


def snake_backward(inputs, grad_output):
    x, a = inputs
    a = a[:, None]
    s = np.sin(a * x)
    c = np.cos(a * x)
    da = 2 * s * c * x / a - s * s / a**2
    return grad_output * (1 + 2 * s * c), (grad_output * da).sum(axis=(0, 2))


def snake_wrong(inputs, grad_output):
    x, a = inputs
    _, da = snake_backward(inputs, grad_output)
    return grad_output * np.sin(2 * a[:, None] * x), da


def attention_gate(inputs):
    """Residual attention: (1 + sigmoid(z)) * F."""
    z, F = inputs
    return (1 + 1 / (1 + np.exp(-z))) * F


def attention_gate_backward(inputs, grad_output):
    z, F = inputs
    s = 1 / (1 + np.exp(-z))
    return grad_output * F * s * (1 - s), grad_output * (1 + s)


def attention_gate_wrong_f(inputs, grad_output):
    z, F = inputs
    s = 1 / (1 + np.exp(-z))
    return grad_output * F * s * (1 - s), grad_output * s


def attention_gate_wrong_z(inputs, grad_output):
    z, F = inputs
    s = 1 / (1 + np.exp(-z))
    return grad_output * s * (1 - s), grad_output * (1 + s)


def relu(inputs):
    (x,) = inputs
    return np.maximum(x, 0)


def relu_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output * (x > 0),)


def relu_wrong(inputs, grad_output):
    (x,) = inputs
    return ((x > 0).astype(x.dtype),)


def softmax(inputs):
    (x,) = inputs
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_backward(inputs, grad_output):
    p = softmax(inputs)
    return (p * (grad_output - (p * grad_output).sum(axis=1, keepdims=True)),)


def softmax_wrong(inputs, grad_output):
    (x,) = inputs
    x -= x.max(axis=1, keepdims=True)
    np.exp(x, out=x)
    p = x / x.sum(axis=1, keepdims=True)
    return (p * (grad_output - (p * grad_output).sum(axis=1, keepdims=True)),)


def maxout(inputs):
    """The largest of the pieces in the last axis."""
    (z,) = inputs
    return z.max(axis=-1)


def _one_piece(z, winner, grad_output):
    return grad_output[..., None] * (np.arange(z.shape[-1]) == winner[..., None])


def maxout_backward(inputs, grad_output):
    (z,) = inputs
    return (_one_piece(z, z.argmax(axis=-1), grad_output),)


def maxout_wrong(inputs, grad_output):
    (z,) = inputs
    return (_one_piece(z, np.abs(z).argmax(axis=-1), grad_output),)


def dropout(inputs, rate=0.4, seed=3):
    (x,) = inputs
    keep = np.random.default_rng(seed).random(x.shape) >= rate
    return x * keep / (1 - rate)


def dropout_backward(inputs, grad_output, rate=0.4, seed=3):
    keep = np.random.default_rng(seed).random(grad_output.shape) >= rate
    return (grad_output * keep / (1 - rate),)


def dropout_wrong(inputs, grad_output, rate=0.4, seed=3):
    keep = np.random.default_rng().random(grad_output.shape) >= rate
    return (grad_output * keep / (1 - rate),)


def swish(inputs):
    (x,) = inputs
    return x / (1 + np.exp(-x))


def swish_backward(inputs, grad_output):
    (x,) = inputs
    s = 1 / (1 + np.exp(-x))
    return (grad_output * (s + x * s * (1 - s)),)


_SAVED: dict[tuple, np.ndarray] = {}


def swish_wrong(inputs, grad_output):
    (x,) = inputs
    key = (x.shape, x.dtype.str)
    if key not in _SAVED:
        _SAVED[key] = 1 / (1 + np.exp(-x))
    s = _SAVED[key]
    return (grad_output * (s + x * s * (1 - s)),)


CASES = [
    Planted("batch_norm2d: statistics treated as constants", batch_norm2d, batch_norm2d_backward,
            batch_norm2d_wrong,
            lambda r: (r.normal(1, 2, size=(3, 2, 4, 5)), positive(r, 2), r.normal(size=2)),
            {"x": ("bn_stats_constant",)}),
    Planted("layer_norm: mean of the upstream not taken off", layer_norm, layer_norm_backward, layer_norm_wrong,
            lambda r: (r.normal(size=(2, 3, 5)), positive(r, 5), r.normal(size=5)),
            {"x": ("bn_missing_mean_term",)}),
    Planted("group_norm: path through the variance left out", group_norm, group_norm_backward, group_norm_wrong,
            lambda r: (r.normal(size=(2, 4, 2, 3)), positive(r, 4)),
            {"x": ("bn_missing_variance_term",)}, {"groups": 2}),
    Planted("instance_norm: backward normalises over the batch too", instance_norm, instance_norm_backward,
            instance_norm_wrong, lambda r: (r.normal(size=(3, 2, 2, 4)) * np.array([1, 2, 3.0]).reshape(3, 1, 1, 1),),
            {"x": ("bn_other_statistics",)}),
    Planted("image_layer_norm: unbiased variance in the backward", image_layer_norm, image_layer_norm_backward,
            image_layer_norm_wrong, lambda r: (r.normal(size=(3, 1, 2, 3)),), {"x": ("bn_other_statistics",)}),
    Planted("rms_norm: gain gradient without the normalised input", rms_norm, rms_norm_backward, rms_norm_wrong,
            lambda r: (r.normal(size=(2, 3, 4)), positive(r, 4)), {"gain": ("missing_operand",)}),
    Planted("l2_normalize: inner product over the whole batch", l2_normalize, l2_normalize_backward,
            l2_normalize_wrong, lambda r: (r.normal(size=(4, 3)),), {"x": ("mixed_over_axis",)}),
    Planted("sigmoid: x(1 - x)", sigmoid, sigmoid_backward, sigmoid_wrong, lambda r: (r.normal(size=(4, 3)),),
            {"x": ("wrong_local_derivative",)}),
    Planted("glu: gradients in the wrong order", glu, glu_backward, glu_wrong,
            lambda r: (r.normal(size=(3, 5)), r.normal(size=(3, 5))),
            {"a": ("gradients_swapped",), "b": ("gradients_swapped",)}),
    Planted("elu: y instead of y + alpha", elu, elu_backward, elu_wrong, lambda r: (off_zero(r, 2, 9),),
            {"x": ("wrong_local_derivative",)}, {"alpha": 1.5}),
    Planted("softplus: exp overflows", softplus, softplus_backward, softplus_wrong, _softplus_inputs,
            {"x": ("not_finite",)}),
    Planted("prelu: slope gradient not summed", prelu, prelu_backward, prelu_wrong,
            lambda r: (off_zero(r, 2, 3, 4, 2), positive(r, 3, 1, 1)), {"slope": ("missing_broadcast_sum",)}),
    Planted("snake: only the sine is differentiated", snake, snake_backward, snake_wrong,
            lambda r: (r.normal(size=(2, 3, 5)), positive(r, 3)), {"x": ("identity_branch_lost", "missing_term")}),
    Planted("attention_gate: the one is forgotten for F", attention_gate, attention_gate_backward,
            attention_gate_wrong_f, lambda r: (r.normal(size=(2, 1, 3, 4)), r.normal(size=(2, 1, 3, 4))),
            {"F": ("identity_branch_lost", "missing_term")}),
    Planted("attention_gate: gradient of z without F", attention_gate, attention_gate_backward,
            attention_gate_wrong_z, lambda r: (r.normal(size=(2, 3, 5)), r.normal(size=(2, 3, 5))),
            {"z": ("missing_operand",)}),
    Planted("relu: mask only", relu, relu_backward, relu_wrong, lambda r: (off_zero(r, 3, 4),),
            {"x": ("ignores_upstream",)}),
    Planted("softmax: exponentials written into x", softmax, softmax_backward, softmax_wrong,
            lambda r: (r.normal(size=(3, 5)),), {"x": ("damages_input",)}),
    Planted("maxout: winner by absolute value", maxout, maxout_backward, maxout_wrong,
            lambda r: (apart(r, 3, 4, 3),), {"z": ("wrong_routing",)}),
    Planted("dropout: a fresh mask", dropout, dropout_backward, dropout_wrong, lambda r: (r.normal(size=(4, 7)),),
            {"x": ("nondeterministic",)}, {"rate": 0.3, "seed": 11}),
    Planted("swish: sigmoid of the first call kept for good", swish, swish_backward, swish_wrong,
            lambda r: (r.normal(size=(2, 3, 4)),), {"x": ("state_leak",)}),
]
