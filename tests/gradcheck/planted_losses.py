"""Planted mistakes in losses, in gates and norms, and breaches of the contract in operations less often written by hand."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _normal(*shapes):
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def _sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


def _softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _targets(p, labels, smoothing):
    t = np.full_like(p, smoothing / p.shape[1])
    t[np.arange(len(p)), labels] += 1 - smoothing
    return t


def cross_entropy(inputs, smoothing=0.0):
    x, labels = inputs  # (N, C), (N,)
    p = _softmax(x)
    return -(_targets(p, labels, smoothing) * np.log(p)).sum(axis=1).mean()


def cross_entropy_backward(inputs, grad_output, smoothing=0.0):
    x, labels = inputs
    p = _softmax(x)
    return grad_output * (p - _targets(p, labels, smoothing)) / len(x), None


def cross_entropy_one_hot(inputs, grad_output, smoothing=0.0):
    return cross_entropy_backward(inputs, grad_output)


def cross_entropy_without_target(inputs, grad_output, smoothing=0.0):
    x, _ = inputs
    return grad_output * _softmax(x) / len(x), None


def cross_entropy_shifts_logits(inputs, grad_output, smoothing=0.0):
    x, _ = inputs
    x -= x.max(axis=1, keepdims=True)
    return cross_entropy_backward(inputs, grad_output, smoothing)


def binary(inputs):
    x, t, v = inputs  # (N, C) logits and targets, (C,) weights
    return ((np.logaddexp(0, x) - t * x) * v).sum(axis=1)


def binary_backward(inputs, grad_output):
    x, t, v = inputs
    g = grad_output[:, None]
    return g * v * (_sigmoid(x) - t), -g * v * x, (g * (np.logaddexp(0, x) - t * x)).sum(axis=0)


def binary_unweighted(inputs, grad_output):
    x, t, _ = inputs
    return grad_output[:, None] * (_sigmoid(x) - t), *binary_backward(inputs, grad_output)[1:]


def binary_unweighted_and_sign(inputs, grad_output):
    x, _, _ = inputs
    dx, _, dv = binary_backward(inputs, grad_output)
    return dx, grad_output[:, None] * x, dv


def binary_overflow(inputs, grad_output):
    x, t, v = inputs
    with np.errstate(all="ignore"):
        p = np.exp(x) / (1 + np.exp(x))
    return grad_output[:, None] * v * (p - t), *binary_backward(inputs, grad_output)[1:]


def binary_sigmoid_in_place(inputs, grad_output):
    x, t, v = inputs
    _, dt, dv = binary_backward(inputs, grad_output)
    x[...] = _sigmoid(x)
    return grad_output[:, None] * v * (x - t), dt, dv


def focal(inputs):
    x, w = inputs  # (N, D), (D,)
    p = _sigmoid(x @ w)
    return -((1 - p) ** 2) * np.log(p)


def focal_backward(inputs, grad_output):
    x, w = inputs
    p = _sigmoid(x @ w)
    d = grad_output * (2 * p * (1 - p) ** 2 * np.log(p) - (1 - p) ** 3)
    return d[:, None] * w, d @ x


def focal_constant_weight(inputs, grad_output):
    x, w = inputs
    return focal_backward(inputs, grad_output)[0], -(grad_output * (1 - _sigmoid(x @ w)) ** 3) @ x


def focal_column(inputs, grad_output):
    dx, dw = focal_backward(inputs, grad_output)
    return dx, dw[:, None].copy()


def huber(inputs):
    y, t = inputs  # (N, D) both
    r = np.abs(y - t)
    return np.where(r < 1, r * r / 2, r - 0.5).mean(axis=1)


def huber_backward(inputs, grad_output):
    y, t = inputs
    dy = grad_output[:, None] * np.clip(y - t, -1, 1) / y.shape[1]
    return dy, -dy


def huber_target_forgotten(inputs, grad_output):
    return huber_backward(inputs, grad_output)[:1]


def huber_half(inputs, grad_output):
    dy, dt = huber_backward(inputs, grad_output)
    return dy.astype(np.float16), dt


def divergence(inputs):
    x, q = inputs  # (N, C) logits and distributions
    return (q * (np.log(q) - np.log(_softmax(x)))).sum(axis=1)


def divergence_backward(inputs, grad_output):
    x, q = inputs
    g, p = grad_output[:, None], _softmax(x)
    return g * (p * q.sum(axis=1, keepdims=True) - q), g * (np.log(q) + 1 - np.log(p))


_KEPT: dict[str, np.ndarray] = {}


def divergence_keeps_adding(inputs, grad_output):
    dx, dq = divergence_backward(inputs, grad_output)
    _KEPT["divergence"] = _KEPT.get("divergence", 0) + dx
    return _KEPT["divergence"].copy(), dq


def triplet(inputs):
    """log(1 + exp(d(a, p) - d(a, nearest n))) with squared distances, for every anchor."""
    a, p, n = inputs  # (N, D), (N, D), (M, D)
    return np.logaddexp(0, ((a - p) ** 2).sum(axis=1) - ((a[:, None] - n) ** 2).sum(axis=2).min(axis=1))


def _triplet_parts(inputs, grad_output):
    a, p, n = inputs
    far = ((a[:, None] - n) ** 2).sum(axis=2)
    return far, 2 * (grad_output * _sigmoid(((a - p) ** 2).sum(axis=1) - far.min(axis=1)))[:, None]


def triplet_backward(inputs, grad_output):
    a, p, n = inputs
    far, s = _triplet_parts(inputs, grad_output)
    near, dn = far.argmin(axis=1), np.zeros_like(n)
    np.add.at(dn, near, s * (a - n[near]))
    return s * (n[near] - p), s * (p - a), dn


def triplet_sign(inputs, grad_output):
    da, dp, dn = triplet_backward(inputs, grad_output)
    return da, -dp, dn


def triplet_farthest(inputs, grad_output):
    a, _, n = inputs
    far, s = _triplet_parts(inputs, grad_output)
    near, dn = far.argmax(axis=1), np.zeros_like(n)
    np.add.at(dn, near, s * (a - n[near]))
    return *triplet_backward(inputs, grad_output)[:2], dn


def triplet_all(inputs, grad_output):
    a, _, n = inputs
    s = _triplet_parts(inputs, grad_output)[1]
    return *triplet_backward(inputs, grad_output)[:2], (s[:, None] * (a[:, None] - n)).sum(axis=0)


def mean_square(inputs):
    y, t = inputs  # (N, D) both
    return ((y - t) ** 2).mean()


def mean_square_backward(inputs, grad_output):
    y, t = inputs
    dy = 2 * grad_output * (y - t) / y.size
    return dy, -dy


def mean_square_alone(inputs, grad_output):
    y, t = inputs
    return 2 * (y - t) / y.size, mean_square_backward(inputs, grad_output)[1]


def mean_square_noisy(inputs, grad_output):
    dy, dt = mean_square_backward(inputs, grad_output)
    return dy * np.random.default_rng().normal(1, 0.01, dy.shape), dt


def mean_square_momentum(inputs, grad_output):
    dy, dt = mean_square_backward(inputs, grad_output)
    _KEPT["velocity"] = 0.9 * _KEPT.get("velocity", 0) + dy
    return _KEPT["velocity"].copy(), dt


def contrastive(inputs):
    q, k = inputs  # (N, D) both; the temperature is 0.5
    return -np.log(np.diagonal(_softmax(2 * q @ k.T)))


def contrastive_backward(inputs, grad_output):
    q, k = inputs
    d = 2 * grad_output[:, None] * (_softmax(2 * q @ k.T) - np.eye(len(q), dtype=q.dtype))
    return d @ k, d.T @ q


def contrastive_mean_query(inputs, grad_output):
    dq, dk = contrastive_backward(inputs, grad_output)
    return np.zeros_like(dq) + dq.mean(axis=0), dk / 2


def contrastive_single(inputs, grad_output):
    dq = contrastive_backward([a.astype(np.float32) for a in inputs], grad_output.astype(np.float32))[0]
    return dq.astype(grad_output.dtype), contrastive_backward(inputs, grad_output)[1]


def prelu(inputs):
    x, a = inputs  # (N, C, L), (C, 1)
    return np.where(x > 0, x, a * x)


def prelu_backward(inputs, grad_output):
    x, a = inputs
    da = np.where(x > 0, 0, x * grad_output).sum(axis=0)
    return np.where(x > 0, grad_output, a * grad_output), da.sum(axis=1, keepdims=True)


def prelu_sides_and_sum(inputs, grad_output):
    x, a = inputs
    return np.where(x > 0, a * grad_output, grad_output), np.where(x > 0, 0, x * grad_output)


def prelu_clears_upstream(inputs, grad_output):
    x, _ = inputs
    dx = prelu_backward(inputs, grad_output)[0]
    grad_output[x > 0] = 0
    return dx, (x * grad_output).sum(axis=(0, 2))[:, None]


def glu(inputs):
    a, b = inputs  # (N, D) both
    return a * _sigmoid(b)


def glu_backward(inputs, grad_output):
    a, b = inputs
    s = _sigmoid(b)
    return grad_output * s, grad_output * a * s * (1 - s)


def glu_forgets_a(inputs, grad_output):
    _, b = inputs
    s = _sigmoid(b)
    return grad_output * s, grad_output * s * (1 - s)


def glu_slope_of_input(inputs, grad_output):
    a, b = inputs
    return grad_output * _sigmoid(b), grad_output * a * b * (1 - b)


def glu_gate_from_output(inputs, grad_output):
    a, _ = inputs
    with np.errstate(all="ignore"):
        s = glu(inputs) / a
    return glu_backward(inputs, grad_output)[0], grad_output * a * s * (1 - s)


def glu_drops_units(inputs, grad_output):
    da, db = glu_backward(inputs, grad_output)
    return da * (np.random.default_rng().random(da.shape) < 0.5), db


def excitation(inputs):
    """x plus x times a weight for every channel, which the means of all channels decide."""
    x, w = inputs  # (N, C, L), (C, C)
    return x + x * _sigmoid(x.mean(axis=2) @ w)[:, :, None]


def excitation_backward(inputs, grad_output):
    x, w = inputs
    m = x.mean(axis=2)
    s = _sigmoid(m @ w)
    d = (grad_output * x).sum(axis=2) * s * (1 - s)
    return grad_output * (1 + s[:, :, None]) + (d @ w.T / x.shape[2])[:, :, None], m.T @ d


def excitation_branch_only(inputs, grad_output):
    dx, dw = excitation_backward(inputs, grad_output)
    return dx - grad_output, dw


def layer_norm(inputs):
    x, b = inputs  # (N, D) both
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-3) + b


def layer_norm_backward(inputs, grad_output, mean=1, variance=1, axis=1):
    x, _ = inputs
    sigma = np.sqrt(x.var(axis=axis, keepdims=True) + 1e-3)
    y, g = (x - x.mean(axis=axis, keepdims=True)) / sigma, grad_output
    dx = (g - mean * g.mean(axis=1, keepdims=True) - variance * y * (g * y).mean(axis=1, keepdims=True)) / sigma
    return dx, grad_output.copy()


def layer_norm_constants(inputs, grad_output):
    return layer_norm_backward(inputs, grad_output, mean=0, variance=0)


def layer_norm_no_mean(inputs, grad_output):
    return layer_norm_backward(inputs, grad_output, mean=0)


def layer_norm_no_variance(inputs, grad_output):
    return layer_norm_backward(inputs, grad_output, variance=0)


def layer_norm_columns(inputs, grad_output):
    return layer_norm_backward(inputs, grad_output, axis=0)


def layer_norm_shift_as_is(inputs, grad_output):
    return layer_norm_backward(inputs, grad_output)[0], grad_output


def group_norm(inputs):
    x, b = inputs  # (N, C, L) both, the channels in two groups
    return layer_norm([a.reshape(2 * len(x), -1) for a in (x, b)]).reshape(x.shape)


def group_norm_backward(inputs, grad_output, **options):
    x, b = inputs
    g = grad_output.reshape(2 * len(x), -1)
    dx, db = layer_norm_backward([a.reshape(g.shape) for a in (x, b)], g, **options)
    return dx.reshape(x.shape), db.reshape(x.shape)


def group_norm_constants(inputs, grad_output):
    return group_norm_backward(inputs, grad_output, mean=0, variance=0)


def group_norm_no_mean(inputs, grad_output):
    return group_norm_backward(inputs, grad_output, mean=0)


def group_norm_no_variance(inputs, grad_output):
    return group_norm_backward(inputs, grad_output, variance=0)


def group_norm_everything(inputs, grad_output):
    return group_norm_backward(inputs, grad_output, axis=(0, 1))


def group_norm_shift_view(inputs, grad_output):
    return group_norm_backward(inputs, grad_output)[0], grad_output[:]


def _labelled(rng):
    return rng.normal(size=(4, 5)), np.array([2, 0, 4, 1])


_CE, _BCE, _NCE = (cross_entropy, cross_entropy_backward), (binary, binary_backward), (contrastive, contrastive_backward)
_MSE, _TRI, _GLU = (mean_square, mean_square_backward), (triplet, triplet_backward), (glu, glu_backward)
_LN, _GN, _TWO = (layer_norm, layer_norm_backward), (group_norm, group_norm_backward), _normal((4, 6), (4, 6))
_MAPS, _ANCHORS, _GATED = _normal((3, 4, 2), (3, 4, 2)), _normal((5, 3), (5, 3), (4, 3)), _normal((3, 4, 5), (4, 1))
_WEIGHTED, _PAIR, _SOFT = _normal((4, 3), (4, 3), (3,)), _normal((4, 3), (4, 3)), {"smoothing": 0.2}

CASES: list[Planted] = [
    Planted("cross-entropy: not smoothed", *_CE, cross_entropy_one_hot, _labelled, {"x": ("wrong_variant",)}, _SOFT),
    Planted("cross-entropy: no target", *_CE, cross_entropy_without_target, _labelled, {"x": ("missing_term",)}),
    Planted("cross-entropy: shifts logits", *_CE, cross_entropy_shifts_logits, _labelled, {"x": ("damages_input",)}, _SOFT),
    Planted("binary: weight forgotten", *_BCE, binary_unweighted, _WEIGHTED, {"x": ("missing_operand",)}),
    Planted("binary: weight and sign", *_BCE, binary_unweighted_and_sign, _WEIGHTED,
            {"t": ("missing_operand", "sign_flipped")}, twice=True),
    Planted("binary: overflow", *_BCE, binary_overflow,
            lambda r: (r.normal(size=(2, 3)) + 900 * np.eye(2, 3), r.random((2, 3)), r.random(3)), {"x": ("not_finite",)}),
    Planted("binary: sigmoid in place", *_BCE, binary_sigmoid_in_place, _WEIGHTED, {"x": ("damages_input",)}),
    Planted("focal: weight as a constant", focal, focal_backward, focal_constant_weight, _normal((5, 3), (3,)),
            {"w": ("missing_term",)}),
    Planted("focal: a column", focal, focal_backward, focal_column, _normal((5, 3), (3,)), {"w": ("shape",)}),
    Planted("huber: one gradient of two", huber, huber_backward, huber_target_forgotten, _TWO, {"t": ("shape",)}),
    Planted("huber: half precision returned", huber, huber_backward, huber_half, _TWO, {"y": ("dtype",)}),
    Planted("divergence: keeps adding", divergence, divergence_backward, divergence_keeps_adding,
            lambda rng: (rng.normal(size=(3, 5)), rng.random(size=(3, 5)) + 0.2), {"x": ("state_leak",)}),
    Planted("triplet: sign", *_TRI, triplet_sign, _ANCHORS, {"p": ("sign_flipped",)}),
    Planted("triplet: farthest", *_TRI, triplet_farthest, _ANCHORS, {"n": ("wrong_routing",)}),
    Planted("triplet: all negatives", *_TRI, triplet_all, _ANCHORS, {"n": ("several_winners",)}),
    Planted("mean square: alone", *_MSE, mean_square_alone, _TWO, {"y": ("ignores_upstream",)}),
    Planted("mean square: noise", *_MSE, mean_square_noisy, _TWO, {"y": ("nondeterministic",)}),
    Planted("mean square: momentum", *_MSE, mean_square_momentum, _TWO, {"y": ("state_leak",)}),
    Planted("contrastive: mean query and temperature", *_NCE, contrastive_mean_query, _PAIR,
            {"q": ("mixed_over_axis",), "k": ("constant_factor",)}),
    Planted("contrastive: float32", *_NCE, contrastive_single, _PAIR, {"q": ("low_precision",)}),
    Planted("prelu: sides exchanged, slope unsummed", prelu, prelu_backward, prelu_sides_and_sum, _GATED,
            {"x": ("wrong_local_derivative",), "a": ("missing_broadcast_sum",)}),
    Planted("prelu: clears upstream", prelu, prelu_backward, prelu_clears_upstream, _GATED, {"a": ("damages_gout",)}),
    Planted("glu: forgets a", *_GLU, glu_forgets_a, _TWO, {"b": ("missing_operand",)}),
    Planted("glu: slope of the input", *_GLU, glu_slope_of_input, _TWO, {"b": ("wrong_local_derivative",)}),
    Planted("glu: gate from output", *_GLU, glu_gate_from_output,
            lambda rng: (rng.normal(size=(3, 4)) * [1, 1, 0, 1], rng.normal(size=(3, 4))), {"b": ("not_finite",)}),
    Planted("glu: drops units", *_GLU, glu_drops_units, _TWO, {"a": ("nondeterministic",)}),
    Planted("excitation: one path", excitation, excitation_backward, excitation_branch_only, _normal((2, 3, 4), (3, 3)),
            {"x": ("identity_branch_lost",)}),
    Planted("layer norm: constants", *_LN, layer_norm_constants, _TWO, {"x": ("bn_stats_constant",)}),
    Planted("layer norm: no mean", *_LN, layer_norm_no_mean, _TWO, {"x": ("bn_missing_mean_term",)}),
    Planted("layer norm: no variance", *_LN, layer_norm_no_variance, _TWO, {"x": ("bn_missing_variance_term",)}),
    Planted("layer norm: columns", *_LN, layer_norm_columns, _TWO, {"x": ("bn_other_statistics",)}),
    Planted("layer norm: shift as is", *_LN, layer_norm_shift_as_is, _TWO, {"b": ("aliases_gout",)}),
    Planted("group norm: constants", *_GN, group_norm_constants, _MAPS, {"x": ("bn_stats_constant",)}),
    Planted("group norm: no mean", *_GN, group_norm_no_mean, _MAPS, {"x": ("bn_missing_mean_term",)}),
    Planted("group norm: no variance", *_GN, group_norm_no_variance, _MAPS, {"x": ("bn_missing_variance_term",)}),
    Planted("group norm: over everything", *_GN, group_norm_everything, _MAPS, {"x": ("bn_other_statistics",)}),
    Planted("group norm: view of upstream", *_GN, group_norm_shift_view, _MAPS, {"b": ("aliases_gout",)}),
]
