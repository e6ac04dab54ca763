"""Every kernel once under AddressSanitizer: no access out of bounds or not aligned, no overflow of integers.

A few cases of each test here; ``python -m tests.cuda.shim.run_sanitized`` runs them all.
"""

from __future__ import annotations

import pytest

from tests.cuda import shim
from tests.cuda.shim import run_sanitized


@pytest.mark.slow
@pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))
def test_kernels_stay_inside_their_arrays():
    done = run_sanitized.run(["--cases", "8"])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
