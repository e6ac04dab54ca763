"""Planted mistakes in pooling, resizing, padding, cropping and shuffling of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.planted.case import Planted
from minires.checking.planted.draw import normal

__all__ = ["CASES"]


def _add_at(target: Any, where: Any, values: Any) -> None:
    np.add.at(target, where, values)


# Max pooling ----------------------------------------------------------------------------------------------------------


def maxpool2d(inputs: Any, size: tuple[int, int] = (2, 2)) -> Any:
    """The largest entry of each of the windows that tile (N, C, H, W)."""
    (x,) = inputs
    n, c, height, width = x.shape
    kh, kw = size
    return x.reshape(n, c, height // kh, kh, width // kw, kw).max(axis=(3, 5))


def maxpool2d_backward(inputs: Any, grad_output: Any, size: tuple[int, int] = (2, 2)) -> Any:
    """Gradient of maxpool2d: the winner takes all."""
    (x,) = inputs
    kh, kw = size
    dx = np.zeros_like(x)
    for n, c, row, column in np.ndindex(grad_output.shape):
        window = x[n, c, row * kh : (row + 1) * kh, column * kw : (column + 1) * kw]
        i, j = divmod(int(window.argmax()), kw)
        dx[n, c, row * kh + i, column * kw + j] = grad_output[n, c, row, column]
    return (dx,)


def _maxpool2d_all_win(inputs: Any, grad_output: Any, size: tuple[int, int] = (2, 2)) -> Any:
    del inputs
    return (grad_output.repeat(size[0], axis=2).repeat(size[1], axis=3),)


def _maxpool2d_column_major(inputs: Any, grad_output: Any, size: tuple[int, int] = (2, 2)) -> Any:
    (x,) = inputs
    kh, kw = size
    dx = np.zeros_like(x)
    for n, c, row, column in np.ndindex(grad_output.shape):
        window = x[n, c, row * kh : (row + 1) * kh, column * kw : (column + 1) * kw]
        j, i = divmod(int(window.argmax()), kh)
        dx[n, c, row * kh + i, column * kw + j] = grad_output[n, c, row, column]
    return (dx,)


def maxpool1d(inputs: Any, size: int = 3, stride: int = 2) -> Any:
    """The largest entry of overlapping windows of (N, C, L)."""
    (x,) = inputs
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=2)[:, :, ::stride].max(axis=3)


def maxpool1d_backward(inputs: Any, grad_output: Any, size: int = 3, stride: int = 2) -> Any:
    """Gradient of maxpool1d: one entry may win several windows."""
    (x,) = inputs
    dx = np.zeros_like(x)
    for n, c, window in np.ndindex(grad_output.shape):
        start = window * stride
        dx[n, c, start + x[n, c, start : start + size].argmax()] += grad_output[n, c, window]
    return (dx,)


def _maxpool1d_from_the_start(inputs: Any, grad_output: Any, size: int = 3, stride: int = 2) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    for n, c, window in np.ndindex(grad_output.shape):
        start = window * stride
        dx[n, c, x[n, c, start : start + size].argmax()] += grad_output[n, c, window]
    return (dx,)


def global_max_pool(inputs: Any) -> Any:
    """The largest entry of each channel of (N, C, H, W)."""
    (x,) = inputs
    return x.max(axis=(2, 3))


def global_max_pool_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of global_max_pool."""
    (x,) = inputs
    return (grad_output[:, :, None, None] * (x == x.max(axis=(2, 3), keepdims=True)),)


def _global_max_pool_per_row(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (grad_output[:, :, None, None] * (x == x.max(axis=3, keepdims=True)),)


# Average pooling ------------------------------------------------------------------------------------------------------


def avgpool1d(inputs: Any, size: int = 3, stride: int = 2) -> Any:
    """The mean of overlapping windows of (N, C, L)."""
    (x,) = inputs
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=2)[:, :, ::stride].mean(axis=3)


def avgpool1d_backward(inputs: Any, grad_output: Any, size: int = 3, stride: int = 2) -> Any:
    """Gradient of avgpool1d."""
    (x,) = inputs
    dx = np.zeros_like(x)
    for window in range(grad_output.shape[2]):
        dx[:, :, window * stride : window * stride + size] += grad_output[:, :, window, None] / size
    return (dx,)


def _avgpool1d_last_window_lost(inputs: Any, grad_output: Any, size: int = 3, stride: int = 2) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    for window in range(grad_output.shape[2] - 1):
        dx[:, :, window * stride : window * stride + size] += grad_output[:, :, window, None] / size
    return (dx,)


def _avgpool2d_counts(x: Any, size: int, count_include_pad: bool) -> Any:
    inside = np.pad(np.ones(x.shape[2:], x.dtype), 1, constant_values=int(count_include_pad))
    return np.lib.stride_tricks.sliding_window_view(inside, (size, size))[::size, ::size].sum((2, 3))


def avgpool2d(inputs: Any, size: int = 2, count_include_pad: bool = True) -> Any:
    """The mean of windows that tile (N, C, H, W) with one row and column of zeros around."""
    (x,) = inputs
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    sums = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::size, ::size].sum((4, 5))
    return sums / _avgpool2d_counts(x, size, count_include_pad)


def avgpool2d_backward(inputs: Any, grad_output: Any, size: int = 2, count_include_pad: bool = True) -> Any:
    """Gradient of avgpool2d."""
    (x,) = inputs
    spread = grad_output / _avgpool2d_counts(x, size, count_include_pad)
    dpadded = np.zeros((*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2), x.dtype)
    for i in range(size):
        for j in range(size):
            dpadded[:, :, i : i + size * spread.shape[2] : size, j : j + size * spread.shape[3] : size] += spread
    return (dpadded[:, :, 1:-1, 1:-1].copy(),)


def _avgpool2d_counts_the_padding(inputs: Any, grad_output: Any, size: int = 2, count_include_pad: bool = True) -> Any:
    del count_include_pad
    return avgpool2d_backward(inputs, grad_output, size)


def adaptive_avg_pool1d(inputs: Any, bins: int = 3) -> Any:
    """The means of ``bins`` parts of (N, L) whose lengths differ by one at most."""
    (x,) = inputs
    return np.stack([part.mean(axis=1) for part in np.array_split(x, bins, axis=1)], axis=1)


def adaptive_avg_pool1d_backward(inputs: Any, grad_output: Any, bins: int = 3) -> Any:
    """Gradient of adaptive_avg_pool1d."""
    (x,) = inputs
    lengths = [part.shape[1] for part in np.array_split(x, bins, axis=1)]
    return ((grad_output / np.array(lengths, x.dtype)).repeat(lengths, axis=1),)


def _adaptive_avg_pool1d_mean_length(inputs: Any, grad_output: Any, bins: int = 3) -> Any:
    (x,) = inputs
    lengths = [part.shape[1] for part in np.array_split(x, bins, axis=1)]
    return ((grad_output * (bins / x.shape[1])).repeat(lengths, axis=1),)


# Resizing -------------------------------------------------------------------------------------------------------------


def upsample_nearest(inputs: Any, scale: int = 2) -> Any:
    """Every pixel of (N, C, H, W) becomes a square of ``scale`` by ``scale``."""
    (x,) = inputs
    return x.repeat(scale, axis=2).repeat(scale, axis=3)


def upsample_nearest_backward(inputs: Any, grad_output: Any, scale: int = 2) -> Any:
    """Gradient of upsample_nearest: the sum over each square."""
    (x,) = inputs
    n, c, height, width = x.shape
    return (grad_output.reshape(n, c, height, scale, width, scale).sum((3, 5)),)


def _upsample_nearest_first_skipped(inputs: Any, grad_output: Any, scale: int = 2) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    for offset in range(1, scale * scale):
        i, j = divmod(offset, scale)
        dx += grad_output[:, :, i::scale, j::scale]
    return (dx,)


def _interpolation(length: int, new: int, align_corners: bool, dtype: Any) -> Any:
    places = np.arange(new) * (length - 1) / (new - 1) if align_corners else (np.arange(new) + 0.5) * length / new - 0.5
    places = places.clip(0, length - 1)
    lower = np.minimum(places.astype(int), length - 2)
    weights = np.zeros((new, length), dtype)
    weights[np.arange(new), lower] = 1 - (places - lower)
    weights[np.arange(new), lower + 1] = places - lower
    return weights


def upsample_bilinear(inputs: Any, scale: int = 2, align_corners: bool = False) -> Any:
    """Bilinear interpolation of (N, C, H, W) to ``scale`` times the height and width."""
    (x,) = inputs
    rows, columns = (_interpolation(length, scale * length, align_corners, x.dtype) for length in x.shape[2:])
    return rows @ x @ columns.T


def upsample_bilinear_backward(inputs: Any, grad_output: Any, scale: int = 2, align_corners: bool = False) -> Any:
    """Gradient of upsample_bilinear."""
    (x,) = inputs
    rows, columns = (_interpolation(length, scale * length, align_corners, x.dtype) for length in x.shape[2:])
    return (rows.T @ grad_output @ columns,)


def _upsample_bilinear_default_corners(inputs: Any, grad_output: Any, scale: int = 2, align_corners: bool = False) -> Any:
    del align_corners
    return upsample_bilinear_backward(inputs, grad_output, scale)


def _neighbours(length: int, new: int, dtype: Any) -> Any:
    places = (np.arange(new) + 0.5) * (length - 1) / new
    lower = places.astype(int)
    return lower, (places - lower).astype(dtype)


def resize_linear(inputs: Any, size: int = 8) -> Any:
    """Linear interpolation of (N, L) at ``size`` places between its entries."""
    (x,) = inputs
    lower, part = _neighbours(x.shape[1], size, x.dtype)
    return (1 - part) * x[:, lower] + part * x[:, lower + 1]


def resize_linear_backward(inputs: Any, grad_output: Any, size: int = 8) -> Any:
    """Gradient of resize_linear."""
    (x,) = inputs
    lower, part = _neighbours(x.shape[1], size, x.dtype)
    dx = np.zeros_like(x)
    _add_at(dx, (slice(None), lower), (1 - part) * grad_output)
    _add_at(dx, (slice(None), lower + 1), part * grad_output)
    return (dx,)


def _resize_linear_weights_exchanged(inputs: Any, grad_output: Any, size: int = 8) -> Any:
    (x,) = inputs
    lower, part = _neighbours(x.shape[1], size, x.dtype)
    dx = np.zeros_like(x)
    _add_at(dx, (slice(None), lower), part * grad_output)
    _add_at(dx, (slice(None), lower + 1), (1 - part) * grad_output)
    return (dx,)


_PLACES = np.array([[0.3, 1.6], [2.85, 0.4], [1.2, 2.1], [3.55, 1.15], [2.4, 2.7], [0.9, 0.25]])  # rows, columns


def _corners(dtype: Any, exchanged: bool = False) -> Any:
    i, j = _PLACES.astype(int).T
    fy, fx = (_PLACES % 1).T.astype(dtype)
    upper_right, lower_left = (1 - fy) * fx, fy * (1 - fx)
    if exchanged:
        upper_right, lower_left = lower_left, upper_right
    return [(i, j, (1 - fy) * (1 - fx)), (i, j + 1, upper_right), (i + 1, j, lower_left), (i + 1, j + 1, fy * fx)]


def sample_bilinear(inputs: Any) -> Any:
    """The values of the images (N, H, W) at six places between the pixels."""
    (x,) = inputs
    return sum(weight * x[:, i, j] for i, j, weight in _corners(x.dtype))


def sample_bilinear_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of sample_bilinear."""
    (x,) = inputs
    dx = np.zeros_like(x)
    for i, j, weight in _corners(x.dtype):
        _add_at(dx, (slice(None), i, j), weight * grad_output)
    return (dx,)


def _sample_bilinear_corners_exchanged(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    for i, j, weight in _corners(x.dtype, exchanged=True):
        _add_at(dx, (slice(None), i, j), weight * grad_output)
    return (dx,)


def blur(inputs: Any) -> Any:
    """Smoothing of (N, L) with the weights 1/4, 1/2, 1/4."""
    (x,) = inputs
    return 0.25 * x[:, :-2] + 0.5 * x[:, 1:-1] + 0.25 * x[:, 2:]


def _blur_spread(x: Any, grad_output: Any, weights: tuple[float, float, float]) -> Any:
    dx = np.zeros_like(x)
    for i, weight in enumerate(weights):
        dx[:, i : i + grad_output.shape[1]] += weight * grad_output
    return (dx,)


def blur_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of blur."""
    return _blur_spread(inputs[0], grad_output, (0.25, 0.5, 0.25))


def _blur_box(inputs: Any, grad_output: Any) -> Any:
    return _blur_spread(inputs[0], grad_output, (1 / 3, 1 / 3, 1 / 3))


# Padding, cropping, shuffling -----------------------------------------------------------------------------------------


def pad2d(inputs: Any, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> Any:
    """Zeros around (N, C, H, W)."""
    (x,) = inputs
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def pad2d_backward(inputs: Any, grad_output: Any, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> Any:
    """Gradient of pad2d: a crop."""
    (x,) = inputs
    del bottom, right
    return (grad_output[:, :, top : top + x.shape[2], left : left + x.shape[3]].copy(),)


def _pad2d_sides_exchanged(inputs: Any, grad_output: Any, top: int, bottom: int, left: int, right: int) -> Any:
    return pad2d_backward(inputs, grad_output, top=bottom, bottom=top, left=right, right=left)


def crop2d(inputs: Any, top: int = 1, left: int = 2) -> Any:
    """Two rows and three columns of (N, H, W)."""
    (x,) = inputs
    return x[:, top : top + 2, left : left + 3].copy()


def crop2d_backward(inputs: Any, grad_output: Any, top: int = 1, left: int = 2) -> Any:
    """Gradient of crop2d: zeros around."""
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, top : top + 2, left : left + 3] = grad_output
    return (dx,)


def _crop2d_next_pixel_negative(inputs: Any, grad_output: Any, top: int = 1, left: int = 2) -> Any:
    return crop2d_backward(inputs, -grad_output, top + 1, left + 1)


def pixel_shuffle(inputs: Any, r: int = 2) -> Any:
    """From (N, C r r, H, W) to (N, C, H r, W r)."""
    (x,) = inputs
    n, c, height, width = x.shape
    split = x.reshape(n, c // r**2, r, r, height, width)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, height * r, width * r)


def pixel_shuffle_backward(inputs: Any, grad_output: Any, r: int = 2) -> Any:
    """Gradient of pixel_shuffle: the same way back."""
    (x,) = inputs
    n, c, height, width = x.shape
    split = grad_output.reshape(n, c // r**2, height, r, width, r)
    return (split.transpose(0, 1, 3, 5, 2, 4).reshape(x.shape).copy(),)


def _pixel_shuffle_columns_first(inputs: Any, grad_output: Any, r: int = 2) -> Any:
    (x,) = inputs
    n, c, height, width = x.shape
    split = grad_output.reshape(n, c // r**2, height, r, width, r)
    return (split.transpose(0, 1, 3, 5, 4, 2).reshape(x.shape).copy(),)


CASES: list[Planted] = [
    Planted("maxpool2d: the whole window gets the gradient", maxpool2d, maxpool2d_backward, _maxpool2d_all_win,
            normal((1, 3, 6, 4)), {"x": ("several_winners",)}),
    Planted("maxpool2d: the winner's place is read column by column", maxpool2d, maxpool2d_backward,
            _maxpool2d_column_major, normal((3, 2, 4, 6)), {"x": ("wrong_routing",)}, {"size": (2, 3)}),
    Planted("maxpool1d: the winner is counted from the signal's start", maxpool1d, maxpool1d_backward,
            _maxpool1d_from_the_start, normal((2, 3, 9)), {"x": ("wrong_routing",)}),
    Planted("global_max_pool: every row has a winner", global_max_pool, global_max_pool_backward,
            _global_max_pool_per_row, normal((2, 3, 4, 5)), {"x": ("several_winners",)}),
    Planted("avgpool1d: the last window is not visited", avgpool1d, avgpool1d_backward, _avgpool1d_last_window_lost,
            normal((2, 3, 11)), {"x": ("border_missing",)}),
    Planted("avgpool2d: the padding is counted", avgpool2d, avgpool2d_backward, _avgpool2d_counts_the_padding,
            normal((2, 3, 4, 6)), {"x": ("wrong_variant",)}, {"count_include_pad": False}),
    Planted("adaptive_avg_pool1d: all bins divided by the mean length", adaptive_avg_pool1d,
            adaptive_avg_pool1d_backward, _adaptive_avg_pool1d_mean_length, normal((3, 10)),
            {"x": ("factor_per_element",)}, {"bins": 4}),
    Planted("upsample_nearest: the first of the copies is left out", upsample_nearest, upsample_nearest_backward,
            _upsample_nearest_first_skipped, normal((1, 2, 3, 4)), {"x": ("window_offset_skipped",)}),
    Planted("upsample_bilinear: align_corners is forgotten", upsample_bilinear, upsample_bilinear_backward,
            _upsample_bilinear_default_corners, normal((1, 2, 3, 4)), {"x": ("wrong_variant",)},
            {"align_corners": True}),
    Planted("resize_linear: the weights of the neighbours exchanged", resize_linear, resize_linear_backward,
            _resize_linear_weights_exchanged, normal((3, 6)), {"x": ("wrong_weights",)}),
    Planted("sample_bilinear: the weights of two corners exchanged", sample_bilinear, sample_bilinear_backward,
            _sample_bilinear_corners_exchanged, normal((2, 5, 4)), {"x": ("wrong_weights",)}),
    Planted("blur: equal weights", blur, blur_backward, _blur_box, normal((3, 8)), {"x": ("wrong_weights",)}),
    Planted("pad2d: top with bottom and left with right exchanged", pad2d, pad2d_backward, _pad2d_sides_exchanged,
            normal((2, 3, 4, 5)), {"x": ("spatial_shift",)}, {"top": 2, "bottom": 1, "left": 0, "right": 1}),
    Planted("crop2d: put back at the next pixel, with the wrong sign", crop2d, crop2d_backward,
            _crop2d_next_pixel_negative, normal((2, 5, 7)), {"x": ("spatial_shift", "sign_flipped")}, twice=True),
    Planted("pixel_shuffle: rows and columns exchanged", pixel_shuffle, pixel_shuffle_backward,
            _pixel_shuffle_columns_first, normal((1, 8, 3, 3)), {"x": ("axis_swapped",)}),
]
