"""Schedules against the curves that PyTorch 2.13 gave."""

from __future__ import annotations

import numpy as np
import pytest

from minires import optim
from minires.tensor import Tensor


def sgd(momentum=0.0):
    return optim.SGD([Tensor(np.zeros(1, np.float32), requires_grad=True)], lr=0.1, momentum=momentum)


WARM_COSINE = [0.01, 0.0325, 0.055, 0.0775, 0.1, 0.0933012702, 0.075, 0.05, 0.025, 0.0066987298]
RECORDED = [
    (lambda o: optim.StepLR(o, 3, 0.5), [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125]),
    (lambda o: optim.MultiStepLR(o, [5, 2], 0.1), [0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001, 0.001, 0.001]),
    (
        lambda o: optim.CosineAnnealingLR(o, 8, 0.01),
        [0.1, 0.096574579, 0.0868198052, 0.0722207545, 0.055, 0.0377792455, 0.0231801948, 0.013425421, 0.01, 0.013425421],
    ),
    (lambda o: optim.LinearLR(o, 0.25, 1, 4), [0.025, 0.04375, 0.0625, 0.08125, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
    (lambda o: optim.LinearWarmup(optim.CosineAnnealingLR(o, 6), 4, 0.1), WARM_COSINE),
    (
        lambda o: optim.OneCycleLR(o, 0.5, 10),
        [0.02, 0.26, 0.5, 0.475242316, 0.405872827, 0.305631011, 0.194370989, 0.094129173, 0.024759684, 2e-06],
    ),
    (
        lambda o: optim.OneCycleLR(o, 0.5, 10, three_phase=True, anneal_strategy="linear", pct_start=0.4),
        [0.02, 0.18, 0.34, 0.5, 0.34, 0.18, 0.02, 0.013334, 0.006668, 2e-06],
    ),
]
MOMENTA = {
    5: [0.95, 0.9, 0.85, 0.85495156, 0.86882551, 0.88887395, 0.91112605, 0.93117449, 0.94504844, 0.95],
    6: [0.95, 0.91666667, 0.88333333, 0.85, 0.88333333, 0.91666667, 0.95, 0.95, 0.95, 0.95],
}


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_recorded_pytorch_curves(number):
    make, expected = RECORDED[number]
    optimizer = sgd(0.9)
    schedule = make(optimizer)
    rates, momenta = [], []
    for k in range(10):
        rates.append(schedule.get_last_lr()[0])
        momenta.append(optimizer.param_groups[0]["momentum"])
        if k < 9:
            schedule.step()
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(momenta, MOMENTA.get(number, [0.9] * 10), rtol=1e-6)


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_goes_on_from_a_saved_position(number):
    make, expected = RECORDED[number]
    first = make(sgd(0.9))
    for _ in range(6):
        first.step()
    optimizer = sgd(0.9)
    second = make(optimizer)
    second.load_state_dict(first.state_dict())
    np.testing.assert_allclose(optimizer.param_groups[0]["lr"], expected[6], rtol=1e-6, atol=1e-10)
    second.step()
    np.testing.assert_allclose(second.get_last_lr(), [expected[7]], rtol=1e-6, atol=1e-10)


def test_every_group_from_its_own_rate():
    parameters = [Tensor(np.zeros(1, np.float32), requires_grad=True) for _ in range(2)]
    optimizer = optim.SGD([{"params": parameters[0]}, {"params": parameters[1], "lr": 0.2}], lr=1.0)
    schedule = optim.StepLR(optimizer, 1, 0.5)
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 0.1]
    assert optim.OneCycleLR(optimizer, [1.0, 2.0], 10, cycle_momentum=False).get_last_lr() == [0.04, 0.08]
    with pytest.raises(ValueError, match="2 groups"):
        optim.StepLR(sgd(), 1).load_state_dict(schedule.state_dict())
    with pytest.raises(ValueError, match="1 rates for 2 groups"):
        optim.OneCycleLR(optimizer, [1.0], 10)


def test_one_cycle_moves_beta_one_of_adam_and_ends():
    optimizer = optim.AdamW([Tensor(np.zeros(1, np.float32), requires_grad=True)])
    schedule = optim.OneCycleLR(optimizer, 0.1, epochs=2, steps_per_epoch=2)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    for _ in range(4):
        schedule.step()
    with pytest.raises(ValueError, match="beyond the cycle"):
        schedule.step()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda o: optim.StepLR(o, 0), "step_size"),
        (lambda o: optim.CosineAnnealingLR(o, 0), "T_max"),
        (lambda o: optim.LinearLR(o, 0.0), "start_factor"),
        (lambda o: optim.LinearLR(o, 1.0, 2.0), "end_factor"),
        (lambda o: optim.LinearLR(o, total_iters=0), "total_iters"),
        (lambda o: optim.LinearWarmup(optim.StepLR(o, 1), -1), "total_iters"),
        (lambda o: optim.OneCycleLR(o, 0.1), "total_steps"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, pct_start=2), "pct_start"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, anneal_strategy="square"), "anneal_strategy"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10), "momentum"),
    ],
)
def test_bad_options_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make(sgd())
    with pytest.raises(TypeError, match="Optimizer"):
        optim.StepLR(None, 1)
