"""The operators and methods of Tensor: names for the ops in :mod:`minires.functional`, and no mathematics.

They stand apart from :mod:`minires.tensor` so that the file which says what a Tensor *is* stays short.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from minires.device import array_module
from minires.errors import ShapeError
from minires.modes import state

if TYPE_CHECKING:
    from minires.tensor import Tensor

__all__ = ["Operators", "raw"]


class _Functional:
    """Stands in for :mod:`minires.functional` until the first op is called."""

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        ops = importlib.import_module("minires.functional")  # which imports this module, and puts itself in this one's place
        return cast("Callable[..., Tensor]", getattr(ops, name))


#: The ops. minires.functional hands itself over here when it is imported, so that this module imports nothing above it.
functional = _Functional()


def _delegate(name: str) -> Callable[..., Tensor]:
    """A method that calls the op ``name``."""

    def method(self: Operators, *args: Any, **kwargs: Any) -> Tensor:
        return cast("Tensor", getattr(functional, name)(self, *args, **kwargs))

    method.__name__ = name
    method.__qualname__ = f"Tensor.{name}"
    method.__doc__ = f"As :func:`minires.functional.{name}` with this Tensor as the first argument."
    return method


class Operators:
    """What Tensor inherits: arithmetic, comparisons, and methods that are an op of the same name."""

    __slots__ = ()

    _array: Any

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return cast(int, self._array.ndim)

    # -------------------------------------------------------------------------------- operators

    def __add__(self, other: Any) -> Tensor:
        return functional.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return functional.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return functional.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return functional.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return functional.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return functional.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return functional.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return functional.div(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return functional.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return functional.pow(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return functional.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return functional.floor_divide(other, self)

    def __mod__(self, other: Any) -> Tensor:
        return functional.remainder(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return functional.remainder(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return functional.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return functional.matmul(other, self)

    def __iadd__(self, other: Any) -> Tensor:
        return self._update(self + other)

    def __isub__(self, other: Any) -> Tensor:
        return self._update(self - other)

    def __imul__(self, other: Any) -> Tensor:
        return self._update(self * other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._update(self / other)

    def _update(self, result: Tensor) -> Tensor:
        """What ``x += y`` leaves in ``x``: a new Tensor; but a weight, under ``no_grad()``, stays itself with new values."""
        this = cast("Tensor", self)
        is_weight = this.requires_grad and this.is_leaf and not state.grad_enabled
        return this.copy_(result) if is_weight else result

    def __neg__(self) -> Tensor:
        return functional.neg(self)

    def __pos__(self) -> Tensor:
        return cast("Tensor", self)

    def __abs__(self) -> Tensor:
        return functional.abs(self)

    def __invert__(self) -> Tensor:
        if self._array.dtype.kind not in "iub":
            raise TypeError(f"~: expected booleans or integers, got {self._array.dtype}")
        return _wrap(~self._array)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return _compare(self, other, "__eq__")

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return _compare(self, other, "__ne__")

    def __lt__(self, other: Any) -> Tensor:
        return _compare(self, other, "__lt__")

    def __le__(self, other: Any) -> Tensor:
        return _compare(self, other, "__le__")

    def __gt__(self, other: Any) -> Tensor:
        return _compare(self, other, "__gt__")

    def __ge__(self, other: Any) -> Tensor:
        return _compare(self, other, "__ge__")

    def __and__(self, other: Any) -> Tensor:
        return _compare(self, other, "__and__")

    def __or__(self, other: Any) -> Tensor:
        return _compare(self, other, "__or__")

    def __xor__(self, other: Any) -> Tensor:
        return _compare(self, other, "__xor__")

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__  # these do not mind the order

    __hash__ = object.__hash__

    def __getitem__(self, index: Any) -> Tensor:
        return functional.getitem(self, index)

    # -------------------------------------------------------------------------------- methods with more than a name

    @property
    def T(self) -> Tensor:
        """All axes in reverse order."""
        return functional.permute(self, tuple(reversed(range(self.ndim))))

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        return functional.transpose(self, -2, -1)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements with another shape; one size may be -1."""
        return functional.reshape(self, _sizes(shape))

    def view(self, *shape: Any) -> Tensor:
        """As :meth:`reshape` (a copy is made where the memory layout asks for one)."""
        return functional.reshape(self, _sizes(shape))

    def permute(self, *dims: Any) -> Tensor:
        """Axes in another order."""
        return functional.permute(self, _sizes(dims))

    def expand(self, *shape: Any) -> Tensor:
        """Axes of size 1 repeated, without a copy; -1 keeps a size."""
        return functional.expand(self, _sizes(shape))

    def flip(self, *dims: Any) -> Tensor:
        """The order of the elements along ``dims`` reversed."""
        return functional.flip(self, _sizes(dims))

    def argmax(self, dim: int | None = None, keepdim: Any = False) -> Tensor:
        """Index of the largest element (the first of several), of all elements or along an axis. int64, no gradient."""
        return _index_of("argmax", self, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: Any = False) -> Tensor:
        """Index of the smallest element (the first of several), of all elements or along an axis. int64, no gradient."""
        return _index_of("argmin", self, dim, keepdim)

    def all(self, dim: int | tuple[int, ...] | None = None, keepdim: Any = False) -> Tensor:
        """Whether all elements are true (or not 0), over all axes or along some. Boolean, no gradient."""
        return _wrap(array_module(self._array).asarray(self._array.all(axis=dim, keepdims=keepdim)))

    def any(self, dim: int | tuple[int, ...] | None = None, keepdim: Any = False) -> Tensor:
        """Whether some element is true (or not 0), over all axes or along some. Boolean, no gradient."""
        return _wrap(array_module(self._array).asarray(self._array.any(axis=dim, keepdims=keepdim)))

    # -------------------------------------------------------------------------------- ops with this Tensor as first argument

    abs = _delegate("abs")
    amax = _delegate("amax")
    amin = _delegate("amin")
    chunk = _delegate("chunk")
    clamp = _delegate("clamp")
    clip = _delegate("clip")
    clone = _delegate("clone")
    contiguous = _delegate("contiguous")
    cos = _delegate("cos")
    cumsum = _delegate("cumsum")
    exp = _delegate("exp")
    flatten = _delegate("flatten")
    gather = _delegate("gather")
    log = _delegate("log")
    logsumexp = _delegate("logsumexp")
    log_softmax = _delegate("log_softmax")
    masked_fill = _delegate("masked_fill")
    matmul = _delegate("matmul")
    max = _delegate("max")
    maximum = _delegate("maximum")
    mean = _delegate("mean")
    min = _delegate("min")
    minimum = _delegate("minimum")
    norm = _delegate("norm")
    pow = _delegate("pow")
    prod = _delegate("prod")
    relu = _delegate("relu")
    roll = _delegate("roll")
    sigmoid = _delegate("sigmoid")
    sin = _delegate("sin")
    softmax = _delegate("softmax")
    split = _delegate("split")
    sqrt = _delegate("sqrt")
    squeeze = _delegate("squeeze")
    std = _delegate("std")
    sum = _delegate("sum")
    tanh = _delegate("tanh")
    transpose = _delegate("transpose")
    unsqueeze = _delegate("unsqueeze")
    var = _delegate("var")


def raw(value: Any) -> Any:
    """The array behind a Tensor; anything else as it is."""
    return value._array if isinstance(value, Operators) else value


def _compare(a: Operators, b: Any, operator: str) -> Tensor:
    """Elementwise, with broadcasting; the result is boolean and has no gradient."""
    other = raw(b)
    if not isinstance(other, np.ndarray | int | float | complex | np.generic) and array_module(other) is np:
        return cast("Tensor", NotImplemented)
    shapes = a._array.shape, getattr(other, "shape", ())
    try:
        result = getattr(a._array, operator)(other)
    except ValueError:
        rule = "from the last axis on, sizes must be equal or one of them 1 (broadcasting)"
        raise ShapeError(operator.strip("_"), rule, input=(shapes[0], ""), other=(shapes[1], "")) from None
    except TypeError:
        found = f"{a._array.dtype} and {getattr(other, 'dtype', type(other).__name__)}"
        raise TypeError(f"{operator.strip('_')}: expected booleans or integers, got {found}") from None
    return _wrap(array_module(a._array).asarray(result))


def _index_of(name: str, x: Operators, dim: int | None, keepdim: bool) -> Tensor:
    xp = array_module(x._array)
    return _wrap(xp.asarray(getattr(xp, name)(x._array, axis=dim, keepdims=keepdim)))


def _sizes(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    if len(arguments) == 1 and isinstance(arguments[0], tuple | list):
        return tuple(arguments[0])
    return arguments


def _wrap(array: Any) -> Tensor:
    from minires.tensor import Tensor  # which inherits from this module's class

    return Tensor(array)
