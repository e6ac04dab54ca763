"""Optimisers on the GPU: one launch does what the NumPy rule does, and nothing waits for the device."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minires as mr
from minires import Tensor, optim
from minires.modes import Mode
from tests.cuda import shim
from tests.cuda import standin as stand_in

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

#: Among them: one element, an empty one, more than one block takes, one that ends within a block.
SHAPES = [(3, 4), (1,), (0, 2), (2, 1, 3, 3), (2049,), (5, 7, 3)]

RULES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.25, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.1}),
]
rules = pytest.mark.parametrize(("name", "options"), RULES, ids=[f"{n}-{'-'.join(o)}" for n, o in RULES])


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def numbers(dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def leaves(arrays, device):
    """One of them channels-last, so that memory order and order of the axes differ."""
    last = [np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim == 4 else a.copy() for a in arrays]
    return [Tensor(a, requires_grad=True) if device == "cpu" else Tensor(mr.device.to_device(a, device), True) for a in last]


def give_gradients(parameters, k, dtype):
    """Gradients of step k; the first parameter has none in step 1, and one is a view with gaps."""
    for i, (p, g) in enumerate(zip(parameters, numbers(dtype, 10 + k), strict=True)):
        p.grad = None if (i, k) == (0, 1) else Tensor(mr.device.to_device(g, "cpu" if p.device == "cpu" else "cuda"))
    wide = np.repeat(parameters[5].grad.cpu().data, 2, axis=-1)
    grad = mr.device.to_device(wide, "cpu" if parameters[5].device == "cpu" else "cuda")[..., ::2]
    parameters[5].grad = Tensor(grad)


def close(actual, expected, dtype, ulps=8):
    scale = max(float(np.abs(expected).max(initial=0)), 1.0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ulps * np.finfo(dtype).eps * scale)


@rules
def test_five_steps_are_those_of_the_rule(cuda, lanes, name, options, dtype):
    pair = [leaves(numbers(dtype), device) for device in ("cpu", "cuda")]
    optimizers = [getattr(optim, name)(parameters, **options) for parameters in pair]
    for k in range(5):
        for parameters, optimizer in zip(pair, optimizers, strict=True):
            give_gradients(parameters, k, dtype)
            optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)  # what a schedule does
            optimizer.step()
    for ours, cpu in zip(pair[1], pair[0], strict=True):
        close(ours.cpu().data, cpu.data, dtype)
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for i, expected in states[0]["state"].items():
        assert states[1]["state"][i]["step"] == expected["step"]
        for key in expected.keys() - {"step"}:
            close(states[1]["state"][i][key].get(), expected[key], dtype)


@rules
def test_a_step_waits_for_nothing_and_is_two_launches(standin, name, options):
    parameters = leaves(numbers(np.float32), "cuda")
    optimizer = getattr(optim, name)(parameters, **options)
    give_gradients(parameters, 0, np.float32)
    optimizer.step()
    uploads, launches = stand_in.meter.uploads, stand_in.meter.launches.copy()
    with stand_in.no_syncs():
        optimizer.step()
    assert stand_in.meter.uploads == uploads
    assert (stand_in.meter.launches - launches).total() == 2


def test_a_replayed_step_counts_and_sees_a_new_learning_rate(standin):
    eager, replayed = (leaves(numbers(np.float32), "cuda") for _ in range(2))
    optimizers = [optim.Adam(parameters, lr=0.1) for parameters in (eager, replayed)]
    for parameters, optimizer in zip((eager, replayed), optimizers, strict=True):
        give_gradients(parameters, 0, np.float32)
        optimizer.step()
    with Mode("capturing", True), stand_in.capturing() as work:
        optimizers[1].step()
    for k in range(3):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
        optimizers[0].step()
        optimizers[1].refresh_options()
        for each in work if k else ():  # the stand-in did the work once while it was captured
            each()
    state = optimizers[1].state_dict()["state"]
    assert {values["step"] for values in state.values()} == {4}
    for a, b in zip(replayed[1:], eager[1:], strict=True):
        close(a.cpu().data, b.cpu().data, np.float32, 50)


def test_more_parameters_than_one_launch_takes(cuda):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n % 5 + 1).astype(np.float32) for n in range(1000)]
    pair = [[Tensor(a.copy(), True) for a in arrays], [Tensor(cuda.asarray(a), True) for a in arrays]]
    for parameters in pair:
        optimizer = optim.SGD(parameters, 0.1, 0.9)
        for i, p in enumerate(parameters):
            p.grad = Tensor(p.data * 2) if i % 7 and not 480 <= i < 960 else None  # nothing for one of three launches
        optimizer.step()
    for ours, cpu in zip(pair[1], pair[0], strict=True):
        close(ours.cpu().data, cpu.data, np.float32)


@rules
def test_a_saved_state_goes_on_the_same(standin, name, options):
    parameters = leaves(numbers(np.float64), "cuda")
    optimizer = getattr(optim, name)(parameters, **options)
    for k in range(2):
        give_gradients(parameters, k, np.float64)
        optimizer.step()
    copies = [Tensor(p.data.copy(), True) for p in parameters]
    other = getattr(optim, name)(copies, **options)
    other.load_state_dict(optimizer.state_dict())
    for each, its in ((optimizer, parameters), (other, copies)):
        give_gradients(its, 2, np.float64)
        each.step()
    for a, b in zip(copies, parameters, strict=True):
        np.testing.assert_array_equal(a.cpu().data, b.cpu().data)


class Signs(optim.SGD):
    """A rule of the user's own."""

    def update(self, group, steps, weight, gradient, scratch, state):
        weight -= group["lr"] * mr.device.array_module(weight).sign(gradient)


def test_a_rule_without_a_kernel_runs_as_it_is_written(standin):
    assert Signs.kernel is None
    pair = [leaves(numbers(np.float64), device) for device in ("cpu", "cuda")]
    for parameters in pair:
        give_gradients(parameters, 1, np.float64)
        Signs(parameters, lr=0.5).step()
    for ours, cpu in zip(pair[1], pair[0], strict=True):
        np.testing.assert_array_equal(ours.cpu().data, cpu.data)


# ------------------------------------------------------------------------------------ clipping


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, 0.5, math.inf])
@pytest.mark.parametrize("limit", [0.5, 1e6, 0.0])
def test_clipping(cuda, lanes, norm_type, limit, dtype):
    pair = [leaves(numbers(dtype), device) for device in ("cpu", "cuda")]
    for parameters in pair:
        give_gradients(parameters, 0, dtype)
    expected = optim.clip_grad_norm_(pair[0], limit, norm_type)
    with stand_in.no_syncs():
        norm = optim.clip_grad_norm_(pair[1], limit, norm_type)
    assert norm.device == "cuda:0" and norm.dtype == expected.dtype
    np.testing.assert_allclose(norm.cpu().data, expected.data, rtol=4 * np.finfo(dtype).eps)
    for ours, cpu in zip(pair[1], pair[0], strict=True):
        close(ours.grad.cpu().data, cpu.grad.data, dtype, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("norm_type", [2.0, 1.5, math.inf])
def test_a_bad_gradient_shows(cuda, bad, norm_type):
    pair = [leaves(numbers(np.float32), device) for device in ("cpu", "cuda")]
    for parameters in pair:
        give_gradients(parameters, 0, np.float32)
        parameters[4].grad.data[3] = bad
    with np.errstate(invalid="ignore"):
        expected, norm = (optim.clip_grad_norm_(parameters, 1.0, norm_type) for parameters in pair)
    np.testing.assert_array_equal(norm.cpu().data, expected.data)
    for ours, cpu in zip(pair[1], pair[0], strict=True):
        np.testing.assert_array_equal(ours.grad.cpu().data, cpu.grad.data)
    with pytest.raises(RuntimeError, match="norm of the gradients"):
        parameters = pair[1]
        parameters[0].grad.data[...] = np.nan
        optim.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)


def test_clipping_the_gradients_of_many_tensors(standin):
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(3).astype(np.float32) for _ in range(500)]
    parameters = [Tensor(standin.asarray(a), True) for a in arrays]
    for p, a in zip(parameters, arrays, strict=True):
        p.grad = Tensor(standin.asarray(a))
    norm = optim.clip_grad_norm_(parameters, 1.0)
    np.testing.assert_allclose(float(norm), np.linalg.norm(np.concatenate(arrays)), rtol=1e-6)
    total = np.linalg.norm(np.concatenate([p.grad.cpu().data for p in parameters]))
    np.testing.assert_allclose(total, 1, rtol=1e-5)
