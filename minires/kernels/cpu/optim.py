"""What optimisers need of their device; on the CPU that is little, their rules are fast as they are written.

:class:`minires.optim.flat.FlatBuffer` hands a rule one block after the other, so there is no fused update here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.kernels.cpu.threads import parallel_blocks, scratch

__all__ = ["clip_by_norm", "for_blocks", "fused_update", "gradient_norm"]


def fused_update(rule: str, data: Any, state: dict[str, Any], starts: Sequence[int], ends: Sequence[int]) -> Any:
    """None: on the CPU the rule itself runs, block by block."""
    return None


def for_blocks(work: Callable[[int, int, Any, Any], None], spans: Sequence[tuple[int, int]], dtype: Any, many: bool) -> None:
    """Call ``work(start, stop, a, b)`` for all ``spans``, with two arrays to overwrite; if ``many``, on all threads."""

    def run(span: tuple[int, int]) -> None:
        start, stop = span
        work(start, stop, scratch(0, (stop - start,), dtype), scratch(1, (stop - start,), dtype))

    if many:
        parallel_blocks(run, spans)
    else:
        for span in spans:
            run(span)


def gradient_norm(gradients: Sequence[Any], p: float) -> Any:
    """The p-norm of all elements of ``gradients``, summed in float64, as a float64 array without axes."""
    norms = [_norm(gradient, p) for gradient in gradients]
    if any(math.isnan(n) for n in norms):
        return np.asarray(math.nan)
    return np.asarray(max(norms, default=0.0) if math.isinf(p) else sum(n**p for n in norms) ** (1 / p))


def clip_by_norm(gradients: Sequence[Any], norm: Any, limit: float) -> None:
    """Multiply all ``gradients`` by limit/(norm + 1e-6), in place, where that is below 1 (or NaN)."""
    scale = limit / (float(norm) + 1e-6)
    for gradient in gradients:
        if not scale >= 1:
            gradient[...] *= scale


def _norm(array: Any, p: float) -> float:
    """The p-norm of all elements, summed in float64."""
    flat = array.ravel("K")
    if not flat.size:
        return 0.0
    if math.isinf(p):
        return float(abs(flat).max())
    wide = flat.astype(np.float64)
    return math.sqrt(float(wide @ wide)) if p == 2 else float((abs(wide) ** p).sum()) ** (1 / p)
