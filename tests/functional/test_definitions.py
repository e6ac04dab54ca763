"""Ops that are fused for speed, against their definitions in plain ops; and the fast kernels at the borders of blocks.

A recorded backward pass differentiates the definition, an ordinary one runs the fast rule, so the two have to agree: in
value, in the gradient, and where the definition's second derivative is held against the derivative of the fast gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import Tensor
from minires.autograd import Op
from minires.errors import InPlaceError
from minires.kernels.cpu import flat, gate, norm, threads
from tests.functional import table
from tests.functional.problem import Problem, assert_close
from tests.functional.sample import Sample


def fused_ops() -> list[Op[Any]]:
    """Every op with a definition in minires.functional."""
    modules = [module for name, module in sys.modules.items() if name.startswith("minires.functional.")]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, Op)}
    return sorted((op for op in found if op.defined is not None), key=lambda op: op.name)


def calls_of(sample: Sample) -> list[tuple[Op[Any], list[Any]]]:
    """The calls of fused ops, with their arrays, that a sample makes."""
    calls: list[tuple[Op[Any], list[Any]]] = []
    compute = Op._compute

    def watched(op: Op[Any], arrays: list[Any]) -> Any:
        if op.defined is not None:
            calls.append((op, list(arrays)))
        return compute(op, arrays)

    args, kwargs = sample.make(sample.rng())
    Op._compute = watched  # type: ignore[method-assign]
    try:
        sample.function(*args, **kwargs)
    finally:
        Op._compute = compute  # type: ignore[method-assign]
    return calls


def fused_problems() -> Iterator[Any]:
    for sample in table.samples():
        for op, arrays in calls_of(sample):
            rng = sample.rng().spawn(1)[0]  # not the numbers that the inputs were made of
            yield pytest.param(op, arrays, rng, sample.smooth and sample.second, id=f"{op.name}: {sample.name}")


PROBLEMS = list(fused_problems())
every_call = pytest.mark.parametrize(("op", "arrays", "rng", "smooth"), PROBLEMS)
every_smooth_call = pytest.mark.parametrize(("op", "arrays", "rng", "smooth"), [p for p in PROBLEMS if p.values[3]])


def as_problem(op: Op[Any], function: Callable[..., Any], values: list[Any], rng: Any) -> Problem:
    """``function``, the op or its definition, with the op's inputs as unknowns and its options as they are."""
    inputs = [i for i in op.inputs if isinstance(values[i], np.ndarray | list)]

    def call(*unknown: Any) -> Any:
        arguments = list(values)
        for i, value in zip(inputs, unknown, strict=True):
            arguments[i] = value
        return function(*arguments)

    return Problem(call, tuple(values[i] for i in inputs), {}, rng)


def test_every_fused_op_has_a_sample() -> None:
    tried = {problem.values[0] for problem in PROBLEMS}
    assert fused_ops(), "the scan finds no op with a definition"
    assert [op.name for op in fused_ops() if op not in tried] == []


@every_call
def test_value_and_gradient_equal_those_of_the_definition(op: Op[Any], arrays: list[Any], rng: Any, smooth: bool) -> None:
    fast = as_problem(op, op, arrays, rng)
    plain = as_problem(op, op.defined, arrays, rng)
    plain.upstream = fast.upstream
    for a, b in zip(fast.outputs(fast.arrays), plain.outputs(plain.arrays), strict=True):
        assert_close(a.data, b.data, "output")
    for i, (a, b) in enumerate(zip(fast.gradients(), plain.gradients(), strict=True)):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, f"gradient of input {i}")


@every_smooth_call  # at a kink there is no numeric derivative
def test_second_derivative_is_that_of_the_fast_rule(op: Op[Any], arrays: list[Any], rng: Any, smooth: bool) -> None:
    report = as_problem(op, op, arrays, rng).check(order=2, points=1)
    assert report.verdict == "right", report


# ------------------------------------------------------------------------------------ batch norm's kernels

SHAPES = [
    (5, 3), (7, 1), (3, 5, 7), (2, 16, 9, 5), (5, 48, 3, 11), (3, 2, 2, 3, 4), (4, 300, 2, 1), (2, 64, 8, 8), (1, 1, 9, 9),
]  # fmt: skip


@pytest.fixture(params=[1, 2, 4])
def with_threads(request: Any) -> Iterator[int]:
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that small arrays have many of them, and rows left over."""
    monkeypatch.setattr(norm, "BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(norm, "_LEAST_BYTES", 1 << 10)
    monkeypatch.setattr(norm, "WIDE", 64)
    monkeypatch.setattr(norm, "NARROW", 16)
    monkeypatch.setattr(flat, "BLOCK_BYTES", 1 << 7)


def run_batch_norm(
    shape: tuple[int, ...], relu: bool, training: bool, dtype: Any = np.float64, nchw: bool = False, kind: str = "any"
) -> Any:
    """Inputs, the op that ran, its output, and its gradients. The kernels have a way of their own for each ``kind``."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape) * 2 + (90 if kind == "far from 0" else 1)
    if not nchw:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    weight, bias = rng.standard_normal((2, shape[1]))
    if kind == "knee nearby":
        weight, bias = np.abs(weight) + 1, np.tanh(bias)
    leaves = [Tensor(a.astype(dtype), True) for a in (x, weight, bias)]
    running = np.full(shape[1], 0.5, dtype), np.full(shape[1], 3.0, dtype)
    op = F.batch_norm_relu if relu else F.batch_norm
    out = op(leaves[0], *running, *leaves[1:], training=training)
    upstream = rng.standard_normal(shape).astype(dtype)
    return leaves, out, upstream, mr.grad(out, leaves, upstream, retain_graph=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("relu", "kind"), [(True, "any"), (True, "knee nearby"), (True, "far from 0"), (False, "any"), (False, "far from 0")]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_and_threads_change_nothing(
    shape: tuple[int, ...], relu: bool, training: bool, kind: str, with_threads: int, small_blocks: None
) -> None:
    leaves, out, upstream, gradients = run_batch_norm(shape, relu, training, kind=kind)
    node = out.grad_fn
    plain = node.op.defined(*leaves, *(node.kept[name] for name in node.op.parameters[3:]))
    assert_close(out.data, plain.data, "output")
    for i, (a, b) in enumerate(zip(gradients, mr.grad(plain, leaves, upstream), strict=True)):
        assert_close(a.data, b.data, f"gradient of input {i}")
    again = run_batch_norm(shape, relu, training, kind=kind)
    assert np.array_equal(out.data, again[1].data)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(gradients, again[3], strict=True))


def test_results_are_the_same_bits_for_any_number_of_threads(small_blocks: None) -> None:
    results = []
    before = threads.get_num_threads()
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        _, out, _, gradients = run_batch_norm((3, 17, 9, 7), True, True, np.float32)
        results.append([out.data, *(g.data for g in gradients)])
    threads.set_num_threads(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("shape", [(8, 64, 16, 16), (4, 3, 33, 31), (64, 10)])
def test_real_block_size_in_float32(shape: tuple[int, ...]) -> None:
    single, double = (run_batch_norm(shape, False, True, dtype) for dtype in (np.float32, np.float64))
    assert_close(single[1].data, double[1].data, "output")
    for i, (a, b) in enumerate(zip(single[3], double[3], strict=True)):
        assert a.dtype == np.float32
        assert_close(a.data, b.data, f"gradient of input {i}")


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_variance_keeps_its_digits_far_from_zero(offset: float) -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((16, 8, 24, 24)) + offset).astype(np.float32)
    mean, variance = norm.batch_statistics(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(variance, exact.var(axis=(0, 2, 3)), rtol=1e-5)


def test_output_is_channels_last_and_input_may_be_anything() -> None:
    for nchw in (True, False):
        _, out, _, gradients = run_batch_norm((2, 5, 4, 3), True, True, nchw=nchw)
        for array in (out.data, gradients[0].data):
            assert array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert np.array_equal(*(run_batch_norm((2, 5, 4, 3), True, True, nchw=n)[1].data for n in (True, False)))


def test_relu_is_shut_at_zero_and_where_the_weight_is_zero() -> None:
    x = Tensor(np.array([[-1.0, 2.0], [1.0, 4.0]]), requires_grad=True)
    weight = Tensor(np.array([0.0, 1.0]), requires_grad=True)
    for bias, expected in ((-0.0, 0.0), (0.0, 0.0), (1e-300, 1.0)):
        out = F.batch_norm_relu(x, None, None, weight, Tensor(np.array([bias, 5.0]), requires_grad=True), training=True)
        gradient = mr.grad(out, weight, np.array([[1.0, 0.0], [0.0, 0.0]]))[0]
        assert gradient.data[0] == pytest.approx(-expected, rel=1e-4)


def test_empty_batch() -> None:
    x = Tensor(np.zeros((0, 3, 4, 4), np.float32), requires_grad=True)
    running = np.zeros(3, np.float32), np.ones(3, np.float32)
    weight = Tensor(np.ones(3, np.float32), requires_grad=True)
    out = F.batch_norm_relu(x, *running, weight, training=True)
    assert out.shape == x.shape and not running[0].any() and (running[1] == 1).all()
    dx, dweight = mr.grad(out, (x, weight), np.zeros(x.shape, np.float32))
    assert dx.shape == x.shape and dweight.tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------ running statistics


def test_running_statistics_follow_the_batches() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 5)).astype(np.float32)
    mean, variance = Tensor(np.full(3, 2, np.float32)), Tensor(np.full(3, 4, np.float32))
    F.batch_norm(Tensor(x), mean, variance, training=True, momentum=0.25)
    np.testing.assert_allclose(mean.data, 0.75 * 2 + 0.25 * x.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance.data, 0.75 * 4 + 0.25 * x.var(axis=(0, 2, 3), ddof=1), rtol=1e-6)
    assert mean.dtype == variance.dtype == np.float32
    before = mean.data.copy()
    F.batch_norm(Tensor(x), mean, variance, training=False)
    assert np.array_equal(mean.data, before)


def test_instance_norm_averages_its_statistics_over_the_samples() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    mean, variance = Tensor(np.zeros(3)), Tensor(np.ones(3))
    F.instance_norm(Tensor(x), mean, variance)
    np.testing.assert_allclose(mean.data, 0.1 * x.mean(axis=(0, 2)))
    np.testing.assert_allclose(variance.data, 0.9 + 0.1 * x.var(axis=2, ddof=1).mean(axis=0))
    expected = F.batch_norm(Tensor(x), mean, variance)
    assert np.array_equal(F.instance_norm(Tensor(x), mean, variance, use_input_stats=False).data, expected.data)


def test_two_batches_before_one_backward_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    running = Tensor(np.zeros(3)), Tensor(np.ones(3))
    x = Tensor(rng.standard_normal((4, 3)), requires_grad=True)
    evaluated = F.batch_norm(x, *running)
    trained = F.batch_norm(x, *running, training=True)
    upstream = rng.standard_normal((4, 3))
    expected = upstream / np.sqrt(1 + 1e-5)  # the statistics of before the training
    np.testing.assert_allclose(mr.grad(evaluated, x, upstream)[0].data, expected)
    assert mr.grad(trained, x, upstream)[0].shape == (4, 3)


def test_running_statistics_in_use_elsewhere_are_not_changed_silently() -> None:
    running_mean = Tensor(np.ones(3))
    scale = Tensor(np.ones(3), requires_grad=True)
    product = scale * running_mean
    F.batch_norm(Tensor(np.random.default_rng(0).standard_normal((4, 3))), running_mean, None, training=True)
    with pytest.raises(InPlaceError):
        product.sum().backward()


# ------------------------------------------------------------------------------------ gates and threads


@pytest.mark.parametrize("shape", [(), (1,), (33,), (3, 5, 7, 2), (0, 4)])
def test_gate_kernels_in_blocks(shape: tuple[int, ...], with_threads: int, small_blocks: None) -> None:
    rng = np.random.default_rng(2)
    f, z, g = (np.asarray(rng.standard_normal(shape)) for _ in range(3))
    m = 1 / (1 + np.exp(-z))
    if f.ndim == 4:
        f = np.moveaxis(np.ascontiguousarray(np.moveaxis(f, 1, -1)), -1, 1)
    out = gate.gated_residual(f, z)
    assert_close(out, (1 + m) * f, "gate")
    assert out.strides == f.strides or not f.size
    df, dz = gate.gated_residual_backward(g, f, z)
    assert_close(df, g * (1 + m), "gradient of the trunk")
    assert_close(dz, g * f * m * (1 - m), "gradient of the logits")


def test_an_error_in_a_worker_reaches_the_caller(with_threads: int) -> None:
    def fail_late(block: int) -> None:
        if block == 9:
            raise ZeroDivisionError("block 9")

    with pytest.raises(ZeroDivisionError, match="block 9"):
        threads.parallel_blocks(fail_late, range(10))


def test_blocks_inside_a_worker_run_there() -> None:
    before, done = threads.get_num_threads(), []
    threads.set_num_threads(2)

    def outer_block(i: int) -> None:
        threads.parallel_blocks(lambda j: done.append((i, j)), range(3))

    threads.parallel_blocks(outer_block, range(4))
    threads.set_num_threads(before)
    assert sorted(done) == [(i, j) for i in range(4) for j in range(3)]


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5])
def test_wrong_number_of_threads(wrong: Any) -> None:
    with pytest.raises(ValueError, match="set_num_threads: expected a whole number >= 1"):
        threads.set_num_threads(wrong)


# ------------------------------------------------------------------------------------ not in the table


def test_one_hot() -> None:
    index = np.array([[0, 2], [1, 1]])
    expected = [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]]
    assert F.one_hot(Tensor(index)).tolist() == expected and F.one_hot(index).dtype == np.int64
    assert F.one_hot(index, 4).shape == (2, 2, 4) and F.one_hot(np.array([], int), 3).shape == (0, 3)


def test_a_padding_row_gets_no_gradient() -> None:
    weight = Tensor(np.ones((3, 2)), requires_grad=True)
    F.embedding(np.array([0, 2, 2, 1]), weight, padding_idx=2).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1, 1], [1, 1], [0, 0]]


def test_dropout_repeats_with_the_seed_and_keeps_the_mean() -> None:
    x = Tensor(np.ones((100, 100), np.float32))
    mr.manual_seed(1)
    first = F.dropout(x, 0.2)
    mr.manual_seed(1)
    assert np.array_equal(first.data, F.dropout(x, 0.2).data)
    assert not np.array_equal(first.data, F.dropout(x, 0.2).data)
    assert first.data.mean() == pytest.approx(1, abs=0.03) and (first.data == 0).mean() == pytest.approx(0.2, abs=0.03)
    channels = F.dropout2d(Tensor(np.ones((20, 30, 2, 3), np.float32))).data.reshape(600, 6)
    assert ((channels == channels[:, :1]).all()) and 0.4 < (channels[:, 0] == 0).mean() < 0.6


def test_all_targets_ignored_gives_nan_as_in_pytorch() -> None:
    loss = F.cross_entropy(Tensor(np.zeros((2, 3))), np.array([-100, -100]))
    assert np.isnan(loss.item())


def test_a_mask_of_zeros_leaves_the_trunk_as_it_is() -> None:
    trunk = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(F.residual_attention(Tensor(trunk), Tensor(np.zeros_like(trunk))).data, trunk)


def test_binary_cross_entropy_of_constant_targets() -> None:
    x = Tensor(np.array([0.25, 0.5]), requires_grad=True)
    F.binary_cross_entropy(x, np.array([1.0, 0.0]), reduction="sum").backward()
    assert x.grad is not None and x.grad.tolist() == [-4, 2]
