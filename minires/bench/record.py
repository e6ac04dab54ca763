"""Taking stock of a step: which kernels it launches, on what, how often.

The builder and the matrix products tell every observer what they start (:data:`minires.kernels.cuda.build.observers`,
:data:`minires.kernels.cuda.blas.observers`). Launches that differ in nothing but addresses are one entry with a count; the
arguments of the first are kept, so that it can be started again and timed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minires.bench.costs import Cost, cost_of_launch, cost_of_product
from minires.kernels.cuda import blas, build

__all__ = ["Entry", "Stock", "taking_stock"]

#: How many copies of its operands a kernel gets at most, and how many bytes they should fill together: several times the
#: second-level cache of an H200 (60 MB), so that what is read comes from memory.
_MOST_COPIES, _ENOUGH_BYTES = 24, 256 << 20


@dataclass
class Entry:
    """A kernel as a step launches it.

    Attributes:
        name: "source.kernel", or "gemm".
        what: the sizes, for people.
        dtype: of the data.
        cost: bytes moved and operations made, by formula.
        count: launches in a step.
        start: ``start(arrays)`` launches it again, on ``arrays`` instead of its own.
        arrays: its arrays.
    """

    name: str
    what: str
    dtype: str
    cost: Cost
    count: int
    start: Callable[[list[Any]], None]
    arrays: list[Any]

    @property
    def from_memory(self) -> bool:
        """Whether :meth:`rotation` gives other memory each time, so that nothing is found in the cache."""
        return self.name != "optim.sgd" and self.name != "optim.adam"

    def rotation(self, xp: Any) -> list[list[Any]]:
        """Copies of the arrays, to be used in turn."""
        size = max(sum(array.nbytes for array in self.arrays), 1)
        count = min(_MOST_COPIES, max(1, _ENOUGH_BYTES // size)) if self.from_memory else 1
        return [self.arrays, *([_twin(array, xp) for array in self.arrays] for _ in range(count - 1))]


def _twin(array: Any, xp: Any) -> Any:
    """The same numbers in the same layout in other memory, if the elements lie without gaps; else the array itself."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    dense = array.transpose(order)
    if not dense.flags.c_contiguous:
        return array
    return dense.copy().transpose([order.index(axis) for axis in range(array.ndim)])


class Stock:
    """The entries of everything that was launched, in the order in which they came first."""

    def __init__(self) -> None:
        self._entries: dict[Any, Entry] = {}

    @property
    def entries(self) -> list[Entry]:
        """All of them."""
        return list(self._entries.values())

    def launched(self, launch: build.Launch) -> None:
        """An observer of the builder."""
        signature = tuple(_signature(each) for each in launch.arguments)
        key = (launch.source, launch.kernel, launch.dtype, launch.macros, launch.grid, launch.block, signature)
        self._add(key, lambda: _entry_of_launch(launch))

    def multiplied(self, handle: Any, a: Any, b: Any, out: Any, beta: float) -> None:
        """An observer of the matrix products."""
        key = ("gemm", *((each._replace(array=None), each.array.dtype.name) for each in (a, b, out)), beta)
        self._add(key, lambda: _entry_of_product(handle, a, b, out, beta))

    def _add(self, key: Any, make: Callable[[], Entry]) -> None:
        if key in self._entries:
            self._entries[key].count += 1
        else:
            self._entries[key] = make()


@contextmanager
def taking_stock() -> Iterator[Stock]:
    """Inside, every launch is noted."""
    stock = Stock()
    build.observers.append(stock.launched)
    blas.observers.append(stock.multiplied)
    try:
        yield stock
    finally:
        build.observers.remove(stock.launched)
        blas.observers.remove(stock.multiplied)


def _is_array(value: Any) -> bool:
    return hasattr(value, "strides") and hasattr(value, "data") and hasattr(value.data, "ptr")


def _signature(value: Any) -> Any:
    if _is_array(value):
        return value.shape, value.dtype.str
    return "struct" if getattr(value, "dtype", None) is not None and value.dtype.names else repr(value)


def _entry_of_launch(launch: build.Launch) -> Entry:
    places = [i for i, value in enumerate(launch.arguments) if _is_array(value)]
    arrays = [launch.arguments[i] for i in places]

    def start(others: list[Any]) -> None:
        arguments = list(launch.arguments)
        for place, array in zip(places, others, strict=True):
            arguments[place] = array
        launch.function(launch.grid, launch.block, tuple(arguments))

    shapes = dict.fromkeys("×".join(map(str, array.shape)) for array in arrays if array.size > 1)
    what = ", ".join(itertools.islice(shapes, 3))
    name = f"{launch.source}.{launch.kernel}"
    return Entry(name, what, launch.dtype or "", cost_of_launch(launch), 1, start, arrays)


def _entry_of_product(handle: Any, a: Any, b: Any, out: Any, beta: float) -> Entry:
    def start(others: list[Any]) -> None:
        first, second, result = (each._replace(array=array) for each, array in zip((a, b, out), others, strict=True))
        blas._multiply(handle, first, second, result, beta)

    many = f"{out.matrices} × " if out.matrices > 1 else ""
    letters = "".join("T" if each.transposed else "N" for each in (a, b))
    what = f"{many}{out.rows}×{a.columns}×{out.columns} {letters}"
    cost = cost_of_product(out.rows, out.columns, a.columns, out.matrices, a.array.itemsize, out.array.itemsize, beta)
    return Entry("gemm", what, a.array.dtype.name, cost, 1, start, [a.array, b.array, out.array])
