"""The last sealed exam."""

from __future__ import annotations

from tests.gradcheck.sealed_fourth import anywhere, norms, sequences, spatial, units

__all__ = ["CASES"]

CASES = [*spatial.CASES, *norms.CASES, *units.CASES, *sequences.CASES, *anywhere.CASES]
