"""The fifth sealed exam."""

from __future__ import annotations

from tests.gradcheck.sealed_fifth import dense, pointwise, statistical, windows

__all__ = ["CASES"]

CASES = [*pointwise.CASES, *statistical.CASES, *windows.CASES, *dense.CASES]
