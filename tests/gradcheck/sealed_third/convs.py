"""Convolutions in many spellings."""

# ruff: noqa: RUF059
from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted

# ---------------------------------------------------------------- causal convolution over time


def causal_conv1d(inputs, dilation=1):
    """y[n, o, t] looks only at x[.., t], x[.., t - dilation], ..."""
    x, w = inputs
    _, _, length = x.shape
    k = w.shape[2]
    y = np.zeros((x.shape[0], w.shape[0], length), np.result_type(x, w))
    for j in range(k):
        back = (k - 1 - j) * dilation
        if back < length:
            y[:, :, back:] += np.einsum("nct,oc->not", x[:, :, : length - back], w[:, :, j])
    return y


def _causal(inputs, grad_output, dilation, first):
    x, w = inputs
    length, k = x.shape[2], w.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for j in range(k):
        back = (k - 1 - j) * dilation
        if back >= length:
            continue
        part = grad_output[:, :, back:]
        dw[:, :, j] = np.einsum("not,nct->oc", part, x[:, :, : length - back])
        if j >= first:
            dx[:, :, : length - back] += np.einsum("not,oc->nct", part, w[:, :, j])
    return dx, dw


def causal_conv1d_backward(inputs, grad_output, dilation=1):
    return _causal(inputs, grad_output, dilation, 0)


def causal_conv1d_wrong(inputs, grad_output, dilation=1):
    return _causal(inputs, grad_output, dilation, 1)


# ---------------------------------------------------------------- grouped convolution


def grouped_conv2d(inputs, stride=1, groups=2):
    x, w = inputs
    n, c, h, wid = x.shape
    o, cg, kh, kw = w.shape
    ho, wo = (h - kh) // stride + 1, (wid - kw) // stride + 1
    xg = x.reshape(n, groups, cg, h, wid)
    wg = w.reshape(groups, o // groups, cg, kh, kw)
    y = np.zeros((n, groups, o // groups, ho, wo), np.result_type(x, w))
    for u in range(kh):
        for v in range(kw):
            patch = xg[..., u : u + stride * ho : stride, v : v + stride * wo : stride]
            y += np.einsum("ngchw,goc->ngohw", patch, wg[..., u, v])
    return y.reshape(n, o, ho, wo)


def grouped_conv2d_backward(inputs, grad_output, stride=1, groups=2):
    x, w = inputs
    n, c, h, wid = x.shape
    o, cg, kh, kw = w.shape
    ho, wo = grad_output.shape[2:]
    xg = x.reshape(n, groups, cg, h, wid)
    wg = w.reshape(groups, o // groups, cg, kh, kw)
    gg = grad_output.reshape(n, groups, o // groups, ho, wo)
    dx, dw = np.zeros_like(xg), np.zeros_like(wg)
    for u in range(kh):
        for v in range(kw):
            rows, cols = slice(u, u + stride * ho, stride), slice(v, v + stride * wo, stride)
            dw[..., u, v] = np.einsum("ngohw,ngchw->goc", gg, xg[..., rows, cols])
            dx[..., rows, cols] += np.einsum("ngohw,goc->ngchw", gg, wg[..., u, v])
    return dx.reshape(x.shape), dw.reshape(w.shape)


def grouped_conv2d_wrong(inputs, grad_output, stride=1, groups=2):
    x, w = inputs
    dx, _ = grouped_conv2d_backward(inputs, grad_output, stride, groups)
    o, cg, kh, kw = w.shape
    ho, wo = grad_output.shape[2:]
    dw = np.zeros_like(w)
    for oc in range(o):
        first = (oc // (o // groups)) * cg
        for tap in range(1, kh * kw):
            u, v = divmod(tap, kw)
            patch = x[:, first : first + cg, u : u + stride * ho : stride, v : v + stride * wo : stride]
            dw[oc, :, u, v] = (patch * grad_output[:, oc : oc + 1]).sum(axis=(0, 2, 3))
    return dx, dw


# ---------------------------------------------------------------- depthwise convolution, "same"


def depthwise_conv2d(inputs):
    """Each channel has its own odd-sized kernel; the size is kept."""
    x, w = inputs
    _, kh, kw = w.shape
    xp = np.pad(x, ((0, 0), (0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2)))
    win = np.lib.stride_tricks.sliding_window_view(xp, (kh, kw), axis=(2, 3))
    return np.einsum("nchwuv,cuv->nchw", win, w)


def _depthwise(inputs, grad_output, kernel):
    x, w = inputs
    _, kh, kw = w.shape
    pads = ((0, 0), (0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2))
    view = np.lib.stride_tricks.sliding_window_view
    dw = np.einsum("nchwuv,nchw->cuv", view(np.pad(x, pads), (kh, kw), axis=(2, 3)), grad_output)
    dx = np.einsum("nchwuv,cuv->nchw", view(np.pad(grad_output, pads), (kh, kw), axis=(2, 3)), kernel)
    return dx, dw


def depthwise_conv2d_backward(inputs, grad_output):
    return _depthwise(inputs, grad_output, inputs[1][:, ::-1, ::-1])


def depthwise_conv2d_wrong(inputs, grad_output):
    return _depthwise(inputs, grad_output, inputs[1])


# ---------------------------------------------------------------- transposed convolution


def conv_transpose2d(inputs, stride=2):
    x, w = inputs
    n, ci, h, wid = x.shape
    _, co, kh, kw = w.shape
    y = np.zeros((n, co, (h - 1) * stride + kh, (wid - 1) * stride + kw), np.result_type(x, w))
    for i in range(h):
        for j in range(wid):
            y[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw] += np.tensordot(x[:, :, i, j], w, 1)
    return y


def _conv_transpose(inputs, grad_output, stride, spec):
    x, w = inputs
    kh, kw = w.shape[2:]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            g = grad_output[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
            dx[:, :, i, j] = np.einsum(spec, g, w)
            dw += np.einsum("nc,nouv->couv", x[:, :, i, j], g)
    return dx, dw


def conv_transpose2d_backward(inputs, grad_output, stride=2):
    return _conv_transpose(inputs, grad_output, stride, "nouv,couv->nc")


def conv_transpose2d_wrong(inputs, grad_output, stride=2):
    return _conv_transpose(inputs, grad_output, stride, "nouv,ocuv->nc")


# ---------------------------------------------------------------- volumes


def conv3d(inputs, padding=1):
    x, w = inputs
    p = padding
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p), (p, p)))
    win = np.lib.stride_tricks.sliding_window_view(xp, w.shape[2:], axis=(2, 3, 4))
    return np.einsum("ncdhwijk,ocijk->nodhw", win, w)


def _conv3d(inputs, grad_output, padding, last):
    x, w = inputs
    p = padding
    _, _, d, h, wid = x.shape
    xp = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p), (p, p)))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    do, ho, wo = grad_output.shape[2:]
    for i, j, k in np.ndindex(*w.shape[2:]):
        at = (slice(None), slice(None), slice(i, i + do), slice(j, j + ho), slice(k, k + wo))
        dw[:, :, i, j, k] = np.einsum("nodhw,ncdhw->oc", grad_output, xp[at])
        dxp[at] += np.einsum("nodhw,oc->ncdhw", grad_output, w[:, :, i, j, k])
    return dxp[:, :, p : p + d, p : p + h, last : last + wid].copy(), dw


def conv3d_backward(inputs, grad_output, padding=1):
    return _conv3d(inputs, grad_output, padding, padding)


def conv3d_wrong(inputs, grad_output, padding=1):
    return _conv3d(inputs, grad_output, padding, padding - 1)


# ---------------------------------------------------------------- one by one, channels last


def pointwise_conv(inputs):
    x, w, b = inputs
    return x @ w + b


def pointwise_conv_backward(inputs, grad_output):
    x, w, b = inputs
    dw = np.zeros_like(w)
    for n in range(x.shape[0]):
        dw += np.einsum("hwc,hwo->co", x[n], grad_output[n])
    return grad_output @ w.T, dw, grad_output.sum(axis=(0, 1, 2))


def pointwise_conv_wrong(inputs, grad_output):
    x, w, b = inputs
    dw = np.zeros_like(w)
    for n in range(x.shape[0]):
        dw = np.einsum("hwc,hwo->co", x[n], grad_output[n])
    return grad_output @ w.T, dw, grad_output.sum(axis=(0, 1, 2))


# ---------------------------------------------------------------- columns times matrix, with bias


def _columns(x, kh, kw, stride):
    win = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::stride, ::stride]
    n, c, ho, wo = win.shape[:4]
    return win.transpose(0, 2, 3, 1, 4, 5).reshape(n * ho * wo, c * kh * kw), ho, wo


def conv2d_bias(inputs, stride=1):
    x, w, b = inputs
    o, _, kh, kw = w.shape
    cols, ho, wo = _columns(x, kh, kw, stride)
    return (cols @ w.reshape(o, -1).T + b).reshape(len(x), ho, wo, o).transpose(0, 3, 1, 2)


def conv2d_bias_backward(inputs, grad_output, stride=1):
    x, w, b = inputs
    o, c, kh, kw = w.shape
    cols, ho, wo = _columns(x, kh, kw, stride)
    flat = grad_output.transpose(0, 2, 3, 1).reshape(-1, o)
    dcols = (flat @ w.reshape(o, -1)).reshape(len(x), ho, wo, c, kh, kw)
    dx = np.zeros_like(x)
    for i in range(ho):
        for j in range(wo):
            dx[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw] += dcols[:, i, j]
    return dx, (flat.T @ cols).reshape(w.shape), flat.sum(axis=0)


def conv2d_bias_wrong(inputs, grad_output, stride=1):
    dx, dw, _ = conv2d_bias_backward(inputs, grad_output, stride)
    return dx, dw, grad_output.sum(axis=(0, 2, 3), keepdims=True)


# ---------------------------------------------------------------- locally connected: no sharing


def local_conv1d(inputs):
    """Every position t has its own filter w[t]."""
    x, w = inputs
    k = w.shape[3]
    win = np.lib.stride_tricks.sliding_window_view(x, k, axis=2)
    return np.einsum("nctk,tock->not", win, w)


def local_conv1d_backward(inputs, grad_output):
    x, w = inputs
    steps, _, _, k = w.shape
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for t in range(steps):
        dx[:, :, t : t + k] += np.einsum("no,ock->nck", grad_output[:, :, t], w[t])
        dw[t] = np.einsum("no,nck->ock", grad_output[:, :, t], x[:, :, t : t + k])
    return dx, dw


def local_conv1d_wrong(inputs, grad_output):
    x, w = inputs
    dx, _ = local_conv1d_backward(inputs, grad_output)
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[3], axis=2)
    shared = np.einsum("not,nctk->ock", grad_output, win)
    return dx, np.tile(shared, (w.shape[0], 1, 1, 1))


# ---------------------------------------------------------------- round the circle, by FFT


def circular_convolution(inputs):
    x, w = inputs
    length = x.shape[-1]
    return np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(w, length), length).astype(x.dtype)


def circular_convolution_backward(inputs, grad_output):
    x, w = inputs
    length = x.shape[-1]
    fg = np.fft.rfft(grad_output)
    dx = np.fft.irfft(fg * np.conj(np.fft.rfft(w, length)), length)
    dw = np.fft.irfft((fg * np.conj(np.fft.rfft(x))).sum(axis=0), length)[: len(w)]
    return dx.astype(x.dtype), dw.astype(w.dtype)


def circular_convolution_wrong(inputs, grad_output):
    x, w = inputs
    length = x.shape[-1]
    fg = np.fft.rfft(grad_output)
    dx = np.fft.irfft(fg * np.fft.rfft(w, length), length)
    dw = np.fft.irfft((fg * np.conj(np.fft.rfft(x))).sum(axis=0), length)[: len(w)]
    return dx.astype(x.dtype), dw.astype(w.dtype)


# ---------------------------------------------------------------- holes


def atrous_conv2d(inputs, rate=2):
    x, w = inputs
    kh, kw = w.shape[2:]
    ho, wo = x.shape[2] - rate * (kh - 1), x.shape[3] - rate * (kw - 1)
    return sum(
        np.einsum("nchw,oc->nohw", x[:, :, u * rate : u * rate + ho, v * rate : v * rate + wo], w[:, :, u, v])
        for u, v in np.ndindex(kh, kw)
    )


def _atrous(inputs, grad_output, rate, dw):
    x, w = inputs
    ho, wo = grad_output.shape[2:]
    dx = np.zeros_like(x)
    for u, v in np.ndindex(*w.shape[2:]):
        rows, cols = slice(u * rate, u * rate + ho), slice(v * rate, v * rate + wo)
        dw[:, :, u, v] = np.einsum("nohw,nchw->oc", grad_output, x[:, :, rows, cols])
        dx[:, :, rows, cols] += np.einsum("nohw,oc->nchw", grad_output, w[:, :, u, v])
    return dx, dw


def atrous_conv2d_backward(inputs, grad_output, rate=2):
    return _atrous(inputs, grad_output, rate, np.zeros_like(inputs[1]))


def atrous_conv2d_wrong(inputs, grad_output, rate=2):
    return _atrous(inputs, grad_output, rate, np.zeros(inputs[1].shape))


CASES = [
    Planted("causal_conv1d: the loop over taps starts at one for x", causal_conv1d, causal_conv1d_backward,
            causal_conv1d_wrong, lambda r: (r.normal(size=(2, 3, 9)), r.normal(size=(4, 3, 3))),
            {"x": ("window_offset_skipped",)}, {"dilation": 2}),
    Planted("grouped_conv2d: the first tap of the filter gradient is never filled", grouped_conv2d,
            grouped_conv2d_backward, grouped_conv2d_wrong,
            lambda r: (r.normal(size=(2, 4, 5, 6)), r.normal(size=(6, 2, 2, 3))),
            {"w": ("window_offset_skipped",)}, {"stride": 1, "groups": 2}),
    Planted("depthwise_conv2d: correlation where the backward needs the turned kernel", depthwise_conv2d,
            depthwise_conv2d_backward, depthwise_conv2d_wrong,
            lambda r: (r.normal(size=(2, 3, 4, 5)), r.normal(size=(3, 3, 3))), {"x": ("kernel_flipped",)}),
    Planted("conv_transpose2d: input and output channels of w mixed up", conv_transpose2d,
            conv_transpose2d_backward, conv_transpose2d_wrong,
            lambda r: (r.normal(size=(2, 3, 2, 4)), r.normal(size=(3, 3, 2, 3))),
            {"x": ("operand_transposed",)}, {"stride": 2}),
    Planted("conv3d: the crop starts one column early", conv3d, conv3d_backward, conv3d_wrong,
            lambda r: (r.normal(size=(1, 2, 3, 4, 5)), r.normal(size=(1, 2, 2, 3, 2))),
            {"x": ("spatial_shift",)}, {"padding": 1}),
    Planted("pointwise_conv: = for += over the samples", pointwise_conv, pointwise_conv_backward,
            pointwise_conv_wrong,
            lambda r: (r.normal(size=(3, 2, 4, 5)), r.normal(size=(5, 6)), r.normal(size=6)),
            {"w": ("not_accumulated_over_axis",)}),
    Planted("conv2d_bias: keepdims left in the bias gradient", conv2d_bias, conv2d_bias_backward,
            conv2d_bias_wrong,
            lambda r: (r.normal(size=(2, 3, 6, 5)), r.normal(size=(4, 3, 2, 3)), r.normal(size=4)),
            {"b": ("shape",)}, {"stride": 2}),
    Planted("local_conv1d: filter gradient summed over positions as if shared", local_conv1d,
            local_conv1d_backward, local_conv1d_wrong,
            lambda r: (r.normal(size=(3, 2, 7)), r.normal(size=(5, 4, 2, 3))), {"w": ("mixed_over_axis",)}),
    Planted("circular_convolution: the conjugate is forgotten", circular_convolution,
            circular_convolution_backward, circular_convolution_wrong,
            lambda r: (r.normal(size=(3, 8)), r.normal(size=5)), {"x": ("kernel_flipped",)}),
    Planted("atrous_conv2d: buffer of the filter gradient without a dtype", atrous_conv2d,
            atrous_conv2d_backward, atrous_conv2d_wrong,
            lambda r: (r.normal(size=(2, 2, 5, 6)), r.normal(size=(3, 2, 2, 3))), {"w": ("dtype",)}, {"rate": 2}),
]
