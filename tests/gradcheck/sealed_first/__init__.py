"""An exam that was written by someone who had not seen the checker, and kept sealed until the checker was written."""

from __future__ import annotations

from . import attention, contract, convolution, indexing, linear, losses, normalisation, pointwise, pooling, science

MODULES = (convolution, pooling, normalisation, attention, losses, linear, indexing, pointwise, science, contract)
CASES = [case for module in MODULES for case in module.CASES]
