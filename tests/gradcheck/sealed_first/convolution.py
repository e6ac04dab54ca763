"""First sealed exam: convolutions, framing and padding."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def conv2d(inputs, stride=1, padding=0, dilation=1):
    """Cross-correlation with bias, (N, C, H, W) with (O, C, kh, kw)."""
    x, w, b = inputs
    kh, kw = w.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    oh = (xp.shape[2] - dilation * (kh - 1) - 1) // stride + 1
    ow = (xp.shape[3] - dilation * (kw - 1) - 1) // stride + 1
    y = 0
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation, j * dilation
            part = xp[:, :, top : top + stride * (oh - 1) + 1 : stride, left : left + stride * (ow - 1) + 1 : stride]
            y = y + np.einsum("nchw,oc->nohw", part, w[:, :, i, j])
    return y + b[None, :, None, None]


def _conv2d_grads(inputs, g, stride, padding, dilation_x, dilation_w, rows):
    x, w, _ = inputs
    kh, kw = w.shape[2:]
    oh, ow = g.shape[2:]
    xp = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for i in range(kh):
        for j in range(kw):
            s = np.s_[
                :,
                :,
                i * dilation_x : i * dilation_x + stride * (oh - 1) + 1 : stride,
                j * dilation_x : j * dilation_x + stride * (ow - 1) + 1 : stride,
            ]
            dxp[s] += np.einsum("nohw,oc->nchw", g, w[:, :, i, j])
    for i in range(rows):
        for j in range(kw):
            s = np.s_[
                :,
                :,
                i * dilation_w : i * dilation_w + stride * (oh - 1) + 1 : stride,
                j * dilation_w : j * dilation_w + stride * (ow - 1) + 1 : stride,
            ]
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", g, xp[s])
    h, wd = x.shape[2:]
    return dxp[:, :, padding : padding + h, padding : padding + wd].copy(), dw


def conv2d_backward(inputs, grad_output, stride=1, padding=0, dilation=1):
    _x, w, _b = inputs
    dx, dw = _conv2d_grads(inputs, grad_output, stride, padding, dilation, dilation, w.shape[2])
    return dx, dw, grad_output.sum((0, 2, 3))


def conv2d_backward_w_without_dilation(inputs, grad_output, stride=1, padding=0, dilation=1):
    _x, w, _b = inputs
    dx, dw = _conv2d_grads(inputs, grad_output, stride, padding, dilation, 1, w.shape[2])
    return dx, dw, grad_output.sum((0, 2, 3))


def conv2d_backward_short_row_loop(inputs, grad_output, stride=1, padding=0, dilation=1):
    _x, w, _b = inputs
    dx, dw = _conv2d_grads(inputs, grad_output, stride, padding, dilation, dilation, w.shape[2] - 1)
    return dx, dw, grad_output.sum((0, 2, 3))


def conv2d_backward_kernel_as_is(inputs, grad_output, stride=1, padding=0, dilation=1):
    x, w, b = inputs
    turned = w[:, :, ::-1, ::-1]
    dx, _ = _conv2d_grads((x, turned, b), grad_output, stride, padding, dilation, dilation, w.shape[2])
    _, dw = _conv2d_grads(inputs, grad_output, stride, padding, dilation, dilation, w.shape[2])
    return dx, dw, grad_output.sum((0, 2, 3))


def conv2d_backward_bias_of_last_sample(inputs, grad_output, stride=1, padding=0, dilation=1):
    _x, w, b = inputs
    dx, dw = _conv2d_grads(inputs, grad_output, stride, padding, dilation, dilation, w.shape[2])
    db = np.zeros_like(b)
    for sample in grad_output:
        db = sample.sum((1, 2))
    return dx, dw, db


def conv2d_inputs(rng):
    return rng.normal(size=(2, 3, 6, 7)), rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4)


def conv2d_inputs_small(rng):
    return rng.normal(size=(3, 2, 5, 6)), rng.normal(size=(4, 2, 2, 3)), rng.normal(size=4)


def depthwise_causal(inputs):
    """Each channel filtered by its own taps, looking only at the past: (N, T, C) with (K, C)."""
    x, taps = inputs
    t, k = x.shape[1], taps.shape[0]
    xp = np.concatenate([np.zeros((x.shape[0], k - 1, x.shape[2]), x.dtype), x], axis=1)
    return sum(xp[:, i : i + t] * taps[i] for i in range(k))


def depthwise_causal_backward(inputs, grad_output):
    x, taps = inputs
    n, t, c = x.shape
    k = len(taps)
    xp = np.concatenate([np.zeros((n, k - 1, c), x.dtype), x], axis=1)
    dxp, dtaps = np.zeros_like(xp), np.empty_like(taps)
    for i in range(k):
        dxp[:, i : i + t] += grad_output * taps[i]
        dtaps[i] = (grad_output * xp[:, i : i + t]).sum((0, 1))
    return dxp[:, k - 1 :].copy(), dtaps


def depthwise_causal_backward_crops_the_end(inputs, grad_output):
    x, taps = inputs
    n, t, c = x.shape
    k = len(taps)
    xp = np.concatenate([np.zeros((n, k - 1, c), x.dtype), x], axis=1)
    dxp, dtaps = np.zeros_like(xp), np.empty_like(taps)
    for i in range(k):
        dxp[:, i : i + t] += grad_output * taps[i]
        dtaps[i] = (grad_output * xp[:, i : i + t]).sum((0, 1))
    return dxp[:, :t].copy(), dtaps


def depthwise_causal_backward_channels_summed(inputs, grad_output):
    x, taps = inputs
    n, t, c = x.shape
    k = len(taps)
    xp = np.concatenate([np.zeros((n, k - 1, c), x.dtype), x], axis=1)
    dxp, dtaps = np.zeros_like(xp), np.empty_like(taps)
    for i in range(k):
        dxp[:, i : i + t] += grad_output * taps[i]
        dtaps[i] = np.einsum("ntc,ntd->d", grad_output, xp[:, i : i + t])
    return dxp[:, k - 1 :].copy(), dtaps


def depthwise_causal_inputs(rng):
    return rng.normal(size=(2, 7, 3)), rng.normal(size=(4, 3))


def frames(inputs, size=4, hop=2):
    """Cut a signal into overlapping frames and multiply each by a window."""
    signal, window = inputs
    starts = np.arange(0, signal.shape[-1] - size + 1, hop)
    return signal[:, starts[:, None] + np.arange(size)] * window


def frames_backward(inputs, grad_output, size=4, hop=2):
    signal, window = inputs
    starts = np.arange(0, signal.shape[-1] - size + 1, hop)
    dsignal = np.zeros_like(signal)
    for f, s in enumerate(starts):
        dsignal[:, s : s + size] += grad_output[:, f] * window
    return dsignal, (grad_output * signal[:, starts[:, None] + np.arange(size)]).sum((0, 1))


def frames_backward_without_overlap_add(inputs, grad_output, size=4, hop=2):
    signal, window = inputs
    starts = np.arange(0, signal.shape[-1] - size + 1, hop)
    dsignal = np.zeros_like(signal)
    for f, s in enumerate(starts):
        dsignal[:, s : s + size] = grad_output[:, f] * window
    return dsignal, (grad_output * signal[:, starts[:, None] + np.arange(size)]).sum((0, 1))


def frames_inputs(rng):
    return rng.normal(size=(3, 12)), rng.uniform(0.5, 1.5, size=4)


def conv_transpose2d(inputs, stride=2):
    """Each pixel stamps a scaled copy of the kernel, (N, C, H, W) with (C, O, kh, kw)."""
    x, w = inputs
    n, _, h, wd = x.shape
    _, o, kh, kw = w.shape
    y = np.zeros((n, o, (h - 1) * stride + kh, (wd - 1) * stride + kw), x.dtype)
    for r in range(h):
        for c in range(wd):
            stamp = np.einsum("nc,coij->noij", x[:, :, r, c], w)
            y[:, :, r * stride : r * stride + kh, c * stride : c * stride + kw] += stamp
    return y


def _conv_transpose2d_grads(x, w_for_x, g, stride):
    kh, kw = w_for_x.shape[2:]
    dx, dw = np.zeros_like(x), np.zeros_like(w_for_x)
    for r in range(x.shape[2]):
        for c in range(x.shape[3]):
            part = g[:, :, r * stride : r * stride + kh, c * stride : c * stride + kw]
            dx[:, :, r, c] = np.einsum("noij,coij->nc", part, w_for_x)
            dw += np.einsum("noij,nc->coij", part, x[:, :, r, c])
    return dx, dw


def conv_transpose2d_backward(inputs, grad_output, stride=2):
    x, w = inputs
    return _conv_transpose2d_grads(x, w, grad_output, stride)


def conv_transpose2d_backward_turned_kernel(inputs, grad_output, stride=2):
    x, w = inputs
    turned = np.flip(w, (2, 3))
    return _conv_transpose2d_grads(x, turned, grad_output, stride)


def conv_transpose2d_inputs(rng):
    return rng.normal(size=(2, 3, 4, 3)), rng.normal(size=(3, 2, 3, 2))


def conv3d(inputs):
    """Valid cross-correlation of a volume, (N, C, D, H, W) with (O, C, kd, kh, kw)."""
    x, w = inputs
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    return np.einsum("ncdhwijk,ocijk->nodhw", windows, w)


def _conv3d_dx(x, w, g):
    dx = np.zeros_like(x)
    d, h, wd = g.shape[2:]
    for i, j, k in np.ndindex(*w.shape[2:]):
        dx[:, :, i : i + d, j : j + h, k : k + wd] += np.einsum("nodhw,oc->ncdhw", g, w[:, :, i, j, k])
    return dx


def conv3d_backward(inputs, grad_output):
    x, w = inputs
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    return _conv3d_dx(x, w, grad_output), np.einsum("ncdhwijk,nodhw->ocijk", windows, grad_output)


def conv3d_backward_kernel_axes_in_wrong_order(inputs, grad_output):
    x, w = inputs
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3, 4))
    return _conv3d_dx(x, w, grad_output), np.einsum("ncdhwijk,nodhw->ocikj", windows, grad_output)


def conv3d_inputs(rng):
    return rng.normal(size=(1, 2, 4, 3, 5)), rng.normal(size=(3, 2, 3, 2, 2))


def group_mix(inputs, groups=3):
    """Grouped pointwise convolution, (N, G*C, L) with (G, O, C)."""
    x, w = inputs
    n, _, length = x.shape
    xg = x.reshape(n, groups, -1, length)
    return np.einsum("ngcl,goc->ngol", xg, w).reshape(n, -1, length)


def group_mix_backward(inputs, grad_output, groups=3):
    x, w = inputs
    n, _, length = x.shape
    gg = grad_output.reshape(n, groups, -1, length)
    xg = x.reshape(n, groups, -1, length)
    return np.einsum("ngol,goc->ngcl", gg, w).reshape(x.shape), np.einsum("ngol,ngcl->goc", gg, xg)


def group_mix_backward_groups_summed(inputs, grad_output, groups=3):
    x, w = inputs
    n, _, length = x.shape
    gg = grad_output.reshape(n, groups, -1, length)
    xg = x.reshape(n, groups, -1, length)
    every = np.einsum("ngol,goc->ncl", gg, w)
    dx = np.repeat(every[:, None], groups, axis=1).reshape(x.shape)
    return dx, np.einsum("ngol,ngcl->goc", gg, xg)


def group_mix_inputs(rng):
    return rng.normal(size=(4, 6, 5)), rng.normal(size=(3, 4, 2))


def blur(inputs):
    """A fixed lopsided smoothing filter along time, same length, zeros outside."""
    (x,) = inputs
    xp = np.pad(x, ((0, 0), (1, 1)))
    return 0.5 * xp[:, :-2] + 0.3 * xp[:, 1:-1] + 0.2 * xp[:, 2:]


def blur_backward(inputs, grad_output):
    gp = np.pad(grad_output, ((0, 0), (1, 1)))
    return (0.2 * gp[:, :-2] + 0.3 * gp[:, 1:-1] + 0.5 * gp[:, 2:],)


def blur_backward_same_filter(inputs, grad_output):
    gp = np.pad(grad_output, ((0, 0), (1, 1)))
    return (0.5 * gp[:, :-2] + 0.3 * gp[:, 1:-1] + 0.2 * gp[:, 2:],)


def blur_inputs(rng):
    return (rng.normal(size=(3, 8)),)


def pad_edge(inputs, before=2, after=1):
    """Lengthen rows by repeating their first and last value."""
    (x,) = inputs
    return np.pad(x, ((0, 0), (before, after)), mode="edge")


def pad_edge_backward(inputs, grad_output, before=2, after=1):
    (_x,) = inputs
    dx = grad_output[:, before:-after].copy()
    dx[:, 0] += grad_output[:, :before].sum(1)
    dx[:, -1] += grad_output[:, -after:].sum(1)
    return (dx,)


def pad_edge_backward_crop_only(inputs, grad_output, before=2, after=1):
    return (grad_output[:, before:-after].copy(),)


def pad_edge_inputs(rng):
    return (rng.normal(size=(4, 5)),)


def fold(inputs, height=5, width=6):
    """Add overlapping patches (N, kh, kw, oh, ow) into an image: the inverse of cutting windows out."""
    (patches,) = inputs
    n, kh, kw, oh, ow = patches.shape
    y = np.zeros((n, height, width), patches.dtype)
    for i in range(kh):
        for j in range(kw):
            y[:, i : i + oh, j : j + ow] += patches[:, i, j]
    return y


def fold_backward(inputs, grad_output, height=5, width=6):
    (patches,) = inputs
    _, kh, kw, oh, ow = patches.shape
    d = np.empty_like(patches)
    for i in range(kh):
        for j in range(kw):
            d[:, i, j] = grad_output[:, i : i + oh, j : j + ow]
    return (d,)


def fold_backward_starts_at_one(inputs, grad_output, height=5, width=6):
    (patches,) = inputs
    _, kh, kw, oh, ow = patches.shape
    d = np.zeros_like(patches)
    for i in range(kh):
        for j in range(1, kw):
            d[:, i, j] = grad_output[:, i : i + oh, j : j + ow]
    return (d,)


def fold_inputs(rng):
    return (rng.normal(size=(2, 2, 3, 4, 4)),)


CASES = [
    Planted("conv2d: the weight gradient reads the image without the dilation", conv2d, conv2d_backward,
            conv2d_backward_w_without_dilation, conv2d_inputs, {"w": ("wrong_variant",)},
            {"stride": 3, "padding": 1, "dilation": 2}),
    Planted("conv2d: the loop over kernel rows ends one too early", conv2d, conv2d_backward,
            conv2d_backward_short_row_loop, conv2d_inputs_small, {"w": ("window_offset_skipped",)},
            {"stride": 2, "padding": 1}),
    Planted("conv2d: the input gradient uses the kernel turned by half a turn", conv2d, conv2d_backward,
            conv2d_backward_kernel_as_is, conv2d_inputs_small, {"x": ("kernel_flipped",)}, {"padding": 0}),
    Planted("conv2d: the bias gradient is that of the last sample only", conv2d, conv2d_backward,
            conv2d_backward_bias_of_last_sample, conv2d_inputs, {"b": ("not_accumulated_over_axis",)}, {"stride": 2}),
    Planted("depthwise causal filter: the padding is cropped at the wrong end", depthwise_causal, depthwise_causal_backward,
            depthwise_causal_backward_crops_the_end, depthwise_causal_inputs, {"x": ("spatial_shift",)}),
    Planted("depthwise causal filter: the upstream of all channels is summed for the taps", depthwise_causal,
            depthwise_causal_backward, depthwise_causal_backward_channels_summed, depthwise_causal_inputs,
            {"taps": ("mixed_over_axis",)}),
    Planted("frames: overlap-add without the add", frames, frames_backward, frames_backward_without_overlap_add,
            frames_inputs, {"signal": ("overlap_overwritten",)}),
    Planted("conv_transpose2d: kernel turned in both gradients' loop", conv_transpose2d, conv_transpose2d_backward,
            conv_transpose2d_backward_turned_kernel, conv_transpose2d_inputs, {"x": ("kernel_flipped",)}),
    Planted("conv3d: two kernel axes change places in the einsum", conv3d, conv3d_backward,
            conv3d_backward_kernel_axes_in_wrong_order, conv3d_inputs, {"w": ("axis_swapped",)}),
    Planted("grouped pointwise convolution: every group gets the sum over groups", group_mix, group_mix_backward,
            group_mix_backward_groups_summed, group_mix_inputs, {"x": ("mixed_over_axis",)}),
    Planted("blur: the lopsided filter is applied unflipped to the upstream", blur, blur_backward,
            blur_backward_same_filter, blur_inputs, {"x": ("kernel_flipped", "wrong_weights", "operand_transposed")}),
    Planted("pad_edge: the backward only crops, the copies at the edge are lost", pad_edge, pad_edge_backward,
            pad_edge_backward_crop_only, pad_edge_inputs, {"x": ("border_missing",)}),
    Planted("fold: the loop over kernel columns starts at 1", fold, fold_backward, fold_backward_starts_at_one,
            fold_inputs, {"patches": ("window_offset_skipped",)}),
]
