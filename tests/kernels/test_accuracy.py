"""How exact the float32 kernels are: beside float64, and beside what PyTorch 2.13 loses on the same inputs.

PyTorch's errors were measured once, on these inputs, and stand in the tables. Ours may be twice as large.
"""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import cpu


def error(found, exact):
    """The root mean square of the error, relative to that of the exact values."""
    return np.sqrt(((found.astype(np.float64) - exact) ** 2).mean() / (exact**2).mean())


def batch_norm_relu(x, dy, weight, bias):
    """Output and gradients of x, weight and bias, in float64."""
    axes, shape = (0, 2, 3), (1, -1, 1, 1)
    x, dy, weight, bias = (a.astype(np.float64) for a in (x, dy, weight, bias))
    std = np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
    normal = (x - x.mean(axis=axes, keepdims=True)) / std
    y = np.maximum(normal * weight.reshape(shape) + bias.reshape(shape), 0)
    g = dy * (y > 0)
    dbias, dweight = g.sum(axis=axes), (g * normal).sum(axis=axes)
    count = x.size / x.shape[1]
    dx = weight.reshape(shape) / std * (g - (dbias.reshape(shape) + normal * dweight.reshape(shape)) / count)
    return y, dx, dweight, dbias


@pytest.mark.parametrize(
    ("mean", "weight", "bias", "of_pytorch"),
    [
        (0, 1, 0.1, (3.8e-8, 5.3e-8, 1.8e-7, 1.0e-7)),
        (1, 1, -1, (1.5e-7, 5.5e-8, 1.2e-7, 9.7e-8)),
        (3, 0.5, 1.9, (4.0e-8, 5.3e-8, 2.1e-7, 2.4e-7)),
        (3.9, 1, 3.9, (4.4e-8, 5.4e-8, 2.5e-7, 1.9e-7)),
        (10, 1, 0, (4.7e-7, 5.3e-8, 4.2e-7, 2.0e-7)),
        (1000, 1, 0.5, (1.3e-5, 8.8e-5, 5.8e-5, 7.3e-5)),
        (0, 0.01, 2, (4.0e-8, 6.1e-8, 2.1e-7, 1.2e-7)),
        (0, -1, 0.3, (3.7e-8, 5.3e-8, 1.5e-7, 2.1e-7)),
    ],
)
def test_batch_norm_with_relu(mean, weight, bias, of_pytorch):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((32, 16, 29, 29)) + mean * rng.choice([-1, 1], (1, 16, 1, 1))).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    weight, bias = np.full(16, weight, np.float32), np.full(16, bias, np.float32)
    statistics = cpu.batch_statistics(x)
    y = cpu.batch_norm(x, *statistics, weight, bias, 1e-5, True)
    gradients = cpu.batch_norm_backward(dy, x, *statistics, weight, bias, 1e-5, True, True)
    exact = batch_norm_relu(x, dy, weight, bias)
    for name, found, wanted, allowed in zip(
        ("y", "dx", "dweight", "dbias"), (y, *gradients), exact, of_pytorch, strict=True
    ):
        assert error(found, wanted) <= 2 * allowed, name


@pytest.mark.parametrize(
    ("channels", "outputs", "size", "kernel", "of_pytorch"),
    [
        (16, 16, 32, 3, (2.1e-7, 2.1e-7, 1.6e-6)),
        (64, 64, 8, 3, (2.1e-7, 2.1e-7, 5.3e-7)),
        (64, 16, 32, 1, (1.5e-7, 7.3e-8, 5.8e-7)),
        (256, 64, 8, 1, (2.9e-7, 1.4e-7, 1.6e-7)),
    ],
)
def test_convolution(channels, outputs, size, kernel, of_pytorch):
    rng = np.random.default_rng(0)
    shapes = ((16, channels, size, size), (outputs, channels, kernel, kernel), (16, outputs, size, size))
    x, weight, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    steps = ((1, 1), (kernel // 2, kernel // 2), (1, 1), 1)

    def run(x, weight, dy):
        return (
            cpu.conv2d(x, weight, None, *steps, (size, size)),
            cpu.conv_transpose2d(dy, weight, *steps, (size, size)),
            cpu.conv2d_weight(x, dy, (kernel, kernel), *steps),
        )

    exact = run(*(a.astype(np.float64) for a in (x, weight, dy)))  # against loops it is checked in test_conv
    for name, found, wanted, allowed in zip(("y", "dx", "dweight"), run(x, weight, dy), exact, of_pytorch, strict=True):
        assert found.dtype == np.float32
        assert error(found, wanted) <= 2 * allowed, name


@pytest.mark.parametrize(("value", "of_pytorch"), [(1.1, 1.1e-5), (123.456, 1.0e-3), (12345.678, 7.5e-2)])
def test_a_constant_channel_becomes_zero(value, of_pytorch):
    x = np.full((64, 16, 32, 32), value, np.float32)
    y = cpu.batch_norm(x, *cpu.batch_statistics(x), None, None, 1e-5, False)
    assert abs(y).max() <= of_pytorch


def test_squares_that_overflow():
    x = np.array([[1e20], [-1e20], [3e19]], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        y = cpu.batch_norm(x, np.zeros(1), np.full(1, np.inf), np.ones(1), np.full(1, 0.5), 1e-5, True)
    assert y.tolist() == [[0.5], [0.5], [0.5]]
