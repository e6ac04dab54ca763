"""Arrays that a backward rule needs are locked, under whatever name they are known, and late changes are noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.autograd import op
from minires.device import Array
from minires.errors import InPlaceError
from tests.engine import leaf, refused

pytestmark = pytest.mark.usefixtures("nothing_stays_locked")


def test_a_raw_array_that_an_op_keeps_is_locked():
    x, factor = leaf(1.0, 2.0), np.array([3.0, 4.0])
    y = (x * factor).sum()
    with pytest.raises(ValueError, match="read-only"):
        factor[0] = 100.0
    y.backward()
    assert x.grad.tolist() == [3.0, 4.0]
    factor[0] = 100.0  # nobody needs it any more


def test_a_raw_option_that_an_op_keeps_is_locked():
    x, condition = leaf(1.0, 2.0), np.array([True, False])
    y = F.where(condition, x, 0.0).sum()
    with pytest.raises(ValueError, match="read-only"):
        condition[0] = False
    y.backward()
    assert x.grad.tolist() == [1.0, 0.0]


def test_raw_elements_of_a_sequence_are_locked():
    @op
    def product(factors: Sequence[Array]) -> Array:  # noqa: F821
        return factors[0] * factors[1]

    @product.backward
    def _(dy, factors):
        return [dy * factors[1], dy * factors[0]]

    x, other = leaf(1.0, 2.0), np.array([3.0, 4.0])
    y = product([x, other]).sum()
    with pytest.raises(ValueError, match="read-only"):
        other[0] = 100.0
    y.backward()
    assert x.grad.tolist() == [3.0, 4.0]


def test_an_intermediate_that_is_also_an_output_is_locked():
    x = mr.tensor(np.arange(16.0).reshape(1, 1, 4, 4), requires_grad=True)
    y, indices = F.adaptive_max_pool2d(x, 2, return_indices=True)
    with refused():
        indices[...] = 0
    with refused():
        indices.data[...] = 0
    y.sum().backward()
    assert np.flatnonzero(x.grad.numpy()).tolist() == [5, 7, 13, 15]


def test_a_second_wrapper_of_an_op_output_shares_its_lock():
    x, w = leaf(0.0, 1.0), leaf(1.0, 1.0)
    y = F.exp(x)
    again = mr.Tensor(y.data)
    z = (again * w).sum()
    del y  # gives back its lock, but the product still needs the array
    with refused():
        again[0] = 50.0
    with refused():
        again.data[0] = 50.0
    z.backward()
    assert w.grad.tolist() == [1.0, np.exp(1.0)]


def test_a_recorded_backward_pass_keeps_the_lock():
    x = leaf(0.0, 1.0)
    y = F.exp(x)
    same_memory = y.detach()
    (gradient,) = mr.grad(y.sum(), x, create_graph=True)
    del y
    with refused():
        same_memory[0] = 7.0
    (second,) = mr.grad(gradient.sum(), x)
    np.testing.assert_allclose(second.numpy(), np.exp([0.0, 1.0]))


def test_data_of_a_view_that_was_made_before_the_lock_is_read_only():
    x, w = mr.tensor(np.ones((2, 2))), leaf(1.0, 1.0)
    row = x[0]
    y = (x * w).sum()
    with refused():
        row.data[0] = 50.0
    y.backward()
    row.data[0] = 50.0
    assert x.data[0, 0] == 50.0


def test_the_lock_sees_through_strides_and_memory_maps(tmp_path):
    numbers = np.arange(5.0)
    windows = mr.from_numpy(np.lib.stride_tricks.sliding_window_view(numbers, 2))
    mapped = np.memmap(tmp_path / "numbers", dtype=np.float64, mode="w+", shape=(2,))
    w = leaf(1.0, 1.0)
    y, z = windows * w, mr.from_numpy(mapped) * w
    for array in (numbers, mapped):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 99.0
    del y, z
    numbers[0] = mapped[0] = 99.0


def test_a_leaf_whose_data_was_replaced_is_noticed_when_the_backward_pass_is_recorded():
    x = leaf(2.0)
    y = (x * x).sum()
    x.data = np.array([10.0])
    with pytest.raises(InPlaceError, match=r"mul: the \.data of a leaf .* was replaced"):
        mr.grad(y, x, create_graph=True)
    assert mr.grad(y, x)[0].tolist() == [4.0]  # the arrays that were kept are the old ones


@pytest.mark.parametrize("change", [lambda b, v: b.__setitem__(0, v), lambda b, v: b.copy_(v), lambda b, v: b.fill_(v)])
def test_values_with_a_gradient_are_not_copied_into_a_constant(change):
    w, buffer = leaf(2.0), mr.zeros(2, dtype=np.float64)
    with pytest.raises(ValueError, match="would lose their gradient"):
        change(buffer, (w * 2).sum())
    with mr.no_grad():
        change(buffer, (w * 2).sum())
    assert buffer[0].item() == 4.0


def test_writing_to_an_expanded_tensor_is_explained():
    with pytest.raises(ValueError, match=r"read-only .*clone"):
        mr.zeros(1).expand(3)[0] = 1.0


def test_an_announced_change_may_be_nested():
    x = leaf(1.0, 2.0)
    y = x * x
    with x.memory.announced_change():
        x.assign([5.0, 6.0])
        x.data[0] = 7.0
    with refused():
        x.data[0] = 8.0
    with pytest.raises(InPlaceError, match="changed"):
        y.sum().backward()
    assert x.tolist() == [7.0, 6.0]


def test_batch_norm_that_runs_twice_before_the_backward_pass():
    x = mr.tensor(np.random.default_rng(0).standard_normal((4, 3)), requires_grad=True)
    mean, variance = mr.zeros(3, dtype=np.float64), mr.ones(3, dtype=np.float64)
    evaluated = F.batch_norm(x, mean, variance)
    for _ in range(2):
        F.batch_norm(x, mean, variance, training=True).sum().backward()
    x.grad = None
    evaluated.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 1.0, rtol=1e-4)


def foreign(kind: str) -> np.ndarray[Any, Any]:
    """An array over memory that NumPy does not own: once read-only, NumPy would never let it be writable again."""
    values = np.array([3.0, 4.0])
    if kind == "dlpack":
        return np.from_dlpack(values)  # as an array from PyTorch, CuPy, JAX
    return np.lib.stride_tricks.as_strided(values, (2,), values.strides)


@pytest.mark.parametrize("kind", ["dlpack", "strided"])
def test_an_array_over_foreign_memory_can_be_used_and_stays_writable(kind):
    x, factor = leaf(1.0, 2.0), foreign(kind)
    if not factor.flags.writeable:
        pytest.skip("this NumPy hands out DLPack memory read-only")
    (x * factor).sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]
    factor[0] = 100.0
    assert factor.tolist() == [100.0, 4.0]


def test_a_leaf_over_foreign_memory_can_be_trained():
    x = mr.tensor(np.zeros(2), requires_grad=True)
    x.data = np.from_dlpack(np.array([3.0, 4.0]))
    loss = (x * x).sum()
    with refused(), mr.no_grad():
        x.copy_(0.0)
    loss.backward()
    assert x.grad.tolist() == [6.0, 8.0]


def test_memory_that_was_read_only_before_it_was_locked_stays_so():
    numbers = np.arange(4.0)
    numbers.flags.writeable = False
    w = leaf(1.0, 1.0, 1.0, 1.0)
    (mr.from_numpy(numbers) * w).sum().backward()
    assert not numbers.flags.writeable
    row = np.arange(8.0)[:4]
    for _ in range(2):  # a view and its owner, locked and let go twice
        y = (mr.from_numpy(row) * w).sum()
        assert not row.flags.writeable and not row.base.flags.writeable
        y.backward()
        assert row.flags.writeable and row.base.flags.writeable
