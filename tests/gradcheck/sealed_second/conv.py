"""Second sealed exam: convolutions, pooling, resizing, padding."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def spread(rng, *shape):
    """Values without ties: a shuffled grid with a little noise."""
    n = int(np.prod(shape))
    return ((rng.permutation(n) - n / 2 + 0.6 * rng.random(n)) * (4.0 / n)).reshape(shape)


def conv2d(inputs, stride=1, dilation=1, padding=0):
    """Cross-correlation with bias."""
    x, w, b = inputs
    p, s, d = padding, stride, dilation
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    kh, kw = w.shape[2:]
    oh = (xp.shape[2] - d * (kh - 1) - 1) // s + 1
    ow = (xp.shape[3] - d * (kw - 1) - 1) // s + 1
    y = np.zeros((x.shape[0], w.shape[0], oh, ow), x.dtype)
    for i in range(kh):
        for j in range(kw):
            part = xp[:, :, i * d : i * d + s * (oh - 1) + 1 : s, j * d : j * d + s * (ow - 1) + 1 : s]
            y += np.einsum("nchw,oc->nohw", part, w[:, :, i, j])
    return y + b[:, None, None]


def conv2d_backward(inputs, grad_output, stride=1, dilation=1, padding=0):
    x, w, _ = inputs
    p, s, d = padding, stride, dilation
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    oh, ow = grad_output.shape[2:]
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            rows = slice(i * d, i * d + s * (oh - 1) + 1, s)
            cols = slice(j * d, j * d + s * (ow - 1) + 1, s)
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", grad_output, xp[:, :, rows, cols])
            dxp[:, :, rows, cols] += np.einsum("nohw,oc->nchw", grad_output, w[:, :, i, j])
    dx = dxp[:, :, p : p + x.shape[2], p : p + x.shape[3]].copy()
    return dx, dw, grad_output.sum(axis=(0, 2, 3))


def conv2d_backward_columns(inputs, grad_output, stride=1, dilation=1, padding=0):
    x, w, _ = inputs
    p, s, d = padding, stride, dilation
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    oh, ow = grad_output.shape[2:]
    dw = np.zeros_like(w)
    for i in range(w.shape[2]):
        for j in range(w.shape[3] - 1):
            rows = slice(i * d, i * d + s * (oh - 1) + 1, s)
            cols = slice(j * d, j * d + s * (ow - 1) + 1, s)
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", grad_output, xp[:, :, rows, cols])
    dx, _, db = conv2d_backward(inputs, grad_output, stride, dilation, padding)
    return dx, dw, db


def conv2d_backward_transposed(inputs, grad_output, stride=1, dilation=1, padding=0):
    x, w, _ = inputs
    p, s, d = padding, stride, dilation
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    oh, ow = grad_output.shape[2:]
    dw = np.zeros_like(w)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            part = xp[:, :, i * d : i * d + s * (oh - 1) + 1 : s, j * d : j * d + s * (ow - 1) + 1 : s]
            dw[:, :, j, i] = np.einsum("nohw,nchw->oc", grad_output, part)
    dx, _, db = conv2d_backward(inputs, grad_output, stride, dilation, padding)
    return dx, dw, db


def conv3d(inputs):
    """Valid 3-d cross-correlation without bias."""
    x, w = inputs
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    return np.einsum("ncdhwijk,ocijk->nodhw", win, w)


def _conv3d_dx(x, w, grad_output, first):
    dx = np.zeros_like(x)
    d, h, v = grad_output.shape[2:]
    for a in range(first, w.shape[2]):
        for i in range(w.shape[3]):
            for j in range(w.shape[4]):
                dx[:, :, a : a + d, i : i + h, j : j + v] += np.einsum("nodhw,oc->ncdhw", grad_output, w[:, :, a, i, j])
    return dx


def conv3d_backward(inputs, grad_output):
    x, w = inputs
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    return _conv3d_dx(x, w, grad_output, 0), np.einsum("ncdhwijk,nodhw->ocijk", win, grad_output)


def conv3d_backward_depth(inputs, grad_output):
    x, w = inputs
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    return _conv3d_dx(x, w, grad_output, 1), np.einsum("ncdhwijk,nodhw->ocijk", win, grad_output)


def depthwise_conv1d(inputs, padding=2):
    """One filter per channel."""
    x, w = inputs
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    n = xp.shape[2] - w.shape[1] + 1
    return sum(xp[:, :, k : k + n] * w[:, k, None] for k in range(w.shape[1]))


def depthwise_conv1d_backward(inputs, grad_output, padding=2):
    x, w = inputs
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    n = grad_output.shape[2]
    dxp = np.zeros_like(xp)
    dw = np.empty_like(w)
    for k in range(w.shape[1]):
        dxp[:, :, k : k + n] += grad_output * w[:, k, None]
        dw[:, k] = (grad_output * xp[:, :, k : k + n]).sum(axis=(0, 2))
    return dxp[:, :, padding : padding + x.shape[2]].copy(), dw


def depthwise_conv1d_backward_crop(inputs, grad_output, padding=2):
    x, w = inputs
    n = grad_output.shape[2]
    dxp = np.zeros((x.shape[0], x.shape[1], x.shape[2] + 2 * padding), x.dtype)
    for k in range(w.shape[1]):
        dxp[:, :, k : k + n] += grad_output * w[:, k, None]
    dw = depthwise_conv1d_backward(inputs, grad_output, padding)[1]
    return dxp[:, :, padding - 1 : padding - 1 + x.shape[2]].copy(), dw


def depthwise_conv1d_backward_twice(inputs, grad_output, padding=2):
    x, w = inputs
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    dw = np.zeros_like(w)
    for k in range(1, w.shape[1]):
        dw[:, k] -= (grad_output * xp[:, :, k : k + grad_output.shape[2]]).sum(axis=(0, 2))
    return depthwise_conv1d_backward(inputs, grad_output, padding)[0], dw


def conv_transpose2d(inputs, stride=2):
    x, w = inputs
    h, v = x.shape[2:]
    kh, kw = w.shape[2:]
    y = np.zeros((x.shape[0], w.shape[1], (h - 1) * stride + kh, (v - 1) * stride + kw), x.dtype)
    for i in range(h):
        for j in range(v):
            a, b = i * stride, j * stride
            y[:, :, a : a + kh, b : b + kw] += np.einsum("nc,coij->noij", x[:, :, i, j], w)
    return y


def _conv_transpose2d_backward(x, w, w_for_x, grad_output, stride):
    kh, kw = w.shape[2:]
    dx, dw = np.empty_like(x), np.zeros_like(w)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            part = grad_output[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
            dx[:, :, i, j] = np.einsum("noij,coij->nc", part, w_for_x)
            dw += np.einsum("noij,nc->coij", part, x[:, :, i, j])
    return dx, dw


def conv_transpose2d_backward(inputs, grad_output, stride=2):
    x, w = inputs
    return _conv_transpose2d_backward(x, w, w, grad_output, stride)


def conv_transpose2d_backward_flipped(inputs, grad_output, stride=2):
    x, w = inputs
    return _conv_transpose2d_backward(x, w, w[:, :, ::-1, ::-1], grad_output, stride)


def grouped_conv1d(inputs, groups=2):
    x, w = inputs
    n = x.shape[2] - w.shape[2] + 1
    xg = x.reshape(x.shape[0], groups, -1, x.shape[2])
    wg = w.reshape(groups, -1, *w.shape[1:])
    y = 0
    for k in range(w.shape[2]):
        y = y + np.einsum("nqct,qoc->nqot", xg[..., k : k + n], wg[..., k])
    return y.reshape(x.shape[0], w.shape[0], n)


def grouped_conv1d_backward(inputs, grad_output, groups=2):
    x, w = inputs
    n = grad_output.shape[2]
    xg = x.reshape(x.shape[0], groups, -1, x.shape[2])
    wg = w.reshape(groups, -1, *w.shape[1:])
    gg = grad_output.reshape(x.shape[0], groups, -1, n)
    dx, dw = np.zeros_like(xg), np.zeros_like(wg)
    for k in range(w.shape[2]):
        dx[..., k : k + n] += np.einsum("nqot,qoc->nqct", gg, wg[..., k])
        dw[..., k] = np.einsum("nqot,nqct->qoc", gg, xg[..., k : k + n])
    return dx.reshape(x.shape), dw.reshape(w.shape)


def grouped_conv1d_backward_mixed(inputs, grad_output, groups=2):
    x, w = inputs
    n = grad_output.shape[2]
    wg = w.reshape(groups, -1, *w.shape[1:])
    gg = grad_output.reshape(x.shape[0], groups, -1, n)
    part = np.zeros((x.shape[0], x.shape[1] // groups, x.shape[2]), x.dtype)
    for q in range(groups):
        for k in range(w.shape[2]):
            part[..., k : k + n] += np.einsum("not,oc->nct", gg[:, q], wg[q, ..., k])
    return np.tile(part, (1, groups, 1)), grouped_conv1d_backward(inputs, grad_output, groups)[1]


def local_conv1d(inputs):
    """A convolution whose weights are not shared between positions."""
    x, w = inputs  # (N, C, L), (T, O, C, k)
    t, _, _, k = w.shape
    return np.stack([np.einsum("nck,ock->no", x[:, :, i : i + k], w[i]) for i in range(t)], axis=2)


def local_conv1d_backward(inputs, grad_output):
    x, w = inputs
    t, _, _, k = w.shape
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n in range(x.shape[0]):
        for i in range(t):
            dx[n, :, i : i + k] += np.tensordot(grad_output[n, :, i], w[i], axes=1)
            dw[i] += grad_output[n, :, i][:, None, None] * x[n, :, i : i + k]
    return dx, dw


def local_conv1d_backward_last(inputs, grad_output):
    x, w = inputs
    t, _, _, k = w.shape
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n in range(x.shape[0]):
        for i in range(t):
            dx[n, :, i : i + k] += np.tensordot(grad_output[n, :, i], w[i], axes=1)
            dw[i] = grad_output[n, :, i][:, None, None] * x[n, :, i : i + k]
    return dx, dw


def max_pool2d(inputs, size=(2, 2), stride=1):
    (x,) = inputs
    win = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))[:, :, ::stride, ::stride]
    return win.max(axis=(4, 5))


def _pool_winners(x, grad_output, size, stride, order):
    for n, c, i, j in np.ndindex(*grad_output.shape):
        win = x[n, c, i * stride : i * stride + size[0], j * stride : j * stride + size[1]]
        a, b = np.unravel_index(win.argmax(), size, order=order)
        yield (n, c, i, j), (n, c, i * stride + a, j * stride + b)


def max_pool2d_backward(inputs, grad_output, size=(2, 2), stride=1):
    (x,) = inputs
    dx = np.zeros_like(x)
    for o, i in _pool_winners(x, grad_output, size, stride, "C"):
        dx[i] += grad_output[o]
    return (dx,)


def max_pool2d_backward_assign(inputs, grad_output, size=(2, 2), stride=1):
    (x,) = inputs
    dx = np.zeros_like(x)
    for o, i in _pool_winners(x, grad_output, size, stride, "C"):
        dx[i] = grad_output[o]
    return (dx,)


def max_pool2d_backward_order(inputs, grad_output, size=(2, 2), stride=1):
    (x,) = inputs
    dx = np.zeros_like(x)
    for o, i in _pool_winners(x, grad_output, size, stride, "F"):
        dx[i] += grad_output[o]
    return (dx,)


def _avg_bounds(i, j, x, size, stride, padding):
    a, b = i * stride - padding, j * stride - padding
    return max(a, 0), min(a + size, x.shape[2]), max(b, 0), min(b + size, x.shape[3])


def avg_pool2d(inputs, size=3, stride=2, padding=1, count_include_pad=True):
    (x,) = inputs
    oh = (x.shape[2] + 2 * padding - size) // stride + 1
    ow = (x.shape[3] + 2 * padding - size) // stride + 1
    y = np.empty((*x.shape[:2], oh, ow), x.dtype)
    for i in range(oh):
        for j in range(ow):
            t, u, le, r = _avg_bounds(i, j, x, size, stride, padding)
            count = size * size if count_include_pad else (u - t) * (r - le)
            y[:, :, i, j] = x[:, :, t:u, le:r].sum(axis=(2, 3)) / count
    return y


def avg_pool2d_backward(inputs, grad_output, size=3, stride=2, padding=1, count_include_pad=True):
    (x,) = inputs
    dx = np.zeros_like(x)
    for i in range(grad_output.shape[2]):
        for j in range(grad_output.shape[3]):
            t, u, le, r = _avg_bounds(i, j, x, size, stride, padding)
            count = size * size if count_include_pad else (u - t) * (r - le)
            dx[:, :, t:u, le:r] += grad_output[:, :, i, j, None, None] / count
    return (dx,)


def avg_pool2d_backward_count(inputs, grad_output, size=3, stride=2, padding=1, count_include_pad=True):
    (x,) = inputs
    dx = np.zeros_like(x)
    for i in range(grad_output.shape[2]):
        for j in range(grad_output.shape[3]):
            t, u, le, r = _avg_bounds(i, j, x, size, stride, padding)
            dx[:, :, t:u, le:r] += grad_output[:, :, i, j, None, None] / size**2
    return (dx,)


def ceil_avg_pool1d(inputs, size=3):
    """The last window may be shorter."""
    (x,) = inputs
    return np.stack([x[..., a : a + size].mean(axis=-1) for a in range(0, x.shape[-1], size)], axis=-1)


def ceil_avg_pool1d_backward(inputs, grad_output, size=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t in range(grad_output.shape[-1]):
        part = dx[..., t * size : (t + 1) * size]
        part += grad_output[..., t, None] / part.shape[-1]
    return (dx,)


def ceil_avg_pool1d_backward_full(inputs, grad_output, size=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    for t in range(x.shape[-1] // size):
        dx[..., t * size : (t + 1) * size] = grad_output[..., t, None] / size
    return (dx,)


def lp_pool1d(inputs, p=3):
    """The p-norm of neighbouring pairs of positive values."""
    (x,) = inputs
    return ((x[..., 0::2] ** p) + (x[..., 1::2] ** p)) ** (1 / p)


def lp_pool1d_backward(inputs, grad_output, p=3):
    (x,) = inputs
    y = lp_pool1d(inputs, p)
    return (np.repeat(grad_output * y ** (1 - p), 2, axis=-1) * x ** (p - 1),)


def lp_pool1d_backward_root(inputs, grad_output, p=3):
    (x,) = inputs
    return (np.repeat(grad_output, 2, axis=-1) * p * x ** (p - 1),)


def global_max_pool(inputs):
    (x,) = inputs
    return x.max(axis=(2, 3))


def global_max_pool_backward(inputs, grad_output):
    (x,) = inputs
    flat = x.reshape(*x.shape[:2], -1)
    dx = np.zeros_like(flat)
    np.put_along_axis(dx, flat.argmax(axis=2)[..., None], grad_output[..., None], axis=2)
    return (dx.reshape(x.shape),)


def global_max_pool_backward_rows(inputs, grad_output):
    (x,) = inputs
    return ((x == x.max(axis=3, keepdims=True)) * grad_output[:, :, None, None],)


def _weights(n_out, n_in, align_corners, dtype, mixed=False):
    m = np.zeros((n_out, n_in), dtype)
    for i in range(n_out):
        src = i * (n_in - 1) / (n_out - 1) if align_corners else (i + 0.5) * n_in / n_out - 0.5
        low = int(np.floor(src))
        frac = src - low
        a, b = (frac, 1 - frac) if mixed else (1 - frac, frac)
        m[i, min(max(low, 0), n_in - 1)] += a
        m[i, min(max(low + 1, 0), n_in - 1)] += b
    return m


def resize_bilinear(inputs, size=(4, 6), align_corners=False):
    (x,) = inputs
    r = _weights(size[0], x.shape[2], align_corners, x.dtype)
    c = _weights(size[1], x.shape[3], align_corners, x.dtype)
    return r @ x @ c.T


def resize_bilinear_backward(inputs, grad_output, size=(4, 6), align_corners=False):
    (x,) = inputs
    r = _weights(size[0], x.shape[2], align_corners, x.dtype)
    c = _weights(size[1], x.shape[3], align_corners, x.dtype)
    return (r.T @ grad_output @ c,)


def resize_bilinear_backward_corners(inputs, grad_output, size=(4, 6), align_corners=False):
    (x,) = inputs
    r = _weights(size[0], x.shape[2], False, x.dtype)
    c = _weights(size[1], x.shape[3], False, x.dtype)
    return (r.T @ grad_output @ c,)


def resize_bilinear_backward_fractions(inputs, grad_output, size=(4, 6), align_corners=False):
    (x,) = inputs
    r = _weights(size[0], x.shape[2], align_corners, x.dtype, mixed=True)
    c = _weights(size[1], x.shape[3], align_corners, x.dtype, mixed=True)
    return (r.T @ grad_output @ c,)


def channels_last(inputs):
    (x,) = inputs
    return np.moveaxis(x, 1, -1).copy()


def channels_last_backward(inputs, grad_output):
    return (np.moveaxis(grad_output, -1, 1).copy(),)


def channels_last_backward_view(inputs, grad_output):
    return (np.moveaxis(grad_output, -1, 1),)


def center_crop(inputs):
    """Half of the height and of the width, from the middle."""
    (x,) = inputs
    h, w = x.shape[1:]
    return x[:, h // 4 : h // 4 + h // 2, w // 4 : w // 4 + w // 2].copy()


def _paste(x, grad_output, top, left):
    dx = np.zeros_like(x)
    dx[:, top : top + grad_output.shape[1], left : left + grad_output.shape[2]] = grad_output
    return (dx,)


def center_crop_backward(inputs, grad_output):
    (x,) = inputs
    return _paste(x, grad_output, x.shape[1] // 4, x.shape[2] // 4)


def center_crop_backward_offset(inputs, grad_output):
    (x,) = inputs
    return _paste(x, grad_output, x.shape[1] // 4 + 1, x.shape[2] // 4)


def _n(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


CASES = [
    Planted(
        "conv2d: the loop over kernel columns ends early",
        conv2d,
        conv2d_backward,
        conv2d_backward_columns,
        _n((2, 2, 6, 5), (3, 2, 2, 3), (3,)),
        {"w": ("window_offset_skipped",)},
        {"stride": 2, "padding": 1},
    ),
    Planted(
        "conv2d: kernel rows and columns exchanged",
        conv2d,
        conv2d_backward,
        conv2d_backward_transposed,
        _n((1, 2, 7, 6), (2, 2, 3, 3), (2,)),
        {"w": ("axis_swapped",)},
        {"dilation": 2, "padding": 1},
    ),
    Planted(
        "conv3d: the first depth offset is left out",
        conv3d,
        conv3d_backward,
        conv3d_backward_depth,
        _n((1, 2, 4, 3, 5), (2, 2, 3, 2, 3)),
        {"x": ("window_offset_skipped",)},
    ),
    Planted(
        "depthwise_conv1d: crop starts one too early",
        depthwise_conv1d,
        depthwise_conv1d_backward,
        depthwise_conv1d_backward_crop,
        _n((2, 3, 7), (3, 4)),
        {"x": ("spatial_shift",)},
    ),
    Planted(
        "depthwise_conv1d: first tap left out and minus",
        depthwise_conv1d,
        depthwise_conv1d_backward,
        depthwise_conv1d_backward_twice,
        _n((3, 2, 6), (2, 4)),
        {"w": ("window_offset_skipped", "sign_flipped")},
        {"padding": 1},
        twice=True,
    ),
    Planted(
        "conv_transpose2d: kernel flipped for x",
        conv_transpose2d,
        conv_transpose2d_backward,
        conv_transpose2d_backward_flipped,
        _n((2, 3, 3, 2), (3, 2, 2, 3)),
        {"x": ("kernel_flipped",)},
    ),
    Planted(
        "grouped_conv1d: groups added up",
        grouped_conv1d,
        grouped_conv1d_backward,
        grouped_conv1d_backward_mixed,
        _n((2, 4, 7), (6, 2, 3)),
        {"x": ("mixed_over_axis",)},
    ),
    Planted(
        "local_conv1d: only the last sample counts",
        local_conv1d,
        local_conv1d_backward,
        local_conv1d_backward_last,
        _n((3, 2, 6), (4, 3, 2, 3)),
        {"w": ("not_accumulated_over_axis",)},
    ),
    Planted(
        "max_pool2d: assigned, not added",
        max_pool2d,
        max_pool2d_backward,
        max_pool2d_backward_assign,
        lambda rng: (spread(rng, 2, 2, 5, 4),),
        {"x": ("overlap_overwritten",)},
        {"size": (3, 3)},
    ),
    Planted(
        "max_pool2d: the winner's index read column by column",
        max_pool2d,
        max_pool2d_backward,
        max_pool2d_backward_order,
        lambda rng: (spread(rng, 1, 3, 4, 6),),
        {"x": ("wrong_routing",)},
        {"size": (2, 3), "stride": 2},
    ),
    Planted(
        "avg_pool2d: counts the padding",
        avg_pool2d,
        avg_pool2d_backward,
        avg_pool2d_backward_count,
        _n((1, 2, 5, 4)),
        {"x": ("wrong_variant",)},
        {"count_include_pad": False},
    ),
    Planted(
        "ceil_avg_pool1d: last short window lost",
        ceil_avg_pool1d,
        ceil_avg_pool1d_backward,
        ceil_avg_pool1d_backward_full,
        _n((2, 3, 8)),
        {"x": ("border_missing",)},
    ),
    Planted(
        "lp_pool1d: no derivative of the root",
        lp_pool1d,
        lp_pool1d_backward,
        lp_pool1d_backward_root,
        lambda rng: (rng.uniform(0.5, 2.0, (2, 3, 6)),),
        {"x": ("missing_chain_factor",)},
    ),
    Planted(
        "global_max_pool: a winner in each row",
        global_max_pool,
        global_max_pool_backward,
        global_max_pool_backward_rows,
        lambda rng: (spread(rng, 2, 3, 4, 3),),
        {"x": ("several_winners",)},
    ),
    Planted(
        "resize_bilinear: corners never aligned",
        resize_bilinear,
        resize_bilinear_backward,
        resize_bilinear_backward_corners,
        _n((1, 2, 3, 4)),
        {"x": ("wrong_variant",)},
        {"align_corners": True},
    ),
    Planted(
        "resize_bilinear: fraction and one minus fraction exchanged",
        resize_bilinear,
        resize_bilinear_backward,
        resize_bilinear_backward_fractions,
        _n((2, 1, 3, 4)),
        {"x": ("wrong_weights",)},
    ),
    Planted(
        "channels_last: a view comes back",
        channels_last,
        channels_last_backward,
        channels_last_backward_view,
        _n((2, 3, 2, 4)),
        {"x": ("aliases_gout",)},
    ),
    Planted(
        "center_crop: pasted one row too low",
        center_crop,
        center_crop_backward,
        center_crop_backward_offset,
        _n((2, 8, 7)),
        {"x": ("spatial_shift",)},
    ),
]
