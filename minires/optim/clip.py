"""Gradient clipping: a limit on the length of a step when a gradient explodes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from minires.kernels import of as kernels_of
from minires.optim.optimizer import require
from minires.tensor import Tensor

__all__ = ["clip_grad_norm_"]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients together so that their norm is at most ``max_norm``, in place.

    Args:
        parameters: one Tensor or several; those without a gradient are left out, those listed twice count once.
        max_norm: the limit, 0 or more; ``math.inf`` to look at the norm only.
        norm_type: p of the p-norm of all gradients taken as one vector; ``math.inf`` for the largest magnitude.
        error_if_nonfinite: raise when the norm is NaN or infinite (all gradients would become NaN or 0). On a GPU this,
            and nothing else here, waits for the device.

    Returns:
        The norm before clipping, a Tensor of one element (float64 inside, so it does not overflow).

    Raises:
        ValueError: ``max_norm`` or ``norm_type`` out of range.
        RuntimeError: a norm that is not finite, if asked for.
    """
    if max_norm != math.inf:
        require("clip_grad_norm_: max_norm", max_norm, "a number >= 0", lambda value: value >= 0)
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type: expected a number > 0 or math.inf, got {norm_type!r}")
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = list({id(p): p.grad for p in tensors if p.grad is not None}.values())
    if not gradients:
        return Tensor(np.zeros((), np.float32))
    for gradient in gradients:
        gradient.memory.check_writable("clip_grad_norm_")
    arrays = [gradient.data for gradient in gradients]
    norm = kernels_of(arrays[0]).gradient_norm(arrays, norm_type)
    if error_if_nonfinite and not math.isfinite(float(norm)):
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {float(norm)}")
    kernels_of(arrays[0]).clip_by_norm(arrays, norm, max_norm)
    return Tensor(norm.astype(gradients[0].dtype))
