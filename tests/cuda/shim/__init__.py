"""Runs CUDA kernels on the CPU: what ``cuda_shim.h`` says, compiled by g++ and called through ctypes.

The compiled libraries are kept in the temp directory by the hash of all that goes into them, so that a second run and the
other test processes find them there.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Library", "ShimError", "available", "compile", "lane_order", "sanitizer_environment"]

HERE = Path(__file__).parent
HEADER = HERE / "cuda_shim.h"
FLAGS = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-Wno-unknown-pragmas",
    "-Wno-attributes",
)
SANITIZE = (
    "-g1", "-fsanitize=address", "-fsanitize-sections=cuda_shared", "-fno-omit-frame-pointer",
    "-fsanitize=alignment,bounds,integer-divide-by-zero,signed-integer-overflow,shift", "-fno-sanitize-recover=all",
)  # fmt: skip
KERNEL = re.compile(r"__attribute__\(\(used, visibility\(\"default\"\)\)\)\s+void\s+(\w+)\s*\(")
_LOCK = threading.Lock()  # the header's threads of a block are global variables
_order = {"descending": os.environ.get("MINIRES_SHIM_DESCENDING") == "1"}


class ShimError(RuntimeError):
    """The code does not compile, a kernel is called with other arguments than it takes, or threads wait for ever."""


@functools.cache
def available() -> str | None:
    """None if kernels can be run here, otherwise the reason why not."""
    if sys.platform != "linux":
        return "CUDA kernels are run on the CPU only under Linux"
    return None if shutil.which("g++") else "g++ is not installed: the CUDA kernels cannot be run on the CPU"


@contextmanager
def lane_order(descending: bool) -> Iterator[None]:
    """Inside, threads run from the last to the first (or from the first to the last) where ``launch`` does not say."""
    before = _order["descending"]
    _order["descending"] = descending
    try:
        yield
    finally:
        _order["descending"] = before


def compile(code: str, *, sanitize: bool | None = None) -> Library:
    """The kernels in ``code``.

    With ``sanitize``, accesses out of bounds or not aligned, integer overflow and the like end the process with a report
    that names the line; the process must have been started in :func:`sanitizer_environment`, where it is the default.
    """
    reason = available()
    if reason:
        raise ShimError(reason)
    if sanitize is None:
        sanitize = os.environ.get("MINIRES_SHIM_SANITIZE") == "1"
    return _compile(code, sanitize)


def sanitizer_environment() -> dict[str, str]:
    """Environment variables of a process that may load sanitized kernels: AddressSanitizer must come first."""
    runtime = [_run("g++", f"-print-file-name={name}").strip() for name in ("libasan.so", "libubsan.so")]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:max_malloc_fill_size=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "MINIRES_SHIM_SANITIZE": "1",
        "PYTHONMALLOC": "malloc",
    }


class Library:
    """Kernels that were compiled together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        arguments: Sequence[Any],
        descending: bool | None = None,
    ) -> None:
        """Run the kernel ``name``: arrays are passed as pointers, NumPy scalars as they are, None as a null pointer.

        Raises:
            ShimError: arguments of other types than the kernel's, threads that do not meet at a barrier, no such kernel.
            TypeError: an argument of a kind that cannot be passed (Python numbers among them: CuPy would guess their size).
            ValueError: an array with gaps or axes out of order, or a grid or block that a GPU would refuse.
        """
        grid_size, block_size = _three(grid), _three(block)
        if math.prod(block_size) > 1024 or min(*grid_size, *block_size) < 1 or max(grid_size[1:]) > 65535:
            raise ValueError(f"{name}: a GPU refuses grid {grid_size}, block {block_size}")
        if not hasattr(self._library, "shim_" + name):
            raise ShimError(f"no kernel {name!r} in this code")
        function = self._library["shim_" + name]
        function.restype = ctypes.c_char_p
        passed = [_argument(name, i, argument) for i, argument in enumerate(arguments)]
        count = len(passed)
        values = (ctypes.c_void_p * count)(*(ctypes.addressof(value) for value, _ in passed))
        kinds = (ctypes.c_char_p * count)(*(kind for _, kind in passed))
        down = _order["descending"] if descending is None else descending
        with _LOCK:
            error = function(
                count, values, kinds, (ctypes.c_int * 3)(*grid_size), (ctypes.c_int * 3)(*block_size), int(down)
            )
        if error:
            raise ShimError(error.decode())


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    x, y, z = (*(int(n) for n in sizes), 1, 1)[:3]
    return x, y, z


def _argument(kernel: str, index: int, value: Any) -> tuple[Any, bytes]:
    """The bytes to pass, and what they are: "f4", "i8", "Pf4" (pointer to floats), "P0" (null)."""
    if value is None or (isinstance(value, np.uintp) and value == 0):
        return ctypes.c_void_p(None), b"P0"
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise ValueError(f"{kernel}: argument {index}, shape {value.shape}, strides {value.strides}: not C-contiguous")
        return ctypes.c_void_p(value.ctypes.data), f"P{value.dtype.kind}{value.dtype.itemsize}".encode()
    if isinstance(value, np.generic):
        return ctypes.create_string_buffer(value.tobytes(), value.itemsize), f"{value.dtype.kind}{value.itemsize}".encode()
    raise TypeError(f"{kernel}: argument {index} is a {type(value).__name__}; pass an array, a NumPy scalar or None")


@functools.cache
def _compile(code: str, sanitize: bool) -> Library:
    import fcntl  # not on every system

    flags = (*FLAGS, *(SANITIZE if sanitize else ()))
    headers = [header.read_text() for header in sorted(HERE.glob("*.h"))]
    key = hashlib.sha256("\0".join([_version(), *headers, _TAIL, KERNEL.pattern, *flags, code]).encode())
    folder = Path(tempfile.gettempdir()) / f"minires-cuda-shim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{key.hexdigest()[:32]}.so"
    if not path.exists():
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be at it
            if not path.exists():
                _build(code, path, flags)
    return Library(path)


_TAIL = """
extern "C" __attribute__((visibility("default"))) const char* shim_{name}(int count, void* const* values,
        const char* const* kinds, const int* grid, const int* block, int descending) {{
    return shim::launch("{name}", {name}, count, values, kinds, grid, block, descending);
}}
"""


def _build(code: str, path: Path, flags: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        Path(folder, "code.cu").write_text(code)
        header = (f"-I{HERE}", "-include", str(HEADER))
        _run("g++", *flags, "-x", "c++", "-E", *header, "code.cu", "-o", "code.ii", folder=folder)
        whole = Path(folder, "code.ii")
        names = KERNEL.findall(whole.read_text())
        with whole.open("a") as end:
            end.write("".join(_TAIL.format(name=name) for name in names))
        _run("g++", *flags, "-shared", "code.ii", "-o", "code.so", folder=folder)
        os.replace(Path(folder, "code.so"), path)


@functools.cache
def _version() -> str:
    return _run("g++", "--version")


def _run(*command: str, folder: str | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if done.returncode:
        raise ShimError(f"{command[0]} does not compile this:\n{done.stderr}")
    return done.stdout
