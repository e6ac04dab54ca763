"""What a training step on a GPU launches, moves and computes, counted on a machine that has none.

The stand-in for CuPy runs the step at its full size, but no CUDA code and no product of matrices: those are only written
down, with bytes and operations by the formulas of :mod:`minires.bench.costs`. What CuPy itself would do (sums, copies,
fills) is written down too. Nothing here is a time.

    python -m tests.cuda.stock [--network cifar] [--precision tf32]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from minires.bench import networks
from minires.bench.kernels import Row, per_kernel
from minires.bench.ours import CudaSide
from minires.bench.record import taking_stock
from minires.kernels.cuda import build
from tests.cuda import shim, standin
from tests.cuda.standin import array, cublas, run, runtime

__all__ = ["count_step"]


def count_step(network: networks.Network, precision: networks.Precision) -> list[Row]:
    """The launches of one step, one row for each choice of sizes; CuPy's own have the name "cupy.<function>"."""
    with _nothing_computed():
        side = CudaSide(network, precision, "cuda", graph=False)
        side.losses(1)  # tables, buffers and the optimiser's state exist after the first step
        with taking_stock() as stock, _watching() as own:
            side.once()
    return [Row(e.name, e.what, e.dtype, e.count, *e.cost) for e in stock.entries] + own


@contextmanager
def _nothing_computed() -> Iterator[None]:
    """The stand-in with kernels that do nothing and memory that is not even touched until somebody writes to it."""
    nothing = mock.Mock(return_value=None)
    with (
        standin.installed(),
        mock.patch.object(shim, "compile", nothing),
        mock.patch.object(runtime.Kernel, "_launch", nothing),
        mock.patch.object(cublas, "_multiply", nothing),
        mock.patch.object(array, "_poison", nothing),
    ):
        _forget_functions()
        try:
            yield
        finally:
            _forget_functions()  # those that do nothing


def _forget_functions() -> None:
    build._function.cache_clear()
    build._module.cache_clear()


@contextmanager
def _watching() -> Iterator[list[Row]]:
    """What CuPy's own functions move, one row for each function and sizes."""
    rows: dict[Any, Row] = {}

    def watch(function: Any, arguments: tuple[Any, ...], results: list[Any]) -> None:
        if isinstance(function, mock.Mock) or getattr(function, "__func__", None) is not None or function is mock.sentinel:
            return
        name, moved, operations, shape, dtype = _describe(function, arguments, results)
        if not moved:
            return
        key = (name, shape, dtype, moved)
        if key in rows:
            rows[key].count += 1
        else:
            rows[key] = Row(f"cupy.{name}", "×".join(map(str, shape)), dtype, 1, moved, operations)

    found: list[Row] = []
    run.watchers.append(watch)
    try:
        yield found
    finally:
        run.watchers.remove(watch)
    found += rows.values()


def _describe(function: Any, arguments: tuple[Any, ...], results: list[Any]) -> tuple[str, int, int, tuple[int, ...], str]:
    """Name, bytes, operations, shape and dtype of one function of CuPy."""
    if function.__name__ == "_filled":  # empty_like: the stand-in fills it so that its use shows
        return "empty_like", 0, 0, (), ""
    if function.__name__ == "_assign":
        target, index, value = arguments
        part = target[index]
        source = _memory(value) if isinstance(value, np.ndarray) else 0
        return "copy" if source else "fill", part.nbytes + source, 0, part.shape, part.dtype.name
    operands = {id(each): each for each in arguments if isinstance(each, np.ndarray)}
    moved = sum(_memory(each) for each in operands.values()) + sum(each.nbytes for each in results)
    size = max((each.size for each in results), default=0)
    name = "copy" if function.__name__ in _COPIES else function.__name__
    first = results[0] if results else np.zeros(0)
    return name.strip("<>"), moved, size if isinstance(function, np.ufunc) else 0, first.shape, first.dtype.name


_COPIES = ("array", "ascontiguousarray", "<lambda>", "reshape")


def _memory(each: np.ndarray) -> int:
    """Bytes of an array, what is broadcast counted once."""
    size = each.itemsize
    for length, stride in zip(each.shape, each.strides, strict=True):
        size *= length if stride else 1
    return size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuda.stock", description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="cifar")
    parser.add_argument("--precision", default="tf32")
    parser.add_argument("--sizes", action="store_true", help="a line for each choice of sizes")
    args = parser.parse_args()
    network = next(n for n in networks.of_device("cuda", False) if n.name == args.network)
    precision = next(p for p in networks.precisions("cuda") if p.name == args.precision)
    sizes = count_step(network, precision)
    rows = sorted(sizes if args.sizes else per_kernel(sizes), key=lambda row: -row.count * row.bytes)
    print(f"{network.title}, {precision.name}: bytes and operations are counted, times are not measured")
    for row in rows:
        total, flops = row.count * row.bytes, row.count * row.flops
        print(f"{row.name + ' ' + row.dtype:<40}{row.count:>5} × {row.what:<44}", end="")
        print(f"{total / 1e6:>10.1f} MB {flops / 1e9:>9.3f} GFLOP")
    total, flops = sum(row.count * row.bytes for row in rows), sum(row.count * row.flops for row in rows)
    print(f"together {sum(row.count for row in rows)} launches, {total / 1e9:.2f} GB, {flops / 1e9:.1f} GFLOP")


if __name__ == "__main__":
    main()
