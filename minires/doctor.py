"""What a maintainer needs to know of somebody's machine before reading their bug report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from minires.device import is_available

__all__ = ["report"]


def report() -> str:
    """Versions, processor and devices, as text."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index,call-overload,unused-ignore]
    lines = {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        **{name: _version(name) for name in ("minires", "numpy", "matplotlib", "tqdm", "safetensors", "pillow")},
        "cuda": "available" if is_available() else "not available (no CuPy, or no GPU)",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
