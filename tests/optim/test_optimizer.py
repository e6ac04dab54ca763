"""Groups, the flat buffer, saved state, wrong options."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import minires as mr
from minires import optim
from minires.errors import InPlaceError
from minires.tensor import Tensor


def leaf(*values, dtype=np.float32):
    return Tensor(np.array(values, dtype), requires_grad=True)


def give_gradients(*parameters, value=1.0):
    for p in parameters:
        p.grad = Tensor(np.full(p.shape, value, p.dtype))


def test_parameters_become_views_of_one_array():
    a, b = leaf(1, 2, 3), leaf(4, 5)
    optimizer = optim.SGD([a, b], lr=0.5)
    buffer = optimizer._buffers[0][0]
    assert np.shares_memory(a.data, buffer.data) and np.shares_memory(b.data, buffer.data)
    np.testing.assert_array_equal(buffer.data, [1, 2, 3, 4, 5])
    give_gradients(a, b)
    optimizer.step()
    np.testing.assert_array_equal(a.data, [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(b.data, [3.5, 4.5])


def test_memory_layout_of_a_parameter_is_kept():
    w = Tensor(np.zeros((4, 2, 3, 3), np.float32).transpose(0, 3, 1, 2), requires_grad=True)
    strides = w.data.strides
    optim.SGD([w], lr=0.1)
    assert w.data.strides == strides and w.shape == (4, 3, 2, 3)


def test_a_replaced_array_brings_its_values():
    a, b = leaf(1, 2), leaf(3)
    optimizer = optim.SGD([a, b], lr=1.0)
    a.data = np.array([10, 20], np.float32)
    give_gradients(a, b)
    optimizer.step()
    np.testing.assert_array_equal(a.data, [9, 19])
    a.data = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="make a new optimizer"):
        optimizer.step()


def test_an_array_replaced_while_a_graph_needs_the_old_one():
    a, b = leaf(1, 2), leaf(3, 4)
    optimizer = optim.SGD([a, b], lr=1.0)
    loss = (a * b).sum()  # keeps both arrays
    a.data = np.array([10, 20], np.float32)
    give_gradients(a, b)
    optimizer.step()
    np.testing.assert_array_equal(a.data, [9, 19])
    with pytest.raises(InPlaceError):
        loss.backward()


def test_shared_parameter_counts_once():
    a = leaf(1.0)
    optimizer = optim.SGD([a, a], lr=1.0)
    assert len(optimizer.param_groups[0]["params"]) == 1
    give_gradients(a)
    optimizer.step()
    assert a.item() == 0.0


def test_groups_have_options_of_their_own():
    a, b, c = leaf(1.0), leaf(1.0), leaf(1.0, dtype=np.float64)
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.25}], lr=0.5)
    optimizer.add_param_group({"params": [("bias", c)], "lr": 0.125, "momentum": 0.9})
    give_gradients(a, b, c)
    optimizer.step()
    assert (a.item(), b.item(), c.item()) == (0.5, 0.75, 0.875)
    assert optimizer.param_groups[2]["param_names"] == ["bias"]
    assert "lr=0.125" in repr(optimizer)


def test_mixed_dtypes_in_one_group():
    a, b = leaf(1.0), leaf(1.0, dtype=np.float64)
    optimizer = optim.AdamW([a, b], lr=0.5, weight_decay=0)
    give_gradients(a, b)
    optimizer.step()
    assert a.dtype == np.float32 and b.dtype == np.float64
    np.testing.assert_allclose([a.item(), b.item()], 0.5, rtol=1e-6)


def test_zero_grad():
    a = leaf(1, 2)
    optimizer = optim.SGD([a], lr=0.1)
    give_gradients(a)
    optimizer.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(a.grad.data, [0, 0])
    optimizer.zero_grad()
    assert a.grad is None
    optimizer.step()  # nothing to do
    np.testing.assert_array_equal(a.data, [1, 2])


def test_closure():
    a = leaf(3.0)
    optimizer = optim.SGD([a], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = a * a
        loss.backward()
        return loss

    with mr.no_grad():
        assert optimizer.step(closure).item() == 9.0
    np.testing.assert_allclose(a.item(), 2.4, rtol=1e-6)


def test_a_step_is_announced_to_graphs_that_need_the_old_weights():
    a = leaf(1, 2)
    optimizer = optim.SGD([a], lr=0.1)
    loss = mr.functional.mul(a, a)
    give_gradients(a)
    optimizer.step()
    with pytest.raises(InPlaceError, match="optimiser's step"):
        loss.backward(np.ones(2, np.float32))
    del loss
    gc.collect()
    assert a.data.flags.writeable


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_state_goes_on_bit_for_bit(name, tmp_path):
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(s).astype(np.float32) for s in [(3, 2), (4,)]]
    series = [[rng.standard_normal(s.shape).astype(np.float32) for s in start] for _ in range(6)]
    options = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}

    def train(parameters, optimizer, gradients):
        for row in gradients:
            for p, g in zip(parameters, row, strict=True):
                p.grad = Tensor(g.copy())
            optimizer.step()

    def fresh():
        parameters = [Tensor(s.copy(), requires_grad=True) for s in start]
        return parameters, getattr(optim, name)(parameters, lr=0.1, weight_decay=0.01, **options)

    whole, optimizer = fresh()
    train(whole, optimizer, series)
    half, optimizer = fresh()
    train(half, optimizer, series[:3])
    mr.save({"p": half, "o": optimizer.state_dict()}, tmp_path / "state")
    saved = mr.load(tmp_path / "state")
    rest, optimizer = fresh()
    for p, values in zip(rest, saved["p"], strict=True):
        p.assign(values)
    optimizer.load_state_dict(saved["o"])
    train(rest, optimizer, series[3:])
    for a, b in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_momentum_may_come_later():
    """In PyTorch it begins at the first step that asks for it."""
    a = leaf(0.0)
    optimizer = optim.SGD([a], lr=1.0)
    for momentum, expected in ((0, -1), (0.5, -2), (0.5, -3.5)):
        optimizer.param_groups[0]["momentum"] = momentum
        saved = optimizer.state_dict()  # also right after the change
        optimizer = optim.SGD([a], lr=1.0)
        optimizer.load_state_dict(saved)
        give_gradients(a)
        optimizer.step()
        assert a.item() == expected


def test_state_dict_form_and_its_errors():
    a, b = leaf(1, 2), leaf(3)
    optimizer = optim.SGD([("a", a), ("b", b)], lr=0.1, momentum=0.9)
    give_gradients(a)
    optimizer.step()
    state = optimizer.state_dict()
    assert list(state["state"]) == [0] and state["state"][0]["step"] == 1
    assert state["param_groups"][0]["params"] == [0, 1] and state["param_groups"][0]["param_names"] == ["a", "b"]
    state["state"][0]["momentum_buffer"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"momentum_buffer of parameter 0 should have shape \(2,\)"):
        optimizer.load_state_dict(state)
    del state["state"][0]["momentum_buffer"]
    with pytest.raises(ValueError, match="momentum_buffer"):
        optimizer.load_state_dict(state)
    with pytest.raises(ValueError, match="groups"):
        optim.SGD([leaf(1.0)], lr=0.1).load_state_dict(state)


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("SGD", {"lr": -1}, "lr"), ("SGD", {"lr": NAN}, "lr"), ("SGD", {"lr": True}, "lr"), ("SGD", {"lr": "0.1"}, "lr"),
        ("SGD", {"momentum": -0.1}, "momentum"), ("SGD", {"weight_decay": NAN}, "weight_decay"),
        ("SGD", {"dampening": float("inf")}, "dampening"), ("SGD", {"nesterov": True}, "nesterov"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov"),
        ("Adam", {"eps": -1e-8}, "eps"), ("Adam", {"betas": (0.9, 1.0)}, r"betas\[1\]"),
        ("Adam", {"betas": (NAN, 0.9)}, r"betas\[0\]"), ("Adam", {"betas": (0.9,)}, "betas"),
        ("AdamW", {"weight_decay": -1}, "weight_decay"),
    ],
)  # fmt: skip
def test_bad_options_are_named(name, options, word):
    with pytest.raises(ValueError, match=word):
        getattr(optim, name)([leaf(1.0)], **options)


def test_bad_parameters():
    a = leaf(1.0)
    with pytest.raises(ValueError, match="empty"):
        optim.SGD([])
    with pytest.raises(ValueError, match="empty"):
        optim.SGD([{"params": []}])
    with pytest.raises(TypeError, match="one Tensor"):
        optim.SGD(a)
    with pytest.raises(TypeError, match="ndarray"):
        optim.SGD([np.ones(2)])
    with pytest.raises(ValueError, match="result of an op"):
        optim.SGD([a * 2])
    with pytest.raises(ValueError, match="int64"):
        optim.SGD([mr.tensor([1, 2])])
    with pytest.raises(ValueError, match="two groups"):
        optim.SGD([{"params": [a]}, {"params": [a]}])
    with pytest.raises(ValueError, match="unknown option 'decay'"):
        optim.SGD([{"params": [a], "decay": 1}])
    with pytest.raises(ValueError, match="no 'params'"):
        optim.SGD([{"lr": 1}])
    a.grad = Tensor(np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"\.grad has"):
        optim.SGD([a]).step()


def test_parameters_without_elements():
    a, empty = leaf(1.0), Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    optimizer = optim.Adam([empty, a], lr=0.1)
    give_gradients(a, empty)
    optimizer.step()
    assert a.item() < 1.0
    optimizer.load_state_dict(optimizer.state_dict())


def test_clip_grad_norm():
    a, b, unused = leaf(0, 0), leaf(0.0), leaf(0.0)
    a.grad, b.grad = Tensor(np.array([3, 0], np.float32)), Tensor(np.array([4], np.float32))
    total = optim.clip_grad_norm_([a, b, a, unused], 1.0)
    assert total.item() == 5.0 and total.dtype == np.float32
    np.testing.assert_allclose(a.grad.data, [0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(b.grad.data, [0.8], rtol=1e-6)
    before = a.grad.data.copy()
    np.testing.assert_allclose(optim.clip_grad_norm_(iter([a, b]), 100.0).item(), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(a.grad.data, before)
    np.testing.assert_allclose(optim.clip_grad_norm_([a, b], 9, norm_type=float("inf")).item(), 0.8, rtol=1e-6)
    np.testing.assert_allclose(optim.clip_grad_norm_([a, b], 9, norm_type=1).item(), 1.4, rtol=1e-6)
    np.testing.assert_allclose(optim.clip_grad_norm_([a, b], float("inf")).item(), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(a.grad.data, before)
    assert optim.clip_grad_norm_(unused, 1.0).item() == 0.0
    b.grad = Tensor(np.array([np.nan], np.float32))
    assert np.isnan(optim.clip_grad_norm_([a, b], 1.0, norm_type=float("inf")).item())
    with pytest.raises(RuntimeError, match="nan"):
        optim.clip_grad_norm_([a, b], 1.0, error_if_nonfinite=True)
    for bad in ({"max_norm": -1}, {"max_norm": 1, "norm_type": 0}):
        with pytest.raises(ValueError, match="clip_grad_norm_"):
            optim.clip_grad_norm_([a], **bad)
