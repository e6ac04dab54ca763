"""The gate of residual attention on the GPU: one pass forward and one backward, whatever order the axes lie in."""

from __future__ import annotations

from typing import Any

from minires.device import array_module
from minires.kernels.cuda import plain
from minires.kernels.cuda.build import launch
from minires.kernels.cuda.strips import has_kernel

__all__ = ["gated_residual", "gated_residual_backward"]

_VECTOR_BYTES = 16


def gated_residual(trunk: Any, logits: Any) -> Any:
    """(1 + σ(z))·F = F + F·σ(z), element by element."""
    if not has_kernel(trunk.dtype):
        return plain.gated_residual(trunk, logits)
    return _by_elements("gate", (trunk, logits), 1)[0]


def gated_residual_backward(grad_output: Any, trunk: Any, logits: Any) -> tuple[Any, Any]:
    """Gradients g + g·M of the trunk and g·M·F·(1 - M) of the logits; M = σ(z) is computed once more rather than kept."""
    if not has_kernel(trunk.dtype):
        return plain.gated_residual_backward(grad_output, trunk, logits)
    df, dz = _by_elements("gate_backward", (grad_output, trunk, logits), 2)
    return df, dz


def _by_elements(kernel: str, inputs: tuple[Any, ...], results: int) -> list[Any]:
    """Start ``kernel`` with all inputs and as many new arrays as there are ``results``; returns those.

    All arrays are taken in the order in which the trunk, the last but one of the inputs, lies in memory: flat arrays without
    gaps. An input that lies otherwise is copied.
    """
    trunk = inputs[-2]
    xp = array_module(trunk)
    dtype = xp.result_type(trunk, inputs[-1])
    axes = sorted(range(trunk.ndim), key=lambda axis: -abs(trunk.strides[axis]))
    back = tuple(axes.index(axis) for axis in range(trunk.ndim))
    flat = [xp.ascontiguousarray(array.astype(dtype, copy=False).transpose(axes)) for array in inputs]
    fresh = [xp.empty(tuple(trunk.shape[axis] for axis in axes), dtype) for _ in range(results)]
    wide = all(array.data.ptr % _VECTOR_BYTES == 0 for array in flat)  # a slice may begin anywhere
    vectors, rest = divmod(trunk.size, _VECTOR_BYTES // dtype.itemsize if wide else 1)
    arguments = [*flat, *fresh, vectors, rest]
    launch("gate", kernel, max(vectors, rest), arguments, xp=xp, dtype=dtype, WIDE=int(wide))
    return [array.transpose(back) for array in fresh]
