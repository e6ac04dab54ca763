"""All parameters of an optimiser in one flat array, so that an update is a few passes over memory and nothing more.

A network has hundreds of small weights; updating each on its own costs more in Python calls than in arithmetic. Here
each parameter's ``.data`` becomes a view of one flat array, and an update walks that array in blocks that stay in the
processor's cache: the gradients of a block are gathered, then the rule of the optimiser runs on the block in place. On a
GPU one kernel does all of it (see :mod:`minires.kernels.cuda.optim`), for the rules that have one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minires.device import array_module
from minires.kernels import of as kernels_of
from minires.memory import memory_of
from minires.tensor import Tensor

__all__ = ["FlatBuffer"]

BLOCK = 1 << 15  # elements: 128 KiB each of weights, gradients and state in float32

#: From so many weights on blocks go to threads, and are larger, since threads meet between NumPy's calls. (31.8 million
#: weights, SGD: 73 ms on one thread, 50 on two.)
_MANY, _LARGE_BLOCK = 1 << 21, 1 << 17

#: ``update(steps, weight, gradient, scratch, state)`` changes a block of weights and state in place. ``steps`` counts
#: this update too (the first is 1); ``gradient`` and ``scratch`` are its to overwrite.
Update = Callable[[int, Any, Any, Any, dict[str, Any]], None]


class FlatBuffer:
    """Parameters of one dtype on one device, kept in one flat array together with the optimiser's state for them.

    Attributes:
        parameters: the parameters, in the order in which they lie in the array.
        data: (total,) the flat array of weights, writable.
        state: name → (total,) the optimiser's own numbers for each weight.
    """

    def __init__(self, parameters: Sequence[Tensor], state_names: Sequence[str], kernel: str | None = None) -> None:
        self.parameters = list(parameters)
        self._steps = [0] * len(self.parameters)
        sizes = [parameter.data.size for parameter in self.parameters]
        self.ends = [int(end) for end in np.cumsum(sizes)]
        self.starts = [end - size for end, size in zip(self.ends, sizes, strict=True)]
        first = self.parameters[0].data
        self._xp = array_module(first)
        self.data = self._xp.empty(self.ends[-1], first.dtype)[:]  # the view stays writable when the array is locked
        self.state = {name: self._xp.zeros(self.ends[-1], first.dtype) for name in state_names}
        of_device = kernels_of(first)
        self._fused = of_device.fused_update(kernel, self.data, self.state, self.starts, self.ends) if kernel else None
        self._block = self.ends[-1]
        if self._xp is np:
            self._block = min(self._block, BLOCK if self._block < _MANY else _LARGE_BLOCK)
        self._orders = [_memory_order(parameter.data) for parameter in self.parameters]
        self._views = [self.part(self.data, i) for i in range(len(self.parameters))]
        self._adopted: list[Any] = [None] * len(self.parameters)
        self.adopt()

    def add_state(self, names: Sequence[str]) -> None:
        """Zeros for state that an option asks for which was changed since: momentum that came later."""
        for name in names:
            if name not in self.state:
                self.state[name] = self._xp.zeros(self.ends[-1], self.data.dtype)

    def part(self, flat: Any, i: int) -> Any:
        """The piece of a flat array that belongs to parameter i, as a view in the parameter's shape and layout."""
        order = self._orders[i]
        shape = self.parameters[i].data.shape
        piece = flat[self.starts[i] : self.ends[i]].reshape([shape[axis] for axis in order])
        return piece.transpose([order.index(axis) for axis in range(len(order))])

    def adopt(self) -> None:
        """Make each parameter a view of the flat array. One whose ``.data`` was replaced meanwhile brings its values."""
        for i, parameter in enumerate(self.parameters):
            if parameter.data is self._adopted[i]:
                continue
            values = parameter.data
            kind = (values.shape, values.dtype, array_module(values))
            if kind != (self._views[i].shape, self.data.dtype, self._xp):
                raise ValueError(
                    f"optimizer: parameter {i} is now {values.dtype} {values.shape} on {parameter.device}, it was "
                    f"{self.data.dtype} {self._views[i].shape}; make a new optimizer after moving or changing a model"
                )
            self._views[i][...] = values
            parameter.data = self._adopted[i] = self._views[i]

    @property
    def steps(self) -> list[int]:
        """The updates that each parameter has had (one without a gradient is left out of an update).

        A GPU counts them itself, then this waits for it.
        """
        return list(self._fused.steps if self._fused else self._steps)

    @steps.setter
    def steps(self, values: Sequence[int]) -> None:
        self._steps = list(values)
        if self._fused:
            self._fused.steps = self._steps

    def apply(self, update: Update, numbers: Sequence[float] = ()) -> None:
        """Run an update on every parameter that has a gradient: by one kernel with ``numbers``, else by ``update``."""
        with memory_of(self.data).announced_change():
            self.adopt()
            if self._fused:
                self._fused([self._ordered_gradient(i) for i in range(len(self.parameters))], numbers)
            else:
                self._apply_by_blocks(update)

    def refresh(self, numbers: Sequence[float]) -> None:
        """Let a kernel that was captured see ``numbers`` when it is replayed."""
        if self._fused:
            self._fused.refresh(numbers)

    def _apply_by_blocks(self, update: Update) -> None:
        for first, last in self._runs():
            for i in range(first, last):
                self._steps[i] += 1
            self._update_run(update, first, last)

    def _update_run(self, update: Update, first: int, last: int) -> None:
        flats = [self._ordered_gradient(i).reshape(-1) for i in range(first, last)]
        begin, end = self.starts[first], self.ends[last - 1]

        def update_block(start: int, stop: int, gradient: Any, scratch: Any) -> None:
            self._gather(flats, first, start, stop, gradient)
            state = {name: values[start:stop] for name, values in self.state.items()}
            update(self._steps[first], self.data[start:stop], gradient, scratch, state)

        spans = [(start, min(start + self._block, end)) for start in range(begin, end, self._block)]
        kernels_of(self.data).for_blocks(update_block, spans, self.data.dtype, self.ends[-1] >= _MANY)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Stretches [first, last) of neighbours that all have a gradient and as many updates behind them."""
        first, count = 0, len(self.parameters)
        while first < count:
            last = first
            while last < count and self.parameters[last].grad is not None and self._steps[last] == self._steps[first]:
                last += 1
            if last > first:
                yield first, last
            first = max(last, first + 1)

    def _ordered_gradient(self, i: int) -> Any:
        """The gradient of parameter i, a view with the axes in the order of the parameter's memory; None without one."""
        gradient = self.parameters[i].grad
        if gradient is None:
            return None
        if gradient.shape != self._views[i].shape:
            raise ValueError(f"optimizer: parameter {i} has shape {self._views[i].shape}, its .grad has {gradient.shape}")
        return gradient.data.transpose(self._orders[i])

    def _gather(self, flats: list[Any], first: int, start: int, stop: int, out: Any) -> None:
        """Copy the gradients of the weights [start, stop) into ``out``."""
        i = int(np.searchsorted(self.ends, start, side="right"))
        while i < len(self.ends) and self.starts[i] < stop:
            low, high = max(start, self.starts[i]), min(stop, self.ends[i])
            if high > low:
                out[low - start : high - start] = flats[i - first][low - self.starts[i] : high - self.starts[i]]
            i += 1


def _memory_order(array: Any) -> list[int]:
    """The axes from the slowest to the fastest in memory, so that the flat array keeps a parameter's layout."""
    if array.flags.c_contiguous:
        return list(range(array.ndim))
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
