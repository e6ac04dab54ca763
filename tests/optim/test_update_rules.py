"""The update rules against their formulas in plain loops, and against numbers that PyTorch 2.13 gave."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minires import optim
from minires.optim import flat
from minires.tensor import Tensor

# Four steps from w = [1, -2, 0.5] with g = [0.1·k, -0.3, ±2] for k = 1..4, in float64; recorded with torch 2.13.0.
RECORDED = [
    ("SGD", {"lr": 0.1}, [0.9, -1.88, 0.5]),
    ("SGD", {"lr": 0.1, "momentum": 0.9}, [0.81441, -1.72853, 0.1742]),
    (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.25, "weight_decay": 0.02},
        [0.837209399015, -1.74066263669, 0.078149203666],
    ),
    (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
        [0.709852836093, -1.589429459616, 0.200176144482],
    ),
    ("Adam", {"lr": 0.1}, [0.611640672126, -1.600000013333, 0.376946980611]),
    (
        "Adam",
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.001, "weight_decay": 0.1},
        [0.599967000384, -1.601605795704, 0.381710411739],
    ),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.1}, [0.578085495119, -1.527152133135, 0.360446142111]),
]
CASES = [(name, options) for name, options, _ in RECORDED]


@pytest.mark.parametrize(("name", "options", "expected"), RECORDED)
def test_recorded_pytorch_numbers(name, options, expected):
    w = Tensor(np.array([1.0, -2.0, 0.5]), requires_grad=True)
    optimizer = getattr(optim, name)([w], **options)
    for k in range(4):
        w.grad = Tensor(np.array([0.1 * (k + 1), -0.3, (-1) ** k * 2.0]))
        optimizer.step()
    np.testing.assert_allclose(w.data, expected, rtol=0, atol=2e-12)


def sgd_by_hand(w, gradients, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    velocity = None
    for g in gradients:
        if g is None:
            continue
        g = g + weight_decay * w
        if momentum:
            velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
            g = g + momentum * velocity if nesterov else velocity
        w = w - lr * g
    return w


def adam_by_hand(w, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m, v, t = 0.0, 0.0, 0
    for g in gradients:
        if g is None:
            continue
        t += 1
        if decoupled:
            w = w * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        corrected = m / (1 - betas[0] ** t)
        w = w - lr * corrected / (math.sqrt(v / (1 - betas[1] ** t)) + eps)
    return w


def by_hand(name, options, w, gradients):
    if name == "SGD":
        return sgd_by_hand(w, gradients, **options)
    return adam_by_hand(w, gradients, **options, decoupled=name == "AdamW")


@pytest.mark.parametrize("on_threads", [False, True])
@pytest.mark.parametrize("sometimes_missing", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_formula_for_every_number(name, options, sometimes_missing, on_threads, monkeypatch):
    """Blocks smaller than a parameter, several shapes, a channels-last weight, gradients that come and go."""
    monkeypatch.setattr(flat, "BLOCK", 7)
    if on_threads:
        monkeypatch.setattr(flat, "_MANY", 1)
        monkeypatch.setattr(flat, "_LARGE_BLOCK", 7)
    rng = np.random.default_rng(3)
    starts = [rng.standard_normal(shape) for shape in [(3, 4), (5,), (2, 3, 2, 2), ()]]
    parameters = [Tensor(np.array(a), requires_grad=True) for a in starts]
    parameters[2].data = np.ascontiguousarray(starts[2].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    optimizer = getattr(optim, name)(parameters, **options)
    gradients = [[rng.standard_normal(a.shape) for _ in range(5)] for a in starts]
    for i, series in enumerate(gradients):
        for k in range(5):
            if sometimes_missing and (i + k) % 3 == 0:
                series[k] = None
    for k in range(5):
        for parameter, series in zip(parameters, gradients, strict=True):
            parameter.grad = None if series[k] is None else Tensor(np.array(series[k]))
        optimizer.step()
    for parameter, start, series in zip(parameters, starts, gradients, strict=True):
        flat_series = [None if g is None else g.reshape(-1) for g in series]
        expected = [
            by_hand(name, options, float(w), [None if g is None else float(g[j]) for g in flat_series])
            for j, w in enumerate(start.reshape(-1))
        ]
        np.testing.assert_allclose(parameter.data.reshape(-1), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_float32_stays_float32(name, options):
    w = Tensor(np.ones((3, 2), np.float32), requires_grad=True)
    optimizer = getattr(optim, name)([w], **options)
    w.grad = Tensor(np.full((3, 2), 0.5, np.float32))
    optimizer.step()
    assert w.data.dtype == np.float32
    arrays = [v for v in optimizer.state_dict()["state"][0].values() if isinstance(v, np.ndarray)]
    assert all(a.dtype == np.float32 for a in arrays)
