"""Tensors as values: how they are made, what their operators return, and what they refuse."""

from __future__ import annotations

import operator
import subprocess
import sys

import numpy as np
import pytest

import minires as mr
from minires.errors import DeviceError

# ------------------------------------------------------------------------------------------------ making them


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1.0, 2.0], np.float32),
        (3.5, np.float32),
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        ([1, 2.5], np.float32),
        ([], np.float32),
        (np.array([1.0]), np.float64),
        (np.float64(2.0), np.float64),
        (np.array([1], dtype=np.uint8), np.uint8),
        ([np.array([1.0, 2.0]), np.array([3.0, 4.0])], np.float64),
        ([1j], np.complex128),
    ],
)
def test_dtype_of_a_new_tensor(data, dtype):
    assert mr.tensor(data).dtype == dtype


def test_tensor_copies_and_from_numpy_shares():
    array = np.zeros(3)
    copied, shared = mr.tensor(array), mr.from_numpy(array)
    array[0] = 5
    assert copied.tolist() == [0, 0, 0]
    assert shared.tolist() == [5, 0, 0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mr.tensor([[1, 2], [3]]), ValueError, "tensor: cannot make an array of list"),
        (lambda: mr.tensor("abc"), TypeError, "dtype .* is not supported"),
        (lambda: mr.tensor(None), TypeError, "dtype object is not supported"),
        (lambda: mr.Tensor([1.0]), TypeError, r"expected a NumPy or CuPy array, got list \(use minires.tensor\(\)\)"),
        (lambda: mr.from_numpy([1.0]), TypeError, "from_numpy: expected a NumPy array"),
        (lambda: mr.tensor([1.0], device="tpu"), ValueError, "expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        (lambda: mr.manual_seed(-1), ValueError, "manual_seed: expected a whole number"),
        (lambda: mr.manual_seed(1.5), ValueError, "manual_seed: expected a whole number"),
    ],
)
def test_bad_data(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_filled_and_counted():
    assert mr.zeros(2, 3).shape == mr.zeros((2, 3)).shape == (2, 3)
    assert mr.ones(2).dtype == np.float32
    assert mr.full((2,), 7).dtype == np.int64
    assert mr.full((2,), 7.0).dtype == np.float32
    assert mr.arange(3).tolist() == [0, 1, 2]
    assert mr.arange(1, 2, 0.25).dtype == np.float32
    assert mr.linspace(0, 1, 3).tolist() == [0, 0.5, 1]
    assert mr.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert mr.empty(4, dtype=np.float64).shape == (4,)
    like = mr.zeros(2, dtype=np.float64)
    assert mr.ones_like(like).dtype == np.float64
    assert mr.zeros_like(like, dtype=np.int64).tolist() == [0, 0]


def test_random_numbers_repeat_with_the_seed_and_their_state_can_be_saved():
    from minires.random import get_rng_state, set_rng_state

    def draw():
        return [mr.rand(2).tolist(), mr.randn(2).tolist(), mr.randint(0, 9, 5).tolist(), mr.randperm(5).tolist()]

    mr.manual_seed(3)
    state = get_rng_state()
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first
    mr.manual_seed(3)
    assert draw() == first
    assert mr.randn(3).dtype == mr.rand(3).dtype == np.float32


# ------------------------------------------------------------------------------------------------ operators

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.floordiv, operator.mod]


@pytest.mark.parametrize("function", BINARY)
@pytest.mark.parametrize("other", [2, 1.5, True, np.float32(2), np.array([1.0, 2.0, 3.0], dtype=np.float32)])
@pytest.mark.parametrize("reflected", [False, True])
def test_arithmetic_agrees_with_numpy_and_stays_float32(function, other, reflected):
    array = np.array([1.5, 2.5, 3.0], dtype=np.float32)
    x = mr.tensor(array, requires_grad=True)
    ours = function(other, x) if reflected else function(x, other)
    theirs = function(other, array) if reflected else function(array, other)
    assert isinstance(ours, mr.Tensor)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)
    ours.sum().backward()
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("function", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
@pytest.mark.parametrize("other", [2.0, np.array([1.0, 2.0, 3.0]), mr.tensor([3.0, 2.0, 1.0])])
def test_comparisons_are_boolean_and_have_no_gradient(function, other):
    array = np.array([1.0, 2.0, 3.0])
    result = function(mr.tensor(array, requires_grad=True), other)
    assert result.dtype == np.bool_
    assert not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), function(array, np.asarray(other)))


def test_logic_matmul_and_unary():
    a, b = mr.tensor([True, False]), mr.tensor([True, True])
    assert (a & b).tolist() == [True, False]
    assert (a | b).tolist() == [True, True]
    assert (a ^ b).tolist() == [False, True]
    assert (~a).tolist() == [False, True]
    x = mr.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert (x @ x).tolist() == [[7, 10], [15, 22]]
    assert (np.eye(2, dtype=np.float32) @ x).tolist() == x.tolist()
    assert (-x).tolist() == [[-1, -2], [-3, -4]]
    assert (+x) is x
    assert abs(-x).tolist() == x.tolist()


def test_comparison_with_something_else():
    assert (mr.tensor([1.0]) == "text") is False
    with pytest.raises(TypeError):
        _ = mr.tensor([1.0]) < "text"


def test_in_place_operators_make_a_new_tensor():
    x = mr.tensor([1.0], requires_grad=True)
    y = x
    y += 1
    assert x.tolist() == [1.0]
    assert y.tolist() == [2.0]


def test_in_place_operators_change_a_weight_under_no_grad():
    weight = mr.tensor([8.0, 4.0], requires_grad=True)
    alias = weight
    with mr.no_grad():
        weight -= 2
        weight *= mr.tensor([1.0, 2.0])
        weight += np.float64(1)
        weight /= 1.0
    assert weight is alias
    assert weight.requires_grad
    assert weight.dtype == np.float32
    assert weight.tolist() == [7.0, 5.0]
    with mr.no_grad(), pytest.raises(ValueError, match="copy_"):
        weight += mr.zeros(3, 2)  # may not grow


# ------------------------------------------------------------------------------------------------ as a value


def test_conversions():
    x = mr.tensor([2.5])
    assert (float(x), int(x), x.item(), bool(x)) == (2.5, 2, 2.5, True)
    assert [10, 20, 30][mr.tensor(1)] == 20
    assert f"{x:.2f}" == "2.50"
    assert len(mr.zeros(3, 2)) == 3
    assert [row.tolist() for row in mr.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    assert (x.double().dtype, x.long().dtype, x.bool().dtype, x.float()) == (np.float64, np.int64, np.bool_, x)
    assert np.asarray(x).dtype == np.float32
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert (x.size(), x.size(0), x.dim(), x.numel(), x.ndim) == ((1,), 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: bool(x), ValueError, r"shape \(2, 2\) is neither true nor false"),
        (lambda x: x.item(), ValueError, "only a Tensor of one element"),
        (lambda x: [1, 2][x[0, 0]], TypeError, "only integer Tensors can be used as an index"),
        (lambda x: len(x.sum()), TypeError, "no axes"),
        (lambda x: iter(x.sum()), TypeError, "no axes"),
        (lambda x: x[5], IndexError, r"getitem: .*shape \(2, 2\)"),
        (lambda x: x.reshape(3), ValueError, r"cannot arrange 4 elements in shape \(3,\)"),
        (lambda x: x.permute(0, 0), ValueError, "must name each of the 2 axes once"),
        (lambda x: x.expand(3, 3), ValueError, "only axes of size 1"),
        (lambda x: setattr(x * x, "requires_grad", False), ValueError, "use x.detach"),
    ],
)
def test_misuse_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(mr.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True))


def test_changing_values():
    x = mr.zeros(3)
    x[1] = 5
    x[mr.tensor([0, 2])] = mr.tensor([1.0, 2.0])
    assert x.tolist() == [1, 5, 2]
    assert x.fill_(3).tolist() == [3, 3, 3]
    assert x.copy_([1, 2, 3]).tolist() == [1, 2, 3]
    assert x.zero_().tolist() == [0, 0, 0]
    x.data = np.ones(2)
    assert x.tolist() == [1, 1]


def test_data_of_a_leaf_must_stay_floating_point():
    x = mr.zeros(2, requires_grad=True)
    with pytest.raises(TypeError, match="cannot hold dtype int64"):
        x.data = np.ones(2, dtype=np.int64)


def test_detach_shares_memory_and_leaves_the_graph():
    x = mr.tensor([1.0, 2.0], requires_grad=True)
    y = (x * 2).detach()
    assert not y.requires_grad
    assert y.is_leaf
    assert np.shares_memory(x.detach().data, x.data)


def test_cast_carries_the_gradient_back():
    x = mr.tensor([1.0, 2.0], requires_grad=True)
    (x.double() * 3).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [3, 3]


def test_argmax_and_argmin_take_the_first():
    x = mr.tensor([[1.0, 3.0, 3.0], [0.0, 0.0, 2.0]])
    assert x.argmax().item() == 1
    assert x.argmax(1).tolist() == [1, 2]
    assert x.argmin(1, keepdim=True).tolist() == [[0], [0]]
    assert x.any().item() and not x.all().item()


def test_axes():
    x = mr.zeros(2, 3, 4)
    assert x.T.shape == (4, 3, 2)
    assert x.mT.shape == (2, 4, 3)
    assert x.transpose(0, 2).shape == (4, 3, 2)
    assert x.permute(1, 0, 2).shape == x.permute((1, 0, 2)).shape == (3, 2, 4)
    assert x.view(6, -1).shape == (6, 4)
    assert mr.zeros(1, 3).expand(2, -1).shape == (2, 3)
    assert mr.tensor([1, 2]).flip(0).tolist() == [2, 1]


def test_cuda_without_cupy_says_what_to_install():
    from minires import device

    if device.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match=r"CuPy is (not installed.*cuda13x|installed but finds no NVIDIA GPU)"):
        mr.tensor([1.0]).cuda()
    assert mr.tensor([1.0]).to("cpu").device == "cpu"
    device.synchronize("cpu")


def test_importing_minires_is_light():
    code = "import sys, minires; print(sorted({'matplotlib', 'cupy', 'PIL', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_is_there_and_the_rest_is_an_error():
    for name in mr.__all__:
        assert getattr(mr, name) is not None
    assert set(dir(mr)) == set(mr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mr.nothing  # noqa: B018


def test_logic_with_an_array_or_a_number_on_the_left():
    x = mr.tensor([True, False])
    assert (np.array([True, True]) & x).tolist() == (True & x).tolist() == [True, False]
    assert (np.array([False, False]) | x).tolist() == (False | x).tolist() == [True, False]
    assert (np.array([True, True]) ^ x).tolist() == (True ^ x).tolist() == [False, True]


def test_any_and_all_along_axes():
    x = mr.tensor([[1.0, 0.0], [2.0, 3.0]])
    assert x.any(1).tolist() == [True, True] and x.all(dim=1).tolist() == [False, True]
    assert x.all(0, keepdim=True).tolist() == [[True, False]] and x.all((0, 1)).item() is False


def test_to_by_name_and_as_another_tensor():
    x = mr.tensor([1.0], requires_grad=True)
    assert x.to(device="cpu") is x and x.to(dtype=np.float64).dtype == np.float64
    y = x.to(mr.tensor(np.array([2.0])))
    assert y.dtype == np.float64
    y.backward()
    assert x.grad.dtype == np.float32 and x.to(x) is x


def test_max_and_min_of_two_tensors():
    x, y = mr.tensor([1.0, 5.0], requires_grad=True), mr.tensor([2.0, 3.0])
    assert x.max(y).tolist() == [2.0, 5.0] and x.min(y).tolist() == [1.0, 3.0]
    x.max(y).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]
