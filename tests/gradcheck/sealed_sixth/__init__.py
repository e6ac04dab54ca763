"""The sixth sealed exam."""

from __future__ import annotations

from tests.gradcheck.sealed_sixth import arrays, formulas, layers, norms_losses

__all__ = ["CASES"]

CASES = [*layers.CASES, *norms_losses.CASES, *formulas.CASES, *arrays.CASES]
