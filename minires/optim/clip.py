"""Gradient clipping: a limit on the length of a step when a gradient explodes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from minires.optim.optimizer import require
from minires.tensor import Tensor

__all__ = ["clip_grad_norm_"]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients together so that their norm is at most ``max_norm``, in place.

    Args:
        parameters: one Tensor or several; those without a gradient are left out, those listed twice count once.
        max_norm: the limit, 0 or more.
        norm_type: p of the p-norm of all gradients taken as one vector; ``math.inf`` for the largest magnitude.
        error_if_nonfinite: raise when the norm is NaN or infinite (all gradients would become NaN or 0).

    Returns:
        The norm before clipping, a Tensor of one element (float64 inside, so it does not overflow).

    Raises:
        ValueError: ``max_norm`` or ``norm_type`` out of range.
        RuntimeError: a norm that is not finite, if asked for.
    """
    require("clip_grad_norm_: max_norm", max_norm, "a number >= 0", lambda value: value >= 0)
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type: expected a number > 0 or math.inf, got {norm_type!r}")
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = list({id(p): p.grad for p in tensors if p.grad is not None}.values())
    norms = [_norm(gradient.data, norm_type) for gradient in gradients]
    total = max(norms, default=0.0) if math.isinf(norm_type) else sum(n**norm_type for n in norms) ** (1 / norm_type)
    if any(math.isnan(n) for n in norms):
        total = math.nan
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {total}")
    scale = max_norm / (total + 1e-6)
    for gradient in gradients:
        gradient.memory.check_writable("clip_grad_norm_")
        if not scale >= 1:
            gradient.data[...] *= scale
    return Tensor(np.asarray(total, gradients[0].dtype if gradients else np.float32))


def _norm(array: object, p: float) -> float:
    """The p-norm of all elements, summed in float64."""
    flat = getattr(array, "ravel")("K")  # noqa: B009  (NumPy or CuPy)
    if not flat.size:
        return 0.0
    if math.isinf(p):
        return float(abs(flat).max())
    wide = flat.astype(np.float64)
    return math.sqrt(float(wide @ wide)) if p == 2 else float((abs(wide) ** p).sum()) ** (1 / p)
