"""Compiles and starts the CUDA kernels in ``src/*.cu``; the only place that knows how.

A source becomes a module for one data type and one choice of macros (vector width, kernel size, ...) on first use, through
``RawModule`` of the array module. What is compiled is a ``#define`` for each macro, ``src/minires.cuh``, and the source. A
source lists its macros in lines that begin with ``//!``, each with the values that the tests compile::

    //! T: float double half bfloat16
    //! VEC: 1 4

``T`` is the type of the data in memory, ``A`` the one that is computed with (double for double, otherwise float).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

__all__ = ["code", "launch", "sources", "variants"]

_FOLDER = Path(__file__).parent / "src"
_TYPES = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "bfloat16"}  # NumPy's names to those of C
_DECLARATION = re.compile(r"^//! *(\w+): *(.+?) *$", re.MULTILINE)
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
_INT32_MAX = 2**31 - 1


class Launch(NamedTuple):
    """What :func:`launch` starts: ``function(grid, block, arguments)``."""

    source: str
    kernel: str
    dtype: str | None
    macros: tuple[tuple[str, int | str], ...]
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]
    function: Any


#: Called with every launch before it is made; ``minires bench`` takes stock of a step with it.
observers: list[Callable[[Launch], None]] = []


def launch(
    source: str,
    kernel: str,
    work: int | tuple[int, ...],
    args: Sequence[Any],
    *,
    xp: ModuleType,
    dtype: Any = None,
    block: int | tuple[int, ...] = 256,
    grid: int | tuple[int, ...] | None = None,
    **macros: int | str,
) -> None:
    """Start ``kernel`` of ``src/<source>.cu`` with enough blocks for ``work`` threads, or with ``grid`` blocks.

    Args:
        source: File name without suffix.
        kernel: Name of an ``extern "C" __global__ void`` function in it.
        work: Number of threads wanted, one number or one for each axis of ``block``. None are started if it is 0.
        args: Arrays (their memory as it lies, C-contiguous), ints (int), floats (A), NumPy scalars, None (null pointer).
        xp: The array module of the arrays.
        dtype: Type of the data in memory, for ``T`` and ``A``.
        block: Threads in a block.
        grid: Blocks, if not as many as ``work`` needs.
        **macros: The other macros of the source.

    Raises:
        ValueError: The source declares other macros than those given, or an int needs more than 32 bits.
        TypeError: There is no kernel for this dtype.
    """
    works = work if isinstance(work, tuple) else (work,)
    threads = block if isinstance(block, tuple) else (block,)
    if 0 in works:
        return
    if grid is None:
        blocks = tuple(-(-count // size) for count, size in zip(works, threads, strict=True))
    else:
        blocks = grid if isinstance(grid, tuple) else (grid,)
    if 0 in blocks:
        return
    name = _name(dtype)
    function = _function(xp, source, kernel, name, tuple(sorted(macros.items())))
    wide = name == "float64" or name is None
    arguments = tuple(_argument(kernel, value, wide) for value in args)
    for observer in observers:
        observer(Launch(source, kernel, name, tuple(sorted(macros.items())), blocks, threads, arguments, function))
    function(blocks, threads, arguments)


@functools.cache
def _name(dtype: Any) -> str | None:
    return None if dtype is None else np.dtype(dtype).name


def sources() -> list[str]:
    """The names of all sources."""
    return sorted(path.stem for path in _FOLDER.glob("*.cu"))


def variants(source: str) -> list[dict[str, str]]:
    """Every combination of the macros that ``source`` declares."""
    declared = _declared(source)
    return [dict(zip(declared, values, strict=True)) for values in itertools.product(*declared.values())]


def code(source: str, macros: Mapping[str, int | str]) -> str:
    """The text to compile, where errors are reported with file and line."""
    given = dict(macros)
    if set(given) != set(_declared(source)):
        raise ValueError(f"{source}.cu: macros {sorted(_declared(source))} are declared in it, got {sorted(given)}")
    if "T" in given:
        given["A"] = "double" if given["T"] == "double" else "float"
    lines = [f"#define {name} {int(value) if isinstance(value, bool) else value}" for name, value in given.items()]
    for file in ("minires.cuh", f"{source}.cu"):
        lines += [f'#line 1 "{file}"', _read(file)]
    # CuPy writes it to a file in the encoding of the system, which need not have the letters of our comments
    return "\n".join(lines).encode("ascii", "replace").decode()


@functools.cache
def _function(xp: ModuleType, source: str, kernel: str, dtype: str | None, macros: tuple[tuple[str, Any], ...]) -> Any:
    return _module(xp, source, dtype, macros).get_function(kernel)


@functools.cache
def _module(xp: ModuleType, source: str, dtype: str | None, macros: tuple[tuple[str, Any], ...]) -> Any:
    given = dict(macros)
    if dtype is not None:
        if dtype not in _TYPES:
            raise TypeError(f"{source}.cu: there is no CUDA kernel for {dtype}, only for {', '.join(_TYPES)}")
        given["T"] = _TYPES[dtype]
    return xp.RawModule(code=code(source, given), options=("--std=c++17",))


@functools.cache
def _read(file: str) -> str:
    text = (_FOLDER / file).read_text(encoding="utf-8")

    def included(found: re.Match[str]) -> str:
        back = text.count("\n", 0, found.end()) + 2
        return f'#line 1 "{found[1]}"\n{_read(found[1])}\n#line {back} "{file}"'

    return _INCLUDE.sub(included, text)


@functools.cache
def _declared(source: str) -> dict[str, list[str]]:
    return {name: values.split() for name, values in _DECLARATION.findall(_read(f"{source}.cu"))}


def _argument(kernel: str, value: Any, wide: bool) -> Any:
    """CuPy would pass a Python int as a long long and a float as a double, whatever the kernel takes."""
    if isinstance(value, np.generic):  # a NumPy float64 is a Python float too
        return value
    if isinstance(value, int):
        if not -_INT32_MAX <= value <= _INT32_MAX:
            raise ValueError(f"{kernel}: {value} needs more than the 32 bits of an int; pass np.int64 to a long long")
        return np.int32(value)
    if isinstance(value, float):
        return np.float64(value) if wide else np.float32(value)
    return np.uintp(0) if value is None else value
