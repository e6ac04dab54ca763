"""The stand-in for ``cupy.ndarray``: a NumPy array behind glass.

Every way in which numbers could cross between host and device unseen is closed: ``np.f(x)``, NumPy arrays as operands,
indices or values. Every way that makes the host wait is counted. Results are where CuPy's would be: elementwise results in
C order (whatever the operands' order), reductions 0-d arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cuda.standin import indexing, order
from tests.cuda.standin import run as border
from tests.cuda.standin.meter import describe, meter
from tests.cuda.standin.run import operand, run


class _Flags:
    """``c_contiguous``, ``f_contiguous``, ``owndata``, and nothing else."""

    def __init__(self, array: Any) -> None:
        self.c_contiguous = array._host.flags.c_contiguous
        self.f_contiguous = array._host.flags.f_contiguous
        self.owndata = array.base is None


class _Pointer:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class ndarray:
    """See the head of this module."""

    __slots__ = ("__weakref__", "_host", "base")

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, order: str = "C") -> None:
        self._host = np.empty(shape, dtype, order)
        self.base = None
        fresh(self._host)

    @classmethod
    def _wrap(cls, host: np.ndarray, base: Any = None) -> ndarray:
        self = cls.__new__(cls)
        self._host, self.base = host, base
        return self

    def _view(self, host: np.ndarray) -> ndarray:
        """A result over this array's memory, or, if the memory is new, an array of its own."""
        if host is self._host:
            return self
        shares = np.may_share_memory(host, self._host) if host.size else host.base is not None
        return self._wrap(host, self if self.base is None else self.base) if shares else self._wrap(host)

    # ------------------------------------------------------------------------------------ refused

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"np.{function.__name__} of a CuPy array: call it on array_module(x)")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs and isinstance(inputs[0], np.generic):  # np.float32(2) * x
            return run(ufunc, *(operand(each) for each in inputs), order="C")
        found = ", ".join(describe(each) for each in inputs)
        raise TypeError(f"Unsupported type: np.{ufunc.__name__} of {found}: call it on array_module(x)")

    # ------------------------------------------------------------------------------------ what it is

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(_Flags)
    data = property(lambda self: _Pointer(self._host.ctypes.data))

    @property
    def device(self) -> Any:
        from tests.cuda.standin.runtime import Device

        return Device(0)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # ------------------------------------------------------------------------------------ the host waits

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        meter.sync("get()")
        self._used(stream, "get()", waits=blocking)
        if out is not None:
            out[...] = self._host
            return out
        return np.array(self._host, order=order)

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray) or arr.shape != self.shape or arr.dtype != self.dtype:
            raise TypeError(f"set: expected a NumPy array of {self.dtype} {self.shape}, got {describe(arr)}")
        if not (self._host.flags.c_contiguous or self._host.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        meter.upload("set()")
        self._used(stream, "set()", waits=False)
        self._host[...] = arr

    def _used(self, stream: Any, what: str, waits: bool = True) -> None:
        """A copy between host and device, after which the host may wait."""
        track = order.current() if stream is None else stream.track
        order.touch(track, [self._host], what)
        if waits:
            order.host_waited(track.snapshot())

    def item(self) -> Any:
        meter.sync("item()")
        self._used(None, "item()")
        return self._host.item()

    def tolist(self) -> Any:
        meter.sync("tolist()")
        self._used(None, "tolist()")
        return self._host.tolist()

    def __bool__(self) -> bool:
        meter.sync("bool()")
        self._used(None, "bool()")
        return bool(self._host)

    def __float__(self) -> float:
        meter.sync("float()")
        self._used(None, "float()")
        return float(self._host)

    def __int__(self) -> int:
        meter.sync("int()")
        self._used(None, "int()")
        return int(self._host)

    def __complex__(self) -> complex:
        meter.sync("complex()")
        self._used(None, "complex()")
        return complex(self._host)

    def __repr__(self) -> str:
        meter.sync("repr()")
        self._used(None, "repr()")
        return repr(self._host)

    def __str__(self) -> str:
        meter.sync("str()")
        self._used(None, "str()")
        return str(self._host)

    def __format__(self, spec: str) -> str:
        meter.sync("format()")
        self._used(None, "format()")
        return format(self._host, spec)

    def __reduce__(self) -> Any:
        from tests.cuda.standin import functions

        return functions.array, (self.get(order="A"),)

    # ------------------------------------------------------------------------------------ indexing

    def __getitem__(self, index: Any) -> ndarray:
        plain, advanced = indexing.prepare(index, self.shape)
        if advanced:
            return run(lambda x: np.array(x[plain], order="C"), self._host)
        return self._view(self._host[plain if isinstance(plain, tuple) or plain is Ellipsis else (plain, ...)])

    def __setitem__(self, index: Any, value: Any) -> None:
        plain, advanced = indexing.prepare(index, self.shape)
        if advanced:
            indexing.check_unique(plain, self.shape)
        run(_assign, self._host, plain, operand(value))

    def take(self, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
        if type(indices) is not ndarray or out is not None:
            raise TypeError(f"take: {describe(indices)} as indices")
        indexing.prepare((*([slice(None)] * (axis or 0)), indices), self.shape if axis is not None else (self.size,))
        return run(np.take, self._host, indices._host, axis)

    # ------------------------------------------------------------------------------------ memory

    def copy(self, order: str = "C") -> ndarray:
        return run(np.array, self._host, order=order)

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> ndarray:
        if not copy and self.dtype == np.dtype(dtype):
            return self
        return run(lambda x: x.astype(dtype, order), self._host)

    def fill(self, value: Any) -> None:
        self[...] = value

    def view(self, dtype: Any = None) -> ndarray:
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        return self._maybe_copy(lambda x: x.reshape(*shape, order=order))

    def ravel(self, order: str = "C") -> ndarray:
        return self._maybe_copy(lambda x: x.ravel(order))

    def flatten(self, order: str = "C") -> ndarray:
        return run(lambda x: x.flatten(order), self._host)

    def _maybe_copy(self, function: Any) -> ndarray:
        """A view where the memory allows it."""
        out = function(self._host)
        if out is self._host or np.may_share_memory(out, self._host) or not out.size:
            return self._view(out.view() if out is self._host else out)
        return run(function, self._host)

    def transpose(self, *axes: Any) -> ndarray:
        return self._view(self._host.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return self._view(self._host.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> ndarray:
        return self._view(self._host.squeeze(axis))

    T = property(lambda self: self.transpose())

    @property
    def real(self) -> ndarray:
        return self if self.dtype.kind != "c" else self._view(self._host.real)

    @property
    def imag(self) -> ndarray:
        return self._view(self._host.imag)


def fresh(host: np.ndarray) -> None:
    """Memory that was just allocated; a graph that is being captured keeps it, and finds it uninitialised at each launch."""
    _poison(host)
    if meter.work is not None:
        meter.work.append(lambda: _poison(host))


def _poison(host: np.ndarray) -> None:
    """Uninitialised memory holds what nobody can have computed."""
    if host.dtype.kind in "fc" or host.dtype.name == "bfloat16":
        host.fill(np.nan)
    elif host.dtype.kind in "iu":
        host.fill(np.iinfo(host.dtype).max)


def _assign(target: np.ndarray, index: Any, value: Any) -> None:
    target[index] = value


# ---------------------------------------------------------------------------------------- operators and reductions


def _binary(name: str, ufunc: Any) -> None:
    def forward(self: ndarray, other: Any) -> Any:
        return NotImplemented if _defers(other) else run(ufunc, self._host, operand(other), order="C")

    def reverse(self: ndarray, other: Any) -> Any:
        return NotImplemented if _defers(other) else run(ufunc, operand(other), self._host, order="C")

    def in_place(self: ndarray, other: Any) -> Any:
        run(ufunc, self._host, operand(other), out=self._host, casting="same_kind")
        return self

    for prefix, method in (("", forward), ("r", reverse), ("i", in_place)):
        setattr(ndarray, f"__{prefix}{name}__", method)


def _defers(other: Any) -> bool:
    """NEP 13: a class that sets ``__array_ufunc__ = None``, as Tensor does, wants to answer itself."""
    return type(other) is not ndarray and getattr(other, "__array_ufunc__", 0) is None


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "lshift": np.left_shift, "rshift": np.right_shift,
}.items():  # fmt: skip
    _binary(_name, _ufunc)

for _name, _ufunc in {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", lambda self, other, f=_ufunc: (
        NotImplemented if _defers(other) else run(f, self._host, operand(other), order="C")))  # fmt: skip

for _name, _ufunc in {"neg": np.negative, "invert": np.invert, "abs": np.absolute}.items():
    setattr(ndarray, f"__{_name}__", lambda self, f=_ufunc: run(f, self._host, order="C"))


def _matmul(self: ndarray, other: Any) -> Any:
    meter.refuse_in_capture("CuPy's own cuBLAS")
    return run(np.matmul, self._host, operand(other))


ndarray.__matmul__ = _matmul  # type: ignore[attr-defined]


def _reduction(name: str, *defaults: tuple[str, Any]) -> None:
    import inspect

    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(n, kinds, default=d) for n, d in defaults])

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        if "out" in given:
            raise NotImplementedError(f"{name}: out= of a reduction is not used here")
        if given.get("axis") is not None and not self.ndim and given["axis"] != ():
            raise np.exceptions.AxisError(f"axis {given['axis']} is out of bounds for array of dimension 0")
        return run(getattr(np.ndarray, name), self._host, **given)

    method.__name__ = name
    setattr(ndarray, name, method)


_axis, _dtype, _out, _keep = ("axis", None), ("dtype", None), ("out", None), ("keepdims", False)
for _name in ("max", "min", "all", "any"):
    _reduction(_name, _axis, _out, _keep)
for _name in ("argmax", "argmin"):
    _reduction(_name, _axis, _out, _dtype, _keep)
for _name in ("sum", "mean", "prod"):
    _reduction(_name, _axis, _dtype, _out, _keep)
for _name in ("var", "std"):
    _reduction(_name, _axis, _dtype, _out, ("ddof", 0), _keep)
_reduction("cumsum", _axis, _dtype, _out)

ndarray.__module__ = "cupy"
border.ndarray = ndarray
