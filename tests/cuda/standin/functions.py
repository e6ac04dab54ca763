"""The functions of the module, each with CuPy's own signature; only those that minires uses exist.

``test_names.py`` compares the signatures with the real CuPy's where that is installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cuda.standin import order as order_of_work
from tests.cuda.standin.array import ndarray
from tests.cuda.standin.meter import describe, meter
from tests.cuda.standin.run import SCALARS, host, operand, run

UFUNCS = (
    "absolute", "add", "bitwise_and", "bitwise_or", "ceil", "conj", "cos", "divide", "divmod", "equal", "exp", "expm1",
    "floor", "floor_divide", "fmax", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "log",
    "log1p", "logical_and", "logical_not", "logical_or", "maximum", "minimum", "multiply", "negative", "not_equal", "power",
    "reciprocal", "remainder", "rint", "sign", "sin", "sqrt", "square", "subtract", "tanh", "true_divide",
)  # fmt: skip

#: Functions that return an array made of others.
SIGNATURES = {
    "arange": "start, stop=None, step=1, dtype=None",
    "argmax": "a, axis=None, dtype=None, out=None, keepdims=False",
    "argmin": "a, axis=None, dtype=None, out=None, keepdims=False",
    "argsort": "a, axis=-1, kind=None",
    "array": "obj, dtype=None, copy=True, order='K', subok=False, ndmin=0, *, blocking=False",
    "asarray": "a, dtype=None, order=None, *, copy=None, blocking=False",
    "ascontiguousarray": "a, dtype=None",
    "asnumpy": "a, stream=None, order='C', out=None, *, blocking=True",
    "broadcast_to": "array, shape",
    "clip": "a, a_min, a_max, out=None",
    "concatenate": "tup, axis=0, out=None, *, dtype=None, casting='same_kind'",
    "einsum": "*operands, **kwargs",
    "empty": "shape, dtype=float, order='C'",
    "empty_like": "prototype, dtype=None, order='K', subok=None, shape=None",
    "expand_dims": "a, axis",
    "eye": "N, M=None, k=0, dtype=float, order='C'",
    "full": "shape, fill_value, dtype=None, order='C'",
    "full_like": "a, fill_value, dtype=None, order='K', subok=None, shape=None",
    "iscomplexobj": "x",
    "matmul": "x1, x2, out=None",
    "moveaxis": "a, source, destination",
    "ones": "shape, dtype=float, order='C'",
    "ones_like": "a, dtype=None, order='K', subok=None, shape=None",
    "result_type": "*arrays_and_dtypes",
    "roll": "a, shift, axis=None",
    "searchsorted": "a, v, side='left', sorter=None",
    "stack": "tup, axis=0, out=None, *, dtype=None, casting='same_kind'",
    "take_along_axis": "a, indices, axis",
    "tril": "m, k=0",
    "triu": "m, k=0",
    "where": "condition, x=None, y=None",
    "zeros": "shape, dtype=float, order='C'",
    "zeros_like": "a, dtype=None, order='K', subok=None, shape=None",
}

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def _with_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(arguments given)`` behind CuPy's signature for its name."""
    name = function.__name__.strip("_")
    signature = inspect.signature(eval(f"lambda {SIGNATURES[name]}: None"))

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        return function(*bound.args, **bound.kwargs)

    call.__name__ = name
    FUNCTIONS[name] = call
    return call


def device_array(value: Any, name: str) -> np.ndarray:
    """The memory of an argument that must be on the device."""
    if type(value) is not ndarray:
        raise TypeError(f"{name}: expected a CuPy array, got {describe(value)}")
    return value._host


# ---------------------------------------------------------------------------------------- from the host, and back


@_with_signature
def array(obj: Any, dtype: Any = None, copy: Any = True, order: Any = "K", subok: Any = False, ndmin: int = 0,
          *, blocking: bool = False) -> ndarray:  # fmt: skip
    order = order or "K"
    if type(obj) is ndarray:
        if copy is not True and (dtype is None or obj.dtype == np.dtype(dtype)):
            kept = np.asarray(obj._host, order=order)
            if kept is obj._host:
                return obj
        return run(np.array, obj._host, dtype, order=order)
    _refuse_arrays_inside(obj)
    meter.upload("array()")
    if order in "KA":  # what comes from the host keeps Fortran's order, and no other
        order = "F" if isinstance(obj, np.ndarray) and obj.flags.fnc else "C"
    fresh = np.array(obj, dtype, order=order, ndmin=ndmin)
    if fresh.dtype.kind not in "biufc" and fresh.dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {fresh.dtype}")
    order_of_work.touch(order_of_work.current(), [fresh], "array()")
    return ndarray._wrap(fresh)


def _refuse_arrays_inside(value: Any) -> None:
    if isinstance(value, tuple | list):
        for each in value:
            if type(each) is ndarray:
                raise TypeError("array([CuPy arrays]) copies them one by one: use stack()")
            _refuse_arrays_inside(each)


@_with_signature
def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    return array(a, dtype, copy, order, blocking=blocking)


@_with_signature
def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    out = asarray(a, dtype, "C")
    return out if out.ndim else out.reshape(1)


@_with_signature
def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    return a.get(stream, order, out) if type(a) is ndarray else np.asarray(a, order=order)


# ---------------------------------------------------------------------------------------- new memory


@_with_signature
def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(host(shape, "shape"), dtype, order)


@_with_signature
def empty_like(prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    like = np.empty_like(device_array(prototype, "empty_like"), dtype, order, shape=shape)
    return full_like_memory(like, np.nan if like.dtype.kind in "fc" else 0)


def full_like_memory(memory: np.ndarray, value: Any) -> ndarray:
    return run(_filled, memory, value)


def _filled(memory: np.ndarray, value: Any) -> np.ndarray:
    memory.fill(value)
    return memory


def _create(name: str) -> None:
    def create(*args: Any, **kwargs: Any) -> ndarray:
        return run(getattr(np, name), *host(args, "argument"), **kwargs)

    create.__name__ = name
    _with_signature(create)


def _create_like(name: str) -> None:
    def create(a: Any, *args: Any, **kwargs: Any) -> ndarray:
        return run(getattr(np, name), device_array(a, name), *host(args), **kwargs)

    create.__name__ = name
    _with_signature(create)


for _name in ("zeros", "ones", "full", "eye", "arange"):
    _create(_name)
for _name in ("zeros_like", "ones_like", "full_like"):
    _create_like(_name)


# ---------------------------------------------------------------------------------------- moving


def _view(name: str) -> None:
    def view(a: Any, *args: Any) -> ndarray:
        memory = device_array(a, name)
        return a._view(getattr(np, name)(memory, *args))

    view.__name__ = name
    _with_signature(view)


for _name in ("broadcast_to", "expand_dims", "moveaxis"):
    _view(_name)


def _array_function(name: str) -> None:
    def call(a: Any, *args: Any, **kwargs: Any) -> ndarray:
        return run(getattr(np, name), device_array(a, name), *host(args), **{k: host(v) for k, v in kwargs.items()})

    call.__name__ = name
    _with_signature(call)


for _name in ("roll", "tril", "triu", "argmax", "argmin"):
    _array_function(_name)


@_with_signature
def concatenate(tup: Any, axis: int = 0, out: Any = None, **kwargs: Any) -> ndarray:
    return run(np.concatenate, [device_array(each, "concatenate") for each in tup], axis, **kwargs)


@_with_signature
def stack(tup: Any, axis: int = 0, out: Any = None, **kwargs: Any) -> ndarray:
    return run(np.stack, [device_array(each, "stack") for each in tup], axis, **kwargs)


@_with_signature
def where(condition: Any, x: Any = None, y: Any = None) -> ndarray:
    if x is None or y is None:
        raise TypeError("where(condition) alone makes the host wait")
    chosen = run(np.where, device_array(condition, "where"), operand(x), operand(y))
    return chosen if chosen.flags.c_contiguous else chosen.copy()


@_with_signature
def clip(a: Any, a_min: Any, a_max: Any, out: Any = None) -> ndarray:
    bounds = [None if bound is None else operand(bound) for bound in (a_min, a_max)]
    return run(np.clip, device_array(a, "clip"), *bounds, out=None if out is None else device_array(out, "out"), order="C")


@_with_signature
def take_along_axis(a: Any, indices: Any, axis: int) -> ndarray:
    return run(np.take_along_axis, device_array(a, "take_along_axis"), device_array(indices, "indices"), axis)


@_with_signature
def iscomplexobj(x: Any) -> bool:
    return np.iscomplexobj(device_array(x, "iscomplexobj"))


@_with_signature
def result_type(*arrays_and_dtypes: Any) -> Any:
    return np.result_type(*host(arrays_and_dtypes))


# ---------------------------------------------------------------------------------------- sorting and products


@_with_signature
def argsort(a: Any, axis: int = -1, kind: Any = None) -> ndarray:
    meter.refuse_in_capture("argsort")
    return run(np.argsort, device_array(a, "argsort"), axis, kind="stable")


@_with_signature
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> ndarray:
    return run(np.searchsorted, device_array(a, "searchsorted"), device_array(v, "values"), side)


@_with_signature
def einsum(*operands: Any, **kwargs: Any) -> ndarray:
    meter.refuse_in_capture("einsum (cuBLAS)")
    if set(kwargs) - {"dtype", "optimize"}:
        raise TypeError(f"einsum: {kwargs}")
    return run(np.einsum, operands[0], *(device_array(each, "einsum") for each in operands[1:]), **kwargs)


@_with_signature
def matmul(x1: Any, x2: Any, out: Any = None) -> ndarray:
    meter.refuse_in_capture("matmul (CuPy's own cuBLAS)")
    memory = None if out is None else device_array(out, "out")
    return run(np.matmul, device_array(x1, "matmul"), device_array(x2, "matmul"), out=memory)


class Ufunc:
    """An elementwise function: C-ordered results, ``out`` and ``dtype`` but no ``where``."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._numpy = getattr(np, name)

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        given = [operand(each) for each in args]
        if all(isinstance(each, SCALARS) for each in args):
            raise TypeError(f"{self.__name__}: no CuPy array among the operands")
        options: dict[str, Any] = {"casting": casting, "order": "C"}
        if dtype is not None:
            options["dtype"] = dtype
        if out is not None:
            options["out"] = tuple(device_array(o, "out") for o in (out if isinstance(out, tuple) else (out,)))
        result = run(self._numpy, *given, **options)
        return result if out is None else out

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        """Only what atomics do alike in every order: integers."""
        from tests.cuda.standin.indexing import prepare

        memory = device_array(a, f"{self.__name__}.at")
        if memory.dtype.kind not in "iu" or self.__name__ not in ("add", "maximum", "minimum"):
            raise TypeError(f"{self.__name__}.at on {memory.dtype}: atomics come in any order, and no run repeats another")
        run(self._numpy.at, memory, prepare(indices, a.shape)[0], operand(b))


FUNCTIONS.update({name: Ufunc(name) for name in UFUNCS})
