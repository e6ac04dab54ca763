"""Planted mistakes in linear layers, products of matrices, embeddings, softmax, reductions and moves of entries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires.checking.planted.case import Planted
from minires.checking.planted.draw import followed_by, normal

__all__ = ["CASES"]


# Products of matrices -------------------------------------------------------------------------------------------------


def linear(inputs: Any) -> Any:
    """A fully connected layer: x (N, I) times w (I, O), plus b."""
    x, w, b = inputs
    return x @ w + b


def linear_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of linear."""
    x, w, _ = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0)


def _linear_mean_and_last(inputs: Any, grad_output: Any) -> Any:
    x, w, _ = inputs
    return grad_output @ w.T, x.T @ grad_output / len(x), grad_output[-1].copy()


def _linear_transposed_and_mean(inputs: Any, grad_output: Any) -> Any:
    x, w, _ = inputs
    return grad_output @ w, x.T @ grad_output, grad_output.mean(axis=0)


def time_distributed(inputs: Any) -> Any:
    """The same weight w at every time step of x (T, N, I)."""
    x, w = inputs
    return np.stack([step @ w for step in x])


def time_distributed_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of time_distributed."""
    x, w = inputs
    return grad_output @ w.T, np.einsum("tni,tno->io", x, grad_output)


def _time_distributed_last_step(inputs: Any, grad_output: Any) -> Any:
    x, w = inputs
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for t in range(len(x)):
        dx[t] = grad_output[t] @ w.T
        dw = x[t].T @ grad_output[t]
    return dx, dw


def matmul(inputs: Any) -> Any:
    """The product of two matrices."""
    a, b = inputs
    return a @ b


def matmul_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of matmul."""
    a, b = inputs
    return grad_output @ b.T, a.T @ grad_output


def _matmul_not_transposed(inputs: Any, grad_output: Any) -> Any:
    a, b = inputs
    return grad_output @ b, a.T @ grad_output


def _matmul_not_transposed_negative(inputs: Any, grad_output: Any) -> Any:
    a, b = inputs
    return grad_output @ b.T, -(a @ grad_output)


def batched_matmul(inputs: Any) -> Any:
    """The products of the pairs of matrices in two stacks."""
    a, b = inputs
    y = np.empty((len(a), a.shape[1], b.shape[2]), a.dtype)
    for n in range(len(a)):
        y[n] = a[n] @ b[n]
    return y


def batched_matmul_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of batched_matmul."""
    a, b = inputs
    return np.einsum("nik,njk->nij", grad_output, b), np.einsum("nij,nik->njk", a, grad_output)


def _batched_matmul_summed(inputs: Any, grad_output: Any) -> Any:
    a, _ = inputs
    da, db = batched_matmul_backward(inputs, grad_output)
    db[:] = np.einsum("nij,nik->jk", a, grad_output)
    return da, db


def bilinear_form(inputs: Any) -> Any:
    """One number for each pair of rows of x and z: x m z."""
    x, m, z = inputs
    return np.einsum("ni,ij,nj->n", x, m, z)


def bilinear_form_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of bilinear_form."""
    x, m, z = inputs
    g = grad_output[:, None]
    return g * (z @ m.T), (g * x).T @ z, g * (x @ m)


def _bilinear_form_transposed(inputs: Any, grad_output: Any) -> Any:
    x, m, z = inputs
    g = grad_output[:, None]
    return g * (z @ m.T), (g * z).T @ x, g * (x @ m.T)


def quadratic_form(inputs: Any) -> Any:
    """One number for each row of x: x m x."""
    x, m = inputs
    return ((x @ m) * x).sum(axis=1)


def quadratic_form_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of quadratic_form: x is in it twice."""
    x, m = inputs
    g = grad_output[:, None]
    return g * (x @ m + x @ m.T), (g * x).T @ x


def _quadratic_form_once(inputs: Any, grad_output: Any) -> Any:
    x, m = inputs
    g = grad_output[:, None]
    return g * (x @ m), (g * x).T @ x


def inverse(inputs: Any) -> Any:
    """The inverse of a matrix."""
    (x,) = inputs
    return np.linalg.inv(x)


def inverse_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of inverse."""
    y = inverse(inputs)
    return (-y.T @ grad_output @ y.T,)


def _inverse_upstream_transposed(inputs: Any, grad_output: Any) -> Any:
    y = inverse(inputs)
    return (-y.T @ grad_output.T @ y.T,)


def residual_unit(inputs: Any) -> Any:
    """The input plus what a layer makes of it: x + tanh(x w)."""
    x, w = inputs
    return x + np.tanh(x @ w)


def residual_unit_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of residual_unit: two ways lead to x."""
    x, w = inputs
    g = grad_output * (1 - np.tanh(x @ w) ** 2)
    return grad_output + g @ w.T, x.T @ g


def _residual_unit_branch_lost(inputs: Any, grad_output: Any) -> Any:
    x, w = inputs
    g = grad_output * (1 - np.tanh(x @ w) ** 2)
    return g @ w.T, x.T @ g


def recurrent(inputs: Any) -> Any:
    """The hidden states of a small recurrent network for x (T, N, H): h = tanh(x + h w)."""
    x, w = inputs
    states = [np.zeros_like(x[0])]
    for step in x:
        states.append(np.tanh(step + states[-1] @ w))
    return np.stack(states[1:])


def _through_time(inputs: Any, grad_output: Any, late: bool) -> Any:
    x, w = inputs
    h = np.concatenate([np.zeros_like(x[:1]), recurrent(inputs)])
    dx, dw, dh = np.zeros_like(x), np.zeros_like(w), np.zeros_like(x[0])
    for t in reversed(range(len(x))):
        dx[t] = (grad_output[t] + dh) * (1 - h[t + 1] ** 2)
        dw += (h[t + 1] if late else h[t]).T @ dx[t]
        dh = dx[t] @ w.T
    return dx, dw


def recurrent_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of recurrent, from the last step to the first."""
    return _through_time(inputs, grad_output, late=False)


def _recurrent_next_state(inputs: Any, grad_output: Any) -> Any:
    return _through_time(inputs, grad_output, late=True)


# Rows of tables and choices of entries --------------------------------------------------------------------------------


def embedding(inputs: Any) -> Any:
    """The rows of a table that are asked for."""
    table, ids = inputs
    return table[ids]


def embedding_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of embedding: a row that is asked for twice gets both."""
    table, ids = inputs
    dtable = np.zeros_like(table)
    np.add.at(dtable, ids, grad_output)
    return dtable, None


def _embedding_by_frequency(inputs: Any, grad_output: Any) -> Any:
    table, ids = inputs
    dtable, _ = embedding_backward(inputs, grad_output)
    counts = np.bincount(ids, minlength=len(table)).clip(1)
    return dtable / counts[:, None].astype(table.dtype), None


def scaled_embedding(inputs: Any) -> Any:
    """The rows of a table that are asked for, times the root of their length."""
    table, ids = inputs
    return math.sqrt(table.shape[1]) * table[ids]


def scaled_embedding_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of scaled_embedding."""
    table, _ = inputs
    return embedding_backward(inputs, math.sqrt(table.shape[1]) * grad_output)


def _scaled_embedding_overwritten_unscaled(inputs: Any, grad_output: Any) -> Any:
    table, ids = inputs
    dtable = np.zeros_like(table)
    for place, row in enumerate(ids):
        dtable[row] = grad_output[place]
    return dtable, None


def embedding_bag(inputs: Any) -> Any:
    """The sum of the rows of a table that each sample asks for."""
    table, ids = inputs
    return table[ids].sum(axis=1)


def embedding_bag_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of embedding_bag."""
    table, ids = inputs
    dtable = np.zeros_like(table)
    np.add.at(dtable, ids, grad_output[:, None, :])
    return dtable, None


def _embedding_bag_into_a_copy(inputs: Any, grad_output: Any) -> Any:
    table, ids = inputs
    dtable = np.zeros_like(table)
    rows = dtable[ids]
    rows += grad_output[:, None, :]
    return dtable, None


_ROWS, _COLUMNS = [3, 0, 2], [1, 4]


def select(inputs: Any) -> Any:
    """Some rows and columns of a matrix."""
    (x,) = inputs
    return x[_ROWS][:, _COLUMNS]


def select_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of select."""
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[np.ix_(_ROWS, _COLUMNS)] = grad_output
    return (dx,)


def _select_into_a_copy(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[_ROWS][:, _COLUMNS] = grad_output
    return (dx,)


def permute(inputs: Any) -> Any:
    """The axes of a cube in the order 1, 2, 0."""
    (x,) = inputs
    return 1.5 * x.transpose(1, 2, 0)


def permute_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of permute: the inverse permutation."""
    del inputs
    return (1.5 * grad_output.transpose(2, 0, 1),)


def _permute_again_unscaled(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return (grad_output.transpose(1, 2, 0).copy(),)


def flip(inputs: Any) -> Any:
    """The rows of a matrix in the opposite order, doubled."""
    (x,) = inputs
    return 2 * x[::-1]


def flip_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of flip."""
    del inputs
    return (2 * grad_output[::-1],)


def _flip_not_flipped(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return (2 * grad_output,)


def cumulative_sum(inputs: Any) -> Any:
    """Running sums along the rows."""
    (x,) = inputs
    return np.cumsum(x, axis=1)


def cumulative_sum_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of cumulative_sum: running sums from the end."""
    del inputs
    return (np.cumsum(grad_output[:, ::-1], axis=1)[:, ::-1].copy(),)


def _cumulative_sum_not_turned_back(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return (np.cumsum(grad_output[:, ::-1], axis=1),)


def differences(inputs: Any) -> Any:
    """What each entry of a row has more than the one before it."""
    (x,) = inputs
    return x[:, 1:] - x[:, :-1]


def differences_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of differences."""
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, 1:] += grad_output
    dx[:, :-1] -= grad_output
    return (dx,)


def _differences_inside_only(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    dx[:, 1:-1] = grad_output[:, :-1] - grad_output[:, 1:]
    return (dx,)


CASES: list[Planted] = [
    Planted("linear: dw is the mean over the samples, db the last sample's", linear, linear_backward,
            _linear_mean_and_last, normal((4, 3), (3, 5), (5,)),
            {"w": ("constant_factor",), "b": ("not_accumulated_over_axis",)}),
    Planted("linear: w is not transposed, db is the mean", linear, linear_backward, _linear_transposed_and_mean,
            normal((3, 4), (4, 4), (4,)), {"x": ("operand_transposed",), "b": ("constant_factor",)}),
    Planted("time_distributed: dw of the last time step", time_distributed, time_distributed_backward,
            _time_distributed_last_step, normal((3, 2, 4), (4, 5)), {"w": ("not_accumulated_over_axis",)}),
    Planted("matmul: b is not transposed", matmul, matmul_backward, _matmul_not_transposed,
            normal((4, 4), (4, 4)), {"a": ("operand_transposed",)}),
    Planted("matmul: a is not transposed, and a minus too many", matmul, matmul_backward,
            _matmul_not_transposed_negative, normal((5, 5), (5, 3)),
            {"b": ("operand_transposed", "sign_flipped")}, twice=True),
    Planted("batched_matmul: db summed over the batch", batched_matmul, batched_matmul_backward,
            _batched_matmul_summed, normal((2, 3, 4), (2, 4, 5)), {"b": ("mixed_over_axis",)}),
    Planted("bilinear_form: dm is transposed, m is transposed for z", bilinear_form, bilinear_form_backward,
            _bilinear_form_transposed, normal((3, 4), (4, 4), (3, 4)),
            {"m": ("axis_swapped",), "z": ("operand_transposed",)}),
    Planted("quadratic_form: one of the two ways to x", quadratic_form, quadratic_form_backward, _quadratic_form_once,
            normal((3, 4), (4, 4)), {"x": ("missing_term",)}),
    Planted("inverse: the upstream gradient is transposed", inverse, inverse_backward, _inverse_upstream_transposed,
            lambda rng: (rng.standard_normal((3, 3)) + 4 * np.eye(3),), {"x": ("unexplained",)}),
    Planted("residual_unit: the direct way is lost", residual_unit, residual_unit_backward, _residual_unit_branch_lost,
            normal((3, 4), (4, 4)), {"x": ("identity_branch_lost",)}),
    Planted("recurrent: dw takes the state after the step", recurrent, recurrent_backward, _recurrent_next_state,
            normal((3, 2, 4), (4, 4)), {"w": ("unexplained",)}),
    Planted("embedding: each row divided by how often it occurs", embedding, embedding_backward,
            _embedding_by_frequency, followed_by(normal((5, 3)), [2, 0, 2, 3, 4, 2, 3]),
            {"table": ("factor_per_element",)}),
    Planted("scaled_embedding: repeated rows overwritten, the scale forgotten", scaled_embedding,
            scaled_embedding_backward, _scaled_embedding_overwritten_unscaled,
            followed_by(normal((5, 3)), [1, 3, 3, 0, 4, 1]),
            {"table": ("overlap_overwritten", "constant_factor")}, twice=True),
    Planted("embedding_bag: added to a copy", embedding_bag, embedding_bag_backward, _embedding_bag_into_a_copy,
            followed_by(normal((6, 5)), [[0, 2, 2, 5], [1, 3, 0, 4], [5, 5, 2, 1]]), {"table": ("zero_gradient",)}),
    Planted("select: assigned to a copy", select, select_backward, _select_into_a_copy,
            normal((5, 6)), {"x": ("zero_gradient",)}),
    Planted("permute: the same permutation again, unscaled", permute, permute_backward, _permute_again_unscaled,
            normal((3, 3, 3)), {"x": ("axis_swapped", "constant_factor")}, twice=True),
    Planted("flip: the gradient is not flipped", flip, flip_backward, _flip_not_flipped,
            normal((5, 3)), {"x": ("axis_reversed",)}),
    Planted("cumulative_sum: not turned back", cumulative_sum, cumulative_sum_backward,
            _cumulative_sum_not_turned_back, normal((3, 6)), {"x": ("axis_reversed",)}),
    Planted("differences: the first and the last entry get nothing", differences, differences_backward,
            _differences_inside_only, normal((3, 6)), {"x": ("border_missing",)}),
]
