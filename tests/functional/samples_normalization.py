"""Sample inputs for the normalisations. The references loop over the groups of numbers that are normalised together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import Tensor
from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample, beside

Index = tuple[int, ...]


def normalized(x: np.ndarray, group_of: Callable[[Index], Any], eps: float = 1e-5) -> np.ndarray:
    """Each element normalised with all others for whose index ``group_of`` says the same."""
    groups: dict[Any, list[float]] = {}
    for index in np.ndindex(x.shape):
        groups.setdefault(group_of(index), []).append(float(x[index]))
    out = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        values = groups[group_of(index)]
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        out[index] = (x[index] - mean) / math.sqrt(variance + eps)
    return out


def scaled(x: np.ndarray, weight: Any = None, bias: Any = None) -> np.ndarray:
    """x·weight + bias for each channel (axis 1)."""
    out = x.copy()
    for index in np.ndindex(x.shape):
        channel = index[1]
        out[index] = x[index] * (1 if weight is None else weight[channel]) + (0 if bias is None else bias[channel])
    return out


# ------------------------------------------------------------------------------------ batch norm


def _training(op: Any, **options: Any) -> Callable[..., Any]:
    """Batch norm in training, with running statistics of its own."""

    def function(x: Any, weight: Any = None, bias: Any = None) -> Any:
        mean, variance = beside(x, np.zeros(x.shape[1])), beside(x, np.ones(x.shape[1]))
        return op(x, mean, variance, weight, bias, training=True, **options)

    return function


def _evaluation(op: Any, array: Callable[[Any], Any], **options: Any) -> Callable[..., Any]:
    """Batch norm in evaluation, with running statistics that differ for each channel."""

    def function(x: Any, weight: Any = None, bias: Any = None) -> Any:
        mean, variance = np.arange(x.shape[1]) * 0.3 - 0.2, np.arange(x.shape[1]) * 0.5 + 0.7
        return op(x, beside(x, array(mean)), beside(x, array(variance)), weight, bias, training=False, **options)

    return function


def _torch_training(relu: bool, **options: Any) -> Callable[..., Any]:
    def function(torch: Any, x: Any, weight: Any = None, bias: Any = None) -> Any:
        y = torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True, **options)
        return torch.relu(y) if relu else y

    return function


def _torch_evaluation(relu: bool) -> Callable[..., Any]:
    def function(torch: Any, *args: Any) -> Any:
        y = _evaluation(torch.nn.functional.batch_norm, torch.tensor)(*args)
        return torch.relu(y) if relu else y

    return function


def _reference(training: bool, relu: bool, eps: float = 1e-5) -> Callable[..., np.ndarray]:
    def function(x: np.ndarray, weight: Any = None, bias: Any = None) -> np.ndarray:
        if training:
            out = normalized(x, lambda index: index[1], eps)
        else:
            out = np.empty(x.shape)
            for index in np.ndindex(x.shape):
                mean, variance = index[1] * 0.3 - 0.2, index[1] * 0.5 + 0.7
                out[index] = (x[index] - mean) / math.sqrt(variance + eps)
        out = scaled(out, weight, bias)
        return np.where(out > 0, out, 0) if relu else out

    return function


def _inputs(*shape: int, affine: bool = True) -> Callable[[np.random.Generator], Any]:
    def make(rng: np.random.Generator) -> Any:
        x = rng.standard_normal(shape) + 0.5
        return (x, *((rng.standard_normal(shape[1]), rng.standard_normal(shape[1])) if affine else ())), {}

    return make


def _batch_norm(op: Any, relu: bool) -> list[Sample]:
    name = op.__name__
    shapes = {"": (2, 3, 4, 2), "-square": (2, 2, 2, 2), "-matrix": (5, 3), "-line": (3, 2, 4), "-volume": (2, 2, 1, 3, 2)}
    samples = [
        Sample(name + kind, _training(op), _inputs(*shape), _reference(True, relu), _torch_training(relu))
        for kind, shape in shapes.items()
    ]
    return [
        *samples,
        Sample(f"{name}-plain", _training(op), _inputs(3, 2, 2, 4, affine=False), _reference(True, relu),
               _torch_training(relu)),
        Sample(f"{name}-eps", _training(op, eps=0.3), _inputs(2, 3, 4, 2), _reference(True, relu, 0.3),
               _torch_training(relu, eps=0.3)),
        Sample(f"{name}-eval", _evaluation(op, np.asarray), _inputs(2, 3, 4, 2), _reference(False, relu),
               _torch_evaluation(relu)),
        Sample(f"{name}-eval-plain", _evaluation(op, lambda v: Tensor(np.asarray(v))), _inputs(2, 3, 4, affine=False),
               _reference(False, relu), _torch_evaluation(relu)),
        Sample(f"{name}-eval-one-value", _evaluation(op, np.asarray), _inputs(1, 3), _reference(False, relu),
               _torch_evaluation(relu)),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ the others


def _layer_norm_reference(x: np.ndarray, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> np.ndarray:
    axes = 1 if isinstance(shape, int) else len(shape)
    out = normalized(x, lambda index: index[: x.ndim - axes], eps)
    for index in np.ndindex(x.shape):
        inner = index[x.ndim - axes :]
        out[index] = out[index] * (1 if weight is None else weight[inner]) + (0 if bias is None else bias[inner])
    return out


def _torch_layer_norm(torch: Any, x: Any, size: int, *parameters: Any, **options: Any) -> Any:
    return torch.nn.functional.layer_norm(x, (size,), *parameters, **options)


def _group_norm_reference(x: np.ndarray, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> np.ndarray:
    size = x.shape[1] // groups
    return scaled(normalized(x, lambda index: (index[0], index[1] // size), eps), weight, bias)


def _instance_norm_reference(
    x: np.ndarray, mean: None = None, variance: None = None, weight: Any = None, bias: Any = None
) -> np.ndarray:
    return scaled(normalized(x, lambda index: index[:2]), weight, bias)


def _layer(*shape: int, axes: int, affine: bool = True, **options: Any) -> Callable[[np.random.Generator], Any]:
    def make(rng: np.random.Generator) -> Any:
        inner = shape[len(shape) - axes :]
        parameters = (rng.standard_normal(inner), rng.standard_normal(inner)) if affine else ()
        return (rng.standard_normal(shape), inner[0] if axes == 1 else inner, *parameters), options

    return make


def _grouped(groups: int, *shape: int, affine: bool = True) -> Callable[[np.random.Generator], Any]:
    def make(rng: np.random.Generator) -> Any:
        parameters = (rng.standard_normal(shape[1]), rng.standard_normal(shape[1])) if affine else ()
        return (rng.standard_normal(shape), groups, *parameters), {}

    return make


def _instances(*shape: int, affine: bool = True) -> Callable[[np.random.Generator], Any]:
    def make(rng: np.random.Generator) -> Any:
        parameters = (rng.standard_normal(shape[1]), rng.standard_normal(shape[1])) if affine else ()
        return (rng.standard_normal(shape), None, None, *parameters), {}

    return make


SAMPLES = [
    *_batch_norm(F.batch_norm, relu=False),
    *_batch_norm(F.batch_norm_relu, relu=True),
    Sample("layer_norm", F.layer_norm, _layer(2, 3, 4, axes=1), _layer_norm_reference, _torch_layer_norm),
    Sample("layer_norm-two-axes", F.layer_norm, _layer(2, 3, 4, axes=2), _layer_norm_reference),
    Sample("layer_norm-everything", F.layer_norm, _layer(3, 4, axes=2), _layer_norm_reference),
    Sample("layer_norm-plain-eps", F.layer_norm, _layer(5, 3, axes=1, affine=False, eps=0.2), _layer_norm_reference,
           _torch_layer_norm),
    Sample("group_norm", F.group_norm, _grouped(2, 2, 4, 3, 2), _group_norm_reference),
    Sample("group_norm-one-group", F.group_norm, _grouped(1, 3, 4, affine=False), _group_norm_reference),
    Sample("group_norm-each-channel", F.group_norm, _grouped(3, 2, 3, 4), _group_norm_reference),
    Sample("instance_norm", F.instance_norm, _instances(2, 3, 4, 2), _instance_norm_reference),
    Sample("instance_norm-plain", F.instance_norm, _instances(3, 2, 5, affine=False), _instance_norm_reference),
]


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape)


BAD_CALLS = [
    BadCall("batch_norm-no-channels", lambda: F.batch_norm(_zeros(3), None, None, training=True), "channel axis",
            ShapeError),
    BadCall("batch_norm-one-value", lambda: F.batch_norm(_zeros(1, 3, 1, 1), None, None, training=True),
            r"batch_norm: expected more than 1 value per channel when training, got input of shape \(1, 3, 1, 1\)"),
    BadCall("batch_norm-eval-without-statistics", lambda: F.batch_norm(_zeros(2, 3), None, None),
            "batch_norm: with training=False, running_mean and running_var must be given"),
    BadCall("batch_norm-weight", lambda: F.batch_norm(_zeros(2, 3, 4, 4), None, None, _zeros(4), training=True),
            r"batch_norm: weight must have one value for each of the 3 channels\n  input  \(N=2, C=3, H=4, W=4\)\n"
            r"  weight \(C=4\)", ShapeError),
    BadCall("batch_norm-running", lambda: F.batch_norm(_zeros(2, 3), _zeros(2), _zeros(3)), "running_mean must have",
            ShapeError),
    BadCall("batch_norm_relu-integers", lambda: F.batch_norm_relu(np.zeros((2, 3), int), None, None, training=True),
            "batch_norm_relu: expected floating point input, got int64", TypeError),
    BadCall("layer_norm-shape", lambda: F.layer_norm(_zeros(2, 3), (2, 3, 4)), "must be normalized_shape", ShapeError),
    BadCall("layer_norm-weight", lambda: F.layer_norm(_zeros(2, 3), 3, _zeros(2)), "weight must have the shape", ShapeError),
    BadCall("layer_norm-integers", lambda: F.layer_norm(np.zeros((2, 3), int), 3), "floating point", TypeError),
    BadCall("group_norm-groups", lambda: F.group_norm(_zeros(2, 3, 4, 4), 2), "3 channels cannot be divided into 2",
            ShapeError),
    BadCall("instance_norm-axes", lambda: F.instance_norm(_zeros(2, 3)), "at least one axis behind N and C", ShapeError),
    BadCall("instance_norm-one-value", lambda: F.instance_norm(_zeros(2, 3, 1)), "more than 1 value per channel of"),
]  # fmt: skip
