"""The tree of modules: registration, names, order, modes, hooks, copies, errors with a path."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.errors import AnomalyError, ShapeError
from minires.modes import state


class Scale(nn.Module):
    """x·weight + offset: the smallest module with a parameter and a buffer."""

    def __init__(self, value: float = 2.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(np.full((1,), value, np.float32))
        self.register_buffer("offset", mr.tensor([1.0]))
        self.register_buffer("scratch", mr.tensor([0.0]), persistent=False)

    def forward(self, input: Any) -> Any:
        return input * self.weight + self.offset


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Scale(2.0)
        self.many = nn.ModuleList([Scale(3.0), nn.Sequential(Scale(4.0), Scale(5.0))])
        self.named = nn.ModuleDict({"a": Scale(6.0)})

    def forward(self, input: Any) -> Any:
        x = self.first(input)
        for module in self.many:
            x = module(x)
        return self.named["a"](x)


X = mr.tensor([[1.0, 2.0]])


# ------------------------------------------------------------------------------------------------ registration


def test_names_come_in_order_of_assignment():
    names = [name for name, _ in Net().named_parameters()]
    assert names == ["first.weight", "many.0.weight", "many.1.0.weight", "many.1.1.weight", "named.a.weight"]
    assert [name for name, _ in Net().named_modules()] == [
        "", "first", "many", "many.0", "many.1", "many.1.0", "many.1.1", "named", "named.a",
    ]  # fmt: skip
    assert [name for name, _ in Net().named_buffers()][:2] == ["first.offset", "first.scratch"]
    assert [name for name, _ in Net().named_children()] == ["first", "many", "named"]
    assert len(list(Net().children())) == 3
    assert [p.item() for p in Net().parameters(recurse=False)] == []
    assert len(list(Net().buffers())) == 10


def test_a_shared_parameter_is_listed_once():
    net = nn.Sequential(Scale(), Scale())
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight"]
    twice = nn.Sequential(net[0], net[0])
    assert len(list(twice.modules())) == 2
    assert sorted(twice.state_dict()) == ["0.offset", "0.weight", "1.offset", "1.weight"]


def test_attributes_change_their_kind():
    module = Scale()
    module.extra = None
    module.extra = nn.Identity()
    assert [name for name, _ in module.named_children()] == ["extra"]
    module.extra = None
    assert module.extra is None and not list(module.children())
    module.extra = nn.Parameter(np.zeros(2, np.float32))
    assert [name for name, _ in module.named_parameters()] == ["weight", "extra"]
    module.weight = None
    assert [name for name, _ in module.named_parameters()] == ["extra"]
    module.offset = mr.tensor([5.0])
    assert dict(module.named_buffers())["offset"].item() == 5.0
    del module.extra, module.offset
    assert not hasattr(module, "extra") and not hasattr(module, "offset")
    module.plain = 3
    del module.plain
    assert "weight" in dir(module)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: setattr(Scale(), "weight", mr.tensor([1.0])), TypeError, "weight is a parameter; expected a Parameter"),
        (lambda: setattr(Scale(), "offset", 3.0), TypeError, "offset is a buffer; expected a Tensor"),
        (lambda: Scale().register_buffer("b", np.zeros(1)), TypeError, "'b' must be a Tensor or None, got ndarray"),
        (lambda: Scale().register_parameter("p", mr.tensor([1.0])), TypeError, "'p' must be a Parameter or None"),
        (lambda: Scale().add_module("a.b", nn.Identity()), ValueError, "without dots"),
        (lambda: Scale().add_module("", nn.Identity()), ValueError, "non-empty"),
        (lambda: Scale().add_module("forward", nn.Identity()), ValueError, "name of a method"),
        (lambda: Scale().add_module("m", np.zeros(1)), TypeError, "'m' must be a Module or None, got ndarray"),
        (lambda: nn.Sequential(len), TypeError, "'0' must be a Module"),
        (lambda: Scale().nothing, AttributeError, "Scale has no attribute 'nothing'"),
        (lambda: nn.Module()(X), NotImplementedError, "defines no forward"),
        (lambda: Net().get_submodule("many.7.x"), AttributeError, "many has no child '7'; it has: 0, 1"),
        (lambda: Net().get_submodule("mini"), AttributeError, "Net has no child 'mini'; it has: first, many, named"),
        (lambda: Net().to(np.int64), TypeError, "only floating point"),
    ],
)
def test_wrong_use(call: Any, error: type[Exception], match: str):
    with pytest.raises(error, match=match):
        call()


def test_forgotten_super_init():
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Identity()

    with pytest.raises(AttributeError, match=r"Forgetful: call super\(\).__init__\(\) before assigning 'layer'"):
        Forgetful()


def test_get_submodule():
    net = Net()
    assert net.get_submodule("") is net
    assert net.get_submodule("many.1.0") is net.many[1][0]


# ------------------------------------------------------------------------------------------------ the whole tree


def test_train_and_eval_reach_everything():
    net = Net()
    assert net.training
    assert net.eval() is net and not any(module.training for module in net.modules())
    assert all(module.training for module in net.train().modules())


def test_apply_visits_children_first():
    seen: list[str] = []
    Net().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Scale", "Scale", "Scale", "Scale", "Sequential", "ModuleList", "Scale", "ModuleDict", "Net"]


def test_gradients_are_switched_off_and_forgotten():
    net = Scale()
    net(X).sum().backward()
    assert net.weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert net.weight.grad.tolist() == [0.0]
    net.zero_grad()
    assert net.weight.grad is None
    net.requires_grad_(False)
    assert not net(X).requires_grad


def test_to_converts_floating_point_values_only():
    net = nn.BatchNorm2d(3)
    net.weight.grad = mr.tensor([1.0, 2.0, 3.0])
    assert net.double() is net
    assert {str(p.dtype) for p in net.parameters()} == {"float64"}
    assert net.running_mean.dtype == np.float64 and net.num_batches_tracked.dtype == np.int64
    assert net.weight.grad.dtype == np.float64
    assert net.to("cpu", np.float32).weight.dtype == np.float32
    assert net.float().cpu().running_var.dtype == np.float32


def test_deepcopy_owns_its_memory():
    net = Net()
    net.tied = net.first
    twin = copy.deepcopy(net)
    assert list(twin.state_dict()) == list(net.state_dict())
    assert twin.tied is twin.first and twin.first is not net.first
    assert isinstance(twin.first.weight, nn.Parameter) and twin.first.weight.requires_grad
    twin.first.weight.assign([9.0])
    twin.first.offset.assign([7.0])
    assert net.first.weight.item() == 2.0 and net.first.offset.item() == 1.0


def test_deepcopy_while_a_graph_holds_the_weights():
    net = Scale()
    out = net(mr.tensor([1.0], requires_grad=True))
    twin = copy.deepcopy(net)
    twin.weight.data[...] = 3.0  # the lock of the original's memory is not copied
    out.backward()
    assert net.weight.grad.item() == 1.0 and twin.weight.grad is None


# ------------------------------------------------------------------------------------------------ calling


def test_hooks_see_and_replace():
    net, seen = Scale(), []
    first = net.register_forward_pre_hook(lambda module, args: seen.append(args[0].tolist()))
    second = net.register_forward_pre_hook(lambda module, args: args[0] * 10)
    third = net.register_forward_hook(lambda module, args, output: output + args[0])
    assert net(mr.tensor([1.0])).item() == 31.0
    assert seen == [[1.0]]
    for handle in (first, second, third, third):
        handle.remove()
    assert net(mr.tensor([1.0])).item() == 3.0
    with net.register_forward_pre_hook(lambda module, args: (args[0] * 2,)):
        assert net(mr.tensor([1.0])).item() == 5.0
    assert net(mr.tensor([1.0])).item() == 3.0
    assert seen == [[1.0]]


class Failing(nn.Module):
    def forward(self, input: Any) -> Any:
        raise ShapeError("conv2d", "the channels differ", input=(input.shape, "N C"))


def test_the_innermost_path_is_in_the_message():
    net = Net()
    net.many[1].append(Failing())
    with pytest.raises(ShapeError, match=r"input \(N=1, C=2\)\n  in module: Net.many.1.2$"):
        net(X)
    assert state.modules == []
    with pytest.raises(ShapeError, match=r"in module: Sequential.2$"):
        net.many[1](X)
    with pytest.raises(ShapeError, match=r"in module: Failing$"):
        net.many[1][2](X)
    with pytest.raises(ShapeError, match=r"in module: Sequential.2$"):
        net.many[1][1:](X)


def test_paths_of_containers_that_are_filled_late():
    net = nn.Module()
    net.outer = nn.ModuleDict({"inner": nn.ModuleList()})
    net.outer["inner"].append(Failing())
    net.forward = lambda x: net.outer["inner"][0](x)
    with pytest.raises(ShapeError, match=r"in module: Module.outer.inner.0$"):
        net(X)


def test_anomalies_name_the_module():
    net = nn.Sequential(Scale(float("nan")))
    with mr.detect_anomaly(), pytest.raises(AnomalyError, match=r"in module: Sequential.0"):
        net(X)


# ------------------------------------------------------------------------------------------------ containers


def test_sequential():
    row = nn.Sequential(Scale(2.0), Scale(3.0), nn.Identity(7, any="thing"))
    assert row(mr.tensor([1.0])).item() == 10.0
    assert len(row) == 3 and row[-1] is row[2] and next(iter(row)) is row[0]
    part = row[:2]
    assert isinstance(part, nn.Sequential) and part[1] is row[1] and len(part) == 2
    assert [n for n, _ in nn.Sequential({"a": Scale(), "b": Scale()}).named_children()] == ["a", "b"]
    assert nn.Sequential()(X) is X
    with pytest.raises(IndexError, match="index 3 is out of range, there are 3 modules"):
        row[3]


def test_module_list_and_dict():
    modules = nn.ModuleList([Scale()]).extend([Scale(), Scale()])
    assert len(modules) == 3 and len(modules[1:]) == 2
    table = nn.ModuleDict({"a": Scale()})
    table["b"] = nn.Identity()
    assert list(table) == list(table.keys()) == ["a", "b"] and "b" in table and len(table) == 2
    assert [k for k, _ in table.items()] == ["a", "b"] and len(list(table.values())) == 2
    for module in (modules, table):
        with pytest.raises(NotImplementedError):
            module(X)


def test_parameter():
    parameter = nn.Parameter(mr.tensor([1.0, 2.0]))
    assert parameter.requires_grad and repr(parameter).startswith("Parameter containing:\ntensor([1., 2.]")
    assert not nn.Parameter(np.zeros(2), requires_grad=False).requires_grad
