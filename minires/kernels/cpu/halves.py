"""16-bit numbers on the CPU: computed in float32, and only the results are rounded.

Few CPUs calculate with float16 or bfloat16, and NumPy's own loops for them are slow and add up in 16 bits. So a kernel gets
such arrays as float32. That is as exact as what a GPU does, which multiplies in 16 bits and adds up in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from minires.precision import is_half

__all__ = ["in_float32"]

_F = TypeVar("_F", bound=Callable[..., Any])


def in_float32(inputs: int = 1, results: int | None = None) -> Callable[[_F], _F]:
    """Decorator for a kernel: 16-bit arguments are handed to it as float32.

    Args:
        inputs: the dtype of the results is what the first so many arguments have in common.
        results: so many of them, from the first on, are rounded to that dtype where they are float32; None: all.
    """

    def decorate(kernel: _F) -> _F:
        @functools.wraps(kernel)
        def run(*args: Any, **options: Any) -> Any:
            for value in args[:inputs]:
                if is_half(value):
                    return _run(kernel, inputs, results, args, options)
            return kernel(*args, **options)

        return cast(_F, run)

    return decorate


def _run(kernel: Callable[..., Any], inputs: int, results: int | None, args: Any, options: dict[str, Any]) -> Any:
    dtypes = [value.dtype for value in args[:inputs] if hasattr(value, "dtype")]
    dtype = functools.reduce(np.promote_types, dtypes)
    found = kernel(*(value.astype(np.float32) if is_half(value) else value for value in args), **options)
    parts = found if isinstance(found, tuple) else (found,)
    count = len(parts) if results is None else results
    rounded = tuple(_rounded(part, dtype) if i < count else part for i, part in enumerate(parts))
    return rounded if isinstance(found, tuple) else rounded[0]


def _rounded(value: Any, dtype: Any) -> Any:
    """``value`` in a 16-bit ``dtype`` if it is float32. What is too large becomes infinite, without a warning."""
    if getattr(value, "dtype", None) != np.float32:
        return value
    with np.errstate(over="ignore"):
        return value.astype(dtype, copy=False)
