"""cuBLAS for the stand-in: the functions that minires calls, on host memory, with cuBLAS's rules for their arguments.

It counts as cuBLAS does: matrices lie column by column, with a leading dimension that must not be smaller than a column.
What the library would refuse gets the status it would return. ``calls`` holds the names and arguments of all that were made.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from minires.precision import bfloat16
from tests.cuda.standin.run import run

_NAMES = {0: b"CUBLAS_STATUS_SUCCESS", 1: b"CUBLAS_STATUS_NOT_INITIALIZED", 7: b"CUBLAS_STATUS_INVALID_VALUE",
          15: b"CUBLAS_STATUS_NOT_SUPPORTED"}  # fmt: skip
_OK, _NOT_INITIALIZED, _INVALID, _UNSUPPORTED = 0, 1, 7, 15
_TYPES: dict[int, Any] = {0: np.float32, 1: np.float64, 2: np.float16}
with suppress(ImportError):
    _TYPES[14] = bfloat16()
_HANDLE = 0x1234

#: (types of A, B and C) -> the compute types that cublasGemmEx takes with them, and the bits of a float32 factor that count
_FLOAT = {68: 24, 77: 11, 75: 8}
_COMPUTE = {(0, 0, 0): _FLOAT, (1, 1, 1): {70: 53}, (2, 2, 2): {68: 24}, (2, 2, 0): {68: 24},
            (14, 14, 14): {68: 24}, (14, 14, 0): {68: 24}}  # fmt: skip


class FakeCublas:
    """Has the attributes of a ``ctypes.CDLL`` of libcublas."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.stream: Any = None
        self.workspace: Any = None
        for name in ("cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSetMathMode", "cublasGemmEx",
                     "cublasGemmStridedBatchedEx", "cublasGetStatusName"):  # fmt: skip
            setattr(self, name, _Function(self, name, getattr(self, "_" + name)))

    def count(self, start: str) -> int:
        """How many calls had a name that starts so."""
        return sum(name.startswith(start) for name, _ in self.calls)

    def _cublasGetStatusName(self, status: int) -> bytes:
        return _NAMES.get(status, b"unknown")

    def _cublasCreate_v2(self, place: Any) -> int:
        place.value = _HANDLE
        return _OK

    def _cublasSetStream_v2(self, handle: int, stream: int) -> int:
        self.stream, self.workspace = stream or 0, None  # "unconditionally resets the workspace"
        return _OK if handle == _HANDLE else _NOT_INITIALIZED

    def _cublasSetWorkspace_v2(self, handle: int, workspace: int, size: int) -> int:
        self.workspace = (workspace, size)
        return _OK if handle == _HANDLE else _NOT_INITIALIZED

    def _cublasSetMathMode(self, handle: int, mode: int) -> int:
        return _OK if handle == _HANDLE else _NOT_INITIALIZED

    def _cublasGemmEx(self, handle: int, ta: int, tb: int, m: int, n: int, k: int, alpha: Any, a: int, a_type: int, lda: int,
                      b: int, b_type: int, ldb: int, beta: Any, c: int, c_type: int, ldc: int, compute: int,
                      algorithm: int) -> int:  # fmt: skip
        return self._cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta,
                                                c, c_type, ldc, 0, 1, compute, algorithm)  # fmt: skip

    def _cublasGemmStridedBatchedEx(self, handle: int, ta: int, tb: int, m: int, n: int, k: int, alpha: Any, a: int,
                                    a_type: int, lda: int, stride_a: int, b: int, b_type: int, ldb: int, stride_b: int,
                                    beta: Any, c: int, c_type: int, ldc: int, stride_c: int, count: int, compute: int,
                                    algorithm: int) -> int:  # fmt: skip
        if handle != _HANDLE:
            return _NOT_INITIALIZED
        if (a_type, b_type, c_type) not in _COMPUTE or compute not in _COMPUTE[a_type, b_type, c_type]:
            return _UNSUPPORTED
        if self.workspace is None:
            raise AssertionError("cuBLAS would allocate a workspace, which a capture forbids")
        if not all(isinstance(scale, ctypes.c_double if compute == 70 else ctypes.c_float) for scale in (alpha, beta)):
            raise AssertionError("the factors alpha and beta are of another type than the sums")
        if min(m, n, k, count) < 0 or lda < max(1, k if ta else m) or ldb < max(1, n if tb else k) or ldc < max(1, m):
            return _INVALID
        bits = _COMPUTE[a_type, b_type, c_type][compute]
        first = _matrices(a, a_type, (k, m) if ta else (m, k), lda, stride_a, count)
        second = _matrices(b, b_type, (n, k) if tb else (k, n), ldb, stride_b, count)
        result = _matrices(c, c_type, (m, n), ldc, stride_c, count)
        run(_multiply, first.swapaxes(1, 2) if ta else first, second.swapaxes(1, 2) if tb else second, result, alpha.value,
            beta.value, bits)  # fmt: skip
        return _OK


class _Function:
    """One function, as ctypes would call it: its arguments fit the declared types."""

    def __init__(self, library: FakeCublas, name: str, function: Any) -> None:
        self._library, self._name, self._function = library, name, function
        self.argtypes: list[Any] = []
        self.restype: Any = None

    def __call__(self, *args: Any) -> Any:
        if len(args) != len(self.argtypes):
            raise TypeError(f"{self._name} takes {len(self.argtypes)} arguments, got {len(args)}")
        for kind, value in zip(self.argtypes, args, strict=True):
            kind.from_param(value)
            if kind is ctypes.c_int and not -(2**31) <= value < 2**31:
                raise OverflowError(f"{self._name}: {value} is cut off")
        values = tuple(getattr(value, "_obj", getattr(value, "value", value)) for value in args)
        self._library.calls.append((self._name, values))
        return self._function(*values)


def _matrices(address: int, kind: int, shape: tuple[int, int], leading: int, distance: int, count: int) -> np.ndarray:
    """The ``count`` matrices at an address, each column by column."""
    dtype = np.dtype(_TYPES[kind])
    rows, columns = shape
    if not rows * columns * count:
        return np.zeros((count, rows, columns), dtype)
    size = (count - 1) * distance + (columns - 1) * leading + rows
    memory = np.frombuffer((ctypes.c_char * (size * dtype.itemsize)).from_address(address), dtype)
    steps = (distance * dtype.itemsize, dtype.itemsize, leading * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(memory, (count, rows, columns), steps)


def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray, alpha: float, beta: float, bits: int) -> np.ndarray:
    factors = [x.astype(np.result_type(x, np.float32)) for x in (a, b)]
    if bits < 24:
        factors = [rounded(x, bits) for x in factors]
    product = alpha * np.matmul(*factors)
    out[...] = product if beta == 0 else product + beta * out
    return out


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """float32 numbers with so many bits of mantissa, the leading one included; ties away from zero."""
    dropped = 24 - bits
    integers = np.ascontiguousarray(x, np.float32).view(np.uint32) + np.uint32(1 << (dropped - 1))
    return (integers & ~np.uint32((1 << dropped) - 1)).view(np.float32)


@contextmanager
def installed() -> Iterator[FakeCublas]:
    """minires finds this instead of libcublas."""
    from minires.kernels.cuda import blas

    names = ("_load", "_library", "_library_was_sought", "_handles", "_WORKSPACE_BYTES")
    before = {name: getattr(blas, name) for name in names}
    library = FakeCublas()
    fresh = {"_load": lambda: library, "_library": None, "_library_was_sought": False, "_handles": blas._ThreadHandles()}
    vars(blas).update(fresh, _WORKSPACE_BYTES=1 << 10)
    try:
        yield library
    finally:
        vars(blas).update(before)
