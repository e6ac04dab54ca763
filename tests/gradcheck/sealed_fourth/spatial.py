"""Convolutions, pooling, padding and resizing."""

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def causal_conv1d(inputs, dilation=1):
    """Convolution that sees only the past; the output is as long as the input."""
    x, w = inputs  # (N, C, L), (O, C, k)
    n, _, length = x.shape
    taps = w.shape[2]
    xp = np.pad(x, ((0, 0), (0, 0), ((taps - 1) * dilation, 0)))
    y = np.zeros((n, w.shape[0], length), x.dtype)
    for j in range(taps):
        y += np.einsum("ncl,oc->nol", xp[:, :, j * dilation : j * dilation + length], w[:, :, j])
    return y


def _causal_dx(x, w, g, dilation):
    taps, length = w.shape[2], x.shape[2]
    left = (taps - 1) * dilation
    dxp = np.zeros((x.shape[0], x.shape[1], length + left), x.dtype)
    for j in range(taps):
        dxp[:, :, j * dilation : j * dilation + length] += np.einsum("nol,oc->ncl", g, w[:, :, j])
    return dxp[:, :, left:].copy()


def _causal_dw(x, w, g, dilation):
    taps, length = w.shape[2], x.shape[2]
    xp = np.pad(x, ((0, 0), (0, 0), ((taps - 1) * dilation, 0)))
    dw = np.zeros_like(w)
    for j in range(taps):
        dw[:, :, j] = np.einsum("nol,ncl->oc", g, xp[:, :, j * dilation : j * dilation + length])
    return dw


def causal_conv1d_backward(inputs, grad_output, dilation=1):
    x, w = inputs
    return _causal_dx(x, w, grad_output, dilation), _causal_dw(x, w, grad_output, dilation)


def causal_conv1d_dx_undilated(inputs, grad_output, dilation=1):
    x, w = inputs
    return _causal_dx(x, w, grad_output, 1), _causal_dw(x, w, grad_output, dilation)


def depthwise_conv2d(inputs):
    """Every channel has its own odd kernel; the size stays."""
    x, w = inputs  # (N, C, H, W), (C, kh, kw)
    _, _, h, wd = x.shape
    kh, kw = w.shape[1:]
    xp = np.pad(x, ((0, 0), (0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2)))
    y = np.zeros_like(x)
    for i in range(kh):
        for j in range(kw):
            y += xp[:, :, i : i + h, j : j + wd] * w[:, i, j][:, None, None]
    return y


def _depthwise_dw(x, w, g):
    _, _, h, wd = x.shape
    kh, kw = w.shape[1:]
    xp = np.pad(x, ((0, 0), (0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2)))
    dw = np.zeros_like(w)
    for i in range(kh):
        for j in range(kw):
            dw[:, i, j] = (xp[:, :, i : i + h, j : j + wd] * g).sum((0, 2, 3))
    return dw


def depthwise_conv2d_backward(inputs, grad_output):
    x, w = inputs
    return depthwise_conv2d((grad_output, w[:, ::-1, ::-1])), _depthwise_dw(x, w, grad_output)


def depthwise_conv2d_unflipped(inputs, grad_output):
    x, w = inputs
    return depthwise_conv2d((grad_output, w)), _depthwise_dw(x, w, grad_output)


def pointwise_conv2d(inputs):
    """A 1x1 convolution with bias."""
    x, w, b = inputs  # (N, C, H, W), (O, C), (O,)
    return np.einsum("nchw,oc->nohw", x, w) + b[:, None, None]


def pointwise_conv2d_backward(inputs, grad_output):
    x, w, _b = inputs
    g = grad_output
    return np.einsum("nohw,oc->nchw", g, w), np.einsum("nohw,nchw->oc", g, x), g.sum((0, 2, 3))


def pointwise_conv2d_w_as_is(inputs, grad_output):
    x, w, _b = inputs
    g = grad_output
    return np.einsum("nchw,oc->nohw", g, w), np.einsum("nohw,nchw->oc", g, x), g.sum((0, 2, 3))


def _cut(x, p):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // p, p, w // p, p).transpose(0, 2, 4, 1, 3, 5).reshape(n, -1, c * p * p)


def patch_embedding(inputs):
    """Non-overlapping patches, each mapped to a token."""
    x, w = inputs  # (N, C, H, W), (D, C, p, p)
    return _cut(x, w.shape[2]) @ w.reshape(w.shape[0], -1).T


def _patch_dx(x, w, g):
    n, c, h, wd = x.shape
    p = w.shape[2]
    cols = (g @ w.reshape(w.shape[0], -1)).reshape(n, h // p, wd // p, c, p, p)
    return cols.transpose(0, 3, 1, 4, 2, 5).reshape(x.shape).copy()


def patch_embedding_backward(inputs, grad_output):
    x, w = inputs
    tokens = _cut(x, w.shape[2])
    dw = np.einsum("ntd,ntf->df", grad_output, tokens).reshape(w.shape)
    return _patch_dx(x, w, grad_output), dw


def patch_embedding_last_sample(inputs, grad_output):
    x, w = inputs
    tokens = _cut(x, w.shape[2])
    dw = np.zeros_like(w)
    for n in range(len(x)):
        dw = (grad_output[n].T @ tokens[n]).reshape(w.shape)
    return _patch_dx(x, w, grad_output), dw


def conv3d(inputs):
    """Valid volumetric convolution."""
    x, w, b = inputs  # (N, C, D, H, W), (O, C, a, b, c), (O,)
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    return np.einsum("ncdhwijk,ocijk->nodhw", win, w) + b.reshape(1, -1, 1, 1, 1)


def _conv3d_dxw(x, w, g):
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    dw = np.einsum("ncdhwijk,nodhw->ocijk", win, g)
    dx = np.zeros_like(x)
    d, h, v = g.shape[2:]
    for i, j, k in np.ndindex(*w.shape[2:]):
        dx[:, :, i : i + d, j : j + h, k : k + v] += np.einsum("nodhw,oc->ncdhw", g, w[:, :, i, j, k])
    return dx, dw


def conv3d_backward(inputs, grad_output):
    x, w, _b = inputs
    return *_conv3d_dxw(x, w, grad_output), grad_output.sum((0, 2, 3, 4))


def conv3d_bias_averaged(inputs, grad_output):
    x, w, _b = inputs
    return *_conv3d_dxw(x, w, grad_output), grad_output.mean((0, 2, 3, 4))


def conv2d(inputs, stride=1):
    """Valid strided convolution, window by window."""
    x, w = inputs  # (N, C, H, W), (O, C, kh, kw)
    n, _, h, wd = x.shape
    o, _, kh, kw = w.shape
    y = np.zeros((n, o, (h - kh) // stride + 1, (wd - kw) // stride + 1), x.dtype)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            patch = x[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
            y[:, :, i, j] = np.tensordot(patch, w, ((1, 2, 3), (1, 2, 3)))
    return y


def _conv2d_windows(x, w, g, stride, rows, cols):
    kh, kw = w.shape[2:]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(rows):
        for j in range(cols):
            at = np.s_[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
            dx[at] += np.tensordot(g[:, :, i, j], w, 1)
            dw += np.tensordot(g[:, :, i, j], x[at], ((0,), (0,)))
    return dx, dw


def conv2d_backward(inputs, grad_output, stride=1):
    x, w = inputs
    return _conv2d_windows(x, w, grad_output, stride, *grad_output.shape[2:])


def conv2d_last_windows_lost(inputs, grad_output, stride=1):
    x, w = inputs
    rows, cols = (x.shape[2] - w.shape[2]) // stride, (x.shape[3] - w.shape[3]) // stride
    return _conv2d_windows(x, w, grad_output, stride, rows, cols)


def conv1d(inputs, stride=1, padding=0):
    """Strided, zero-padded convolution over time."""
    x, w, b = inputs  # (N, C, L), (O, C, k), (O,)
    taps = w.shape[2]
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    out = (xp.shape[2] - taps) // stride + 1
    idx = np.arange(out)[:, None] * stride + np.arange(taps)
    return np.einsum("nctk,ock->not", xp[:, :, idx], w) + b[:, None]


def _conv1d_grads(x, w, g, stride, padding, taps_used):
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    out = g.shape[2]
    idx = np.arange(out)[:, None] * stride + np.arange(w.shape[2])
    dw = np.einsum("not,nctk->ock", g, xp[:, :, idx])
    dxp = np.zeros_like(xp)
    for j in taps_used:
        dxp[:, :, j : j + stride * (out - 1) + 1 : stride] += np.einsum("not,oc->nct", g, w[:, :, j])
    return dxp[:, :, padding : padding + x.shape[2]].copy(), dw, g.sum((0, 2))


def conv1d_backward(inputs, grad_output, stride=1, padding=0):
    x, w, _b = inputs
    return _conv1d_grads(x, w, grad_output, stride, padding, range(w.shape[2]))


def conv1d_tap_lost(inputs, grad_output, stride=1, padding=0):
    x, w, _b = inputs
    return _conv1d_grads(x, w, grad_output, stride, padding, range(w.shape[2] - 1))


def unfold1d(inputs, size=3, step=1):
    """All windows of a signal, one below the other."""
    (x,) = inputs  # (N, L)
    count = (x.shape[1] - size) // step + 1
    return np.stack([x[:, t * step : t * step + size] for t in range(count)], axis=1)


def unfold1d_backward(inputs, grad_output, size=3, step=1):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t in range(grad_output.shape[1]):
        dx[:, t * step : t * step + size] += grad_output[:, t]
    return (dx,)


def unfold1d_assigned(inputs, grad_output, size=3, step=1):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t in range(grad_output.shape[1]):
        dx[:, t * step : t * step + size] = grad_output[:, t]
    return (dx,)


def locally_connected1d(inputs):
    """A convolution whose kernel is another one at every place."""
    x, w = inputs  # (N, C, L), (T, O, C, k)
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[3], axis=2)
    return np.einsum("nctk,tock->not", win, w)


def _local_dx(x, w, g):
    dx = np.zeros_like(x)
    for t in range(w.shape[0]):
        dx[:, :, t : t + w.shape[3]] += np.einsum("no,ock->nck", g[:, :, t], w[t])
    return dx


def locally_connected1d_backward(inputs, grad_output):
    x, w = inputs
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[3], axis=2)
    return _local_dx(x, w, grad_output), np.einsum("not,nctk->tock", grad_output, win)


def locally_connected1d_shared(inputs, grad_output):
    x, w = inputs
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[3], axis=2)
    one = np.einsum("not,nctk->ock", grad_output, win)
    return _local_dx(x, w, grad_output), np.broadcast_to(one, w.shape).copy()


def avg_pool2d(inputs, size=3, stride=2, padding=1):
    """Mean over square windows, the zeros of the border count."""
    (x,) = inputs  # (N, C, H, W)
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    win = np.lib.stride_tricks.sliding_window_view(xp, (size, size), axis=(2, 3))
    return win[:, :, ::stride, ::stride].mean((4, 5))


def _avg_pool2d_padded(x, g, size, stride, padding):
    n, c, h, w = x.shape
    dxp = np.zeros((n, c, h + 2 * padding, w + 2 * padding), x.dtype)
    for i, j in np.ndindex(*g.shape[2:]):
        top, left = i * stride, j * stride
        dxp[:, :, top : top + size, left : left + size] += g[:, :, i, j, None, None] / size**2
    return dxp


def avg_pool2d_backward(inputs, grad_output, size=3, stride=2, padding=1):
    (x,) = inputs
    dxp = _avg_pool2d_padded(x, grad_output, size, stride, padding)
    return (dxp[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]].copy(),)


def avg_pool2d_crop_at_zero(inputs, grad_output, size=3, stride=2, padding=1):
    (x,) = inputs
    dxp = _avg_pool2d_padded(x, grad_output, size, stride, padding)
    return (dxp[:, :, : x.shape[2], : x.shape[3]].copy(),)


def max_pool1d(inputs, size=3, stride=2):
    """The largest value of each window."""
    (x,) = inputs  # (N, C, L)
    count = (x.shape[2] - size) // stride + 1
    return np.stack([x[:, :, t * stride : t * stride + size].max(2) for t in range(count)], axis=2)


def max_pool1d_backward(inputs, grad_output, size=3, stride=2):
    (x,) = inputs
    dx = np.zeros_like(x)
    for n, c, t in np.ndindex(*grad_output.shape):
        best = x[n, c, t * stride : t * stride + size].argmax()
        dx[n, c, t * stride + best] += grad_output[n, c, t]
    return (dx,)


def max_pool1d_local_index(inputs, grad_output, size=3, stride=2):
    (x,) = inputs
    dx = np.zeros_like(x)
    for n, c, t in np.ndindex(*grad_output.shape):
        best = x[n, c, t * stride : t * stride + size].argmax()
        dx[n, c, best] += grad_output[n, c, t]
    return (dx,)


def global_max_pool2d(inputs):
    """One number per channel, its largest."""
    (x,) = inputs  # (N, C, H, W)
    return x.max(axis=(2, 3))


def global_max_pool2d_backward(inputs, grad_output):
    (x,) = inputs
    return ((x == x.max(axis=(2, 3), keepdims=True)) * grad_output[:, :, None, None],)


def global_max_pool2d_row_winners(inputs, grad_output):
    (x,) = inputs
    return ((x == x.max(axis=3, keepdims=True)) * grad_output[:, :, None, None],)


def pixel_shuffle(inputs, r=2):
    """Channels become pixels."""
    (x,) = inputs  # (N, C r r, H, W)
    n, c, h, w = x.shape
    y = x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // r**2, h * r, w * r)


def pixel_shuffle_backward(inputs, grad_output, r=2):
    (x,) = inputs
    n, c, h, w = x.shape
    g = grad_output.reshape(n, c // r**2, h, r, w, r)
    return (g.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape).copy(),)


def pixel_shuffle_axes_mixed(inputs, grad_output, r=2):
    (x,) = inputs
    n, c, h, w = x.shape
    g = grad_output.reshape(n, c // r**2, h, r, w, r)
    return (g.transpose(0, 1, 3, 5, 4, 2).reshape(x.shape).copy(),)


def center_pad2d(inputs, height=9, width=8):
    """Zeros around an image until it has the wanted size; an odd rest goes below and to the right."""
    (x,) = inputs  # (N, H, W)
    top, left = (height - x.shape[1]) // 2, (width - x.shape[2]) // 2
    y = np.zeros((x.shape[0], height, width), x.dtype)
    y[:, top : top + x.shape[1], left : left + x.shape[2]] = x
    return y


def center_pad2d_backward(inputs, grad_output, height=9, width=8):
    (x,) = inputs
    top, left = (height - x.shape[1]) // 2, (width - x.shape[2]) // 2
    return (grad_output[:, top : top + x.shape[1], left : left + x.shape[2]].copy(),)


def center_pad2d_rounded_up(inputs, grad_output, height=9, width=8):
    (x,) = inputs
    top, left = math.ceil((height - x.shape[1]) / 2), math.ceil((width - x.shape[2]) / 2)
    return (grad_output[:, top : top + x.shape[1], left : left + x.shape[2]].copy(),)


def replicate_pad1d(inputs, before=2, after=3):
    """The first and the last value are repeated."""
    (x,) = inputs  # (N, L)
    return x[:, np.clip(np.arange(-before, x.shape[1] + after), 0, x.shape[1] - 1)]


def replicate_pad1d_backward(inputs, grad_output, before=2, after=3):
    (x,) = inputs
    idx = np.clip(np.arange(-before, x.shape[1] + after), 0, x.shape[1] - 1)
    dx = np.zeros_like(x)
    np.add.at(dx, (slice(None), idx), grad_output)
    return (dx,)


def replicate_pad1d_plain_plus(inputs, grad_output, before=2, after=3):
    (x,) = inputs
    idx = np.clip(np.arange(-before, x.shape[1] + after), 0, x.shape[1] - 1)
    dx = np.zeros_like(x)
    dx[:, idx] += grad_output
    return (dx,)


def _linear_taps(size, out, dtype):
    pos = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
    low = np.minimum(np.floor(pos).astype(int), size - 2)
    return low, (pos - low).astype(dtype)


def resize_linear1d(inputs, out=8):
    """Linear interpolation on half-pixel centres."""
    (x,) = inputs  # (N, C, L)
    low, f = _linear_taps(x.shape[2], out, x.dtype)
    return x[:, :, low] * (1 - f) + x[:, :, low + 1] * f


def resize_linear1d_backward(inputs, grad_output, out=8):
    (x,) = inputs
    low, f = _linear_taps(x.shape[2], out, x.dtype)
    dx = np.zeros_like(x)
    for t in range(out):
        dx[:, :, low[t]] += (1 - f[t]) * grad_output[:, :, t]
        dx[:, :, low[t] + 1] += f[t] * grad_output[:, :, t]
    return (dx,)


def resize_linear1d_weights_exchanged(inputs, grad_output, out=8):
    (x,) = inputs
    low, f = _linear_taps(x.shape[2], out, x.dtype)
    dx = np.zeros_like(x)
    for t in range(out):
        dx[:, :, low[t]] += f[t] * grad_output[:, :, t]
        dx[:, :, low[t] + 1] += (1 - f[t]) * grad_output[:, :, t]
    return (dx,)


def conv2d_same(inputs):
    """Dense 3x3 convolution that keeps the size."""
    x, w = inputs  # (N, C, H, W), (O, C, 3, 3)
    xp = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    win = np.lib.stride_tricks.sliding_window_view(xp, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", win, w)


def _same_dw(x, g):
    xp = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    win = np.lib.stride_tricks.sliding_window_view(xp, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,nohw->ocij", win, g)


def conv2d_same_backward(inputs, grad_output):
    x, w = inputs
    dx = conv2d_same((grad_output, w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)))
    return dx, _same_dw(x, grad_output)


def conv2d_same_unflipped_averaged(inputs, grad_output):
    x, w = inputs
    dx = conv2d_same((grad_output, w.transpose(1, 0, 2, 3))) / len(x)
    return dx, _same_dw(x, grad_output)


def _normal(*shapes):
    def make(rng):
        return tuple(rng.normal(size=s) for s in shapes)

    return make


CASES = [
    Planted(
        "causal_conv1d: the gradient of x forgets the dilation",
        causal_conv1d,
        causal_conv1d_backward,
        causal_conv1d_dx_undilated,
        _normal((2, 3, 9), (4, 3, 3)),
        {"x": ("wrong_variant",)},
        {"dilation": 2},
    ),
    Planted(
        "depthwise_conv2d: the kernel is not turned for x",
        depthwise_conv2d,
        depthwise_conv2d_backward,
        depthwise_conv2d_unflipped,
        _normal((2, 3, 5, 6), (3, 3, 3)),
        {"x": ("kernel_flipped",)},
    ),
    Planted(
        "pointwise_conv2d: the same matrix forth and back",
        pointwise_conv2d,
        pointwise_conv2d_backward,
        pointwise_conv2d_w_as_is,
        _normal((2, 4, 3, 5), (4, 4), (4,)),
        {"x": ("operand_transposed",)},
    ),
    Planted(
        "patch_embedding: only the last sample in w",
        patch_embedding,
        patch_embedding_backward,
        patch_embedding_last_sample,
        _normal((3, 2, 4, 6), (5, 2, 2, 2)),
        {"w": ("not_accumulated_over_axis",)},
    ),
    Planted(
        "conv3d: the bias gets a mean",
        conv3d,
        conv3d_backward,
        conv3d_bias_averaged,
        _normal((2, 1, 4, 5, 6), (3, 1, 3, 2, 4), (3,)),
        {"b": ("constant_factor",)},
    ),
    Planted(
        "conv2d: one row and one column of windows too few",
        conv2d,
        conv2d_backward,
        conv2d_last_windows_lost,
        _normal((2, 3, 7, 6), (4, 3, 3, 2)),
        {"x": ("border_missing",), "w": ("border_missing",)},
        {"stride": 2},
    ),
    Planted(
        "conv1d: the loop over taps ends early",
        conv1d,
        conv1d_backward,
        conv1d_tap_lost,
        _normal((2, 3, 8), (4, 3, 3), (4,)),
        {"x": ("window_offset_skipped",)},
        {"padding": 1},
    ),
    Planted(
        "unfold1d: windows overwrite each other",
        unfold1d,
        unfold1d_backward,
        unfold1d_assigned,
        _normal((2, 11)),
        {"x": ("overlap_overwritten",)},
        {"size": 4, "step": 2},
    ),
    Planted(
        "locally_connected1d: as if the kernel were shared",
        locally_connected1d,
        locally_connected1d_backward,
        locally_connected1d_shared,
        _normal((3, 2, 6), (4, 2, 2, 3)),
        {"w": ("mixed_over_axis",)},
    ),
    Planted(
        "avg_pool2d: the padding is cut at one side only",
        avg_pool2d,
        avg_pool2d_backward,
        avg_pool2d_crop_at_zero,
        _normal((2, 3, 7, 5)),
        {"x": ("spatial_shift",)},
    ),
    Planted(
        "max_pool1d: the index within the window used for the signal",
        max_pool1d,
        max_pool1d_backward,
        max_pool1d_local_index,
        _normal((2, 3, 9)),
        {"x": ("wrong_routing",)},
    ),
    Planted(
        "global_max_pool2d: the winner of every row",
        global_max_pool2d,
        global_max_pool2d_backward,
        global_max_pool2d_row_winners,
        _normal((2, 3, 4, 5)),
        {"x": ("several_winners",)},
    ),
    Planted(
        "pixel_shuffle: rows and columns exchanged",
        pixel_shuffle,
        pixel_shuffle_backward,
        pixel_shuffle_axes_mixed,
        _normal((2, 8, 3, 3)),
        {"x": ("axis_swapped",)},
    ),
    Planted(
        "center_pad2d: half of the rest rounded up",
        center_pad2d,
        center_pad2d_backward,
        center_pad2d_rounded_up,
        _normal((3, 6, 5)),
        {"x": ("spatial_shift",)},
    ),
    Planted(
        "replicate_pad1d: plus-equals on repeated indices",
        replicate_pad1d,
        replicate_pad1d_backward,
        replicate_pad1d_plain_plus,
        _normal((4, 6)),
        {"x": ("overlap_overwritten",)},
    ),
    Planted(
        "resize_linear1d: f and 1 - f exchanged",
        resize_linear1d,
        resize_linear1d_backward,
        resize_linear1d_weights_exchanged,
        _normal((2, 3, 9)),
        {"x": ("wrong_weights",)},
    ),
    Planted(
        "conv2d_same: kernel not turned and divided by the batch",
        conv2d_same,
        conv2d_same_backward,
        conv2d_same_unflipped_averaged,
        _normal((2, 3, 4, 5), (4, 3, 3, 3)),
        {"x": ("kernel_flipped", "constant_factor")},
        twice=True,
    ),
]
