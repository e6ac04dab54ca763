"""Planted mistakes in operations on images: convolutions, pooling, resizing, padding, attention on maps, normalisation."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minires.checking.planted.case import Planted


def _normal(*shapes):
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def _distinct(*shape):
    return lambda rng: (rng.permutation(np.arange(math.prod(shape)) * 0.1 - 2.05).reshape(shape),)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _pad(x, p):
    return np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))


def _window(x, i, j, shape, stride=1, dilation=1):
    """What offset (i, j) of the kernel meets, for all outputs."""
    i, j, (h, w) = i * dilation, j * dilation, shape
    return x[:, :, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]


def conv(inputs, stride=1, padding=0, dilation=1, groups=1):
    x, w = inputs  # (N, C, H, W), (O, C / groups, kh, kw)
    xp, y = _pad(x, padding), 0
    size = [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(xp.shape[2:], w.shape[2:], strict=True)]
    for i, j in np.ndindex(w.shape[2:]):
        patch = _window(xp, i, j, size, stride, dilation).reshape(len(x), groups, -1, *size)
        y = y + np.einsum("ngchw,goc->ngohw", patch, w[:, :, i, j].reshape(groups, -1, w.shape[1]))
    return y.reshape(len(x), len(w), *size)


def conv_backward(inputs, grad_output, stride=1, padding=0, dilation=1, groups=1):
    x, w = inputs
    size, xp, dw = grad_output.shape[2:], _pad(x, padding), np.zeros_like(w)
    dxp, g = np.zeros_like(xp), grad_output.reshape(len(x), groups, -1, *size)
    for i, j in np.ndindex(w.shape[2:]):
        patch = _window(xp, i, j, size, stride, dilation)
        dw[:, :, i, j] = np.einsum("ngohw,ngchw->goc", g, patch.reshape(len(x), groups, -1, *size)).reshape(w.shape[:2])
        back = np.einsum("ngohw,goc->ngchw", g, w[:, :, i, j].reshape(groups, -1, w.shape[1])).reshape(patch.shape)
        _window(dxp, i, j, size, stride, dilation)[...] += back
    return dxp[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]].copy(), dw


def conv_one_sample(inputs, grad_output, **options):
    x, w = inputs
    dx, dw = conv_backward(inputs, grad_output, **options)
    for n in range(len(x)):
        dw = conv_backward((x[n : n + 1], w), grad_output[n : n + 1], **options)[1]
    return dx, dw


def conv_one_sample_short(inputs, grad_output, **options):
    dx, dw = conv_one_sample(inputs, grad_output, **options)
    dw[:, :, -1] = 0  # for i in range(kh - 1)
    return dx, dw


def conv_short(inputs, grad_output, **options):
    dx, dw = conv_backward(inputs, grad_output, **options)
    dw[:, :, :, -1] = 0  # for j in range(kw - 1)
    return dx, dw


def conv_flipped(inputs, grad_output, **options):
    x, w = inputs
    dx = conv_backward((x, w[:, :, ::-1, ::-1]), grad_output, **options)[0]
    return dx, conv_backward(inputs, grad_output, **options)[1]


def conv_flipped_and_averaged(inputs, grad_output, **options):
    dx, dw = conv_flipped(inputs, grad_output, **options)
    return dx / grad_output[0].size, dw


def conv_kernel_axes(inputs, grad_output, **options):
    dx, dw = conv_backward(inputs, grad_output, **options)
    return dx, dw.swapaxes(2, 3).copy()


def conv_last_row_of_windows(inputs, grad_output, **options):
    g = grad_output.copy()
    g[:, :, -1] = 0  # for y in range(height - 1)
    return conv_backward(inputs, g, **options)[0], conv_backward(inputs, grad_output, **options)[1]


def conv_crop(inputs, grad_output, padding=0):
    x, w = inputs
    dxp, dw = conv_backward((_pad(x, padding), w), grad_output)
    return dxp[:, :, padding - 1 : padding - 1 + x.shape[2], padding : padding + x.shape[3]].copy(), dw


def conv_untransposed(inputs, grad_output):
    _, w = inputs
    dx = np.einsum("nohw,co->nchw", grad_output, w[:, :, 0, 0])
    return dx, conv_backward(inputs, grad_output)[1]


def conv_with_decay(inputs, grad_output, **options):
    _, w = inputs
    dx, dw = conv_backward(inputs, grad_output, **options)
    return dx, dw + 0.01 * w


def transposed(inputs, stride=1, padding=0):
    """The transposed convolution: what the convolution of y with w would give back to y."""
    x, w = inputs  # (N, C, H, W), (C, O, kh, kw)
    size = [stride * (n - 1) + k - 2 * padding for n, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    return conv_backward((np.zeros((len(x), w.shape[1], *size), x.dtype), w), x, stride, padding)[0]


def transposed_backward(inputs, grad_output, stride=1, padding=0):
    x, w = inputs
    return conv((grad_output, w), stride, padding), conv_backward((grad_output, w), x, stride, padding)[1]


def transposed_flipped(inputs, grad_output, stride=1, padding=0):
    _, w = inputs
    dw = transposed_backward(inputs, grad_output, stride, padding)[1]
    return conv((grad_output, w[:, :, ::-1, ::-1]), stride, padding), dw


def transposed_offset(inputs, grad_output, stride=1, padding=0):
    _, w = inputs
    dw = transposed_backward(inputs, grad_output, stride, padding)[1]
    g = _pad(grad_output, padding)
    return conv((np.concatenate([g[:, :, :, 1:], g[:, :, :, :1] * 0], axis=3), w), stride), dw


def unfold(inputs):
    """All 2 x 3 windows as columns."""
    (x,) = inputs  # (N, C, H, W)
    return np.moveaxis(sliding_window_view(x, (2, 3), axis=(2, 3)), (4, 5), (2, 3)).reshape(len(x), 6 * x.shape[1], -1)


def unfold_backward(inputs, grad_output, columns=3):
    (x,) = inputs
    dx, size = np.zeros_like(x), (x.shape[2] - 1, x.shape[3] - 2)
    g = grad_output.reshape(*x.shape[:2], 2, 3, *size)
    for i, j in np.ndindex(2, columns):
        _window(dx, i, j, size)[...] += g[:, :, i, j]
    return (dx,)


def unfold_overwrites(inputs, grad_output):
    (x,) = inputs
    dx, size = np.zeros_like(x), (x.shape[2] - 1, x.shape[3] - 2)
    g = grad_output.reshape(*x.shape[:2], 2, 3, *size)
    for i, j in np.ndindex(2, 3):
        _window(dx, i, j, size)[...] = g[:, :, i, j]
    return (dx,)


def unfold_short(inputs, grad_output):
    return unfold_backward(inputs, grad_output, columns=2)


def reflect(inputs):
    """Two rows and one column reflected on every side."""
    (x,) = inputs  # (N, C, H, W)
    return np.pad(x, ((0, 0), (0, 0), (2, 2), (1, 1)), mode="reflect")


def _reflected(x):
    rows, cols = (np.pad(np.arange(n), p, mode="reflect") for n, p in zip(x.shape[2:], (2, 1), strict=True))
    return slice(None), slice(None), rows[:, None], cols


def reflect_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    np.add.at(dx, _reflected(x), grad_output)
    return (dx,)


def reflect_plus_equal(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[_reflected(x)] += grad_output
    return (dx,)


def max_pool(inputs):
    """Windows of 2 x 3, two apart."""
    (x,) = inputs  # (N, C, H, W)
    return sliding_window_view(x, (2, 3), axis=(2, 3))[:, :, ::2, ::2].max(axis=(4, 5))


def max_pool_backward(inputs, grad_output, last=0):
    (x,) = inputs
    dx, (n, c, h, w) = np.zeros_like(x), grad_output.shape
    for m, k, i, j in np.ndindex(n, c, h - last, w):
        a, b = divmod(x[m, k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 3].argmax(), 3)
        dx[m, k, 2 * i + a, 2 * j + b] += grad_output[m, k, i, j]
    return (dx,)


def max_pool_last_row(inputs, grad_output):
    return max_pool_backward(inputs, grad_output, last=1)


def max_unpool(inputs):
    """Every value put where it was the maximum, in a map twice as large."""
    x, index = inputs  # (N, C, H, W), the same
    y = np.zeros((*x.shape[:2], 4 * x[0, 0].size), x.dtype)
    np.put_along_axis(y, index.reshape(*x.shape[:2], -1), x.reshape(*x.shape[:2], -1), axis=2)
    return y.reshape(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])


def max_unpool_backward(inputs, grad_output):
    x, index = inputs
    flat = grad_output.reshape(*x.shape[:2], -1)
    return np.take_along_axis(flat, index.reshape(*x.shape[:2], -1), axis=2).reshape(x.shape), None


def max_unpool_columns_first(inputs, grad_output):
    return max_unpool_backward(inputs, grad_output.swapaxes(2, 3))


def _unpool_inputs(rng):
    return rng.normal(size=(1, 2, 2, 3)), np.array([[[[1, 9, 4], [12, 20, 17]], [[6, 2, 11], [19, 14, 23]]]])


def adaptive_max(inputs):
    """The maxima of two overlapping bins of five columns, for every row."""
    (x,) = inputs  # (N, H, 5)
    return np.stack([x[:, :, :3].max(axis=2), x[:, :, 2:].max(axis=2)], axis=2)


def adaptive_max_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for b, cols in enumerate((slice(0, 3), slice(2, 5))):
        dx[:, :, cols] += grad_output[:, :, b : b + 1] * (x[:, :, cols] == x[:, :, cols].max(axis=2, keepdims=True))
    return (dx,)


def adaptive_max_all(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    for b, cols in enumerate((slice(0, 3), slice(2, 5))):
        dx[:, :, cols] += grad_output[:, :, b : b + 1]
    return (dx,)


def power_pool(inputs):
    """(Σ |x|³) to the power 1/3 over 2 x 2 windows."""
    (x,) = inputs  # (N, C, H, W)
    size = (x.shape[2] - 1, x.shape[3] - 1)
    return np.cbrt(sum(np.abs(_window(x, i, j, size)) ** 3 for i, j in np.ndindex(2, 2)))


def power_pool_backward(inputs, grad_output, rows=2):
    (x,) = inputs
    y, dx = power_pool(inputs), np.zeros_like(x)
    for i, j in np.ndindex(rows, 2):
        v = _window(x, i, j, y.shape[2:])
        _window(dx, i, j, y.shape[2:])[...] += grad_output * v * np.abs(v) / y**2
    return (dx,)


def power_pool_short(inputs, grad_output):
    return power_pool_backward(inputs, grad_output, rows=1)


def power_pool_by_count(inputs, grad_output):
    (x,) = inputs
    count = np.zeros_like(x)
    for i, j in np.ndindex(2, 2):
        _window(count, i, j, grad_output.shape[2:])[...] += 1
    return (power_pool_backward(inputs, grad_output)[0] / count,)


def _between(n, m, align_corners, dtype):
    """The m x n matrix that interpolates n values at m places, and its two weights."""
    t = np.arange(m) * (n - 1) / (m - 1) if align_corners else ((np.arange(m) + 0.5) * n / m - 0.5).clip(0, n - 1)
    low = np.minimum(t.astype(int), n - 2)
    a = np.zeros((m, n), dtype)
    a[np.arange(m), low], a[np.arange(m), low + 1] = 1 - t + low, t - low
    return a, low


def resize(inputs, size=(4, 3), align_corners=False):
    (x,) = inputs  # (N, H, W)
    a, b = (_between(n, m, align_corners, x.dtype)[0] for n, m in zip(x.shape[1:], size, strict=True))
    return a @ x @ b.T


def resize_backward(inputs, grad_output, size=(4, 3), align_corners=False):
    (x,) = inputs
    a, b = (_between(n, m, align_corners, x.dtype)[0] for n, m in zip(x.shape[1:], size, strict=True))
    return (a.T @ grad_output @ b,)


def resize_corners(inputs, grad_output, size=(4, 3), align_corners=False):
    return resize_backward(inputs, grad_output, size, not align_corners)


def resize_last_row(inputs, grad_output, size=(4, 3), align_corners=False):
    g = grad_output.copy()
    g[:, -1] = 0  # for i in range(size[0] - 1)
    return resize_backward(inputs, g, size, align_corners)


def resize_weights(inputs, grad_output, size=(4, 3), align_corners=False):
    (x,) = inputs
    (a, low), (b, _) = (_between(n, m, align_corners, x.dtype) for n, m in zip(x.shape[1:], size, strict=True))
    rows = np.arange(len(a))
    a[rows, low], a[rows, low + 1] = a[rows, low + 1], a[rows, low]
    return (a.T @ grad_output @ b,)


def blur(inputs):
    (x,) = inputs  # (N, H, W)
    return 0.25 * x[:, :, :-2] + 0.5 * x[:, :, 1:-1] + 0.25 * x[:, :, 2:]


def blur_backward(inputs, grad_output, kernel=(0.25, 0.5, 0.25)):
    (x,) = inputs
    dx = np.zeros_like(x)
    for j, v in enumerate(kernel):
        dx[:, :, j : j + grad_output.shape[2]] += v * grad_output
    return (dx,)


def blur_box(inputs, grad_output):
    return blur_backward(inputs, grad_output, kernel=(1 / 3, 1 / 3, 1 / 3))


def shuffle(inputs):
    """Four channels become the 2 x 2 pixels of one."""
    (x,) = inputs  # (N, 4 C, H, W)
    n, c, h, w = x.shape
    return x.reshape(n, c // 4, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def shuffle_backward(inputs, grad_output):
    (x,) = inputs
    n, c, h, w = x.shape
    return (grad_output.reshape(n, c // 4, h, 2, w, 2).transpose(0, 1, 3, 5, 2, 4).reshape(x.shape).copy(),)


def shuffle_by_reshape(inputs, grad_output):
    (x,) = inputs
    return (grad_output.reshape(x.shape).copy(),)


def map_attention(inputs):
    """x plus x times a weight between 0 and 1 for every pixel, which its channels decide."""
    x, w = inputs  # (N, C, H, W), (C,)
    return x + x * _sigmoid(np.einsum("nchw,c->nhw", x, w))[:, None]


def map_attention_backward(inputs, grad_output):
    x, w = inputs
    m = _sigmoid(np.einsum("nchw,c->nhw", x, w))
    d = (grad_output * x).sum(axis=1) * m * (1 - m)
    return grad_output * (1 + m[:, None]) + d[:, None] * w[:, None, None], np.einsum("nhw,nchw->c", d, x)


def map_attention_branch_only(inputs, grad_output):
    dx, dw = map_attention_backward(inputs, grad_output)
    return dx - grad_output, dw


def map_attention_slope(inputs, grad_output):
    x, _ = inputs
    dw = np.einsum("nhw,nchw->c", (grad_output * x).sum(axis=1), x)
    return map_attention_backward(inputs, grad_output)[0], dw


def map_attention_no_weight(inputs, grad_output):
    _, w = inputs
    return map_attention_backward(inputs, grad_output)[0], np.zeros_like(w)


_M, _U = (map_attention, map_attention_backward), _normal((2, 4, 3, 5))
_C, _T, _R = (conv, conv_backward), (transposed, transposed_backward), (resize, resize_backward)
_CONV, _GROUPED = _normal((2, 2, 5, 6), (3, 2, 3, 2)), _normal((3, 4, 4, 5), (6, 2, 3, 2))
_DEPTHWISE, _MAPS = _normal((2, 3, 5, 4), (3, 1, 3, 3)), _normal((3, 2, 4, 5), (2,))

CASES: list[Planted] = [
    Planted("grouped convolution: = for += over samples", *_C, conv_one_sample, _GROUPED,
            {"w": ("not_accumulated_over_axis",)}, {"groups": 2}),
    Planted("convolution: one sample and short of a row", *_C, conv_one_sample_short, _CONV,
            {"w": ("not_accumulated_over_axis", "window_offset_skipped")}, twice=True),
    Planted("dilated convolution: one column of the kernel short", *_C, conv_short, _CONV,
            {"w": ("window_offset_skipped",)}, {"dilation": 2}),
    Planted("depthwise convolution: kernel flipped", *_C, conv_flipped, _DEPTHWISE, {"x": ("kernel_flipped",)},
            {"groups": 3}),
    Planted("strided convolution: kernel flipped, averaged", *_C, conv_flipped_and_averaged, _CONV,
            {"x": ("kernel_flipped", "constant_factor")}, {"stride": 2}, twice=True),
    Planted("depthwise convolution: axes of the kernel", *_C, conv_kernel_axes, _DEPTHWISE, {"w": ("axis_swapped",)},
            {"groups": 3}),
    Planted("strided convolution: last row of windows", *_C, conv_last_row_of_windows, _CONV, {"x": ("border_missing",)},
            {"stride": 2}),
    Planted("padded convolution: crop", *_C, conv_crop, _CONV, {"x": ("spatial_shift",)}, {"padding": 1}),
    Planted("pointwise convolution: untransposed", *_C, conv_untransposed, _normal((2, 3, 4, 2), (3, 3, 1, 1)),
            {"x": ("operand_transposed",)}),
    Planted("padded convolution: weight decay", *_C, conv_with_decay, _CONV, {"w": ("ignores_upstream",)}, {"padding": 1}),
    Planted("transposed convolution: kernel flipped", *_T, transposed_flipped, _normal((2, 3, 2, 3), (3, 2, 3, 2)),
            {"x": ("kernel_flipped",)}, {"stride": 2}),
    Planted("transposed convolution: padding", *_T, transposed_offset, _normal((2, 3, 4, 5), (3, 2, 3, 3)),
            {"x": ("spatial_shift",)}, {"padding": 1}),
    Planted("unfold: windows overwrite", unfold, unfold_backward, unfold_overwrites, _normal((2, 1, 4, 5)),
            {"x": ("overlap_overwritten",)}),
    Planted("unfold: short", unfold, unfold_backward, unfold_short, _U, {"x": ("window_offset_skipped",)}),
    Planted("reflect: += with repeated indices", reflect, reflect_backward, reflect_plus_equal, _normal((1, 2, 4, 3)),
            {"x": ("overlap_overwritten",)}),
    Planted("max pool: last row of windows", max_pool, max_pool_backward, max_pool_last_row, _distinct(2, 2, 4, 5),
            {"x": ("border_missing",)}),
    Planted("max unpool: columns first", max_unpool, max_unpool_backward, max_unpool_columns_first, _unpool_inputs,
            {"x": ("wrong_routing",)}),
    Planted("adaptive max pool: the whole bin", adaptive_max, adaptive_max_backward, adaptive_max_all, _distinct(3, 4, 5),
            {"x": ("several_winners",)}),
    Planted("power pool: one row of offsets", power_pool, power_pool_backward, power_pool_short, _normal((2, 2, 3, 5)),
            {"x": ("window_offset_skipped",)}),
    Planted("power pool: over the overlap", power_pool, power_pool_backward, power_pool_by_count, _normal((2, 1, 4, 5)),
            {"x": ("factor_per_element",)}),
    Planted("resize: corners", *_R, resize_corners, _normal((2, 7, 5)), {"x": ("wrong_variant",)}, {"align_corners": True}),
    Planted("resize: last row", *_R, resize_last_row, _normal((2, 4, 3)), {"x": ("border_missing",)}, {"size": (5, 6)}),
    Planted("resize: weights exchanged", *_R, resize_weights, _normal((2, 5, 7)), {"x": ("wrong_weights",)}),
    Planted("blur: box", blur, blur_backward, blur_box, _normal((2, 3, 7)), {"x": ("wrong_weights",)}),
    Planted("pixel shuffle: reshape alone", shuffle, shuffle_backward, shuffle_by_reshape, _U, {"x": ("unexplained",)}),
    Planted("map attention: one path", *_M, map_attention_branch_only, _MAPS, {"x": ("identity_branch_lost",)}),
    Planted("map attention: slope", *_M, map_attention_slope, _MAPS, {"w": ("missing_chain_factor",)}),
    Planted("map attention: weight never filled", *_M, map_attention_no_weight, _MAPS, {"w": ("zero_gradient",)}),
]
