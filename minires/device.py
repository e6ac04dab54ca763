"""Where arrays live: "cpu" is NumPy, "cuda" is CuPy.

Ops never ask which device they run on. They take the array module of their input (:func:`array_module`) and the kernels
of its device, and everything else follows. CuPy is imported only when somebody asks for "cuda".
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minires.errors import DeviceError

__all__ = [
    "Array", "array_module", "bring", "check", "cupy", "device_of", "is_available", "parse", "synchronize", "to_device",
]  # fmt: skip

if TYPE_CHECKING:
    from minires.driver import Driver

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
            return cupy()
    return np


def device_of(array: Any) -> str:
    """The device string of an array: ``"cpu"`` or ``"cuda:0"``."""
    if array_module(array) is np:
        return "cpu"
    return f"cuda:{array.device.id}"


def is_available() -> bool:
    """Whether CuPy is installed and sees a GPU."""
    try:
        return bool(cupy().cuda.is_available())
    except Exception:  # CuPy without a driver fails in many ways; each of them means "no"
        return False


def to_device(array: Any, device: str) -> Any:
    """``array`` on ``device`` ("cpu", "cuda" or "cuda:1"); itself if it is there already.

    Raises:
        DeviceError: CuPy or a GPU is missing.
        ValueError: the device string is not one of those above.
    """
    kind, index = parse(device)
    if kind == "cpu":
        return array if array_module(array) is np else _in_memory_order(array, lambda flat: flat.get())
    check(device)
    with cupy().cuda.Device(index):
        return cupy().asarray(array) if array_module(array) is not np else _in_memory_order(array, cupy().asarray)


def _in_memory_order(array: Any, move: Callable[[Any], Any]) -> Any:
    """``move(array)`` with the axes as they lie in memory: a copy between devices comes out in C order otherwise."""
    if array.ndim < 2 or array.flags.c_contiguous:
        return move(array)
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    back = sorted(range(array.ndim), key=axes.__getitem__)
    return move(array.transpose(axes)).transpose(back)


def bring(value: Any, like: Any) -> Any:
    """``value`` on the device of the array ``like`` if it is an array on another; anything else as it is."""
    if array_module(value) is array_module(like) or not isinstance(getattr(value, "dtype", None), np.dtype):
        return value
    return value if isinstance(value, np.generic) else to_device(value, device_of(like))


def synchronize(device: str = "cuda") -> None:
    """Wait until all work given to ``device`` is done (returns at once for "cpu")."""
    kind, index = parse(device)
    if kind == "cuda" and is_available():
        cupy().cuda.Device(index).synchronize()


def cupy() -> ModuleType:
    """CuPy, imported when it is first asked for.

    Raises:
        DeviceError: it is not installed, or its import fails.
    """
    module = sys.modules.get("cupy")
    if module is not None:
        return module
    if find_spec("cupy") is None:
        raise DeviceError(f"device 'cuda': CuPy is not installed; {_nvidia().what_to_install(_nvidia().find_driver())}")
    try:
        return importlib.import_module("cupy")
    except Exception as error:
        raise DeviceError(_broken_cupy(error)) from error


#: The GPUs that were found in order → the CuPy that found them: looked for once, not for every array.
_checked: dict[int, ModuleType] = {}


def check(device: str) -> None:
    """Raise unless arrays can be made on ``device``.

    Raises:
        DeviceError: what is missing, and the command that installs it for the driver that was found.
        ValueError: the device string is not "cpu", "cuda" or "cuda:N".
    """
    kind, index = parse(device)
    if kind == "cpu":
        return
    module = cupy()
    if _checked.get(index) is module:
        return
    count = _count_gpus(module)
    if index >= count:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"device '{device}': there is no such GPU, this process sees {there}{_visible()}")
    _checked[index] = module


def parse(device: str) -> tuple[str, int]:
    """The kind of a device, "cpu" or "cuda", and its number.

    Raises:
        ValueError: the device string is not "cpu", "cuda" or "cuda:N".
    """
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return kind, int(index or 0)


def _count_gpus(module: ModuleType) -> int:
    """How many GPUs this process sees, at least one."""
    reason = ""
    try:
        count = int(module.cuda.runtime.getDeviceCount())
    except Exception as error:  # without a driver, with one that is too old, without a GPU: an exception of CuPy's
        count, reason = 0, " ".join(str(error).split())
    if count:
        return count
    driver = _nvidia().find_driver()
    if driver is None:
        where = "does nvidia-smi run?" if not reason else f"{reason}; does nvidia-smi run?"
        raise DeviceError(
            f"device 'cuda': CuPy is installed but finds no NVIDIA GPU, and there is no NVIDIA driver ({where}). Install a "
            "driver, version 580 or newer for CUDA 13, 525 or newer for CUDA 12"
        )
    _check_fit(driver)
    because = f" ({reason})" if reason else ""
    raise DeviceError(f"device 'cuda': CuPy is installed but finds no NVIDIA GPU{because}; {driver} is there{_visible()}")


def _nvidia() -> ModuleType:
    """:mod:`minires.driver`, imported when there is something to explain: a quarter of the time that minires takes else."""
    from minires import driver

    return driver


def _check_fit(driver: Driver) -> None:
    """Raise if the CuPy that is installed is for a newer CUDA than the driver runs."""
    for package, major in _nvidia().cupy_packages().items():
        if major is not None and major > driver.cuda[0]:
            extra = _nvidia().fitting_extra(driver)
            advice = _nvidia().what_to_install(driver)
            if extra:
                advice = f"pip uninstall -y {package}, then {_nvidia().install_line(extra)}"
            limit = f"{driver} runs CUDA {driver.cuda[0]} at most"
            raise DeviceError(f"device 'cuda': {package} is built for CUDA {major}, but {limit}: {advice}")


def _broken_cupy(error: Exception) -> str:
    """CuPy is there but cannot be imported: why, and what usually helps."""
    packages = list(_nvidia().cupy_packages())
    reason = " ".join(str(error).split()) or type(error).__name__
    text = f"device 'cuda': CuPy is installed ({', '.join(packages) or 'from a folder'}), but its import fails: {reason}"
    if len(packages) > 1:
        text += f". Only one CuPy can be installed at a time: pip uninstall -y {' '.join(packages)}"
    return f"{text}; {_nvidia().what_to_install(_nvidia().find_driver())}"


def _visible() -> str:
    """What hides GPUs from this process, if anything does."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if value is None else f"; CUDA_VISIBLE_DEVICES is {value!r}, which hides all others"
