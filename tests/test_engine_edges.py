"""Where an engine goes wrong silently: rules that leave the graph, hooks, gradients held, freed parts, modes and threads."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import Tensor, modes
from minires import functional as F
from minires.autograd import Saved, op
from minires.device import Array
from minires.errors import AnomalyError, FreedGraphError
from tests.engine import leaf, refused

pytestmark = pytest.mark.usefixtures("nothing_stays_locked")


# ------------------------------------------------------------------------------------------------ what a rule returns


@op
def cube(input: Array) -> Array:
    return input**3


@cube.backward
def _(dy, input):
    return np.multiply(np.asarray(dy), 3 * np.asarray(input) ** 2)  # leaves the graph


def test_a_rule_that_leaves_the_recorded_graph_is_named():
    x = leaf(2.0)
    assert mr.grad(cube(x), x)[0].item() == 12.0
    with pytest.raises(TypeError, match=r"cube: its rule returned ndarray .*only use minires' ops"):
        mr.grad(cube(x), x, create_graph=True)


def test_a_rule_that_returns_a_number_is_named():
    @op
    def double(input: Array) -> Array:
        return input * 2

    @double.backward
    def _(dy):
        return 2.0

    with pytest.raises(TypeError, match="double: its rule returned float for input number 0, expected an array"):
        double(leaf(1.0)).backward()


@pytest.mark.parametrize("result", [[1.0], 2.0, None])
def test_a_forward_that_returns_no_array_is_named(result):
    @op
    def odd(input: Array) -> Array:
        return result

    with pytest.raises(TypeError, match=r"odd: its forward must return an array or a tuple of arrays, got \w+"):
        odd(leaf(1.0))


def test_a_rule_that_fails_leaves_nothing_behind():
    @op
    def fragile(input: Array, other: Array) -> Array:
        return Saved(input * other, mask=input > 0)

    @fragile.backward
    def _(dy, input, other, mask, y):
        raise KeyError("on purpose")

    x, other = leaf(1.0, 2.0), np.ones(2)
    y = fragile(x, other)
    with pytest.raises(KeyError):
        y.sum().backward()
    assert mr.is_grad_enabled()
    del y
    gc.collect()  # the traceback is a cycle
    other[0] = x.data[0] = 3.0


def test_modes_and_modules_are_put_back_after_a_failure():
    class Broken(mr.nn.Module):
        def forward(self, x):
            raise KeyError

    with pytest.raises(KeyError), mr.detect_anomaly(), mr.no_grad():
        Broken()(leaf(1.0))
    assert (modes.state.modules, modes.state.grad_enabled, modes.state.anomaly) == ([], True, False)


# ------------------------------------------------------------------------------------------------ hooks


def test_an_edit_in_a_hook_would_be_lost_from_a_recorded_pass_so_it_is_refused():
    def edit(g):
        g.data[...] *= 0.5

    x = leaf(3.0)
    y = x**2
    y.register_hook(edit)
    with refused():
        mr.grad(y * y, x, create_graph=True)


def test_a_hook_may_not_change_the_dtype():
    x = leaf(2.0, dtype=np.float32)
    x.register_hook(lambda g: g.double())
    with pytest.raises(ValueError, match=r"hook: expected None or a Tensor of shape \(1,\) and dtype float32"):
        (x * 2).backward()


def test_a_hook_on_an_unused_output_is_not_called():
    x, calls = leaf(1.0, 2.0), []
    first, second = F.split(x, 1)
    first.register_hook(calls.append)
    first.retain_grad()
    second.backward()
    assert (x.grad.tolist(), calls, first.grad) == ([0.0, 1.0], [], None)


def test_a_hook_may_run_a_backward_pass_of_its_own():
    x, other = leaf(2.0), leaf(5.0)
    y = x * x

    def hook(g):
        with mr.enable_grad():  # hooks see the mode of the pass
            (other * other).backward()

    y.register_hook(hook)
    (y * 3).backward()
    assert (x.grad.item(), other.grad.item()) == (12.0, 10.0)


# ------------------------------------------------------------------------------------------------ grad() and .grad


def test_grad_notices_a_freed_part_on_the_way():
    x = leaf(2.0)
    shared = x * x
    (shared + 1).backward()
    z = shared * 2
    for allow_unused in (False, True):  # None would be a wrong answer
        with pytest.raises(FreedGraphError):
            mr.grad(z, x, allow_unused=allow_unused)


def test_grad_stops_in_front_of_a_freed_part_that_it_does_not_need():
    x, w = leaf(2.0), leaf(3.0)
    shared = x * x
    (shared + 1).backward()
    assert [g.item() for g in mr.grad(shared * w, [shared, w])] == [3.0, 4.0]


def test_outputs_as_inputs_and_inputs_twice():
    x = leaf(2.0)
    y = x * x
    gradients = mr.grad(y, [y, x, x])
    assert [g.item() for g in gradients] == [1.0, 4.0, 4.0]
    gradients[1].data[0] = 9.0
    assert gradients[2].item() == 4.0
    assert mr.grad(x, x)[0].item() == 1.0


def test_a_gradient_that_a_graph_holds_is_not_changed_by_the_next_backward_pass():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    held = x.grad
    penalty = held * held
    penalty.backward(retain_graph=True)  # d(9x⁴)/dx = 36x³
    assert (x.grad.item(), held.item()) == (12.0 + 288.0, 12.0)
    assert mr.grad(penalty, held)[0].item() == 24.0


def test_a_recorded_pass_adds_to_a_gradient_that_is_there():
    x = leaf(2.0)
    (x**2).backward()
    (x**3).backward(create_graph=True)
    assert x.grad.item() == 16.0
    assert mr.grad(x.grad, x)[0].item() == 12.0


@pytest.mark.parametrize(("given", "found"), [(mr.zeros(3), r"one of shape \(3,\)"), (np.zeros(2), "ndarray")])
def test_a_grad_that_the_user_set_has_to_fit(given, found):
    x = leaf(1.0, 2.0)
    x.grad = given
    with pytest.raises(ValueError, match=rf"must be None or a Tensor of shape \(2,\), found {found}"):
        x.sum().backward()


def test_a_read_only_grad_is_replaced():
    x = leaf(1.0, 2.0)
    x.grad = mr.ones(1, dtype=np.float64).expand(2)
    x.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_leaf_frozen_after_the_forward_pass_collects_nothing():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    x.requires_grad_(False)
    y.backward()
    assert (x.grad, w.grad.item()) == (None, 2.0)


def test_backward_of_a_leaf_does_not_alias_its_argument():
    x, upstream = leaf(1.0, 2.0), mr.tensor(np.array([3.0, 4.0]))
    x.backward(upstream)
    x.grad.data[0] = 100.0
    assert upstream.tolist() == [3.0, 4.0]


# ------------------------------------------------------------------------------------------------ what is kept


def test_a_product_with_a_constant_keeps_the_constant_only():
    x = leaf(1.0, 2.0)
    hidden = F.sin(x)
    array = weakref.ref(hidden.data)
    scaled, masked = hidden * 0.5, hidden * np.array([1.0, 0.0])
    del hidden
    assert array() is None
    (gradient,) = mr.grad((scaled + masked).sum(), x, create_graph=True)
    np.testing.assert_allclose(gradient.numpy(), np.cos([1.0, 2.0]) * [1.5, 0.5])
    np.testing.assert_allclose(mr.grad(gradient.sum(), x)[0].numpy(), -np.sin([1.0, 2.0]) * [1.5, 0.5])


def test_a_weight_used_20_000_times_is_released_in_linear_time():
    w = leaf(1.0)
    y = w
    for _ in range(20_000):
        y = y * w
    y.backward()
    assert w.grad.item() == 20_001.0


@pytest.mark.parametrize("walked", [False, True])
def test_a_deep_recorded_graph_is_dropped_without_recursion(walked):
    x = leaf(1.0)
    y = x
    for _ in range(8_000):
        y = y * 1.00001 + x * x * 1e-9
    (gradient,) = mr.grad(y, x, create_graph=True)
    assert "from" in repr(y)
    if walked:
        gradient.sum().backward()
    del y, gradient


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("number", [np.float64(2), np.sqrt(2), np.int64(2), np.float32(2), np.bool_(True)])
@pytest.mark.parametrize("function", [lambda x, n: x * n, lambda x, n: n - x, lambda x, n: x**n, F.maximum])
def test_numpy_numbers_count_as_python_numbers(number, function):
    x = leaf(1.0, 2.0, dtype=np.float32)
    y = function(x, number)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.numpy(), function(x.numpy(), number.item()), rtol=1e-6)
    y.sum().backward()
    assert x.grad.dtype == np.float32


def test_contiguous_keeps_a_0d_shape():
    x = mr.tensor(2.0, requires_grad=True)
    assert x.contiguous().shape == ()
    x.contiguous().backward()
    assert x.grad.item() == 1.0


def test_a_matrix_counts_as_a_plain_array():
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.warns(PendingDeprecationWarning):
        strange = np.matrix(matrix)
    for product in (mr.Tensor(strange) * mr.tensor(matrix), mr.tensor(matrix) * strange):
        np.testing.assert_array_equal(product.numpy(), matrix * matrix)


def test_data_takes_arrays_only():
    x = mr.zeros(2)
    with pytest.raises(TypeError, match="data: expected a NumPy or CuPy array, got list"):
        x.data = [1.0, 2.0]


def test_copies_and_pickles_of_leaves():
    x = mr.nn.Parameter(np.array([1.0, 2.0]))
    y = (x * x).sum()
    x.register_hook(print)
    restored, shallow = pickle.loads(pickle.dumps(x)), copy.copy(x)
    assert type(restored) is type(shallow) is mr.nn.Parameter
    assert restored.tolist() == [1.0, 2.0] and restored.requires_grad and restored._hooks is shallow._hooks is None
    restored.data[0] = 5.0  # not locked
    with refused():
        shallow.data[0] = 5.0  # the same memory
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ValueError, match="only leaves can be copied"):
            function(y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mr.zeros(2) < mr.zeros(3), ValueError, r"(?s)lt: .*\(2,\).*\(3,\)"),
        (lambda: mr.zeros(2) & mr.zeros(2), TypeError, "and: expected booleans or integers, got float32 and float32"),
        (lambda: ~mr.zeros(2), TypeError, "~: expected booleans or integers, got float32"),
        (lambda: F.cat(leaf(1.0, 2.0)), TypeError, "cat: 'tensors' must be a list or tuple of Tensors, got Tensor"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ------------------------------------------------------------------------------------------------ modes and threads


def in_threads(function: Callable[[int], Any], count: int = 2) -> None:
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            function(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors, errors[0]


def test_a_decorated_function_that_runs_in_two_threads_puts_back_the_mode_of_each():
    entered, left = (threading.Event(), threading.Event()), threading.Event()
    after = [None, None]

    @mr.no_grad()
    def silent(i):
        entered[i].set()
        assert (entered[1] if i == 0 else left).wait(10)  # 0 comes first and leaves first

    def run(i):
        assert i == 0 or entered[0].wait(10)
        with modes.Mode("grad_enabled", i == 0):
            silent(i)
            after[i] = mr.is_grad_enabled()
        left.set()

    in_threads(run)
    assert after == [True, False]


def test_a_mode_cannot_decorate_a_generator():
    with pytest.raises(TypeError, match=r"batches is a generator; set the mode in a 'with' block inside it"):

        @mr.no_grad()
        def batches():
            yield 1


def test_threads_that_share_weights():
    w = mr.tensor(np.ones(64), requires_grad=True)

    def train(i):
        for _ in range(300):
            ((w * w) * float(i + 1)).sum().backward()

    in_threads(train)
    np.testing.assert_array_equal(w.grad.numpy(), 300 * 2 * (1 + 2))
    w.data[0] = 5.0


def test_detect_anomaly_blames_the_users_line_although_the_folder_is_called_alike(tmp_path):
    folder = str(modes._PACKAGE).rstrip("/\\") + "_experiments"
    source = "import minires as mr\ndef run(F, x):\n    return F.log(x)\n"
    scope: dict[str, Any] = {}
    exec(compile(source, f"{folder}/mine.py", "exec"), scope)
    with np.errstate(all="ignore"), mr.detect_anomaly(), pytest.raises(AnomalyError, match=r"mine\.py:3"):
        scope["run"](F, leaf(-1.0))


# ------------------------------------------------------------------------------------ the memory of .grad


def _check_memory_of_gradients(function: Any, *leaves: Tensor) -> None:
    upstream = np.random.default_rng(0).standard_normal(function(*leaves).shape)
    function(*leaves).backward(upstream)
    found = [leaf.grad.data for leaf in leaves]
    for i, a in enumerate(found):
        others = [upstream, *(leaf.data for leaf in leaves), *found[:i]]
        assert not any(np.shares_memory(a, b) for b in others)
        assert a.flags.writeable


@op
def _strided(input: Array) -> Array:
    return input.copy()


@_strided.backward
def _(dy: Array) -> Any:
    return np.lib.stride_tricks.as_strided(dy)


@op
def _part(input: Array) -> Array:
    return input.copy()


@_part.backward
def _(dy: Array) -> Any:
    return np.concatenate([dy, dy])[: len(dy)]


@op
def _twice(input: Array, other: Array) -> Array:
    return input + other


@_twice.backward
def _(dy: Array) -> Any:
    fresh = dy + 0
    return fresh, fresh


@op
def _kept(input: Array) -> Array:
    return input + 0


@_kept.backward
def _(dy: Array, y: Array) -> Any:
    return y


@op
def _kept_in_a_tuple(input: Array) -> Array:
    return Saved(input * 3, slopes=(np.full_like(input, 3), 0))


@_kept_in_a_tuple.backward
def _(dy: Array, slopes: Any) -> Any:
    return slopes[0]


def test_a_gradient_that_looks_into_a_kept_tuple_is_a_copy():
    x = leaf(1.0, 2.0)
    y = _kept_in_a_tuple(x)
    for _ in range(2):
        y.backward(np.ones(2), retain_graph=True)
    assert x.grad.tolist() == [6, 6]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y, lambda x, y: x.reshape(3, 2).T + y, lambda x, y: x * y, lambda x, y: x + y.expand(2, 3),
        lambda x, y: _strided(x) + y, lambda x, y: _part(x) * y, lambda x, y: _twice(x, y), lambda x, y: _kept(x) * y,
        lambda x, y: F.cat([x, y]), lambda x, y: x[0:2] + y, lambda x, y: F.relu(x) @ y.T,
    ],
)  # fmt: skip
def test_no_gradient_shares_memory_with_anything(function):
    rng = np.random.default_rng(1)
    leaves = [Tensor(rng.standard_normal((2, 3)), requires_grad=True) for _ in range(2)]
    _check_memory_of_gradients(function, *leaves)


@pytest.mark.parametrize("function", [lambda x: x.mean(1, keepdim=True), lambda x: (x * 2).expand(3, 1)])
def test_a_gradient_may_be_edited_although_its_rule_returned_a_broadcast_view(function):
    x = Tensor(np.ones((3, 1)), requires_grad=True)
    _check_memory_of_gradients(function, x)
    x.grad.data *= 2


made: list[Any] = []


@op
def _product(input: Array, weight: Array) -> Array:
    return input @ weight


@_product.backward
def _(dy: Array, input: Array, weight: Array) -> Any:
    made[:] = [dy @ weight.T, input.T @ dy]
    return tuple(made)


def test_a_gradient_that_a_rule_made_for_a_leaf_alone_is_not_copied():
    x, w = (Tensor(np.random.default_rng(i).standard_normal((3, 3)), requires_grad=True) for i in range(2))
    _product(x, w).sum().backward()
    assert np.shares_memory(x.grad.data, made[0]) and np.shares_memory(w.grad.data, made[1])
    first = x.grad.data.copy()
    _product(x, w).sum().backward()
    assert np.array_equal(x.grad.data, 2 * first)


# ------------------------------------------------------------------------------------------------ graphs of numbers


def test_a_number_that_is_used_often_adds_its_gradients_to_the_grad_it_has():
    x, y = (mr.tensor(np.float32(value), requires_grad=True) for value in (0.5, 3.0))
    for times in (1, 2):
        (x * y + x * x + x).backward()
        if times == 1:
            first = x.grad
        assert x.grad is first and (x.grad.item(), y.grad.item()) == (times * 5.0, times * 0.5)
    assert (x.grad.dtype, x.grad.shape) == (np.float32, ())
    x.grad.data[...] = 7.0  # in memory of its own
    assert y.grad.item() == 1.0


def test_a_gradient_has_the_dtype_that_its_leaf_had_in_the_forward_pass():
    x = mr.tensor(np.ones(3), requires_grad=True)
    y = (x / 3).sum()
    x.data = np.ones(3, np.float32)  # as the gradient checker does, which runs a float32 network in float64
    y.backward()
    assert x.grad.tolist() == [1 / 3] * 3


def test_a_small_op_leaves_few_objects_for_the_garbage_collector():
    x, y = (mr.tensor(value, requires_grad=True) for value in (0.5, 0.9))
    z = x * y + x
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(100):
            z = z * y + x
        made = (len(gc.get_objects()) - before) / 100
    finally:
        gc.enable()
    assert made < 12  # for a product and a sum: two nodes with edges, and one lock
