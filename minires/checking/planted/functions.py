"""Planted mistakes in elementwise functions, products, quotients and losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires.checking.planted.case import Planted
from minires.checking.planted.draw import followed_by, normal, positive

__all__ = ["CASES"]


# Functions of one number ----------------------------------------------------------------------------------------------


def sigmoid(inputs: Any) -> Any:
    """From the real line to (0, 1)."""
    (x,) = inputs
    return 1 / (1 + np.exp(-x))


def sigmoid_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of sigmoid, from its output."""
    y = sigmoid(inputs)
    return (grad_output * y * (1 - y),)


def _sigmoid_alone(inputs: Any, grad_output: Any) -> Any:
    del grad_output
    y = sigmoid(inputs)
    return (y * (1 - y),)


def _sigmoid_of_input(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (grad_output * x * (1 - x),)


def tanh(inputs: Any) -> Any:
    """The hyperbolic tangent."""
    (x,) = inputs
    return np.tanh(x)


def tanh_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of tanh."""
    return (grad_output * (1 - tanh(inputs) ** 2),)


def _tanh_of_input(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (grad_output * (1 - x**2),)


def squared_tanh(inputs: Any) -> Any:
    """The square of the hyperbolic tangent."""
    (x,) = inputs
    return np.tanh(x) ** 2


def squared_tanh_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of squared_tanh."""
    (x,) = inputs
    t = np.tanh(x)
    return (grad_output * 2 * t * (1 - t**2),)


def _squared_tanh_outside_only(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (grad_output * 2 * np.tanh(x),)


def dense_tanh(inputs: Any) -> Any:
    """A fully connected layer with its activation: tanh(x w + b)."""
    x, w, b = inputs
    return np.tanh(x @ w + b)


def dense_tanh_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of dense_tanh."""
    x, w, _ = inputs
    g = grad_output * (1 - dense_tanh(inputs) ** 2)
    return g @ w.T, x.T @ g, g.sum(axis=0)


def _dense_tanh_linear(inputs: Any, grad_output: Any) -> Any:
    x, w, _ = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(axis=0)


_GELU = math.sqrt(2 / math.pi)


def gelu(inputs: Any) -> Any:
    """The input times a smooth step, by the formula with tanh."""
    (x,) = inputs
    return 0.5 * x * (1 + np.tanh(_GELU * (x + 0.044715 * x**3)))


def gelu_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of gelu: a product's, so two terms."""
    (x,) = inputs
    t = np.tanh(_GELU * (x + 0.044715 * x**3))
    slope = (1 - t**2) * _GELU * (1 + 3 * 0.044715 * x**2)
    return (grad_output * 0.5 * ((1 + t) + x * slope),)


def _gelu_step_only(inputs: Any, grad_output: Any) -> Any:
    (x,) = inputs
    return (grad_output * 0.5 * (1 + np.tanh(_GELU * (x + 0.044715 * x**3))),)


def silu(inputs: Any) -> Any:
    """The input (T, N) times its sigmoid, for T time steps."""
    (x,) = inputs
    return x * sigmoid(inputs)


def silu_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of silu."""
    (x,) = inputs
    s = sigmoid(inputs)
    return (grad_output * (s + x * s * (1 - s)),)


def _silu_discounted(inputs: Any, grad_output: Any) -> Any:
    (dx,) = silu_backward(inputs, grad_output)
    for t in range(len(dx)):
        dx[t] *= 0.8**t
    return (dx,)


# Sums, products and quotients -----------------------------------------------------------------------------------------


def subtract(inputs: Any) -> Any:
    """Rows of a minus b."""
    a, b = inputs
    return a - b


def subtract_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of subtract."""
    del inputs
    return grad_output.copy(), -grad_output.sum(axis=0)


def _subtract_like_add(inputs: Any, grad_output: Any) -> Any:
    del inputs
    return grad_output.copy(), grad_output.sum(axis=0)


def multiply(inputs: Any) -> Any:
    """Entry times entry."""
    a, b = inputs
    return a * b


def multiply_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of multiply."""
    a, b = inputs
    return grad_output * b, grad_output * a


def _multiply_swapped(inputs: Any, grad_output: Any) -> Any:
    a, b = inputs
    return grad_output * a, grad_output * b


def product_of_three(inputs: Any) -> Any:
    """Entry times entry times entry."""
    a, b, c = inputs
    return a * b * c


def product_of_three_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of product_of_three."""
    a, b, c = inputs
    return grad_output * b * c, grad_output * a * c, grad_output * a * b


def _product_of_three_without_c(inputs: Any, grad_output: Any) -> Any:
    a, b, c = inputs
    return grad_output * b, grad_output * a * c, grad_output * a * b


def tiny_product(inputs: Any) -> Any:
    """A product in a small unit: numbers near 1e-5."""
    a, b = inputs
    return 1e-5 * a * b


def tiny_product_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of tiny_product."""
    a, b = inputs
    return 1e-5 * grad_output * b, 1e-5 * grad_output * a


def _tiny_product_without_b(inputs: Any, grad_output: Any) -> Any:
    a, _ = inputs
    return 1e-5 * grad_output, 1e-5 * grad_output * a


def quotient(inputs: Any) -> Any:
    """Entry by entry."""
    a, b = inputs
    return a / b


def quotient_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of quotient."""
    a, b = inputs
    return grad_output / b, -grad_output * a / b**2


def _quotient_without_a(inputs: Any, grad_output: Any) -> Any:
    _, b = inputs
    return grad_output / b, -grad_output / b**2


def mix(inputs: Any) -> Any:
    """From a to b, as far as t says: (1 - t) a + t b."""
    a, b, t = inputs
    return a + t * (b - a)


def mix_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of mix."""
    a, b, t = inputs
    return (1 - t) * grad_output, t * grad_output, (b - a) * grad_output


def _mix_swapped(inputs: Any, grad_output: Any) -> Any:
    a, b, t = inputs
    return t * grad_output, (1 - t) * grad_output, (b - a) * grad_output


# Losses and lengths ---------------------------------------------------------------------------------------------------


def mean_squared_error(inputs: Any) -> Any:
    """The mean of the squared differences."""
    x, target = inputs
    return (np.abs(x - target) ** 2).mean()


def mean_squared_error_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradients of mean_squared_error."""
    x, target = inputs
    dx = grad_output * 2 * (x - target) / x.size
    return dx, -dx


def _mean_squared_error_alone(inputs: Any, grad_output: Any) -> Any:
    del grad_output
    x, target = inputs
    dx = 2 * (x - target) / x.size
    return dx, -dx


def _mean_squared_error_one_less(inputs: Any, grad_output: Any) -> Any:
    x, target = inputs
    dx = grad_output * 2 * (x - target) / (x.size - 1)
    return dx, -dx


def length(inputs: Any) -> Any:
    """The Euclidean length of each row."""
    (x,) = inputs
    return np.sqrt((np.abs(x) ** 2).sum(axis=1))


def length_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of length: the direction."""
    (x,) = inputs
    return (grad_output[:, None] * x / length(inputs)[:, None],)


def _length_alone(inputs: Any, grad_output: Any) -> Any:
    del grad_output
    (x,) = inputs
    return (x / length(inputs)[:, None],)


def cross_entropy(inputs: Any) -> Any:
    """The mean surprise at the labels, for logits (N, classes)."""
    logits, labels = inputs
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean()


def cross_entropy_backward(inputs: Any, grad_output: Any) -> Any:
    """Gradient of cross_entropy: the probabilities, less one at the label."""
    logits, labels = inputs
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = e / e.sum(axis=1, keepdims=True)
    probabilities[np.arange(len(labels)), labels] -= 1
    return grad_output * probabilities / len(labels), None


def _cross_entropy_no_label(inputs: Any, grad_output: Any) -> Any:
    logits, labels = inputs
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return grad_output * e / e.sum(axis=1, keepdims=True) / len(labels), None


CASES: list[Planted] = [
    Planted("sigmoid: the upstream gradient is ignored", sigmoid, sigmoid_backward, _sigmoid_alone,
            normal((2, 3)), {"x": ("ignores_upstream",)}),
    Planted("sigmoid: x (1 - x) for y (1 - y)", sigmoid, sigmoid_backward, _sigmoid_of_input,
            normal((3, 4)), {"x": ("wrong_local_derivative",)}),
    Planted("tanh: 1 - x² for 1 - y²", tanh, tanh_backward, _tanh_of_input,
            normal((5, 2)), {"x": ("wrong_local_derivative",)}),
    Planted("squared_tanh: the slope of the square only", squared_tanh, squared_tanh_backward,
            _squared_tanh_outside_only, normal((4, 3)), {"x": ("missing_chain_factor",)}),
    Planted("dense_tanh: the slope of tanh is forgotten", dense_tanh, dense_tanh_backward, _dense_tanh_linear,
            normal((3, 2), (2, 4), (4,)),
            {"x": ("missing_chain_factor",), "w": ("missing_chain_factor",), "b": ("missing_chain_factor",)}),
    Planted("gelu: one term of the product's derivative", gelu, gelu_backward, _gelu_step_only,
            normal((2, 5)), {"x": ("missing_term",)}),
    Planted("silu: later time steps are discounted", silu, silu_backward, _silu_discounted,
            normal((5, 3)), {"x": ("factor_per_element",)}),
    Planted("subtract: like add", subtract, subtract_backward, _subtract_like_add,
            normal((3, 4), (4,)), {"b": ("sign_flipped",)}),
    Planted("multiply: each operand gets the other's gradient", multiply, multiply_backward, _multiply_swapped,
            normal((2, 4), (2, 4)), {"a": ("gradients_swapped",), "b": ("gradients_swapped",)}),
    Planted("product_of_three: c is missing from da", product_of_three, product_of_three_backward,
            _product_of_three_without_c, normal((3, 2), (3, 2), (3, 2)), {"a": ("missing_operand",)}),
    Planted("tiny_product: b is missing from da", tiny_product, tiny_product_backward, _tiny_product_without_b,
            normal((2, 3), (2, 3)), {"a": ("missing_operand",)}),
    Planted("quotient: a is missing from db", quotient, quotient_backward, _quotient_without_a,
            positive((3, 4), (3, 4)), {"b": ("missing_operand",)}),
    Planted("mix: the weights of a and b exchanged", mix, mix_backward, _mix_swapped,
            normal((3, 5), (3, 5), (3, 5)), {"a": ("gradients_swapped",), "b": ("gradients_swapped",)}),
    Planted("mean_squared_error: the upstream gradient is ignored", mean_squared_error, mean_squared_error_backward,
            _mean_squared_error_alone, normal((2, 4), (2, 4)),
            {"x": ("ignores_upstream",), "target": ("ignores_upstream",)}),
    Planted("mean_squared_error: divided by one less, half a per cent too much", mean_squared_error,
            mean_squared_error_backward, _mean_squared_error_one_less, normal((3, 67), (3, 67)),
            {"x": ("constant_factor",), "target": ("constant_factor",)}),
    Planted("length: the upstream gradient is ignored", length, length_backward, _length_alone,
            normal((3, 4)), {"x": ("ignores_upstream",)}),
    Planted("cross_entropy: the one at the label is not taken off", cross_entropy, cross_entropy_backward,
            _cross_entropy_no_label, followed_by(normal((4, 5)), [2, 0, 4, 2]), {"logits": ("missing_term",)}),
]
