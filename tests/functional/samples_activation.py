"""Sample inputs for activations. The references are the formulas, one number at a time, with Python's math module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample


def each(function: Callable[..., float]) -> Callable[..., np.ndarray]:
    """A function of one number as a function of arrays."""
    return lambda x, **options: np.reshape([function(float(v), **options) for v in x.ravel()], x.shape)


def _gelu(v: float, approximate: str = "none") -> float:
    if approximate == "tanh":
        return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
    return 0.5 * v * math.erfc(-v / math.sqrt(2))


def _softplus(v: float, beta: float = 1.0, threshold: float = 20.0) -> float:
    return v if v * beta > threshold else math.log1p(math.exp(v * beta)) / beta


def _softmax(x: np.ndarray, dim: int) -> np.ndarray:
    out = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        row = x[tuple(slice(None) if axis == dim % x.ndim else i for axis, i in enumerate(index))]
        out[index] = math.exp(x[index]) / sum(math.exp(v) for v in row)
    return out


def _smooth(name: str, op: Any, function: Callable[..., float], **options: Any) -> Sample:
    return Sample(name, op, lambda rng: ((rng.uniform(-4, 4, (3, 5)),), options), each(function))


def _along(op: Any, reference: Callable[..., Any]) -> list[Sample]:
    name = op.name
    return [
        Sample(name, op, lambda rng: ((rng.standard_normal((3, 4)),), {"dim": 1}), reference),
        Sample(f"{name}-channels", op, lambda rng: ((rng.standard_normal((2, 4, 3, 2)),), {"dim": 1}), reference),
        Sample(f"{name}-negative-dim", op, lambda rng: ((rng.standard_normal((2, 3, 4)), -3), {}), reference),
        Sample(f"{name}-ties", op, lambda rng: ((np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]),), {"dim": -1}), reference),
    ]


def _large(op: Any) -> Sample:
    """Numbers whose exponential overflows, and minus infinity."""
    make = lambda rng: ((np.array([[1000.0, 999.0, -1000.0], [-np.inf, 2.0, 1.0]]),), {"dim": 1})  # noqa: E731
    return Sample(f"{op.name}-large", op, make, smooth=False, second=False)  # ∞·0 is NaN


SAMPLES = [
    _smooth("relu", F.relu, lambda v: max(v, 0)),
    Sample("relu-at-zero", F.relu, lambda rng: ((np.array([-1.0, 0.0, 2.0]),), {}), smooth=False),
    _smooth("leaky_relu", F.leaky_relu, lambda v: v if v > 0 else 0.01 * v),
    _smooth(
        "leaky_relu-slope", F.leaky_relu, lambda v, negative_slope: v if v > 0 else negative_slope * v, negative_slope=0.3
    ),
    Sample("leaky_relu-at-zero", F.leaky_relu, lambda rng: ((np.array([-1.0, 0.0, 2.0]), 0.5), {}), smooth=False),
    _smooth("sigmoid", F.sigmoid, lambda v: 1 / (1 + math.exp(-v))),
    Sample("sigmoid-large", F.sigmoid, lambda rng: ((np.array([-1000.0, -40.0, 0.0, 1000.0]),), {})),
    _smooth("tanh", F.tanh, math.tanh),
    _smooth("silu", F.silu, lambda v: v / (1 + math.exp(-v))),
    _smooth("softplus", F.softplus, _softplus),
    _smooth("softplus-beta", F.softplus, _softplus, beta=2.5),
    _smooth("softplus-threshold", F.softplus, _softplus, beta=1.5, threshold=3.0),
    Sample("softplus-at-threshold", F.softplus, lambda rng: ((np.array([0.5, 1.0, 1.5]), 1.0, 1.0), {}), smooth=False),
    Sample("softplus-large", F.softplus, lambda rng: ((np.array([-1000.0, -30.0, 0.0, 30.0, 1000.0]),), {})),
    _smooth("gelu", F.gelu, _gelu),
    _smooth("gelu-tanh", F.gelu, _gelu, approximate="tanh"),
    _smooth("erf", F.erf, math.erf),
    Sample("erf-large", F.erf, lambda rng: ((np.array([-50.0, -7.0, 0.0, 1e-9, 5.9]),), {}), each(math.erf)),
    *_along(F.softmax, _softmax),
    *_along(F.log_softmax, lambda x, dim: np.log(_softmax(x, dim))),
    _large(F.softmax),
    _large(F.log_softmax),
]

BAD_CALLS = [
    BadCall(
        "softmax-dim", lambda: F.softmax(np.zeros((2, 3)), 2), r"softmax: dim 2 is out of range.*\n.*\(2, 3\)", ShapeError
    ),
    BadCall(
        "log_softmax-dim", lambda: F.log_softmax(np.zeros((2, 3)), -3), "log_softmax: dim -3 is out of range", ShapeError
    ),
    BadCall("softmax-no-dim", lambda: F.softmax(np.zeros(3)), "softmax: missing argument 'dim'", TypeError),
    BadCall("gelu-approximate", lambda: F.gelu(np.zeros(3), "fast"), "gelu: approximate must be 'none' or 'tanh', got"),
]
