"""The border between the stand-in's arrays and the NumPy arrays that do their work: nothing else crosses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cuda.standin import order
from tests.cuda.standin.meter import describe, meter

#: Filled by array.py: the class of the stand-in's arrays.
ndarray: Any = None

#: Called with every function, its arguments and the arrays it returned: tests/cuda/stock.py counts what a step moves.
watchers: list[Callable[[Any, tuple[Any, ...], list[Any]], None]] = []

SCALARS = (bool, int, float, complex, np.generic)


def host(value: Any, what: str = "operand") -> Any:
    """What NumPy may see of an argument: the array behind a stand-in array, numbers, and these in tuples and lists."""
    if type(value) is ndarray:
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {describe(value)} ({what}): a NumPy array among CuPy arrays")
    if isinstance(value, tuple | list):
        return type(value)(host(v, what) for v in value)
    if hasattr(value, "_array"):
        raise TypeError(f"Unsupported type {describe(value)} ({what}): a Tensor inside an array function")
    return value


def operand(value: Any) -> Any:
    """An argument of a ufunc: a stand-in array or a number."""
    if type(value) is ndarray:
        return value._host
    if isinstance(value, SCALARS):
        return value
    raise TypeError(f"Unsupported type {describe(value)}")


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a NumPy function with NumPy arguments, as the device would: no warnings, results stay 0-d arrays.

    During a capture the call is noted, to be repeated with whatever the same memory holds then.
    """
    with np.errstate(all="ignore"):
        result = function(*args, **kwargs)
    results = result if isinstance(result, tuple | list) else (result,)
    arrays = [np.asarray(r) for r in results if r is not None]
    order.touch(order.current(), (*args, *kwargs.values(), *arrays), getattr(function, "__name__", "a function"))
    for watcher in watchers:
        watcher(function, args, arrays)
    if meter.work is not None:
        meter.work.append(lambda: _again(function, args, kwargs, arrays))
    wrapped = tuple(ndarray._wrap(a) for a in arrays)
    return wrapped if isinstance(result, tuple | list) else wrapped[0] if wrapped else None


def _again(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], arrays: list[Any]) -> None:
    with np.errstate(all="ignore"):
        result = function(*args, **kwargs)
    results = result if isinstance(result, tuple | list) else (result,)
    for old, new in zip(arrays, [r for r in results if r is not None], strict=True):
        if not np.may_share_memory(old, new) or not np.shares_memory(old, new):
            old[...] = new
