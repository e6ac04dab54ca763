"""Where arrays live: "cpu" is NumPy, "cuda" is CuPy.

Ops never ask which device they run on. They take the array module of their input (:func:`array_module`) and the kernels
of its device, and everything else follows. CuPy is imported only when somebody asks for "cuda".
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minires.errors import DeviceError

__all__ = ["Array", "array_module", "device_of", "is_available", "synchronize", "to_device"]

if TYPE_CHECKING:
    Array: TypeAlias = Any
else:

    class Array:
        """A NumPy array, or a CuPy array, inside an op; a Tensor (or a plain number) for the caller of an op.

        Parameters of an op annotated with this name are its differentiable inputs, see :func:`minires.autograd.op`.
        Nothing is an instance of it: it is only a name, and ``Any`` to a type checker.
        """


def array_module(*arrays: Any) -> ModuleType:
    """The module, ``numpy`` or ``cupy``, that the first array among ``arrays`` belongs to (numpy for plain numbers)."""
    for array in arrays:
        if type(array) is np.ndarray:
            return np
        if type(array).__module__.partition(".")[0] == "cupy":
            return _cupy()
    return np


def device_of(array: Any) -> str:
    """The device string of an array: ``"cpu"`` or ``"cuda:0"``."""
    if array_module(array) is np:
        return "cpu"
    return f"cuda:{array.device.id}"


def is_available() -> bool:
    """Whether CuPy is installed and sees a GPU."""
    try:
        return bool(_cupy().cuda.is_available())
    except Exception:  # CuPy without a driver fails in many ways; each of them means "no"
        return False


def to_device(array: Any, device: str) -> Any:
    """``array`` on ``device`` ("cpu", "cuda" or "cuda:1"); itself if it is there already.

    Raises:
        DeviceError: CuPy or a GPU is missing.
        ValueError: the device string is not one of those above.
    """
    kind, index = _parse(device)
    if kind == "cpu":
        return array if array_module(array) is np else array.get()
    if not is_available():
        raise DeviceError(_missing_cuda())
    with _cupy().cuda.Device(index):
        return _cupy().asarray(array)


def synchronize(device: str = "cuda") -> None:
    """Wait until all work given to ``device`` is done (returns at once for "cpu")."""
    kind, index = _parse(device)
    if kind == "cuda" and is_available():
        _cupy().cuda.Device(index).synchronize()


def _parse(device: str) -> tuple[str, int]:
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return kind, int(index or 0)


def _cupy() -> ModuleType:
    import cupy

    return cupy  # type: ignore[no-any-return,unused-ignore]


def _missing_cuda() -> str:
    try:
        _cupy()
    except Exception:
        return (
            "device 'cuda': CuPy is not installed. For a driver with CUDA 13: pip install -e '.[cuda13x]'; "
            "with CUDA 12: pip install -e '.[cuda12x]' (nvidia-smi prints the driver's CUDA version). "
            "The CUDA kernels for convolution, norms and pooling are not in this version of minires yet."
        )
    return "device 'cuda': CuPy is installed but finds no NVIDIA GPU or driver (does nvidia-smi run?)."
