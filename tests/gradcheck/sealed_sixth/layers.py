"""Layers of ordinary networks: linear maps, convolutions, pooling, resizing, embeddings, gates, attention."""


# ruff: noqa: RUF059  (the packed style names every input)
from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---------------------------------------------------------------- linear maps


def linear(inputs):
    """Affine map, weights stored as (out, in)."""
    x, w, b = inputs
    return x @ w.T + b


def linear_backward(inputs, grad_output):
    x, w, b = inputs
    return grad_output @ w, grad_output.T @ x, grad_output.sum(axis=0)


def linear_wrong_row(inputs, grad_output):
    x, w, b = inputs
    return grad_output @ w, grad_output.T @ x, grad_output.sum(axis=0, keepdims=True)


def token_projection(inputs):
    """The same matrix for every token of every sentence."""
    x, w = inputs
    return x @ w


def token_projection_backward(inputs, grad_output):
    x, w = inputs
    return grad_output @ w.T, np.einsum("btd,btm->dm", x, grad_output)


def token_projection_wrong_loop(inputs, grad_output):
    x, w = inputs
    dx = np.zeros_like(x)
    for sentence in range(x.shape[0]):
        dx[sentence] = grad_output[sentence] @ w.T
        dw = x[sentence].T @ grad_output[sentence]
    return dx, dw


def scaled_linear(inputs):
    """Linear layer with one gain per output feature."""
    x, u, s = inputs
    return (x @ u) * s


def scaled_linear_backward(inputs, grad_output):
    x, u, s = inputs
    scaled = grad_output * s
    return scaled @ u.T, x.T @ scaled, (grad_output * (x @ u)).sum(axis=0)


def scaled_linear_wrong_gain(inputs, grad_output):
    x, u, s = inputs
    scaled = grad_output * s
    return scaled @ u.T, x.T @ grad_output, (grad_output * (x @ u)).sum(axis=0)


def dense_tanh(inputs):
    """Fully connected layer with tanh."""
    x, w, b = inputs
    return np.tanh(x @ w + b)


def dense_tanh_backward(inputs, grad_output):
    x, w, b = inputs
    y = np.tanh(x @ w + b)
    dz = grad_output * (1 - y * y)
    return dz @ w.T, x.T @ dz, dz.sum(axis=0)


def dense_tanh_wrong_activation(inputs, grad_output):
    x, w, b = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0)


def bilinear_layer(inputs):
    """Scores x' W_k z for several matrices W_k."""
    x, w, z = inputs
    return np.einsum("ni,kij,nj->nk", x, w, z)


def bilinear_layer_backward(inputs, grad_output):
    x, w, z = inputs
    dx = np.einsum("nk,kij,nj->ni", grad_output, w, z)
    dw = np.einsum("nk,ni,nj->kij", grad_output, x, z)
    dz = np.einsum("nk,kij,ni->nj", grad_output, w, x)
    return dx, dw, dz


def bilinear_layer_wrong_outer(inputs, grad_output):
    x, w, z = inputs
    dx = np.einsum("nk,kij,nj->ni", grad_output, w, z)
    dw = np.stack([(z * grad_output[:, k : k + 1]).T @ x for k in range(w.shape[0])])
    dz = np.einsum("nk,kij,ni->nj", grad_output, w, x)
    return dx, dw, dz


def graph_convolution(inputs):
    """Directed adjacency, node features, weights."""
    a, x, w = inputs
    return a @ x @ w


def graph_convolution_backward(inputs, grad_output):
    a, x, w = inputs
    back = grad_output @ w.T
    return back @ x.T, a.T @ back, (a @ x).T @ grad_output


def graph_convolution_wrong_direction(inputs, grad_output):
    a, x, w = inputs
    back = grad_output @ w.T
    return back @ x.T, a @ back, (a @ x).T @ grad_output


def residual_mlp(inputs):
    """Skip connection around two matrices with a ReLU between."""
    x, w1, w2 = inputs
    return x + np.maximum(x @ w1, 0) @ w2


def residual_mlp_backward(inputs, grad_output):
    x, w1, w2 = inputs
    z = x @ w1
    dz = (grad_output @ w2.T) * (z > 0)
    return grad_output + dz @ w1.T, x.T @ dz, np.maximum(z, 0).T @ grad_output


def residual_mlp_wrong_skip(inputs, grad_output):
    x, w1, w2 = inputs
    z = x @ w1
    dz = (grad_output @ w2.T) * (z > 0)
    return dz @ w1.T, x.T @ dz, np.maximum(z, 0).T @ grad_output


# ---------------------------------------------------------------- convolutions


def conv1d(inputs, stride=1, padding=0):
    """Cross-correlation: x (N, C, L), w (O, C, k)."""
    x, w = inputs
    k = w.shape[2]
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    out = (xp.shape[2] - k) // stride + 1
    y = np.zeros((x.shape[0], w.shape[0], out), x.dtype)
    for j in range(k):
        y += np.einsum("ncl,oc->nol", xp[:, :, j : j + stride * (out - 1) + 1 : stride], w[:, :, j])
    return y


def _conv1d_gradients(inputs, grad_output, stride, padding, offsets):
    x, w = inputs
    k, out = w.shape[2], grad_output.shape[2]
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for j in range(k):
        where = slice(j, j + stride * (out - 1) + 1, stride)
        dw[:, :, j] = np.einsum("nol,ncl->oc", grad_output, xp[:, :, where])
    for j in range(offsets):
        where = slice(j, j + stride * (out - 1) + 1, stride)
        dxp[:, :, where] += np.einsum("nol,oc->ncl", grad_output, w[:, :, j])
    return dxp[:, :, padding : padding + x.shape[2]].copy(), dw


def conv1d_backward(inputs, grad_output, stride=1, padding=0):
    return _conv1d_gradients(inputs, grad_output, stride, padding, inputs[1].shape[2])


def conv1d_wrong_bound(inputs, grad_output, stride=1, padding=0):
    return _conv1d_gradients(inputs, grad_output, stride, padding, inputs[1].shape[2] - 1)


def conv2d(inputs):
    """Cross-correlation without padding: x (N, C, H, W), w (O, C, kh, kw)."""
    x, w = inputs
    kh, kw = w.shape[2:]
    oh, ow = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    y = np.zeros((x.shape[0], w.shape[0], oh, ow), x.dtype)
    for i in range(kh):
        for j in range(kw):
            y += np.einsum("nchw,oc->nohw", x[:, :, i : i + oh, j : j + ow], w[:, :, i, j])
    return y


def _conv2d_weights(x, w, grad_output):
    dw = np.zeros_like(w)
    oh, ow = grad_output.shape[2:]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", grad_output, x[:, :, i : i + oh, j : j + ow])
    return dw


def conv2d_backward(inputs, grad_output):
    x, w = inputs
    kh, kw = w.shape[2:]
    padded = np.pad(grad_output, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
    turned = w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    return conv2d((padded, turned)), _conv2d_weights(x, w, grad_output)


def conv2d_wrong_turn(inputs, grad_output):
    x, w = inputs
    kh, kw = w.shape[2:]
    padded = np.pad(grad_output, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
    return conv2d((padded, w.transpose(1, 0, 2, 3))), _conv2d_weights(x, w, grad_output)


def conv3d(inputs):
    """Cross-correlation in three dimensions: x (N, C, D, H, W), w (O, C, kd, kh, kw)."""
    x, w = inputs
    od, oh, ow = (x.shape[2 + i] - w.shape[2 + i] + 1 for i in range(3))
    y = np.zeros((x.shape[0], w.shape[0], od, oh, ow), x.dtype)
    for a, b, c in np.ndindex(*w.shape[2:]):
        y += np.einsum("ncdhw,oc->nodhw", x[:, :, a : a + od, b : b + oh, c : c + ow], w[:, :, a, b, c])
    return y


def conv3d_backward(inputs, grad_output):
    x, w = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    od, oh, ow = grad_output.shape[2:]
    for a, b, c in np.ndindex(*w.shape[2:]):
        box = (slice(None), slice(None), slice(a, a + od), slice(b, b + oh), slice(c, c + ow))
        dx[box] += np.einsum("nodhw,oc->ncdhw", grad_output, w[:, :, a, b, c])
        dw[:, :, a, b, c] = np.einsum("nodhw,ncdhw->oc", grad_output, x[box])
    return dx, dw


def conv3d_wrong_samples(inputs, grad_output):
    x, w = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    od, oh, ow = grad_output.shape[2:]
    for n in range(x.shape[0]):
        for a, b, c in np.ndindex(*w.shape[2:]):
            box = (n, slice(None), slice(a, a + od), slice(b, b + oh), slice(c, c + ow))
            dx[box] += np.einsum("odhw,oc->cdhw", grad_output[n], w[:, :, a, b, c])
            dw[:, :, a, b, c] = np.einsum("odhw,cdhw->oc", grad_output[n], x[box])
    return dx, dw


def depthwise_conv1d(inputs):
    """One kernel per channel: x (N, C, L), w (C, k)."""
    x, w = inputs
    out = x.shape[2] - w.shape[1] + 1
    return sum(x[:, :, j : j + out] * w[:, j : j + 1] for j in range(w.shape[1]))


def depthwise_conv1d_backward(inputs, grad_output):
    x, w = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    k = w.shape[1]
    for n, c, t in np.ndindex(*grad_output.shape):
        dx[n, c, t : t + k] += grad_output[n, c, t] * w[c]
        dw[c] += grad_output[n, c, t] * x[n, c, t : t + k]
    return dx, dw


def depthwise_conv1d_wrong_channel(inputs, grad_output):
    x, w = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    k = w.shape[1]
    for n, c, t in np.ndindex(*grad_output.shape):
        dx[n, :, t : t + k] += grad_output[n, c, t] * w[c]
        dw[c] += grad_output[n, c, t] * x[n, c, t : t + k]
    return dx, dw


def transposed_conv1d(inputs, padding=0):
    """Stamps the kernel for each input sample, then crops: x (N, C, L), w (C, O, k)."""
    x, w = inputs
    length, k = x.shape[2], w.shape[2]
    full = np.zeros((x.shape[0], w.shape[1], length + k - 1), x.dtype)
    for j in range(k):
        full[:, :, j : j + length] += np.einsum("ncl,co->nol", x, w[:, :, j])
    return full[:, :, padding : full.shape[2] - padding]


def _transposed_conv1d_gradients(inputs, grad_output, padding, before):
    x, w = inputs
    length, k = x.shape[2], w.shape[2]
    exact = np.pad(grad_output, ((0, 0), (0, 0), (padding, padding)))
    moved = np.pad(grad_output, ((0, 0), (0, 0), (before, 2 * padding - before)))
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for j in range(k):
        dx += np.einsum("nol,co->ncl", moved[:, :, j : j + length], w[:, :, j])
        dw[:, :, j] = np.einsum("nol,ncl->co", exact[:, :, j : j + length], x)
    return dx, dw


def transposed_conv1d_backward(inputs, grad_output, padding=0):
    return _transposed_conv1d_gradients(inputs, grad_output, padding, padding)


def transposed_conv1d_wrong_crop(inputs, grad_output, padding=0):
    return _transposed_conv1d_gradients(inputs, grad_output, padding, padding - 1)


# ---------------------------------------------------------------- pooling and resizing


def avg_pool1d(inputs):
    """Mean of blocks of three; the last block may be shorter."""
    (x,) = inputs
    starts = range(0, x.shape[2], 3)
    return np.stack([x[:, :, s : s + 3].mean(axis=2) for s in starts], axis=2)


def avg_pool1d_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t in range(grad_output.shape[2]):
        block = dx[:, :, 3 * t : 3 * t + 3]
        block += grad_output[:, :, t : t + 1] / block.shape[2]
    return (dx,)


def avg_pool1d_wrong_tail(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t in range(x.shape[2] // 3):
        dx[:, :, 3 * t : 3 * t + 3] += grad_output[:, :, t : t + 1] / 3
    return (dx,)


def _pool_windows(height, width, kernel, stride, padding):
    for i in range((height + 2 * padding - kernel) // stride + 1):
        for j in range((width + 2 * padding - kernel) // stride + 1):
            top, left = i * stride - padding, j * stride - padding
            rows = slice(max(top, 0), min(top + kernel, height))
            cols = slice(max(left, 0), min(left + kernel, width))
            yield i, j, rows, cols


def avg_pool2d(inputs, kernel=2, stride=1, padding=0, count_include_pad=True):
    """Mean over square windows."""
    (x,) = inputs
    h, w = x.shape[2:]
    out = [(s + 2 * padding - kernel) // stride + 1 for s in (h, w)]
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for i, j, rows, cols in _pool_windows(h, w, kernel, stride, padding):
        window = x[:, :, rows, cols]
        number = kernel * kernel if count_include_pad else window.shape[2] * window.shape[3]
        y[:, :, i, j] = window.sum(axis=(2, 3)) / number
    return y


def avg_pool2d_backward(inputs, grad_output, kernel=2, stride=1, padding=0, count_include_pad=True):
    (x,) = inputs
    dx = np.zeros_like(x)
    for i, j, rows, cols in _pool_windows(*x.shape[2:], kernel, stride, padding):
        window = dx[:, :, rows, cols]
        number = kernel * kernel if count_include_pad else window.shape[2] * window.shape[3]
        window += (grad_output[:, :, i, j] / number)[:, :, None, None]
    return (dx,)


def avg_pool2d_wrong_count(inputs, grad_output, kernel=2, stride=1, padding=0, count_include_pad=True):
    (x,) = inputs
    dx = np.zeros_like(x)
    for i, j, rows, cols in _pool_windows(*x.shape[2:], kernel, stride, padding):
        dx[:, :, rows, cols] += (grad_output[:, :, i, j] / (kernel * kernel))[:, :, None, None]
    return (dx,)


def max_pool2d(inputs, kernel=3):
    """Maximum of every square window, stride one."""
    (x,) = inputs
    oh, ow = x.shape[2] - kernel + 1, x.shape[3] - kernel + 1
    shifted = [x[:, :, i : i + oh, j : j + ow] for i in range(kernel) for j in range(kernel)]
    return np.max(np.stack(shifted), axis=0)


def max_pool2d_backward(inputs, grad_output, kernel=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        a, b = np.unravel_index(np.argmax(x[n, c, i : i + kernel, j : j + kernel]), (kernel, kernel))
        dx[n, c, i + a, j + b] += grad_output[n, c, i, j]
    return (dx,)


def max_pool2d_wrong_mask(inputs, grad_output, kernel=3):
    (x,) = inputs
    mask, dx = np.zeros_like(x), np.zeros_like(x)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        a, b = np.unravel_index(np.argmax(x[n, c, i : i + kernel, j : j + kernel]), (kernel, kernel))
        mask[n, c, i + a, j + b] = 1
    for n, c, i, j in np.ndindex(*grad_output.shape):
        here = (n, c, slice(i, i + kernel), slice(j, j + kernel))
        dx[here] += mask[here] * grad_output[n, c, i, j]
    return (dx,)


def _linear_positions(length, size, align_corners):
    steps = np.arange(size)
    if align_corners:
        at = steps * (length - 1) / (size - 1)
    else:
        at = np.clip((steps + 0.5) * length / size - 0.5, 0, length - 1)
    left = np.minimum(np.floor(at).astype(int), length - 2)
    return left, at - left


def upsample_linear(inputs, size=7, align_corners=False):
    """Linear interpolation along the last axis."""
    (x,) = inputs
    left, t = _linear_positions(x.shape[2], size, align_corners)
    t = t.astype(x.dtype)
    return (1 - t) * x[:, :, left] + t * x[:, :, left + 1]


def _upsample_linear_gradient(x, grad_output, size, align_corners):
    left, t = _linear_positions(x.shape[2], size, align_corners)
    dx = np.zeros_like(x)
    for m in range(size):
        dx[:, :, left[m]] += float(1 - t[m]) * grad_output[:, :, m]
        dx[:, :, left[m] + 1] += float(t[m]) * grad_output[:, :, m]
    return dx


def upsample_linear_backward(inputs, grad_output, size=7, align_corners=False):
    (x,) = inputs
    return (_upsample_linear_gradient(x, grad_output, size, align_corners),)


def upsample_linear_wrong_corners(inputs, grad_output, size=7, align_corners=False):
    (x,) = inputs
    return (_upsample_linear_gradient(x, grad_output, size, True),)


_ZOOM_Y = (0.3, 1.2, 2.6, 3.4)
_ZOOM_X = (0.15, 1.8, 2.35, 3.7, 4.55)


def bilinear_zoom(inputs):
    """Image values between the pixels, on a fixed uneven grid: x (C, H, W)."""
    (x,) = inputs
    y = np.zeros((x.shape[0], len(_ZOOM_Y), len(_ZOOM_X)), x.dtype)
    for m, v in enumerate(_ZOOM_Y):
        for n, u in enumerate(_ZOOM_X):
            i, j = int(v), int(u)
            a, b = v - i, u - j
            upper = (1 - b) * x[:, i, j] + b * x[:, i, j + 1]
            lower = (1 - b) * x[:, i + 1, j] + b * x[:, i + 1, j + 1]
            y[:, m, n] = (1 - a) * upper + a * lower
    return y


def bilinear_zoom_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for m, v in enumerate(_ZOOM_Y):
        for n, u in enumerate(_ZOOM_X):
            i, j = int(v), int(u)
            a, b = v - i, u - j
            g = grad_output[:, m, n]
            dx[:, i, j] += (1 - a) * (1 - b) * g
            dx[:, i, j + 1] += (1 - a) * b * g
            dx[:, i + 1, j] += a * (1 - b) * g
            dx[:, i + 1, j + 1] += a * b * g
    return (dx,)


def bilinear_zoom_wrong_corners(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for m, v in enumerate(_ZOOM_Y):
        for n, u in enumerate(_ZOOM_X):
            i, j = int(v), int(u)
            a, b = v - i, u - j
            g = grad_output[:, m, n]
            dx[:, i, j] += (1 - a) * (1 - b) * g
            dx[:, i + 1, j] += (1 - a) * b * g
            dx[:, i, j + 1] += a * (1 - b) * g
            dx[:, i + 1, j + 1] += a * b * g
    return (dx,)


# ---------------------------------------------------------------- embeddings


def embedding(inputs):
    """Rows of a table."""
    table, tokens = inputs
    return table[tokens]


def embedding_backward(inputs, grad_output):
    table, tokens = inputs
    dtable = np.zeros_like(table)
    np.add.at(dtable, tokens, grad_output)
    return dtable, None


_BUFFERS = {}


def embedding_wrong_buffer(inputs, grad_output):
    table, tokens = inputs
    key = (table.shape, table.dtype)
    if key not in _BUFFERS:
        _BUFFERS[key] = np.zeros_like(table)
    np.add.at(_BUFFERS[key], tokens, grad_output)
    return _BUFFERS[key].copy(), None


def embedding_bag(inputs):
    """Sum of the rows of each bag."""
    table, bags = inputs
    return table[bags].sum(axis=1)


def embedding_bag_backward(inputs, grad_output):
    table, bags = inputs
    dtable = np.zeros_like(table)
    for b, bag in enumerate(bags):
        for word in bag:
            dtable[word] += grad_output[b]
    return dtable, None


def embedding_bag_wrong_frequency(inputs, grad_output):
    table, bags = inputs
    dtable = np.zeros_like(table)
    for b, bag in enumerate(bags):
        for word in bag:
            dtable[word] += grad_output[b]
    seen = np.bincount(bags.ravel(), minlength=table.shape[0])
    dtable /= np.maximum(seen, 1)[:, None].astype(table.dtype)
    return dtable, None


# ---------------------------------------------------------------- attention, gates, activations


def _attention_weights(q, k, causal):
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[2])
    if causal:
        scores = np.where(np.tri(q.shape[1], k.shape[1], dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=2, keepdims=True))
    return e / e.sum(axis=2, keepdims=True)


def attention(inputs, causal=False):
    """Scaled dot products, optionally without a look at the future."""
    q, k, v = inputs
    return _attention_weights(q, k, causal) @ v


def _attention_gradients(inputs, grad_output, p):
    q, k, v = inputs
    dp = grad_output @ v.transpose(0, 2, 1)
    ds = p * (dp - (dp * p).sum(axis=2, keepdims=True)) / math.sqrt(q.shape[2])
    return ds @ k, ds.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ grad_output


def attention_backward(inputs, grad_output, causal=False):
    q, k, v = inputs
    return _attention_gradients(inputs, grad_output, _attention_weights(q, k, causal))


def attention_wrong_mask(inputs, grad_output, causal=False):
    q, k, v = inputs
    return _attention_gradients(inputs, grad_output, _attention_weights(q, k, False))


def gated_linear_unit(inputs):
    """Value times a sigmoid gate."""
    a, b = inputs
    return a * _sigmoid(b)


def gated_linear_unit_backward(inputs, grad_output):
    a, b = inputs
    s = _sigmoid(b)
    return grad_output * s, grad_output * a * s * (1 - s)


def gated_linear_unit_wrong_gate(inputs, grad_output):
    a, b = inputs
    return grad_output * _sigmoid(b), grad_output * a


def film(inputs):
    """Every sample has its own gain and offset per channel."""
    x, gamma, beta = inputs
    return gamma[:, :, None] * x + beta[:, :, None]


def film_backward(inputs, grad_output):
    x, gamma, beta = inputs
    return grad_output * gamma[:, :, None], (grad_output * x).sum(axis=2), grad_output.sum(axis=2)


def film_wrong_gain(inputs, grad_output):
    x, gamma, beta = inputs
    dgamma = np.zeros_like(gamma)
    dgamma += (grad_output * x).sum(axis=(0, 2))
    return grad_output * gamma[:, :, None], dgamma, grad_output.sum(axis=2)


def layer_scale(inputs):
    """One learned gain per channel: gamma (C, 1, 1)."""
    x, gamma = inputs
    return x * gamma


def layer_scale_backward(inputs, grad_output):
    x, gamma = inputs
    return grad_output * gamma, (grad_output * x).sum(axis=(0, 2, 3)).reshape(gamma.shape)


def layer_scale_wrong_gain(inputs, grad_output):
    x, gamma = inputs
    return grad_output * gamma, grad_output * x


def prelu(inputs):
    """Leaky ReLU with a learned slope per channel."""
    x, alpha = inputs
    return np.maximum(x, 0) + alpha[:, None] * np.minimum(x, 0)


def prelu_backward(inputs, grad_output):
    x, alpha = inputs
    dx = grad_output * np.where(x > 0, 1, alpha[:, None]).astype(x.dtype)
    return dx, (grad_output * np.minimum(x, 0)).sum(axis=(0, 2))


def prelu_wrong_slope(inputs, grad_output):
    x, alpha = inputs
    dx = grad_output * np.where(x > 0, 1, alpha[:, None]).astype(x.dtype)
    return dx, (grad_output * np.minimum(x, 0) * (x > 0)).sum(axis=(0, 2))


def leaky_relu(inputs, slope=0.2):
    """Small slope left of zero."""
    (x,) = inputs
    return np.where(x < 0, slope * x, x)


def leaky_relu_backward(inputs, grad_output, slope=0.2):
    (x,) = inputs
    return (np.where(x < 0, slope * grad_output, grad_output),)


def leaky_relu_wrong_place(inputs, grad_output, slope=0.2):
    (x,) = inputs
    grad_output[x < 0] *= slope
    return (grad_output,)


def dropout(inputs, rate=0.4, seed=11):
    """Drops entries by a seeded mask and enlarges the others."""
    (x,) = inputs
    keep = np.random.default_rng(seed).random(x.shape) >= rate
    return x * keep / (1 - rate)


def dropout_backward(inputs, grad_output, rate=0.4, seed=11):
    (x,) = inputs
    keep = np.random.default_rng(seed).random(x.shape) >= rate
    return (grad_output * keep / (1 - rate),)


def dropout_wrong_mask(inputs, grad_output, rate=0.4, seed=11):
    (x,) = inputs
    keep = np.random.default_rng().random(x.shape) >= rate
    return (grad_output * keep / (1 - rate),)


def gelu(inputs):
    """Gaussian error linear unit by the tanh formula."""
    (x,) = inputs
    c = math.sqrt(2 / math.pi)
    return 0.5 * x * (1 + np.tanh(c * (x + 0.044715 * x * x * x)))


def gelu_backward(inputs, grad_output):
    (x,) = inputs
    c = math.sqrt(2 / math.pi)
    t = np.tanh(c * (x + 0.044715 * x * x * x))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    return (grad_output * slope,)


def gelu_wrong_precision(inputs, grad_output):
    (x,) = inputs
    (dx,) = gelu_backward((x.astype(np.float32),), grad_output.astype(np.float32))
    return (dx.astype(x.dtype),)


def softsign(inputs):
    """Slow saturation on both sides."""
    (x,) = inputs
    return x / (1 + np.abs(x))


def softsign_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output / (1 + np.abs(x)) ** 2,)


def softsign_wrong_square(inputs, grad_output):
    (x,) = inputs
    return (grad_output / (1 + x * x),)


def softplus(inputs, beta=1.5):
    """Smooth ReLU."""
    (x,) = inputs
    return np.log(1 + np.exp(beta * x)) / beta


def softplus_backward(inputs, grad_output, beta=1.5):
    (x,) = inputs
    return (grad_output * _sigmoid(beta * x),)


def softplus_wrong_plus(inputs, grad_output, beta=1.5):
    (x,) = inputs
    return (grad_output + _sigmoid(beta * x),)


_BAGS = np.array([[0, 2, 2], [5, 2, 1], [4, 5, 0], [2, 1, 6]])
_TOKENS = np.array([[4, 1, 4], [0, 2, 5]])


def _normal(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


CASES = [
    Planted(
        "linear: the bias gradient keeps the batch axis",
        linear, linear_backward, linear_wrong_row, _normal((3, 4), (5, 4), (5,)), {"b": ("shape",)},
    ),
    Planted(
        "token projection: the weights of each sentence replace the last ones",
        token_projection, token_projection_backward, token_projection_wrong_loop,
        _normal((3, 4, 5), (5, 6)), {"w": ("not_accumulated_over_axis",)},
    ),
    Planted(
        "scaled linear: the gain is forgotten in the matrix gradient",
        scaled_linear, scaled_linear_backward, scaled_linear_wrong_gain,
        _normal((4, 3), (3, 5), (5,)), {"u": ("missing_operand",)},
    ),
    Planted(
        "dense tanh: the derivative of tanh is forgotten",
        dense_tanh, dense_tanh_backward, dense_tanh_wrong_activation, _normal((4, 3), (3, 5), (5,)),
        {"x": ("missing_chain_factor",), "w": ("missing_chain_factor",), "b": ("missing_chain_factor",)},
    ),
    Planted(
        "bilinear layer: outer product in the wrong order",
        bilinear_layer, bilinear_layer_backward, bilinear_layer_wrong_outer,
        _normal((3, 4), (5, 4, 4), (3, 4)), {"w": ("axis_swapped",)},
    ),
    Planted(
        "graph convolution: sends the gradient along the arrows, not against them",
        graph_convolution, graph_convolution_backward, graph_convolution_wrong_direction,
        _normal((5, 5), (5, 3), (3, 4)), {"x": ("operand_transposed",)},
    ),
    Planted(
        "residual mlp: the skip path is forgotten",
        residual_mlp, residual_mlp_backward, residual_mlp_wrong_skip,
        _normal((3, 4), (4, 6), (6, 4)), {"x": ("identity_branch_lost",)},
    ),
    Planted(
        "conv1d: the loop over the kernel ends too early",
        conv1d, conv1d_backward, conv1d_wrong_bound, _normal((2, 3, 8), (4, 3, 5)),
        {"x": ("window_offset_skipped",)}, {"stride": 2, "padding": 1},
    ),
    Planted(
        "conv2d: full correlation with the kernel as it is",
        conv2d, conv2d_backward, conv2d_wrong_turn, _normal((2, 3, 5, 6), (4, 3, 2, 3)),
        {"x": ("kernel_flipped",)},
    ),
    Planted(
        "conv3d: weights assigned in the loop over samples",
        conv3d, conv3d_backward, conv3d_wrong_samples, _normal((2, 2, 3, 5, 4), (3, 2, 2, 4, 3)),
        {"w": ("not_accumulated_over_axis",)},
    ),
    Planted(
        "depthwise conv1d: the channel index is missing on the left",
        depthwise_conv1d, depthwise_conv1d_backward, depthwise_conv1d_wrong_channel,
        _normal((2, 3, 7), (3, 4)), {"x": ("mixed_over_axis",)},
    ),
    Planted(
        "transposed conv1d: the padding is put back one sample off",
        transposed_conv1d, transposed_conv1d_backward, transposed_conv1d_wrong_crop,
        _normal((2, 3, 6), (3, 4, 5)), {"x": ("spatial_shift",)}, {"padding": 1},
    ),
    Planted(
        "avg pool1d: the shorter last block is forgotten",
        avg_pool1d, avg_pool1d_backward, avg_pool1d_wrong_tail, _normal((2, 4, 8)), {"x": ("border_missing",)},
    ),
    Planted(
        "avg pool2d: always divides by the whole window",
        avg_pool2d, avg_pool2d_backward, avg_pool2d_wrong_count, _normal((2, 2, 5, 7)),
        {"x": ("wrong_variant",)}, {"kernel": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ),
    Planted(
        "max pool2d: one mask for all windows",
        max_pool2d, max_pool2d_backward, max_pool2d_wrong_mask, _normal((2, 3, 5, 6)),
        {"x": ("several_winners",)},
    ),
    Planted(
        "upsample linear: weights of the other corner convention",
        upsample_linear, upsample_linear_backward, upsample_linear_wrong_corners, _normal((2, 3, 4)),
        {"x": ("wrong_variant",)}, {"size": 7, "align_corners": False},
    ),
    Planted(
        "bilinear zoom: two corners exchanged",
        bilinear_zoom, bilinear_zoom_backward, bilinear_zoom_wrong_corners, _normal((2, 5, 6)),
        {"x": ("wrong_weights",)},
    ),
    Planted(
        "embedding: a buffer is kept between the calls",
        embedding, embedding_backward, embedding_wrong_buffer,
        lambda rng: (rng.standard_normal((6, 4)), _TOKENS.copy()), {"table": ("state_leak",)},
    ),
    Planted(
        "embedding bag: divided by how often the word occurs",
        embedding_bag, embedding_bag_backward, embedding_bag_wrong_frequency,
        lambda rng: (rng.standard_normal((7, 3)), _BAGS.copy()), {"table": ("factor_per_element",)},
    ),
    Planted(
        "attention: the mask is forgotten when the weights are computed again",
        attention, attention_backward, attention_wrong_mask, _normal((2, 4, 3), (2, 4, 3), (2, 4, 5)),
        {"q": ("wrong_variant",), "k": ("wrong_variant",), "v": ("wrong_variant",)}, {"causal": True},
    ),
    Planted(
        "gated linear unit: the slope of the gate is forgotten",
        gated_linear_unit, gated_linear_unit_backward, gated_linear_unit_wrong_gate,
        _normal((3, 5), (3, 5)), {"b": ("missing_chain_factor",)},
    ),
    Planted(
        "film: the gain is summed over the batch too",
        film, film_backward, film_wrong_gain, _normal((3, 4, 5), (3, 4), (3, 4)), {"gamma": ("mixed_over_axis",)},
    ),
    Planted(
        "layer scale: the gain is not summed",
        layer_scale, layer_scale_backward, layer_scale_wrong_gain, _normal((2, 3, 4, 5), (3, 1, 1)),
        {"gamma": ("missing_broadcast_sum",)},
    ),
    Planted(
        "prelu: the slope looks at the wrong side",
        prelu, prelu_backward, prelu_wrong_slope, _normal((2, 3, 5), (3,)), {"alpha": ("zero_gradient",)},
    ),
    Planted(
        "leaky relu: works in place on the upstream",
        leaky_relu, leaky_relu_backward, leaky_relu_wrong_place, _normal((4, 6)),
        {"x": ("damages_gout", "aliases_gout")}, {"slope": 0.3}, twice=True,
    ),
    Planted(
        "dropout: draws a new mask",
        dropout, dropout_backward, dropout_wrong_mask, _normal((5, 6)), {"x": ("nondeterministic",)},
    ),
    Planted(
        "gelu: computes in single precision",
        gelu, gelu_backward, gelu_wrong_precision, _normal((4, 5)), {"x": ("low_precision",)},
    ),
    Planted(
        "softsign: the square is taken too early",
        softsign, softsign_backward, softsign_wrong_square, _normal((3, 7)),
        {"x": ("wrong_local_derivative",)},
    ),
    Planted(
        "softplus: plus instead of times",
        softplus, softplus_backward, softplus_wrong_plus, _normal((2, 9)), {"x": ("ignores_upstream",)},
    ),
]
