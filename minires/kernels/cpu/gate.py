"""The gate of residual attention with the sigmoid inside it, in blocks.

In plain NumPy each step of (1 + σ(z))·F reads and writes whole arrays from main memory. Here all steps of a block happen in
the cache, and blocks go to threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.kernels.cpu.flat import by_blocks
from minires.kernels.cpu.halves import in_float32
from minires.kernels.cpu.threads import scratch

__all__ = ["gated_residual", "gated_residual_backward"]


@in_float32(inputs=2)
def gated_residual(trunk: Any, logits: Any) -> Any:
    """(1 + σ(z))·F = F + F / (1 + e⁻ᶻ), element by element."""

    def compute(f: Any, z: Any, h: Any) -> None:
        _one_plus_exp(z, out=h)
        np.divide(f, h, out=h)
        np.add(f, h, out=h)

    return by_blocks(compute, (trunk, logits), 1)[0]


@in_float32(inputs=3)
def gated_residual_backward(grad_output: Any, trunk: Any, logits: Any) -> tuple[Any, Any]:
    """Gradients g + g·M of the trunk and g·M·F·(1 - M) of the logits; M = σ(z) is computed once more rather than kept."""

    def compute(f: Any, z: Any, g: Any, df: Any, dz: Any) -> None:
        mask = scratch(0, z.shape, z.dtype)
        np.reciprocal(_one_plus_exp(z, out=mask), out=mask)
        np.multiply(g, mask, out=df)
        np.multiply(df, f, out=dz)
        np.add(df, g, out=df)
        np.subtract(1, mask, out=mask)
        np.multiply(dz, mask, out=dz)

    df, dz = by_blocks(compute, (trunk, logits, grad_output), 2)
    return df, dz


def _one_plus_exp(x: Any, out: Any) -> Any:
    """1 + e⁻ˣ. Infinite far below 0, where its inverse is 0 as it should be."""
    np.negative(x, out=out)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    return np.add(out, 1, out=out)
