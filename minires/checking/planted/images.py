"""Planted mistakes in convolutions of all kinds and in the residual attention gate."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.planted.case import Planted
from minires.checking.planted.draw import normal

__all__ = ["CASES"]


# 1-D convolution ------------------------------------------------------------------------------------------------------


def conv1d(inputs: Any, stride: int = 1, padding: int = 0) -> Any:
    """Correlation of signals (N, C, L) with kernels (O, C, k)."""
    x, w = inputs
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    length = (padded.shape[2] - w.shape[2]) // stride + 1
    spans = [slice(i, i + stride * length, stride) for i in range(w.shape[2])]
    return sum(np.einsum("ncl,oc->nol", padded[:, :, span], w[:, :, i]) for i, span in enumerate(spans))


def conv1d_backward(inputs: Any, grad_output: Any, stride: int = 1, padding: int = 0) -> Any:
    """Gradients of conv1d."""
    x, w = inputs
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i in range(w.shape[2]):
        span = slice(i, i + stride * grad_output.shape[2], stride)
        dw[:, :, i] = np.einsum("nol,ncl->oc", grad_output, padded[:, :, span])
        dpadded[:, :, span] += np.einsum("nol,oc->ncl", grad_output, w[:, :, i])
    return dpadded[:, :, padding : padding + x.shape[2]].copy(), dw


def _conv1d_kernel_flipped(inputs: Any, grad_output: Any, **options: Any) -> Any:
    x, w = inputs
    _, dw = conv1d_backward(inputs, grad_output, **options)
    dx, _ = conv1d_backward((x, w[:, :, ::-1]), grad_output, **options)
    return dx, dw


def _conv1d_offset_skipped(inputs: Any, grad_output: Any, padding: int = 0) -> Any:
    x, w = inputs
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    dx, _ = conv1d_backward(inputs, grad_output, padding=padding)
    dw = np.zeros_like(w)
    for i in range(1, w.shape[2]):
        dw[:, :, i] = np.einsum("nol,ncl->oc", grad_output, padded[:, :, i : i + grad_output.shape[2]])
    return dx, dw


def _conv1d_reversed(inputs: Any, grad_output: Any, stride: int = 1) -> Any:
    x, w = inputs
    dx, _ = conv1d_backward(inputs, grad_output, stride=stride)
    dw = np.zeros_like(w)
    for i in range(w.shape[2]):
        span = slice(i, i + stride * grad_output.shape[2], stride)
        dw[:, :, -1 - i] = np.einsum("nol,ncl->oc", grad_output, x[:, :, span])
    return dx, dw


def conv1d_same(inputs: Any, dilation: int = 1) -> Any:
    """Correlation with holes of an odd kernel, padded so that the length stays the same."""
    x, w = inputs
    reach = dilation * (w.shape[2] // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach)))
    taps = [padded[:, :, i * dilation : i * dilation + x.shape[2]] for i in range(w.shape[2])]
    return sum(np.einsum("ncl,oc->nol", tap, w[:, :, i]) for i, tap in enumerate(taps))


def conv1d_same_backward(inputs: Any, grad_output: Any, dilation: int = 1) -> Any:
    """Gradients of conv1d_same."""
    x, w = inputs
    length, reach = x.shape[2], dilation * (w.shape[2] // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i in range(w.shape[2]):
        start = i * dilation
        dw[:, :, i] = np.einsum("nol,ncl->oc", grad_output, padded[:, :, start : start + length])
        dpadded[:, :, start : start + length] += np.einsum("nol,oc->ncl", grad_output, w[:, :, i])
    return dpadded[:, :, reach : reach + length].copy(), dw


def _conv1d_same_without_holes(inputs: Any, grad_output: Any, dilation: int = 1) -> Any:
    _, dw = conv1d_same_backward(inputs, grad_output, dilation)
    dx, _ = conv1d_same_backward(inputs, grad_output)
    return dx, dw


def conv_transpose1d(inputs: Any, stride: int = 2) -> Any:
    """Transposed convolution: every entry of (N, C, L) paints a kernel of (C, O, k)."""
    x, w = inputs
    last = stride * (x.shape[2] - 1)
    y = np.zeros((x.shape[0], w.shape[1], last + w.shape[2]), x.dtype)
    for i in range(w.shape[2]):
        y[:, :, i : i + last + 1 : stride] += np.einsum("ncl,co->nol", x, w[:, :, i])
    return y


def conv_transpose1d_backward(inputs: Any, grad_output: Any, stride: int = 2) -> Any:
    """Gradients of conv_transpose1d."""
    x, w = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(w.shape[2]):
        painted = grad_output[:, :, i : i + stride * (x.shape[2] - 1) + 1 : stride]
        dx += np.einsum("nol,co->ncl", painted, w[:, :, i])
        dw[:, :, i] = np.einsum("nol,ncl->co", painted, x)
    return dx, dw


def _conv_transpose1d_offset_skipped(inputs: Any, grad_output: Any, stride: int = 2) -> Any:
    x, w = inputs
    _, dw = conv_transpose1d_backward(inputs, grad_output, stride)
    dx = np.zeros_like(x)
    for i in range(w.shape[2] - 1):
        painted = grad_output[:, :, i : i + stride * (x.shape[2] - 1) + 1 : stride]
        dx += np.einsum("nol,co->ncl", painted, w[:, :, i])
    return dx, dw


_FRAMES = 2 * np.arange(4)[:, None] + np.arange(3)  # 4 windows of 3, 2 apart


def unfold1d(inputs: Any) -> Any:
    """Overlapping windows of a signal (N, L), side by side: (N, windows, size)."""
    (x,) = inputs
    return x[:, _FRAMES]


def unfold1d_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of unfold1d: overlapping windows add up."""
    (x,) = inputs
    dx = np.zeros_like(x)
    everywhere: Any = (slice(None), _FRAMES)
    np.add.at(dx, everywhere, grad_output)
    return (dx,)


def _unfold1d_overwritten(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, _FRAMES] += grad_output
    return (dx,)


# 2-D convolution ------------------------------------------------------------------------------------------------------


def conv2d(inputs: Any, stride: int = 1, padding: int = 0) -> Any:
    """Correlation of images (N, C, H, W) with kernels (O, C, kh, kw)."""
    x, w = inputs
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows[:, :, ::stride, ::stride], w)


def _conv2d_windows(inputs: Any, grad_output: Any, stride: int, padding: int, lost: int, overwrite: bool, crop: int) -> Any:
    x, w = inputs
    kh, kw = w.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for row in range(grad_output.shape[2] - lost):
        for column in range(grad_output.shape[3]):
            g = grad_output[:, :, row, column]
            at = np.s_[:, :, row * stride : row * stride + kh, column * stride : column * stride + kw]
            dw += np.einsum("no,nchw->ochw", g, padded[at])
            dwindow = np.einsum("no,ochw->nchw", g, w)
            dpadded[at] = dwindow if overwrite else dpadded[at] + dwindow
    return dpadded[:, :, crop : crop + x.shape[2], crop : crop + x.shape[3]].copy(), dw


def conv2d_backward(inputs: Any, grad_output: Any, stride: int = 1, padding: int = 0) -> Any:
    """Gradients of conv2d, window by window."""
    return _conv2d_windows(inputs, grad_output, stride, padding, lost=0, overwrite=False, crop=padding)


def _conv2d_overwritten(inputs: Any, grad_output: Any, stride: int = 1, padding: int = 0) -> Any:
    return _conv2d_windows(inputs, grad_output, stride, padding, lost=0, overwrite=True, crop=padding)


def _conv2d_last_row_lost(inputs: Any, grad_output: Any, stride: int = 1, padding: int = 0) -> Any:
    return _conv2d_windows(inputs, grad_output, stride, padding, lost=1, overwrite=False, crop=padding)


def _conv2d_crop_and_last_sample(inputs: Any, grad_output: Any, padding: int = 0) -> Any:
    x, w = inputs
    dx, _ = _conv2d_windows(inputs, grad_output, 1, padding, lost=0, overwrite=False, crop=padding - 1)
    dw = np.zeros_like(w)
    for n in range(x.shape[0]):
        _, dw = conv2d_backward((x[n : n + 1], w), grad_output[n : n + 1], padding=padding)
    return dx, dw


def _conv2d_flipped_and_doubled(inputs: Any, grad_output: Any, **options: Any) -> Any:
    x, w = inputs
    _, dw = conv2d_backward(inputs, grad_output, **options)
    dx, _ = conv2d_backward((x, w[:, :, ::-1, ::-1]), grad_output, **options)
    return 2 * dx, dw


def depthwise_conv2d(inputs: Any) -> Any:
    """Correlation of each channel of (N, C, H, W) with its own kernel of (C, kh, kw)."""
    x, w = inputs
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:], axis=(2, 3))
    return np.einsum("nchwij,cij->nchw", windows, w)


def depthwise_conv2d_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of depthwise_conv2d."""
    x, w = inputs
    height, width = grad_output.shape[2:]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(w.shape[1]):
        for j in range(w.shape[2]):
            at = np.s_[:, :, i : i + height, j : j + width]
            dx[at] += grad_output * w[:, i, j, None, None]
            dw[:, i, j] = (grad_output * x[at]).sum((0, 2, 3))
    return dx, dw


def _depthwise_flipped(inputs: Any, grad_output: Any) -> Any:
    x, w = inputs
    _, dw = depthwise_conv2d_backward(inputs, grad_output)
    return depthwise_conv2d_backward((x, w[:, ::-1, ::-1]), grad_output)[0], dw


def _depthwise_channels_summed(inputs: Any, grad_output: Any) -> Any:
    x, w = inputs
    height, width = grad_output.shape[2:]
    dx, dw = depthwise_conv2d_backward(inputs, grad_output)
    for i in range(w.shape[1]):
        for j in range(w.shape[2]):
            dw[:, i, j] = (grad_output * x[:, :, i : i + height, j : j + width]).sum()
    return dx, dw


# The residual attention gate ------------------------------------------------------------------------------------------


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def attention_gate(inputs: Any) -> Any:
    """Features times (1 + attention): (1 + sigmoid(z)) f; z may have one channel for all of those of f."""
    f, z = inputs
    return (1 + _sigmoid(z)) * f


def attention_gate_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of attention_gate."""
    f, z = inputs
    attention = _sigmoid(z)
    dz = grad_output * f * attention * (1 - attention)
    if z.shape[1] == 1:
        dz = dz.sum(1, keepdims=True)
    return grad_output * (1 + attention), dz


def _gate_identity_lost(inputs: Any, grad_output: Any) -> Any:
    f, z = inputs
    return grad_output * _sigmoid(z), grad_output * f * z * (1 - z)


def _gate_without_slope(inputs: Any, grad_output: Any) -> Any:
    f, _ = inputs
    df, _ = attention_gate_backward(inputs, grad_output)
    return df, grad_output * f


def _gate_not_summed(inputs: Any, grad_output: Any) -> Any:
    f, z = inputs
    attention = _sigmoid(z)
    return grad_output * (1 + attention), grad_output * f * attention * (1 - attention)


CASES: list[Planted] = [
    Planted("conv1d: dx correlates with the flipped kernel", conv1d, conv1d_backward, _conv1d_kernel_flipped,
            normal((2, 3, 9), (5, 3, 4)), {"x": ("kernel_flipped",)}, {"stride": 2, "padding": 1}),
    Planted("conv1d: the loop over the kernel starts at 1", conv1d, conv1d_backward, _conv1d_offset_skipped,
            normal((2, 3, 7), (5, 3, 4)), {"w": ("window_offset_skipped",)}, {"padding": 1}),
    Planted("conv1d: dw is filled from its end", conv1d, conv1d_backward, _conv1d_reversed,
            normal((3, 2, 8), (5, 2, 4)), {"w": ("axis_reversed",)}, {"stride": 2}),
    Planted("conv1d_same: dx forgets the dilation", conv1d_same, conv1d_same_backward, _conv1d_same_without_holes,
            normal((2, 4, 8), (5, 4, 3)), {"x": ("wrong_variant",)}, {"dilation": 2}),
    Planted("conv_transpose1d: the loop ends one offset early", conv_transpose1d, conv_transpose1d_backward,
            _conv_transpose1d_offset_skipped, normal((2, 3, 4), (3, 6, 5)), {"x": ("window_offset_skipped",)}),
    Planted("unfold1d: += with repeated indices", unfold1d, unfold1d_backward, _unfold1d_overwritten,
            normal((3, 9)), {"x": ("overlap_overwritten",)}),
    Planted("conv2d: overlapping windows are assigned, not added", conv2d, conv2d_backward, _conv2d_overwritten,
            normal((2, 3, 6, 5), (4, 3, 3, 2)), {"x": ("overlap_overwritten",)}),
    Planted("conv2d: the last row of windows is not visited", conv2d, conv2d_backward, _conv2d_last_row_lost,
            normal((2, 3, 7, 6), (5, 3, 3, 2)), {"x": ("border_missing",), "w": ("border_missing",)}, {"stride": 2}),
    Planted("conv2d: the crop is off by one, and dw keeps the last sample only", conv2d, conv2d_backward,
            _conv2d_crop_and_last_sample, normal((3, 2, 5, 4), (4, 2, 3, 3)),
            {"x": ("spatial_shift",), "w": ("not_accumulated_over_axis",)}, {"padding": 1}),
    Planted("conv2d: dx correlates with the flipped kernel, and twice", conv2d, conv2d_backward,
            _conv2d_flipped_and_doubled, normal((2, 3, 5, 6), (4, 3, 2, 3)),
            {"x": ("kernel_flipped", "constant_factor")}, twice=True),
    Planted("depthwise_conv2d: dx correlates with the flipped kernel", depthwise_conv2d, depthwise_conv2d_backward,
            _depthwise_flipped, normal((2, 3, 6, 5), (3, 3, 2)), {"x": ("kernel_flipped",)}),
    Planted("depthwise_conv2d: dw is summed over the channels too", depthwise_conv2d, depthwise_conv2d_backward,
            _depthwise_channels_summed, normal((2, 4, 5, 6), (4, 2, 3)), {"w": ("mixed_over_axis",)}),
    Planted("attention_gate: the 1 and the sigmoid's output are forgotten", attention_gate, attention_gate_backward,
            _gate_identity_lost, normal((2, 3, 4, 5), (2, 3, 4, 5)),
            {"f": ("identity_branch_lost",), "z": ("wrong_local_derivative",)}),
    Planted("attention_gate: the slope of the sigmoid is forgotten", attention_gate, attention_gate_backward,
            _gate_without_slope, normal((3, 2, 4, 5), (3, 2, 4, 5)), {"z": ("missing_chain_factor",)}),
    Planted("attention_gate: one attention map for all channels, not summed", attention_gate, attention_gate_backward,
            _gate_not_summed, normal((2, 4, 3, 5), (2, 1, 3, 5)), {"z": ("missing_broadcast_sum",)}),
]
