"""Every test that every op has to pass, made from the table of samples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import Tensor
from minires.autograd import Op
from tests.fixtures import recorded
from tests.functional import table
from tests.functional.problem import Problem, assert_close, is_unknown, rebuild, walk
from tests.functional.sample import BadCall, Sample

SAMPLES = table.samples()


def every(samples: list[Any]) -> Any:
    return pytest.mark.parametrize("sample", samples, ids=lambda s: s.name)


def problem_of(sample: Sample) -> Problem:
    rng = sample.rng()
    args, kwargs = sample.make(rng)
    return Problem(sample.function, args, kwargs, rng)


# ------------------------------------------------------------------------------------ values and gradients


@every([s for s in SAMPLES if s.reference is not None])
def test_forward_equals_the_slow_reference(sample: Sample) -> None:
    args, kwargs = sample.make(sample.rng())
    expected = [np.asarray(value) for value in walk(sample.reference(*args, **kwargs))]
    result = sample.function(*rebuild(args, _as_tensor), **rebuild(kwargs, _as_tensor))
    actual = [t.data for t in walk(result)]
    assert len(actual) == len(expected)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert_close(a, e, f"output {i}")


def _as_tensor(value: Any) -> Any:
    return Tensor(value) if isinstance(value, np.ndarray) else value


@every([s for s in SAMPLES if not isinstance(s.torch, str)])
def test_values_and_gradients_equal_pytorch(sample: Sample) -> None:
    recordings, random_numbers = recorded.load()
    if recorded.random_numbers() != random_numbers:
        pytest.skip("this NumPy draws other random numbers than the one that was there when PyTorch was recorded")
    how = "record PyTorch's answer with: python -m tests.fixtures.record_pytorch (needs PyTorch, CPU)"
    if sample.name not in recordings:
        pytest.fail(f"{sample.name}: there is no recording of this sample; {how}", pytrace=False)
    expected, problem = recordings[sample.name], problem_of(sample)
    assert recorded.checksum([problem.args, problem.kwargs]) == expected.checksum, f"the sample was changed; {how}"
    outputs, gradients = problem.outputs(problem.arrays), problem.gradients()
    assert len(outputs) == len(expected.outputs)
    for i, (out, value) in enumerate(zip(outputs, expected.outputs, strict=True)):
        assert_close(out.data, value, f"output {i}")
    for i, (gradient, value) in enumerate(zip(gradients, expected.gradients, strict=True)):
        if value is not None:
            gradient = np.zeros_like(value) if gradient is None else gradient
            assert_close(gradient, value, f"gradient of input array {i}")


@every([s for s in SAMPLES if s.smooth])
def test_gradient(sample: Sample) -> None:
    report = problem_of(sample).check()
    assert report.verdict == "right", report
    assert report.reference == ("complex step" if sample.complex else "Richardson differences")


@every([s for s in SAMPLES if s.smooth and s.second])
def test_gradient_of_the_gradient(sample: Sample) -> None:
    report = problem_of(sample).check(order=2, points=1)
    assert report.verdict == "right", report


@every([s for s in SAMPLES if not s.smooth and s.derivative])
def test_gradient_at_kinks_and_ties(sample: Sample) -> None:
    report = problem_of(sample).check()
    assert report.verdict != "wrong", report


# ------------------------------------------------------------------------------------ how it computes


@every(SAMPLES)
def test_recorded_backward_equals_the_ordinary_one_and_inputs_stay_as_they_were(sample: Sample) -> None:
    problem = problem_of(sample)
    before = [a.copy() for a in problem.arrays + problem.upstream]
    ordinary = problem.gradients()
    for array, copy in zip(problem.arrays + problem.upstream, before, strict=True):
        assert np.array_equal(array, copy, equal_nan=True), "a backward pass changed an input or the upstream gradient"
        assert array.flags.writeable, "an input is still locked after the backward pass"
    for i, (a, b) in enumerate(zip(ordinary, problem.recorded_gradients()[2], strict=True)):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(b.data, a, f"gradient of input array {i}")


@every(SAMPLES)
def test_float32_stays_float32(sample: Sample) -> None:
    problem = problem_of(sample)
    singles = [Tensor(a.astype(np.float32), requires_grad=True) for a in problem.arrays]
    outputs = problem.outputs(singles)
    for i, (out, precise) in enumerate(zip(outputs, problem.outputs(problem.arrays), strict=True)):
        assert out.dtype == np.float32, f"output {i} is {out.dtype}"
        assert_close(out.data, precise.data, f"output {i}")
    upstream = [u.astype(np.float32) for u in problem.upstream]
    pairs = [(out, u) for out, u in zip(outputs, upstream, strict=True) if out.requires_grad]
    if not pairs:
        return
    found = mr.grad([out for out, _ in pairs], singles, [u for _, u in pairs], allow_unused=True)
    for i, (gradient, precise) in enumerate(zip(found, problem.gradients(), strict=True)):
        if gradient is not None:
            assert gradient.dtype == np.float32, f"gradient of input array {i} is {gradient.dtype}"
            assert_close(gradient.data, precise, f"gradient of input array {i}")


def _every_other(array: np.ndarray) -> np.ndarray:
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]) if array.ndim else (2,), 7.0)
    view = wide[..., ::2] if array.ndim else wide[0:1].reshape(())
    view[...] = array
    return view


def _channels_last(array: np.ndarray) -> np.ndarray:
    """The same values with the second axis last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1) if array.ndim > 1 else array


def _fortran(array: np.ndarray) -> np.ndarray:
    return np.array(array, order="F")


@pytest.mark.parametrize("layout", [_every_other, _channels_last, _fortran])
@every(SAMPLES)
def test_memory_layout_does_not_matter(sample: Sample, layout: Any) -> None:
    problem = problem_of(sample)
    arrays, upstream = [layout(a) for a in problem.arrays], [layout(u) for u in problem.upstream]
    for i, (a, b) in enumerate(zip(problem.outputs(arrays), problem.outputs(problem.arrays), strict=True)):
        assert_close(a.data, b.data, f"output {i}")
    for i, (a, b) in enumerate(zip(problem.gradients(arrays, upstream), problem.gradients(), strict=True)):
        if b is not None:
            assert_close(a, b, f"gradient of input array {i}")


@every([s for s in SAMPLES if isinstance(s.function, Op)])
def test_op_on_arrays_returns_arrays(sample: Sample) -> None:
    problem = problem_of(sample)
    for value in walk(problem.call(problem.arrays)):
        assert not isinstance(value, Tensor) and isinstance(value, np.ndarray | np.generic)


@pytest.mark.parametrize("bad", table.bad_calls(), ids=lambda b: b.name)
def test_bad_call_raises_a_helpful_error(bad: BadCall) -> None:
    with pytest.raises(bad.error, match=bad.match):
        bad.call()


# ------------------------------------------------------------------------------------ the table itself


def _ops() -> dict[Op[Any], str]:
    """Every op defined in minires.functional."""
    modules = [module for name, module in sys.modules.items() if name.startswith("minires.functional.")]
    return {value: module.__name__ for module in modules for value in vars(module).values() if isinstance(value, Op)}


def test_every_op_is_exercised_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    called, rules = set(), set()
    compute, gradients = Op._compute, mr.tape.Node.gradients

    def watched_compute(self: Op[Any], *args: Any) -> Any:
        called.add(self)
        return compute(self, *args)

    def watched_gradients(self: Any, *args: Any) -> Any:
        rules.add(self.op)
        return gradients(self, *args)

    monkeypatch.setattr(Op, "_compute", watched_compute)
    monkeypatch.setattr(mr.tape.Node, "gradients", watched_gradients)
    for sample in SAMPLES:
        problem = problem_of(sample)
        if sample.second:
            problem.second_gradients([np.ones_like(a) for a in problem.arrays])
        else:
            problem.recorded_gradients()
    unused = {op.name: module for op, module in _ops().items() if op not in called}
    assert not unused, f"ops that no sample calls: {unused}"
    unruled = {op.name: module for op, module in _ops().items() if op.rule is not None and op not in rules}
    assert not unruled, f"ops whose rule no sample runs: {unruled}"


def sample_named(name: str) -> Sample:
    return next(s for s in SAMPLES if s.name == name)


@contextmanager
def planted(op: Op[Any], rule: Callable[..., Any]) -> Iterator[None]:
    """``op`` with another rule for a while."""
    right = op.rule
    try:
        op.backward(rule)
        yield
    finally:
        op.backward(right)


WRONG_RULES: dict[str, tuple[str, Any, Callable[..., Any]]] = {
    "softmax without the coupling": ("softmax", F.softmax, lambda dy, y: dy * y),
    "softmax of 0": ("softmax", F.softmax, lambda dy: dy * 0),
    "sigmoid that ignores its upstream": ("sigmoid", F.sigmoid, lambda y: y * (1 - y)),
    "variance without the mean": ("var-dim", F.reduction.variance, lambda dy, input: F.unsqueeze(dy, 1) * input),
    "log_softmax without the sum": ("log_softmax", F.log_softmax, lambda dy: dy),
    "sub with the wrong sign": ("sub", F.sub, lambda dy: (dy, dy)),
    "tanh half a percent too small": ("tanh", F.tanh, lambda dy, y: dy * (1 - y * y) * 0.995),
    "matmul with an operand not transposed": (
        "matmul-square", F.matmul, lambda dy, input, other: (dy @ other, F.transpose(input, 0, 1) @ dy)),
    "matmul with the operands exchanged": (
        "matmul-square", F.matmul, lambda dy, input, other: (F.transpose(other, 0, 1) @ dy, F.transpose(input, 0, 1) @ dy)),
    "cumsum in the wrong direction": ("cumsum", F.cumsum, lambda dy, dim: F.cumsum(dy, dim)),
    "gelu without xΦ'": ("gelu", F.gelu, lambda dy, input: dy * (0.5 * (1 + F.erf(input * 0.5**0.5)))),
    "roll in the wrong direction": ("roll", F.roll, lambda dy, shifts, dims: F.roll(dy, shifts, dims)),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_RULES)
def test_a_wrong_rule_is_found(what: str) -> None:
    name, op, rule = WRONG_RULES[what]
    assert problem_of(sample_named(name)).check()
    with planted(op, rule):
        assert problem_of(sample_named(name)).check().verdict == "wrong"


def test_a_rule_that_is_right_once_but_not_twice_is_found() -> None:
    sample = sample_named("tanh")
    with planted(F.tanh, lambda dy, y: dy * Tensor(1 - y.data**2) if isinstance(y, Tensor) else dy * (1 - y * y)):
        assert problem_of(sample).check()
        assert problem_of(sample).check(order=2).verdict == "wrong"


@pytest.mark.parametrize("name", ["exp", "matmul-square", "softmax"])
def test_differences_agree_with_the_complex_step(name: str) -> None:
    report = problem_of(sample_named(name)).check(reference="richardson")
    assert report.verdict == "right", report
    assert report.reference == "Richardson differences"


def test_rebuild_visits_what_walk_visits() -> None:
    nested = [(np.ones(2), [3, {"a": np.zeros(1)}]), np.arange(2)]
    assert sum(is_unknown(v) for v in walk(nested)) == 2
    doubled = rebuild(nested, lambda v: v * 2)
    assert doubled[0][1][0] == 6 and isinstance(doubled[0], tuple) and doubled[1].tolist() == [0, 2]
