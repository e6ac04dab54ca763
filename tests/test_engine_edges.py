"""Where an engine goes wrong silently: aliases, late changes, shared locks, freed parts, threads, and 300 random graphs."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import memory, modes
from minires.autograd import Saved, op
from minires.device import Array
from minires.errors import AnomalyError, FreedGraphError, InPlaceError


def leaf(*values: float, dtype: Any = np.float64) -> mr.Tensor:
    return mr.tensor(np.array(values, dtype=dtype), requires_grad=True)


@pytest.fixture(autouse=True)
def nothing_stays_locked():
    """Every test gives back all locks, also those in which something fails."""
    gc.collect()
    before = len(memory._held)
    yield
    gc.collect()
    assert len(memory._held) == before


# ------------------------------------------------------------------------------------------------ late changes

def refused() -> Any:
    """The error of a write to locked memory: NumPy's own, or the one that names the op."""
    return pytest.raises((ValueError, InPlaceError), match=r"read-only|still needs it")


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
    y.register_hook(lambda g: (other * other).backward())
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


def test_a_weight_used_100_000_times_is_released_in_linear_time():
    w = leaf(1.0)
    y = w
    for _ in range(100_000):
        y = y * w
    y.backward()
    assert w.grad.item() == 100_001.0


@pytest.mark.parametrize("walked", [False, True])
def test_a_deep_recorded_graph_is_dropped_without_recursion(walked):
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y * 1.00001 + x * 1e-9
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
    inside, done = threading.Barrier(2), threading.Barrier(2)
    after = [None, None]

    @mr.no_grad()
    def silent(i):
        inside.wait(10)
        if i == 0:
            done.wait(10)  # the other thread leaves first

    def run(i):
        with modes.Mode("grad_enabled", i == 0):
            silent(i)
            after[i] = mr.is_grad_enabled()
        if i == 1:
            done.wait(10)

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


# ------------------------------------------------------------------------------------------------ random graphs


SHAPES = [(2, 3), (3,), (1, 3), (2, 1), (), (2, 2, 3)]

UNARY: list[Callable[..., Any]] = [
    F.sin,
    F.sigmoid,
    F.tanh,
    lambda x: F.exp(x * 0.3),
    lambda x: F.sqrt(x * x + 1.5),
    lambda x: 1.0 / (x * x + 1.0),
    lambda x: x * x,
    lambda x: x**3 * 0.1,
    lambda x: F.relu(x) + F.abs(x) * 0.5,
    lambda x: F.sum(x, -1, keepdim=True) if x.ndim else x + x,
    lambda x: F.mean(x, 0) if x.ndim else x - 0.5,
    lambda x: F.getitem(x, (..., slice(1, None))) if x.ndim and x.shape[-1] > 1 else -x,
    lambda x: F.getitem(x, np.array([0, 0, -1])) if x.ndim else x * 2,
    lambda x: F.split(x, 1, -1)[-1] if x.ndim and x.shape[-1] else x,
    lambda x: F.mul(*F.split(F.cat([x, x * x], -1), x.shape[-1], -1)) if x.ndim else x / 3.0,
    lambda x: F.permute(x, tuple(reversed(range(x.ndim)))) if x.ndim == 2 else F.flip(x, 0) if x.ndim else x,
    lambda x: F.reshape(F.expand(F.reshape(x, (1, *x.shape)), (2, *x.shape)), (-1,)) if math.prod(x.shape) < 9 else F.sum(x),
    lambda x: F.softmax(x, -1) if x.ndim else x,
]
BINARY: list[Callable[..., Any]] = [
    F.add, F.sub, F.mul, F.maximum,
    lambda a, b: a / (b * b + 1.0),
    lambda a, b: F.where(np.arange(math.prod((a + b).shape)).reshape((a + b).shape) % 3 == 0, a, b * 2.0),
    lambda a, b: F.cat([F.reshape(a, (-1,)), F.reshape(b, (-1,)), F.reshape(a * 0.5, (-1,))]),
]  # fmt: skip


class Program:
    """A random program over a few leaves, whose steps use any earlier values; runs on arrays and on Tensors."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.arrays = [rng.standard_normal(SHAPES[rng.integers(len(SHAPES))]) for _ in range(rng.integers(1, 5))]
        self.wanted = [i == 0 or rng.random() < 0.7 for i in range(len(self.arrays))]
        self.steps: list[tuple[Callable[..., Any], list[int]]] = []
        values = list(self.arrays)
        for _ in range(rng.integers(5, 16)):
            function, chosen = self._step(values)
            self.steps.append((function, chosen))
            values.append(np.asarray(function(*(values[i] for i in chosen))))
        picked = {len(values) - 1, *(int(i) for i in rng.integers(len(self.arrays), len(values), 2))}
        self.outputs = sorted(picked)
        self.weights = [rng.standard_normal(values[i].shape) for i in self.outputs]

    def _step(self, values: list[Any]) -> tuple[Callable[..., Any], list[int]]:
        rng = self.rng
        first, second = (int(i) for i in rng.integers(0, len(values), 2))
        if rng.random() < 0.5:
            try:
                np.broadcast_shapes(values[first].shape, values[second].shape)
            except ValueError:
                second = first  # the same value twice
            return BINARY[rng.integers(len(BINARY))], [first, second]
        return UNARY[rng.integers(len(UNARY))], [first]

    def run(self, leaves: list[Any]) -> list[Any]:
        values = list(leaves)
        for function, chosen in self.steps:
            values.append(function(*(values[i] for i in chosen)))
        return [values[i] for i in self.outputs]

    def number(self, arrays: list[Any]) -> Any:
        return sum((w * y).sum() for w, y in zip(self.weights, self.run(arrays), strict=True))

    def leaves(self, arrays: list[Any]) -> list[mr.Tensor]:
        """As Tensors, of which some require a gradient."""
        return [mr.tensor(a, requires_grad=wanted) for a, wanted in zip(arrays, self.wanted, strict=True)]

    def gradients(self, arrays: list[Any], create_graph: bool = False) -> tuple[list[mr.Tensor], list[mr.Tensor]]:
        tensors = self.leaves(arrays)
        leaves = [x for x in tensors if x.requires_grad]
        used = [(y, mr.tensor(w)) for y, w in zip(self.run(tensors), self.weights, strict=True) if y.requires_grad]
        if not used:
            return leaves, [mr.zeros_like(x) for x in leaves]
        found = mr.grad([y for y, _ in used], leaves, [w for _, w in used], create_graph=create_graph, allow_unused=True)
        return leaves, [mr.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]

    def moved(self, directions: list[Any], by: Any) -> list[Any]:
        """The leaves that want a gradient, moved along their directions."""
        steps = iter(directions)
        return [a + by * next(steps) if wanted else a for a, wanted in zip(self.arrays, self.wanted, strict=True)]


def dot(xs: Any, ys: Any) -> float:
    return sum(float((np.asarray(x) * np.asarray(y)).sum()) for x, y in zip(xs, ys, strict=True))


@pytest.mark.parametrize("block", range(6))
def test_random_graphs_to_second_order(block):
    for seed in range(50 * block, 50 * block + 50):
        program = Program(seed)
        leaves, gradients = program.gradients(program.arrays, create_graph=True)
        along, across = ([program.rng.standard_normal(x.shape) for x in leaves] for _ in range(2))
        numeric = program.number(program.moved(along, 1e-30j)).imag / 1e-30  # the complex step: no rounding error
        np.testing.assert_allclose(dot(gradients, along), numeric, rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}")

        plain = program.gradients(program.arrays)[1]
        for recorded, unrecorded in zip(gradients, plain, strict=True):
            np.testing.assert_allclose(recorded.numpy(), unrecorded.numpy(), rtol=1e-10, atol=1e-12)
        projected = [(g * mr.tensor(u)).sum() for g, u in zip(gradients, across, strict=True) if g.requires_grad]
        second = mr.grad(projected, leaves, allow_unused=True) if projected else [None] * len(leaves)
        h = 1e-5
        ahead, behind = (dot(program.gradients(program.moved(along, by))[1], across) for by in (h, -h))
        analytic = dot([np.zeros(x.shape) if g is None else g for x, g in zip(leaves, second, strict=True)], along)
        np.testing.assert_allclose(analytic, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-5, err_msg=f"seed {seed}")

        for x in leaves:  # and the same through backward(), in place into .grad
            x.grad = None
        outputs = program.run(_fill(program, leaves))
        for y, w in zip(outputs, program.weights, strict=True):
            if isinstance(y, mr.Tensor) and y.requires_grad:
                y.backward(w, retain_graph=True)
        for x, g in zip(leaves, plain, strict=True):
            np.testing.assert_allclose(0 if x.grad is None else x.grad.numpy(), g.numpy(), rtol=1e-9, atol=1e-11)


def _fill(program: Program, leaves: list[mr.Tensor]) -> list[Any]:
    """The leaves, with raw arrays for those that want no gradient."""
    wanted = iter(leaves)
    return [next(wanted) if want else a for a, want in zip(program.arrays, program.wanted, strict=True)]
