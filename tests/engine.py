"""What several tests of the engine use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires as mr
from minires.errors import InPlaceError


def leaf(*values: float, dtype: Any = np.float64) -> mr.Tensor:
    """A Tensor that collects derivatives."""
    return mr.tensor(np.array(values, dtype=dtype), requires_grad=True)


def refused() -> Any:
    """The error of a write to locked memory: NumPy's own, or the one that names the op."""
    return pytest.raises((ValueError, InPlaceError), match=r"read-only|still needs it")
