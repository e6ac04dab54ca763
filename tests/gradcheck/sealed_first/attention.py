"""First sealed exam: attention, recurrent steps, gates and residual blocks."""

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def attention(inputs, causal=False):
    """Scaled dot-product attention, (B, T, D) with (B, S, D) and (B, S, E)."""
    q, k, v = inputs
    return _weights(q, k, causal) @ v


def _weights(q, k, causal):
    scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
    if causal:
        future = np.triu(np.ones(scores.shape[1:], bool), 1)
        scores = np.where(future, -1e9, scores).astype(q.dtype)
    return _softmax(scores)


def _attention_grads(inputs, g, p, k_scale=None):
    q, k, v = inputs
    scale = math.sqrt(q.shape[-1])
    dv = p.swapaxes(1, 2) @ g
    dp = g @ v.swapaxes(1, 2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    return ds @ k / scale, ds.swapaxes(1, 2) @ q / (k_scale or scale), dv


def attention_backward(inputs, grad_output, causal=False):
    q, k, _v = inputs
    return _attention_grads(inputs, grad_output, _weights(q, k, causal))


def attention_backward_mask_forgotten(inputs, grad_output, causal=False):
    q, k, _v = inputs
    return _attention_grads(inputs, grad_output, _weights(q, k, False))


def attention_backward_key_unscaled(inputs, grad_output, causal=False):
    q, k, _v = inputs
    return _attention_grads(inputs, grad_output, _weights(q, k, causal), 1.0)


def attention_backward_weights_untransposed(inputs, grad_output, causal=False):
    q, k, _v = inputs
    p = _weights(q, k, causal)
    dq, dk, _ = _attention_grads(inputs, grad_output, p)
    return dq, dk, p @ grad_output


def attention_inputs(rng):
    return rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 5))


def attention_inputs_cross(rng):
    return rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 4, 2))


def softmax(inputs, axis=-1):
    """Shares that add up to one along an axis."""
    (x,) = inputs
    return _softmax(x, axis)


def softmax_backward(inputs, grad_output, axis=-1):
    (x,) = inputs
    y = _softmax(x, axis)
    return (y * (grad_output - (grad_output * y).sum(axis, keepdims=True)),)


def softmax_backward_last_axis(inputs, grad_output, axis=-1):
    (x,) = inputs
    y = _softmax(x)
    return (y * (grad_output - (grad_output * y).sum(-1, keepdims=True)),)


def softmax_inputs(rng):
    return (rng.normal(size=(2, 4, 3)),)


def relative_bias(inputs):
    """Add a bias that depends on how far apart two positions are: scores (H, T, T), table (H, 2T-1)."""
    scores, table = inputs
    t = scores.shape[-1]
    return scores + table[:, np.arange(t)[:, None] - np.arange(t) + t - 1]


def relative_bias_backward(inputs, grad_output):
    scores, table = inputs
    t = scores.shape[-1]
    dtable = np.zeros_like(table)
    for i in range(t):
        for j in range(t):
            dtable[:, i - j + t - 1] += grad_output[:, i, j]
    return grad_output.copy(), dtable


def relative_bias_backward_distance_backwards(inputs, grad_output):
    scores, table = inputs
    t = scores.shape[-1]
    dtable = np.zeros_like(table)
    for i in range(t):
        for j in range(t):
            dtable[:, j - i + t - 1] += grad_output[:, i, j]
    return grad_output.copy(), dtable


def relative_bias_inputs(rng):
    return rng.normal(size=(2, 4, 4)), rng.normal(size=(2, 7))


def elman(inputs):
    """A tanh recurrent net, (T, N, D) -> all states (T, N, H)."""
    x, wx, wh = inputs
    h = np.zeros((x.shape[1], wh.shape[0]), x.dtype)
    states = []
    for step in x:
        h = np.tanh(step @ wx + h @ wh)
        states.append(h)
    return np.stack(states)


def elman_backward(inputs, grad_output):
    x, wx, wh = inputs
    states = elman(inputs)
    dx, dwx, dwh = np.zeros_like(x), np.zeros_like(wx), np.zeros_like(wh)
    carry = np.zeros_like(states[0])
    for t in range(len(x) - 1, -1, -1):
        dz = (grad_output[t] + carry) * (1 - states[t] ** 2)
        dx[t] = dz @ wx.T
        dwx += x[t].T @ dz
        if t:
            dwh += states[t - 1].T @ dz
        carry = dz @ wh.T
    return dx, dwx, dwh


def elman_backward_first_step_only(inputs, grad_output):
    x, wx, wh = inputs
    states = elman(inputs)
    dx, dwx, dwh = np.zeros_like(x), np.zeros_like(wx), np.zeros_like(wh)
    carry = np.zeros_like(states[0])
    for t in range(len(x) - 1, -1, -1):
        dz = (grad_output[t] + carry) * (1 - states[t] ** 2)
        dx[t] = dz @ wx.T
        dwx = x[t].T @ dz
        if t:
            dwh += states[t - 1].T @ dz
        carry = dz @ wh.T
    return dx, dwx, dwh


def elman_inputs(rng):
    return rng.normal(size=(4, 2, 3)), rng.normal(size=(3, 5)) * 0.5, rng.normal(size=(5, 5)) * 0.4


def lstm_gates(inputs):
    """The elementwise part of an LSTM step: four pre-activations and the old cell give the new state and cell."""
    i, f, o, c_hat, c = inputs
    cell = _sigmoid(f) * c + _sigmoid(i) * np.tanh(c_hat)
    return _sigmoid(o) * np.tanh(cell), cell


def _lstm_gates(inputs, grads, forget_slope):
    i, f, o, c_hat, c = inputs
    gh, gc = grads
    si, sf, so, tc = _sigmoid(i), _sigmoid(f), _sigmoid(o), np.tanh(c_hat)
    cell = sf * c + si * tc
    dcell = gc + gh * so * (1 - np.tanh(cell) ** 2)
    df = dcell * c * (sf * (1 - sf) if forget_slope else sf)
    return dcell * tc * si * (1 - si), df, gh * np.tanh(cell) * so * (1 - so), dcell * si * (1 - tc**2), dcell * sf


def lstm_gates_backward(inputs, grad_output):
    return _lstm_gates(inputs, grad_output, True)


def lstm_gates_backward_forget_slope(inputs, grad_output):
    return _lstm_gates(inputs, grad_output, False)


def lstm_gates_inputs(rng):
    return tuple(rng.normal(size=(3, 4)) for _ in range(5))


def gru_blend(inputs):
    """The last line of a GRU step: keep part of the old state, take the rest from the candidate."""
    h, gate, candidate, w = inputs
    z = _sigmoid(gate)
    return (1 - z) * np.tanh(candidate + h @ w) + z * h


def _gru_blend(inputs, g, through_candidate):
    h, gate, candidate, w = inputs
    z, n = _sigmoid(gate), np.tanh(candidate + h @ w)
    da = g * (1 - z) * (1 - n * n)
    dh = g * z
    if through_candidate:
        dh = dh + da @ w.T
    return dh, g * (h - n) * z * (1 - z), da, h.T @ da


def gru_blend_backward(inputs, grad_output):
    return _gru_blend(inputs, grad_output, True)


def gru_blend_backward_direct_path_only(inputs, grad_output):
    return _gru_blend(inputs, grad_output, False)


def gru_blend_inputs(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=(4, 4))


def film(inputs):
    """Feature-wise modulation around the identity: x + x * scale + shift, scale and shift one per channel."""
    x, scale, shift = inputs
    return x + x * scale[:, None] + shift[:, None]


def film_backward(inputs, grad_output):
    x, scale, _shift = inputs
    return grad_output * (1 + scale[:, None]), (grad_output * x).sum((0, 2)), grad_output.sum((0, 2))


def film_backward_x_times_scale_only(inputs, grad_output):
    x, scale, _shift = inputs
    return grad_output * scale[:, None], (grad_output * x).sum((0, 2)), grad_output.sum((0, 2))


def film_inputs(rng):
    return rng.normal(size=(3, 4, 5)), rng.normal(size=4), rng.normal(size=4)


def gated_pair(inputs):
    """A gated linear unit of two halves: value times sigmoid of the gate."""
    value, gate = inputs
    return value * _sigmoid(gate)


def gated_pair_backward(inputs, grad_output):
    value, gate = inputs
    s = _sigmoid(gate)
    return grad_output * s, grad_output * value * s * (1 - s)


def gated_pair_backward_wrong_order(inputs, grad_output):
    value, gate = inputs
    s = _sigmoid(gate)
    return grad_output * value * s * (1 - s), grad_output * s


def gated_pair_inputs(rng):
    return rng.normal(size=(5, 4)), rng.normal(size=(5, 4))


def channel_attention(inputs):
    """Squeeze and excite: each channel is scaled by a sigmoid of its own mean times a weight."""
    x, w = inputs
    return x * _sigmoid(x.mean((2, 3)) * w)[:, :, None, None]


def channel_attention_backward(inputs, grad_output):
    x, w = inputs
    mean = x.mean((2, 3))
    s = _sigmoid(mean * w)
    da = (grad_output * x).sum((2, 3)) * s * (1 - s)
    dx = grad_output * s[:, :, None, None] + (da * w / (x.shape[2] * x.shape[3]))[:, :, None, None]
    return dx, (da * mean).sum(0)


def channel_attention_backward_squeeze_cut(inputs, grad_output):
    x, w = inputs
    mean = x.mean((2, 3))
    s = _sigmoid(mean * w)
    da = (grad_output * x).sum((2, 3)) * s * (1 - s)
    return grad_output * s[:, :, None, None], (da * mean).sum(0)


def channel_attention_inputs(rng):
    return rng.normal(0.5, 1, size=(2, 3, 2, 4)), rng.normal(0, 2, size=3)


def position_bias_scores(inputs):
    """Query-key scores plus one learned bias per key, shared by all queries and batch entries."""
    q, k, bias = inputs
    return np.einsum("btd,bsd->bts", q, k) + bias


def position_bias_scores_backward(inputs, grad_output):
    q, k, _bias = inputs
    g = grad_output
    return np.einsum("bts,bsd->btd", g, k), np.einsum("bts,btd->bsd", g, q), g.sum((0, 1))


def position_bias_scores_backward_bias_not_summed(inputs, grad_output):
    q, k, _bias = inputs
    g = grad_output
    return np.einsum("bts,bsd->btd", g, k), np.einsum("bts,btd->bsd", g, q), g.copy()


def position_bias_scores_inputs(rng):
    return rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4)), rng.normal(size=5)


CASES = [
    Planted("attention: the backward forgets the causal mask", attention, attention_backward,
            attention_backward_mask_forgotten, attention_inputs,
            {"q": ("wrong_variant",), "k": ("wrong_variant",), "v": ("wrong_variant",)}, {"causal": True}),
    Planted("attention: the keys' gradient is not scaled", attention, attention_backward, attention_backward_key_unscaled,
            attention_inputs_cross, {"k": ("constant_factor",)}),
    Planted("attention: the values meet the weights untransposed", attention, attention_backward,
            attention_backward_weights_untransposed, attention_inputs, {"v": ("operand_transposed",)}),
    Planted("softmax: the backward works along the last axis", softmax, softmax_backward, softmax_backward_last_axis,
            softmax_inputs, {"x": ("wrong_variant",)}, {"axis": 1}),
    Planted("relative position bias: distances counted backwards", relative_bias, relative_bias_backward,
            relative_bias_backward_distance_backwards, relative_bias_inputs, {"table": ("axis_reversed",)}),
    Planted("Elman net: the input weights keep one time step", elman, elman_backward, elman_backward_first_step_only,
            elman_inputs, {"wx": ("not_accumulated_over_axis",)}),
    Planted("LSTM gates: the forget gate's slope lacks 1 - s", lstm_gates, lstm_gates_backward,
            lstm_gates_backward_forget_slope, lstm_gates_inputs, {"f": ("missing_chain_factor", "wrong_local_derivative")}),
    Planted("GRU blend: the old state's path through the candidate is lost", gru_blend, gru_blend_backward,
            gru_blend_backward_direct_path_only, gru_blend_inputs, {"h": ("missing_term",)}),
    Planted("FiLM: the one beside the scale is lost", film, film_backward, film_backward_x_times_scale_only, film_inputs,
            {"x": ("identity_branch_lost",)}),
    Planted("gated pair: value and gate change places", gated_pair, gated_pair_backward, gated_pair_backward_wrong_order,
            gated_pair_inputs, {"value": ("gradients_swapped",), "gate": ("gradients_swapped",)}),
    Planted("channel attention: the path through the squeeze is cut", channel_attention, channel_attention_backward,
            channel_attention_backward_squeeze_cut, channel_attention_inputs, {"x": ("missing_term",)}),
    Planted("scores with a bias per key: the bias gradient keeps all axes", position_bias_scores,
            position_bias_scores_backward, position_bias_scores_backward_bias_not_summed, position_bias_scores_inputs,
            {"bias": ("missing_broadcast_sum",)}),
]
