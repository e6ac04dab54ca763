"""Second sealed exam: losses, embeddings, linear maps, broadcasting, reductions, indexing."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted

from .conv import spread


def _n(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


def cross_entropy(inputs, smoothing=0.1):
    """Mean over the samples, labels are integers."""
    z, t = inputs
    m = z.max(axis=1, keepdims=True)
    logp = z - m - np.log(np.exp(z - m).sum(axis=1, keepdims=True))
    return -np.mean((logp * _soft(z, t, smoothing)).sum(axis=1))


def _soft(z, t, smoothing):
    n = z.shape[1]
    return ((1 - smoothing) * np.eye(n)[t] + smoothing / n).astype(z.dtype)


def cross_entropy_backward(inputs, grad_output, smoothing=0.1):
    z, t = inputs
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return grad_output * (e / e.sum(axis=1, keepdims=True) - _soft(z, t, smoothing)) / len(t), None


def cross_entropy_backward_target(inputs, grad_output, smoothing=0.1):
    z, t = inputs
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return grad_output * (e / e.sum(axis=1, keepdims=True)) / len(t), None


def cross_entropy_backward_in_place(inputs, grad_output, smoothing=0.1):
    z, t = inputs
    z -= z.max(axis=1, keepdims=True)
    e = np.exp(z)
    return grad_output * (e / e.sum(axis=1, keepdims=True) - _soft(z, t, smoothing)) / len(t), None


def _labels(rng, n, c):
    return rng.standard_normal((n, c)), rng.integers(0, c, n)


def multiclass_hinge(inputs, margin=1.0):
    scores, t = inputs
    own = np.take_along_axis(scores, t[:, None], axis=1)
    return np.maximum(scores - own + margin, 0).sum(axis=1) - margin


def multiclass_hinge_backward(inputs, grad_output, margin=1.0):
    scores, t = inputs
    rows = np.arange(len(t))
    d = (scores - scores[rows, t][:, None] + margin > 0) * grad_output[:, None]
    d[rows, t] = 0
    d[rows, t] = -d.sum(axis=1)
    return d.astype(scores.dtype), None


def multiclass_hinge_backward_margins(inputs, grad_output, margin=1.0):
    scores, t = inputs
    rows = np.arange(len(t))
    margins = scores
    margins -= scores[rows, t][:, None] - margin
    d = (margins > 0) * grad_output[:, None]
    d[rows, t] = 0
    d[rows, t] = -d.sum(axis=1)
    return d.astype(scores.dtype), None


def weighted_mse(inputs):
    pred, target, weight = inputs
    return (weight * (pred - target) ** 2).mean()


def weighted_mse_backward(inputs, grad_output):
    pred, target, weight = inputs
    d = 2 * grad_output * weight * (pred - target) / pred.size
    return d, -d, grad_output * (pred - target) ** 2 / pred.size


def weighted_mse_backward_one(inputs, grad_output):
    pred, target, weight = inputs
    d = 2 * weight * (pred - target) / pred.size
    return d, -grad_output * d, grad_output * (pred - target) ** 2 / pred.size


def embedding(inputs):
    table, ids = inputs
    return table[ids]


def embedding_backward(inputs, grad_output):
    table, ids = inputs
    d = np.zeros_like(table)
    np.add.at(d, ids, grad_output)
    return d, None


_TABLE_GRADIENTS = {}


def embedding_backward_kept(inputs, grad_output):
    table, ids = inputs
    d = _TABLE_GRADIENTS.setdefault((table.shape, table.dtype), np.zeros_like(table))
    np.add.at(d, ids, grad_output)
    return d.copy(), None


def linear(inputs):
    x, w, b = inputs
    return x @ w + b


def linear_backward(inputs, grad_output):
    x, w, _ = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0)


def linear_backward_keepdims(inputs, grad_output):
    x, w, _ = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0, keepdims=True)


def linear_backward_decay(inputs, grad_output):
    x, w, _ = inputs
    return grad_output @ w.T, x.T @ grad_output + 0.05 * w, grad_output.sum(axis=0)


def linear_backward_twice(inputs, grad_output):
    x, w, _ = inputs
    dw = np.zeros_like(w)
    for xi, gi in zip(x, grad_output, strict=True):
        dw = np.outer(xi, gi) / len(x)
    return grad_output @ w.T, dw, grad_output.sum(axis=0)


def bilinear(inputs):
    u, w, v = inputs
    return np.einsum("ni,ij,nj->n", u, w, v)


def bilinear_backward(inputs, grad_output):
    u, w, v = inputs
    return grad_output[:, None] * (v @ w.T), (u * grad_output[:, None]).T @ v, grad_output[:, None] * (u @ w)


def bilinear_backward_transposed(inputs, grad_output):
    u, w, v = inputs
    return grad_output[:, None] * (v @ w.T), np.einsum("n,ni,nj->ji", grad_output, u, v), grad_output[:, None] * (u @ w)


def scaled_shift(inputs):
    """(A, 1, C) times (B, 1), plus (C,)."""
    x, s, b = inputs
    return x * s + b


def scaled_shift_backward(inputs, grad_output):
    x, s, _ = inputs
    return (
        (grad_output * s).sum(axis=1, keepdims=True),
        (grad_output * x).sum(axis=(0, 2))[:, None],
        grad_output.sum(axis=(0, 1)),
    )


def scaled_shift_backward_whole(inputs, grad_output):
    x, s, _ = inputs
    return grad_output * s, (grad_output * x).sum(axis=(0, 2))[:, None], grad_output.sum(axis=(0, 1))


def subtract(inputs):
    a, b = inputs
    return a - b


def subtract_backward(inputs, grad_output):
    return grad_output.copy(), -grad_output


def subtract_backward_same(inputs, grad_output):
    return grad_output, -grad_output


def logsumexp(inputs):
    (x,) = inputs
    m = x.max(axis=1, keepdims=True)
    return (m + np.log(np.exp(x - m).sum(axis=1, keepdims=True)))[:, 0]


def logsumexp_backward(inputs, grad_output):
    (x,) = inputs
    return (np.exp(x - logsumexp(inputs)[:, None]) * grad_output[:, None],)


def logsumexp_backward_in_place(inputs, grad_output):
    (x,) = inputs
    e = np.exp(x - x.max(axis=1, keepdims=True))
    grad_output /= e.sum(axis=1)
    return (e * grad_output[:, None],)


def select_rows(inputs):
    """Chosen rows, each at most once."""
    x, idx = inputs
    return x[idx] * 2


def select_rows_backward(inputs, grad_output):
    x, idx = inputs
    d = np.zeros_like(x)
    d[idx] = 2 * grad_output
    return d, None


def select_rows_backward_copy(inputs, grad_output):
    x, idx = inputs
    d = np.zeros_like(x)
    d[idx][:] = 2 * grad_output
    return d, None


def top_two_sum(inputs):
    (x,) = inputs
    return np.partition(x, -2, axis=1)[:, -2:].sum(axis=1)


def top_two_sum_backward(inputs, grad_output):
    (x,) = inputs
    d = np.zeros_like(x)
    np.put_along_axis(d, np.argsort(x, axis=1)[:, -2:], np.repeat(grad_output[:, None], 2, axis=1), axis=1)
    return (d,)


def top_two_sum_backward_threshold(inputs, grad_output):
    (x,) = inputs
    bar = np.sort(x, axis=1)[:, -4, None]
    return (np.where(x >= bar, grad_output[:, None], 0).astype(x.dtype),)


CASES = [
    Planted(
        "cross_entropy: target not subtracted",
        cross_entropy,
        cross_entropy_backward,
        cross_entropy_backward_target,
        lambda rng: _labels(rng, 4, 5),
        {"z": ("missing_term",)},
    ),
    Planted(
        "cross_entropy: maximum subtracted in place",
        cross_entropy,
        cross_entropy_backward,
        cross_entropy_backward_in_place,
        lambda rng: _labels(rng, 3, 6),
        {"z": ("damages_input",)},
        {"smoothing": 0.0},
    ),
    Planted(
        "multiclass_hinge: margins overwrite the scores",
        multiclass_hinge,
        multiclass_hinge_backward,
        multiclass_hinge_backward_margins,
        lambda rng: _labels(rng, 5, 4),
        {"scores": ("damages_input",)},
    ),
    Planted(
        "weighted_mse: upstream gradient taken for one",
        weighted_mse,
        weighted_mse_backward,
        weighted_mse_backward_one,
        _n((4, 3), (4, 3), (4, 3)),
        {"pred": ("ignores_upstream",)},
    ),
    Planted(
        "embedding: gradient kept between calls",
        embedding,
        embedding_backward,
        embedding_backward_kept,
        lambda rng: (rng.standard_normal((5, 3)), rng.integers(0, 5, (2, 3))),
        {"table": ("state_leak",)},
    ),
    Planted(
        "linear: bias gradient keeps the axis",
        linear,
        linear_backward,
        linear_backward_keepdims,
        _n((3, 4), (4, 2), (2,)),
        {"b": ("shape",)},
    ),
    Planted(
        "linear: weight decay in the gradient",
        linear,
        linear_backward,
        linear_backward_decay,
        _n((5, 3), (3, 4), (4,)),
        {"w": ("ignores_upstream",)},
    ),
    Planted(
        "linear: only the last sample, and averaged",
        linear,
        linear_backward,
        linear_backward_twice,
        _n((3, 2), (2, 5), (5,)),
        {"w": ("not_accumulated_over_axis", "constant_factor")},
        twice=True,
    ),
    Planted(
        "bilinear: outer product the other way round",
        bilinear,
        bilinear_backward,
        bilinear_backward_transposed,
        _n((4, 3), (3, 3), (4, 3)),
        {"w": ("axis_swapped",)},
    ),
    Planted(
        "scaled_shift: not summed over the new axis",
        scaled_shift,
        scaled_shift_backward,
        scaled_shift_backward_whole,
        _n((3, 1, 4), (2, 1), (4,)),
        {"x": ("missing_broadcast_sum",)},
    ),
    Planted(
        "subtract: grad_output itself",
        subtract,
        subtract_backward,
        subtract_backward_same,
        _n((3, 2), (3, 2)),
        {"a": ("aliases_gout",)},
    ),
    Planted(
        "logsumexp: grad_output divided in place",
        logsumexp,
        logsumexp_backward,
        logsumexp_backward_in_place,
        _n((4, 5)),
        {"x": ("damages_gout",)},
    ),
    Planted(
        "select_rows: writes into a copy",
        select_rows,
        select_rows_backward,
        select_rows_backward_copy,
        lambda rng: (rng.standard_normal((6, 3)), rng.permutation(6)[:4]),
        {"x": ("zero_gradient",)},
    ),
    Planted(
        "top_two_sum: threshold too low",
        top_two_sum,
        top_two_sum_backward,
        top_two_sum_backward_threshold,
        lambda rng: (spread(rng, 3, 6),),
        {"x": ("several_winners",)},
    ),
]
