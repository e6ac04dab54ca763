"""What several tests of the CUDA backend use: problems of the op table, and Tensors moved to the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import Tensor
from minires.device import to_device
from tests.functional.problem import Problem
from tests.functional.sample import Sample


def on_cuda(array: np.ndarray, device: str = "cuda", requires_grad: bool = False) -> Tensor:
    """A leaf over a copy of ``array`` on the device, in the same memory order."""
    return Tensor(to_device(array.copy(order="K"), device), requires_grad)


def problem_of(sample: Sample) -> Problem:
    rng = sample.rng()
    args, kwargs = sample.make(rng)
    return Problem(sample.function, args, kwargs, rng)


def as_host(value: Any) -> np.ndarray:
    """An array of either device as a NumPy array."""
    return to_device(value.data if isinstance(value, Tensor) else value, "cpu")
