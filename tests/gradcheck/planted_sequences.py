"""Planted mistakes in operations on sequences: attention, recurrent steps, embedding, convolution over time, sorting."""

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def _normal(*shapes):
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def _distinct(*shape):
    """Values at least 0.2 apart, so that no small step changes their order."""
    return lambda rng: (rng.permutation(np.arange(math.prod(shape)) * 0.2 - 1.1).reshape(shape),)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def embedding(inputs):
    table, tokens = inputs  # (V, D), (N, T)
    return table[tokens]


def embedding_backward(inputs, grad_output):
    table, tokens = inputs
    dtable = np.zeros_like(table)
    np.add.at(dtable, tokens, grad_output)
    return dtable, None


def embedding_into_copy(inputs, grad_output):
    table, tokens = inputs
    dtable = np.zeros_like(table)
    dtable[tokens][:] += grad_output
    return dtable, None


def embedding_by_count(inputs, grad_output):
    table, tokens = inputs
    dtable = embedding_backward(inputs, grad_output)[0]
    count = np.bincount(tokens.ravel(), minlength=len(table)).clip(1)
    return dtable / count[:, None].astype(table.dtype), None


def _tokens(rng):
    return rng.normal(size=(6, 3)), np.array([[2, 4, 2, 0], [5, 2, 0, 4]])


def gather_steps(inputs):
    x, steps = inputs  # (N, T, D), (S,)
    return x[:, steps]


def gather_steps_backward(inputs, grad_output):
    x, steps = inputs
    dx = np.zeros_like(x)
    np.add.at(dx, (slice(None), steps), grad_output)
    return dx, None


def gather_steps_plus_equal(inputs, grad_output):
    x, steps = inputs
    dx = np.zeros_like(x)
    dx[:, steps] += grad_output
    return dx, None


def positions(inputs):
    x, p = inputs  # (N, T, D), (T, D)
    return x + p


def positions_backward(inputs, grad_output):
    return grad_output.copy(), grad_output.sum(axis=0)


def positions_unsummed(inputs, grad_output):
    return grad_output.copy(), grad_output.copy()


def positions_returned_as_is(inputs, grad_output):
    return grad_output, grad_output.sum(axis=0)


def shift_right(inputs):
    """The sequence two steps later, zeros in front."""
    (x,) = inputs  # (T, D)
    return np.concatenate([np.zeros_like(x[:2]), x[:-2]])


def shift_right_backward(inputs, grad_output):
    (x,) = inputs
    return (np.concatenate([grad_output[2:], np.zeros_like(x[:2])]),)


def shift_right_by_one(inputs, grad_output):
    (x,) = inputs
    return (np.concatenate([grad_output[1:], np.zeros_like(x[:1])]),)


def fractional_delay(inputs):
    """Each output lies 0.3 of a step after its input, between two neighbours."""
    (x,) = inputs  # (N, T)
    return 0.7 * x[:, :-1] + 0.3 * x[:, 1:]


def fractional_delay_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, :-1] += 0.7 * grad_output
    dx[:, 1:] += 0.3 * grad_output
    return (dx,)


def fractional_delay_weights(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, :-1] += 0.3 * grad_output
    dx[:, 1:] += 0.7 * grad_output
    return (dx,)


def cumsum(inputs):
    (x,) = inputs  # (N, T)
    return np.cumsum(x, axis=1)


def cumsum_backward(inputs, grad_output):
    return (np.cumsum(grad_output[:, ::-1], axis=1)[:, ::-1].copy(),)


def cumsum_not_flipped_back(inputs, grad_output):
    return (np.cumsum(grad_output[:, ::-1], axis=1),)


def cumsum_single(inputs, grad_output):
    (x,) = inputs
    dx = np.empty(x.shape, dtype=np.float32)
    dx[:, ::-1] = np.cumsum(grad_output[:, ::-1], axis=1)
    return (dx,)


def cumsum_in_place(inputs, grad_output):
    (x,) = inputs
    for t in range(x.shape[1] - 2, -1, -1):
        grad_output[:, t] += grad_output[:, t + 1]
    return (grad_output.copy(),)


def sort(inputs):
    (x,) = inputs  # (N, T)
    return np.sort(x, axis=1)


def sort_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    np.put_along_axis(dx, np.argsort(x, axis=1), grad_output, axis=1)
    return (dx,)


def sort_inverse(inputs, grad_output):
    (x,) = inputs
    return (np.take_along_axis(grad_output, np.argsort(x, axis=1), axis=1),)


def top_sum(inputs):
    """The sum of the two largest of each row."""
    (x,) = inputs  # (N, T)
    return np.sort(x, axis=1)[:, -2:].sum(axis=1)


def top_sum_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, None] * (x >= np.sort(x, axis=1)[:, -2:-1]),)


def top_sum_one_more(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, None] * (x >= np.sort(x, axis=1)[:, -3:-2]),)


def bmm(inputs):
    a, b = inputs  # (N, I, K), (N, K, J)
    return a @ b


def bmm_backward(inputs, grad_output):
    a, b = inputs
    return grad_output @ b.transpose(0, 2, 1), a.transpose(0, 2, 1) @ grad_output


def bmm_result_transposed(inputs, grad_output):
    a, b = inputs
    return b @ grad_output.transpose(0, 2, 1), a.transpose(0, 2, 1) @ grad_output


def bmm_batch_summed(inputs, grad_output):
    a, b = inputs
    db = np.einsum("nik,nij->kj", a, grad_output)
    return grad_output @ b.transpose(0, 2, 1), np.tile(db, (len(b), 1, 1))


def trilinear(inputs):
    a, w, c = inputs  # (N, I), (O, I, J), (N, J)
    return np.einsum("ni,oij,nj->no", a, w, c)


def trilinear_backward(inputs, grad_output):
    a, w, c = inputs
    da = np.einsum("no,oij,nj->ni", grad_output, w, c)
    dw = np.einsum("no,ni,nj->oij", grad_output, a, c)
    return da, dw, np.einsum("no,oij,ni->nj", grad_output, w, a)


def trilinear_forgets_c(inputs, grad_output):
    _, w, _ = inputs
    _, dw, dc = trilinear_backward(inputs, grad_output)
    return np.einsum("no,oij->ni", grad_output, w), dw, dc


def _softmax(q, k, causal):
    scores = q @ k.T / math.sqrt(q.shape[1])
    if causal:
        scores = np.where(np.tri(len(q), len(k), dtype=bool), scores, -1e9).astype(q.dtype)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def attention(inputs, causal=False):
    q, k, v = inputs  # (T, D) each
    return _softmax(q, k, causal) @ v


def _dscores(inputs, grad_output, causal):
    q, k, v = inputs
    p = _softmax(q, k, causal)
    dp = grad_output @ v.T
    return p, p * (dp - (p * dp).sum(axis=1, keepdims=True)) / math.sqrt(q.shape[1])


def attention_backward(inputs, grad_output, causal=False):
    q, k, _ = inputs
    p, ds = _dscores(inputs, grad_output, causal)
    return ds @ k, ds.T @ q, p.T @ grad_output


def attention_unscaled(inputs, grad_output, causal=False):
    q, k, _ = inputs
    p, ds = _dscores(inputs, grad_output, causal)
    return ds @ k * math.sqrt(q.shape[1]), ds.T @ q, p.T @ grad_output


def attention_unmasked(inputs, grad_output, causal=False):
    q, k, _ = inputs
    p, ds = _dscores(inputs, grad_output, False)
    return ds @ k, ds.T @ q, p.T @ grad_output


def attention_half(inputs, grad_output, causal=False):
    q, k, _ = inputs
    p, ds = _dscores(inputs, grad_output, causal)
    dk = ds.T.astype(np.float32) @ q.astype(np.float32)
    return ds @ k, dk.astype(k.dtype), p.T @ grad_output


def attention_values_for_keys(inputs, grad_output, causal=False):
    q, _, v = inputs
    p, ds = _dscores(inputs, grad_output, causal)
    return ds @ v, ds.T @ q, p.T @ grad_output


def rnn(inputs):
    x, wx, wh = inputs  # (T, N, I), (I, H), (H, H)
    h, states = np.zeros((x.shape[1], len(wh)), x.dtype), []
    for step in x:
        h = np.tanh(step @ wx + h @ wh)
        states.append(h)
    return np.stack(states)


def _through_time(inputs, grad_output, back):
    """The gradient at every pre-activation; ``back`` leads from one to the state before."""
    x, _, _ = inputs
    h = rnn(inputs)
    before = np.concatenate([np.zeros_like(h[:1]), h[:-1]])
    dpre, dh = np.zeros_like(h), np.zeros_like(h[0])
    for t in range(len(x) - 1, -1, -1):
        dpre[t] = (grad_output[t] + dh) * (1 - h[t] ** 2)
        dh = dpre[t] @ back
    return before, dpre


def rnn_backward(inputs, grad_output):
    x, wx, wh = inputs
    before, dpre = _through_time(inputs, grad_output, wh.T)
    return dpre @ wx.T, np.einsum("tni,tnh->ih", x, dpre), np.einsum("tng,tnh->gh", before, dpre)


def rnn_last_step_only(inputs, grad_output):
    x, wx, wh = inputs
    before, dpre = _through_time(inputs, grad_output, wh.T)
    dwh = np.zeros_like(wh)
    for t in range(len(x) - 1, -1, -1):
        dwx = x[t].T @ dpre[t]
        dwh += before[t].T @ dpre[t]
    return dpre @ wx.T, dwx, dwh


def rnn_list_not_reversed(inputs, grad_output):
    x, wx, wh = inputs
    _, dwx, dwh = rnn_backward(inputs, grad_output)
    dpre = _through_time(inputs, grad_output, wh.T)[1]
    return np.stack([dpre[t] @ wx.T for t in reversed(range(len(x)))]), dwx, dwh


def rnn_untransposed(inputs, grad_output):
    _, wx, wh = inputs
    _, dwx, dwh = rnn_backward(inputs, grad_output)
    return _through_time(inputs, grad_output, wh)[1] @ wx.T, dwx, dwh


_KEPT: dict[tuple[int, ...], np.ndarray] = {}


def rnn_keeps_adding(inputs, grad_output):
    _, _, wh = inputs
    dx, dwx, dwh = rnn_backward(inputs, grad_output)
    _KEPT[wh.shape] = _KEPT.get(wh.shape, 0) + dwh
    return dx, dwx, _KEPT[wh.shape].copy()


def gru_step(inputs):
    x, h, wz, wr, wc = inputs  # (N, I), (N, H), (I+H, H) each
    xh = np.concatenate([x, h], axis=1)
    z, r = _sigmoid(xh @ wz), _sigmoid(xh @ wr)
    return (1 - z) * h + z * np.tanh(np.concatenate([x, r * h], axis=1) @ wc)


def _gru_parts(inputs, grad_output):
    x, h, wz, wr, wc = inputs
    i, xh = x.shape[1], np.concatenate([x, h], axis=1)
    z, r = _sigmoid(xh @ wz), _sigmoid(xh @ wr)
    xrh = np.concatenate([x, r * h], axis=1)
    c = np.tanh(xrh @ wc)
    dc = grad_output * z * (1 - c * c)
    drh = (dc @ wc.T)[:, i:]
    return i, z, xh, xrh, dc, drh * r, grad_output * (c - h), drh * h * r * (1 - r)


def gru_step_backward(inputs, grad_output):
    _, _, wz, wr, wc = inputs
    i, z, xh, xrh, dc, dh, dz, dr = _gru_parts(inputs, grad_output)
    dz = dz * z * (1 - z)
    dxh = dz @ wz.T + dr @ wr.T
    dx, dh = dxh[:, :i] + (dc @ wc.T)[:, :i], dxh[:, i:] + dh + grad_output * (1 - z)
    return dx, dh, xh.T @ dz, xh.T @ dr, xrh.T @ dc


def gru_step_gate_slope(inputs, grad_output):
    dx, dh, _, dwr, dwc = gru_step_backward(inputs, grad_output)
    _, _, xh, _, _, _, dz, _ = _gru_parts(inputs, grad_output)
    return dx, dh, xh.T @ dz, dwr, dwc


def gru_step_gates_mixed_up(inputs, grad_output):
    dx, dh, dwz, dwr, dwc = gru_step_backward(inputs, grad_output)
    return dx, dh, dwr, dwz, dwc


def gru_step_kept_state(inputs, grad_output):
    x, h, wz, _, _ = inputs
    dx, dh, dwz, dwr, dwc = gru_step_backward(inputs, grad_output)
    z = _sigmoid(np.concatenate([x, h], axis=1) @ wz)
    return dx, dh - grad_output * (1 - z), dwz, dwr, dwc


_ROWS = _normal((3, 5))
_ATTENTION = _normal((4, 3), (4, 3), (4, 3))
_RNN = _normal((4, 2, 3), (3, 5), (5, 5))
_GRU = _normal((2, 3), (2, 4), (7, 4), (7, 4), (7, 4))
_MASKED = {"causal": True}
_ALL = dict.fromkeys("qkv", ("wrong_variant",))

CASES: list[Planted] = [
    Planted("embedding: adds into a copy made by indexing", embedding, embedding_backward, embedding_into_copy, _tokens,
            {"table": ("zero_gradient",)}),
    Planted("embedding: divided by how often a token occurs", embedding, embedding_backward, embedding_by_count, _tokens,
            {"table": ("factor_per_element",)}),
    Planted("gather: += with repeated steps", gather_steps, gather_steps_backward, gather_steps_plus_equal,
            lambda rng: (rng.normal(size=(2, 4, 3)), np.array([3, 0, 3, 1, 0])), {"x": ("overlap_overwritten",)}),
    Planted("positions: not summed over the batch", positions, positions_backward, positions_unsummed,
            _normal((2, 4, 3), (4, 3)), {"p": ("missing_broadcast_sum",)}),
    Planted("positions: grad_output itself returned", positions, positions_backward, positions_returned_as_is,
            _normal((2, 4, 3), (4, 3)), {"x": ("aliases_gout",)}),
    Planted("shift: back by one step, not two", shift_right, shift_right_backward, shift_right_by_one,
            _normal((7, 3)), {"x": ("spatial_shift",)}),
    Planted("fractional delay: weights exchanged", fractional_delay, fractional_delay_backward, fractional_delay_weights,
            _normal((3, 6)), {"x": ("wrong_weights",)}),
    Planted("cumsum: not flipped back", cumsum, cumsum_backward, cumsum_not_flipped_back, _ROWS, {"x": ("axis_reversed",)}),
    Planted("cumsum: buffer in float32", cumsum, cumsum_backward, cumsum_single, _ROWS, {"x": ("dtype",)}),
    Planted("cumsum: sums in place", cumsum, cumsum_backward, cumsum_in_place, _ROWS, {"x": ("damages_gout",)}),
    Planted("sort: the inverse permutation", sort, sort_backward, sort_inverse, _distinct(4, 6), {"x": ("wrong_routing",)}),
    Planted("top sum: the third gets gradient too", top_sum, top_sum_backward, top_sum_one_more, _distinct(3, 6),
            {"x": ("several_winners",)}),
    Planted("bmm: the product transposed", bmm, bmm_backward, bmm_result_transposed, _normal((2, 3, 3), (2, 3, 4)),
            {"a": ("axis_swapped",)}),
    Planted("bmm: summed over the batch", bmm, bmm_backward, bmm_batch_summed, _normal((2, 3, 4), (2, 4, 5)),
            {"b": ("mixed_over_axis",)}),
    Planted("trilinear: one operand forgotten", trilinear, trilinear_backward, trilinear_forgets_c,
            _normal((5, 3), (2, 3, 4), (5, 4)), {"a": ("missing_operand",)}),
    Planted("attention: scale forgotten", attention, attention_backward, attention_unscaled, _ATTENTION,
            {"q": ("constant_factor",)}, _MASKED),
    Planted("attention: no mask in the backward", attention, attention_backward, attention_unmasked, _ATTENTION,
            _ALL, _MASKED),
    Planted("attention: product in float32", attention, attention_backward, attention_half, _ATTENTION,
            {"k": ("low_precision",)}),
    Planted("attention: values for keys", attention, attention_backward, attention_values_for_keys, _ATTENTION,
            {"q": ("unexplained",)}),
    Planted("rnn: = for += over time", rnn, rnn_backward, rnn_last_step_only, _RNN, {"wx": ("not_accumulated_over_axis",)}),
    Planted("rnn: list of steps not reversed", rnn, rnn_backward, rnn_list_not_reversed, _RNN, {"x": ("axis_reversed",)}),
    Planted("rnn: wh untransposed", rnn, rnn_backward, rnn_untransposed, _RNN, {"x": ("operand_transposed",)}),
    Planted("rnn: gradient kept between calls", rnn, rnn_backward, rnn_keeps_adding, _RNN, {"wh": ("state_leak",)}),
    Planted("gru: slope of the update gate", gru_step, gru_step_backward, gru_step_gate_slope, _GRU,
            {"wz": ("missing_chain_factor",)}),
    Planted("gru: gates mixed up", gru_step, gru_step_backward, gru_step_gates_mixed_up, _GRU,
            {"wz": ("gradients_swapped",), "wr": ("gradients_swapped",)}),
    Planted("gru: path of the kept state lost", gru_step, gru_step_backward, gru_step_kept_state, _GRU,
            {"h": ("missing_term",)}),
]
