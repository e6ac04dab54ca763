"""Moving entries around: permuting, flipping, cutting, joining, gathering, sorting, running sums, framing."""


# ruff: noqa: RUF059  (the packed style names every input)
from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def _normal(*shapes):
    return lambda rng: tuple(rng.standard_normal(s) for s in shapes)


def permute(inputs):
    """Moves the first axis to the end."""
    (x,) = inputs
    return np.transpose(x, (1, 2, 0))


def permute_backward(inputs, grad_output):
    (x,) = inputs
    return (np.transpose(grad_output, (2, 0, 1)).copy(),)


def permute_wrong_again(inputs, grad_output):
    (x,) = inputs
    return (np.transpose(grad_output, (1, 2, 0)).copy(),)


def mirror(inputs):
    """Left and right exchanged."""
    (x,) = inputs
    return x[:, :, ::-1]


def mirror_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output[:, :, ::-1].copy(),)


def mirror_wrong_plain(inputs, grad_output):
    (x,) = inputs
    return (grad_output.copy(),)


def running_sum(inputs):
    """Cumulated sums of each row."""
    (x,) = inputs
    return np.cumsum(x, axis=1)


def running_sum_backward(inputs, grad_output):
    (x,) = inputs
    return (np.cumsum(grad_output[:, ::-1], axis=1)[:, ::-1].copy(),)


def running_sum_wrong_end(inputs, grad_output):
    (x,) = inputs
    return (np.cumsum(grad_output[:, ::-1], axis=1),)


def take_columns(inputs):
    """Columns by index, some more than once."""
    x, columns = inputs
    return np.take(x, columns, axis=1)


def take_columns_backward(inputs, grad_output):
    x, columns = inputs
    dx = np.zeros_like(x)
    for m, c in enumerate(columns):
        dx[:, c] += grad_output[:, m]
    return dx, None


def take_columns_wrong_repeats(inputs, grad_output):
    x, columns = inputs
    dx = np.zeros_like(x)
    dx[:, columns] += grad_output
    return dx, None


def frames(inputs, length=4, hop=3):
    """Overlapping pieces of signals: (N, T) to (N, F, length)."""
    (x,) = inputs
    starts = range(0, x.shape[1] - length + 1, hop)
    return np.stack([x[:, s : s + length] for s in starts], axis=1)


def frames_backward(inputs, grad_output, length=4, hop=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    for f in range(grad_output.shape[1]):
        dx[:, f * hop : f * hop + length] += grad_output[:, f]
    return (dx,)


def frames_wrong_assign(inputs, grad_output, length=4, hop=3):
    (x,) = inputs
    dx = np.zeros_like(x)
    for f in range(grad_output.shape[1]):
        dx[:, f * hop : f * hop + length] = grad_output[:, f]
    return (dx,)


def unfold2d(inputs):
    """Patches of 2 by 3 pixels as columns: (C, H, W) to (C, 6, oh * ow)."""
    (x,) = inputs
    oh, ow = x.shape[1] - 1, x.shape[2] - 2
    parts = [x[:, o // 3 : o // 3 + oh, o % 3 : o % 3 + ow].reshape(x.shape[0], -1) for o in range(6)]
    return np.stack(parts, axis=1)


def _fold2d(x, grad_output, offsets):
    dx = np.zeros_like(x)
    oh, ow = x.shape[1] - 1, x.shape[2] - 2
    for o in offsets:
        dx[:, o // 3 : o // 3 + oh, o % 3 : o % 3 + ow] += grad_output[:, o].reshape(-1, oh, ow)
    return dx


def unfold2d_backward(inputs, grad_output):
    (x,) = inputs
    return (_fold2d(x, grad_output, range(6)),)


def unfold2d_wrong_first(inputs, grad_output):
    (x,) = inputs
    return (_fold2d(x, grad_output, range(1, 6)),)


def unfold2d_wrong_mean(inputs, grad_output):
    (x,) = inputs
    times = _fold2d(x, np.ones_like(grad_output), range(6))
    return (_fold2d(x, grad_output, range(6)) / times,)


def pad2d(inputs, value=0.5):
    """A frame of constant pixels: one row above, two below, two columns left, one right."""
    (x,) = inputs
    return np.pad(x, ((0, 0), (1, 2), (2, 1)), constant_values=value)


def pad2d_backward(inputs, grad_output, value=0.5):
    (x,) = inputs
    return (grad_output[:, 1:-2, 2:-1].copy(),)


def pad2d_wrong_type(inputs, grad_output, value=0.5):
    (x,) = inputs
    dx = np.zeros(x.shape, "float32")
    dx[...] = grad_output[:, 1:-2, 2:-1]
    return (dx,)


def join(inputs):
    """Two signals one after the other along time."""
    a, b = inputs
    return np.concatenate([a, b], axis=2)


def join_backward(inputs, grad_output):
    a, b = inputs
    cut = a.shape[2]
    return grad_output[:, :, :cut].copy(), grad_output[:, :, cut:].copy()


def join_wrong_cut(inputs, grad_output):
    a, b = inputs
    cut = a.shape[2]
    return grad_output[:, :, :cut].copy(), grad_output[:, :, cut - 1 : -1].copy()


def stack_pair(inputs):
    """Two arrays of one shape along a new axis."""
    a, b = inputs
    return np.stack([a, b], axis=1)


def stack_pair_backward(inputs, grad_output):
    return grad_output[:, 0].copy(), grad_output[:, 1].copy()


def stack_pair_wrong_order(inputs, grad_output):
    return grad_output[:, 1].copy(), grad_output[:, 0].copy()


def tile_rows(inputs):
    """Three copies of the rows below each other."""
    (x,) = inputs
    return np.tile(x, (3, 1))


def tile_rows_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output.reshape(3, *x.shape).sum(axis=0),)


def tile_rows_wrong_mean(inputs, grad_output):
    (x,) = inputs
    return (grad_output.reshape(3, *x.shape).mean(axis=0),)


def sort_rows(inputs):
    """Each row in rising order."""
    (x,) = inputs
    return np.sort(x, axis=1)


def sort_rows_backward(inputs, grad_output):
    (x,) = inputs
    dx = np.zeros_like(x)
    np.put_along_axis(dx, np.argsort(x, axis=1), grad_output, axis=1)
    return (dx,)


def sort_rows_wrong_gather(inputs, grad_output):
    (x,) = inputs
    return (np.take_along_axis(grad_output, np.argsort(x, axis=1), axis=1),)


def full_convolution(inputs):
    """Signals convolved with one filter, all overlaps kept: x (N, T), w (k,)."""
    x, w = inputs
    return np.stack([np.convolve(row, w) for row in x])


def full_convolution_backward(inputs, grad_output):
    x, w = inputs
    dx = np.stack([np.correlate(g, w, "valid") for g in grad_output])
    dw = sum(np.correlate(g, row, "valid") for g, row in zip(grad_output, x, strict=True))
    return dx, dw


def full_convolution_wrong_filter(inputs, grad_output):
    x, w = inputs
    dx = np.stack([np.convolve(g, w, "valid") for g in grad_output])
    dw = sum(np.correlate(g, row, "valid") for g, row in zip(grad_output, x, strict=True))
    return dx, dw


_COLUMNS = np.array([3, 0, 3, 5, 0, 3, 1])


CASES = [
    Planted(
        "permute: the same permutation once more",
        permute, permute_backward, permute_wrong_again, _normal((3, 3, 3)), {"x": ("axis_swapped",)},
    ),
    Planted(
        "mirror: the gradient is not mirrored",
        mirror, mirror_backward, mirror_wrong_plain, _normal((2, 3, 5)), {"x": ("axis_reversed",)},
    ),
    Planted(
        "running sum: not turned back at the end",
        running_sum, running_sum_backward, running_sum_wrong_end, _normal((3, 6)), {"x": ("axis_reversed",)},
    ),
    Planted(
        "take columns: repeated columns are added once",
        take_columns, take_columns_backward, take_columns_wrong_repeats,
        lambda rng: (rng.standard_normal((4, 6)), _COLUMNS.copy()), {"x": ("overlap_overwritten",)},
    ),
    Planted(
        "frames: the next frame replaces the last one where they meet",
        frames, frames_backward, frames_wrong_assign, _normal((3, 10)), {"x": ("overlap_overwritten",)},
        {"length": 4, "hop": 2},
    ),
    Planted(
        "unfold2d: the loop starts at one",
        unfold2d, unfold2d_backward, unfold2d_wrong_first, _normal((2, 4, 5)), {"x": ("window_offset_skipped",)},
    ),
    Planted(
        "unfold2d: averages where patches overlap",
        unfold2d, unfold2d_backward, unfold2d_wrong_mean, _normal((3, 4, 5)), {"x": ("factor_per_element",)},
    ),
    Planted(
        "pad2d: the buffer has a fixed type",
        pad2d, pad2d_backward, pad2d_wrong_type, _normal((2, 3, 4)), {"x": ("dtype",)},
    ),
    Planted(
        "join: the second signal is cut one step too early",
        join, join_backward, join_wrong_cut, _normal((2, 3, 4), (2, 3, 5)), {"b": ("spatial_shift",)},
    ),
    Planted(
        "stack pair: gradients in the wrong order",
        stack_pair, stack_pair_backward, stack_pair_wrong_order, _normal((3, 4), (3, 4)),
        {"a": ("gradients_swapped",), "b": ("gradients_swapped",)},
    ),
    Planted(
        "tile rows: averages the copies",
        tile_rows, tile_rows_backward, tile_rows_wrong_mean, _normal((2, 5)), {"x": ("constant_factor",)},
    ),
    Planted(
        "sort rows: gathers where it should scatter",
        sort_rows, sort_rows_backward, sort_rows_wrong_gather, _normal((4, 5)), {"x": ("wrong_routing",)},
    ),
    Planted(
        "full convolution: convolves again instead of correlating",
        full_convolution, full_convolution_backward, full_convolution_wrong_filter, _normal((3, 6), (4,)),
        {"x": ("kernel_flipped",)},
    ),
]
