"""What the table cannot say: dtypes with Python numbers, arrays of no elements or no axes, and what rules keep."""

from __future__ import annotations

import math
import operator
import pickle
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import Tensor
from minires.errors import ShapeError

OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.pow,
    operator.floordiv,
    operator.mod,
]
FUNCTIONS = [F.add, F.sub, F.mul, F.div, F.pow, F.floor_divide, F.remainder, F.maximum, F.minimum]
SCALARS = [2, -3, 0.5, -1.5, True, 1]


def _leaf(shape: tuple[int, ...] = (2, 3), dtype: Any = np.float32) -> Tensor:
    values = np.linspace(0.5, 2, math.prod(shape)).reshape(shape).astype(dtype)
    return Tensor(values, requires_grad=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3)])
@pytest.mark.parametrize("reflected", [False, True], ids=["", "reflected"])
@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("op", OPERATORS + FUNCTIONS, ids=lambda op: getattr(op, "name", op.__name__))
def test_python_numbers_never_change_the_dtype(op: Any, scalar: Any, reflected: bool, shape: Any, dtype: Any) -> None:
    x = _leaf(shape, dtype)
    with np.errstate(invalid="ignore"):  # a negative number to a broken power is NaN
        y = op(scalar, x) if reflected else op(x, scalar)
        assert y.dtype == dtype and y.shape == shape
        (gradient,) = mr.grad(y, x, np.ones(shape), create_graph=True)
    assert gradient.dtype == dtype and gradient.shape == shape


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("op", [F.add, F.mul, F.div, F.maximum, F.pow], ids=lambda op: op.name)
def test_integer_arrays_never_change_the_dtype(op: Any, dtype: Any) -> None:
    x, integers = _leaf(), Tensor(np.ones((2, 3), dtype))
    for y in (op(x, integers), op(integers, x)):
        assert y.dtype == np.float32
        assert mr.grad(y, x, np.ones((2, 3)))[0].dtype == np.float32


def test_functions_of_integers_are_float32() -> None:
    integers = Tensor(np.array([1, 2, 3]))
    made = [
        integers / 2,
        integers * 0.5,
        integers.exp(),
        integers.mean(),
        integers.softmax(0),
        integers.sigmoid(),
        1 / integers,
    ]
    assert [y.dtype for y in made] == [np.dtype(np.float32)] * len(made)
    assert (integers + 1).dtype == np.int64 and integers.sum().dtype == np.int64


def test_where_and_clamp_with_numbers_keep_float32() -> None:
    x = _leaf()
    for y in (
        F.where(x > 1, x, 0.5),
        F.where(x > 1, -1, x),
        x.clamp(0.7, 1.5),
        x.clamp(1, None),
        F.masked_fill(x, x > 1, -math.inf),
    ):
        assert y.dtype == np.float32
        assert mr.grad(y, x, np.ones((2, 3)))[0].dtype == np.float32


UNARY = [
    F.neg,
    F.exp,
    F.log,
    F.sqrt,
    F.sin,
    F.cos,
    F.abs,
    F.relu,
    F.leaky_relu,
    F.sigmoid,
    F.tanh,
    F.softplus,
    F.silu,
    F.gelu,
    F.erf,
    F.clone,
    F.contiguous,
    F.sum,
    F.prod,
    lambda x: F.gelu(x, "tanh"),
    lambda x: F.clamp(x, 0, 1),
    lambda x: F.norm(x),
]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
@pytest.mark.parametrize("op", UNARY, ids=lambda op: getattr(op, "name", "lambda"))
def test_no_axes_and_no_elements(op: Any, shape: Any) -> None:
    x = _leaf(shape)
    y = op(x)
    (gradient,) = mr.grad(y, x, np.ones(y.shape), create_graph=True)
    assert (y.dtype, gradient.dtype, gradient.shape) == (np.float32, np.float32, shape)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.softmax(x, 1),
        lambda x: F.log_softmax(x, 1),
        lambda x: F.softmax(x, 0),
        lambda x: F.sum(x, 1),
        lambda x: F.mean(x, 1),
        lambda x: F.amax(x, 1),
        lambda x: F.max(x, 1).values,
        lambda x: F.prod(x, 0),
        lambda x: F.cumsum(x, 0),
        lambda x: F.var(x, 1),
        lambda x: F.logsumexp(x, 1),
        lambda x: F.matmul(x, np.ones((3, 2), np.float32)),
        lambda x: F.matmul(np.ones((2, 0), np.float32), x),
        lambda x: F.linear(x, np.ones((2, 3), np.float32)),
        lambda x: F.einsum("ij->j", x),
        lambda x: F.cat([x, np.ones((2, 3), np.float32)]),
        lambda x: F.stack([x, x]),
        lambda x: F.pad(x, (1, 1)),
        lambda x: F.pad(x, (1, 1, 1, 1), value=1.0),
        lambda x: F.chunk(x, 2)[0],
        lambda x: F.flatten(x),
        lambda x: F.flip(x, 0),
        lambda x: F.roll(x, 1, 0),
        lambda x: x[:, np.array([0, 0])],
        lambda x: x[np.zeros(0, bool)],
        lambda x: F.tril(x),
    ],
)
def test_rows_of_which_there_are_none(function: Any) -> None:
    x = _leaf((0, 3))
    y = function(x)
    (gradient,) = mr.grad(y, x, np.ones(y.shape), create_graph=True)
    assert (y.dtype, gradient.dtype, gradient.shape) == (np.float32, np.float32, (0, 3))


def test_a_number_along_its_only_axis() -> None:
    """PyTorch lets dim 0 and -1 stand for an array of no axes."""
    x = _leaf(())
    for y in (
        F.softmax(x, 0),
        F.logsumexp(x, -1),
        F.cumsum(x, 0),
        F.max(x, 0).values,
        F.sum(x, -1),
        F.flatten(x)[0],
        F.squeeze(x, 0),
    ):
        assert y.shape == ()
        assert mr.grad(y, x)[0].shape == ()


def test_extremes_along_an_axis_are_named_and_have_integer_indices() -> None:
    found = _leaf().max(1)
    assert found.values.tolist() == found[0].tolist() and found.indices.tolist() == [2, 2]
    assert found.indices.dtype == np.int64 and not found.indices.requires_grad


def test_one_degree_of_freedom_too_few_is_nan_as_in_pytorch() -> None:
    x = _leaf((1, 2))
    y = F.var(x, 0)
    assert np.isnan(y.data).all() and np.isnan(mr.grad(y, x, np.ones(2))[0].data).all()


@pytest.mark.parametrize("weight", [None, np.array([1.0, 2.0, 3.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_of_ignored_classes_alone_has_no_gradient(weight: Any, smoothing: float) -> None:
    """Its mean is 0/0, but a NaN in the gradient would spoil every weight of the network."""
    x = _leaf((2, 3))
    loss = F.cross_entropy(x, np.array([1, 1]), weight, ignore_index=1, label_smoothing=smoothing)
    assert np.isnan(loss.item()) and mr.grad(loss, x)[0].tolist() == np.zeros((2, 3)).tolist()
    loss = F.nll_loss(x, np.array([1, 1]), weight, ignore_index=1)
    assert np.isnan(loss.item()) and mr.grad(loss, x)[0].tolist() == np.zeros((2, 3)).tolist()


def test_a_mean_over_classes_that_weigh_nothing_is_nan_as_in_pytorch() -> None:
    """Label smoothing leaves a loss on the other classes, but there is no weight to divide it by."""
    weight = np.array([0.0, 1, 2])
    for create_graph in (False, True):
        x = Tensor(np.array([[0.5, 1, 2]]), requires_grad=True)
        loss = F.cross_entropy(x, np.array([0]), weight, label_smoothing=0.1)
        assert np.isnan(loss.item())
        loss.backward(create_graph=create_graph)
        assert np.isnan(x.grad.data).all()


def test_logits_may_be_integers_and_weights_a_list() -> None:
    loss = F.cross_entropy(Tensor(np.ones((2, 3), np.int64)), np.array([0, 2]), weight=[1, 1, 2])
    assert loss.dtype == np.float32
    assert abs(loss.item() - np.log(3)) < 1e-6


def test_reductions_and_pieces_of_nothing() -> None:
    x = _leaf((2, 0))
    y = F.logsumexp(x, 1)
    assert y.tolist() == [-np.inf, -np.inf] and mr.grad(y, x, np.ones(2))[0].shape == (2, 0)
    assert [piece.shape for piece in F.chunk(x, 3, 1)] == [(2, 0)] * 3


def test_softmax_and_friends_survive_masks() -> None:
    x = Tensor(np.array([[0.0, -np.inf], [-np.inf, -np.inf]], np.float32))
    assert F.softmax(x[:1], 1).tolist() == [[1, 0]]
    assert F.logsumexp(x, 1).tolist() == [0, -np.inf]


def test_relu_keeps_only_its_output() -> None:
    x = _leaf()
    y = F.relu(x * 1)
    assert list(y.grad_fn.kept) == ["y"] and y.grad_fn.kept["y"] is y.data


def test_an_index_may_be_changed_after_use() -> None:
    x, index = _leaf((3,)), np.array([0, 1])
    y = x[index]
    index[:] = 2
    assert mr.grad(y, x, np.ones(2))[0].tolist() == [1, 1, 0]


@pytest.mark.parametrize("index", [np.s_[1:], np.s_[..., 0], np.s_[:, None], 1])
def test_basic_indexing_and_pieces_are_views(index: Any) -> None:
    x = _leaf((3, 4))
    assert np.shares_memory(x[index].data, x.data)
    assert all(np.shares_memory(piece.data, x.data) for piece in (*F.split(x, 2), *F.chunk(x, 2, 1), F.unsqueeze(x, 1)))


def test_elementwise_ops_and_padding_keep_channels_last_memory() -> None:
    x = Tensor(np.ones((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2), requires_grad=True)  # (N, C, H, W)
    for y in (F.relu(x), x * 2, F.sigmoid(x), F.pad(x, (1, 1, 1, 1)), F.where(x > 0, x, 0), F.cat([x, x], 1)):
        assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_products_of_many_numbers_need_no_table_unless_one_is_zero() -> None:
    x = Tensor(np.full(20000, 1.0), requires_grad=True)
    assert mr.grad(F.prod(x), x)[0].tolist() == [1.0] * 20000


def test_errors_of_an_op_can_be_pickled() -> None:
    error = ShapeError("matmul", "the inner sizes must be equal", input=((2, 3), "N K"), other=((4, 5), "K M"))
    error.module_path = "head.0"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ShapeError
    assert str(again) == str(error)
