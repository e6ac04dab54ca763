"""Attention, embeddings, linear layers, indexing, joining."""

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def _softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _softmax_back(a, da):
    return a * (da - (a * da).sum(-1, keepdims=True))


def attention(inputs, causal=False):
    """Scaled dot-product attention."""
    q, k, v = inputs  # (N, T, d), (N, S, d), (N, S, e)
    s = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    if causal:
        s = np.where(np.tri(*s.shape[1:], dtype=bool), s, -1e9).astype(q.dtype)
    return _softmax(s) @ v


def _attention_parts(q, k, v, g, causal):
    s = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    if causal:
        s = np.where(np.tri(*s.shape[1:], dtype=bool), s, -1e9).astype(q.dtype)
    a = _softmax(s)
    return a, _softmax_back(a, g @ v.transpose(0, 2, 1))


def attention_backward(inputs, grad_output, causal=False):
    q, k, v = inputs
    a, ds = _attention_parts(q, k, v, grad_output, causal)
    ds = ds / math.sqrt(q.shape[-1])
    return ds @ k, ds.transpose(0, 2, 1) @ q, a.transpose(0, 2, 1) @ grad_output


def attention_k_not_scaled(inputs, grad_output, causal=False):
    q, k, v = inputs
    a, ds = _attention_parts(q, k, v, grad_output, causal)
    dq = ds @ k / math.sqrt(q.shape[-1])
    return dq, ds.transpose(0, 2, 1) @ q, a.transpose(0, 2, 1) @ grad_output


def multi_query_attention(inputs):
    """Several heads of queries look at one head of keys and values."""
    q, k, v = inputs  # (H, T, d), (S, d), (S, e)
    return _softmax(np.einsum("htd,sd->hts", q, k) / math.sqrt(q.shape[-1])) @ v


def _mqa(q, k, v, g):
    scale = 1 / math.sqrt(q.shape[-1])
    a = _softmax(np.einsum("htd,sd->hts", q, k) * scale)
    ds = _softmax_back(a, np.einsum("hte,se->hts", g, v)) * scale
    return a, np.einsum("hts,sd->htd", ds, k), np.einsum("hts,htd->sd", ds, q)


def multi_query_attention_backward(inputs, grad_output):
    q, k, v = inputs
    a, dq, dk = _mqa(q, k, v, grad_output)
    return dq, dk, np.einsum("hts,hte->se", a, grad_output)


def multi_query_attention_last_head(inputs, grad_output):
    q, k, v = inputs
    a, dq, dk = _mqa(q, k, v, grad_output)
    dv = np.zeros_like(v)
    for head in range(len(q)):
        dv[:] = a[head].T @ grad_output[head]
    return dq, dk, dv


def self_attention(inputs):
    """One head with its three projections."""
    x, wq, wk, wv = inputs  # (T, D), (D, D) three times
    return _softmax((x @ wq) @ (x @ wk).T / math.sqrt(x.shape[1])) @ (x @ wv)


def _self_attention(x, wq, wk, wv, g):
    q, k, v = x @ wq, x @ wk, x @ wv
    a = _softmax(q @ k.T / math.sqrt(x.shape[1]))
    ds = _softmax_back(a, g @ v.T) / math.sqrt(x.shape[1])
    dq, dk, dv = ds @ k, ds.T @ q, a.T @ g
    return dq, dk, dv, dq @ wq.T + dk @ wk.T + dv @ wv.T


def self_attention_backward(inputs, grad_output):
    x, wq, wk, wv = inputs
    dq, dk, dv, dx = _self_attention(x, wq, wk, wv, grad_output)
    return dx, x.T @ dq, x.T @ dk, x.T @ dv


def self_attention_wv_turned(inputs, grad_output):
    x, wq, wk, wv = inputs
    dq, dk, dv, dx = _self_attention(x, wq, wk, wv, grad_output)
    return dx, x.T @ dq, x.T @ dk, dv.T @ x


def rotary(inputs, start=0):
    """Pairs of features turned by an angle that grows with the position."""
    (x,) = inputs  # (N, T, 2m)
    half = x.shape[2] // 2
    angle = (np.arange(start, start + x.shape[1])[:, None] / 10.0 ** np.arange(half)).astype(x.dtype)
    c, s = np.cos(angle), np.sin(angle)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)


def _rotary_back(g, start):
    half = g.shape[2] // 2
    angle = (np.arange(start, start + g.shape[1])[:, None] / 10.0 ** np.arange(half)).astype(g.dtype)
    c, s = np.cos(angle), np.sin(angle)
    a, b = g[..., :half], g[..., half:]
    return np.concatenate([a * c + b * s, b * c - a * s], axis=-1)


def rotary_backward(inputs, grad_output, start=0):
    return (_rotary_back(grad_output, start),)


def rotary_from_zero(inputs, grad_output, start=0):
    return (_rotary_back(grad_output, 0),)


def low_rank_bilinear(inputs):
    """Two views meet after a projection each."""
    a, b, u, v = inputs  # (N, P), (N, Q), (P, R), (Q, R)
    return (a @ u) * (b @ v)


def low_rank_bilinear_backward(inputs, grad_output):
    a, b, u, v = inputs
    ga, gb = grad_output * (b @ v), grad_output * (a @ u)
    return ga @ u.T, gb @ v.T, a.T @ ga, b.T @ gb


def low_rank_bilinear_a_alone(inputs, grad_output):
    a, b, u, v = inputs
    ga, gb = grad_output * (b @ v), grad_output * (a @ u)
    return grad_output @ u.T, gb @ v.T, a.T @ ga, b.T @ gb


def embedding(inputs):
    """Rows of a table."""
    ids, table = inputs  # ints (N, T), (V, D)
    return table[ids]


def embedding_backward(inputs, grad_output):
    ids, table = inputs
    d = np.zeros_like(table)
    np.add.at(d, ids, grad_output)
    return None, d


def embedding_repeats_lost(inputs, grad_output):
    ids, table = inputs
    d = np.zeros_like(table)
    d[ids] += grad_output
    return None, d


def embedding_bag(inputs):
    """Mean of the rows of a bag."""
    ids, table = inputs  # ints (N, T), (V, D)
    return table[ids].mean(1)


def _bag(ids, table, g):
    d = np.zeros_like(table)
    for bag, row in zip(ids, g, strict=True):
        for i in bag:
            d[i] += row / ids.shape[1]
    return d


def embedding_bag_backward(inputs, grad_output):
    ids, table = inputs
    return None, _bag(ids, table, grad_output)


def embedding_bag_table_only(inputs, grad_output):
    ids, table = inputs
    return (_bag(ids, table, grad_output),)


def concat(inputs):
    """Three blocks of channels."""
    a, b, c = inputs  # (N, C, L) each
    return np.concatenate([a, b, c], axis=1)


def concat_backward(inputs, grad_output):
    return tuple(part.copy() for part in np.split(grad_output, 3, axis=1))


def concat_order(inputs, grad_output):
    first, second, third = (part.copy() for part in np.split(grad_output, 3, axis=1))
    return first, third, second


def where(inputs):
    """Where the mask holds a, elsewhere the row b."""
    mask, a, b = inputs  # ints (N, T, D), (N, T, D), (D,)
    return np.where(mask > 0, a, b)


def where_backward(inputs, grad_output):
    mask, _a, _b = inputs
    return None, grad_output * (mask > 0), (grad_output * (mask <= 0)).sum((0, 1))


def where_b_wide(inputs, grad_output):
    mask, _a, _b = inputs
    return None, grad_output * (mask > 0), grad_output * (mask <= 0)


def linear(inputs):
    """Rows times the transposed weights, plus the bias."""
    x, w, b = inputs  # (N, D), (O, D), (O,)
    return x @ w.T + b


def linear_backward(inputs, grad_output):
    x, w, _b = inputs
    return grad_output @ w, grad_output.T @ x, grad_output.sum(0)


def linear_bias_row(inputs, grad_output):
    x, w, _b = inputs
    return grad_output @ w, grad_output.T @ x, grad_output.sum(0, keepdims=True)


_SUMS = {}


def token_linear(inputs):
    """A linear layer for every token, no bias."""
    x, w = inputs  # (N, T, D), (D, O)
    return np.einsum("ntd,do->nto", x, w)


def token_linear_backward(inputs, grad_output):
    x, w = inputs
    return np.einsum("nto,do->ntd", grad_output, w), np.einsum("ntd,nto->do", x, grad_output)


def token_linear_never_zeroed(inputs, grad_output):
    x, w = inputs
    total = _SUMS.setdefault((w.shape, w.dtype), np.zeros_like(w))
    total += np.einsum("ntd,nto->do", x, grad_output)
    return np.einsum("nto,do->ntd", grad_output, w), total.copy()


def flatten(inputs):
    """All but the batch in one axis."""
    (x,) = inputs  # (N, C, D, H, W)
    return x.reshape(len(x), -1)


def flatten_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output.reshape(x.shape).copy(),)


def flatten_view(inputs, grad_output):
    (x,) = inputs
    return (grad_output.reshape(x.shape),)


def topk(inputs, k=3):
    """The k largest of each row, the largest first."""
    (x,) = inputs  # (N, D)
    return -np.sort(-x, axis=1)[:, :k]


def topk_backward(inputs, grad_output, k=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    np.put_along_axis(dx, np.argsort(-x, axis=1)[:, :k], grad_output, axis=1)
    return (dx,)


def topk_ascending(inputs, grad_output, k=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    np.put_along_axis(dx, np.argsort(x, axis=1)[:, -k:], grad_output, axis=1)
    return (dx,)


_WINNERS = {}


def max_over_time(inputs):
    """The largest value of each feature in a sequence."""
    (x,) = inputs  # (N, T, D)
    return x.max(1)


def max_over_time_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    np.put_along_axis(dx, x.argmax(1)[:, None], grad_output[:, None], axis=1)
    return (dx,)


def max_over_time_cached(inputs, grad_output):
    (x,) = inputs
    if x.shape not in _WINNERS:
        _WINNERS[x.shape] = x.argmax(1)
    dx = np.zeros_like(x)
    np.put_along_axis(dx, _WINNERS[x.shape][:, None], grad_output[:, None], axis=1)
    return (dx,)


def submatrix(inputs):
    """Some rows and some columns."""
    x, rows, cols = inputs  # (M, N), ints, ints
    return x[rows][:, cols]


def submatrix_backward(inputs, grad_output):
    x, rows, cols = inputs
    dx = np.zeros_like(x)
    np.add.at(dx, np.ix_(rows, cols), grad_output)
    return dx, None, None


def submatrix_into_copy(inputs, grad_output):
    x, rows, cols = inputs
    dx = np.zeros_like(x)
    dx[rows][:, cols] += grad_output
    return dx, None, None


def _normal(*shapes):
    def make(rng):
        return tuple(rng.normal(size=s) for s in shapes)

    return make


def _words(rng):
    ids = rng.integers(0, 6, (3, 4))
    ids[1, 2], ids[2, 0] = ids[0, 1], ids[0, 1]
    return ids, rng.normal(size=(6, 5))


def _distinct(*shape):
    def make(rng):
        return ((rng.permutation(math.prod(shape)) * 0.1 + rng.uniform(0, 0.05, math.prod(shape)) - 1).reshape(shape),)

    return make


CASES = [
    Planted(
        "attention: the scale is missing for the keys",
        attention,
        attention_backward,
        attention_k_not_scaled,
        _normal((2, 4, 3), (2, 4, 3), (2, 4, 5)),
        {"k": ("constant_factor",)},
        {"causal": True},
    ),
    Planted(
        "multi_query_attention: the values see the last head only",
        multi_query_attention,
        multi_query_attention_backward,
        multi_query_attention_last_head,
        _normal((3, 4, 2), (5, 2), (5, 6)),
        {"v": ("not_accumulated_over_axis",)},
    ),
    Planted(
        "self_attention: the gradient of wv stands on its side",
        self_attention,
        self_attention_backward,
        self_attention_wv_turned,
        _normal((5, 4), (4, 4), (4, 4), (4, 4)),
        {"wv": ("axis_swapped",)},
    ),
    Planted(
        "rotary: positions start at zero again",
        rotary,
        rotary_backward,
        rotary_from_zero,
        _normal((2, 3, 4)),
        {"x": ("wrong_variant",)},
        {"start": 2},
    ),
    Planted(
        "low_rank_bilinear: the other view is forgotten",
        low_rank_bilinear,
        low_rank_bilinear_backward,
        low_rank_bilinear_a_alone,
        _normal((4, 3), (4, 5), (3, 2), (5, 2)),
        {"a": ("missing_operand",)},
    ),
    Planted(
        "embedding: repeated words count once",
        embedding,
        embedding_backward,
        embedding_repeats_lost,
        _words,
        {"table": ("overlap_overwritten",)},
    ),
    Planted(
        "embedding_bag: no slot for the ids",
        embedding_bag,
        embedding_bag_backward,
        embedding_bag_table_only,
        lambda rng: (rng.integers(0, 7, (3, 4)), rng.normal(size=(7, 2))),
        {"table": ("shape",)},
    ),
    Planted(
        "concat: second and third part exchanged",
        concat,
        concat_backward,
        concat_order,
        _normal((2, 3, 4), (2, 3, 4), (2, 3, 4)),
        {"b": ("gradients_swapped",), "c": ("gradients_swapped",)},
    ),
    Planted(
        "where: the row is not summed",
        where,
        where_backward,
        where_b_wide,
        lambda rng: (rng.permutation(np.arange(24) % 2).reshape(2, 3, 4), rng.normal(size=(2, 3, 4)), rng.normal(size=4)),
        {"b": ("missing_broadcast_sum",)},
    ),
    Planted(
        "linear: the bias comes as a row",
        linear,
        linear_backward,
        linear_bias_row,
        _normal((4, 5), (3, 5), (3,)),
        {"b": ("shape",)},
    ),
    Planted(
        "token_linear: the sum goes on from call to call",
        token_linear,
        token_linear_backward,
        token_linear_never_zeroed,
        _normal((2, 3, 5), (5, 4)),
        {"w": ("state_leak",)},
    ),
    Planted(
        "flatten: a view of the upstream",
        flatten,
        flatten_backward,
        flatten_view,
        _normal((2, 3, 2, 4, 2)),
        {"x": ("aliases_gout",)},
    ),
    Planted(
        "topk: ranks in rising order",
        topk,
        topk_backward,
        topk_ascending,
        _distinct(4, 6),
        {"x": ("wrong_routing",)},
    ),
    Planted(
        "max_over_time: the winners of the first call are kept",
        max_over_time,
        max_over_time_backward,
        max_over_time_cached,
        _distinct(3, 5, 4),
        {"x": ("state_leak",)},
    ),
    Planted(
        "submatrix: added into a copy",
        submatrix,
        submatrix_backward,
        submatrix_into_copy,
        lambda rng: (rng.normal(size=(5, 6)), np.array([3, 0, 1]), np.array([5, 2])),
        {"x": ("zero_gradient",)},
    ),
]
