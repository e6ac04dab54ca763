"""The promises of the tape: right gradients, linear time, freed memory, no aliases, and errors instead of wrong numbers."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.autograd import Saved, op
from minires.device import Array
from minires.errors import AnomalyError, FreedGraphError, InPlaceError, MissingRuleError
from minires.tape import Node
from tests.engine import leaf

# ------------------------------------------------------------------------------------------------ small graphs


def test_product_rule():
    x, y = leaf(2.0, 3.0), leaf(5.0, -1.0)
    (x * y + x).backward(mr.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [6.0, 0.0]
    assert y.grad.tolist() == [2.0, 30.0]


def test_second_and_third_derivative_of_a_power():
    x = leaf(2.0)
    y = x**4
    (first,) = mr.grad(y, x, create_graph=True)
    (second,) = mr.grad(first, x, create_graph=True)
    (third,) = mr.grad(second, x)
    assert [first.item(), second.item(), third.item()] == [32.0, 48.0, 48.0]


def test_create_graph_adds_a_differentiable_gradient_to_the_leaf():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    gradient = x.grad
    x.grad = None
    gradient.backward()
    assert x.grad.item() == 18.0


def test_gradients_accumulate_over_backward_passes():
    x = leaf(3.0)
    (x * x).backward()
    (x * 4).backward()
    assert x.grad.item() == 10.0


def test_grad_of_an_intermediate_and_of_a_leaf_at_once():
    x = leaf(3.0)
    y = x * x
    z = y * x
    dy, dx = mr.grad(z, [y, x])
    assert (dy.item(), dx.item()) == (3.0, 27.0)
    assert x.grad is None


def test_grad_of_several_outputs_with_their_own_weights():
    x = leaf(3.0, 1.0)
    (g,) = mr.grad([x * 2, x * x], x, [mr.tensor([1.0, 1.0]), mr.tensor([0.0, 5.0])])
    assert g.tolist() == [2.0, 12.0]


def test_grad_walks_only_what_leads_to_its_inputs():
    x, unused = leaf(3.0), leaf(2.0)
    calls = []
    branch = unused * unused
    branch.register_hook(lambda g: calls.append(g))
    (g,) = mr.grad(x * 2 + branch, x)
    assert g.item() == 2.0
    assert calls == []
    assert unused.grad is None


def test_grad_of_an_unused_input():
    x, other = leaf(3.0), leaf(1.0)
    with pytest.raises(ValueError, match=r"do not depend on inputs\[1\].*allow_unused"):
        mr.grad(x * 2, [x, other])
    assert mr.grad(x * 2, [x, other], allow_unused=True)[1] is None


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 3), (1, 1), ()])
def test_the_engine_undoes_broadcasting(shape):
    rng = np.random.default_rng(1)
    small, large = rng.standard_normal(shape), rng.standard_normal((2, 3))
    upstream = rng.standard_normal((2, 3))
    a, b = mr.tensor(small, requires_grad=True), mr.tensor(large, requires_grad=True)
    (a * b).backward(mr.tensor(upstream))
    expected = upstream * large
    for axis in range(2):
        if np.broadcast_to(small, (2, 3)).shape[axis] != (1, 1, *shape)[axis - 2]:
            expected = expected.sum(axis, keepdims=True)
    np.testing.assert_allclose(a.grad.numpy(), expected.reshape(shape), rtol=1e-14)
    assert a.grad.shape == shape


# ------------------------------------------------------------------------------------------------ size


def test_a_chain_of_100_000_ops():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y * 1.00001
    y.backward()
    assert x.grad.item() == pytest.approx(1.00001**100_000)


def test_a_chain_of_100_000_ops_is_dropped_without_recursion():
    y = leaf(1.0)
    for _ in range(100_000):
        y = y * 1.00001
    alive = weakref.ref(y.grad_fn)
    del y
    assert alive() is None


def test_a_diamond_repeated_60_times_runs_each_rule_once():
    calls = []

    @op
    def double(input: Array, other: Array) -> Array:
        return input + other

    @double.backward
    def _(dy):
        calls.append(1)
        return dy, dy

    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = double(y, y)
    start = time.perf_counter()
    y.backward()
    assert x.grad.item() == 2.0**60
    assert len(calls) == 60
    assert time.perf_counter() - start < 5


# ------------------------------------------------------------------------------------------------ memory


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _living_nodes() -> int:
    return sum(type(o) is Node for o in gc.get_objects())


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("run_backward", [False, True])
def test_reference_counting_alone_frees_the_graph(no_gc, create_graph, run_backward):
    before = _living_nodes()
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    hidden = F.sigmoid(x * w)
    loss = (hidden * hidden / w).sum()
    if run_backward:
        gradients = mr.grad(loss, [x, w], create_graph=create_graph)
        if create_graph:
            sum((g * g).sum() for g in gradients).backward()
        del gradients
    array = weakref.ref(hidden.data)
    del loss, hidden
    assert _living_nodes() == before
    assert array() is None
    assert gc.collect() == 0


def test_intermediates_die_during_backward_while_the_loss_is_held():
    x = leaf(*range(4))
    arrays, alive_at_the_first_op = [], []
    first = x * 2
    first.register_hook(lambda g: alive_at_the_first_op.append(sum(a() is not None for a in arrays)))
    y = first
    for _ in range(10):
        y = F.exp(y * 0.01)
        arrays.append(weakref.ref(y.data))
    loss = y.sum()
    del y
    assert sum(a() is not None for a in arrays) == 10
    loss.backward()
    assert alive_at_the_first_op == [0]
    assert loss.item() > 0


def test_what_no_rule_names_is_not_kept():
    x = leaf(1.0, 2.0)
    middle = x + 1
    array = weakref.ref(middle.data)
    y = middle + 1  # the rule of add needs neither operand
    del middle
    assert array() is None
    y.backward(mr.tensor([1.0, 1.0]))


def test_a_second_backward_names_retain_graph():
    x = leaf(3.0)
    y = x * x
    y.backward()
    with pytest.raises(FreedGraphError, match=r"(?s)mul.*retain_graph=True"):
        y.backward()
    z = x * x
    z.backward(retain_graph=True)
    z.backward()
    assert x.grad.item() == 18.0


def test_a_freed_part_shared_by_two_losses_is_noticed():
    x = leaf(3.0)
    shared = x * x
    (shared + 1).backward()
    with pytest.raises(FreedGraphError):
        (shared * 2).backward()


# ------------------------------------------------------------------------------------------------ changes in place


def test_changing_a_kept_array_raises_and_names_the_op():
    x = leaf(1.0, 2.0)
    y = F.exp(x)
    z = x * y
    with mr.no_grad(), pytest.raises(InPlaceError, match=r"mul still needs it"):
        x[0] = 7.0
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 7.0
    with pytest.raises(ValueError, match="read-only"):
        y.data[0] = 7.0
    z.backward(mr.tensor([1.0, 1.0]))
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1, 2]) * (1 + np.array([1, 2])))
    x.data[0] = 7.0  # nobody needs it any more
    assert x.tolist() == [7.0, 2.0]


def test_the_lock_goes_with_a_graph_that_is_dropped_unused():
    x = leaf(1.0, 2.0)
    y = x * x
    del y
    x.data[0] = 7.0
    assert x.tolist() == [7.0, 2.0]


@pytest.mark.parametrize("view", [lambda x: x[0], lambda x: x.reshape(-1), lambda x: x.T, lambda x: x.detach()])
def test_the_lock_covers_views_and_what_they_look_at(view):
    x = mr.tensor(np.ones((2, 2)))
    seen = view(x)
    w = mr.tensor(np.ones(seen.shape), requires_grad=True)
    y = seen * w
    with pytest.raises(InPlaceError, match="mul"):
        x[0, 0] = 5.0
    with pytest.raises(ValueError, match="read-only"):
        x.data[0, 0] = 5.0
    del y
    x[0, 0] = 5.0
    assert x.data[0, 0] == 5.0


def test_two_wrapped_views_of_one_foreign_array_share_the_lock():
    array = np.zeros((2, 3))
    a, b = mr.from_numpy(array[0]), mr.from_numpy(array[1])
    w = mr.tensor(np.ones(3), requires_grad=True)
    first, second = a * w, b * w
    del first
    with pytest.raises(ValueError, match="read-only"):
        array += 1
    del second
    array += 1
    assert array[1, 2] == 1.0


def test_an_announced_change_is_allowed_and_the_stale_graph_says_so():
    x = leaf(1.0, 2.0)
    y = x * x
    x.assign([5.0, 6.0])
    assert x.tolist() == [5.0, 6.0]
    with pytest.raises(InPlaceError, match=r"mul: .*changed"):
        y.backward(mr.tensor([1.0, 1.0]))


def test_results_of_ops_cannot_be_changed_in_place():
    y = leaf(1.0, 2.0) * 2
    with pytest.raises(ValueError, match=r"not recorded.*where"):
        y[0] = 3.0
    x = leaf(1.0)
    with pytest.raises(ValueError, match=r"no_grad\(\) if it is a leaf"):
        x.zero_()


def test_numpy_is_read_only():
    x = mr.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        x.numpy()[0] = 3.0


# ------------------------------------------------------------------------------------------------ aliases


def test_gradients_of_two_leaves_have_memory_of_their_own():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    upstream = mr.tensor(np.array([1.0, 1.0]))
    (x + y).backward(upstream)  # the rule returns the same array twice
    x.grad.data[0] = 100.0
    assert y.grad.tolist() == [1.0, 1.0]
    assert upstream.tolist() == [1.0, 1.0]


def test_a_leaf_used_twice_does_not_grow_its_neighbour():
    x, y = leaf(1.0), leaf(1.0)
    (x + y + x).backward()
    assert (x.grad.item(), y.grad.item()) == (2.0, 1.0)


def test_views_of_one_parameter():
    x = mr.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    top, flat = x[0], x.reshape(6)
    (top * 10).sum().backward()
    flat[2:4].sum().backward()
    assert x.grad.tolist() == [[10.0, 10.0, 11.0], [1.0, 0.0, 0.0]]
    gradient = x.grad.data
    assert not np.shares_memory(gradient, x.data)


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x * 1])
def test_a_hook_that_edits_its_argument_reaches_no_other_path(make):
    x, other = leaf(1.0, 2.0), leaf(1.0, 2.0)
    watched = make(x)
    seen = []

    def halve(g):
        seen.append(g.tolist())
        g.data[...] *= 0.5

    watched.register_hook(halve)
    (watched + other).backward(mr.tensor([4.0, 4.0]))
    assert seen == [[4.0, 4.0]]
    assert x.grad.tolist() == [2.0, 2.0]
    assert other.grad.tolist() == [4.0, 4.0]


def test_a_hook_on_a_leaf_sees_the_whole_sum_once():
    x = leaf(1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3).backward()
    assert seen == [5.0]


def test_a_hook_can_replace_the_gradient_and_be_removed():
    x = leaf(1.0)
    y = x * 2
    remove = y.register_hook(lambda g: g * 10)
    y.backward(retain_graph=True)
    assert x.grad.item() == 20.0
    remove()
    y.backward()
    assert x.grad.item() == 22.0


def test_a_hook_that_returns_something_else_is_told_so():
    x = leaf(1.0)
    y = x * 2
    y.register_hook(lambda g: 3)
    with pytest.raises(ValueError, match="hook: expected None or a Tensor"):
        y.backward()


def test_retain_grad():
    x = leaf(2.0)
    y = x * 3
    y.retain_grad()
    (y * y).backward()
    assert y.grad.item() == 12.0
    y.grad.data[...] = 0
    assert x.grad.item() == 36.0


# ------------------------------------------------------------------------------------------------ ops of one's own


@op
def two_faces(input: Array, scale: float = 2.0) -> Array:
    """scale·x and x²."""
    return input * scale, input * input


@two_faces.backward
def _(dy, input, scale):
    first, second = dy
    return first * scale + second * (2 * input)


def test_one_unused_output_of_several():
    x = leaf(3.0, 4.0)
    _, square = two_faces(x)
    square.backward(mr.tensor([1.0, 1.0]))
    assert x.grad.tolist() == [6.0, 8.0]
    x.grad = None
    double, _ = two_faces(x, scale=5.0)
    (g,) = mr.grad(double, x, mr.tensor([1.0, 2.0]), create_graph=True)
    assert g.tolist() == [5.0, 10.0]


def test_an_op_without_a_rule_raises_with_its_name():
    @op
    def mystery(input: Array) -> Array:
        return input * 2

    x = leaf(1.0)
    y = mystery(x)
    with pytest.raises(MissingRuleError, match="mystery"):
        y.backward()
    with mr.no_grad():
        assert mystery(x).item() == 2.0


def test_a_rule_that_returns_too_little_is_named():
    @op
    def add3(a: Array, b: Array) -> Array:
        return a + b

    @add3.backward
    def _(dy):
        return dy

    with pytest.raises(TypeError, match=r"add3: its rule returned 1 gradient\(s\), expected one for each of: a, b"):
        add3(leaf(1.0), leaf(2.0)).backward()


def test_a_rule_with_a_gradient_of_the_wrong_shape_is_named():
    @op
    def tail(input: Array) -> Array:
        return input[1:]

    @tail.backward
    def _(dy):
        return dy

    with pytest.raises(ValueError, match=r"tail: its rule returned a gradient of shape \(1,\).*shape \(2,\)"):
        tail(leaf(1.0, 2.0)).backward()


def test_a_rule_that_asks_for_something_unknown_is_named():
    @op
    def odd(input: Array) -> Array:
        return Saved(input * 1, mask=input > 0)

    @odd.backward
    def _(dy, musk):
        return dy * musk

    with pytest.raises(TypeError, match="odd: its rule asks for 'musk'"):
        odd(leaf(1.0))


def test_arrays_in_arrays_out():
    result = two_faces(np.array([1.0, 2.0]))
    assert all(type(r) is np.ndarray for r in result)
    assert type(F.add(np.ones(2), 1)) is np.ndarray


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.add(x, [1, 2]), r"add: 'other' must be a Tensor, an array or a number, got list"),
        (lambda x: F.add(x, None), r"add: 'other' must be a Tensor"),
        (lambda x: F.add(x), r"add: missing argument 'other'"),
        (lambda x: F.add(x, 1, 2), r"add: too many positional arguments"),
        (lambda x: F.exp(x, speed=3), r"exp: got an unexpected keyword argument 'speed'"),
        (lambda x: F.exp("text"), r"exp: 'input' must be"),
    ],
)
def test_wrong_arguments_name_op_and_parameter(call, message):
    with pytest.raises(TypeError, match=message):
        call(leaf(1.0))


# ------------------------------------------------------------------------------------------------ modes


def test_no_grad_and_enable_grad_nest_and_decorate():
    x = leaf(1.0)
    with mr.no_grad():
        assert not (x * 2).requires_grad
        with mr.enable_grad():
            assert (x * 2).requires_grad
        assert not mr.is_grad_enabled()
    assert mr.is_grad_enabled()

    @mr.no_grad()
    def silent():
        return x * 2

    assert not silent().requires_grad


def test_the_mode_is_per_thread():
    seen = []
    with mr.no_grad():
        thread = threading.Thread(target=lambda: seen.append(mr.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_the_mode_survives_an_exception():
    with pytest.raises(KeyError), mr.no_grad():
        raise KeyError
    assert mr.is_grad_enabled()


def test_detect_anomaly_names_the_op_and_the_line_forward():
    x = leaf(-1.0)
    with np.errstate(all="ignore"), mr.detect_anomaly(), pytest.raises(AnomalyError) as caught:
        F.log(x) * 2
    assert "log: its forward pass made the first NaN" in str(caught.value)
    assert "test_autograd.py:" in str(caught.value)


def test_detect_anomaly_names_the_op_and_the_line_backward():
    x = leaf(0.0)
    with np.errstate(all="ignore"), mr.detect_anomaly():
        y = F.sqrt(x) * 3
        with pytest.raises(AnomalyError, match=r"(?s)sqrt: its backward rule made the first infinity.*test_autograd.py:"):
            y.backward()


# ------------------------------------------------------------------------------------------------ bad calls of backward


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: (leaf(1.0, 2.0) * 2).backward(), ValueError, r"shape \(2,\); without a gradient argument"),
        (lambda: (leaf(1.0) * 2).backward(mr.tensor([1.0, 2.0])), ValueError, r"gradient has shape \(2,\)"),
        (lambda: mr.tensor([1.0]).backward(), ValueError, "does not depend on anything that requires a gradient"),
        (lambda: mr.grad(leaf(1.0) * 2, mr.tensor([1.0])), ValueError, r"inputs\[0\] does not require a gradient"),
        (lambda: mr.grad(3.0, leaf(1.0)), TypeError, "expected a Tensor"),
        (lambda: mr.tensor([1, 2], requires_grad=True), ValueError, "only floating point"),
        (lambda: mr.tensor([1.0]).register_hook(print), ValueError, "does not require a gradient"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()
