"""First sealed exam: indexing, sampling and rearranging."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def sample_line(inputs):
    """Read a table (K, C) at fractional positions (N,), linearly between neighbours."""
    table, position = inputs
    low = np.floor(position).astype(int)
    t = (position - low)[:, None].astype(table.dtype)
    return (1 - t) * table[low] + t * table[low + 1]


def sample_line_backward(inputs, grad_output):
    table, position = inputs
    low = np.floor(position).astype(int)
    t = (position - low)[:, None].astype(table.dtype)
    dtable = np.zeros_like(table)
    np.add.at(dtable, low, (1 - t) * grad_output)
    np.add.at(dtable, low + 1, t * grad_output)
    return dtable, (grad_output * (table[low + 1] - table[low])).sum(1)


def sample_line_backward_weights_mixed_up(inputs, grad_output):
    table, position = inputs
    low = np.floor(position).astype(int)
    t = (position - low)[:, None].astype(table.dtype)
    dtable = np.zeros_like(table)
    np.add.at(dtable, low, t * grad_output)
    np.add.at(dtable, low + 1, (1 - t) * grad_output)
    return dtable, (grad_output * (table[low + 1] - table[low])).sum(1)


def sample_line_inputs(rng):
    return rng.normal(size=(6, 2)), rng.integers(0, 5, 7) + rng.uniform(0.05, 0.35, 7)


def _corners(image, places):
    y, x = places[:, 0], places[:, 1]
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    return i, j, (y - i).astype(image.dtype), (x - j).astype(image.dtype)


def sample_image(inputs):
    """Bilinear look-up of an image (C, H, W) at places (P, 2) given in pixels."""
    image, places = inputs
    i, j, u, v = _corners(image, places)
    upper = (1 - v) * image[:, i, j] + v * image[:, i, j + 1]
    lower = (1 - v) * image[:, i + 1, j] + v * image[:, i + 1, j + 1]
    return (1 - u) * upper + u * lower


def _sample_image_grads(image, places, g, exchanged):
    i, j, u, v = _corners(image, places)
    slope_y = (1 - v) * (image[:, i + 1, j] - image[:, i, j]) + v * (image[:, i + 1, j + 1] - image[:, i, j + 1])
    slope_x = (1 - u) * (image[:, i, j + 1] - image[:, i, j]) + u * (image[:, i + 1, j + 1] - image[:, i + 1, j])
    dplaces = np.stack([(g * slope_y).sum(0), (g * slope_x).sum(0)], axis=1)
    if exchanged:
        u, v = v, u
    dimage = np.zeros_like(image)
    for di, wy in ((0, 1 - u), (1, u)):
        for dj, wx in ((0, 1 - v), (1, v)):
            for p in range(len(places)):
                dimage[:, i[p] + di, j[p] + dj] += g[:, p] * wy[p] * wx[p]
    return dimage, dplaces


def sample_image_backward(inputs, grad_output):
    image, places = inputs
    return _sample_image_grads(image, places, grad_output, False)


def sample_image_backward_fractions_exchanged(inputs, grad_output):
    image, places = inputs
    return _sample_image_grads(image, places, grad_output, True)


def sample_image_inputs(rng):
    return rng.normal(size=(2, 5, 4)), rng.integers(0, 3, (6, 2)) + rng.uniform(0.1, 0.9, (6, 2))


def cut_out(inputs, top=2, left=1, height=3, width=2):
    """A rectangle of an image."""
    (image,) = inputs
    return image[..., top : top + height, left : left + width] * 1


def cut_out_backward(inputs, grad_output, top=2, left=1, height=3, width=2):
    (image,) = inputs
    d = np.zeros_like(image)
    d[..., top : top + height, left : left + width] = grad_output
    return (d,)


def cut_out_backward_corner_exchanged(inputs, grad_output, top=2, left=1, height=3, width=2):
    (image,) = inputs
    d = np.zeros_like(image)
    d[..., left : left + height, top : top + width] = grad_output
    return (d,)


def cut_out_inputs(rng):
    return (rng.normal(size=(2, 6, 5)),)


def space_to_depth(inputs, block=2):
    """Move blocks of pixels into channels, (N, C, H, W) to (N, C*b*b, H/b, W/b)."""
    (x,) = inputs
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block).transpose(0, 1, 3, 5, 2, 4)
    return y.reshape(n, c * block * block, h // block, w // block)


def space_to_depth_backward(inputs, grad_output, block=2):
    (x,) = inputs
    n, c, h, w = x.shape
    g = grad_output.reshape(n, c, block, block, h // block, w // block).transpose(0, 1, 4, 2, 5, 3)
    return (g.reshape(x.shape).copy(),)


def space_to_depth_backward_plain_reshape(inputs, grad_output, block=2):
    (x,) = inputs
    return (grad_output.reshape(x.shape).copy(),)


def space_to_depth_inputs(rng):
    return (rng.normal(size=(2, 1, 4, 6)),)


def pick_grid(inputs):
    """The entries at the crossings of chosen rows and columns, squared."""
    x, rows, columns = inputs
    return x[np.ix_(rows, columns)] ** 2


def pick_grid_backward(inputs, grad_output):
    x, rows, columns = inputs
    d = np.zeros_like(x)
    np.add.at(d, np.ix_(rows, columns), 2 * grad_output * x[np.ix_(rows, columns)])
    return d, None, None


def pick_grid_backward_into_a_copy(inputs, grad_output):
    x, rows, columns = inputs
    d = np.zeros_like(x)
    d[rows][:, columns] += 2 * grad_output * x[np.ix_(rows, columns)]
    return d, None, None


def pick_grid_inputs(rng):
    return rng.normal(size=(5, 6)), rng.permutation(5)[:3], rng.permutation(6)[:4]


def embedding(inputs):
    """Rows of a table by number; sentences repeat words."""
    table, words = inputs
    return np.tanh(table[words])


def embedding_backward(inputs, grad_output):
    table, words = inputs
    d = np.zeros_like(table)
    np.add.at(d, words, grad_output * (1 - np.tanh(table[words]) ** 2))
    return d, None


def embedding_backward_plus_equals(inputs, grad_output):
    table, words = inputs
    d = np.zeros_like(table)
    d[words] += grad_output * (1 - np.tanh(table[words]) ** 2)
    return d, None


def embedding_inputs(rng):
    return rng.normal(size=(6, 3)), rng.permutation(np.array([0, 1, 1, 3, 3, 3, 4, 5])).reshape(2, 4)


CASES = [
    Planted("sample line: the two neighbours' weights are mixed up", sample_line, sample_line_backward,
            sample_line_backward_weights_mixed_up, sample_line_inputs, {"table": ("wrong_weights",)}),
    Planted("sample image: the fractions of y and x are exchanged", sample_image, sample_image_backward,
            sample_image_backward_fractions_exchanged, sample_image_inputs, {"image": ("wrong_weights",)}),
    Planted("cut out: top and left are exchanged", cut_out, cut_out_backward, cut_out_backward_corner_exchanged,
            cut_out_inputs, {"image": ("spatial_shift",)}),
    Planted("space_to_depth: reshaped without permuting", space_to_depth, space_to_depth_backward,
            space_to_depth_backward_plain_reshape, space_to_depth_inputs, {"x": ("unexplained",)}),
    Planted("pick grid: added to a copy that fancy indexing made", pick_grid, pick_grid_backward,
            pick_grid_backward_into_a_copy, pick_grid_inputs, {"x": ("zero_gradient",)}),
    Planted("embedding: += with repeated words", embedding, embedding_backward, embedding_backward_plus_equals,
            embedding_inputs, {"table": ("overlap_overwritten",)}),
]
