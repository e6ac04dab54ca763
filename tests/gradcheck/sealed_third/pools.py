"""Pooling, resizing, padding, sampling."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted

from .common import apart, off_zero, positive

view = np.lib.stride_tricks.sliding_window_view

# ---------------------------------------------------------------- overlapping maxima


def max_pool2d(inputs, size=3, stride=2):
    (x,) = inputs
    return view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride].max(axis=(4, 5))


def max_pool2d_backward(inputs, grad_output, size=3, stride=2):
    (x,) = inputs
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*grad_output.shape):
        win = x[n, c, i * stride : i * stride + size, j * stride : j * stride + size]
        u, v = divmod(int(win.argmax()), size)
        dx[n, c, i * stride + u, j * stride + v] += grad_output[n, c, i, j]
    return (dx,)


def max_pool2d_wrong(inputs, grad_output, size=3, stride=2):
    """One mask for the image: whoever wins anywhere is paid by every window that it lies in."""
    (x,) = inputs
    y = max_pool2d(inputs, size, stride)
    won = np.zeros(x.shape, bool)
    for i, j in np.ndindex(*y.shape[2:]):
        at = (slice(None), slice(None), slice(i * stride, i * stride + size), slice(j * stride, j * stride + size))
        won[at] |= x[at] == y[:, :, i : i + 1, j : j + 1]
    dx = np.zeros_like(x)
    for i, j in np.ndindex(*y.shape[2:]):
        at = (slice(None), slice(None), slice(i * stride, i * stride + size), slice(j * stride, j * stride + size))
        dx[at] += won[at] * grad_output[:, :, i : i + 1, j : j + 1]
    return (dx,)


# ---------------------------------------------------------------- averages with padding


def avg_pool2d(inputs, size=3, stride=1, padding=1, count_include_pad=True):
    (x,) = inputs
    return _window_sums(x, size, stride, padding) / _divisor(x, size, stride, padding, count_include_pad)


def _window_sums(x, size, stride, padding):
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    return view(xp, (size, size), axis=(2, 3))[:, :, ::stride, ::stride].sum(axis=(4, 5))


def _divisor(x, size, stride, padding, include):
    if include:
        return float(size * size)
    return _window_sums(np.ones((1, 1, *x.shape[2:]), x.real.dtype), size, stride, padding)


def avg_pool2d_backward(inputs, grad_output, size=3, stride=1, padding=1, count_include_pad=True):
    (x,) = inputs
    g = grad_output / _divisor(x, size, stride, padding, count_include_pad)
    h, w = x.shape[2:]
    dxp = np.zeros((*x.shape[:2], h + 2 * padding, w + 2 * padding), x.dtype)
    for i, j in np.ndindex(*g.shape[2:]):
        dxp[:, :, i * stride : i * stride + size, j * stride : j * stride + size] += g[:, :, i, j, None, None]
    return (dxp[:, :, padding : padding + h, padding : padding + w].copy(),)


def avg_pool2d_wrong(inputs, grad_output, size=3, stride=1, padding=1, count_include_pad=True):
    return avg_pool2d_backward(inputs, grad_output, size, stride, padding)


# ---------------------------------------------------------------- averages, the last window may be short


def avg_pool1d(inputs, size=3, stride=3):
    (x,) = inputs
    return np.stack([x[..., s : s + size].mean(axis=-1) for s in range(0, x.shape[-1], stride)], axis=-1)


def avg_pool1d_backward(inputs, grad_output, size=3, stride=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t, s in enumerate(range(0, x.shape[-1], stride)):
        part = dx[..., s : s + size]
        part += grad_output[..., t : t + 1] / part.shape[-1]
    return (dx,)


def avg_pool1d_wrong(inputs, grad_output, size=3, stride=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t in range((x.shape[-1] - size) // stride + 1):
        dx[..., t * stride : t * stride + size] += grad_output[..., t : t + 1] / size
    return (dx,)


# ---------------------------------------------------------------- Euclidean length of each window


def l2_pool2d(inputs, size=2):
    (x,) = inputs
    n, c, h, w = x.shape
    return np.sqrt((x * x).reshape(n, c, h // size, size, w // size, size).sum(axis=(3, 5)))


def _spread(a, size):
    return a.repeat(size, axis=2).repeat(size, axis=3)


def l2_pool2d_backward(inputs, grad_output, size=2):
    (x,) = inputs
    return (x * _spread(grad_output / l2_pool2d(inputs, size), size),)


def l2_pool2d_wrong(inputs, grad_output, size=2):
    (x,) = inputs
    return (x * _spread(grad_output, size),)


# ---------------------------------------------------------------- as many bins as asked for


def adaptive_avg_pool1d(inputs, bins=4):
    (x,) = inputs
    length = x.shape[2]
    cuts = [(i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)]
    return np.stack([x[:, :, a:b].mean(axis=2) for a, b in cuts], axis=2)


def adaptive_avg_pool1d_backward(inputs, grad_output, bins=4):
    (x,) = inputs
    length = x.shape[2]
    dx = np.zeros_like(x)
    for i in range(bins):
        a, b = i * length // bins, -(-(i + 1) * length // bins)
        dx[:, :, a:b] += grad_output[:, :, i : i + 1] / (b - a)
    return (dx,)


def adaptive_avg_pool1d_wrong(inputs, grad_output, bins=4):
    (x,) = inputs
    length = x.shape[2]
    dx = np.zeros_like(x)
    for i in range(bins):
        a, b = i * length // bins, -(-(i + 1) * length // bins)
        dx[:, :, a:b] = grad_output[:, :, i : i + 1] / (b - a)
    return (dx,)


# ---------------------------------------------------------------- mean of the k largest


def top_k_mean(inputs, k=2):
    (x,) = inputs
    return np.sort(x, axis=1)[:, -k:].mean(axis=1)


def _top_k(inputs, grad_output, k, kept):
    (x,) = inputs
    best = np.argsort(-x, axis=1)[:, :kept]
    dx = np.zeros_like(x)
    np.put_along_axis(dx, best, np.repeat(grad_output[:, None] / k, kept, axis=1), axis=1)
    return (dx,)


def top_k_mean_backward(inputs, grad_output, k=2):
    return _top_k(inputs, grad_output, k, k)


def top_k_mean_wrong(inputs, grad_output, k=2):
    return _top_k(inputs, grad_output, k, k + 1)


# ---------------------------------------------------------------- resizing


def _taps(n_in, n_out, align_corners):
    if align_corners:
        at = np.arange(n_out) * (n_in - 1) / max(n_out - 1, 1)
    else:
        at = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    low = np.minimum(np.floor(at).astype(int), max(n_in - 2, 0))
    m = np.zeros((n_out, n_in))
    m[np.arange(n_out), low] += 1 - (at - low)
    m[np.arange(n_out), np.minimum(low + 1, n_in - 1)] += at - low
    return m


def bilinear_resize(inputs, size=(5, 7), align_corners=False):
    (x,) = inputs
    rows = _taps(x.shape[2], size[0], align_corners).astype(x.dtype)
    cols = _taps(x.shape[3], size[1], align_corners).astype(x.dtype)
    return np.einsum("ih,nchw,jw->ncij", rows, x, cols)


def bilinear_resize_backward(inputs, grad_output, size=(5, 7), align_corners=False):
    (x,) = inputs
    rows = _taps(x.shape[2], size[0], align_corners).astype(x.dtype)
    cols = _taps(x.shape[3], size[1], align_corners).astype(x.dtype)
    return (np.einsum("ih,ncij,jw->nchw", rows, grad_output, cols),)


def bilinear_resize_wrong(inputs, grad_output, size=(5, 7), align_corners=False):
    return bilinear_resize_backward(inputs, grad_output, size, True)


def linear_resize(inputs, length=8):
    """Half-pixel centres, indices clamped at the ends."""
    (x,) = inputs
    n = x.shape[-1]
    at = (np.arange(length) + 0.5) * n / length - 0.5
    i0 = np.floor(at).astype(int)
    t = (at - i0).astype(x.dtype)
    return x[..., np.clip(i0, 0, n - 1)] * (1 - t) + x[..., np.clip(i0 + 1, 0, n - 1)] * t


def _linear_resize(inputs, grad_output, length, other):
    (x,) = inputs
    n = x.shape[-1]
    at = (np.arange(length) + 0.5) * n / length - 0.5
    dx = np.zeros_like(x)
    for j in range(length):
        low = int(np.floor(at[j]))
        t = float(at[j] - low)
        if other:
            t = 1 - t
        dx[..., max(low, 0)] += (1 - t) * grad_output[..., j]
        dx[..., min(low + 1, n - 1)] += t * grad_output[..., j]
    return (dx,)


def linear_resize_backward(inputs, grad_output, length=8):
    return _linear_resize(inputs, grad_output, length, False)


def linear_resize_wrong(inputs, grad_output, length=8):
    return _linear_resize(inputs, grad_output, length, True)


# ---------------------------------------------------------------- reading an image between its pixels


def _corner(p, n):
    return np.clip(np.floor(p.real).astype(int), 0, n - 2)


def sample_image(inputs):
    """An image (H, W) read at the points (r, c), both strictly inside."""
    img, r, c = inputs
    i, j = _corner(r, img.shape[0]), _corner(c, img.shape[1])
    a, b = r - i.astype(r.dtype), c - j.astype(c.dtype)
    return ((1 - a) * (1 - b) * img[i, j] + (1 - a) * b * img[i, j + 1]
            + a * (1 - b) * img[i + 1, j] + a * b * img[i + 1, j + 1])


def _sample(inputs, grad_output, crossed):
    img, r, c = inputs
    i, j = _corner(r, img.shape[0]), _corner(c, img.shape[1])
    a, b = r - i.astype(r.dtype), c - j.astype(c.dtype)
    right, below = (1 - a) * b, a * (1 - b)
    if crossed:
        right, below = below, right
    d = np.zeros_like(img)
    np.add.at(d, (i, j), (1 - a) * (1 - b) * grad_output)
    np.add.at(d, (i, j + 1), right * grad_output)
    np.add.at(d, (i + 1, j), below * grad_output)
    np.add.at(d, (i + 1, j + 1), a * b * grad_output)
    dr = grad_output * ((1 - b) * (img[i + 1, j] - img[i, j]) + b * (img[i + 1, j + 1] - img[i, j + 1]))
    dc = grad_output * ((1 - a) * (img[i, j + 1] - img[i, j]) + a * (img[i + 1, j + 1] - img[i + 1, j]))
    return d, dr, dc


def sample_image_backward(inputs, grad_output):
    return _sample(inputs, grad_output, False)


def sample_image_wrong(inputs, grad_output):
    return _sample(inputs, grad_output, True)


def _sample_inputs(r):
    rows, cols = r.integers(0, 3, 7), r.integers(0, 4, 7)
    return r.normal(size=(4, 5)), rows + r.uniform(0.1, 0.9, 7), cols + r.uniform(0.1, 0.9, 7)


# ---------------------------------------------------------------- frames added up again


def overlap_add(inputs, hop=2):
    (frames,) = inputs
    b, count, size = frames.shape
    y = np.zeros((b, (count - 1) * hop + size), frames.dtype)
    for f in range(count):
        y[:, f * hop : f * hop + size] += frames[:, f]
    return y


def overlap_add_backward(inputs, grad_output, hop=2):
    (frames,) = inputs
    return (view(grad_output, frames.shape[2], axis=1)[:, ::hop].copy(),)


def overlap_add_wrong(inputs, grad_output, hop=2):
    (frames,) = inputs
    cover = overlap_add((np.ones_like(frames),), hop)
    return (view(grad_output / cover, frames.shape[2], axis=1)[:, ::hop].copy(),)


# ---------------------------------------------------------------- padding


def edge_pad(inputs, pad=2):
    """The border values go on outside."""
    (x,) = inputs
    rows = np.clip(np.arange(-pad, x.shape[1] + pad), 0, x.shape[1] - 1)
    return x[:, rows]


def edge_pad_backward(inputs, grad_output, pad=2):
    (x,) = inputs
    dx = grad_output[:, pad : pad + x.shape[1]].copy()
    dx[:, 0] += grad_output[:, :pad].sum(axis=1)
    dx[:, -1] += grad_output[:, pad + x.shape[1] :].sum(axis=1)
    return (dx,)


def edge_pad_wrong(inputs, grad_output, pad=2):
    (x,) = inputs
    return (grad_output[:, pad : pad + x.shape[1]].copy(),)


def zero_pad2d(inputs, top=1, bottom=2, left=2, right=1):
    (x,) = inputs
    return np.pad(x, ((0, 0), (top, bottom), (left, right)))


def zero_pad2d_backward(inputs, grad_output, top=1, bottom=2, left=2, right=1):
    (x,) = inputs
    _, h, w = x.shape
    return (grad_output[:, top : top + h, left : left + w].copy(),)


def zero_pad2d_wrong(inputs, grad_output, top=1, bottom=2, left=2, right=1):
    (x,) = inputs
    _, h, w = x.shape
    return (grad_output[:, bottom : bottom + h, right : right + w].copy(),)


# ---------------------------------------------------------------- orders of axes


CASES = [
    Planted("max_pool2d: one mask of winners for all windows", max_pool2d, max_pool2d_backward, max_pool2d_wrong,
            lambda r: (apart(r, 2, 2, 7, 7),), {"x": ("several_winners",)}, {"size": 3, "stride": 1}),
    Planted("avg_pool2d: count_include_pad is not handed on", avg_pool2d, avg_pool2d_backward, avg_pool2d_wrong,
            lambda r: (r.normal(size=(2, 3, 4, 5)),), {"x": ("wrong_variant",)},
            {"size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    Planted("avg_pool1d: the short last window is left out", avg_pool1d, avg_pool1d_backward, avg_pool1d_wrong,
            lambda r: (r.normal(size=(3, 2, 8)),), {"x": ("border_missing",)}, {"size": 3, "stride": 3}),
    Planted("l2_pool2d: derivative of the root forgotten", l2_pool2d, l2_pool2d_backward, l2_pool2d_wrong,
            lambda r: (off_zero(r, 2, 3, 4, 6),), {"x": ("missing_chain_factor",)}, {"size": 2}),
    Planted("adaptive_avg_pool1d: = for += where bins overlap", adaptive_avg_pool1d, adaptive_avg_pool1d_backward,
            adaptive_avg_pool1d_wrong, lambda r: (r.normal(size=(2, 3, 10)),),
            {"x": ("overlap_overwritten",)}, {"bins": 4}),
    Planted("top_k_mean: one too many are kept", top_k_mean, top_k_mean_backward, top_k_mean_wrong,
            lambda r: (apart(r, 4, 6),), {"x": ("several_winners",)}, {"k": 2}),
    Planted("bilinear_resize: align_corners taken for granted", bilinear_resize, bilinear_resize_backward,
            bilinear_resize_wrong, lambda r: (r.normal(size=(2, 2, 3, 4)),), {"x": ("wrong_variant",)},
            {"size": (5, 7)}),
    Planted("linear_resize: the two weights exchanged", linear_resize, linear_resize_backward, linear_resize_wrong,
            lambda r: (r.normal(size=(3, 5)),), {"x": ("wrong_weights",)}, {"length": 8}),
    Planted("sample_image: weights of the right and the lower neighbour exchanged", sample_image,
            sample_image_backward, sample_image_wrong, _sample_inputs, {"img": ("wrong_weights",)}),
    Planted("overlap_add: divided by the number of frames that cover the sample", overlap_add,
            overlap_add_backward, overlap_add_wrong, lambda r: (positive(r, 2, 4, 3),),
            {"frames": ("factor_per_element",)}, {"hop": 2}),
    Planted("edge_pad: only the middle is cut out", edge_pad, edge_pad_backward, edge_pad_wrong,
            lambda r: (r.normal(size=(3, 5)),), {"x": ("border_missing", "overlap_overwritten")}, {"pad": 2}),
    Planted("zero_pad2d: crop begins with the wrong pair of margins", zero_pad2d, zero_pad2d_backward,
            zero_pad2d_wrong, lambda r: (r.normal(size=(2, 5, 4)),), {"x": ("spatial_shift",)},
            {"top": 1, "bottom": 2, "left": 2, "right": 1}),
]
