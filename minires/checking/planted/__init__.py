"""Wrong gradients on purpose: the exam that ``minires gradcheck --self-test`` takes.

A gradient checker that has only ever seen right gradients proves nothing: it may pass everything. So here are
operations with their right gradient and with the mistakes that people make when they write one by hand: a loop that
assigns instead of adding, a forgotten transposition, a crop that is off by one, a batch norm that takes its statistics
for constants. Each carries the name that a teacher would give the mistake. The self-test passes when the checker accepts
every right gradient, rejects every wrong one, and says which mistake it is.
"""

from __future__ import annotations

from minires.checking.planted import contracts, functions, images, layers, norms, pooling
from minires.checking.planted.case import Planted as Planted

__all__ = ["CASES", "Planted"]

CASES: list[Planted] = (
    images.CASES + pooling.CASES + layers.CASES + norms.CASES + functions.CASES + contracts.CASES
)
