"""Compiles CUDA code for GPUs that are not here: NVIDIA's run-time compiler, which needs no driver, called through ctypes.

``python -m tests.cuda.nvrtc [SOURCE ...]`` prints what every kernel uses. Results are kept in the temp directory by the hash
of all that goes into them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from minires.kernels.cuda import build

__all__ = ["ARCHITECTURES", "Usage", "available", "compile", "usage"]

ARCHITECTURES = ("sm_80", "sm_90")

#: As CuPy compiles a RawModule, and one line about each kernel from the assembler.
OPTIONS = ("--std=c++17", "--device-as-default-execution-space", "-ftz=true", "--ptxas-options=-v")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


class Usage(NamedTuple):
    """What a kernel takes of a multiprocessor: registers a thread, bytes of registers that went to memory, shared bytes."""

    registers: int
    spilled: int
    stack: int
    shared: int


def available() -> str | None:
    """None if the compiler is installed, otherwise what is missing."""
    return (
        None if _path() else "nvidia-cuda-nvrtc is not installed (pip install nvidia-cuda-nvrtc): CUDA code is not compiled"
    )


def usage(code: str, architecture: str) -> dict[str, Usage]:
    """:func:`compile`, or what it found the last time."""
    key = hashlib.sha256("\0".join([str(_path()), *OPTIONS, architecture, code]).encode()).hexdigest()[:32]
    path = Path(tempfile.gettempdir(), f"minires-nvrtc-{os.getuid()}", f"{key}.json")
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(compile(code, architecture)))
        os.replace(unfinished, path)
    return {name: Usage(*numbers) for name, numbers in json.loads(path.read_text()).items()}


def compile(code: str, architecture: str) -> dict[str, Usage]:
    """Compile ``code`` for an ``architecture`` ("sm_90"): what each of its kernels uses.

    Raises:
        RuntimeError: the compiler's log.
    """
    library, program = _library(), ctypes.c_void_p()
    options = [option.encode() for option in (*OPTIONS, f"-arch={architecture}")]
    library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"code.cu", 0, None, None)
    try:
        failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    if failed:
        raise RuntimeError(f"for {architecture}:\n{text}")
    return dict(_usage(part) for part in text.split("Compiling entry function '")[1:])


def _usage(log: str) -> tuple[str, Usage]:
    """What the assembler says of one kernel, and of the functions that it calls."""
    spills = [(int(frame), int(stores) + int(loads)) for frame, stores, loads in _SPILLS.findall(log)]
    registers, shared = re.search(r"Used (\d+) registers", log), re.search(r"(\d+) bytes smem", log)
    assert spills and registers, log
    usage = Usage(
        registers=int(registers[1]),
        spilled=sum(spilled for _, spilled in spills),
        stack=sum(frame for frame, _ in spills),
        shared=int(shared[1]) if shared else 0,
    )
    return log.partition("'")[0], usage


@functools.cache
def _path() -> Path | None:
    """The library in one of the wheels nvidia/cu13 or nvidia/cuda_nvrtc."""
    specification = importlib.util.find_spec("nvidia")
    for folder in (specification.submodule_search_locations or ()) if specification else ():
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return path
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    path = _path()
    assert path is not None
    for builtins in path.parent.glob(
        "libnvrtc-builtins.so.*"
    ):  # looked for by name only, which the loader then finds loaded
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def main(sources: list[str]) -> None:
    """Print what the kernels of ``sources`` (all, if there are none) use, for the newest architecture."""
    reason = available()
    if reason:
        sys.exit(reason)
    for source in sources or build.sources():
        for macros in build.variants(source):
            print(f"{source}.cu", *(f"{name}={value}" for name, value in macros.items()))
            for name, used in usage(build.code(source, macros), ARCHITECTURES[-1]).items():
                print(f"    {name:32} {used.registers:3} registers, {used.shared:5} bytes shared, {used.spilled} spilled")


if __name__ == "__main__":
    main(sys.argv[1:])
