"""The kernels in plain array operations are the CPU's, for every dtype; and both devices have the same kernels."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.kernels import cpu
from minires.kernels import cuda as gpu
from minires.kernels.cuda import plain
from minires.kernels.window import Window
from tests.cuda.compare import as_host

POOL = Window((3, 2), (2, 1), (1, 0), (1, 2), (7, 6), (4, 4))


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "i":
        return rng.integers(-9, 9, shape)
    values = rng.standard_normal(shape)
    return values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values.astype(dtype)


def calls(rng: np.random.Generator, dtype: Any) -> dict[str, tuple[Any, ...]]:
    """Arguments for every kernel that takes this dtype."""
    geometry = (2, 1), (1, 0), (1, 2), 2
    x, w, dy = (numbers(rng, shape, dtype) for shape in ((3, 4, 7, 6), (6, 2, 3, 2), (3, 6, 4, 4)))
    found: dict[str, tuple[Any, ...]] = {
        "matmul": (numbers(rng, (3, 5), dtype), numbers(rng, (5, 4), dtype)),
        "pick": (x, np.array([0, 0, 6]), np.array([5, 1])),
        "max_pool_scatter": (numbers(rng, (3, 4, 4, 4), dtype), rng.integers(2, 3, (3, 4, 4, 4)).astype(np.uint8), POOL),
        "max_pool_gather": (x, rng.integers(2, 4, (3, 4, 4, 4)).astype(np.uint8), POOL),
    }
    if np.dtype(dtype).kind != "c":
        found["max_pool"] = (x, POOL)
    if np.dtype(dtype).kind == "i":
        return found
    rows, columns = rng.standard_normal((5, 7)), rng.standard_normal((3, 6))
    found |= {
        "conv2d": (x, w, numbers(rng, (6,), dtype), *geometry, (4, 4)),
        "conv2d_weight": (x, dy, (3, 2), *geometry),
        "conv_transpose2d": (dy, w, *geometry, (7, 6)),
        "resample": (x, rows, columns),
    }
    if np.dtype(dtype).kind == "f":
        mean, variance, weight, bias = (rng.random(4) + 0.5 for _ in range(4))
        weight, bias = weight.astype(dtype), bias.astype(dtype)
        g = numbers(rng, x.shape, dtype)
        found |= {
            "batch_statistics": (x,),
            "batch_norm": (x, mean, variance, weight, bias, 1e-5, True),
            "batch_norm_backward": (g, x, mean, variance, weight, bias, 1e-5, True, True),
            "gated_residual": (x, g),
            "gated_residual_backward": (g, x, x + 1),
        }
    return found


KINDS = [np.float32, np.float64, np.complex128, np.int64]
CASES = [(name, dtype) for dtype in KINDS for name in calls(np.random.default_rng(0), dtype)]
KEPT_ON_THE_HOST = {"resample": (1, 2), "pick": (1, 2)}


@pytest.mark.parametrize("name, dtype", CASES, ids=lambda v: getattr(v, "__name__", v))
def test_a_plain_kernel_is_the_cpus(name: str, dtype: Any, cuda: ModuleType) -> None:
    arguments = calls(np.random.default_rng(4), dtype)[name]
    expected = getattr(cpu, name)(*(a.copy() if isinstance(a, np.ndarray) else a for a in arguments))
    host = KEPT_ON_THE_HOST.get(name, ())
    moved = [cuda.asarray(a) if isinstance(a, np.ndarray) and i not in host else a for i, a in enumerate(arguments)]
    for chosen in (plain, gpu):  # the second takes the same road, or a faster one
        actual = getattr(chosen, name)(*moved)
        pairs = zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]
        for i, (a, b) in enumerate(pairs):
            assert a.dtype == b.dtype, (chosen.__name__, i)
            exact = np.dtype(dtype).kind == "i" or a.dtype.kind in "iu"
            limit = 0 if exact else 2000 * np.finfo(dtype).eps
            np.testing.assert_allclose(as_host(a), b, rtol=0, atol=limit, err_msg=f"{chosen.__name__} {i}")


def test_nan_wins_and_ties_go_to_the_first(cuda: ModuleType) -> None:
    x = np.zeros((2, 1, 7, 6), np.float32)
    x[0, 0, 3, 3], x[1, 0, 2] = np.nan, -np.inf
    for kernel in (plain, gpu):
        for a, b in zip(kernel.max_pool(cuda.asarray(x), POOL), cpu.max_pool(x, POOL), strict=True):
            np.testing.assert_array_equal(as_host(a), b)


def test_both_devices_have_the_same_kernels() -> None:
    def exported(module: ModuleType) -> dict[str, list[str]]:
        functions = {n: f for n, f in vars(module).items() if inspect.isfunction(f) and not n.startswith("_")}
        return {name: list(inspect.signature(f).parameters) for name, f in functions.items()}

    assert exported(gpu) == exported(cpu)


def test_kernels_are_chosen_by_the_array(cuda: ModuleType) -> None:
    assert kernels.of(np.zeros(1)) is cpu and kernels.of(3.0) is cpu and kernels.of(cuda.zeros(1)) is gpu
