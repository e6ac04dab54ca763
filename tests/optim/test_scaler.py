"""Loss scaling: what the factor does to gradients, which steps are left out, and how the factor changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minires as mr
from minires import optim
from minires.tensor import Tensor


def leaf(*values, dtype=np.float32):
    return Tensor(np.array(values, dtype), requires_grad=True)


def give(*parameters, value=1.0):
    for p in parameters:
        p.grad = Tensor(np.full(p.shape, value, p.dtype))


def values(tensor):
    return tensor.data.tolist()


def test_a_scaled_loss_makes_the_same_step():
    plain, scaled = leaf(1, 2, 3), leaf(1, 2, 3)
    scaler, optimizers = mr.GradScaler(init_scale=1024), [optim.SGD([p], lr=0.5) for p in (plain, scaled)]
    (plain * plain).sum().backward()
    loss = scaler.scale((scaled * scaled).sum())
    assert float(loss) == 1024 * 14 and loss.dtype == np.float32
    loss.backward()
    assert values(scaled.grad) == [2048, 4096, 6144]
    optimizers[0].step()
    scaler.step(optimizers[1])
    scaler.update()
    assert values(scaled.grad) == values(plain.grad) and values(scaled) == values(plain) == [0, 0, 0]
    assert scaler.get_scale() == 1024


def test_several_losses_at_once():
    scaler = mr.GradScaler(init_scale=4.0)
    a, (b, c) = scaler.scale((leaf(1).sum(), [leaf(2).sum(), leaf(3).sum()]))
    assert [float(x) for x in (a, b, c)] == [4, 8, 12]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_an_overflow_leaves_the_step_out_and_halves_the_factor(bad):
    a, b = leaf(1, 2), leaf(3)
    optimizer = optim.SGD([a, b], lr=0.1, momentum=0.9)
    scaler = mr.GradScaler(init_scale=8.0)
    give(a, b)
    a.grad.data[1] = bad
    assert scaler.step(optimizer) is None
    scaler.update()
    assert values(a) == [1, 2] and values(b) == [3] and scaler.get_scale() == 4 and not optimizer.state_dict()["state"]
    give(a, b, value=4.0)
    scaler.step(optimizer)
    scaler.update()
    assert values(a) == pytest.approx([0.9, 1.9]) and scaler.get_scale() == 4


def test_growth_after_enough_good_steps_in_a_row():
    w = leaf(1)
    optimizer = optim.SGD([w], lr=0.0)
    scaler = mr.GradScaler(init_scale=2.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=3)
    seen = []
    for value in (1, 1, math.inf, 1, 1, 1, 1, 1, 1, 1):
        give(w, value=value)
        scaler.step(optimizer)
        scaler.update()
        seen.append(scaler.get_scale())
    assert seen == [2, 2, 0.5, 0.5, 0.5, 1.5, 1.5, 1.5, 4.5, 4.5]


def test_the_factor_stays_finite():
    w, scaler = leaf(1), mr.GradScaler(init_scale=2.0**126, growth_interval=1)
    optimizer = optim.SGD([w], lr=0.0)
    for _ in range(3):
        give(w)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 2.0**126


def test_unscaling_by_hand_before_clipping():
    w, scaler = leaf(0, 0), mr.GradScaler(init_scale=128.0)
    optimizer = optim.SGD([w], lr=1.0)
    w.grad = Tensor(np.array([3 * 128, 4 * 128], np.float32))
    scaler.unscale_(optimizer)
    assert float(optim.clip_grad_norm_([w], 1.0)) == 5
    scaler.step(optimizer)
    np.testing.assert_allclose(w.data, [-0.6, -0.8], rtol=1e-5)
    scaler.update()


def test_two_optimizers_share_a_factor():
    """An overflow in one leaves out its step alone, but makes the factor smaller for both."""
    a, b, scaler = leaf(1), leaf(1), mr.GradScaler(init_scale=2.0)
    optimizers = [optim.SGD([p], lr=1.0) for p in (a, b)]
    give(a, value=math.inf)
    give(b, value=2.0)
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert values(a) == [1] and values(b) == [0] and scaler.get_scale() == 1


def test_parameters_without_a_gradient():
    a, b, scaler = leaf(1), leaf(1), mr.GradScaler(init_scale=2.0)
    optimizer = optim.SGD([a, b], lr=1.0)
    give(a, value=2.0)
    scaler.step(optimizer)
    scaler.update()
    assert values(a) == [0] and values(b) == [1]
    optimizer.zero_grad()
    scaler.step(optimizer)
    scaler.update()


def test_wrong_order_raises():
    w, scaler = leaf(1), mr.GradScaler()
    optimizer = optim.SGD([w], lr=1.0)
    with pytest.raises(RuntimeError, match=r"update: no optimizer was unscaled or stepped"):
        scaler.update()
    give(w)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_: was called for this optimizer already"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step: was called for this optimizer already"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_: comes after step\(\)"):
        scaler.unscale_(optimizer)
    scaler.update()
    give(w)
    with pytest.raises(RuntimeError, match="a closure computes new gradients"):
        scaler.step(optimizer, lambda: None)
    scaler.step(optimizer)


def test_weights_of_16_bits_are_refused():
    w = leaf(1, dtype=np.float16)
    optimizer = optim.SGD([w], lr=1.0)
    give(w)
    with pytest.raises(ValueError, match="a gradient is float16; keep weights in float32"):
        mr.GradScaler().step(optimizer)


WRONG = [
    ({"init_scale": 0}, "init_scale: expected a number > 0"),
    ({"init_scale": math.inf}, "init_scale: expected"),
    ({"growth_factor": 1.0}, "growth_factor: expected a number > 1"),
    ({"backoff_factor": 1.0}, "backoff_factor: expected a number between 0 and 1"),
    ({"growth_interval": 0}, "growth_interval: expected a number >= 1"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        mr.GradScaler(**options)


def test_a_new_factor_by_hand():
    scaler = mr.GradScaler()
    scaler.update(32.0)
    assert scaler.get_scale() == 32
    with pytest.raises(ValueError, match="new_scale: expected a number > 0"):
        scaler.update(-1.0)


def test_switched_off_it_does_nothing():
    w, scaler = leaf(1), mr.GradScaler(enabled=False)
    optimizer, loss = optim.SGD([w], lr=1.0), leaf(1).sum()
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1 and not scaler.is_enabled()
    give(w)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert values(w) == [0] and scaler.state_dict() == {}
    scaler.load_state_dict({})
    with pytest.raises(ValueError, match="the state is empty"):
        mr.GradScaler().load_state_dict({})


def test_state_is_saved():
    w, first = leaf(1), mr.GradScaler(init_scale=16.0, growth_interval=5, growth_factor=4.0, backoff_factor=0.125)
    optimizer = optim.SGD([w], lr=0.0)
    second = mr.GradScaler()
    for round in range(8):
        for scaler in (first, second) if round > 2 else (first,):
            give(w)
            scaler.step(optimizer)
            scaler.update()
        if round == 2:
            second.load_state_dict(first.state_dict())
    assert first.state_dict() == second.state_dict() and first.get_scale() == 64
    assert first.state_dict() == {
        "scale": 64.0, "growth_factor": 4.0, "backoff_factor": 0.125, "growth_interval": 5, "_growth_tracker": 3,
    }  # fmt: skip


def test_small_gradients_survive():
    """A gradient of 1e-8 is 0 in float16, but not times 2¹⁶."""
    x, weight = Tensor(np.full((1, 4), 1e-4, np.float32)), leaf([1, 1, 1, 1])
    found = []
    for scaler in (mr.GradScaler(), mr.GradScaler(enabled=False)):
        optimizer = optim.SGD([weight], lr=0.0)
        weight.grad = None
        with mr.autocast("float16"):
            loss = mr.functional.linear(x, weight).sum() * 1e-4
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(weight.grad.data.copy())
    np.testing.assert_allclose(found[0], 1e-8, rtol=1e-2)
    assert not found[1].any()
