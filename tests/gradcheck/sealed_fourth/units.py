"""Activations, gates, residual units and losses."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * z))


def softsign(inputs):
    """Input over one plus its size."""
    (x,) = inputs
    return x / (1 + np.abs(x))


def softsign_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output / (1 + np.abs(x)) ** 2,)


def softsign_other_slope(inputs, grad_output):
    (x,) = inputs
    return (grad_output / (1 + x**2),)


def softplus(inputs):
    """A smooth ramp, safe for large x."""
    (x,) = inputs
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output * _sigmoid(x),)


def softplus_overflow(inputs, grad_output):
    (x,) = inputs
    with np.errstate(all="ignore"):
        e = np.exp(x)
        return (grad_output * e / (1 + e),)


def channel_gate(inputs):
    """(1 + sigmoid(z)) times the features, one gate per channel."""
    z, feat = inputs  # (N, C), (N, C, H, W)
    return (1 + _sigmoid(z))[:, :, None, None] * feat


def channel_gate_backward(inputs, grad_output):
    z, feat = inputs
    s = _sigmoid(z)
    dz = (grad_output * feat).sum((2, 3)) * s * (1 - s)
    return dz, grad_output * (1 + s)[:, :, None, None]


def channel_gate_one_lost(inputs, grad_output):
    z, feat = inputs
    s = _sigmoid(z)
    dz = (grad_output * feat).sum((2, 3)) * s * (1 - s)
    return dz, grad_output * s[:, :, None, None]


def spatial_gate(inputs):
    """One gate per pixel for all channels."""
    feat, z = inputs  # (N, C, H, W), (N, 1, H, W)
    return feat * _sigmoid(z)


def spatial_gate_backward(inputs, grad_output):
    feat, z = inputs
    s = _sigmoid(z)
    return grad_output * s, (grad_output * feat).sum(1, keepdims=True) * s * (1 - s)


def spatial_gate_z_raw(inputs, grad_output):
    feat, z = inputs
    return grad_output * _sigmoid(z), grad_output * feat


def squeeze_excite(inputs):
    """Channels weighted by a small network that sees their means."""
    x, w1, w2 = inputs  # (N, C, H, W), (R, C), (C, R)
    hidden = np.maximum(x.mean((2, 3)) @ w1.T, 0)
    return x * _sigmoid(hidden @ w2.T)[:, :, None, None]


def _se(x, w1, w2, g):
    m = x.mean((2, 3))
    pre = m @ w1.T
    hidden = np.maximum(pre, 0)
    s = _sigmoid(hidden @ w2.T)
    du = (g * x).sum((2, 3)) * s * (1 - s)
    dpre = (du @ w2) * (pre > 0)
    return g * s[:, :, None, None], dpre @ w1 / (x.shape[2] * x.shape[3]), dpre.T @ m, du.T @ hidden


def squeeze_excite_backward(inputs, grad_output):
    x, w1, w2 = inputs
    direct, through_mean, dw1, dw2 = _se(x, w1, w2, grad_output)
    return direct + through_mean[:, :, None, None], dw1, dw2


def squeeze_excite_direct_only(inputs, grad_output):
    x, w1, w2 = inputs
    direct, _, dw1, dw2 = _se(x, w1, w2, grad_output)
    return direct, dw1, dw2


def residual_mlp(inputs):
    """Input plus a two-layer network of it."""
    x, w1, w2 = inputs  # (N, D), (D, M), (M, D)
    return x + np.maximum(x @ w1, 0) @ w2


def residual_mlp_backward(inputs, grad_output):
    x, w1, w2 = inputs
    a = x @ w1
    da = np.where(a > 0, grad_output @ w2.T, 0)
    return grad_output + da @ w1.T, x.T @ da, np.maximum(a, 0).T @ grad_output


def residual_mlp_skip_lost(inputs, grad_output):
    x, w1, w2 = inputs
    a = x @ w1
    da = np.where(a > 0, grad_output @ w2.T, 0)
    dx = da @ w1.T
    return dx, x.T @ da, np.maximum(a, 0).T @ grad_output


def film(inputs):
    """Features scaled and moved by a condition."""
    x, gamma, beta = inputs  # (N, C, L), (N, C), (N, C)
    return x * gamma[..., None] + beta[..., None]


def film_backward(inputs, grad_output):
    x, gamma, _beta = inputs
    return grad_output * gamma[..., None], (grad_output * x).sum(-1), grad_output.sum(-1)


def film_order(inputs, grad_output):
    x, gamma, _beta = inputs
    return grad_output * gamma[..., None], grad_output.sum(-1), (grad_output * x).sum(-1)


def prelu(inputs):
    """A learnt slope per channel below zero."""
    x, alpha = inputs  # (N, C, H, W), (C,)
    return np.where(x > 0, x, alpha[:, None, None] * x)


def prelu_backward(inputs, grad_output):
    x, alpha = inputs
    dx = np.where(x > 0, grad_output, grad_output * alpha[:, None, None])
    return dx, (grad_output * np.minimum(x, 0)).sum((0, 2, 3))


def prelu_one_slope(inputs, grad_output):
    x, alpha = inputs
    dx = np.where(x > 0, grad_output, grad_output * alpha[:, None, None])
    return dx, np.full_like(alpha, (grad_output * np.minimum(x, 0)).sum())


def log_softmax(inputs, axis=-1):
    """Logarithm of the softmax."""
    (x,) = inputs
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def log_softmax_backward(inputs, grad_output, axis=-1):
    return (grad_output - np.exp(log_softmax(inputs, axis)) * grad_output.sum(axis, keepdims=True),)


def log_softmax_sum_of_all(inputs, grad_output, axis=-1):
    return (grad_output - np.exp(log_softmax(inputs, axis)) * grad_output.sum(),)


def leaky_relu(inputs, slope=0.1):
    """A small slope below zero."""
    (x,) = inputs
    return np.where(x < 0, slope * x, x)


def leaky_relu_backward(inputs, grad_output, slope=0.1):
    (x,) = inputs
    return (np.where(x < 0, slope * grad_output, grad_output),)


def leaky_relu_in_place(inputs, grad_output, slope=0.1):
    (x,) = inputs
    grad_output[x < 0] *= slope
    return (grad_output.copy(),)


def dropout(inputs, p=0.4, seed=7):
    """Inverted dropout with a fixed seed."""
    (x,) = inputs
    keep = np.random.default_rng(seed).random(x.shape) >= p
    return x * keep / (1 - p)


def dropout_backward(inputs, grad_output, p=0.4, seed=7):
    keep = np.random.default_rng(seed).random(grad_output.shape) >= p
    return (grad_output * keep / (1 - p),)


def dropout_drawn_again(inputs, grad_output, p=0.4, seed=7):
    keep = np.random.default_rng().random(grad_output.shape) >= p
    return (grad_output * keep / (1 - p),)


def mse_loss(inputs, reduction="mean"):
    """Squared difference, averaged or summed."""
    pred, target = inputs
    total = ((pred - target) ** 2).sum()
    return total / pred.size if reduction == "mean" else total


def mse_loss_backward(inputs, grad_output, reduction="mean"):
    pred, target = inputs
    d = 2 * grad_output * (pred - target)
    if reduction == "mean":
        d = d / pred.size
    return d, -d


def mse_loss_start_of_chain(inputs, grad_output, reduction="mean"):
    pred, target = inputs
    d = 2 * (pred - target)
    if reduction == "mean":
        d = d / pred.size
    return d, -d


def dice_loss(inputs):
    """One minus the overlap of soft masks, for each sample."""
    p, mask = inputs  # (N, H, W), ints (N, H, W)
    m = mask.astype(p.dtype)
    return 1 - 2 * (p * m).sum((1, 2)) / (p.sum((1, 2)) + m.sum((1, 2)))


def _dice_slope(p, mask):
    m = mask.astype(p.dtype)
    top = 2 * (p * m).sum((1, 2), keepdims=True)
    low = p.sum((1, 2), keepdims=True) + m.sum((1, 2), keepdims=True)
    return top / low**2 - 2 * m / low


def dice_loss_backward(inputs, grad_output):
    p, mask = inputs
    return grad_output[:, None, None] * _dice_slope(p, mask), None


def dice_loss_added(inputs, grad_output):
    p, mask = inputs
    return np.zeros_like(p) + _dice_slope(p, mask), None


def rare_class_nll(inputs):
    """Negative log-likelihood; frequent classes weigh less."""
    logp, labels = inputs  # (N, K), ints (N,)
    n, k = logp.shape
    weight = (1 / (1 + np.bincount(labels, minlength=k))).astype(logp.dtype)
    return -(weight[labels] * logp[np.arange(n), labels]).sum()


def _rare_weights(logp, labels):
    return (1 / (1 + np.bincount(labels, minlength=logp.shape[1]))).astype(logp.dtype)


def rare_class_nll_backward(inputs, grad_output):
    logp, labels = inputs
    d = np.zeros_like(logp)
    d[np.arange(len(labels)), labels] = -grad_output * _rare_weights(logp, labels)[labels]
    return d, None


def rare_class_nll_weight_by_row(inputs, grad_output):
    logp, labels = inputs
    weight = _rare_weights(logp, labels)
    d = np.zeros_like(logp)
    for i, c in enumerate(labels):
        d[i, c] = -grad_output * weight[i]
    return d, None


def bce_with_logits(inputs):
    """Binary cross-entropy for each logit."""
    z, target = inputs  # (N, M), ints (N, M)
    t = target.astype(z.dtype)
    return np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))


def bce_with_logits_backward(inputs, grad_output):
    z, target = inputs
    return grad_output * (_sigmoid(z) - target.astype(z.dtype)), None


def bce_with_logits_single(inputs, grad_output):
    z, target = inputs
    return (grad_output * (_sigmoid(z) - target)).astype(np.float32), None


def soft_cross_entropy(inputs):
    """Cross-entropy against soft targets, mean over the batch."""
    z, t = inputs  # (N, K), (N, K)
    return -(t * log_softmax((z,))).sum() / len(z)


def soft_cross_entropy_backward(inputs, grad_output):
    z, t = inputs
    lp = log_softmax((z,))
    dz = (np.exp(lp) * t.sum(1, keepdims=True) - t) * grad_output / len(z)
    return dz, -lp * grad_output / len(z)


def soft_cross_entropy_targets_fixed(inputs, grad_output):
    z, t = inputs
    dz = (np.exp(log_softmax((z,))) * t.sum(1, keepdims=True) - t) * grad_output / len(z)
    return dz, np.zeros_like(t)


def triplet_loss(inputs, margin=1.0):
    """The positive must be nearer than the negative by a margin."""
    a, p, n = inputs  # (N, D) each
    gap = ((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1) + margin
    return np.maximum(gap, 0).mean()


def triplet_loss_backward(inputs, grad_output, margin=1.0):
    a, p, n = inputs
    on = ((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1) + margin > 0
    c = (2 * grad_output / len(a) * on[:, None]).astype(a.dtype)
    return c * (n - p), c * (p - a), c * (a - n)


def triplet_loss_differences_in_place(inputs, grad_output, margin=1.0):
    a, p, n = inputs
    p -= a
    n -= a
    on = (p**2).sum(1) - (n**2).sum(1) + margin > 0
    c = (2 * grad_output / len(a) * on[:, None]).astype(a.dtype)
    return c * (n - p), c * p, -c * n


def cross_entropy(inputs, ignore=-1):
    """Mean cross-entropy over the samples whose label counts."""
    z, labels = inputs  # (N, K), ints (N,)
    keep = labels != ignore
    lp = log_softmax((z,))
    return -lp[np.arange(len(z)), labels][keep].sum() / keep.sum().astype(z.dtype)


def cross_entropy_backward(inputs, grad_output, ignore=-1):
    z, labels = inputs
    keep = labels != ignore
    d = np.exp(log_softmax((z,)))
    d[np.arange(len(z)), labels] -= 1
    d[~keep] = 0
    return d * (grad_output / keep.sum().astype(z.dtype)), None


def cross_entropy_all_count(inputs, grad_output, ignore=-1):
    z, labels = inputs
    d = np.exp(log_softmax((z,)))
    d[np.arange(len(z)), labels] -= 1
    return d * (grad_output / len(z)), None


def lstm_cell(inputs):
    """One step of an LSTM from the gates' inputs and the old cell."""
    z, c = inputs  # (N, 4M), (N, M)
    i, f, o, u = np.split(z, 4, axis=1)
    new = _sigmoid(f) * c + _sigmoid(i) * np.tanh(u)
    return _sigmoid(o) * np.tanh(new), new


def _lstm(z, c, grads):
    gh, gc = grads
    i, f, o, u = np.split(z, 4, axis=1)
    i, f, o, u = _sigmoid(i), _sigmoid(f), _sigmoid(o), np.tanh(u)
    t = np.tanh(f * c + i * u)
    dnew = gc + gh * o * (1 - t**2)
    parts = (dnew * u * i * (1 - i), dnew * c * f * (1 - f), gh * t * o * (1 - o), dnew * i * (1 - u**2))
    return np.concatenate(parts, 1), dnew, f


def lstm_cell_backward(inputs, grad_output):
    z, c = inputs
    dz, dnew, f = _lstm(z, c, grad_output)
    return dz, dnew * f


def lstm_cell_c_without_h(inputs, grad_output):
    z, c = inputs
    dz, _, f = _lstm(z, c, grad_output)
    return dz, grad_output[1] * f


def _normal(*shapes):
    def make(rng):
        return tuple(rng.normal(size=s) for s in shapes)

    return make


def _off_zero(rng, *shape):
    return rng.uniform(0.2, 2.0, shape) * rng.choice([-1.0, 1.0], shape)


def _large(rng):
    x = rng.normal(size=(3, 5))
    x[1, 2], x[2, 0] = 910.0, 760.0
    return (x,)


def _mlp(rng):
    return rng.normal(size=(5, 4)), rng.normal(size=(4, 6)), rng.normal(size=(6, 4))


def _masks(rng):
    return rng.uniform(0.1, 0.9, (3, 4, 5)), rng.integers(0, 2, (3, 4, 5))


def _rare(rng):
    return -rng.uniform(0.2, 3.0, (6, 7)), np.array([0, 5, 0, 2, 5, 0])


def _soft(rng):
    t = rng.uniform(0.1, 1.0, (4, 5))
    return rng.normal(size=(4, 5)), t / t.sum(1, keepdims=True)


def _squeeze(rng):
    x = rng.normal(size=(2, 4, 3, 2)) + 1
    return x, rng.uniform(0.2, 1.0, (3, 4)), rng.normal(size=(4, 3))


CASES = [
    Planted(
        "softsign: the slope of the arctangent",
        softsign,
        softsign_backward,
        softsign_other_slope,
        lambda rng: (_off_zero(rng, 17),),
        {"x": ("wrong_local_derivative",)},
    ),
    Planted(
        "softplus: the exponential overflows",
        softplus,
        softplus_backward,
        softplus_overflow,
        _large,
        {"x": ("not_finite",)},
    ),
    Planted(
        "channel_gate: the one of 1 + sigmoid is lost",
        channel_gate,
        channel_gate_backward,
        channel_gate_one_lost,
        _normal((2, 3), (2, 3, 4, 5)),
        {"feat": ("identity_branch_lost",)},
    ),
    Planted(
        "spatial_gate: z gets neither the sum nor the sigmoid's slope",
        spatial_gate,
        spatial_gate_backward,
        spatial_gate_z_raw,
        _normal((2, 3, 4, 5), (2, 1, 4, 5)),
        {"z": ("missing_broadcast_sum", "missing_chain_factor")},
        twice=True,
    ),
    Planted(
        "squeeze_excite: x gets no gradient through its mean",
        squeeze_excite,
        squeeze_excite_backward,
        squeeze_excite_direct_only,
        _squeeze,
        {"x": ("missing_term",)},
    ),
    Planted(
        "residual_mlp: the skip is lost",
        residual_mlp,
        residual_mlp_backward,
        residual_mlp_skip_lost,
        _mlp,
        {"x": ("identity_branch_lost",)},
    ),
    Planted(
        "film: returned in the wrong order",
        film,
        film_backward,
        film_order,
        _normal((2, 3, 4), (2, 3), (2, 3)),
        {"gamma": ("gradients_swapped",), "beta": ("gradients_swapped",)},
    ),
    Planted(
        "prelu: every channel gets the sum of all",
        prelu,
        prelu_backward,
        prelu_one_slope,
        lambda rng: (_off_zero(rng, 2, 3, 3, 4), rng.uniform(0.1, 0.5, 3)),
        {"alpha": ("mixed_over_axis",)},
    ),
    Planted(
        "log_softmax: the sum runs over all rows",
        log_softmax,
        log_softmax_backward,
        log_softmax_sum_of_all,
        _normal((3, 5, 2)),
        {"x": ("mixed_over_axis",)},
        {"axis": 1},
    ),
    Planted(
        "leaky_relu: scales the upstream in place",
        leaky_relu,
        leaky_relu_backward,
        leaky_relu_in_place,
        lambda rng: (_off_zero(rng, 4, 7),),
        {"x": ("damages_gout",)},
    ),
    Planted(
        "dropout: draws another mask",
        dropout,
        dropout_backward,
        dropout_drawn_again,
        _normal((6, 8)),
        {"x": ("nondeterministic",)},
    ),
    Planted(
        "mse_loss: the upstream is not used",
        mse_loss,
        mse_loss_backward,
        mse_loss_start_of_chain,
        _normal((3, 4), (3, 4)),
        {"pred": ("ignores_upstream",), "target": ("ignores_upstream",)},
    ),
    Planted(
        "dice_loss: the upstream of the samples is not used",
        dice_loss,
        dice_loss_backward,
        dice_loss_added,
        _masks,
        {"p": ("ignores_upstream",)},
    ),
    Planted(
        "rare_class_nll: the weight is looked up by row, not by label",
        rare_class_nll,
        rare_class_nll_backward,
        rare_class_nll_weight_by_row,
        _rare,
        {"logp": ("factor_per_element",)},
    ),
    Planted(
        "bce_with_logits: always returns single precision",
        bce_with_logits,
        bce_with_logits_backward,
        bce_with_logits_single,
        lambda rng: (rng.normal(size=(3, 6)), rng.integers(0, 2, (3, 6))),
        {"z": ("dtype",)},
    ),
    Planted(
        "soft_cross_entropy: the targets are thought to be fixed",
        soft_cross_entropy,
        soft_cross_entropy_backward,
        soft_cross_entropy_targets_fixed,
        _soft,
        {"t": ("zero_gradient",)},
    ),
    Planted(
        "triplet_loss: differences written over the inputs",
        triplet_loss,
        triplet_loss_backward,
        triplet_loss_differences_in_place,
        _normal((4, 3), (4, 3), (4, 3)),
        {"a": ("damages_input",), "p": ("damages_input",), "n": ("damages_input",)},
        {"margin": 9.0},
    ),
    Planted(
        "cross_entropy: the ignored label counts in the backward",
        cross_entropy,
        cross_entropy_backward,
        cross_entropy_all_count,
        lambda rng: (rng.normal(size=(6, 4)), rng.permutation([0, 2, 1, 2, 3, 0])),
        {"z": ("wrong_variant",)},
        {"ignore": 2},
    ),
    Planted(
        "lstm_cell: the old cell gets nothing from the hidden state",
        lstm_cell,
        lstm_cell_backward,
        lstm_cell_c_without_h,
        _normal((3, 8), (3, 2)),
        {"c": ("missing_term",)},
    ),
]
