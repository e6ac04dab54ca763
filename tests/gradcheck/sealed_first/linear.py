"""First sealed exam: linear algebra."""

from __future__ import annotations

import math

import numpy as np

from minires.checking.planted.case import Planted


def batch_matmul(inputs):
    """Products of square matrices."""
    a, b = inputs
    return a @ b


def batch_matmul_backward(inputs, grad_output):
    a, b = inputs
    return grad_output @ b.swapaxes(1, 2), a.swapaxes(1, 2) @ grad_output


def batch_matmul_backward_b_as_is(inputs, grad_output):
    a, b = inputs
    return grad_output @ b, a.swapaxes(1, 2) @ grad_output


def batch_matmul_inputs(rng):
    return rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3, 3))


def bilinear_score(inputs):
    """One score per pair of vectors, with a square matrix between them."""
    u, m, v = inputs
    return np.einsum("ni,ij,nj->n", u, m, v)


def bilinear_score_backward(inputs, grad_output):
    u, m, v = inputs
    g = grad_output
    return g[:, None] * (v @ m.T), np.einsum("n,ni,nj->ij", g, u, v), g[:, None] * (u @ m)


def bilinear_score_backward_outer_the_other_way(inputs, grad_output):
    u, m, v = inputs
    g = grad_output
    return g[:, None] * (v @ m.T), np.einsum("n,nj,ni->ij", g, u, v), g[:, None] * (u @ m)


def bilinear_score_inputs(rng):
    return rng.normal(size=(5, 4)), rng.normal(size=(4, 4)), rng.normal(size=(5, 4))


def log_det(inputs):
    """Logarithm of the absolute determinant."""
    (a,) = inputs
    return np.linalg.slogdet(a)[1]


def log_det_backward(inputs, grad_output):
    (a,) = inputs
    return (grad_output * np.linalg.inv(a).T,)


def log_det_backward_untransposed_negative(inputs, grad_output):
    (a,) = inputs
    return (-grad_output * np.linalg.inv(a),)


def log_det_inputs(rng):
    return (np.eye(4) * 2 + rng.normal(size=(4, 4)) * 0.5,)


def inverse(inputs):
    """Inverse of a batch of matrices."""
    (a,) = inputs
    return np.linalg.inv(a)


def inverse_backward(inputs, grad_output):
    (a,) = inputs
    y = np.linalg.inv(a).swapaxes(1, 2)
    return (-y @ grad_output @ y,)


def inverse_backward_positive(inputs, grad_output):
    (a,) = inputs
    y = np.linalg.inv(a).swapaxes(1, 2)
    return (y @ grad_output @ y,)


def inverse_inputs(rng):
    return (np.eye(3) * 2 + rng.normal(size=(2, 3, 3)) * 0.4,)


def trace_of_product(inputs):
    """Trace of A B."""
    a, b = inputs
    return np.einsum("ij,ji->", a, b)


def trace_of_product_backward(inputs, grad_output):
    a, b = inputs
    return grad_output * b.T, grad_output * a.T


def trace_of_product_backward_table_formula(inputs, grad_output):
    a, b = inputs
    return b.T.copy(), grad_output * a.T


def trace_of_product_inputs(rng):
    return rng.normal(size=(3, 5)), rng.normal(size=(5, 3))


def gram(inputs):
    """Inner products between all channels (style features)."""
    (x,) = inputs
    return x @ x.T / x.shape[1]


def gram_backward(inputs, grad_output):
    (x,) = inputs
    return ((grad_output + grad_output.T) @ x / x.shape[1],)


def gram_backward_one_side(inputs, grad_output):
    (x,) = inputs
    return (grad_output @ x / x.shape[1],)


def gram_inputs(rng):
    return (rng.normal(size=(4, 7)),)


def matrix_cube(inputs):
    """A A A."""
    (a,) = inputs
    return a @ a @ a


def matrix_cube_backward(inputs, grad_output):
    (a,) = inputs
    t, g = a.T, grad_output
    return (g @ t @ t + t @ g @ t + t @ t @ g,)


def matrix_cube_backward_like_a_number(inputs, grad_output):
    (a,) = inputs
    return (3 * grad_output @ (a @ a).T,)


def matrix_cube_inputs(rng):
    return (rng.normal(size=(3, 3)),)


def cosine_transform(inputs):
    """Orthonormal discrete cosine transform of each row."""
    (x,) = inputs
    return x @ _dct(x.shape[-1]).astype(x.dtype).T


def _dct(n):
    k = np.arange(n)
    m = np.cos(math.pi * (k + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    m[0] /= math.sqrt(2)
    return m


def cosine_transform_backward(inputs, grad_output):
    (x,) = inputs
    return (grad_output @ _dct(x.shape[-1]).astype(x.dtype),)


def cosine_transform_backward_forward_again(inputs, grad_output):
    (x,) = inputs
    return (grad_output @ _dct(x.shape[-1]).astype(x.dtype).T,)


def cosine_transform_inputs(rng):
    return (rng.normal(size=(3, 6)),)


def quaternion_product(inputs):
    """Product of quaternions (w, x, y, z), element by element of a list."""
    p, q = inputs
    return _hamilton(p, q)


def _hamilton(p, q):
    a, b, c, d = np.moveaxis(p, -1, 0)
    e, f, g, h = np.moveaxis(q, -1, 0)
    parts = (a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g,
             a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e)
    return np.stack(parts, axis=-1)


def _conjugate(q):
    return np.concatenate([q[..., :1], -q[..., 1:]], axis=-1)


def quaternion_product_backward(inputs, grad_output):
    p, q = inputs
    return _hamilton(grad_output, _conjugate(q)), _hamilton(_conjugate(p), grad_output)


def quaternion_product_backward_not_conjugated(inputs, grad_output):
    p, q = inputs
    return _hamilton(grad_output, _conjugate(q)), _hamilton(p, grad_output)


def quaternion_product_inputs(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=(3, 4))


def pairwise_distance(inputs):
    """Euclidean distances between two sets of points."""
    a, b = inputs
    return np.sqrt(((a[:, None] - b) ** 2).sum(-1))


def pairwise_distance_backward(inputs, grad_output):
    a, b = inputs
    diff = a[:, None] - b
    g = (grad_output / np.sqrt((diff**2).sum(-1)))[..., None] * diff
    return g.sum(1), -g.sum(0)


def pairwise_distance_backward_squared(inputs, grad_output):
    a, b = inputs
    diff = a[:, None] - b
    g = (grad_output / np.sqrt((diff**2).sum(-1)))[..., None] * diff
    return (grad_output[..., None] * diff).sum(1), -g.sum(0)


def pairwise_distance_inputs(rng):
    return rng.normal(size=(4, 3)) * 2, rng.normal(size=(5, 3)) * 2


def regularised_linear(inputs):
    """A linear layer."""
    x, w = inputs
    return x @ w


def regularised_linear_backward(inputs, grad_output):
    x, w = inputs
    return grad_output @ w.T, x.T @ grad_output


def regularised_linear_backward_weight_decay_inside(inputs, grad_output):
    x, w = inputs
    return grad_output @ w.T, x.T @ grad_output + 0.01 * w


def regularised_linear_inputs(rng):
    return rng.normal(size=(4, 5)), rng.normal(size=(5, 3))


CASES = [
    Planted("batched matmul: the second matrix is not transposed", batch_matmul, batch_matmul_backward,
            batch_matmul_backward_b_as_is, batch_matmul_inputs, {"a": ("operand_transposed",)}),
    Planted("bilinear score: the outer product the other way round", bilinear_score, bilinear_score_backward,
            bilinear_score_backward_outer_the_other_way, bilinear_score_inputs, {"m": ("axis_swapped",)}),
    Planted("log determinant: the inverse is not transposed and negative", log_det, log_det_backward,
            log_det_backward_untransposed_negative, log_det_inputs, {"a": ("axis_swapped", "sign_flipped")}, twice=True),
    Planted("matrix inverse: no minus", inverse, inverse_backward, inverse_backward_positive, inverse_inputs,
            {"a": ("sign_flipped",)}),
    Planted("trace of a product: the formula from the table, without the upstream", trace_of_product,
            trace_of_product_backward, trace_of_product_backward_table_formula, trace_of_product_inputs,
            {"a": ("ignores_upstream",)}),
    Planted("gram matrix: only one of the two uses of x", gram, gram_backward, gram_backward_one_side, gram_inputs,
            {"x": ("missing_term",)}),
    Planted("matrix cube: the power rule of numbers", matrix_cube, matrix_cube_backward, matrix_cube_backward_like_a_number,
            matrix_cube_inputs, {"a": ("unexplained",)}),
    Planted("cosine transform: the transform instead of its transpose", cosine_transform, cosine_transform_backward,
            cosine_transform_backward_forward_again, cosine_transform_inputs, {"x": ("operand_transposed",)}),
    Planted("quaternion product: not conjugated", quaternion_product, quaternion_product_backward,
            quaternion_product_backward_not_conjugated, quaternion_product_inputs,
            {"q": ("operand_transposed",)}),
    Planted("pairwise distance: the derivative of the squared distance, halved", pairwise_distance,
            pairwise_distance_backward, pairwise_distance_backward_squared, pairwise_distance_inputs,
            {"a": ("missing_chain_factor",)}),
    Planted("linear with decay: the backward adds weight decay of its own", regularised_linear, regularised_linear_backward,
            regularised_linear_backward_weight_decay_inside, regularised_linear_inputs, {"w": ("ignores_upstream",)}),
]
