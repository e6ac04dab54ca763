"""First sealed exam: losses."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(inputs, label_smoothing=0.0):
    """Mean cross-entropy of logits (N, K) and class numbers (N,)."""
    logits, target = inputs
    n, _k = logits.shape
    logp = logits - logits.max(1, keepdims=True)
    logp = logp - np.log(np.exp(logp).sum(1, keepdims=True))
    hard = logp[np.arange(n), target].mean()
    return -(1 - label_smoothing) * hard - label_smoothing * logp.mean()


def cross_entropy_backward(inputs, grad_output, label_smoothing=0.0):
    logits, target = inputs
    n, k = logits.shape
    d = _softmax(logits) - label_smoothing / k
    d[np.arange(n), target] -= 1 - label_smoothing
    return d * grad_output / n, None


def cross_entropy_backward_unsmoothed(inputs, grad_output, label_smoothing=0.0):
    logits, target = inputs
    n = len(logits)
    d = _softmax(logits)
    d[np.arange(n), target] -= 1
    return d * grad_output / n, None


def cross_entropy_backward_one_hot_forgotten(inputs, grad_output, label_smoothing=0.0):
    logits, _target = inputs
    return _softmax(logits) * grad_output / len(logits), None


def cross_entropy_inputs(rng):
    return rng.normal(size=(5, 4)), rng.integers(0, 4, 5)


def mse(inputs):
    """Mean squared difference, a number."""
    prediction, target = inputs
    return ((prediction - target) ** 2).mean()


def mse_backward(inputs, grad_output):
    prediction, target = inputs
    d = 2 * (prediction - target) / prediction.size * grad_output
    return d, -d


def mse_backward_without_upstream(inputs, grad_output):
    prediction, target = inputs
    d = 2 * (prediction - target) / prediction.size
    return d, -d * grad_output


def mse_inputs(rng):
    return rng.normal(size=(3, 5)), rng.normal(size=(3, 5))


def huber(inputs, delta=0.5):
    """Quadratic for small residuals, linear for large ones; one value per sample."""
    y, t = inputs
    r = np.abs(y - t)
    return np.where(r <= delta, r * r / 2, delta * (r - delta / 2)).sum(1)


def huber_backward(inputs, grad_output, delta=0.5):
    y, t = inputs
    d = np.clip(y - t, -delta, delta) * grad_output[:, None]
    return d, -d


def huber_backward_sign_outside(inputs, grad_output, delta=0.5):
    y, t = inputs
    r = y - t
    g = grad_output[:, None]
    return g * np.where(np.abs(r) <= delta, r, np.sign(r)), -np.clip(r, -delta, delta) * g


def huber_inputs(rng):
    return rng.normal(size=(4, 6)), rng.normal(size=(4, 6))


def bce_logits(inputs):
    """Binary cross-entropy of logits, weighted per sample, summed over the row."""
    z, t, weight = inputs
    return ((np.logaddexp(0, z) - t * z) * weight).sum(1)


def bce_logits_backward(inputs, grad_output):
    z, t, weight = inputs
    g = grad_output[:, None]
    p = 1 / (1 + np.exp(-z))
    return g * (p - t) * weight, -g * z * weight, g * (np.logaddexp(0, z) - t * z)


def bce_logits_backward_sigmoid_forgotten(inputs, grad_output):
    z, t, weight = inputs
    g = grad_output[:, None]
    return g * (z - t) * weight, -g * z * weight, g * (np.logaddexp(0, z) - t * z)


def bce_logits_inputs(rng):
    return rng.normal(size=(3, 5)) * 2, rng.uniform(0, 1, (3, 5)), rng.uniform(0.5, 2, (3, 5))


def kl_divergence(inputs):
    """Sum of p log(p / q) per row, for positive numbers that need not add up to one."""
    p, q = inputs
    return (p * np.log(p / q)).sum(-1)


def kl_divergence_backward(inputs, grad_output):
    p, q = inputs
    g = grad_output[..., None]
    return g * (np.log(p / q) + 1), -g * p / q


def kl_divergence_backward_plus_one_forgotten(inputs, grad_output):
    p, q = inputs
    g = grad_output[..., None]
    return g * np.log(p / q), -g * p / q


def kl_divergence_backward_minus_forgotten(inputs, grad_output):
    p, q = inputs
    g = grad_output[..., None]
    return g * (np.log(p / q) + 1), g * p / q


def kl_divergence_inputs(rng):
    return rng.uniform(0.1, 1, (4, 3)), rng.uniform(0.1, 1, (4, 3))


def info_nce(inputs, temperature=0.5):
    """Contrastive loss: row i of one view should match row i of the other; one loss per row."""
    a, b = inputs
    logits = a @ b.T / temperature
    m = logits.max(1)
    return m + np.log(np.exp(logits - m[:, None]).sum(1)) - np.diag(logits)


def info_nce_backward(inputs, grad_output, temperature=0.5):
    a, b = inputs
    d = (_softmax(a @ b.T / temperature) - np.eye(len(a), dtype=a.dtype)) * grad_output[:, None] / temperature
    return d @ b, d.T @ a


def info_nce_backward_views_exchanged(inputs, grad_output, temperature=0.5):
    a, b = inputs
    d = (_softmax(a @ b.T / temperature) - np.eye(len(a), dtype=a.dtype)) * grad_output[:, None] / temperature
    from_b, from_a = d @ b, d.T @ a
    return from_a, from_b


def info_nce_inputs(rng):
    return rng.normal(size=(4, 6)), rng.normal(size=(4, 6))


def gaussian_nll(inputs):
    """Negative log-likelihood of x under a normal distribution with mean mu and standard deviation sigma."""
    x, mu, sigma = inputs
    return (x - mu) ** 2 / (2 * sigma**2) + np.log(sigma)


def gaussian_nll_backward(inputs, grad_output):
    x, mu, sigma = inputs
    r = (x - mu) / sigma**2
    return grad_output * r, -grad_output * r, grad_output * (1 / sigma - (x - mu) ** 2 / sigma**3)


def gaussian_nll_backward_mu_without_precision(inputs, grad_output):
    x, mu, sigma = inputs
    r = (x - mu) / sigma**2
    return grad_output * r, -grad_output * (x - mu), grad_output * (1 / sigma - (x - mu) ** 2 / sigma**3)


def gaussian_nll_inputs(rng):
    return rng.normal(size=(2, 7)), rng.normal(size=(2, 7)), rng.uniform(0.4, 2, (2, 7))


def pinball(inputs, tau=0.2):
    """Quantile loss: too low costs tau, too high costs 1 - tau."""
    forecast, truth = inputs
    r = truth - forecast
    return np.maximum(tau * r, (tau - 1) * r)


def pinball_backward(inputs, grad_output, tau=0.2):
    forecast, truth = inputs
    slope = np.where(truth > forecast, tau, tau - 1).astype(truth.dtype)
    return -grad_output * slope, grad_output * slope


def pinball_backward_sides_exchanged(inputs, grad_output, tau=0.2):
    forecast, truth = inputs
    slope = np.where(truth > forecast, tau, tau - 1).astype(truth.dtype)
    mixed_up = np.where(truth > forecast, 1 - tau, -tau).astype(truth.dtype)
    return -grad_output * mixed_up, grad_output * slope


def pinball_inputs(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


def triplet(inputs, margin=20.0):
    """Squared distance to a like sample minus that to an unlike one, plus a margin, never below zero."""
    anchor, like, unlike = inputs
    return np.maximum(((anchor - like) ** 2).sum(1) - ((anchor - unlike) ** 2).sum(1) + margin, 0)


def _triplet(inputs, g, margin):
    anchor, like, unlike = inputs
    active = (triplet(inputs, margin) > 0)[:, None] * g[:, None]
    return active * 2 * (unlike - like), active * 2 * (like - anchor), active * 2 * (anchor - unlike)


def triplet_backward(inputs, grad_output, margin=20.0):
    _anchor, _like, _unlike = inputs
    return _triplet(inputs, grad_output, margin)


def triplet_backward_two_missing(inputs, grad_output, margin=20.0):
    _anchor, _like, _unlike = inputs
    da, dl, du = _triplet(inputs, grad_output, margin)
    return da, dl, du / 2


def triplet_inputs(rng):
    return rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))


def ranked_distance(inputs):
    """Wasserstein distance of two samples on a line: mean absolute difference of the sorted values, per row."""
    a, b = inputs
    return np.abs(np.sort(a, 1) - np.sort(b, 1)).mean(1)


def ranked_distance_backward(inputs, grad_output):
    a, b = inputs
    d = np.sign(np.sort(a, 1) - np.sort(b, 1)) * grad_output[:, None] / a.shape[1]
    da, db = np.empty_like(a), np.empty_like(b)
    np.put_along_axis(da, a.argsort(1), d, 1)
    np.put_along_axis(db, b.argsort(1), -d, 1)
    return da, db


def ranked_distance_backward_constant_is_pulled_in(inputs, grad_output):
    a, b = inputs
    n = a.shape[1]
    d = np.sign(np.sort(a, 1) - np.sort(b, 1)) * grad_output[:, None]
    da, db = np.empty_like(a), np.empty_like(b)
    np.put_along_axis(da, a.argsort(1), d * (1 // n), 1)
    np.put_along_axis(db, b.argsort(1), -d / n, 1)
    return da, db


def ranked_distance_inputs(rng):
    return rng.normal(size=(3, 6)), rng.normal(0.8, 1.3, size=(3, 6))


def logit_range(inputs):
    """Log of the sum of exponentials, stable, over all entries."""
    (x,) = inputs
    top = x.max()
    return top + np.log(np.exp(x - top).sum())


def logit_range_backward(inputs, grad_output):
    (x,) = inputs
    e = np.exp(x - x.max())
    return (grad_output * e / e.sum(),)


def logit_range_backward_float32_inside(inputs, grad_output):
    (x,) = inputs
    e = np.exp((x - x.max()).astype(np.float32))
    return ((grad_output * e / e.sum()).astype(x.dtype),)


def logit_range_inputs(rng):
    return (rng.normal(size=(3, 4)),)


CASES = [
    Planted("cross_entropy: label smoothing is forgotten", cross_entropy, cross_entropy_backward,
            cross_entropy_backward_unsmoothed, cross_entropy_inputs, {"logits": ("wrong_variant",)},
            {"label_smoothing": 0.3}),
    Planted("cross_entropy: the one-hot is not subtracted", cross_entropy, cross_entropy_backward,
            cross_entropy_backward_one_hot_forgotten, cross_entropy_inputs, {"logits": ("missing_term",)}),
    Planted("mse: the upstream is not used for the prediction", mse, mse_backward, mse_backward_without_upstream, mse_inputs,
            {"prediction": ("ignores_upstream",)}),
    Planted("huber: the slope outside is the sign without delta", huber, huber_backward, huber_backward_sign_outside,
            huber_inputs, {"y": ("wrong_local_derivative",)}),
    Planted("bce_logits: logits instead of probabilities", bce_logits, bce_logits_backward,
            bce_logits_backward_sigmoid_forgotten, bce_logits_inputs, {"z": ("wrong_local_derivative",)}),
    Planted("kl_divergence: the product rule's plus one", kl_divergence, kl_divergence_backward,
            kl_divergence_backward_plus_one_forgotten, kl_divergence_inputs, {"p": ("missing_term",)}),
    Planted("kl_divergence: the minus of the denominator", kl_divergence, kl_divergence_backward,
            kl_divergence_backward_minus_forgotten, kl_divergence_inputs, {"q": ("sign_flipped",)}),
    Planted("info_nce: the two views' gradients are exchanged", info_nce, info_nce_backward,
            info_nce_backward_views_exchanged, info_nce_inputs,
            {"a": ("gradients_swapped",), "b": ("gradients_swapped",)}),
    Planted("gaussian_nll: the mean's gradient is not divided by the variance", gaussian_nll, gaussian_nll_backward,
            gaussian_nll_backward_mu_without_precision, gaussian_nll_inputs, {"mu": ("missing_operand",)}),
    Planted("pinball: the two slopes are mixed up", pinball, pinball_backward, pinball_backward_sides_exchanged,
            pinball_inputs, {"forecast": ("wrong_local_derivative", "wrong_variant")}),
    Planted("triplet: the two of the square is missing for the unlike sample", triplet, triplet_backward,
            triplet_backward_two_missing, triplet_inputs, {"unlike": ("constant_factor",)}),
    Planted("ranked distance: an integer division makes the factor zero", ranked_distance, ranked_distance_backward,
            ranked_distance_backward_constant_is_pulled_in, ranked_distance_inputs, {"a": ("zero_gradient",)}),
    Planted("log-sum-exp: exponentials in single precision", logit_range, logit_range_backward,
            logit_range_backward_float32_inside, logit_range_inputs, {"x": ("low_precision",)}),
]
