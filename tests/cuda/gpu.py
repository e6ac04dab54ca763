"""Whether this machine has a GPU that CuPy can use, and if not, why."""

from __future__ import annotations

from functools import lru_cache


@lru_cache
def why_no_gpu() -> str:
    """Empty, or the reason to skip."""
    try:
        import cupy
    except Exception as error:
        return f"CuPy cannot be imported: {error}"
    try:
        return "" if cupy.cuda.is_available() else "CuPy sees no GPU"
    except Exception as error:  # without a driver it fails in many ways
        return f"CuPy sees no GPU: {error}"
