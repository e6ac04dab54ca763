"""state_dict and load_state_dict: the round trip, and errors that list all that is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import CheckpointError


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_round_trip():
    source, target = make(), make()
    source[1].num_batches_tracked.assign(5)
    keys = target.load_state_dict(source.state_dict())
    assert keys.missing_keys == [] and keys.unexpected_keys == []
    assert list(source.state_dict()) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    ]  # fmt: skip
    for name, value in target.state_dict().items():
        assert np.array_equal(value.numpy(), source.state_dict()[name].numpy())
        assert not np.shares_memory(value.numpy(), source.state_dict()[name].numpy())
    assert target.state_dict()["0.weight"].requires_grad is False


def test_state_dict_is_a_view_and_loading_writes_in_place():
    net = make()
    weight, array = net[0].weight, net[0].weight.data
    net.load_state_dict({**net.state_dict(), "0.weight": np.ones((3, 2))})
    assert net[0].weight is weight and weight.data is array and weight.dtype == np.float32
    assert net.state_dict()["0.weight"].numpy().sum() == 6


def test_loading_over_a_live_graph_is_announced():
    net = nn.Linear(2, 3)
    out = net(mr.tensor([[1.0, 2.0]], requires_grad=True))
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match="was changed"):
        out.sum().backward()


def test_everything_wrong_is_listed_and_nothing_is_changed():
    net = make()
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    del state["1.bias"], state["1.weight"]
    state.update({"2.extra": np.zeros(1), "0.weight": np.zeros((3, 4)), "1.running_mean": [1, 2, 3]})
    state["1.num_batches_tracked"] = np.zeros((), np.float32)
    with pytest.raises(CheckpointError) as error:
        net.load_state_dict(state)
    assert str(error.value) == (
        "Sequential: the state dict cannot be loaded (nothing was changed)\n"
        "  missing from the state dict (2):\n    1.weight\n    1.bias\n"
        "  in the state dict but not in the module (1):\n    2.extra\n"
        "  do not fit (3):\n"
        "    0.weight: the module has shape (3, 2), the state dict (3, 4)\n"
        "    1.running_mean: expected a Tensor or an array, got list\n"
        "    1.num_batches_tracked: the module has dtype int64, the state dict float32"
    )
    for name, value in net.state_dict().items():
        assert np.array_equal(value.numpy(), before[name])


def test_not_strict():
    net = make()
    keys = net.load_state_dict({"0.bias": np.array([1.0, 2.0, 3.0]), "other": np.zeros(1)}, strict=False)
    assert keys.unexpected_keys == ["other"] and keys.missing_keys[0] == "0.weight" and len(keys.missing_keys) == 6
    assert net[0].bias.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(CheckpointError, match="do not fit"):
        net.load_state_dict({"0.bias": np.zeros(4)}, strict=False)


def test_long_lists_are_cut():
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    with pytest.raises(CheckpointError, match=r"missing from the state dict \(12\):[^.]*0\.weight(.|\n)*and 4 more"):
        net.load_state_dict({})


def test_what_is_no_dictionary():
    with pytest.raises(TypeError, match="expected a dictionary of Tensors, got list"):
        make().load_state_dict([1, 2])  # type: ignore[arg-type]
