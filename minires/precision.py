"""Mixed precision: which ops run in 16 bits under :func:`autocast`, and which must not.

A product of matrices takes half the memory and a fraction of the time in 16 bits, and hardly suffers: its sums are float32
all the same. A sum over many numbers, an exponential or a loss would suffer. So inside ``with autocast(...)`` every op
belongs to one of three kinds: it gets its inputs in 16 bits, it gets them in float32, or it takes what comes (where dtypes
are mixed, the wider one wins, as in all arithmetic). The casts are ops themselves and are differentiated like any other, so
weights stay float32, and so do their gradients. Names and lists are PyTorch's ("autocast op reference").

There are two kinds of 16 bits. float16 has 11 bits of precision, but ends at 65504 and begins at 6e-8, so gradients need the
help of :class:`minires.GradScaler`. bfloat16 has 8 bits of precision and the range of float32. NumPy lacks it; the package
ml_dtypes adds it, also to CuPy.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from minires.modes import Mode, state

__all__ = [
    "HALVES", "INEXACT", "autocast", "bfloat16", "casts", "einsum_in_float32", "get_autocast_dtype", "is_autocast_enabled",
    "is_half",
]  # fmt: skip

#: The names of the 16-bit dtypes.
HALVES = ("float16", "bfloat16")

#: ``dtype.kind`` of what has derivatives: real, complex, and bfloat16, which is foreign ("V") to NumPy. No other foreign
#: dtype gets into a Tensor.
INEXACT = "fcV"

_IN_16_BITS = ("conv2d", "conv_transpose2d", "linear", "matmul", "contraction")
_IN_FLOAT32 = (
    "absolute_error", "bernoulli_logit_loss", "bernoulli_loss", "channel_attention", "cumsum", "deviation", "divergence",
    "euclidean", "exp", "label_cross_entropy", "log", "log_softmax", "logsumexp", "pow", "prod", "smooth_absolute_error",
    "softmax", "softmax_cross_entropy", "softplus", "spatial_attention", "squared_error", "standardize", "sum", "variance",
)  # fmt: skip


def autocast(dtype: Any = "float16", enabled: bool = True) -> Mode:
    """Context manager or decorator: products of matrices and convolutions of float32 Tensors run in 16 bits.

    Use it around the forward pass and the loss; the backward pass runs in the dtypes that the forward pass used, wherever it
    is called. Blocks may be nested, and ``enabled=False`` switches back to ordinary arithmetic. Only ops that get a Tensor
    are touched, and only where their inputs are float32, float16 or bfloat16.

    Args:
        dtype: ``"float16"`` or ``"bfloat16"``, or one of these as a dtype.
        enabled: False: nothing is cast inside.

    Raises:
        ValueError: another dtype.
        ImportError: bfloat16 without the package ml_dtypes.
    """
    return Mode("autocast", _half(dtype) if enabled else None)


def is_autocast_enabled() -> bool:
    """Whether ops are being cast in this thread."""
    return state.autocast is not None


def get_autocast_dtype() -> Any:
    """The dtype of :func:`autocast` in this thread, None outside of it."""
    return state.autocast


def bfloat16() -> np.dtype[Any]:
    """NumPy's dtype for bfloat16.

    Raises:
        ImportError: the package ml_dtypes is missing.
    """
    try:
        dtype: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
        return dtype
    except ImportError as error:
        raise ImportError(
            "bfloat16 needs the package ml_dtypes: pip install ml_dtypes (or minires[bf16]); float16 needs nothing"
        ) from error


def is_half(value: Any) -> bool:
    """Whether an array or Tensor is float16 or bfloat16."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and dtype.itemsize == 2 and dtype.kind in "fV"


def einsum_in_float32(xp: ModuleType, equation: str, operands: Sequence[Any]) -> Any:
    """``xp.einsum``, which would add 16-bit numbers up in 16 bits, or not at all; where all are 16-bit, so is the result."""
    dtype = operands[0].dtype
    out = xp.einsum(equation, *(x.astype(np.float32) if is_half(x) else x for x in operands), optimize=len(operands) > 1)
    return out.astype(dtype) if all(is_half(x) and x.dtype == dtype for x in operands) else out


def casts(name: str, module: str) -> str | None:
    """What becomes of the inputs of an op under :func:`autocast`: ``"16 bits"``, ``"float32"``, or None: they stay."""
    if not module.startswith("minires.functional."):
        return None
    return "16 bits" if name in _IN_16_BITS else "float32" if name in _IN_FLOAT32 else None


def _half(dtype: Any) -> np.dtype[Any]:
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", "")
    if name not in HALVES:
        raise ValueError(f"autocast: dtype must be 'float16' or 'bfloat16', got {dtype!r}")
    return np.dtype(np.float16) if name == "float16" else bfloat16()
