"""gradcheck_model gives the network back as it was, and says clearly what is wrong with a call."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import nn
from minires.checking.network import gradcheck_model
from minires.tensor import Tensor
from tests.gradcheck.test_network import IMAGE, Custom, normal, rng, small_attention, stack


def state_of(model):
    tensors = [*model.named_parameters(), *model.named_buffers()]
    values = {name: (id(t), id(t._array), t._array.copy(), t.grad, t.requires_grad) for name, t in tensors}
    return values, [(m.training, dict(m.__dict__)) for m in model.modules()], mr.random.get_rng_state()


def assert_same(before, after):
    for name, (*same, array, grad, requires_grad) in before[0].items():
        *others, now, grad_now, requires_grad_now = after[0][name]
        assert same == others and grad is grad_now and requires_grad == requires_grad_now, name
        assert np.array_equal(array, now) and array.dtype == now.dtype, name
    assert before[1] == after[1]
    assert before[2] == after[2]


def test_everything_is_put_back():
    model = small_attention()
    calls = []
    with mr.no_grad():
        for p in model.parameters():
            p.grad = Tensor(np.ones_like(p.data))
    weight = dict(model.named_parameters())["stem.0.weight"]
    remove = weight.register_hook(lambda g: calls.append(g) or g * 2)
    x = IMAGE.astype(np.float32)
    kept, before = x.copy(), state_of(model)
    with mr.no_grad():
        assert gradcheck_model(model, x, np.array([1, 2]))
    assert_same(before, state_of(model))
    assert not calls and weight._hooks and np.array_equal(kept, x)
    remove()


def test_everything_is_put_back_after_an_exception():
    count = [0]

    def fails(h):
        count[0] += 1
        if count[0] == 4:
            raise RuntimeError("on purpose")
        return h

    model = stack(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), Custom(fails))
    before = state_of(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        gradcheck_model(model, normal(6, 4))
    assert_same(before, state_of(model))


# ---------------------------------------------------------------------------------------- bad calls


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda m, x: gradcheck_model(F.tanh, x), TypeError, "expected a Module"),
        (lambda m, x: gradcheck_model(m, [1.0, 2.0]), TypeError, "x must be an array"),
        (lambda m, x: gradcheck_model(m, x, None, nn.MSELoss()), ValueError, "no target"),
        (lambda m, x: gradcheck_model(m, x, x, lambda o, y: o), ValueError, "one element"),
        (lambda m, x: gradcheck_model(m, x, x, lambda o, y: 1.0), TypeError, "must be a Tensor"),
        (lambda m, x: gradcheck_model(m, x, dtype=np.int32), ValueError, "dtype"),
        (lambda m, x: gradcheck_model(m, x, reference="best"), ValueError, "reference"),
        (lambda m, x: gradcheck_model(m, x, hints="all"), ValueError, "hints"),
        (lambda m, x: gradcheck_model(m, x, points=0), ValueError, "points"),
        (lambda m, x: gradcheck_model(Custom(lambda h: h.numpy()), x), TypeError, "must return floating point Tensors"),
        (lambda m, x: gradcheck_model(nn.Flatten(), np.zeros((2, 2), int)), ValueError, "no input is floating point"),
        (lambda m, x: gradcheck_model(Custom(lambda h: h * float(rng.random())), x), ValueError, "not deterministic"),
    ],
)
def test_bad_calls_get_one_clear_message(call, error, match):
    with pytest.raises(error, match=match):
        call(Custom(F.tanh), normal(5, 4))
