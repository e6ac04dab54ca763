"""Mixed precision in the training loop: the dtype of the forward pass, and the scaler that float16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from minires.optim import GradScaler
from minires.precision import autocast

__all__ = ["MixedPrecision"]


class MixedPrecision:
    """How a trainer computes: ``None`` in float32, ``"bfloat16"`` or ``"float16"`` under :func:`minires.autocast`.

    Attributes:
        scaler: for float16 a :class:`minires.GradScaler`, else None.
    """

    def __init__(self, dtype: str | None) -> None:
        self._dtype = dtype or "float16"
        self._is_enabled = dtype is not None
        self.casting()  # an unknown dtype, or a missing package, shows here and not in the first step
        self.scaler = GradScaler() if dtype == "float16" else None

    def casting(self) -> AbstractContextManager[Any]:
        """The context of a forward pass and its loss."""
        return autocast(self._dtype, self._is_enabled)

    @property
    def obstacle(self) -> str | None:
        """Why a step cannot be a CUDA graph, or None."""
        return None if self.scaler is None else "float16 needs a look at the gradients in every step (bfloat16 does not)"

    def update(self, loss: Any, optimizer: Any) -> None:
        """The backward pass and the step of the optimiser, which is left out where gradients of float16 overflowed."""
        if self.scaler is None:
            loss.backward()
            optimizer.step()
            return
        with np.errstate(over="ignore", invalid="ignore"):  # that gradients overflow now and then is part of the method
            self.scaler.scale(loss).backward()
            self.scaler.step(optimizer)
        self.scaler.update()
