"""Tensors on the GPU: what the class itself does, apart from the ops."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import memory
from minires.errors import AnomalyError, DeviceError, InPlaceError

pytestmark = pytest.mark.usefixtures("cuda")


def leaf(*values: float) -> mr.Tensor:
    return mr.tensor(np.array(values, np.float64), device="cuda", requires_grad=True)


MAKERS: dict[str, Any] = {
    "tensor": lambda **o: mr.tensor([1.0, 2.0], **o), "zeros": lambda **o: mr.zeros(2, 3, **o),
    "ones": lambda **o: mr.ones(2, **o), "full": lambda **o: mr.full((2,), 3, **o), "eye": lambda **o: mr.eye(3, **o),
    "arange": lambda **o: mr.arange(5, **o), "linspace": lambda **o: mr.linspace(0, 1, 5, **o),
    "randn": lambda **o: mr.randn(2, 3, **o), "randint": lambda **o: mr.randint(0, 9, (4,), **o),
    "randperm": lambda **o: mr.randperm(7, **o),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_new_tensors_are_the_same_on_both_devices(name: str) -> None:
    mr.manual_seed(1)
    expected = MAKERS[name]()
    mr.manual_seed(1)
    actual = MAKERS[name](device="cuda")
    assert (actual.device, actual.dtype, actual.shape) == ("cuda:0", expected.dtype, expected.shape)
    np.testing.assert_array_equal(actual.cpu().numpy(), expected.numpy())


def test_likes_stay_on_the_device() -> None:
    x = mr.ones(2, device="cuda")
    for each in (mr.zeros_like(x), mr.ones_like(x), mr.full_like(x, 3)):
        assert each.device == "cuda:0"


def test_a_gradient_finds_its_way_between_devices() -> None:
    x = mr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x.to("cuda") * 2).cpu().sum().backward()
    assert x.grad is not None and x.grad.device == "cpu" and x.grad.tolist() == [2, 2, 2]


def test_moving_keeps_the_memory_order() -> None:
    images = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
    moved = mr.from_numpy(images).to("cuda")
    assert moved.data.strides == images.strides
    assert moved.cpu().data.strides == images.strides
    np.testing.assert_array_equal(moved.cpu().numpy(), images)


def test_devices_do_not_mix() -> None:
    with pytest.raises(DeviceError, match="cpu and cuda:0"):
        leaf(1, 2) + mr.tensor([1.0, 2.0])
    with pytest.raises(DeviceError, match="cpu and cuda:0"):
        F.cat([leaf(1, 2), mr.tensor([1.0, 2.0])])
    assert (leaf(1, 2) * 2.0 + 1).tolist() == [3, 5]
    assert (np.float32(2) * leaf(1, 2)).tolist() == [2, 4]


def test_an_index_may_be_on_the_cpu() -> None:
    x = leaf(1, 2, 3)
    for index in (np.array([2, 0, 2]), mr.tensor([2, 0, 2]), [2, 0, 2], mr.tensor([2, 0, 2], device="cuda")):
        y = x[index]
        assert y.tolist() == [3, 1, 3]
        (gradient,) = mr.grad(y.sum(), x)
        assert gradient.tolist() == [1, 0, 2]
    assert x[mr.tensor([True, False, True])].tolist() == [1, 3]
    assert F.gather(x, 0, mr.tensor([1])).tolist() == [2]


def test_changes_in_place() -> None:
    x = mr.zeros(2, 3, device="cuda")
    x[0] = mr.tensor([1.0, 2.0, 3.0])
    x[1, np.array([0, 2])] = 5
    assert x.tolist() == [[1, 2, 3], [5, 0, 5]]
    x.copy_(mr.ones(3))
    x += 1
    assert x.tolist() == [[2, 2, 2], [2, 2, 2]]
    assert x.fill_(3).zero_().tolist() == [[0, 0, 0], [0, 0, 0]]


def test_what_a_rule_needs_is_locked() -> None:
    gc.collect()
    held = len(memory._held)
    x = mr.ones(3, device="cuda")
    w = leaf(1, 2, 3)
    y = w * x
    with pytest.raises(InPlaceError, match="mul"):
        x.zero_()
    with pytest.raises(InPlaceError, match="mul"):
        x[1:].zero_()  # a view of the same memory
    y.sum().backward()
    x.zero_()
    del y
    gc.collect()
    assert len(memory._held) == held


def test_leaving_the_device() -> None:
    x = mr.tensor([[1.5, 2.0]], device="cuda")
    assert x.sum().item() == 3.5 and float(x.sum()) == 3.5 and bool(x.sum()) and x.tolist() == [[1.5, 2.0]]
    assert f"{x.sum():.1f}" == "3.5" and "cuda:0" in repr(x) and "cuda:0" in x._repr_html_()
    assert x.cpu().numpy().tolist() == [[1.5, 2.0]]
    for attempt in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="cpu"):
            attempt()


def test_comparisons_and_indices() -> None:
    x = leaf(3, 1, 2)
    assert (x > 1).tolist() == [True, False, True] and (x == x).all().item() and not (x < 0).any().item()
    assert x.argmax().item() == 0 and x.argmin(0).item() == 1 and (~(x > 1)).tolist() == [False, True, False]
    assert (x > 1).device == "cuda:0" and x.argmax().device == "cuda:0"


def test_copies_and_files(tmp_path: Path) -> None:
    x = leaf(1, 2)
    twin = copy.deepcopy(x)
    assert twin.device == "cuda:0" and twin.requires_grad and twin.data is not x.data
    mr.save({"x": x}, tmp_path / "x.safetensors")
    assert mr.load(tmp_path / "x.safetensors")["x"].tolist() == [1, 2]


def test_hooks_accumulation_and_anomalies() -> None:
    x = leaf(1, 2)
    x.register_hook(lambda g: g * 10)
    (x * 3).sum().backward()
    (x * 3).sum().backward()
    assert x.grad is not None and x.grad.device == "cuda:0" and x.grad.tolist() == [60, 60]
    with mr.detect_anomaly(), pytest.raises(AnomalyError, match="log"):
        F.log(leaf(-1.0))


def test_the_second_derivative() -> None:
    x = leaf(2, 3)
    (g,) = mr.grad((x * x * x).sum(), x, create_graph=True)
    (h,) = mr.grad(g.sum(), x)
    assert h.device == "cuda:0" and h.tolist() == [12, 18]
