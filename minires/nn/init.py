"""What weights are before training: distributions whose spread keeps signals at the same size from layer to layer.

All functions overwrite a Tensor in place and return it. Numbers come from :func:`minires.random.generator`, on the CPU,
so that a seed gives the same network on every device.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from minires import random
from minires.device import to_device
from minires.tensor import Tensor

__all__ = [
    "bilinear_", "calculate_fans", "calculate_gain", "constant_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_",
    "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip

_T = TypeVar("_T", bound=Tensor)


def calculate_fans(tensor: Tensor) -> tuple[int, int]:
    """``(fan_in, fan_out)``: how many numbers enter, and leave, one unit of a weight of shape (O, I, ...).

    For a convolution both are multiplied by the size of the kernel.

    Raises:
        ValueError: fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ValueError(f"calculate_fans: a weight has at least two axes (out, in, ...), this one has shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much the weights in front of a nonlinearity have to be wider to make up for what it takes away.

    Args:
        nonlinearity: "linear", "conv2d", "sigmoid", "tanh", "relu" or "leaky_relu".
        param: the negative slope of "leaky_relu" (default 0.01).
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1 + slope**2)),
    }  # fmt: skip
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; expected one of {', '.join(gains)}")
    return gains[nonlinearity]


def uniform_(tensor: _T, a: float = 0.0, b: float = 1.0) -> _T:
    """Uniform in [a, b)."""
    return _write(tensor, a + (b - a) * random.generator().random(tensor.shape, dtype=_draw_dtype(tensor)))


def normal_(tensor: _T, mean: float = 0.0, std: float = 1.0) -> _T:
    """Normal with the given mean and standard deviation."""
    return _write(tensor, mean + std * random.generator().standard_normal(tensor.shape, dtype=_draw_dtype(tensor)))


def constant_(tensor: _T, val: float) -> _T:
    """``val`` everywhere."""
    tensor.assign(val)
    return tensor


def zeros_(tensor: _T) -> _T:
    """0 everywhere."""
    return constant_(tensor, 0)


def ones_(tensor: _T) -> _T:
    """1 everywhere."""
    return constant_(tensor, 1)


def xavier_uniform_(tensor: _T, gain: float = 1.0) -> _T:
    """Uniform with variance gain²·2/(fan_in + fan_out) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6.0 / sum(calculate_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: _T, gain: float = 1.0) -> _T:
    """Normal with variance gain²·2/(fan_in + fan_out) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(calculate_fans(tensor))))


def kaiming_uniform_(tensor: _T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> _T:
    """Uniform with variance gain²/fan (He et al. 2015, also called MSRA).

    Args:
        tensor: the weight.
        a: negative slope of the leaky ReLU that follows.
        mode: "fan_in" keeps the size of the signal on the way forward, "fan_out" that of the gradient on the way back.
        nonlinearity: what follows; see :func:`calculate_gain`.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: _T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> _T:
    """Normal with variance gain²/fan (He et al. 2015, also called MSRA); arguments as :func:`kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def bilinear_(tensor: _T) -> _T:
    """The weight (C, 1, k, k) or (C, C, k, k) with which a transposed convolution interpolates bilinearly.

    Each channel goes to itself only. With k = 2·stride and padding = stride/2 the layer starts as an upsampling by
    ``stride`` (Long, Shelhamer and Darrell 2015, FCN).
    """
    if tensor.ndim != 4 or tensor.shape[1] not in (1, tensor.shape[0]):
        raise ValueError(f"bilinear_: expected a weight of shape (C, 1, kH, kW) or (C, C, kH, kW), got {tensor.shape}")
    kernel = np.outer(_triangle(tensor.shape[2]), _triangle(tensor.shape[3]))  # (kH, kW)
    weight = np.zeros(tensor.shape)
    for channel in range(tensor.shape[0]):
        weight[channel, channel if tensor.shape[1] > 1 else 0] = kernel
    return _write(tensor, weight)


def _triangle(size: int) -> np.ndarray[Any, Any]:
    """The weights of linear interpolation at the places of a kernel of ``size``: a tent, highest in the middle."""
    half = (size + 1) // 2
    center = half - 1 if size % 2 else half - 0.5
    return np.asarray(1 - np.abs(np.arange(size) - center) / half)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, calculate_fans(tensor)[mode == "fan_out"]))


def _draw_dtype(tensor: Tensor) -> Any:
    return np.float64 if tensor.dtype == np.float64 else np.float32


def _write(tensor: _T, values: np.ndarray[Any, Any]) -> _T:
    tensor.assign(to_device(values.astype(tensor.dtype, copy=False), tensor.device))
    return tensor
