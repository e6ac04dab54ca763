"""What a maintainer needs to know of somebody's machine before reading their bug report.

Nothing is imported at the top that may not be installed: this is also where the wrong Python is noticed.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

__all__ = ["need_packages", "report"]

#: name when it is imported → name when it is installed
_PACKAGES = {name: name for name in ("numpy", "matplotlib", "tqdm", "safetensors", "threadpoolctl")} | {"PIL": "pillow"}


def need_packages() -> None:
    """End the process with one line and exit code 2 if a package that minires needs is not installed."""
    missing = ", ".join(package for name, package in _PACKAGES.items() if find_spec(name) is None)
    if missing:
        python = sys.executable or "this Python"
        advice = "use .venv/bin/python -m minires, after .venv/bin/python -m pip install -e ."
        print(f"minires: {python} has no {missing}; {advice}", file=sys.stderr)
        raise SystemExit(2)


def report() -> str:
    """Versions, processor and devices, as text."""
    import numpy as np

    from minires.device import is_available

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index,call-overload,unused-ignore]
    lines = {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        **{name: _version(name) for name in ("minires", *_PACKAGES.values())},
        "cuda": "available" if is_available() else "not available (no CuPy, or no GPU)",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
