"""Initial weights: the spread that each formula promises, and PyTorch's defaults of the layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import nn, random
from minires.nn import init


def empty(*shape: int, dtype: Any = np.float32) -> mr.Tensor:
    return mr.Tensor(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("fill", "std", "bound"),
    [
        (lambda t: init.kaiming_normal_(t, nonlinearity="relu"), math.sqrt(2 / 180), None),
        (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="linear"), math.sqrt(1 / 270), None),
        (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), math.sqrt(1 / 180 / 3), math.sqrt(1 / 180)),
        (lambda t: init.xavier_normal_(t, gain=2.0), 2 * math.sqrt(2 / 450), None),
        (lambda t: init.xavier_uniform_(t), math.sqrt(2 / 450), math.sqrt(6 / 450)),
        (lambda t: init.normal_(t, 0.0, 0.5), 0.5, None),
        (lambda t: init.uniform_(t, -3.0, 3.0), math.sqrt(3), 3.0),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spread(fill: Callable[[Any], Any], std: float, bound: float | None, dtype: Any):
    weight = empty(30, 20, 3, 3, dtype=dtype)  # fan_in 180, fan_out 270
    assert fill(weight) is weight
    values = weight.numpy()
    assert values.dtype == dtype
    assert abs(values.mean()) < 0.05 * std and values.std() == pytest.approx(std, rel=0.03)
    if bound is not None:
        assert bound * 0.99 < np.abs(values).max() <= bound * (1 + 1e-6)


def test_constants_mean_and_seed():
    assert init.ones_(empty(2)).tolist() == [1, 1] and init.constant_(empty(2), 0.5).tolist() == [0.5, 0.5]
    assert init.zeros_(init.ones_(empty(2))).tolist() == [0, 0]
    assert init.normal_(empty(10000), 4.0, 1.0).numpy().mean() == pytest.approx(4.0, abs=0.05)
    random.manual_seed(1)
    first = nn.Linear(3, 4)
    random.manual_seed(1)
    assert np.array_equal(first.weight.numpy(), nn.Linear(3, 4).weight.numpy())


def test_gains():
    gains = [init.calculate_gain(n) for n in ("linear", "sigmoid", "tanh", "relu", "leaky_relu")]
    assert gains == [1, 1, 5 / 3, math.sqrt(2), math.sqrt(2 / (1 + 1e-4))]
    with pytest.raises(ValueError, match="unknown nonlinearity 'swish'; expected one of linear, conv2d"):
        init.calculate_gain("swish")


def test_errors():
    with pytest.raises(ValueError, match="at least two axes"):
        init.xavier_normal_(empty(3))
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out', got 'fan'"):
        init.kaiming_normal_(empty(3, 3), mode="fan")
    with pytest.raises(ValueError, match=r"expected a weight of shape \(C, 1, kH, kW\)"):
        init.bilinear_(empty(3, 2, 4, 4))


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        (lambda: nn.Linear(50, 400), 1 / math.sqrt(50)),
        (lambda: nn.Conv2d(20, 400, 3, groups=2), 1 / math.sqrt(90)),
        (lambda: nn.ConvTranspose2d(20, 400, 3, groups=2), 1 / math.sqrt(200 * 9)),
        (lambda: nn.Bilinear(30, 10, 300), 1 / math.sqrt(30)),
    ],
)
def test_default_distribution(layer: Callable[[], Any], bound: float):
    made = layer()
    for values in (made.weight.numpy(), made.bias.numpy()):
        assert bound * 0.97 < np.abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert values.dtype == np.float32


def test_embedding_is_standard_normal_with_an_empty_row():
    table = nn.Embedding(100, 50, padding_idx=-1)
    assert table.padding_idx == 99 and not table.weight.numpy()[99].any()
    assert table.weight.numpy()[:99].std() == pytest.approx(1, rel=0.05)


def test_bilinear_kernel():
    weight = init.bilinear_(empty(2, 1, 4, 4)).numpy()
    one = np.array([0.25, 0.75, 0.75, 0.25])
    assert np.array_equal(weight[0, 0], np.outer(one, one)) and np.array_equal(weight[1], weight[0])
    full = init.bilinear_(empty(3, 3, 3, 3)).numpy()
    assert full[0, 1].sum() == 0 and full[2, 2].tolist() == np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]).tolist()
