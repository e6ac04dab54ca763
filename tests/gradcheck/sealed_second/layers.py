"""Second sealed exam: normalisation, activations, gates, attention, recurrent cells."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _n(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def _standard(x, axes, eps):
    m = x.mean(axis=axes, keepdims=True)
    istd = 1 / np.sqrt(((x - m) ** 2).mean(axis=axes, keepdims=True) + eps)
    return (x - m) * istd, istd


def _standard_back(gh, h, istd, axes, mean=True, var=True):
    d = gh
    if mean:
        d = d - gh.mean(axis=axes, keepdims=True)
    if var:
        d = d - h * (gh * h).mean(axis=axes, keepdims=True)
    return d * istd


def batch_norm2d(inputs, eps=1e-5):
    x, gamma, beta = inputs
    h, _ = _standard(x, (0, 2, 3), eps)
    return gamma[:, None, None] * h + beta[:, None, None]


def batch_norm2d_backward(inputs, grad_output, eps=1e-5):
    x, gamma, _ = inputs
    h, istd = _standard(x, (0, 2, 3), eps)
    dx = _standard_back(grad_output * gamma[:, None, None], h, istd, (0, 2, 3))
    return dx, (grad_output * h).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


def batch_norm2d_backward_constant(inputs, grad_output, eps=1e-5):
    x, gamma, _ = inputs
    h, istd = _standard(x, (0, 2, 3), eps)
    dx = grad_output * gamma[:, None, None] * istd
    return dx, (grad_output * h).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


def batch_norm2d_backward_twice(inputs, grad_output, eps=1e-5):
    x, gamma, _ = inputs
    h, istd = _standard(x, (0, 2, 3), eps)
    gh = grad_output * gamma[:, None, None]
    dx = istd * (gh.mean(axis=(0, 2, 3), keepdims=True) - gh)
    return dx, (grad_output * h).sum(axis=(0, 2, 3)), grad_output.sum(axis=(0, 2, 3))


def batch_norm1d(inputs, eps=1e-3):
    """In training: the running statistics are there, and not used."""
    x, gamma, beta, _running_mean, _running_var = inputs
    return gamma * (x - x.mean(0)) / np.sqrt(np.var(x, axis=0) + eps) + beta


def batch_norm1d_backward(inputs, grad_output, eps=1e-3):
    x, gamma, _, running_mean, running_var = inputs
    h, istd = _standard(x, 0, eps)
    dx = _standard_back(grad_output * gamma, h, istd, 0)
    return dx, (grad_output * h).sum(0), grad_output.sum(0), np.zeros_like(running_mean), np.zeros_like(running_var)


def batch_norm1d_backward_running(inputs, grad_output, eps=1e-3):
    x, gamma, _, running_mean, running_var = inputs
    h, _ = _standard(x, 0, eps)
    istd = 1 / np.sqrt(running_var + eps)
    dx = _standard_back(grad_output * gamma, (x - running_mean) * istd, istd, 0)
    return dx, (grad_output * h).sum(0), grad_output.sum(0), np.zeros_like(running_mean), np.zeros_like(running_var)


def _bn1d_inputs(rng):
    return (
        rng.standard_normal((6, 3)),
        rng.standard_normal(3),
        rng.standard_normal(3),
        0.3 * rng.standard_normal(3),
        rng.uniform(0.5, 2.5, 3),
    )


def layer_norm(inputs, eps=1e-5):
    x, w, b = inputs
    return _standard(x, -1, eps)[0] * w + b


def layer_norm_backward(inputs, grad_output, eps=1e-5):
    x, w, _ = inputs
    h, istd = _standard(x, -1, eps)
    return _standard_back(grad_output * w, h, istd, -1), (grad_output * h).sum(axis=(0, 1)), grad_output.sum(axis=(0, 1))


def layer_norm_backward_mean(inputs, grad_output, eps=1e-5):
    x, w, _ = inputs
    h, istd = _standard(x, -1, eps)
    gh = grad_output * w
    dx = istd * (gh - h * np.mean(gh * h, axis=-1, keepdims=True))
    return dx, (grad_output * h).sum(axis=(0, 1)), grad_output.sum(axis=(0, 1))


def instance_norm(inputs):
    (x,) = inputs
    return _standard(x, (2, 3), 1e-4)[0]


def instance_norm_backward(inputs, grad_output):
    (x,) = inputs
    h, istd = _standard(x, (2, 3), 1e-4)
    return (_standard_back(grad_output, h, istd, (2, 3)),)


def instance_norm_backward_variance(inputs, grad_output):
    (x,) = inputs
    _, istd = _standard(x, (2, 3), 1e-4)
    return ((grad_output - grad_output.mean(axis=(2, 3), keepdims=True)) * istd,)


def instance_norm_backward_constant(inputs, grad_output):
    (x,) = inputs
    return (grad_output / np.sqrt(x.var(axis=(2, 3), keepdims=True) + 1e-4),)


def group_norm(inputs):
    """Channels come in groups: (N, groups, channels of a group, L)."""
    x, scale, shift = inputs
    return _standard(x, (2, 3), 1e-5)[0] * scale[..., None] + shift[..., None]


def group_norm_backward(inputs, grad_output):
    x, scale, _ = inputs
    h, istd = _standard(x, (2, 3), 1e-5)
    return (
        _standard_back(grad_output * scale[..., None], h, istd, (2, 3)),
        (grad_output * h).sum(axis=(0, 3)),
        grad_output.sum(axis=(0, 3)),
    )


def group_norm_backward_layer(inputs, grad_output):
    x, scale, _ = inputs
    h, _ = _standard(x, (2, 3), 1e-5)
    hl, istd = _standard(x, (1, 2, 3), 1e-5)
    dx = _standard_back(grad_output * scale[..., None], hl, istd, (1, 2, 3))
    return dx, (grad_output * h).sum(axis=(0, 3)), grad_output.sum(axis=(0, 3))


def image_layer_norm(inputs):
    """Normalised over channels, rows and columns of each sample."""
    (x,) = inputs
    s = x.std(axis=(1, 2, 3), keepdims=True)
    return (x - x.mean(axis=(1, 2, 3), keepdims=True)) / s


def image_layer_norm_backward(inputs, grad_output):
    (x,) = inputs
    h, istd = _standard(x, (1, 2, 3), 0.0)
    return (_standard_back(grad_output, h, istd, (1, 2, 3)),)


def image_layer_norm_backward_mean(inputs, grad_output):
    (x,) = inputs
    h, istd = _standard(x, (1, 2, 3), 0.0)
    return (_standard_back(grad_output, h, istd, (1, 2, 3), mean=False),)


def softmax(inputs):
    x, t = inputs
    e = np.exp((x - x.max(axis=-1, keepdims=True)) / t)
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(inputs, grad_output):
    x, t = inputs
    y = softmax(inputs)
    dz = y * (grad_output - (grad_output * y).sum(axis=-1, keepdims=True))
    return dz / t, -(dz * x).sum(keepdims=True).reshape(1) / t**2


def softmax_backward_total(inputs, grad_output):
    x, t = inputs
    y = softmax(inputs)
    dz = y * (grad_output - (grad_output * y).sum(axis=-1, keepdims=True))
    return y * (grad_output - np.sum(grad_output * y)) / t, -(dz * x).sum(keepdims=True).reshape(1) / t**2


def softmax_backward_scalar(inputs, grad_output):
    x, t = inputs
    y = softmax(inputs)
    dz = y * (grad_output - (grad_output * y).sum(axis=-1, keepdims=True))
    return dz / t, np.asarray(-(dz * x).sum() / t[0] ** 2)


def gumbel_softmax(inputs):
    """Relaxed sample; the uniform draws are an input."""
    logits, u = inputs
    z = logits - np.log(-np.log(u))
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gumbel_softmax_backward(inputs, grad_output):
    _, u = inputs
    y = gumbel_softmax(inputs)
    dz = y * (grad_output - (grad_output * y).sum(axis=1, keepdims=True))
    return dz, -dz / (u * np.log(u))


def gumbel_softmax_backward_draws(inputs, grad_output):
    logits, u = inputs
    dz = gumbel_softmax_backward(inputs, grad_output)[0]
    fresh = np.random.default_rng().uniform(0.05, 0.95, u.shape).astype(u.dtype)
    y = gumbel_softmax((logits, fresh))
    return y * (grad_output - (grad_output * y).sum(axis=1, keepdims=True)), -dz / (u * np.log(u))


def mish(inputs):
    (x,) = inputs
    return x * np.tanh(np.log1p(np.exp(x)))


def mish_backward(inputs, grad_output):
    (x,) = inputs
    t = np.tanh(np.log1p(np.exp(x)))
    return (grad_output * (t + x * (1 - t**2) * sigmoid(x)),)


def mish_backward_inner(inputs, grad_output):
    (x,) = inputs
    t = np.tanh(np.log1p(np.exp(x)))
    return (grad_output * (t + x * (1 - t**2)),)


def hardswish(inputs):
    (x,) = inputs
    return x * np.clip(x + 3, 0, 6) / 6


def hardswish_backward(inputs, grad_output):
    (x,) = inputs
    slope = np.where(x > 3, 1, np.where(x < -3, 0, (2 * x + 3) / 6)).astype(x.dtype)
    return (grad_output * slope,)


def hardswish_backward_buffer(inputs, grad_output):
    (x,) = inputs
    slope = np.zeros(x.shape)
    mid = np.abs(x) <= 3
    slope[x > 3] = 1
    slope[mid] = (2 * x[mid] + 3) / 6
    return (grad_output * slope,)


def softplus(inputs, beta=1.0):
    (x,) = inputs
    return np.logaddexp(0, beta * x) / beta


def softplus_backward(inputs, grad_output, beta=1.0):
    (x,) = inputs
    return (grad_output * sigmoid(beta * x),)


def softplus_backward_overflow(inputs, grad_output, beta=1.0):
    (x,) = inputs
    with np.errstate(all="ignore"):
        e = np.exp(beta * x)
        return (grad_output * e / (1 + e),)


def _softplus_inputs(rng):
    x = rng.standard_normal((3, 4))
    x[1, 2], x[2, 0] = 900.0, 1200.0
    return (x,)


def prelu(inputs):
    x, a = inputs
    return np.where(x > 0, x, a[:, None] * x)


def prelu_backward(inputs, grad_output):
    x, a = inputs
    return np.where(x > 0, grad_output, a[:, None] * grad_output), np.where(x > 0, 0, grad_output * x).sum(
        axis=(0, 2)
    ).astype(a.dtype)


def prelu_backward_slopes(inputs, grad_output):
    x, a = inputs
    return np.where(x > 0, grad_output, a[:, None] * grad_output), np.minimum(x, 0) * grad_output


def dropout(inputs, p=0.4):
    x, mask = inputs
    return x * mask.astype(x.dtype) / (1 - p)


def dropout_backward(inputs, grad_output, p=0.4):
    x, mask = inputs
    return grad_output * mask.astype(x.dtype) / (1 - p), None


def dropout_backward_in_place(inputs, grad_output, p=0.4):
    x, mask = inputs
    grad_output[mask == 0] = 0
    return (grad_output / (1 - p)).astype(x.dtype), None


def dropout_backward_redraw(inputs, grad_output, p=0.4):
    x, mask = inputs
    keep = np.random.default_rng().random(mask.shape) >= p
    return grad_output * keep.astype(x.dtype) / (1 - p), None


def _dropout_inputs(rng):
    mask = np.ones(15, dtype=np.int64)
    mask[rng.permutation(15)[:6]] = 0
    return rng.standard_normal((3, 5)), mask.reshape(3, 5)


def squeeze_excite(inputs):
    x, w = inputs
    return x * sigmoid(x.mean(axis=2) @ w)[:, :, None]


def squeeze_excite_backward(inputs, grad_output):
    x, w = inputs
    z = x.mean(axis=2)
    s = sigmoid(z @ w)
    da = (grad_output * x).sum(axis=2) * s * (1 - s)
    return grad_output * s[:, :, None] + (da @ w.T)[:, :, None] / x.shape[2], z.T @ da


def squeeze_excite_backward_twice(inputs, grad_output):
    x, w = inputs
    z = x.mean(axis=2)
    s = sigmoid(z @ w)
    da = (grad_output * x).sum(axis=2) * s * (1 - s)
    dx = grad_output * s[:, :, None] + (da @ w.T)[:, :, None] / x.shape[2]
    return dx, da.T @ x.sum(axis=2)


def residual_mlp(inputs):
    x, w1, w2 = inputs
    return x + np.tanh(x @ w1) @ w2


def residual_mlp_backward(inputs, grad_output):
    x, w1, w2 = inputs
    h = np.tanh(x @ w1)
    da = grad_output @ w2.T * (1 - h * h)
    return grad_output + da @ w1.T, x.T @ da, h.T @ grad_output


def residual_mlp_backward_branch(inputs, grad_output):
    x, w1, w2 = inputs
    h = np.tanh(x @ w1)
    da = grad_output @ w2.T * (1 - h * h)
    return da @ w1.T, x.T @ da, h.T @ grad_output


def _attend(q, k, causal):
    s = np.einsum("ntd,nsd->nts", q, k) * q.shape[-1] ** -0.5
    if causal:
        s = np.where(np.tri(s.shape[1], s.shape[2], dtype=bool), s, -np.inf).astype(q.dtype)
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(inputs, causal=False):
    q, k, v = inputs
    return _attend(q, k, causal) @ v


def attention_backward(inputs, grad_output, causal=False):
    q, k, v = inputs
    p = _attend(q, k, causal)
    dp = grad_output @ v.swapaxes(1, 2)
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) * q.shape[-1] ** -0.5
    return ds @ k, ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ grad_output


def attention_backward_uncovered(inputs, grad_output, causal=False):
    q, k, v = inputs
    p = _attend(q, k, False)
    dp = grad_output @ v.swapaxes(1, 2)
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) * q.shape[-1] ** -0.5
    return ds @ k, ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ grad_output


def attention_backward_scale(inputs, grad_output, causal=False):
    q, k, v = inputs
    p = _attend(q, k, causal)
    dp = grad_output @ v.swapaxes(1, 2)
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
    return ds @ k * q.shape[-1] ** -0.5, ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ grad_output


def attention_backward_exchange(inputs, grad_output, causal=False):
    dq, dk, dv = attention_backward(inputs, grad_output, causal)
    return dk, dq, dv


def rope(inputs):
    """Rotary position embedding, halves paired."""
    (x,) = inputs
    a, b = np.split(x, 2, axis=-1)
    c, s = _angles(x)
    return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)


def _angles(x):
    half = x.shape[-1] // 2
    angle = 0.5 * np.arange(1, x.shape[-2] + 1)[:, None] * 0.3 ** np.arange(half)
    return np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)


def rope_backward(inputs, grad_output):
    (x,) = inputs
    ga, gb = np.split(grad_output, 2, axis=-1)
    c, s = _angles(x)
    return (np.concatenate([ga * c + gb * s, gb * c - ga * s], axis=-1),)


def rope_backward_pairs(inputs, grad_output):
    (x,) = inputs
    ga, gb = grad_output[..., 0::2], grad_output[..., 1::2]
    c, s = _angles(x)
    dx = np.empty_like(x)
    dx[..., 0::2] = ga * c + gb * s
    dx[..., 1::2] = gb * c - ga * s
    return (dx,)


def lstm_cell(inputs):
    a, c = inputs  # gate sums (N, 4H), cell (N, H)
    i, f, o, z = np.split(a, 4, axis=1)
    new = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
    return sigmoid(o) * np.tanh(new), new


def _lstm_back(inputs, grads):
    a, c = inputs
    gh, gc = grads
    i, f, o = (sigmoid(t) for t in np.split(a, 4, axis=1)[:3])
    z = np.tanh(np.split(a, 4, axis=1)[3])
    t = np.tanh(f * c + i * z)
    dc = gc + gh * o * (1 - t * t)
    da = np.concatenate([dc * z * i * (1 - i), dc * c * f * (1 - f), gh * t * o * (1 - o), dc * i * (1 - z * z)], axis=1)
    return da, dc, f


def lstm_cell_backward(inputs, grad_output):
    da, dc, f = _lstm_back(inputs, grad_output)
    return da, dc * f


def lstm_cell_backward_forget(inputs, grad_output):
    da, dc, _ = _lstm_back(inputs, grad_output)
    return da, dc


def rnn(inputs):
    """Elman network over time: (T, N, I) to (T, N, H)."""
    x, w, u = inputs
    h = np.zeros((x.shape[1], u.shape[0]), x.dtype)
    out = []
    for xt in x:
        h = np.tanh(xt @ w + h @ u)
        out.append(h)
    return np.stack(out)


def rnn_backward(inputs, grad_output):
    x, w, u = inputs
    h = rnn(inputs)
    dx, dw, du, carry = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u), 0
    for t in range(len(x) - 1, -1, -1):
        da = (grad_output[t] + carry) * (1 - h[t] ** 2)
        dx[t] = da @ w.T
        dw += x[t].T @ da
        if t > 0:
            du += h[t - 1].T @ da
        carry = da @ u.T
    return dx, dw, du


def rnn_backward_reversed(inputs, grad_output):
    x, w, u = inputs
    h = rnn(inputs)
    dx, dw, du, carry = [], np.zeros_like(w), np.zeros_like(u), 0
    for t in reversed(range(len(x))):
        da = (grad_output[t] + carry) * (1 - h[t] ** 2)
        dx.append(da @ w.T)
        dw += x[t].T @ da
        if t > 0:
            du += h[t - 1].T @ da
        carry = da @ u.T
    return np.stack(dx), dw, du


CASES = [
    Planted(
        "batch_norm2d: statistics taken for constants",
        batch_norm2d,
        batch_norm2d_backward,
        batch_norm2d_backward_constant,
        _n((3, 2, 3, 4), (2,), (2,)),
        {"x": ("bn_stats_constant",)},
    ),
    Planted(
        "batch_norm2d: variance term lost and minus",
        batch_norm2d,
        batch_norm2d_backward,
        batch_norm2d_backward_twice,
        _n((2, 3, 2, 4), (3,), (3,)),
        {"x": ("bn_missing_variance_term", "sign_flipped")},
        twice=True,
    ),
    Planted(
        "batch_norm1d: running statistics",
        batch_norm1d,
        batch_norm1d_backward,
        batch_norm1d_backward_running,
        _bn1d_inputs,
        {"x": ("bn_other_statistics",)},
    ),
    Planted(
        "layer_norm: mean term lost",
        layer_norm,
        layer_norm_backward,
        layer_norm_backward_mean,
        _n((2, 3, 5), (5,), (5,)),
        {"x": ("bn_missing_mean_term",)},
    ),
    Planted(
        "instance_norm: variance term lost",
        instance_norm,
        instance_norm_backward,
        instance_norm_backward_variance,
        _n((2, 3, 4, 3)),
        {"x": ("bn_missing_variance_term",)},
    ),
    Planted(
        "group_norm: statistics of the whole sample",
        group_norm,
        group_norm_backward,
        group_norm_backward_layer,
        lambda rng: (
            rng.standard_normal((2, 2, 3, 4)) * np.array([1.0, 2.5])[:, None, None] + 0.4,
            rng.standard_normal((2, 3)),
            rng.standard_normal((2, 3)),
        ),
        {"x": ("bn_other_statistics",)},
    ),
    Planted(
        "image_layer_norm: mean term lost",
        image_layer_norm,
        image_layer_norm_backward,
        image_layer_norm_backward_mean,
        _n((2, 2, 3, 4)),
        {"x": ("bn_missing_mean_term",)},
    ),
    Planted(
        "softmax: sum over the batch as well",
        softmax,
        softmax_backward,
        softmax_backward_total,
        lambda rng: (rng.standard_normal((3, 5)), np.array([rng.uniform(0.6, 1.8)])),
        {"x": ("mixed_over_axis",)},
    ),
    Planted(
        "softmax: temperature's gradient without an axis",
        softmax,
        softmax_backward,
        softmax_backward_scalar,
        lambda rng: (rng.standard_normal((2, 4)), np.array([rng.uniform(0.6, 1.8)])),
        {"t": ("shape",)},
    ),
    Planted(
        "gumbel_softmax: new draws",
        gumbel_softmax,
        gumbel_softmax_backward,
        gumbel_softmax_backward_draws,
        lambda rng: (rng.standard_normal((2, 5)), rng.uniform(0.1, 0.9, (2, 5))),
        {"logits": ("nondeterministic",)},
    ),
    Planted(
        "mish: inner derivative lost",
        mish,
        mish_backward,
        mish_backward_inner,
        _n((3, 4)),
        {"x": ("wrong_local_derivative",)},
    ),
    Planted(
        "hardswish: float64 buffer",
        hardswish,
        hardswish_backward,
        hardswish_backward_buffer,
        lambda rng: (2.5 * rng.standard_normal((2, 3, 4)),),
        {"x": ("dtype",)},
    ),
    Planted(
        "softplus: overflow",
        softplus,
        softplus_backward,
        softplus_backward_overflow,
        _softplus_inputs,
        {"x": ("not_finite",)},
        {"beta": 1.5},
    ),
    Planted(
        "prelu: slopes not summed",
        prelu,
        prelu_backward,
        prelu_backward_slopes,
        _n((2, 3, 4), (3,)),
        {"a": ("missing_broadcast_sum",)},
    ),
    Planted(
        "dropout: masks grad_output in place",
        dropout,
        dropout_backward,
        dropout_backward_in_place,
        _dropout_inputs,
        {"x": ("damages_gout",)},
    ),
    Planted(
        "dropout: mask drawn again",
        dropout,
        dropout_backward,
        dropout_backward_redraw,
        _dropout_inputs,
        {"x": ("nondeterministic",)},
        {"p": 0.3},
    ),
    Planted(
        "squeeze_excite: transposed and a sum for the mean",
        squeeze_excite,
        squeeze_excite_backward,
        squeeze_excite_backward_twice,
        _n((4, 3, 5), (3, 3)),
        {"w": ("axis_swapped", "constant_factor")},
        twice=True,
    ),
    Planted(
        "residual_mlp: skip path lost",
        residual_mlp,
        residual_mlp_backward,
        residual_mlp_backward_branch,
        _n((4, 3), (3, 5), (5, 3)),
        {"x": ("identity_branch_lost",)},
    ),
    Planted(
        "attention: mask forgotten",
        attention,
        attention_backward,
        attention_backward_uncovered,
        _n((2, 4, 3), (2, 4, 3), (2, 4, 2)),
        {"q": ("wrong_variant",), "k": ("wrong_variant",), "v": ("wrong_variant",)},
        {"causal": True},
    ),
    Planted(
        "attention: scale forgotten for the keys",
        attention,
        attention_backward,
        attention_backward_scale,
        _n((1, 3, 5), (1, 4, 5), (1, 4, 2)),
        {"k": ("constant_factor",)},
    ),
    Planted(
        "attention: queries and keys exchanged",
        attention,
        attention_backward,
        attention_backward_exchange,
        _n((2, 3, 4), (2, 3, 4), (2, 3, 5)),
        {"q": ("gradients_swapped",), "k": ("gradients_swapped",)},
        {"causal": True},
    ),
    Planted("rope: neighbours paired", rope, rope_backward, rope_backward_pairs, _n((2, 3, 6)), {"x": ("unexplained",)}),
    Planted(
        "lstm_cell: forget gate forgotten",
        lstm_cell,
        lstm_cell_backward,
        lstm_cell_backward_forget,
        _n((3, 8), (3, 2)),
        {"c": ("missing_operand",)},
    ),
    Planted(
        "rnn: input gradients in backward order",
        rnn,
        rnn_backward,
        rnn_backward_reversed,
        _n((4, 2, 3), (3, 5), (5, 5)),
        {"x": ("axis_reversed",)},
    ),
    Planted(
        "instance_norm: statistics taken for constants",
        instance_norm,
        instance_norm_backward,
        instance_norm_backward_constant,
        _n((2, 2, 3, 5)),
        {"x": ("bn_stats_constant",)},
    ),
]
