"""Recurrent layers: names and shapes as in PyTorch, and padding that changes nothing. Values: samples_recurrent.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.errors import ShapeError


def values(*shape: int, dtype: Any = np.float32) -> mr.Tensor:
    return mr.Tensor(np.random.default_rng(4).standard_normal(shape).astype(dtype))


def test_names_and_shapes_are_those_of_pytorch():
    layer = nn.GRU(3, 4, num_layers=2, bidirectional=True)
    assert {name: tensor.shape for name, tensor in layer.state_dict().items()} == {
        "weight_ih_l0": (12, 3), "weight_hh_l0": (12, 4), "bias_ih_l0": (12,), "bias_hh_l0": (12,),
        "weight_ih_l0_reverse": (12, 3), "weight_hh_l0_reverse": (12, 4), "bias_ih_l0_reverse": (12,),
        "bias_hh_l0_reverse": (12,),
        "weight_ih_l1": (12, 8), "weight_hh_l1": (12, 4), "bias_ih_l1": (12,), "bias_hh_l1": (12,),
        "weight_ih_l1_reverse": (12, 8), "weight_hh_l1_reverse": (12, 4), "bias_ih_l1_reverse": (12,),
        "bias_hh_l1_reverse": (12,),
    }  # fmt: skip
    assert list(nn.GRU(3, 4, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]
    assert list(nn.GRUCell(3, 4).state_dict()) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert nn.GRUCell(3, 4, bias=False).bias_ih is None


def test_initial_values_are_uniform_up_to_one_over_the_root_of_the_hidden_size():
    for layer in (nn.GRU(30, 25, 2, bidirectional=True), nn.GRUCell(30, 25)):
        for name, parameter in layer.named_parameters():
            assert 0.15 < np.abs(parameter.numpy()).max() <= 0.2, name
            assert abs(parameter.numpy().mean()) < 0.06, name


def test_a_sequence_is_cells_one_after_the_other():
    layer, cell = nn.GRU(3, 4), nn.GRUCell(3, 4)
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in layer.state_dict().items()})
    x = values(5, 2, 3)
    outputs, final = layer(x)
    h = None
    for t in range(5):
        h = cell(x[t], h)
        np.testing.assert_allclose(outputs[t].numpy(), h.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(final[0].numpy(), outputs[4].numpy())


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"bidirectional": True, "bias": False}])
def test_padding_changes_nothing(options: dict[str, Any]):
    layer = nn.GRU(3, 4, batch_first=True, **options).double()
    x, lengths = values(3, 6, 3, dtype=np.float64), [4, 6, 1]
    outputs, finals = layer(x, lengths=lengths)
    noisy = x.numpy().copy()
    for n, length in enumerate(lengths):
        noisy[n, length:] = 1e3
        alone, final = layer(x[n : n + 1, :length])
        np.testing.assert_allclose(outputs.numpy()[n, :length], alone.numpy()[0], rtol=1e-12)
        np.testing.assert_allclose(finals.numpy()[:, n], final.numpy()[:, 0], rtol=1e-12)
        assert not outputs.numpy()[n, length:].any()
    again, finals_again = layer(mr.Tensor(noisy), lengths=mr.tensor(lengths))
    np.testing.assert_allclose(again.numpy(), outputs.numpy(), rtol=1e-12)
    np.testing.assert_allclose(finals_again.numpy(), finals.numpy(), rtol=1e-12)


def test_no_gradient_comes_from_padding():
    layer = nn.GRU(2, 3, bidirectional=True)
    x = mr.Tensor(np.random.default_rng(0).standard_normal((4, 2, 2)).astype(np.float32), requires_grad=True)
    outputs, finals = layer(x, lengths=[4, 2])
    (outputs.sum() + (finals * finals).sum()).backward()
    assert x.grad is not None
    assert not x.grad.numpy()[2:, 1].any() and x.grad.numpy()[:2, 1].all()


def test_dropout_lies_between_layers_and_in_training_only():
    layer = nn.GRU(3, 4, num_layers=2, dropout=0.5)
    x = values(5, 2, 3)
    first, second = layer(x)[0].numpy(), layer(x)[0].numpy()
    assert (first != second).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    single = nn.GRU(3, 4, dropout=0.5)
    np.testing.assert_array_equal(single(x)[0].numpy(), single(x)[0].numpy())


def test_lengths_to_mask():
    mask = F.lengths_to_mask(np.array([2, 0, 3]))
    np.testing.assert_array_equal(mask, [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    assert F.lengths_to_mask(mr.tensor([1]), 4).tolist() == [[True, False, False, False]]


def test_errors_and_printing():
    with pytest.raises(ShapeError, match=r"GRU: expected a batch of sequences\n  input \(5, 3\), expected \(T, N, I\)"):
        nn.GRU(3, 4)(values(5, 3))
    with pytest.raises(ShapeError, match="as many features as weight takes"):
        nn.GRU(3, 4)(values(5, 2, 2))
    with pytest.raises(ValueError, match="GRU: hidden_size must be a whole number >= 1, got 0"):
        nn.GRU(3, 0)
    with pytest.raises(ValueError, match="dropout between 0 and 1, got 2"):
        nn.GRU(3, 4, dropout=2)
    assert repr(nn.GRU(3, 4, 2, batch_first=True)).startswith("GRU(3, 4, num_layers=2, batch_first=True)")
    assert repr(nn.GRUCell(3, 4, False)).startswith("GRUCell(3, 4, bias=False)")


@pytest.mark.parametrize("padding", [np.inf, np.nan])
def test_padding_may_hold_anything(padding: float):
    mr.manual_seed(0)
    layer = nn.GRU(2, 3, batch_first=True)
    x = np.ones((2, 4, 2), np.float32)
    x[0, 2:] = padding
    output, final = layer(mr.tensor(x), lengths=np.array([2, 4]))
    (output.sum() + final.sum()).backward()
    assert all(np.isfinite(p.grad.data).all() for p in layer.parameters())
