"""First sealed exam: pooling and max-like operations."""

from __future__ import annotations

import itertools

import numpy as np

from minires.checking.planted.case import Planted


def _apart(rng, shape):
    """Values of which no two are near each other, in random order."""
    n = int(np.prod(shape))
    return ((rng.permutation(n) - n / 2 + rng.uniform(-0.2, 0.2, n)) / 6).reshape(shape)


def max_pool2d(inputs, size=(2, 3), stride=1):
    """Largest value of each window."""
    (x,) = inputs
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.max(axis=(-2, -1))


def _max_pool2d_scatter(x, g, size, stride, columns, assign):
    dx = np.zeros_like(x)
    kh, kw = size
    for n, c, i, j in np.ndindex(*g.shape):
        top, left = i * stride, j * stride
        di, dj = divmod(int(x[n, c, top : top + kh, left : left + kw].argmax()), columns)
        if assign:
            dx[n, c, top + di, left + dj] = g[n, c, i, j]
        else:
            dx[n, c, top + di, left + dj] += g[n, c, i, j]
    return dx


def max_pool2d_backward(inputs, grad_output, size=(2, 3), stride=1):
    (x,) = inputs
    return (_max_pool2d_scatter(x, grad_output, size, stride, size[1], False),)


def max_pool2d_backward_divides_by_rows(inputs, grad_output, size=(2, 3), stride=1):
    (x,) = inputs
    return (_max_pool2d_scatter(x, grad_output, size, stride, size[0], False),)


def max_pool2d_backward_assigns(inputs, grad_output, size=(2, 3), stride=1):
    (x,) = inputs
    return (_max_pool2d_scatter(x, grad_output, size, stride, size[1], True),)


def max_pool2d_inputs(rng):
    return (_apart(rng, (2, 3, 6, 7)),)


def avg_pool2d(inputs, size=2, stride=1, padding=1, count_include_pad=True):
    """Mean of each window; the divisor counts the padding or not."""
    (x,) = inputs
    pads = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    view = np.lib.stride_tricks.sliding_window_view
    total = view(np.pad(x, pads), (size, size), axis=(2, 3))[:, :, ::stride, ::stride].sum((-2, -1))
    if count_include_pad:
        return total / (size * size)
    ones = view(np.pad(np.ones_like(x), pads), (size, size), axis=(2, 3))[:, :, ::stride, ::stride].sum((-2, -1))
    return total / ones


def _avg_pool2d_dx(x, g, size, stride, padding, count_include_pad, rows_left_out=0):
    h, w = x.shape[2:]
    dx = np.zeros_like(x)
    for i in range(g.shape[2] - rows_left_out):
        for j in range(g.shape[3] - rows_left_out):
            top, left = i * stride - padding, j * stride - padding
            r = slice(max(top, 0), min(top + size, h))
            c = slice(max(left, 0), min(left + size, w))
            count = size * size if count_include_pad else (r.stop - r.start) * (c.stop - c.start)
            dx[:, :, r, c] += g[:, :, i : i + 1, j : j + 1] / count
    return dx


def avg_pool2d_backward(inputs, grad_output, size=2, stride=1, padding=1, count_include_pad=True):
    (x,) = inputs
    return (_avg_pool2d_dx(x, grad_output, size, stride, padding, count_include_pad),)


def avg_pool2d_backward_always_counts_padding(inputs, grad_output, size=2, stride=1, padding=1, count_include_pad=True):
    (x,) = inputs
    return (_avg_pool2d_dx(x, grad_output, size, stride, padding, True),)


def avg_pool2d_backward_last_windows_lost(inputs, grad_output, size=2, stride=1, padding=1, count_include_pad=True):
    (x,) = inputs
    return (_avg_pool2d_dx(x, grad_output, size, stride, padding, count_include_pad, 1),)


def avg_pool2d_backward_sums_and_loses_windows(inputs, grad_output, size=2, stride=1, padding=1, count_include_pad=True):
    (x,) = inputs
    return (size * size * _avg_pool2d_dx(x, grad_output, size, stride, padding, count_include_pad, 1),)


def avg_pool2d_inputs(rng):
    return (rng.normal(size=(2, 3, 5, 4)),)


def bin_means(inputs, bins=3):
    """Adaptive average pooling along time with bins of unequal lengths."""
    (x,) = inputs
    edges = [x.shape[-1] * i // bins for i in range(bins + 1)]
    return np.stack([x[:, a:b].mean(-1) for a, b in itertools.pairwise(edges)], axis=-1)


def bin_means_backward(inputs, grad_output, bins=3):
    (x,) = inputs
    edges = [x.shape[-1] * i // bins for i in range(bins + 1)]
    dx = np.empty_like(x)
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        dx[:, a:b] = grad_output[:, i : i + 1] / (b - a)
    return (dx,)


def bin_means_backward_equal_bins(inputs, grad_output, bins=3):
    (x,) = inputs
    edges = [x.shape[-1] * i // bins for i in range(bins + 1)]
    dx = np.empty_like(x)
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        dx[:, a:b] = grad_output[:, i : i + 1] * bins / x.shape[-1]
    return (dx,)


def bin_means_inputs(rng):
    return (rng.normal(size=(4, 8)),)


def maxout(inputs):
    """The larger of two maps, element by element."""
    a, b = inputs
    return np.maximum(a, b)


def maxout_backward(inputs, grad_output):
    a, b = inputs
    return np.where(a > b, grad_output, 0), np.where(a > b, 0, grad_output)


def maxout_backward_loser_too(inputs, grad_output):
    a, b = inputs
    return grad_output.copy(), np.where(a > b, 0, grad_output)


def maxout_inputs(rng):
    values = _apart(rng, (2, 3, 7))
    return values[0], values[1]


def top_k(inputs, k=2):
    """The k largest values of each row, largest first."""
    (x,) = inputs
    return -np.sort(-x, axis=1)[:, :k]


def top_k_backward(inputs, grad_output, k=2):
    (x,) = inputs
    order = np.argsort(-x, axis=1)[:, :k]
    dx = np.zeros_like(x)
    np.put_along_axis(dx, order, grad_output, axis=1)
    return (dx,)


def top_k_backward_smallest_first(inputs, grad_output, k=2):
    (x,) = inputs
    order = np.argsort(x, axis=1)[:, :k]
    dx = np.zeros_like(x)
    np.put_along_axis(dx, order, grad_output, axis=1)
    return (dx,)


def top_k_inputs(rng):
    return (_apart(rng, (3, 6)),)


def peak(inputs, axis=1):
    """The maximum along an axis."""
    (x,) = inputs
    return x.max(axis=axis)


def peak_backward(inputs, grad_output, axis=1):
    (x,) = inputs
    dx = np.zeros_like(x)
    np.put_along_axis(dx, np.expand_dims(x.argmax(axis), axis), np.expand_dims(grad_output, axis), axis)
    return (dx,)


def peak_backward_soft(inputs, grad_output, axis=1):
    (x,) = inputs
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return (np.expand_dims(grad_output, axis) * e / e.sum(axis=axis, keepdims=True),)


def peak_inputs(rng):
    return (_apart(rng, (3, 4, 5)),)


def best_path(inputs):
    """Viterbi: the best total score over all paths through (T, S) emissions with (S, S) transitions."""
    emission, transition = inputs
    score = emission[0]
    for row in emission[1:]:
        score = (score[:, None] + transition).max(0) + row
    return score


def _best_path_grads(emission, transition, g, axis):
    tables, score = [], emission[0]
    for row in emission[1:]:
        total = score[:, None] + transition
        tables.append(total.argmax(axis))
        score = total.max(0) + row
    de, dt = np.zeros_like(emission), np.zeros_like(transition)
    for end, up in enumerate(g):
        state = end
        for t in range(len(emission) - 1, 0, -1):
            de[t, state] += up
            before = tables[t - 1][state]
            dt[before, state] += up
            state = before
        de[0, state] += up
    return de, dt


def best_path_backward(inputs, grad_output):
    emission, transition = inputs
    return _best_path_grads(emission, transition, grad_output, 0)


def best_path_backward_backpointers_of_other_axis(inputs, grad_output):
    emission, transition = inputs
    return _best_path_grads(emission, transition, grad_output, 1)


def best_path_inputs(rng):
    return rng.normal(size=(6, 4)), rng.normal(size=(4, 4)) * 2


CASES = [
    Planted("max_pool2d: the flat argmax is split with the number of rows", max_pool2d, max_pool2d_backward,
            max_pool2d_backward_divides_by_rows, max_pool2d_inputs, {"x": ("wrong_routing",)},
            {"size": (3, 2), "stride": 2}),
    Planted("max_pool2d: a winner of several windows keeps only the last", max_pool2d, max_pool2d_backward,
            max_pool2d_backward_assigns, max_pool2d_inputs, {"x": ("overlap_overwritten",)}, {"size": (3, 3), "stride": 1}),
    Planted("avg_pool2d: count_include_pad is forgotten", avg_pool2d, avg_pool2d_backward,
            avg_pool2d_backward_always_counts_padding, avg_pool2d_inputs, {"x": ("wrong_variant",)},
            {"size": 3, "count_include_pad": False}),
    Planted("avg_pool2d: the last row and column of windows are left out", avg_pool2d, avg_pool2d_backward,
            avg_pool2d_backward_last_windows_lost, avg_pool2d_inputs, {"x": ("border_missing",)}, {"size": 2, "padding": 0}),
    Planted("avg_pool2d: summed instead of averaged, and last windows lost", avg_pool2d, avg_pool2d_backward,
            avg_pool2d_backward_sums_and_loses_windows, avg_pool2d_inputs, {"x": ("border_missing", "constant_factor")},
            {"size": 2, "padding": 0}, twice=True),
    Planted("bin means: all bins are taken to be equally long", bin_means, bin_means_backward,
            bin_means_backward_equal_bins, bin_means_inputs, {"x": ("factor_per_element",)}),
    Planted("maxout: the first map gets the gradient where it loses, too", maxout, maxout_backward,
            maxout_backward_loser_too, maxout_inputs, {"a": ("several_winners",)}),
    Planted("top_k: the order is ascending in the backward", top_k, top_k_backward, top_k_backward_smallest_first,
            top_k_inputs, {"x": ("wrong_routing",)}),
    Planted("peak: a softmax instead of the one winner", peak, peak_backward, peak_backward_soft, peak_inputs,
            {"x": ("several_winners",)}, {"axis": 1}),
    Planted("best path: the backpointers are taken along the other axis", best_path, best_path_backward,
            best_path_backward_backpointers_of_other_axis, best_path_inputs,
            {"emission": ("wrong_routing",), "transition": ("wrong_routing",)}),
]
