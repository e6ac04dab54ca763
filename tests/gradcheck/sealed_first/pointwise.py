"""First sealed exam: elementwise functions and polynomials."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def prelu(inputs):
    """Identity above zero, a learned slope per channel below."""
    x, slope = inputs
    return np.where(x > 0, x, slope * x)


def prelu_backward(inputs, grad_output):
    x, slope = inputs
    below = np.where(x > 0, 0, grad_output)
    return np.where(x > 0, grad_output, slope * grad_output), (below * x).sum((0, 2), keepdims=True)[0]


def prelu_backward_slope_per_entry(inputs, grad_output):
    x, slope = inputs
    below = np.where(x > 0, 0, grad_output)
    return np.where(x > 0, grad_output, slope * grad_output), below * x


def prelu_inputs(rng):
    return rng.normal(size=(2, 3, 5)), rng.uniform(0.1, 0.4, (3, 1))


def polynomial(inputs):
    """Values of a polynomial with the constant coefficient first."""
    coefficients, x = inputs
    y = np.zeros_like(x)
    for c in coefficients[::-1]:
        y = y * x + c
    return y


def polynomial_backward(inputs, grad_output):
    coefficients, x = inputs
    powers = np.vander(x, len(coefficients), increasing=True).astype(x.dtype)
    k = np.arange(1, len(coefficients), dtype=x.dtype)
    return powers.T @ grad_output, grad_output * (powers[:, :-1] @ (k * coefficients[1:]))


def polynomial_backward_powers_fall(inputs, grad_output):
    coefficients, x = inputs
    powers = np.vander(x, len(coefficients), increasing=True).astype(x.dtype)
    k = np.arange(1, len(coefficients), dtype=x.dtype)
    falling = powers[:, ::-1]
    return falling.T @ grad_output, grad_output * (powers[:, :-1] @ (k * coefficients[1:]))


def polynomial_inputs(rng):
    return rng.normal(size=4), rng.uniform(-1.5, 1.5, 6)


def moving_sum(inputs):
    """Weighted mean of each sample's last values: signals (N, T) and taps (K,)."""
    signal, taps = inputs
    k = len(taps)
    windows = np.lib.stride_tricks.sliding_window_view(signal, k, axis=1)
    return windows @ taps / k


def moving_sum_backward(inputs, grad_output):
    signal, taps = inputs
    k = len(taps)
    windows = np.lib.stride_tricks.sliding_window_view(signal, k, axis=1)
    d = np.zeros_like(signal)
    for i in range(k):
        d[:, i : i + grad_output.shape[1]] += grad_output * taps[i] / k
    return d, np.einsum("nt,ntk->k", grad_output, windows) / k


def moving_sum_backward_taps_reversed_and_not_divided(inputs, grad_output):
    signal, taps = inputs
    k = len(taps)
    windows = np.lib.stride_tricks.sliding_window_view(signal, k, axis=1)
    d = np.zeros_like(signal)
    for i in range(k):
        d[:, i : i + grad_output.shape[1]] += grad_output * taps[i] / k
    return d, np.einsum("nt,ntk->k", grad_output, windows)[::-1].copy()


def moving_sum_inputs(rng):
    return rng.normal(size=(2, 8)), rng.normal(size=3)


def dropout(inputs, rate=0.25):
    """Inverted dropout with a mask that is drawn elsewhere."""
    x, mask = inputs
    return x * mask / (1 - rate)


def dropout_backward(inputs, grad_output, rate=0.25):
    x, mask = inputs
    return (grad_output * mask / (1 - rate)).astype(x.dtype), None


def dropout_backward_mask_forgotten(inputs, grad_output, rate=0.25):
    _x, _mask = inputs
    return grad_output / (1 - rate), None


def dropout_inputs(rng):
    return rng.normal(size=(4, 6)), rng.permutation(np.arange(24) % 3 > 0).reshape(4, 6).astype(np.int8)


CASES = [
    Planted("prelu: one slope gradient per entry", prelu, prelu_backward, prelu_backward_slope_per_entry, prelu_inputs,
            {"slope": ("missing_broadcast_sum",)}),
    Planted("polynomial: the powers fall where the coefficients rise", polynomial, polynomial_backward,
            polynomial_backward_powers_fall, polynomial_inputs, {"coefficients": ("axis_reversed",)}),
    Planted("moving mean: the taps' gradient is reversed and not divided", moving_sum, moving_sum_backward,
            moving_sum_backward_taps_reversed_and_not_divided, moving_sum_inputs,
            {"taps": ("axis_reversed", "constant_factor")}, twice=True),
    Planted("dropout: the mask is not applied to the upstream", dropout, dropout_backward, dropout_backward_mask_forgotten,
            dropout_inputs, {"x": ("missing_operand",)}),
]
