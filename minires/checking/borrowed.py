"""A network on loan: a check runs it with other numbers in other dtypes, and gives it back as it was, bit for bit.

What a forward pass may change besides its result, it may change here as well: running statistics, attributes of modules, the
random generator, the training mode. So each run starts from the same state, and at the end all of that state is put back,
whatever happened in between. The arrays of the parameters are never written to: others take their place for the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minires.nn import Module
from minires.random import get_rng_state, set_rng_state
from minires.tensor import Tensor

__all__ = ["BorrowedModel", "floating_outputs"]

Array = np.ndarray[Any, Any]


class BorrowedModel:
    """Context manager around a module.

    Attributes:
        parameters: path → parameter for all of them, in forward order.
        values: their arrays, in float64 (copies).
    """

    def __init__(self, model: Module) -> None:
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.values = {name: np.array(p._array, np.float64) for name, p in self.parameters.items()}
        self._buffers = list(model.buffers())
        self._modules = [
            (m, dict(m.__dict__), dict(m._parameters), dict(m._buffers), dict(m._modules)) for m in model.modules()
        ]
        tensors = [*self.parameters.values(), *self._buffers]
        self._tensors = [(t, t._array, t._array.copy(), t.grad, t._hooks, t._requires_grad) for t in tensors]
        self._random = get_rng_state()

    def __enter__(self) -> BorrowedModel:
        for p in self.parameters.values():
            p._hooks = None  # they are called for training, and may change the gradient
        return self

    def __exit__(self, *error: object) -> None:
        for tensor, array, copy, grad, hooks, requires_grad in self._tensors:
            tensor._array, tensor.grad, tensor._hooks, tensor._requires_grad = array, grad, hooks, requires_grad
            if not np.array_equal(array, copy, equal_nan=array.dtype.kind in "fc"):
                array[...] = copy
        for module, attributes, *tables in self._modules:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for table, before in zip((module._parameters, module._buffers, module._modules), tables, strict=True):
                table.clear()
                table.update(before)
        set_rng_state(self._random)

    def run(self, values: dict[str, Array], inputs: Sequence[Any], dtype: Any) -> Any:
        """The output for other parameters. Every run starts from the same random numbers and running statistics.

        Args:
            values: path → array for every parameter.
            inputs: Tensors or whatever else ``forward`` takes.
            dtype: which the parameters get; buffers too, if it is real.
        """
        for name, p in self.parameters.items():
            p.data = cast(values[name], dtype)
        real = np.zeros(0, dtype).real.dtype
        for buffer, (_, _, copy, *_) in zip(self._buffers, self._tensors[len(self.parameters) :], strict=True):
            buffer._array = copy.astype(real) if copy.dtype.kind == "f" else copy.copy()
        set_rng_state(self._random)
        return self.model(*inputs)


def cast(array: Array, dtype: Any) -> Array:
    """``array`` in ``dtype``, always a new array unless both are complex."""
    return array.astype(dtype, copy=array.dtype.kind != "c")


def floating_outputs(output: Any) -> list[Tensor]:
    """All floating point Tensors in an output: a Tensor, or a tuple, list or dictionary of such, in any depth."""
    if isinstance(output, Tensor):
        return [output] if output.dtype.kind in "fc" else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return [tensor for part in output for tensor in floating_outputs(part)]
    return []
