"""Attention, recurrence, tables, layers, losses."""

# ruff: noqa: RUF059
from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted

from .common import positive


def _soft(s):
    e = np.exp(s - s.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _dsoft(p, dp):
    return p * (dp - (p * dp).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------- attention


def attention(inputs):
    q, k, v = inputs
    return _soft(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5) @ v


def attention_backward(inputs, grad_output):
    q, k, v = inputs
    scale = q.shape[-1] ** -0.5
    p = _soft(q @ k.swapaxes(1, 2) * scale)
    ds = _dsoft(p, grad_output @ v.swapaxes(1, 2))
    return scale * (ds @ k), scale * (ds.swapaxes(1, 2) @ q), p.swapaxes(1, 2) @ grad_output


def attention_wrong(inputs, grad_output):
    q, k, v = inputs
    scale = q.shape[-1] ** -0.5
    p = _soft(q @ k.swapaxes(1, 2) * scale)
    ds = _dsoft(p, grad_output @ v.swapaxes(1, 2))
    return ds @ k, scale * (ds.swapaxes(1, 2) @ q), p.swapaxes(1, 2) @ grad_output


def self_attention(inputs, causal=False):
    """Heads in axis 1; with causal=True no position sees a later one."""
    q, k, v = inputs
    s = np.einsum("bhid,bhjd->bhij", q, k) / q.shape[-1] ** 0.5
    if causal:
        s = np.where(np.tri(s.shape[-1], dtype=bool), s, -1e30)
    return np.einsum("bhij,bhjd->bhid", _soft(s), v)


def self_attention_backward(inputs, grad_output, causal=False):
    q, k, v = inputs
    scale = q.shape[-1] ** -0.5
    s = np.einsum("bhid,bhjd->bhij", q, k) * scale
    if causal:
        s = np.where(np.tri(s.shape[-1], dtype=bool), s, -1e30)
    p = _soft(s)
    ds = _dsoft(p, np.einsum("bhid,bhjd->bhij", grad_output, v)) * scale
    return (np.einsum("bhij,bhjd->bhid", ds, k), np.einsum("bhij,bhid->bhjd", ds, q),
            np.einsum("bhij,bhid->bhjd", p, grad_output))


def self_attention_wrong(inputs, grad_output, causal=False):
    return self_attention_backward(inputs, grad_output)


def biased_attention(inputs):
    """One head, learned bias (T, T) added to the scores."""
    q, k, bias = inputs
    return _soft(q @ k.swapaxes(-1, -2) + bias)


def biased_attention_backward(inputs, grad_output):
    q, k, bias = inputs
    ds = _dsoft(biased_attention(inputs), grad_output)
    return ds @ k, ds.swapaxes(-1, -2) @ q, ds.sum(axis=0)


def biased_attention_wrong(inputs, grad_output):
    q, k, bias = inputs
    ds = _dsoft(biased_attention(inputs), grad_output)
    return ds @ k, ds.swapaxes(-1, -2) @ q, np.zeros_like(bias)


def rotary(inputs):
    """Pairs (x[..., i], x[..., i + D/2]) turned by an angle that grows with the position, counted from one."""
    (x,) = inputs
    return _turn(x, np.arange(1, x.shape[-2] + 1))


def _turn(x, steps):
    d = x.shape[-1]
    angle = np.outer(steps, 10.0 ** -np.linspace(0, 1, d // 2))
    c, s = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)


def rotary_backward(inputs, grad_output):
    return (_turn(grad_output, -np.arange(1, grad_output.shape[-2] + 1)),)


def rotary_wrong(inputs, grad_output):
    return (_turn(grad_output, -np.arange(grad_output.shape[-2])),)


# ---------------------------------------------------------------- recurrence


def _gates(x, h, w, u, b):
    i, f, o, n = np.split(x @ w + h @ u + b, 4, axis=1)
    return 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), 1 / (1 + np.exp(-o)), np.tanh(n)


def lstm_cell(inputs):
    """One step; gives the new hidden state and the new cell state."""
    x, h, c, w, u, b = inputs
    i, f, o, n = _gates(x, h, w, u, b)
    c_new = f * c + i * n
    return o * np.tanh(c_new), c_new


def lstm_cell_backward(inputs, grad_output):
    x, h, c, w, u, b = inputs
    dh, dc = grad_output
    i, f, o, n = _gates(x, h, w, u, b)
    t = np.tanh(f * c + i * n)
    total = dc + dh * o * (1 - t * t)
    da = np.concatenate([total * n * i * (1 - i), total * c * f * (1 - f), dh * t * o * (1 - o),
                         total * i * (1 - n * n)], axis=1)
    return da @ w.T, da @ u.T, total * f, x.T @ da, h.T @ da, da.sum(axis=0)


def lstm_cell_wrong(inputs, grad_output):
    x, h, c, w, u, b = inputs
    dh, dc = grad_output
    dx, dh_old, _, dw, du, db = lstm_cell_backward(inputs, grad_output)
    f = _gates(x, h, w, u, b)[1]
    return dx, dh_old, dc * f, dw, du, db


def rnn(inputs):
    """h_t = tanh(x_t w + h_{t-1} u), all the states."""
    x, w, u = inputs
    h = np.zeros((x.shape[1], u.shape[0]), x.dtype)
    out = []
    for step in x:
        h = np.tanh(step @ w + h @ u)
        out.append(h)
    return np.stack(out)


def rnn_backward(inputs, grad_output):
    x, w, u = inputs
    states = rnn(inputs)
    dx, dw, du = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u)
    carry = np.zeros_like(states[0])
    for t in reversed(range(len(x))):
        da = (grad_output[t] + carry) * (1 - states[t] ** 2)
        dw += x[t].T @ da
        if t > 0:
            du += states[t - 1].T @ da
        dx[t] = da @ w.T
        carry = da @ u.T
    return dx, dw, du


def rnn_wrong(inputs, grad_output):
    x, w, u = inputs
    states = rnn(inputs)
    dx, du = np.zeros_like(x), np.zeros_like(u)
    carry = np.zeros_like(states[0])
    for t in reversed(range(len(x))):
        da = (grad_output[t] + carry) * (1 - states[t] ** 2)
        dw = x[t].T @ da
        if t > 0:
            du += states[t - 1].T @ da
        dx[t] = da @ w.T
        carry = da @ u.T
    return dx, dw, du


# ---------------------------------------------------------------- tables


def embedding(inputs):
    ids, table = inputs
    return table[ids]


def embedding_backward(inputs, grad_output):
    ids, table = inputs
    d = np.zeros_like(table)
    np.add.at(d, ids, grad_output)
    return None, d


def embedding_wrong(inputs, grad_output):
    ids, table = inputs
    d = np.zeros_like(table)
    d[ids] += grad_output
    return None, d


def _ids(rng):
    ids = rng.integers(0, 6, (2, 5))
    ids[0, 0] = ids[0, 3] = ids[1, 2]
    return ids, rng.normal(size=(6, 3))


# ---------------------------------------------------------------- layers


def linear(inputs):
    x, W, b = inputs
    return x @ W.T + b


def linear_backward(inputs, grad_output):
    x, W, b = inputs
    return grad_output @ W, grad_output.T @ x, grad_output.sum(axis=0)


def linear_wrong(inputs, grad_output):
    x, W, b = inputs
    return grad_output @ W, x.T @ grad_output / len(x), grad_output.sum(axis=0)


def residual_mix(inputs):
    """Each sample plus a mixture of its own features."""
    x, w = inputs
    return x + x @ w


def residual_mix_backward(inputs, grad_output):
    x, w = inputs
    return grad_output + grad_output @ w.T, x.T @ grad_output


def residual_mix_wrong(inputs, grad_output):
    x, w = inputs
    return grad_output @ w, x.T @ grad_output


def squeeze_excite(inputs):
    x, s = inputs
    return x * s[:, :, None, None]


def squeeze_excite_backward(inputs, grad_output):
    x, s = inputs
    return grad_output * s[:, :, None, None], (grad_output * x).sum(axis=(2, 3))


def squeeze_excite_wrong(inputs, grad_output):
    x, s = inputs
    ds = (grad_output * x).sum(axis=(0, 2, 3))
    return grad_output * s[:, :, None, None], np.broadcast_to(ds, s.shape).copy()


def residual_add(inputs):
    main, skip = inputs
    return main + skip


def residual_add_backward(inputs, grad_output):
    return grad_output.copy(), grad_output.copy()


def residual_add_wrong(inputs, grad_output):
    return grad_output, grad_output


def concat_channels(inputs):
    """Joined on the channel axis, each with its own scale."""
    a, b = inputs
    return np.concatenate([a, 2 * b], axis=1)


def concat_channels_backward(inputs, grad_output):
    a, b = inputs
    c = a.shape[1]
    return grad_output[:, :c].copy(), 2 * grad_output[:, c:]


def concat_channels_wrong(inputs, grad_output):
    a, b = inputs
    db, da = grad_output[:, : a.shape[1]].copy(), 2 * grad_output[:, a.shape[1] :]
    return da, db


# ---------------------------------------------------------------- losses


def cross_entropy(inputs):
    logits, target = inputs
    z = logits - logits.max(axis=1, keepdims=True)
    return (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), target]).mean()


def cross_entropy_backward(inputs, grad_output):
    logits, target = inputs
    d = _soft(logits)
    d[np.arange(len(d)), target] -= 1
    return grad_output * d / len(d), None


def cross_entropy_wrong(inputs, grad_output):
    logits, target = inputs
    return grad_output * _soft(logits) / len(logits), None


def mse(inputs):
    pred, target = inputs
    return ((pred - target) ** 2).mean()


def mse_backward(inputs, grad_output):
    pred, target = inputs
    d = 2 * (pred - target) / pred.size
    return grad_output * d, -grad_output * d


def mse_wrong(inputs, grad_output):
    pred, target = inputs
    d = 2 * (pred - target) / pred.size
    return d, -grad_output * d


def triplet(inputs, margin=9.0):
    anchor, pos, neg = inputs
    gap = ((anchor - pos) ** 2).sum(axis=1) - ((anchor - neg) ** 2).sum(axis=1) + margin
    return np.maximum(gap, 0).sum()


def triplet_backward(inputs, grad_output, margin=9.0):
    anchor, pos, neg = inputs
    gap = ((anchor - pos) ** 2).sum(axis=1) - ((anchor - neg) ** 2).sum(axis=1) + margin
    on = 2 * grad_output * (gap > 0)[:, None]
    return on * (neg - pos), on * (pos - anchor), on * (anchor - neg)


def triplet_wrong(inputs, grad_output, margin=9.0):
    anchor, pos, neg = inputs
    da, dp, _ = triplet_backward(inputs, grad_output, margin)
    gap = ((anchor - pos) ** 2).sum(axis=1) - ((anchor - neg) ** 2).sum(axis=1) + margin
    return da, dp, 2 * grad_output * (gap > 0)[:, None] * (neg - anchor)


def dice_loss(inputs):
    """One minus the overlap of each predicted mask with its target."""
    p, t = inputs
    return 1 - 2 * (p * t).sum(axis=(1, 2)) / (p.sum(axis=(1, 2)) + t.sum(axis=(1, 2)))


def dice_loss_backward(inputs, grad_output):
    p, t = inputs
    inter = (p * t).sum(axis=(1, 2), keepdims=True)
    both = p.sum(axis=(1, 2), keepdims=True) + t.sum(axis=(1, 2), keepdims=True)
    g = grad_output[:, None, None]
    return g * (2 * inter / both**2 - 2 * t / both), g * (2 * inter / both**2 - 2 * p / both)


def dice_loss_wrong(inputs, grad_output):
    p, t = inputs
    _, dt = dice_loss_backward(inputs, grad_output)
    both = p.sum(axis=(1, 2), keepdims=True) + t.sum(axis=(1, 2), keepdims=True)
    return -2 * grad_output[:, None, None] * t / both, dt


CASES = [
    Planted("attention: scale forgotten for q", attention, attention_backward, attention_wrong,
            lambda r: (r.normal(size=(2, 3, 5)), r.normal(size=(2, 4, 5)), r.normal(size=(2, 4, 6))),
            {"q": ("constant_factor",)}),
    Planted("self_attention: no mask in the backward", self_attention, self_attention_backward,
            self_attention_wrong,
            lambda r: (r.normal(size=(1, 2, 4, 3)), r.normal(size=(1, 2, 4, 3)), r.normal(size=(1, 2, 4, 3))),
            {"q": ("wrong_variant",), "k": ("wrong_variant",), "v": ("wrong_variant",)}, {"causal": True}),
    Planted("biased_attention: the bias is taken for a constant", biased_attention, biased_attention_backward,
            biased_attention_wrong,
            lambda r: (r.normal(size=(2, 4, 3)), r.normal(size=(2, 4, 3)), r.normal(size=(4, 4))),
            {"bias": ("zero_gradient",)}),
    Planted("rotary: positions counted from nought in the backward", rotary, rotary_backward, rotary_wrong,
            lambda r: (r.normal(size=(2, 3, 4)),), {"x": ("unexplained",)}),
    Planted("lstm_cell: old cell state without the path through h", lstm_cell, lstm_cell_backward, lstm_cell_wrong,
            lambda r: (r.normal(size=(2, 4)), r.normal(size=(2, 3)), r.normal(size=(2, 3)),
                       r.normal(size=(4, 12)), r.normal(size=(3, 12)), r.normal(size=12)),
            {"c": ("missing_term",)}),
    Planted("rnn: w gradient assigned in the loop over time", rnn, rnn_backward, rnn_wrong,
            lambda r: (r.normal(size=(4, 2, 3)), 0.5 * r.normal(size=(3, 5)), 0.5 * r.normal(size=(5, 5))),
            {"w": ("not_accumulated_over_axis",)}),
    Planted("embedding: += with repeated ids", embedding, embedding_backward, embedding_wrong, _ids,
            {"table": ("overlap_overwritten",)}),
    Planted("linear: weight gradient transposed and averaged", linear, linear_backward, linear_wrong,
            lambda r: (r.normal(size=(5, 4)), r.normal(size=(4, 4)), r.normal(size=4)),
            {"W": ("axis_swapped", "constant_factor")}, twice=True),
    Planted("residual_mix: straight path lost, matrix not transposed", residual_mix, residual_mix_backward,
            residual_mix_wrong, lambda r: (r.normal(size=(3, 5)), r.normal(size=(5, 5))),
            {"x": ("identity_branch_lost", "operand_transposed")}, twice=True),
    Planted("squeeze_excite: gates share their gradient across the batch", squeeze_excite, squeeze_excite_backward,
            squeeze_excite_wrong, lambda r: (r.normal(size=(3, 2, 6, 8)), positive(r, 3, 2)),
            {"s": ("mixed_over_axis",)}),
    Planted("residual_add: grad_output itself goes to both", residual_add, residual_add_backward,
            residual_add_wrong, lambda r: (r.normal(size=(2, 3, 4)), r.normal(size=(2, 3, 4))),
            {"main": ("aliases_gout",), "skip": ("aliases_gout",)}),
    Planted("concat_channels: pieces handed out in the wrong order", concat_channels, concat_channels_backward,
            concat_channels_wrong, lambda r: (r.normal(size=(2, 3, 4)), r.normal(size=(2, 3, 4))),
            {"a": ("gradients_swapped",), "b": ("gradients_swapped",)}),
    Planted("cross_entropy: softmax without the target's one", cross_entropy, cross_entropy_backward,
            cross_entropy_wrong, lambda r: (r.normal(size=(4, 5)), r.integers(0, 5, 4)),
            {"logits": ("missing_term",)}),
    Planted("mse: grad_output forgotten", mse, mse_backward, mse_wrong,
            lambda r: (r.normal(size=(3, 4)), r.normal(size=(3, 4))), {"pred": ("ignores_upstream",)}),
    Planted("triplet: negative pulled in", triplet, triplet_backward, triplet_wrong,
            lambda r: (r.normal(size=(4, 3)), r.normal(size=(4, 3)), r.normal(size=(4, 3))),
            {"neg": ("sign_flipped",)}),
    Planted("dice_loss: denominator held constant", dice_loss, dice_loss_backward, dice_loss_wrong,
            lambda r: (r.uniform(0.1, 0.9, (2, 3, 4)), r.uniform(0.1, 0.9, (2, 3, 4))), {"p": ("missing_term",)}),
]
