"""New Tensors: from numbers and arrays, filled, counted, or drawn at random. Names and defaults are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import random
from minires.device import array_module, to_device
from minires.operators import raw as as_raw
from minires.tensor import Tensor

__all__ = [
    "arange", "empty", "eye", "from_numpy", "full", "full_like", "linspace", "ones", "ones_like", "rand", "randint", "randn",
    "randperm", "tensor", "zeros", "zeros_like",
]  # fmt: skip


def tensor(data: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A new Tensor from numbers, nested lists, an array or a Tensor. The values are copied.

    Args:
        data: the values. Python floats become float32, Python integers int64, booleans bool; arrays keep their dtype.
        dtype: NumPy dtype, or None for the rule above.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        requires_grad: collect derivatives in ``.grad``.

    Raises:
        ValueError: nested lists of uneven lengths.
        TypeError: values that are not numbers.
    """
    raw = as_raw(data)
    if isinstance(raw, np.ndarray | np.generic) or array_module(raw) is not np:
        array = array_module(raw).array(raw, dtype=dtype, order="K")
    else:
        try:
            array = np.array(raw, dtype=dtype)
        except (ValueError, TypeError) as error:
            raise type(error)(f"tensor: cannot make an array of {type(raw).__name__} {raw!r:.60}: {error}") from None
        if dtype is None and array.dtype == np.float64 and not _holds_arrays(raw):
            array = array.astype(np.float32)
    return Tensor(to_device(array, device), requires_grad)


def _holds_arrays(data: Any) -> bool:
    """Whether nested lists hold float64 arrays or Tensors, whose dtype counts, rather than Python numbers."""
    while isinstance(data, list | tuple) and len(data):
        data = data[0]
    return isinstance(data, np.ndarray | np.generic | Tensor)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A Tensor over the memory of ``array``, without a copy."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a NumPy array, got {type(array).__name__}")
    return Tensor(array)


# ------------------------------------------------------------------------------------------------ filled and counted


def full(size: Any, fill_value: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of shape ``size`` with every element ``fill_value`` (dtype as in :func:`tensor` unless given)."""
    dtype = tensor(fill_value).dtype if dtype is None else dtype
    return Tensor(to_device(np.full(size, fill_value, dtype), device), requires_grad)


def zeros(*size: Any, dtype: Any = np.float32, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """Zeros of shape ``size``: ``zeros(2, 3)`` or ``zeros((2, 3))``."""
    return full(_size(size), 0, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = np.float32, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """Ones of shape ``size``: ``ones(2, 3)`` or ``ones((2, 3))``."""
    return full(_size(size), 1, dtype, device, requires_grad)


def empty(*size: Any, dtype: Any = np.float32, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A Tensor of shape ``size`` with whatever the memory held."""
    return Tensor(to_device(np.empty(_size(size), dtype), device), requires_grad)


def full_like(input: Tensor, fill_value: Any, dtype: Any = None) -> Tensor:
    """As :func:`full`, with the shape, device and (unless given) dtype of ``input``."""
    return full(input.shape, fill_value, input.dtype if dtype is None else dtype, input.device)


def zeros_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Zeros with the shape, device and (unless given) dtype of ``input``."""
    return full_like(input, 0, dtype)


def ones_like(input: Tensor, dtype: Any = None) -> Tensor:
    """Ones with the shape, device and (unless given) dtype of ``input``."""
    return full_like(input, 1, dtype)


def eye(n: int, m: int | None = None, dtype: Any = np.float32, device: str = "cpu") -> Tensor:
    """The n×m matrix (n×n without m) with ones on the diagonal."""
    return Tensor(to_device(np.eye(n, m, dtype=dtype), device))


def arange(start: Any, end: Any = None, step: Any = 1, dtype: Any = None, device: str = "cpu") -> Tensor:
    """start, start + step, … up to but without ``end``; ``arange(n)`` starts at 0. int64 for ints, else float32."""
    if end is None:
        start, end = 0, start
    if dtype is None:
        dtype = np.int64 if all(isinstance(v, int) for v in (start, end, step)) else np.float32
    return Tensor(to_device(np.arange(start, end, step).astype(dtype), device))


def linspace(start: float, end: float, steps: int, dtype: Any = np.float32, device: str = "cpu") -> Tensor:
    """``steps`` numbers evenly spaced from ``start`` to ``end``, both included."""
    return Tensor(to_device(np.linspace(start, end, steps, dtype=dtype), device))


# ------------------------------------------------------------------------------------------------ random


def rand(*size: Any, dtype: Any = np.float32, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1), from minires' seeded generator."""
    return Tensor(to_device(random.generator().random(_size(size)).astype(dtype), device), requires_grad)


def randn(*size: Any, dtype: Any = np.float32, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """Standard normal, from minires' seeded generator."""
    return Tensor(to_device(random.generator().standard_normal(_size(size)).astype(dtype), device), requires_grad)


def randint(low: int, high: int, size: Any, dtype: Any = np.int64, device: str = "cpu") -> Tensor:
    """Whole numbers from ``low`` up to but without ``high``, from minires' seeded generator."""
    return Tensor(to_device(random.generator().integers(low, high, size, dtype=dtype), device))


def randperm(n: int, device: str = "cpu") -> Tensor:
    """The numbers 0 … n - 1 in random order, from minires' seeded generator."""
    return Tensor(to_device(random.generator().permutation(n), device))


def _size(size: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], tuple | list) else size
