"""Sums that keep their memory order, and elements written to places given by index: as NumPy, and always alike."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.kernels.cpu import elements as cpu
from tests.cuda.compare import as_host

SHAPE = (3, 4, 5)


def indices(rng: np.random.Generator) -> dict[str, Any]:
    """Indices into SHAPE that name elements several times."""
    return {
        "rows": rng.integers(0, 3, 11),
        "negative": rng.integers(-3, 3, (2, 6)),
        "two axes": (rng.integers(0, 3, 7), slice(None), rng.integers(0, 5, 7)),
        "broadcast": (rng.integers(0, 3, (4, 1)), rng.integers(0, 4, 5)),
        "slice and array": (slice(None, None, -1), rng.integers(0, 4, 9)),
        "with a mask": (np.array([True, False, True]), rng.integers(0, 4, 2)),
        "one": (np.array([1]), 2),
        "all the same": np.full(33, 2),
        "none": np.zeros(0, np.int64),
    }


def on(xp: ModuleType, index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(on(xp, i) for i in index)
    return xp.asarray(index) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int64, np.bool_], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", indices(np.random.default_rng(0)))
@pytest.mark.parametrize("function", ["put_add", "put_last"])
def test_puts_are_numpys(function: str, name: str, dtype: Any, cuda: ModuleType) -> None:
    rng = np.random.default_rng(5)
    index = indices(rng)[name]
    values = (rng.standard_normal(np.zeros(SHAPE)[index].shape) * 3).astype(dtype)
    if dtype == np.complex128:
        values = values + 1j * rng.standard_normal(values.shape)
    expected = getattr(cpu, function)(values, index, SHAPE)
    x = cuda.asarray(values)
    actual = getattr(kernels.of(x), function)(x, on(cuda, index), SHAPE)
    assert actual.dtype == expected.dtype
    exact = function == "put_last" or np.dtype(dtype).kind in "ib"
    np.testing.assert_allclose(as_host(actual), expected, rtol=0, atol=0 if exact else 40 * np.finfo(dtype).eps)


def test_sums_repeat_bit_for_bit_and_do_not_wait(cuda: ModuleType) -> None:
    rng = np.random.default_rng(1)
    values, index = cuda.asarray(rng.standard_normal(5000).astype(np.float32)), cuda.asarray(rng.integers(0, 7, 5000))
    first = as_host(kernels.of(values).put_add(values, index, (7,)))
    for _ in range(3):
        assert first.tobytes() == as_host(kernels.of(values).put_add(values, index, (7,))).tobytes()


def test_a_put_does_not_make_the_host_wait(standin: ModuleType) -> None:
    from tests.cuda.standin import no_syncs

    values, index = standin.ones(5, np.float32), standin.zeros(5, np.int64)
    with no_syncs():
        kernels.of(values).put_add(values, index, (7,))
        kernels.of(values).put_last(values, index, (7,))


def test_a_sum_keeps_the_memory_order(cuda: ModuleType) -> None:
    x = cuda.ones((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
    y = kernels.of(x).add(x, x)
    assert y.strides == x.strides and float(y.max()) == 2
    for other in (1, 2.5, cuda.ones((5,), np.float32), cuda.ones(x.shape, np.float64)):
        assert kernels.of(x).add(x, other).shape == x.shape
    assert float(kernels.of(x).add(cuda.ones((), np.float32), 2)) == 3
