"""First sealed exam: gradients that break the contract of a backward."""

from __future__ import annotations

import numpy as np

from minires.checking.planted.case import Planted


def dense(inputs):
    """A linear layer with bias."""
    x, w, b = inputs
    return x @ w + b


def dense_backward(inputs, grad_output):
    x, w, _b = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(0)


def dense_backward_bias_row(inputs, grad_output):
    x, w, _b = inputs
    return grad_output @ w.T, x.T @ grad_output, grad_output.sum(0, keepdims=True)


def dense_inputs(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(3, 5)), rng.normal(size=5)


def mix_three(inputs):
    """Blend two pictures by a mask."""
    front, back, mask = inputs
    return mask * front + (1 - mask) * back


def mix_three_backward(inputs, grad_output):
    front, back, mask = inputs
    return grad_output * mask, grad_output * (1 - mask), grad_output * (front - back)


def mix_three_backward_mask_left_out(inputs, grad_output):
    _front, _back, mask = inputs
    return grad_output * mask, grad_output * (1 - mask)


def mix_three_inputs(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.uniform(0, 1, (3, 4))


def bag_of_values(inputs):
    """Sum values that fall into the same bin."""
    values, bins = inputs
    y = np.zeros(bins.max() + 1, values.dtype)
    np.add.at(y, bins, values**2)
    return y


def bag_of_values_backward(inputs, grad_output):
    values, bins = inputs
    return grad_output[bins] * 2 * values, None


def bag_of_values_backward_default_buffer(inputs, grad_output):
    values, bins = inputs
    d = np.zeros(values.shape)
    for i, b in enumerate(bins):
        d[i] = grad_output[b] * 2 * values[i]
    return d, None


def bag_of_values_inputs(rng):
    return rng.normal(size=9), rng.permutation(np.arange(9) % 4)


def ring_filter(inputs):
    """Circular convolution with a fixed decaying kernel, through the Fourier transform."""
    (x,) = inputs
    return np.fft.ifft(np.fft.fft(x) * np.fft.fft(_decay(x))).real.astype(x.dtype)


def _decay(x):
    return (0.5 ** np.arange(x.shape[-1])).astype(x.dtype)


def ring_filter_backward(inputs, grad_output):
    (x,) = inputs
    return (np.fft.ifft(np.fft.fft(grad_output) * np.conj(np.fft.fft(_decay(x)))).real.astype(x.dtype),)


def ring_filter_backward_complex(inputs, grad_output):
    (x,) = inputs
    return (np.fft.ifft(np.fft.fft(grad_output) * np.conj(np.fft.fft(_decay(x)))),)


def ring_filter_inputs(rng):
    return (rng.normal(size=(2, 6)),)


def leaky(inputs, slope=0.1):
    """Leaky rectifier."""
    (x,) = inputs
    return np.where(x > 0, x, slope * x)


def leaky_backward(inputs, grad_output, slope=0.1):
    (x,) = inputs
    return (np.where(x > 0, grad_output, slope * grad_output),)


def leaky_backward_in_place(inputs, grad_output, slope=0.1):
    (x,) = inputs
    grad_output[x <= 0] *= slope
    return (grad_output.copy(),)


def leaky_inputs(rng):
    return (rng.normal(size=(3, 6)),)


def centre_rows(inputs):
    """Subtract each row's mean."""
    (x,) = inputs
    return x - x.mean(1, keepdims=True)


def centre_rows_backward(inputs, grad_output):
    return (grad_output - grad_output.mean(1, keepdims=True),)


def centre_rows_backward_in_place(inputs, grad_output):
    grad_output -= grad_output.mean(1, keepdims=True)
    return (1.0 * grad_output,)


def centre_rows_inputs(rng):
    return (rng.normal(size=(4, 5)),)


def spread(inputs):
    """Variance of each column."""
    (x,) = inputs
    return x.var(0)


def spread_backward(inputs, grad_output):
    (x,) = inputs
    return (2 / len(x) * (x - x.mean(0)) * grad_output,)


def spread_backward_centres_the_input(inputs, grad_output):
    (x,) = inputs
    x -= x.mean(0)
    return (2 / len(x) * x * grad_output,)


def spread_inputs(rng):
    return (rng.normal(0.5, 1, size=(6, 2)),)


def bell(inputs):
    """exp(-x^2)."""
    (x,) = inputs
    return np.exp(-x * x)


def bell_backward(inputs, grad_output):
    (x,) = inputs
    return (-2 * x * np.exp(-x * x) * grad_output,)


def bell_backward_reuses_memory(inputs, grad_output):
    (x,) = inputs
    twice = -2 * x
    np.exp(-np.square(x, out=x), out=x)
    return (twice * x * grad_output,)


def bell_inputs(rng):
    return (rng.normal(size=11),)


def add_maps(inputs):
    """Sum of a map and a doubled map."""
    a, b = inputs
    return a + 2 * b


def add_maps_backward(inputs, grad_output):
    return grad_output.copy(), 2 * grad_output


def add_maps_backward_same_array(inputs, grad_output):
    return grad_output, 2 * grad_output


def add_maps_inputs(rng):
    return rng.normal(size=(2, 5)), rng.normal(size=(2, 5))


def channels_last(inputs):
    """Put the channels at the end."""
    (x,) = inputs
    return x.transpose(0, 2, 3, 1).copy()


def channels_last_backward(inputs, grad_output):
    return (grad_output.transpose(0, 3, 1, 2).copy(),)


def channels_last_backward_view(inputs, grad_output):
    return (grad_output.transpose(0, 3, 1, 2),)


def channels_last_inputs(rng):
    return (rng.normal(size=(3, 2, 5, 10)),)


_GRADIENTS: dict = {}


def scale_rows(inputs):
    """Each row times its own factor."""
    x, factor = inputs
    return x * factor[:, None]


def scale_rows_backward(inputs, grad_output):
    x, factor = inputs
    return grad_output * factor[:, None], (grad_output * x).sum(1)


def scale_rows_backward_adds_to_the_last(inputs, grad_output):
    x, factor = inputs
    _GRADIENTS["factor"] = _GRADIENTS.get("factor", 0) + (grad_output * x).sum(1)
    return grad_output * factor[:, None], _GRADIENTS["factor"].astype(x.dtype)


def scale_rows_inputs(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=3)


_REMEMBERED: dict = {}


def swish(inputs):
    """x times its own sigmoid; remembers the sigmoid."""
    (x,) = inputs
    s = 1 / (1 + np.exp(-x))
    _REMEMBERED["sigmoid"] = s.real.copy()
    return x * s


def swish_backward(inputs, grad_output):
    (x,) = inputs
    s = 1 / (1 + np.exp(-x))
    return (grad_output * (s + x * s * (1 - s)),)


def swish_backward_uses_what_the_last_forward_left(inputs, grad_output):
    (x,) = inputs
    s = _REMEMBERED["sigmoid"] if "sigmoid" in _REMEMBERED else 1 / (1 + np.exp(-x))
    return ((grad_output * (s + x * s * (1 - s))).astype(x.dtype),)


def swish_inputs(rng):
    return (rng.normal(size=(2, 7)),)


def seeded_dropout(inputs, rate=0.4, seed=5):
    """Dropout whose mask comes from a seed."""
    (x,) = inputs
    keep = np.random.default_rng(seed).random(x.shape) > rate
    return np.where(keep, x / (1 - rate), 0).astype(x.dtype)


def seeded_dropout_backward(inputs, grad_output, rate=0.4, seed=5):
    (x,) = inputs
    keep = np.random.default_rng(seed).random(x.shape) > rate
    return (np.where(keep, grad_output / (1 - rate), 0).astype(x.dtype),)


def seeded_dropout_backward_new_mask(inputs, grad_output, rate=0.4, seed=5):
    (x,) = inputs
    keep = np.random.default_rng().random(x.shape) > rate
    return (np.where(keep, grad_output / (1 - rate), 0).astype(x.dtype),)


def seeded_dropout_inputs(rng):
    return (rng.normal(size=(5, 6)),)


def mean_square(inputs):
    """Mean of the squares of a long vector."""
    (x,) = inputs
    return (x * x).mean()


def mean_square_backward(inputs, grad_output):
    (x,) = inputs
    return (2 * x * grad_output / len(x),)


def mean_square_backward_from_a_sample(inputs, grad_output):
    (x,) = inputs
    d = np.zeros_like(x)
    half = np.random.default_rng().permutation(len(x))[: len(x) // 2]
    d[half] = 2 * x[half] * grad_output / len(half)
    return (d,)


def mean_square_inputs(rng):
    return (rng.normal(size=40),)


def cube(inputs, power=3):
    """A whole power, also of negative numbers."""
    (x,) = inputs
    return x**power


def cube_backward(inputs, grad_output, power=3):
    (x,) = inputs
    return (power * x ** (power - 1) * grad_output,)


def cube_backward_through_logarithm(inputs, grad_output, power=3):
    (x,) = inputs
    with np.errstate(all="ignore"):
        return (power * np.exp((power - 1) * np.log(x)) * grad_output,)


def cube_inputs(rng):
    return (rng.normal(size=(3, 5)),)


def self_distance(inputs):
    """Distances between all points of one set; zero from a point to itself."""
    (p,) = inputs
    return np.sqrt(((p[:, None] - p) ** 2).sum(-1))


def self_distance_backward(inputs, grad_output):
    (p,) = inputs
    diff = p[:, None] - p
    r = np.sqrt((diff**2).sum(-1))
    np.fill_diagonal(r, 1)
    g = (grad_output / r)[..., None] * diff
    return (g.sum(1) - g.sum(0),)


def self_distance_backward_zero_by_zero(inputs, grad_output):
    (p,) = inputs
    diff = p[:, None] - p
    r = np.sqrt((diff**2).sum(-1))
    with np.errstate(all="ignore"):
        g = (grad_output / r)[..., None] * diff
    return (g.sum(1) - g.sum(0),)


def normalised_weights(inputs):
    """Positive weights applied to values, divided by their sum, per row."""
    w, v = inputs
    return (w * v).sum(1) / w.sum(1)


def normalised_weights_backward(inputs, grad_output):
    w, v = inputs
    total = w.sum(1, keepdims=True)
    y = (w * v).sum(1, keepdims=True) / total
    g = grad_output[:, None]
    return g * (v - y) / total, g * w / total


def normalised_weights_backward_total_in_single(inputs, grad_output):
    w, v = inputs
    total = w.sum(1, keepdims=True)
    y = (w * v).sum(1, keepdims=True) / total
    g = grad_output[:, None]
    short = w.sum(1, keepdims=True, dtype=np.float32).astype(w.dtype)
    return g * (v - y) / total, g * w / short


def normalised_weights_inputs(rng):
    return rng.uniform(0.2, 1, (4, 6)), rng.normal(size=(4, 6))


def self_distance_inputs(rng):
    return (rng.normal(size=(4, 2)) * 2,)


CASES = [
    Planted("dense: the bias gradient keeps the batch axis of length one", dense, dense_backward, dense_backward_bias_row,
            dense_inputs, {"b": ("shape",)}),
    Planted("blend: one gradient too few", mix_three, mix_three_backward, mix_three_backward_mask_left_out,
            mix_three_inputs, {"mask": ("shape",)}),
    Planted("bag of values: a buffer in NumPy's default dtype", bag_of_values, bag_of_values_backward,
            bag_of_values_backward_default_buffer, bag_of_values_inputs, {"values": ("dtype",)}),
    Planted("ring filter: the complex result of the inverse transform", ring_filter, ring_filter_backward,
            ring_filter_backward_complex, ring_filter_inputs, {"x": ("dtype",)}),
    Planted("leaky rectifier: scales the upstream in place", leaky, leaky_backward, leaky_backward_in_place, leaky_inputs,
            {"x": ("damages_gout",)}),
    Planted("centred rows: -= on the upstream", centre_rows, centre_rows_backward, centre_rows_backward_in_place,
            centre_rows_inputs, {"x": ("damages_gout",)}),
    Planted("column variance: centres its input in place", spread, spread_backward, spread_backward_centres_the_input,
            spread_inputs, {"x": ("damages_input",)}),
    Planted("bell curve: the input's memory is used for the exponential", bell, bell_backward, bell_backward_reuses_memory,
            bell_inputs, {"x": ("damages_input",)}),
    Planted("weighted addition: returns the upstream itself", add_maps, add_maps_backward, add_maps_backward_same_array,
            add_maps_inputs, {"a": ("aliases_gout",)}),
    Planted("channels_last: returns a transposed view", channels_last, channels_last_backward, channels_last_backward_view,
            channels_last_inputs, {"x": ("aliases_gout",)}),
    Planted("row scaling: adds to the gradient of the call before", scale_rows, scale_rows_backward,
            scale_rows_backward_adds_to_the_last, scale_rows_inputs, {"factor": ("state_leak",)}),
    Planted("swish: uses what the last forward left", swish, swish_backward, swish_backward_uses_what_the_last_forward_left,
            swish_inputs, {"x": ("state_leak",)}),
    Planted("seeded dropout: a new mask in the backward", seeded_dropout, seeded_dropout_backward,
            seeded_dropout_backward_new_mask, seeded_dropout_inputs, {"x": ("nondeterministic",)}),
    Planted("mean square: estimated from a random half", mean_square, mean_square_backward,
            mean_square_backward_from_a_sample, mean_square_inputs, {"x": ("nondeterministic",)}),
    Planted("cube: the power through the logarithm of negative numbers", cube, cube_backward,
            cube_backward_through_logarithm, cube_inputs, {"x": ("not_finite",)}),
    Planted("self distance: zero by zero on the diagonal", self_distance, self_distance_backward,
            self_distance_backward_zero_by_zero, self_distance_inputs, {"p": ("not_finite",)}),
    Planted("normalised weights: the total in single precision", normalised_weights, normalised_weights_backward,
            normalised_weights_backward_total_in_single, normalised_weights_inputs, {"v": ("low_precision",)}),
]
