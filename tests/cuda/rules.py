"""What the stand-in promises about CuPy 14, one line for each promise; ``test_rules.py`` runs them on both.

Each rule was read in CuPy's source (``_core/_kernel.pyx``, ``core.pyx``, ``_routines_indexing.pyx``, ...). A rule of kind

* "works" gives the value that it must have, on the stand-in and on CuPy, also in dtype, shape and where it lives;
* "raises" must raise on both;
* "strict" must raise on the stand-in only: CuPy would go on in silence, and be slow, wrong or not repeatable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

F32, F64, I64 = np.float32, np.float64, np.int64


@dataclass(frozen=True)
class Rule:
    """``run(xp)`` on an array module; what it must give, or which error."""

    name: str
    run: Callable[[Any], Any]
    kind: str
    expected: Any = None


RULES: list[Rule] = []


def works(name: str, expected: Any, run: Callable[[Any], Any]) -> None:
    RULES.append(Rule(name, run, "works", expected))


def raises(name: str, run: Callable[[Any], Any], *errors: type[Exception]) -> None:
    RULES.append(Rule(name, run, "raises", errors or (TypeError,)))


def strict(name: str, run: Callable[[Any], Any], *errors: type[Exception]) -> None:
    RULES.append(Rule(name, run, "strict", errors or (TypeError,)))


def grid(xp: Any, dtype: Any = F32) -> Any:
    """[[0, 1, 2], [3, 4, 5]]."""
    return xp.arange(6, dtype=dtype).reshape(2, 3)


HOST = np.arange(6, dtype=F32).reshape(2, 3)

# ---------------------------------------------------------------------------------------- host and device never mix

raises("np.asarray", lambda xp: np.asarray(grid(xp)))
raises("np.array", lambda xp: np.array(grid(xp)))
raises("host operand on the right", lambda xp: grid(xp) + HOST)
raises("host operand on the left", lambda xp: HOST + grid(xp))
raises("0-d host operand", lambda xp: grid(xp) * np.array(2.0))
raises("list operand", lambda xp: xp.add(grid(xp), [1, 2, 3]))
raises("host operand of a ufunc", lambda xp: xp.maximum(grid(xp), HOST))
raises("host array in where", lambda xp: xp.where(grid(xp) > 1, HOST, 0))
raises("host condition in where", lambda xp: xp.where(HOST > 1, grid(xp), 0), TypeError, AttributeError)
raises("number as condition", lambda xp: xp.where(True, grid(xp), 0), TypeError, AttributeError)
raises("host array as out", lambda xp: xp.add(grid(xp), 1, out=HOST.copy()))
raises("host array into a device array", lambda xp: grid(xp).__setitem__(Ellipsis, HOST), TypeError, ValueError)
strict("NumPy function", lambda xp: np.exp(grid(xp)))
strict("NumPy reduction", lambda xp: np.sum(grid(xp)))
strict("np.shape", lambda xp: np.shape(grid(xp)))
strict("host array as index", lambda xp: grid(xp)[np.array([0, 1])])
strict("0-d host array as a value", lambda xp: grid(xp).__setitem__(0, np.array(3.0)))
strict("array of arrays", lambda xp: xp.array([grid(xp), grid(xp)]))
strict("float additions in any order", lambda xp: xp.add.at(grid(xp), (xp.zeros(3, np.int32), xp.zeros(3, np.int32)), 1.0))
strict("an element written twice", lambda xp: grid(xp).__setitem__((0, xp.zeros(2, I64)), xp.ones(2, F32)), ValueError)
strict("index out of range wraps", lambda xp: grid(xp)[xp.full(1, 7, I64)], IndexError)
strict("take out of range wraps", lambda xp: grid(xp).take(xp.full(1, 7, I64), axis=0), IndexError)

works("explicit upload", HOST, lambda xp: xp.asarray(HOST))
works("explicit upload to a dtype", HOST.astype(F64), lambda xp: xp.asarray(HOST, dtype=F64))
works("asarray keeps what is there", np.array(True), lambda xp: xp.asarray((lambda x: xp.asarray(x) is x)(grid(xp))))
works("Python number keeps float32", HOST * F32(0.5), lambda xp: grid(xp) * 0.5)
works("Python integer keeps float32", HOST + F32(1), lambda xp: 1 + grid(xp))
works("NumPy number is as strong as an array", HOST * F64(0.5), lambda xp: grid(xp) * np.float64(0.5))
works("NumPy number on the left", F64(2) * HOST, lambda xp: np.float64(2) * grid(xp))
works("0-d array is as strong as an array", HOST * np.ones((), F64), lambda xp: grid(xp) * xp.ones((), F64))
works("int32 and float32", np.arange(6, dtype=np.int32).reshape(2, 3) * HOST, lambda xp: grid(xp, np.int32) * grid(xp))
works("integers divided", np.arange(6).reshape(2, 3) / 2, lambda xp: grid(xp, I64) / 2)
works("number as a value", np.full((2, 3), 7, F32), lambda xp: _put(grid(xp), Ellipsis, 7))
works("list as index", HOST[:, [2, 0]], lambda xp: grid(xp)[:, [2, 0]])
works("integer array as index", HOST[:, np.array([2, 0])], lambda xp: grid(xp)[:, xp.asarray(np.array([2, 0]))])
works("negative integers in an index", HOST[np.array([-1])], lambda xp: grid(xp)[xp.full(1, -1, I64)])
works("boolean array as index", HOST[HOST > 2], lambda xp: (lambda x: x[x > 2])(grid(xp)))
works("several index arrays", HOST[np.array([[0], [1]]), np.array([2, 1])],
      lambda xp: grid(xp)[xp.arange(2)[:, None], xp.asarray(np.array([2, 1]))])  # fmt: skip
works("NumPy integer as index", HOST[np.int64(1)], lambda xp: grid(xp)[np.int64(1)])
works("integers by atomics", np.array([3, 0]), lambda xp: _at(xp.maximum, xp.zeros(2, np.int32), xp.zeros(3, I64), xp.arange(
    1, 4, dtype=np.int32)).astype(I64))  # fmt: skip


def _put(x: Any, index: Any, value: Any) -> Any:
    x[index] = value
    return x


def _at(ufunc: Any, x: Any, index: Any, value: Any) -> Any:
    ufunc.at(x, index, value)
    return x


# ---------------------------------------------------------------------------------------- what functions return

works("sum is a 0-d array", np.asarray(HOST.sum()), lambda xp: grid(xp).sum())
works("element is a 0-d array", np.asarray(HOST[1, 2]), lambda xp: grid(xp)[1, 2])
works("0-d plus 0-d is an array", np.asarray(HOST.sum() + HOST.max()), lambda xp: grid(xp).sum() + grid(xp).max())
works("comparison of 0-d is an array", np.asarray(True), lambda xp: grid(xp).sum() > 3)
works("sum of booleans", np.asarray(3), lambda xp: (grid(xp) > 2).sum())
works("sum of int32", np.asarray(15), lambda xp: grid(xp, np.int32).sum())
works("mean of integers", np.asarray(2.5), lambda xp: grid(xp, I64).mean())
works("sum over no axes", HOST, lambda xp: grid(xp).sum(axis=()))
works("max over no axes", HOST, lambda xp: grid(xp).max(axis=()))
works("sum over several axes", HOST.sum(axis=(0, 1), keepdims=True), lambda xp: grid(xp).sum(axis=(0, 1), keepdims=True))
works("sum in another dtype", HOST.sum(axis=0, dtype=F64), lambda xp: grid(xp).sum(axis=0, dtype=F64))
works("sum of nothing", np.zeros(3, F32), lambda xp: grid(xp)[:0].sum(axis=0))
works("argmax keeps axes", HOST.argmax(1, keepdims=True), lambda xp: grid(xp).argmax(1, keepdims=True))
works("argmax takes the first of equals", np.asarray(0), lambda xp: xp.ones(3, F32).argmax())
works("maximum passes NaN on", np.array([np.nan, 1], F32),
      lambda xp: xp.maximum(xp.asarray(np.array([np.nan, 1], F32)), 0))  # fmt: skip
works("where of two numbers", np.where(HOST > 2, 1.5, 0.5), lambda xp: xp.where(grid(xp) > 2, 1.5, 0.5))
works("where of a number and an array", np.where(HOST > 2, HOST, F32(0)), lambda xp: xp.where(grid(xp) > 2, grid(xp), 0))
works("clip with one bound", HOST.clip(None, 3), lambda xp: xp.clip(grid(xp), None, 3))
works("clip of integers", np.arange(6).reshape(2, 3).clip(2, None), lambda xp: xp.clip(grid(xp, I64), 2, None))
works("divmod", np.arange(6).reshape(2, 3) // 4, lambda xp: xp.divmod(grid(xp, I64), 4)[0])
works("full takes a boolean", np.full((), True), lambda xp: xp.full((), True))
works("einsum", HOST @ HOST.T, lambda xp: xp.einsum("ij,kj->ik", grid(xp), grid(xp), optimize=True))
works("matmul", HOST @ HOST.T, lambda xp: xp.matmul(grid(xp), grid(xp).T))
works("stable argsort", np.array([1, 3, 0, 2]), lambda xp: xp.argsort(xp.asarray(np.array([1, 0, 1, 0]))))
works("searchsorted from the right", np.array([0, 2, 3]),
      lambda xp: xp.searchsorted(xp.asarray(np.array([1, 1, 2])), xp.arange(3), side="right"))  # fmt: skip
works("the real part of real numbers", HOST, lambda xp: grid(xp).real)
works("astype of a 0-d array", np.asarray(15, I64), lambda xp: grid(xp).sum().astype(I64))
raises("reduction with initial", lambda xp: grid(xp).max(axis=0, initial=0.0))
raises("reduction with where", lambda xp: grid(xp).sum(where=grid(xp) > 1))
raises("take with a mode", lambda xp: grid(xp).take(xp.zeros(1, I64), axis=0, mode="clip"))
raises("ufunc with where", lambda xp: xp.add(grid(xp), 1, where=grid(xp) > 1))
raises("cumsum of a number", lambda xp: grid(xp).sum().cumsum(axis=0), ValueError)  # AxisError
raises("reshape to another size", lambda xp: grid(xp).reshape(4), ValueError)
raises("shapes that do not fit", lambda xp: grid(xp) + xp.zeros(2, F32), ValueError)
raises("broadcast_to that does not fit", lambda xp: xp.broadcast_to(grid(xp), (2, 4)), ValueError)
raises("concatenate that does not fit", lambda xp: xp.concatenate((grid(xp), xp.zeros((1, 2), F32))), ValueError)
raises("in-place to a narrower kind", lambda xp: grid(xp, I64).__iadd__(0.5), TypeError)
raises("iteration over a number", lambda xp: list(grid(xp).sum()))
raises("a device number as an index of Python", lambda xp: [1, 2][xp.ones((), I64)])
raises("truth of many", lambda xp: bool(grid(xp)), ValueError)
raises("minus of booleans", lambda xp: -(grid(xp) > 1))
raises("errstate", lambda xp: xp.errstate(divide="ignore"), AttributeError)

# ---------------------------------------------------------------------------------------- memory


def facts(*values: Any) -> np.ndarray:
    """Yes and no, as an array."""
    return np.array([bool(v) for v in values])


def channels_last(xp: Any) -> Any:
    return xp.zeros((2, 4, 5, 3), F32).transpose(0, 3, 1, 2)


works("operators answer in C order", facts(True),
      lambda xp: facts((channels_last(xp) + channels_last(xp)).flags.c_contiguous))  # fmt: skip
works("where answers in C order", facts(True),
      lambda xp: facts(xp.where(channels_last(xp) > 0, channels_last(xp), 0).flags.c_contiguous))  # fmt: skip
works("out keeps its order", facts(True), lambda xp: facts((lambda x: xp.add(x, x, out=xp.empty_like(x)))(
    channels_last(xp)).strides == channels_last(xp).strides))  # fmt: skip
works("empty_like keeps the order", facts(True),
      lambda xp: facts(xp.empty_like(channels_last(xp)).strides == channels_last(xp).strides))  # fmt: skip
works("what comes from the host is in C order", facts(True, True), lambda xp: facts(
    xp.asarray(np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2)).flags.c_contiguous,
    xp.asarray(np.zeros((2, 3)).T).flags.f_contiguous))  # fmt: skip
works("what goes to the host is in C order", facts(True), lambda xp: facts(channels_last(xp).get().flags.c_contiguous))
works("astype keeps the order", facts(True),
      lambda xp: facts(channels_last(xp).astype(F64).transpose(0, 2, 3, 1).flags.c_contiguous))  # fmt: skip
works("copy is in C order", facts(True), lambda xp: facts(channels_last(xp).copy().flags.c_contiguous))
works("copy can keep the order", facts(True),
      lambda xp: facts(channels_last(xp).copy(order="K").strides == channels_last(xp).strides))  # fmt: skip
works("a view knows whose memory it is", facts(True, True, False), lambda xp: (lambda x: facts(
    x[0].base is x, x.T[1:].base is x, (x + 1).base is not None))(xp.zeros((2, 3), F32)))  # fmt: skip
works("reshape is a view", facts(True), lambda xp: (lambda x: facts(x.reshape(3, 2).base is x))(xp.zeros((2, 3), F32)))
works("reshape copies where it has to", facts(True),
      lambda xp: facts((lambda x: x.T.reshape(-1).data.ptr != x.data.ptr)(xp.zeros((2, 3), F32))))  # fmt: skip
works("ascontiguousarray keeps what is", facts(True), lambda xp: (lambda x: facts(xp.ascontiguousarray(x) is x))(grid(xp)))
works("in place is in place", HOST + 1, lambda xp: (lambda x: (x[:].__iadd__(1), x)[1])(grid(xp).copy()))
works("flags know no writeable", facts(False), lambda xp: facts(hasattr(grid(xp).flags, "writeable")))
works("the module of its type", facts(True), lambda xp: facts(type(grid(xp)).__module__.partition(".")[0] == "cupy"))
works("no hash", facts(True), lambda xp: facts(type(grid(xp)).__hash__ is None))

# ---------------------------------------------------------------------------------------- 16 bits

F16 = np.float16

works("sums of float16 may be made in float32", np.float32(1e5),
      lambda xp: xp.full(1000, 100, F16).sum(dtype=F32))  # fmt: skip
works("means of float16 may be made in float32", np.full(2, 100, F32),
      lambda xp: xp.full((2, 1000), 100, F16).mean(axis=(1,), dtype=F32))  # fmt: skip
works("float16 with a Python float stays", HOST.astype(F16) * F16(0.5), lambda xp: grid(xp, F16) * 0.5)
works("float16 with float32 is float32", HOST + HOST, lambda xp: grid(xp, F16) + grid(xp))
works("float16 too large is infinite", np.array([np.inf], F16), lambda xp: xp.full(1, 1e6, F32).astype(F16))

if find_spec("ml_dtypes") is not None:
    from ml_dtypes import bfloat16 as BF16

    def low(xp: Any) -> Any:
        return grid(xp).astype(BF16)

    works("bfloat16 is a dtype", facts(True, True, True), lambda xp: facts(
        low(xp).dtype == BF16, low(xp).dtype.name == "bfloat16", xp.empty(3, BF16).itemsize == 2))  # fmt: skip
    works("bfloat16 keeps the order of memory", facts(True),
          lambda xp: facts(channels_last(xp).astype(BF16).transpose(0, 2, 3, 1).flags.c_contiguous))  # fmt: skip
    works("bfloat16 to the host and back", HOST, lambda xp: xp.asarray(low(xp).get()).astype(F32))
    works("bfloat16 rounds to 8 bits", np.array([256, 258], F32),
          lambda xp: xp.asarray(np.array([256.5, 257.5], F32)).astype(BF16).astype(F32))  # fmt: skip
    for _name, _function in {
        "itself": lambda x: x + x, "a number": lambda x: x * BF16(2), "an integer": lambda x: x * 2,
        "booleans": lambda x: x * (x > 1), "a sign": lambda x: -x, "a quotient": lambda x: x / 2,
    }.items():  # fmt: skip
        works(f"bfloat16 with {_name} stays", facts(True), lambda xp, f=_function: facts(f(low(xp)).dtype == BF16))
    works("bfloat16 in place", HOST + HOST, lambda xp: (lambda x: (x.__iadd__(low(xp)), x.astype(F32))[1])(low(xp)))
    works("bfloat16 added into memory", HOST + HOST,
          lambda xp: xp.add(low(xp), low(xp), out=xp.empty_like(low(xp))).astype(F32))  # fmt: skip
    works("bfloat16 with float32 is float32", HOST + HOST, lambda xp: low(xp) + grid(xp))
    works("bfloat16 and float32 in common", facts(True), lambda xp: facts(xp.result_type(low(xp), grid(xp)) == F32))
    works("maximum of bfloat16 and 0", HOST, lambda xp: xp.maximum(low(xp), 0).astype(F32))
    works("where of bfloat16 and 0", HOST, lambda xp: xp.where(low(xp) > 0, low(xp), 0).astype(F32))
    works("sums of bfloat16 may be made in float32", np.array([3, 12], F32), lambda xp: low(xp).sum(axis=(1,), dtype=F32))
    works("means of bfloat16 may be made in float32", np.array([1, 4], F32), lambda xp: low(xp).mean(axis=(1,), dtype=F32))
    works("concatenate of bfloat16", np.concatenate((HOST, HOST)),
          lambda xp: xp.concatenate((low(xp), low(xp)), 0).astype(F32))  # fmt: skip
    works("bfloat16 picked by index", HOST[[1, 0]], lambda xp: low(xp)[xp.asarray(np.array([1, 0]))].astype(F32))
    works("infinite bfloat16", facts(True), lambda xp: facts(xp.isfinite(low(xp)).all()))
