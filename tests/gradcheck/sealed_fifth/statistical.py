"""Losses, norms and statistics."""
# ruff: noqa: RUF059  (the packed style names every input)

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def soft(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------- log-cosh loss
def log_cosh(inputs):
    """The mean of log cosh of the error."""
    pred, target = inputs
    return np.log(np.cosh(pred - target)).mean()


def log_cosh_right(inputs, grad_output):
    pred, target = inputs
    d = grad_output * np.tanh(pred - target) / pred.size
    return d, -d


def log_cosh_wrong(inputs, grad_output):
    pred, target = inputs
    d = np.tanh(pred - target) / pred.size
    return d, -grad_output * d


# ---------------------------------------------------------------- linear map
def linear(inputs):
    """x @ w."""
    x, w = inputs
    return x @ w


def linear_right(inputs, grad_output):
    x, w = inputs
    return grad_output @ w.T, x.T @ grad_output


def linear_wrong(inputs, grad_output):
    x, w = inputs
    return grad_output @ w.T, x.T @ grad_output + 0.05 * w


# ---------------------------------------------------------------- Huber loss
def huber(inputs, delta=1.0):
    """The sum over the features, a value per sample."""
    pred, target = inputs
    e = pred - target
    a = np.abs(e)
    return np.where(a < delta, 0.5 * e * e, delta * (a - 0.5 * delta)).sum(axis=1)


def huber_right(inputs, grad_output, delta=1.0):
    pred, target = inputs
    d = grad_output[:, None] * np.clip(pred - target, -delta, delta)
    return d, -d


def huber_wrong(inputs, grad_output, delta=1.0):
    pred, target = inputs
    d = grad_output[:, None] * np.clip(pred - target, -delta, delta)
    return d, np.zeros_like(target)


# ---------------------------------------------------------------- sample variance
def sample_variance(inputs):
    """The unbiased variance of every row."""
    (x,) = inputs
    return np.var(x, axis=1, ddof=1)


def sample_variance_right(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, None] * 2 * (x - x.mean(axis=1, keepdims=True)) / (x.shape[1] - 1),)


def sample_variance_wrong(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, None] * 2 * (x - x.mean(axis=1, keepdims=True)) / x.shape[1],)


# ---------------------------------------------------------------- cross-entropy with smoothed targets
def smoothed(labels, k, smoothing, dtype):
    q = np.full((len(labels), k), smoothing / k, dtype)
    q[np.arange(len(labels)), labels] += 1 - smoothing
    return q


def cross_entropy(inputs, smoothing=0.1):
    """The mean cross-entropy of logits against smoothed labels."""
    z, labels = inputs
    q = smoothed(labels, z.shape[1], smoothing, z.dtype)
    top = z.max(axis=1, keepdims=True)
    logp = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    return -(q * logp).sum() / len(z)


def cross_entropy_right(inputs, grad_output, smoothing=0.1):
    z, labels = inputs
    q = smoothed(labels, z.shape[1], smoothing, z.dtype)
    return grad_output * (soft(z) - q) / len(z), None


def cross_entropy_wrong(inputs, grad_output, smoothing=0.1):
    z, labels = inputs
    return grad_output * soft(z) / len(z), None


# ---------------------------------------------------------------- quadratic form
def quadratic(inputs):
    """x' A x for every row x."""
    x, a = inputs
    return ((x @ a) * x).sum(axis=1)


def quadratic_right(inputs, grad_output):
    x, a = inputs
    return grad_output[:, None] * (x @ a + x @ a.T), x.T @ (grad_output[:, None] * x)


def quadratic_wrong(inputs, grad_output):
    x, a = inputs
    return grad_output[:, None] * (x @ a.T), x.T @ (grad_output[:, None] * x)


# ---------------------------------------------------------------- norms of all sorts
def standard(x, axes, eps):
    m = x.mean(axis=axes, keepdims=True)
    inv = 1 / np.sqrt(((x - m) ** 2).mean(axis=axes, keepdims=True) + eps)
    return (x - m) * inv, inv


def unstandard(g, xhat, inv, axes):
    return inv * (g - g.mean(axis=axes, keepdims=True) - xhat * (g * xhat).mean(axis=axes, keepdims=True))


def instance_norm(inputs, eps=1e-3):
    """Every channel of every image by itself."""
    x, gamma, beta = inputs
    xhat, _ = standard(x, (2, 3), eps)
    return xhat * gamma[:, None, None] + beta[:, None, None]


def instance_norm_right(inputs, grad_output, eps=1e-3):
    x, gamma, beta = inputs
    xhat, inv = standard(x, (2, 3), eps)
    dx = unstandard(grad_output * gamma[:, None, None], xhat, inv, (2, 3))
    return dx, (grad_output * xhat).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


def instance_norm_wrong(inputs, grad_output, eps=1e-3):
    x, gamma, beta = inputs
    xhat, inv = standard(x, (2, 3), eps)
    dx = grad_output * gamma[:, None, None] * inv
    return dx, (grad_output * xhat).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


def batch_norm(inputs, eps=1e-3):
    """Every channel over the batch and the image, by the batch's own statistics."""
    x, gamma, beta = inputs
    xhat, _ = standard(x, (0, 2, 3), eps)
    return xhat * gamma[None, :, None, None] + beta[None, :, None, None]


def batch_norm_right(inputs, grad_output, eps=1e-3):
    x, gamma, beta = inputs
    xhat, inv = standard(x, (0, 2, 3), eps)
    dx = unstandard(grad_output * gamma[None, :, None, None], xhat, inv, (0, 2, 3))
    return dx, (grad_output * xhat).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


def batch_norm_wrong(inputs, grad_output, eps=1e-3):
    x, gamma, beta = inputs
    xhat, inv = standard(x, (0, 2, 3), eps)
    g = grad_output * gamma[None, :, None, None]
    dx = inv * (g - xhat * (g * xhat).mean(axis=(0, 2, 3), keepdims=True))
    return dx, (grad_output * xhat).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


def layer_norm(inputs, eps=1e-3):
    """The last axis of (N, T, D)."""
    x, gamma, beta = inputs
    xhat, _ = standard(x, (-1,), eps)
    return xhat * gamma + beta


def layer_norm_right(inputs, grad_output, eps=1e-3):
    x, gamma, beta = inputs
    xhat, inv = standard(x, (-1,), eps)
    dx = unstandard(grad_output * gamma, xhat, inv, (-1,))
    return dx, (grad_output * xhat).sum(axis=(0, 1)), grad_output.sum(axis=(0, 1))


def layer_norm_wrong(inputs, grad_output, eps=1e-3):
    x, gamma, beta = inputs
    xhat, inv = standard(x, (-1,), eps)
    g = grad_output * gamma
    dx = inv * (g - g.mean(axis=-1, keepdims=True))
    return dx, (grad_output * xhat).sum(axis=(0, 1)), grad_output.sum(axis=(0, 1))


def group_norm(inputs, groups=2, eps=1e-3):
    """Groups of channels of (N, C, L)."""
    x, gamma, beta = inputs
    xhat, _ = standard(x.reshape(len(x), groups, -1), (2,), eps)
    return xhat.reshape(x.shape) * gamma[:, None] + beta[:, None]


def group_norm_right(inputs, grad_output, groups=2, eps=1e-3):
    x, gamma, beta = inputs
    xhat, inv = standard(x.reshape(len(x), groups, -1), (2,), eps)
    g = (grad_output * gamma[:, None]).reshape(xhat.shape)
    dx = unstandard(g, xhat, inv, (2,)).reshape(x.shape).copy()
    return dx, (grad_output * xhat.reshape(x.shape)).sum(axis=(0, 2)), grad_output.sum(axis=(0, 2))


def group_norm_wrong(inputs, grad_output, groups=2, eps=1e-3):
    x, gamma, beta = inputs
    flat = x.reshape(len(x), groups, -1)
    xhat, _ = standard(flat, (2,), eps)
    g = (grad_output * gamma[:, None]).reshape(flat.shape)
    inv = 1 / np.sqrt(flat.var(axis=2, ddof=1, keepdims=True) + eps)
    dx = unstandard(g, (flat - flat.mean(axis=2, keepdims=True)) * inv, inv, (2,)).reshape(x.shape).copy()
    return dx, (grad_output * xhat.reshape(x.shape)).sum(axis=(0, 2)), grad_output.sum(axis=(0, 2))


def z_score(inputs, eps=1e-3):
    """Every series of (N, T) to mean zero and variance one."""
    (x,) = inputs
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(np.var(x, axis=1, keepdims=True) + eps)


def z_score_right(inputs, grad_output, eps=1e-3):
    (x,) = inputs
    xhat, inv = standard(x, (1,), eps)
    return (unstandard(grad_output, xhat, inv, (1,)),)


def z_score_wrong(inputs, grad_output, eps=1e-3):
    (x,) = inputs
    std = np.sqrt(np.var(x, axis=1, keepdims=True) + eps)
    return ((grad_output - grad_output.mean(axis=1, keepdims=True)) / std,)


# ---------------------------------------------------------------- row lengths
def row_length(inputs):
    """The Euclidean length of every row."""
    (x,) = inputs
    return np.sqrt((x * x).sum(axis=1))


def row_length_right(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, None] * x / np.sqrt((x * x).sum(axis=1, keepdims=True)),)


def row_length_wrong(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, None] * 2 * x,)


# ---------------------------------------------------------------- softmax
def softmax(inputs, temperature=1.5):
    """Softmax over the middle axis of (N, K, L)."""
    (x,) = inputs
    e = np.exp((x - x.max(axis=1, keepdims=True)) / temperature)
    return e / e.sum(axis=1, keepdims=True)


def softmax_right(inputs, grad_output, temperature=1.5):
    (x,) = inputs
    p = softmax((x,), temperature)
    return (p * (grad_output - (p * grad_output).sum(axis=1, keepdims=True)) / temperature,)


def softmax_wrong(inputs, grad_output, temperature=1.5):
    (x,) = inputs
    x -= x.max(axis=1, keepdims=True)
    e = np.exp(x / temperature)
    p = e / e.sum(axis=1, keepdims=True)
    return (p * (grad_output - (p * grad_output).sum(axis=1, keepdims=True)) / temperature,)


# ---------------------------------------------------------------- log of a sum of exponentials
def log_sum_exp(inputs):
    """Over the last axis."""
    (x,) = inputs
    top = x.max(axis=-1, keepdims=True)
    return np.log(np.exp(x - top).sum(axis=-1)) + top[..., 0]


def log_sum_exp_right(inputs, grad_output):
    (x,) = inputs
    return (grad_output[..., None] * soft(x),)


def log_sum_exp_wrong(inputs, grad_output):
    (x,) = inputs
    p = soft(x.astype(np.float32))
    return ((grad_output[..., None].astype(np.float32) * p).astype(x.dtype),)


def huber_inputs(rng):
    target = rng.normal(size=(3, 6))
    gap = rng.uniform(0.1, 0.9, (3, 6)) + np.where(rng.random((3, 6)) < 0.4, 1.0, 0.0)
    gap[np.abs(gap - 1) < 0.05] += 0.1
    return target + gap * rng.choice([-1.0, 1.0], (3, 6)), target


CASES = [
    Planted(
        "log-cosh loss: the prediction's gradient does not look at the upstream", log_cosh, log_cosh_right, log_cosh_wrong,
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3))), {"pred": ("ignores_upstream",)},
    ),
    Planted(
        "linear map: weight decay is added inside the backward", linear, linear_right, linear_wrong,
        lambda rng: (rng.normal(size=(5, 4)), rng.normal(size=(4, 3))), {"w": ("ignores_upstream",)},
    ),
    Planted(
        "huber loss: the target is taken for a constant", huber, huber_right, huber_wrong,
        huber_inputs, {"target": ("zero_gradient",)}, {"delta": 1.0},
    ),
    Planted(
        "sample variance: divided by n in the backward", sample_variance, sample_variance_right, sample_variance_wrong,
        lambda rng: (rng.normal(size=(4, 7)),), {"x": ("constant_factor",)},
    ),
    Planted(
        "smoothed cross-entropy: the targets are not subtracted", cross_entropy, cross_entropy_right, cross_entropy_wrong,
        lambda rng: (rng.normal(size=(5, 4)), rng.integers(0, 4, 5)), {"z": ("missing_term",)}, {"smoothing": 0.1},
    ),
    Planted(
        "quadratic form: only one of the two x is differentiated", quadratic, quadratic_right, quadratic_wrong,
        lambda rng: (rng.normal(size=(3, 4)), rng.normal(size=(4, 4))), {"x": ("missing_term",)},
    ),
    Planted(
        "instance norm: mean and variance held fixed", instance_norm, instance_norm_right, instance_norm_wrong,
        lambda rng: (rng.normal(size=(2, 3, 4, 5)), rng.uniform(0.5, 2, 3), rng.normal(size=3)),
        {"x": ("bn_stats_constant",)}, {"eps": 1e-3},
    ),
    Planted(
        "batch norm: the path through the mean is missing", batch_norm, batch_norm_right, batch_norm_wrong,
        lambda rng: (rng.normal(size=(4, 3, 2, 5)) + 0.5, rng.uniform(0.5, 2, 3), rng.normal(size=3)),
        {"x": ("bn_missing_mean_term",)}, {"eps": 1e-3},
    ),
    Planted(
        "layer norm: the path through the variance is missing", layer_norm, layer_norm_right, layer_norm_wrong,
        lambda rng: (rng.normal(size=(2, 3, 7)), rng.uniform(0.5, 2, 7), rng.normal(size=7)),
        {"x": ("bn_missing_variance_term",)}, {"eps": 1e-3},
    ),
    Planted(
        "group norm: unbiased variance in the backward", group_norm, group_norm_right, group_norm_wrong,
        lambda rng: (rng.normal(size=(3, 4, 5)), rng.uniform(0.5, 2, 4), rng.normal(size=4)),
        {"x": ("bn_other_statistics",)}, {"groups": 2, "eps": 1e-3},
    ),
    Planted(
        "z-score: the standard deviation is held fixed", z_score, z_score_right, z_score_wrong,
        lambda rng: (rng.normal(size=(4, 9)) * 2,), {"x": ("bn_missing_variance_term",)}, {"eps": 1e-3},
    ),
    Planted(
        "row length: the outer square root is not differentiated", row_length, row_length_right, row_length_wrong,
        lambda rng: (rng.normal(size=(6, 4)),), {"x": ("missing_chain_factor",)},
    ),
    Planted(
        "softmax: subtracts the maximum in place", softmax, softmax_right, softmax_wrong,
        lambda rng: (rng.normal(size=(2, 5, 3)),), {"x": ("damages_input",)}, {"temperature": 1.5},
    ),
    Planted(
        "log-sum-exp: single precision inside", log_sum_exp, log_sum_exp_right, log_sum_exp_wrong,
        lambda rng: (rng.normal(size=(3, 2, 6)),), {"x": ("low_precision",)},
    ),
]
