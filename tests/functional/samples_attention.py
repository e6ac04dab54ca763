"""Sample inputs for the paper's attention. The references are its formulas, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample


def _logistic(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def _each_pair(function: Callable[[float, float], float]) -> Callable[..., np.ndarray]:
    def reference(trunk: np.ndarray, mask: np.ndarray) -> np.ndarray:
        pairs = zip(trunk.ravel().tolist(), mask.ravel().tolist(), strict=True)
        return np.reshape([function(f, m) for f, m in pairs], trunk.shape)

    return reference


def _channels(z: np.ndarray) -> np.ndarray:
    out = np.empty(z.shape)
    for index in np.ndindex(z.shape):
        n, _, *place = index
        length = math.sqrt(sum(float(z[(n, c, *place)]) ** 2 for c in range(z.shape[1])))
        out[index] = z[index] / (length or 1)
    return out


def _places(z: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    out = np.empty(z.shape)
    for index in np.ndindex(z.shape):
        values = z[index[:2]].ravel().tolist()
        mean = sum(values) / len(values)
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + eps)
        out[index] = _logistic((z[index] - mean) / (std or 1))
    return out


def _torch_places(torch: Any, z: Any, eps: float = 1e-5) -> Any:
    mean = z.flatten(2).mean(2).reshape(*z.shape[:2], *(1 for _ in z.shape[2:]))
    variance = ((z - mean) ** 2).flatten(2).mean(2).reshape(mean.shape)
    return torch.sigmoid((z - mean) / (variance + eps).sqrt())


def _two(*shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda rng: ((rng.standard_normal(shape), rng.standard_normal(shape)), {})


def _one(*shape: int, **options: Any) -> Callable[[np.random.Generator], Any]:
    return lambda rng: ((rng.standard_normal(shape),), options)


def _some_zero(rng: np.random.Generator) -> Any:
    z = rng.standard_normal((2, 3, 2))
    z[1, :, 0] = 0
    return (z,), {}


def _some_constant(rng: np.random.Generator) -> Any:
    z = rng.standard_normal((2, 2, 3, 2))
    z[1, 0] = 0.75
    return (z,), {}


def _some_constant_no_eps(rng: np.random.Generator) -> Any:
    return _some_constant(rng)[0], {"eps": 0.0}


_NO_PEER = "PyTorch divides a vector of zeros by 1e-12, which makes its gradient 1e12 times the upstream one"

SAMPLES = [
    Sample("residual_attention", F.residual_attention, _two(2, 3, 4, 2), _each_pair(lambda f, m: (1 + m) * f),
           lambda torch, f, m: (1 + m) * f),
    Sample("residual_attention-square", F.residual_attention, _two(2, 2, 2, 2), _each_pair(lambda f, m: (1 + m) * f),
           lambda torch, f, m: (1 + m) * f),
    Sample("naive_attention", F.naive_attention, _two(2, 3, 4, 2), _each_pair(lambda f, m: m * f),
           lambda torch, f, m: m * f),
    Sample("gated_residual", F.gated_residual, _two(2, 3, 4, 2), _each_pair(lambda f, z: (1 + _logistic(z)) * f),
           lambda torch, f, z: (1 + torch.sigmoid(z)) * f),
    Sample("gated_residual-extreme", F.gated_residual,
           lambda rng: ((np.array([2.0, -3.0, 1.0, 5.0]), np.array([800.0, -800.0, 0.0, -30.0])), {}), None,
           lambda torch, f, z: (1 + torch.sigmoid(z)) * f, smooth=False),
    Sample("mixed_attention", F.mixed_attention, _one(2, 3, 4, 2),
           lambda z: np.reshape([_logistic(v) for v in z.ravel().tolist()], z.shape), lambda torch, z: torch.sigmoid(z)),
    Sample("channel_attention", F.channel_attention, _one(2, 3, 4, 2), _channels,
           lambda torch, z: torch.nn.functional.normalize(z, dim=1)),
    Sample("channel_attention-matrix", F.channel_attention, _one(4, 3), _channels,
           lambda torch, z: torch.nn.functional.normalize(z, dim=1)),
    Sample("channel_attention-zeros", F.channel_attention, _some_zero, _channels, _NO_PEER, smooth=False),
    Sample("spatial_attention", F.spatial_attention, _one(2, 3, 4, 2), _places, _torch_places),
    Sample("spatial_attention-square", F.spatial_attention, _one(2, 2, 2, 2), _places, _torch_places),
    Sample("spatial_attention-no-eps", F.spatial_attention, _one(2, 2, 5, eps=0.0), _places, _torch_places),
    Sample("spatial_attention-constant-map", F.spatial_attention, _some_constant, _places, _torch_places, second=False),
    Sample("spatial_attention-constant-map-no-eps", F.spatial_attention, _some_constant_no_eps, _places,
           "PyTorch gives NaN for a std of 0", smooth=False),
]  # fmt: skip


BAD_CALLS = [
    BadCall("residual_attention-shapes", lambda: F.residual_attention(np.zeros((2, 3, 4, 4)), np.zeros((2, 1, 4, 4))),
            r"residual_attention: trunk and mask must have the same shape\n  trunk \(N=2, C=3, H=4, W=4\)\n"
            r"  mask  \(N=2, C=1, H=4, W=4\)", ShapeError),
    BadCall("naive_attention-shapes", lambda: F.naive_attention(np.zeros((2, 3)), np.zeros((3, 2))), "same shape",
            ShapeError),
    BadCall("gated_residual-shapes", lambda: F.gated_residual(np.zeros((2, 3)), np.zeros(3)), "trunk and logits",
            ShapeError),
    BadCall("channel_attention-axes", lambda: F.channel_attention(np.zeros(3)), "at least 2 axes", ShapeError),
    BadCall("spatial_attention-axes", lambda: F.spatial_attention(np.zeros((2, 3))), "at least 3 axes", ShapeError),
]  # fmt: skip
