"""Planted mistakes in how a backward function behaves: shapes, dtypes, memory, memories, chance and precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.planted.case import Planted
from minires.checking.planted.draw import followed_by, normal
from minires.checking.planted.functions import (
    gelu,
    gelu_backward,
    silu,
    silu_backward,
    squared_tanh,
    squared_tanh_backward,
    tanh,
    tanh_backward,
)
from minires.checking.planted.layers import (
    embedding,
    embedding_backward,
    linear,
    linear_backward,
    matmul,
    matmul_backward,
    time_distributed,
    time_distributed_backward,
)
from minires.checking.planted.norms import (
    add,
    add_backward,
    largest,
    largest_backward,
    softmax,
    softmax_backward,
    unit_rows,
    unit_rows_backward,
)
from minires.checking.planted.pooling import avgpool1d, avgpool1d_backward, maxpool1d, maxpool1d_backward

__all__ = ["CASES"]


# Shape and dtype ------------------------------------------------------------------------------------------------------


def flatten(inputs: Any) -> Any:
    """Each sample as one row."""
    (x,) = inputs
    return x.reshape(len(x), -1)


def flatten_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of flatten."""
    (x,) = inputs
    return (grad_output.reshape(x.shape).copy(),)


def _flatten_still_flat(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return (grad_output.copy(),)


def _embedding_rows_only(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return grad_output.copy(), None


def _linear_without_bias(inputs: Any, grad_output: Any) -> Any:
    return linear_backward(inputs, grad_output)[:2]


def circular_convolution(inputs: Any) -> Any:
    """Each row of x convolved with w around a circle, by Fourier transforms."""
    x, w = inputs
    return np.fft.ifft(np.fft.fft(x) * np.fft.fft(w)).real


def circular_convolution_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of circular_convolution: correlations around the circle."""
    x, w = inputs
    g = np.fft.fft(grad_output)
    dx = np.fft.ifft(g * np.fft.fft(w).conj()).real.copy()
    return dx, np.fft.ifft(g * np.fft.fft(x).conj()).real.sum(axis=0)


def _circular_convolution_complex(inputs: Any, grad_output: Any) -> Any:
    _, w = inputs
    _, dw = circular_convolution_backward(inputs, grad_output)
    return np.fft.ifft(np.fft.fft(grad_output) * np.fft.fft(w).conj()), dw


def _maxpool1d_single(inputs: Any, grad_output: Any, size: int = 3, stride: int = 2) -> Any:
    (x,) = inputs
    dx = np.zeros(x.shape, np.float32)
    for n, c, window in np.ndindex(grad_output.shape):
        start = window * stride
        dx[n, c, start + x[n, c, start : start + size].argmax()] += grad_output[n, c, window]
    return (dx,)


def _embedding_single(inputs: Any, grad_output: Any) -> Any:
    table, ids = inputs
    dtable = np.zeros(table.shape, dtype="float32")
    for place, row in enumerate(ids):
        dtable[row] += grad_output[place]
    return dtable, None


# Memory that is not its own -------------------------------------------------------------------------------------------


def leaky_relu(inputs: Any, slope: float = 0.1) -> Any:
    """Negative entries times ``slope``."""
    (x,) = inputs
    return np.maximum(x, slope * x)


def leaky_relu_backward(inputs: Any, grad_output: Any, slope: float = 0.1) -> Any:
    """Gradient of leaky_relu."""
    (x,) = inputs
    return (np.where(x > 0, grad_output, slope * grad_output),)


def _leaky_relu_in_place(inputs: Any, grad_output: Any, slope: float = 0.1) -> Any:
    (x,) = inputs
    grad_output[x <= 0] *= slope
    return (grad_output.copy(),)


def log_softmax(inputs: Any) -> Any:
    """The logarithm of softmax along the rows."""
    (x,) = inputs
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_softmax_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of log_softmax."""
    return (grad_output - np.exp(log_softmax(inputs)) * grad_output.sum(axis=1, keepdims=True),)


def _log_softmax_in_place(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    dx = np.empty_like(x)
    grad_output -= np.exp(log_softmax(inputs)) * grad_output.sum(axis=1, keepdims=True)
    dx[:] = grad_output
    return (dx,)


def _avgpool1d_in_place(inputs: Any, grad_output: Any, size: int = 3, stride: int = 2) -> Any:
    (x,) = inputs
    dx = np.zeros_like(x)
    grad_output /= size
    for window in range(grad_output.shape[2]):
        dx[:, :, window * stride : window * stride + size] += grad_output[:, :, window, None]
    return (dx,)


def _squared_tanh_in_place(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    t = np.tanh(x, out=x)
    return (grad_output * 2 * t * (1 - t**2),)


def _unit_rows_in_place(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    x /= norm
    return ((grad_output - x * (grad_output * x).sum(axis=1, keepdims=True)) / norm,)


def _largest_in_place(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    x -= x.max(axis=1, keepdims=True)
    return (np.where(x == 0, grad_output[:, None], 0),)


def _add_hands_on(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return grad_output, grad_output.sum(axis=(0, 2))[:, None]


def _flatten_view(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (grad_output.reshape(x.shape),)


def concatenate(inputs: Any) -> Any:
    """Two matrices side by side."""
    a, b = inputs
    return np.concatenate([a, b], axis=1)


def concatenate_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of concatenate."""
    a, _ = inputs
    return grad_output[:, : a.shape[1]].copy(), grad_output[:, a.shape[1] :].copy()


def _concatenate_views(inputs: Any, grad_output: Any) -> Any:
    a, _ = inputs
    return tuple(np.split(grad_output, [a.shape[1]], axis=1))


# Memories and chance --------------------------------------------------------------------------------------------------

_KEPT: dict[Any, Any] = {}


def _kept(name: str, like: Any) -> Any:
    return _KEPT.setdefault((name, like.shape, like.dtype), np.zeros_like(like))


def _linear_accumulates(inputs: Any, grad_output: Any) -> Any:
    _, w, _ = inputs
    dx, dw, db = linear_backward(inputs, grad_output)
    total = _kept("linear", w)
    total += dw
    return dx, total.copy(), db


def _embedding_not_cleared(inputs: Any, grad_output: Any) -> Any:
    table, ids = inputs
    buffer = _kept("embedding", table)
    np.add.at(buffer, ids, grad_output)
    return buffer.copy(), None


def _silu_momentum(inputs: Any, grad_output: Any) -> Any:
    (dx,) = silu_backward(inputs, grad_output)
    velocity = _kept("silu", dx)
    velocity[:] = 0.5 * velocity + dx
    return (velocity.copy(),)


def dropout(inputs: Any, rate: float = 0.4) -> Any:
    """Some entries set to zero, always the same, the others enlarged."""
    (x,) = inputs
    keep = np.random.default_rng(5).random(x.shape) >= rate
    return x * keep / (1 - rate)


def dropout_backward(inputs: Any, grad_output: Any, rate: float = 0.4) -> Any:
    """Gradient of dropout: the same entries."""
    del inputs
    keep = np.random.default_rng(5).random(grad_output.shape) >= rate
    return (grad_output * keep / (1 - rate),)


def _dropout_redrawn(inputs: Any, grad_output: Any, rate: float = 0.4) -> Any:
    del inputs
    keep = np.random.default_rng().random(grad_output.shape) >= rate
    return (grad_output * keep / (1 - rate),)


def _time_distributed_random_weights(inputs: Any, grad_output: Any) -> Any:
    x, w = inputs
    weights = np.random.default_rng().exponential(size=len(x)).astype(x.dtype)
    return grad_output @ w.T, np.einsum("t,tni,tno->io", weights, x, grad_output)


def _tanh_noisy(inputs: Any, grad_output: Any) -> Any:
    (dx,) = tanh_backward(inputs, grad_output)
    dx += 0.01 * np.random.default_rng().standard_normal(dx.shape)
    return (dx,)


# Numbers that overflow, and numbers that are too short ----------------------------------------------------------------


def softplus(inputs: Any) -> Any:
    """The smooth relu: log(1 + exp(x))."""
    (x,) = inputs
    return np.logaddexp(0, x)


def softplus_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of softplus: the sigmoid."""
    (x,) = inputs
    return (grad_output * np.exp(-np.logaddexp(0, -x)),)


def _softplus_overflows(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    with np.errstate(all="ignore"):
        return (grad_output * (np.exp(x) / (1 + np.exp(x))),)


def log_sum_exp(inputs: Any) -> Any:
    """The smooth maximum of each row."""
    (x,) = inputs
    top = x.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(x - top).sum(axis=1))


def log_sum_exp_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of log_sum_exp: the softmax."""
    return (grad_output[:, None] * softmax(inputs),)


def _log_sum_exp_overflows(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    with np.errstate(all="ignore"):
        return (grad_output[:, None] * (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)),)


def row_product(inputs: Any) -> Any:
    """The product of each row."""
    (x,) = inputs
    return x.prod(axis=1)


def row_product_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of row_product: the products of all the others."""
    (x,) = inputs
    others = [np.delete(x, j, axis=1).prod(axis=1) for j in range(x.shape[1])]
    return (grad_output[:, None] * np.stack(others, axis=1),)


def _row_product_divides(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    with np.errstate(all="ignore"):
        return ((grad_output * x.prod(axis=1))[:, None] / x,)


def _softmax_single(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    (dx,) = softmax_backward((x.astype(np.float32),), grad_output.astype(np.float32))
    return (dx.astype(x.dtype),)


def _matmul_single(inputs: Any, grad_output: Any) -> Any:
    a, b = inputs
    da = grad_output.astype("float32") @ b.T.astype("float32")
    return da.astype(a.dtype), a.T @ grad_output


def _gelu_single(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    (slope,) = gelu_backward((x.astype(np.float32),), np.float32(1))
    return (grad_output * slope.astype(x.dtype),)


_TABLE = followed_by(normal((5, 3)), [4, 1, 1, 2, 0, 4])
_LAYER = normal((4, 3), (3, 2), (2,))

CASES: list[Planted] = [
    Planted("flatten: the gradient is still flat", flatten, flatten_backward, _flatten_still_flat,
            normal((2, 3, 4)), {"x": ("shape",)}),
    Planted("embedding: only the rows that were asked for", embedding, embedding_backward, _embedding_rows_only,
            _TABLE, {"table": ("shape",)}),
    Planted("linear: two gradients for three inputs", linear, linear_backward, _linear_without_bias,
            _LAYER, {"b": ("shape",)}),
    Planted("circular_convolution: the real part is not taken", circular_convolution, circular_convolution_backward,
            _circular_convolution_complex, normal((2, 5), (5,)), {"x": ("dtype",)}),
    Planted("maxpool1d: a buffer of float32", maxpool1d, maxpool1d_backward, _maxpool1d_single,
            normal((2, 3, 7)), {"x": ("dtype",)}),
    Planted("embedding: a table of float32", embedding, embedding_backward, _embedding_single,
            _TABLE, {"table": ("dtype",)}),
    Planted("leaky_relu: the upstream gradient is changed in place", leaky_relu, leaky_relu_backward,
            _leaky_relu_in_place, normal((3, 5)), {"x": ("damages_gout",)}),
    Planted("log_softmax: the upstream gradient is the buffer", log_softmax, log_softmax_backward,
            _log_softmax_in_place, normal((3, 4)), {"x": ("damages_gout",)}),
    Planted("avgpool1d: the upstream gradient is divided in place", avgpool1d, avgpool1d_backward, _avgpool1d_in_place,
            normal((2, 3, 9)), {"x": ("damages_gout",)}),
    Planted("squared_tanh: tanh written into x", squared_tanh, squared_tanh_backward, _squared_tanh_in_place,
            normal((3, 5)), {"x": ("damages_input",)}),
    Planted("unit_rows: x divided in place", unit_rows, unit_rows_backward, _unit_rows_in_place,
            normal((3, 4)), {"x": ("damages_input",)}),
    Planted("largest: the maximum subtracted in place", largest, largest_backward, _largest_in_place,
            normal((3, 5)), {"x": ("damages_input",)}),
    Planted("add: the upstream gradient itself is returned", add, add_backward, _add_hands_on,
            normal((4, 3, 2), (3, 1)), {"a": ("aliases_gout",)}),
    Planted("flatten: a view of the upstream gradient", flatten, flatten_backward, _flatten_view,
            normal((2, 3, 4)), {"x": ("aliases_gout",)}),
    Planted("concatenate: slices of the upstream gradient", concatenate, concatenate_backward, _concatenate_views,
            normal((3, 2), (3, 4)), {"a": ("aliases_gout",), "b": ("aliases_gout",)}),
    Planted("linear: dw of earlier calls is added", linear, linear_backward, _linear_accumulates,
            _LAYER, {"w": ("state_leak",)}),
    Planted("embedding: the buffer is not cleared", embedding, embedding_backward, _embedding_not_cleared,
            _TABLE, {"table": ("state_leak",)}),
    Planted("silu: half of the last gradient is added", silu, silu_backward, _silu_momentum,
            normal((2, 5)), {"x": ("state_leak",)}),
    Planted("dropout: another mask", dropout, dropout_backward, _dropout_redrawn,
            normal((6, 5)), {"x": ("nondeterministic",)}),
    Planted("time_distributed: dw weighs the time steps at random", time_distributed, time_distributed_backward,
            _time_distributed_random_weights, normal((5, 2, 3), (3, 4)), {"w": ("nondeterministic",)}),
    Planted("tanh: noise on the gradient", tanh, tanh_backward, _tanh_noisy,
            normal((3, 4)), {"x": ("nondeterministic",)}),
    Planted("softplus: infinity divided by infinity", softplus, softplus_backward, _softplus_overflows,
            lambda rng: (np.append(rng.standard_normal(6), 800.0),), {"x": ("not_finite",)}),
    Planted("log_sum_exp: the maximum is not taken off", log_sum_exp, log_sum_exp_backward, _log_sum_exp_overflows,
            lambda rng: (rng.standard_normal((3, 4)) + np.array([[0.0], [0.0], [1000.0]]),), {"x": ("not_finite",)}),
    Planted("row_product: zero divided by zero", row_product, row_product_backward, _row_product_divides,
            lambda rng: (rng.uniform(0.5, 2, (3, 4)) * (np.arange(12).reshape(3, 4) != 6),), {"x": ("not_finite",)}),
    Planted("softmax: computed in float32", softmax, softmax_backward, _softmax_single,
            normal((3, 5)), {"x": ("low_precision",)}),
    Planted("matmul: da computed in float32", matmul, matmul_backward, _matmul_single,
            normal((3, 4), (4, 2)), {"a": ("low_precision",)}),
    Planted("gelu: the slope computed in float32", gelu, gelu_backward, _gelu_single,
            normal((3, 4)), {"x": ("low_precision",)}),
]
