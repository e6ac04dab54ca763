"""Convolutions, pooling, interpolation and signal processing."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


# ---------------------------------------------------------------- conv2d
def conv2d(inputs):
    """Valid cross-correlation; x is (N, C, H, W), w is (O, C, kh, kw)."""
    x, w = inputs
    kh, kw = w.shape[2:]
    ho, wo = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    y = 0
    for i in range(kh):
        for j in range(kw):
            y = y + np.einsum("nchw,oc->nohw", x[:, :, i : i + ho, j : j + wo], w[:, :, i, j])
    return y


def conv2d_back(x, w, g, kernel):
    kh, kw = w.shape[2:]
    ho, wo = g.shape[2:]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(kh):
        for j in range(kw):
            dx[:, :, i : i + ho, j : j + wo] += np.einsum("nohw,oc->nchw", g, kernel[:, :, i, j])
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", g, x[:, :, i : i + ho, j : j + wo])
    return dx, dw


def conv2d_right(inputs, grad_output):
    x, w = inputs
    return conv2d_back(x, w, grad_output, w)


def conv2d_wrong(inputs, grad_output):
    x, w = inputs
    kh, kw = w.shape[2:]
    _, dw = conv2d_back(x, w, grad_output, w)
    g = np.pad(grad_output, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
    return conv2d((g, w.transpose(1, 0, 2, 3))), dw


# ---------------------------------------------------------------- full convolution of two signals
def full_convolution(inputs):
    """The full convolution of two signals, the first being longer."""
    x, h = inputs
    return np.convolve(x, h)


def full_convolution_right(inputs, grad_output):
    x, h = inputs
    return np.correlate(grad_output, h, "valid"), np.correlate(grad_output, x, "valid")


def full_convolution_wrong(inputs, grad_output):
    x, h = inputs
    return np.correlate(grad_output, h, "valid"), np.convolve(grad_output, x, "valid")


# ---------------------------------------------------------------- average pooling
def pool_counts(hw, k, stride, pad, include, dtype):
    out = [(s + 2 * pad - k) // stride + 1 for s in hw]
    if include:
        return np.full(out, k * k, dtype)
    sizes = []
    for s, o in zip(hw, out, strict=True):
        start = np.arange(o) * stride - pad
        sizes.append(np.minimum(start + k, s) - np.maximum(start, 0))
    return np.outer(sizes[0], sizes[1]).astype(dtype)


def avg_pool2d(inputs, k=3, stride=2, pad=1, count_include_pad=False):
    """Average pooling of (N, C, H, W)."""
    (x,) = inputs
    counts = pool_counts(x.shape[2:], k, stride, pad, count_include_pad, x.dtype)
    ho, wo = counts.shape
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((*x.shape[:2], ho, wo), x.dtype)
    for i in range(ho):
        for j in range(wo):
            y[:, :, i, j] = xp[:, :, i * stride : i * stride + k, j * stride : j * stride + k].sum(axis=(2, 3))
    return y / counts


def avg_pool2d_right(inputs, grad_output, k=3, stride=2, pad=1, count_include_pad=False):
    (x,) = inputs
    g = grad_output / pool_counts(x.shape[2:], k, stride, pad, count_include_pad, x.dtype)
    dxp = np.zeros((*x.shape[:2], x.shape[2] + 2 * pad, x.shape[3] + 2 * pad), x.dtype)
    for i in range(g.shape[2]):
        for j in range(g.shape[3]):
            dxp[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += g[:, :, i, j, None, None]
    return (dxp[:, :, pad:-pad, pad:-pad].copy(),)


def avg_pool2d_wrong(inputs, grad_output, k=3, stride=2, pad=1, count_include_pad=False):
    (x,) = inputs
    g = grad_output / k**2
    dxp = np.zeros((*x.shape[:2], x.shape[2] + 2 * pad, x.shape[3] + 2 * pad), x.dtype)
    for i in range(g.shape[2]):
        for j in range(g.shape[3]):
            dxp[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += g[:, :, i, j, None, None]
    return (dxp[:, :, pad:-pad, pad:-pad].copy(),)


# ---------------------------------------------------------------- bilinear resize
def resize_matrix(n, m, align_corners, dtype):
    t = np.arange(m)
    pos = t * (n - 1) / (m - 1) if align_corners else np.clip((t + 0.5) * n / m - 0.5, 0, n - 1)
    low = np.minimum(pos.astype(int), n - 2)
    mat = np.zeros((m, n), dtype)
    mat[t, low] = 1 - (pos - low)
    mat[t, low + 1] = pos - low
    return mat


def resize(inputs, size=(7, 5), align_corners=True):
    """Bilinear resizing of (N, H, W)."""
    (x,) = inputs
    r = resize_matrix(x.shape[1], size[0], align_corners, x.dtype)
    c = resize_matrix(x.shape[2], size[1], align_corners, x.dtype)
    return np.einsum("ih,nhw,jw->nij", r, x, c)


def resize_right(inputs, grad_output, size=(7, 5), align_corners=True):
    (x,) = inputs
    r = resize_matrix(x.shape[1], size[0], align_corners, x.dtype)
    c = resize_matrix(x.shape[2], size[1], align_corners, x.dtype)
    return (np.einsum("ih,nij,jw->nhw", r, grad_output, c),)


def resize_wrong(inputs, grad_output, size=(7, 5), align_corners=True):
    (x,) = inputs
    r = resize_matrix(x.shape[1], size[0], False, x.dtype)
    c = resize_matrix(x.shape[2], size[1], False, x.dtype)
    return (np.einsum("ih,nij,jw->nhw", r, grad_output, c),)


# ---------------------------------------------------------------- running sum
def running_sum(inputs, reverse=False):
    """The running sum of every row, from the left or from the right."""
    (x,) = inputs
    if reverse:
        return x[:, ::-1].cumsum(axis=1)[:, ::-1]
    return x.cumsum(axis=1)


def running_sum_right(inputs, grad_output, reverse=False):
    (x,) = inputs
    dx = np.empty_like(x)
    if reverse:
        dx[:] = grad_output.cumsum(axis=1)
    else:
        dx[:, ::-1] = grad_output[:, ::-1].cumsum(axis=1)
    return (dx,)


def running_sum_wrong(inputs, grad_output, reverse=False):
    (x,) = inputs
    dx = np.empty_like(x)
    dx[:] = grad_output.cumsum(axis=1)
    return (dx,)


# ---------------------------------------------------------------- max pooling in one dimension
def max_pool1d(inputs, k=3, stride=2):
    """Max pooling of (N, C, L)."""
    (x,) = inputs
    n_out = (x.shape[2] - k) // stride + 1
    return np.stack([x[:, :, t * stride : t * stride + k].max(axis=2) for t in range(n_out)], axis=2)


def max_pool1d_right(inputs, grad_output, k=3, stride=2):
    (x,) = inputs
    dx = np.zeros_like(x)
    n, c = np.indices(x.shape[:2])
    for t in range((x.shape[2] - k) // stride + 1):
        best = x[:, :, t * stride : t * stride + k].argmax(axis=2) + t * stride
        dx[n, c, best] += grad_output[:, :, t]
    return (dx,)


def max_pool1d_wrong(inputs, grad_output, k=3, stride=2):
    (x,) = inputs
    dx = np.zeros_like(x)
    n, c = np.indices(x.shape[:2])
    for t in range((x.shape[2] - k) // stride):
        best = x[:, :, t * stride : t * stride + k].argmax(axis=2) + t * stride
        dx[n, c, best] += grad_output[:, :, t]
    return (dx,)


# ---------------------------------------------------------------- discrete Laplacian
def laplacian(inputs):
    """The five-point Laplacian of a field that is zero outside."""
    (u,) = inputs
    p = np.pad(u, 1)
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * u


def laplacian_right(inputs, grad_output):
    (u,) = inputs
    p = np.zeros((u.shape[0] + 2, u.shape[1] + 2), u.dtype)
    p[1:-1, 1:-1] = grad_output
    return (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * grad_output,)


def laplacian_wrong(inputs, grad_output):
    (u,) = inputs
    g = grad_output
    du = np.zeros_like(u)
    for i in range(1, u.shape[0] - 1):
        for j in range(1, u.shape[1] - 1):
            du[i, j] = g[i - 1, j] + g[i + 1, j] + g[i, j - 1] + g[i, j + 1] - 4 * g[i, j]
    return (du,)


# ---------------------------------------------------------------- frames of a signal
def frames(inputs, hop=3):
    """Overlapping frames of a signal, each times the same window."""
    x, window = inputs
    size = len(window)
    count = (len(x) - size) // hop + 1
    return np.stack([x[t * hop : t * hop + size] * window for t in range(count)])


def frames_right(inputs, grad_output, hop=3):
    x, window = inputs
    size = len(window)
    dx, dwindow = np.zeros_like(x), np.zeros_like(window)
    for t in range(len(grad_output)):
        dx[t * hop : t * hop + size] += grad_output[t] * window
        dwindow += grad_output[t] * x[t * hop : t * hop + size]
    return dx, dwindow


def frames_wrong(inputs, grad_output, hop=3):
    x, window = inputs
    size = len(window)
    dx, dwindow = np.zeros_like(x), np.zeros_like(window)
    for t in range(len(grad_output)):
        dx[t * hop : t * hop + size] = grad_output[t] * window
        dwindow += grad_output[t] * x[t * hop : t * hop + size]
    return dx, dwindow


# ---------------------------------------------------------------- depthwise conv2d
def depthwise(inputs):
    """A kernel of its own for every channel; x is (N, C, H, W), w is (C, kh, kw)."""
    x, w = inputs
    c, kh, kw = w.shape
    ho, wo = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    y = np.zeros((len(x), c, ho, wo), x.dtype)
    for tap in range(kh * kw):
        i, j = divmod(tap, kw)
        y += x[:, :, i : i + ho, j : j + wo] * w[:, i, j, None, None]
    return y


def depthwise_back(x, w, g, taps):
    _, kh, kw = w.shape
    ho, wo = g.shape[2:]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for tap in range(kh * kw):
        i, j = divmod(tap, kw)
        dx[:, :, i : i + ho, j : j + wo] += g * w[:, i, j, None, None]
    for tap in taps:
        i, j = divmod(tap, kw)
        dw[:, i, j] = (g * x[:, :, i : i + ho, j : j + wo]).sum(axis=(0, 2, 3))
    return dx, dw


def depthwise_right(inputs, grad_output):
    x, w = inputs
    return depthwise_back(x, w, grad_output, range(w[0].size))


def depthwise_wrong(inputs, grad_output):
    x, w = inputs
    return depthwise_back(x, w, grad_output, range(w[0].size - 1))


# ---------------------------------------------------------------- dilated conv1d
def dilated(inputs, dilation=2):
    """Valid dilated correlation; x is (N, C, L), w is (O, C, k)."""
    x, w = inputs
    k = w.shape[2]
    lo = x.shape[2] - dilation * (k - 1)
    return sum(np.einsum("ncl,oc->nol", x[:, :, t * dilation : t * dilation + lo], w[:, :, t]) for t in range(k))


def dilated_right(inputs, grad_output, dilation=2):
    x, w = inputs
    lo = grad_output.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for t in range(w.shape[2]):
        dx[:, :, t * dilation : t * dilation + lo] += np.einsum("nol,oc->ncl", grad_output, w[:, :, t])
        dw[:, :, t] = np.einsum("nol,ncl->oc", grad_output, x[:, :, t * dilation : t * dilation + lo])
    return dx, dw


def dilated_wrong(inputs, grad_output, dilation=2):
    x, w = inputs
    lo = grad_output.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for t in range(w.shape[2]):
        dw[:, :, t] = np.einsum("nol,ncl->oc", grad_output, x[:, :, t * dilation : t * dilation + lo])
    for t in range(1, w.shape[2]):
        dx[:, :, t * dilation : t * dilation + lo] += np.einsum("nol,oc->ncl", grad_output, w[:, :, t])
    return dx, dw


# ---------------------------------------------------------------- causal filter
def causal(inputs):
    """A filter that sees only the past; x is (N, L), every row with the same taps."""
    x, w = inputs
    k = len(w)
    xp = np.pad(x, ((0, 0), (k - 1, 0)))
    return sum(xp[:, t : t + x.shape[1]] * w[t] for t in range(k))


def causal_back(x, w, g, start):
    k, n = len(w), x.shape[1]
    xp = np.pad(x, ((0, 0), (k - 1, 0)))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for t in range(k):
        dxp[:, t : t + n] += g * w[t]
        dw[t] = (g * xp[:, t : t + n]).sum()
    return dxp[:, start : start + n].copy(), dw


def causal_right(inputs, grad_output):
    x, w = inputs
    return causal_back(x, w, grad_output, len(w) - 1)


def causal_wrong(inputs, grad_output):
    x, w = inputs
    return causal_back(x, w, grad_output, len(w) - 2)


# ---------------------------------------------------------------- crop of the middle
def center_crop(inputs, size=(4, 5)):
    """The middle of (C, H, W) images."""
    (x,) = inputs
    top, left = (x.shape[1] - size[0]) // 2, (x.shape[2] - size[1]) // 2
    return x[:, top : top + size[0], left : left + size[1]].copy()


def center_crop_right(inputs, grad_output, size=(4, 5)):
    (x,) = inputs
    top, left = (x.shape[1] - size[0]) // 2, (x.shape[2] - size[1]) // 2
    dx = np.zeros_like(x)
    dx[:, top : top + size[0], left : left + size[1]] = grad_output
    return (dx,)


def center_crop_wrong(inputs, grad_output, size=(4, 5)):
    (x,) = inputs
    top, left = (x.shape[1] - size[0] + 1) // 2, (x.shape[2] - size[1] + 1) // 2
    dx = np.zeros_like(x)
    dx[:, top : top + size[0], left : left + size[1]] = grad_output
    return (dx,)


# ---------------------------------------------------------------- cubic upsampling
def cubic_taps(n, dtype):
    pos = (np.arange(2 * n) + 0.5) / 2 - 0.5
    base = np.floor(pos).astype(int)
    t = pos - base
    weights = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    index = np.clip(base + np.arange(-1, 3)[:, None], 0, n - 1)
    return index, weights.astype(dtype)


def cubic_upsample(inputs):
    """Catmull-Rom upsampling of (N, L) by two, the ends repeated."""
    (x,) = inputs
    index, weights = cubic_taps(x.shape[1], x.dtype)
    return sum(x[:, index[m]] * weights[m] for m in range(4))


def cubic_upsample_right(inputs, grad_output):
    (x,) = inputs
    index, weights = cubic_taps(x.shape[1], x.dtype)
    dx = np.zeros_like(x)
    for m in range(4):
        np.add.at(dx, (slice(None), index[m]), grad_output * weights[m])
    return (dx,)


def cubic_upsample_wrong(inputs, grad_output):
    (x,) = inputs
    index, weights = cubic_taps(x.shape[1], x.dtype)
    dx = np.zeros_like(x)
    for m in range(4):
        np.add.at(dx, (slice(None), index[m]), grad_output * weights[3 - m])
    return (dx,)


# ---------------------------------------------------------------- values inside triangles
def barycentric(inputs):
    """Values at the corners of triangles, blended at a point in each; weights are (M, 3)."""
    values, weights, corners = inputs
    return (weights[:, :, None] * values[corners]).sum(axis=1)


def barycentric_right(inputs, grad_output):
    values, weights, corners = inputs
    dvalues = np.zeros_like(values)
    np.add.at(dvalues, corners, weights[:, :, None] * grad_output[:, None, :])
    return dvalues, (values[corners] * grad_output[:, None, :]).sum(axis=2), None


def barycentric_wrong(inputs, grad_output):
    values, weights, corners = inputs
    dvalues = np.zeros_like(values)
    for m in range(3):
        np.add.at(dvalues, corners[:, m], weights[:, m - 1, None] * grad_output)
    return dvalues, (values[corners] * grad_output[:, None, :]).sum(axis=2), None


# ---------------------------------------------------------------- residual smoothing
def smooth_residual(inputs):
    """x plus a filter of x along the rows, zeros outside; the number of taps is odd."""
    x, w = inputs
    k, n = len(w), x.shape[1]
    xp = np.pad(x, ((0, 0), (k // 2, k // 2)))
    return x + sum(w[t] * xp[:, t : t + n] for t in range(k))


def smooth_residual_right(inputs, grad_output):
    x, w = inputs
    k, n = len(w), x.shape[1]
    xp = np.pad(x, ((0, 0), (k // 2, k // 2)))
    gp = np.pad(grad_output, ((0, 0), (k // 2, k // 2)))
    dx = grad_output + sum(w[k - 1 - t] * gp[:, t : t + n] for t in range(k))
    return dx, np.array([(grad_output * xp[:, t : t + n]).sum() for t in range(k)])


def smooth_residual_wrong(inputs, grad_output):
    x, w = inputs
    k, n = len(w), x.shape[1]
    xp = np.pad(x, ((0, 0), (k // 2, k // 2)))
    gp = np.pad(grad_output, ((0, 0), (k // 2, k // 2)))
    dx = sum(w[k - 1 - t] * gp[:, t : t + n] for t in range(k))
    return dx, np.array([(grad_output * xp[:, t : t + n]).sum() for t in range(k)])


# ---------------------------------------------------------------- channel gates
def channel_gate(inputs):
    """A gate for every channel of every image."""
    x, s = inputs
    return x * s[:, :, None, None]


def channel_gate_right(inputs, grad_output):
    x, s = inputs
    return grad_output * s[:, :, None, None], (grad_output * x).sum(axis=(2, 3))


def channel_gate_wrong(inputs, grad_output):
    x, s = inputs
    ds = np.zeros_like(s)
    ds[:] = (grad_output * x).sum(axis=(0, 2, 3))
    return grad_output * s[:, :, None, None], ds


# ---------------------------------------------------------------- global max pooling
def global_max(inputs):
    """The largest value of every channel of (N, C, H, W)."""
    (x,) = inputs
    return x.max(axis=(2, 3))


def global_max_right(inputs, grad_output):
    (x,) = inputs
    mask = x == x.max(axis=(2, 3), keepdims=True)
    return (grad_output[:, :, None, None] * mask,)


def global_max_wrong(inputs, grad_output):
    (x,) = inputs
    mask = x == x.max(axis=3, keepdims=True)
    return (grad_output[:, :, None, None] * mask,)


# ---------------------------------------------------------------- max pooling in two dimensions
def max_pool2d(inputs, k=2):
    """Max pooling of (N, H, W) by k, without overlap."""
    (x,) = inputs
    n, h, w = x.shape
    return x.reshape(n, h // k, k, w // k, k).max(axis=(2, 4))


def max_pool2d_back(x, g, k, order):
    dx = np.zeros_like(x)
    for n, i, j in np.ndindex(*g.shape):
        best = x[n, i * k : i * k + k, j * k : j * k + k].argmax()
        p = np.unravel_index(best, (k, k), order)
        dx[n, i * k + p[0], j * k + p[1]] += g[n, i, j]
    return dx


def max_pool2d_right(inputs, grad_output, k=2):
    (x,) = inputs
    return (max_pool2d_back(x, grad_output, k, "C"),)


def max_pool2d_wrong(inputs, grad_output, k=2):
    (x,) = inputs
    return (max_pool2d_back(x, grad_output, k, "F"),)


# ---------------------------------------------------------------- transposed conv1d
def conv_transpose1d(inputs, stride=2):
    """x is (N, C, L), w is (C, O, k)."""
    x, w = inputs
    k = w.shape[2]
    n, _, length = x.shape
    y = np.zeros((n, w.shape[1], (length - 1) * stride + k), x.dtype)
    for t in range(length):
        y[:, :, t * stride : t * stride + k] += np.einsum("nc,cok->nok", x[:, :, t], w)
    return y


def conv_transpose1d_right(inputs, grad_output, stride=2):
    x, w = inputs
    k = w.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for t in range(x.shape[2]):
        g = grad_output[:, :, t * stride : t * stride + k]
        dx[:, :, t] = np.einsum("nok,cok->nc", g, w)
        dw += np.einsum("nok,nc->cok", g, x[:, :, t])
    return dx, dw


def conv_transpose1d_wrong(inputs, grad_output, stride=2):
    x, w = inputs
    k = w.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n in range(len(x)):
        part = np.zeros_like(w)
        for t in range(x.shape[2]):
            g = grad_output[n, :, t * stride : t * stride + k]
            dx[n, :, t] = np.einsum("ok,cok->c", g, w)
            part += np.einsum("ok,c->cok", g, x[n, :, t])
        dw = part
    return dx, dw


# ---------------------------------------------------------------- power spectrum
def power_spectrum(inputs):
    """The squared size of the Fourier coefficients of a real signal, non-negative frequencies only."""
    (x,) = inputs
    f = np.fft.rfft(x)
    return f.real**2 + f.imag**2


def power_spectrum_right(inputs, grad_output):
    (x,) = inputs
    n = x.shape[-1]
    once = np.full(n // 2 + 1, 0.5, x.dtype)
    once[0] = 1
    if n % 2 == 0:
        once[-1] = 1
    return (n * np.fft.irfft(2 * once * grad_output * np.fft.rfft(x), n),)


def power_spectrum_wrong(inputs, grad_output):
    (x,) = inputs
    n = x.shape[-1]
    return (n * np.fft.irfft(2 * grad_output * np.fft.rfft(x), n),)


# ---------------------------------------------------------------- leaky integrator from the end
def leaky_from_end(inputs, decay=0.7):
    """Reads every row from its last value to its first; the states come out in the order of reading."""
    (x,) = inputs
    state = np.zeros_like(x[:, 0])
    states = []
    for t in range(x.shape[1] - 1, -1, -1):
        state = decay * state + x[:, t]
        states.append(state)
    return np.stack(states, axis=1)


def leaky_from_end_right(inputs, grad_output, decay=0.7):
    (x,) = inputs
    n = x.shape[1]
    dx = np.zeros_like(x)
    carry = np.zeros_like(x[:, 0])
    for s in range(n - 1, -1, -1):
        carry = grad_output[:, s] + decay * carry
        dx[:, n - 1 - s] = carry
    return (dx,)


def leaky_from_end_wrong(inputs, grad_output, decay=0.7):
    (x,) = inputs
    n = x.shape[1]
    dx = np.zeros_like(x)
    carry = np.zeros_like(x[:, 0])
    for s in range(n - 1, -1, -1):
        carry = grad_output[:, s] + decay * carry
        dx[:, s] = carry
    return (dx,)


def spread(rng, shape):
    """Values with a gap between every two of them."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) + rng.uniform(0, 0.6, size)) / size * 4 - 2).reshape(shape)


def triangle_inputs(rng):
    w = rng.dirichlet([2.0, 2.0, 2.0], 5)
    corners = np.array([[0, 1, 2], [2, 1, 4], [3, 4, 5], [5, 0, 2], [1, 3, 6]])
    return rng.normal(size=(7, 2)), w, corners


CASES = [
    Planted(
        "conv2d: the input's gradient uses the kernel as it stands", conv2d, conv2d_right, conv2d_wrong,
        lambda rng: (rng.normal(size=(2, 2, 6, 5)), rng.normal(size=(3, 2, 3, 2))), {"x": ("kernel_flipped",)},
    ),
    Planted(
        "full convolution: convolved instead of correlated",
        full_convolution, full_convolution_right, full_convolution_wrong,
        lambda rng: (rng.normal(size=9), rng.normal(size=4)), {"h": ("kernel_flipped",)},
    ),
    Planted(
        "avg_pool2d: padded cells are counted", avg_pool2d, avg_pool2d_right, avg_pool2d_wrong,
        lambda rng: (rng.normal(size=(2, 3, 5, 7)),), {"x": ("wrong_variant",)},
        {"k": 3, "stride": 2, "pad": 1, "count_include_pad": False},
    ),
    Planted(
        "bilinear resize: the corners are not aligned", resize, resize_right, resize_wrong,
        lambda rng: (rng.normal(size=(2, 4, 3)),), {"x": ("wrong_variant",)}, {"size": (7, 5), "align_corners": True},
    ),
    Planted(
        "running sum: summed in the direction of the forward", running_sum, running_sum_right, running_sum_wrong,
        lambda rng: (rng.normal(size=(3, 6)),), {"x": ("wrong_variant",)}, {"reverse": False},
    ),
    Planted(
        "max_pool1d: the last window is left out", max_pool1d, max_pool1d_right, max_pool1d_wrong,
        lambda rng: (spread(rng, (2, 3, 9)),), {"x": ("border_missing",)}, {"k": 3, "stride": 2},
    ),
    Planted(
        "laplacian: only inner cells are filled", laplacian, laplacian_right, laplacian_wrong,
        lambda rng: (rng.normal(size=(5, 6)),), {"u": ("border_missing",)},
    ),
    Planted(
        "frames: later frames replace earlier ones", frames, frames_right, frames_wrong,
        lambda rng: (rng.normal(size=17), rng.uniform(0.3, 1, 5)), {"x": ("overlap_overwritten",)}, {"hop": 3},
    ),
    Planted(
        "depthwise conv2d: the last tap of the kernel is left out", depthwise, depthwise_right, depthwise_wrong,
        lambda rng: (rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(3, 3, 2))), {"w": ("window_offset_skipped",)},
    ),
    Planted(
        "dilated conv1d: the loop starts at one", dilated, dilated_right, dilated_wrong,
        lambda rng: (rng.normal(size=(2, 3, 10)), rng.normal(size=(4, 3, 3))),
        {"x": ("window_offset_skipped",)}, {"dilation": 2},
    ),
    Planted(
        "causal filter: cropped one step early", causal, causal_right, causal_wrong,
        lambda rng: (rng.normal(size=(2, 11)), rng.normal(size=3)), {"x": ("spatial_shift",)},
    ),
    Planted(
        "center crop: rounded the other way", center_crop, center_crop_right, center_crop_wrong,
        lambda rng: (rng.normal(size=(2, 7, 9)),), {"x": ("spatial_shift",)}, {"size": (4, 5)},
    ),
    Planted(
        "cubic upsampling: the four weights in reverse", cubic_upsample, cubic_upsample_right, cubic_upsample_wrong,
        lambda rng: (rng.normal(size=(2, 7)),), {"x": ("wrong_weights",)},
    ),
    Planted(
        "barycentric blend: the weights go to the next corner", barycentric, barycentric_right, barycentric_wrong,
        triangle_inputs, {"values": ("wrong_weights",)},
    ),
    Planted(
        "residual smoothing: the direct path is dropped",
        smooth_residual, smooth_residual_right, smooth_residual_wrong,
        lambda rng: (rng.normal(size=(3, 8)), rng.normal(size=3)), {"x": ("identity_branch_lost",)},
    ),
    Planted(
        "channel gate: summed over the batch too", channel_gate, channel_gate_right, channel_gate_wrong,
        lambda rng: (rng.normal(size=(3, 4, 2, 5)), rng.uniform(0.2, 1, (3, 4))), {"s": ("mixed_over_axis",)},
    ),
    Planted(
        "global max pooling: the mask is made row by row", global_max, global_max_right, global_max_wrong,
        lambda rng: (spread(rng, (2, 3, 4, 5)),), {"x": ("several_winners",)},
    ),
    Planted(
        "max_pool2d: row and column of the winner are mixed up", max_pool2d, max_pool2d_right, max_pool2d_wrong,
        lambda rng: (spread(rng, (2, 6, 8)),), {"x": ("wrong_routing",)}, {"k": 2},
    ),
    Planted(
        "transposed conv1d: the kernel keeps the last sample only",
        conv_transpose1d, conv_transpose1d_right, conv_transpose1d_wrong,
        lambda rng: (rng.normal(size=(4, 3, 5)), rng.normal(size=(3, 2, 3))),
        {"w": ("not_accumulated_over_axis",)}, {"stride": 2},
    ),
    Planted(
        "power spectrum: the inverse transform counts inner frequencies twice",
        power_spectrum, power_spectrum_right, power_spectrum_wrong,
        lambda rng: (rng.normal(size=10),), {"x": ("factor_per_element",)},
    ),
    Planted(
        "leaky integrator from the end: not turned back", leaky_from_end, leaky_from_end_right, leaky_from_end_wrong,
        lambda rng: (rng.normal(size=(3, 7)),), {"x": ("axis_reversed",)}, {"decay": 0.7},
    ),
]
