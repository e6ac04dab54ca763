"""Matrix products on a GPU: cuBLAS through a handle of our own, by ctypes.

CuPy has cuBLAS too, but refuses it while a CUDA graph is captured, multiplies float32 with TF32 in two dimensions only, and
copies what is transposed. cuBLAS itself has none of these limits, and two of its functions are all that is needed here.

cuBLAS counts in Fortran order: a row-major matrix (M, K) is for it the transposed one, (K, M). So it is asked for
``Cᵀ = Bᵀ·Aᵀ``, and then no operand has to be moved: rows are told by a flag, a part of a wider matrix by its *leading
dimension*, the distance from one row to the next. (The same holds in Fortran's own order, so a transposed view costs nothing
either.)

How exactly float32 is multiplied is the choice of :func:`minires.set_float32_matmul_precision`. Sums are float32 or float64
always, also those of float16 and bfloat16 products. With one handle a stream and no atomics, results repeat bit for bit.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import threading
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_longlong, c_size_t, c_void_p
from types import ModuleType
from typing import Any, NamedTuple

from minires.device import array_module
from minires.errors import DeviceError
from minires.modes import get_float32_matmul_precision

__all__ = ["matmul", "multiply_add"]

#: Scratch memory of a handle, as NVIDIA advises for Hopper. Given by us, for cuBLAS would allocate it during a capture.
_WORKSPACE_BYTES = 32 << 20

#: The largest number in cuBLAS's 32-bit functions.
_MOST = 2**31 - 1

# Numbers from NVIDIA's headers cublas_api.h and library_types.h.
_SUCCESS = 0  # CUBLAS_STATUS_SUCCESS
_AS_IS, _TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
_DEFAULT_MATH = 0  # CUBLAS_DEFAULT_MATH: the compute type alone decides
_DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
_DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}  # CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF
_COMPUTE_32F, _COMPUTE_64F = 68, 70  # CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F
_COMPUTE_FLOAT32 = {
    "highest": _COMPUTE_32F,
    "high": 77,  # CUBLAS_COMPUTE_32F_FAST_TF32
    "medium": 75,  # CUBLAS_COMPUTE_32F_FAST_16BF
}

_OPERAND = [c_void_p, c_int, c_int]  # address, data type, leading dimension
_BATCHED = [*_OPERAND, c_longlong]  # and the distance to the next matrix
_START, _END = [c_void_p, c_int, c_int, c_int, c_int, c_int, c_void_p], [c_int, c_int]

#: The arguments of the functions used. All return a status.
_SIGNATURES: dict[str, list[Any]] = {
    "cublasCreate_v2": [POINTER(c_void_p)],
    "cublasSetStream_v2": [c_void_p, c_void_p],
    "cublasSetWorkspace_v2": [c_void_p, c_void_p, c_size_t],
    "cublasSetMathMode": [c_void_p, c_int],
    "cublasGemmEx": [*_START, *_OPERAND, *_OPERAND, c_void_p, *_OPERAND, *_END],
    "cublasGemmStridedBatchedEx": [*_START, *_BATCHED, *_BATCHED, c_void_p, *_BATCHED, c_int, *_END],
}

#: Called with (handle, a, b, out, beta) before every product; ``minires bench`` takes stock of a step with it.
observers: list[Callable[[Any, Any, Any, Any, float], None]] = []


# -------------------------------------------------------------------------------------------------- the library


class Library:
    """cuBLAS with its functions declared; a call that fails raises an error with the name of the call and of the status."""

    def __init__(self, functions: Any) -> None:
        self._functions = functions
        for name, arguments in _SIGNATURES.items():
            getattr(functions, name).argtypes = arguments
            getattr(functions, name).restype = c_int
        functions.cublasGetStatusName.argtypes, functions.cublasGetStatusName.restype = [c_int], c_char_p

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of cuBLAS.

        Raises:
            DeviceError: its status is not success.
        """
        status = getattr(self._functions, name)(*arguments)
        if status != _SUCCESS:
            meaning = (self._functions.cublasGetStatusName(status) or b"an unknown status").decode()
            raise DeviceError(f"cuBLAS: {name} returned {meaning} ({status})")


class Handle:
    """One cuBLAS context, for one device and one thread, with a workspace for each stream it has been used on."""

    def __init__(self, library: Library, xp: ModuleType) -> None:
        self._library, self._xp = library, xp
        self._handle = c_void_p()
        self._stream: int | None = None
        self._workspaces: dict[int, Any] = {}  # a captured graph keeps the address of its own, so none is given back
        library.call("cublasCreate_v2", byref(self._handle))
        library.call("cublasSetMathMode", self._handle, _DEFAULT_MATH)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that takes the handle first, on CuPy's current stream."""
        stream = self._xp.cuda.get_current_stream().ptr
        if stream != self._stream:
            self._library.call("cublasSetStream_v2", self._handle, stream)
            workspace = self._workspaces.get(stream)
            if workspace is None:
                workspace = self._workspaces[stream] = self._xp.empty(_WORKSPACE_BYTES, self._xp.uint8)
            # In this order, since setting the stream brings back cuBLAS's own workspace:
            self._library.call("cublasSetWorkspace_v2", self._handle, _address(workspace), _WORKSPACE_BYTES)
            self._stream = stream
        self._library.call(name, self._handle, *arguments)


class _ThreadHandles(threading.local):
    """A handle may be used by one thread at a time, so each thread has its own, one a device."""

    def __init__(self) -> None:
        self.of_device: dict[int, Handle] = {}


_handles = _ThreadHandles()
_library: Library | None = None
_library_was_sought = False
_lock = threading.Lock()


def handle_for(array: Any) -> Handle | None:
    """The cuBLAS handle to multiply ``array`` with. None where libcublas is not found: then CuPy's ``matmul`` has to do."""
    xp = array_module(array)
    device = array.device.id
    if device not in _handles.of_device:
        library = _find_library()
        if library is None:
            return None
        with xp.cuda.Device(device):
            _handles.of_device[device] = Handle(library, xp)
    return _handles.of_device[device]


def _find_library() -> Library | None:
    """libcublas, looked for once: where CuPy's packages have it, then where the system has it."""
    global _library, _library_was_sought
    with _lock:
        if not _library_was_sought:
            _library_was_sought = True
            functions = _load()
            _library = None if functions is None else Library(functions)
    return _library


def _load() -> Any:
    try:  # the helper with which CuPy finds its own libraries: wheels, conda, CUDA_PATH
        pathfinder = importlib.import_module("cuda.pathfinder")
        path = pathfinder.load_nvidia_dynamic_lib("cublas").abs_path
        if path:
            return ctypes.CDLL(path)
    except Exception:  # it is not installed, or did not find the library; then the system's loader may
        pass
    for name in ("libcublas.so.13", "libcublas.so.12", "cublas64_13.dll", "cublas64_12.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _address(array: Any) -> int:
    return int(array.data.ptr)


# ------------------------------------------------------------------------------------------------- the products


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """``a @ b`` as NumPy's matmul: (…, M, K) and (…, K, N), leading axes broadcast, vectors allowed.

    Transposed and sliced operands are not copied as long as one of their last two axes is contiguous.
    """
    handle = handle_for(a)
    if handle is None or not (_DATA_TYPES.keys() >= {a.dtype.name, b.dtype.name}):  # complex numbers and integers
        return _plain(a, b, out)
    rows = a if a.ndim > 1 else a[None, :]  # (K,) -> (1, K)
    columns = b if b.ndim > 1 else b[:, None]  # (K,) -> (K, 1)
    if not a.ndim or not b.ndim or rows.shape[-1] != columns.shape[-2]:
        return _plain(a, b, out)  # for its error message
    xp = array_module(a)
    dtype = xp.result_type(a, b)
    rows, columns = rows.astype(dtype, copy=False), columns.astype(dtype, copy=False)
    full = (*_broadcast(rows.shape[:-2], columns.shape[:-2]), rows.shape[-2], columns.shape[-1])
    shape = full[:-2] + full[-2:-1] * (a.ndim > 1) + full[-1:] * (b.ndim > 1)
    result = xp.empty(shape, dtype) if out is None else out
    if result.shape != shape:
        raise ValueError(f"matmul: out has shape {result.shape}, expected {shape}")
    if result.dtype == dtype and (shape == full or result.flags.c_contiguous):
        _fill(handle, rows, columns, result if shape == full else result.reshape(full), 0.0)
    else:
        product = xp.empty(full, dtype)
        _fill(handle, rows, columns, product, 0.0)
        result[...] = product.reshape(shape)
    return result


def multiply_add(a: Any, b: Any, out: Any, beta: float = 1.0) -> None:
    """``out = a @ b + beta·out`` for matrices, or stacks of as many matrices each, of one real dtype.

    With float16 and bfloat16 factors ``out`` may be float32.
    """
    handle = handle_for(a)
    if handle is not None:
        _fill(handle, a, b, out, beta)
    elif beta == 0:
        out[...] = array_module(a).matmul(a, b)
    else:
        out[...] = array_module(a).matmul(a, b) + beta * out


def _plain(a: Any, b: Any, out: Any) -> Any:
    product = array_module(a).matmul(a, b)
    if out is None:
        return product
    out[...] = product
    return out


def _broadcast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of two arrays together, as NumPy has it."""
    length = max(len(first), len(second))
    pairs = zip((1,) * (length - len(first)) + first, (1,) * (length - len(second)) + second, strict=True)
    shape = []
    for one, other in pairs:
        if one != other and 1 not in (one, other):
            raise ValueError(f"matmul: the leading axes {first} and {second} do not fit together")
        shape.append(other if one == 1 else one)
    return tuple(shape)


def _fill(handle: Handle, a: Any, b: Any, out: Any, beta: float) -> None:
    """``out = a @ b + beta·out``; a (…, M, K), b (…, K, N), out (…, M, N)."""
    xp = array_module(a)
    if not out.size:
        return
    if not a.shape[-1]:  # a sum of nothing
        out[...] = out * beta if beta else 0
        return
    # Many matrices times one are one taller matrix: (…, M, K) -> (…·M, K)
    if out.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and out.flags.c_contiguous and a.ndim == out.ndim:
        a, out = a.reshape(-1, a.shape[-1]), out.reshape(-1, out.shape[-1])
    batch = out.shape[:-2]
    target = Operand.of(out, batch)
    if target is None:
        packed = xp.ascontiguousarray(out)
        _multiply(handle, Operand.packed(a, batch), Operand.packed(b, batch), Operand.packed(packed, batch), beta)
        out[...] = packed
        return
    _multiply(handle, Operand.packed(a, batch), Operand.packed(b, batch), target, beta)


class Operand(NamedTuple):
    """A stack of matrices as cuBLAS can read them: memory, and how to walk through it in elements.

    Attributes:
        array: what was given, or the copy that had to be made: its first element is where the first matrix begins.
        rows, columns: the size of a matrix.
        leading: the distance from one row to the next; from one column to the next if ``transposed``.
        transposed: whether columns lie contiguous in memory, not rows.
        distance: from one matrix to the next.
        matrices: how many there are.
    """

    array: Any
    rows: int
    columns: int
    leading: int
    transposed: bool
    distance: int
    matrices: int

    @property
    def T(self) -> Operand:
        """The transposed matrices, in the same memory."""
        return self._replace(rows=self.columns, columns=self.rows, transposed=not self.transposed)

    @staticmethod
    def packed(array: Any, batch: tuple[int, ...]) -> Operand:
        """``array`` (…, M, N) as an operand, its leading axes broadcast to ``batch``; copied only where it has to be."""
        operand = Operand.of(array, batch)
        if operand is None:
            xp = array_module(array)
            operand = Operand.of(xp.ascontiguousarray(array), batch)
            if operand is None:  # broadcast along an axis between two others
                spread = xp.ascontiguousarray(xp.broadcast_to(array, (*batch, *array.shape[-2:])))
                operand = Operand.of(spread, batch)
        assert operand is not None
        return operand

    @staticmethod
    def of(array: Any, batch: tuple[int, ...]) -> Operand | None:
        """The same without copies, or None."""
        steps = [stride // array.itemsize for stride in array.strides]
        rows, columns = array.shape[-2:]
        distance = _one_step(batch, array.shape[:-2], steps[:-2])
        for transposed, (long, short) in ((False, (-2, -1)), (True, (-1, -2))):
            length = array.shape[short]
            leading = steps[long] if array.shape[long] > 1 else length
            if distance is not None and (length == 1 or steps[short] == 1) and leading >= length:
                return Operand(array, rows, columns, leading, transposed, distance, math.prod(batch))
        return None


def _one_step(batch: tuple[int, ...], shape: tuple[int, ...], steps: list[int]) -> int | None:
    """The distance between neighbours if all leading axes, broadcast to ``batch``, are walked through at one pace.

    None if there is no such pace.
    """
    missing = len(batch) - len(shape)
    pace, expected = None, 0
    for axis in reversed(range(len(batch))):
        if batch[axis] == 1:
            continue
        step = 0 if axis < missing or shape[axis - missing] == 1 else steps[axis - missing]
        if pace is None:
            pace, expected = step, step
        if step != expected or step < 0:
            return None
        expected = step * batch[axis]
    return pace or 0


def _multiply(handle: Handle, a: Operand, b: Operand, out: Operand, beta: float) -> None:
    """Ask cuBLAS. What it calls a matrix is ours transposed: out row by row is outᵀ = bᵀ·aᵀ column by column."""
    for observer in observers:
        observer(handle, a, b, out, beta)
    if out.transposed:
        a, b, out = b.T, a.T, out.T
    sizes = (out.columns, out.rows, a.columns)
    if max(*sizes, a.leading, b.leading, out.leading, out.matrices) > _MOST:
        raise ValueError(f"matmul: {a.rows}x{a.columns} times {b.rows}x{b.columns} is more than cuBLAS counts in 32 bits")
    compute = _compute_type(a.array.dtype.name)
    scale = c_double if compute == _COMPUTE_64F else c_float
    flags = [_TRANSPOSED if operand.transposed else _AS_IS for operand in (b, a)]
    first, second, third = ([_address(o.array), _DATA_TYPES[o.array.dtype.name], o.leading] for o in (b, a, out))
    one, factor = byref(scale(1.0)), byref(scale(beta))
    if out.matrices == 1:
        rest = [*first, *second, factor, *third, compute, _DEFAULT_ALGORITHM]
        handle.call("cublasGemmEx", *flags, *sizes, one, *rest)
        return
    for operand, words in ((b, first), (a, second), (out, third)):
        words.append(operand.distance)
    rest = [*first, *second, factor, *third, out.matrices, compute, _DEFAULT_ALGORITHM]
    handle.call("cublasGemmStridedBatchedEx", *flags, *sizes, one, *rest)


def _compute_type(dtype: str) -> int:
    """How exactly cuBLAS multiplies and adds."""
    if dtype == "float64":
        return _COMPUTE_64F
    return _COMPUTE_FLOAT32[get_float32_matmul_precision()] if dtype == "float32" else _COMPUTE_32F
