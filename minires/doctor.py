"""What a maintainer needs to know of somebody's machine before reading their bug report.

Nothing is imported at the top that may not be installed, or that takes long: this is also where the wrong Python is noticed,
at each start of ``python -m minires``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
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
    """Versions, processor, threads and GPUs, as text. What cannot be found out is said so; nothing here raises."""
    import platform

    lines: dict[str, str] = {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        **{name: _version(name) for name in ("minires", *_PACKAGES.values())},
        "blas": _try(_blas),
        "minires threads": _try(_threads),
        "cupy": _try(_cupy),
        "driver": _try(_driver),
        "cuda runtime": _try(_runtime),
        **_gpus(),
        "to do": _try(_advice),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def _try(probe: Callable[[], str]) -> str:
    try:
        return probe()
    except Exception as error:  # a doctor that falls ill is of no use
        return f"unknown ({_line(error)})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _blas() -> str:
    import numpy as np
    from threadpoolctl import threadpool_info

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index,call-overload,unused-ignore]
    pools = [pool for pool in threadpool_info() if pool.get("user_api") == "blas"]
    kinds = [str(pool.get("architecture", pool["internal_api"])) for pool in pools]
    threads = ", ".join(f"{pool['num_threads']} threads ({kind})" for pool, kind in zip(pools, kinds, strict=True))
    name = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    return f"{name}, {threads}" if threads else name


def _threads() -> str:
    from minires.kernels.cpu.threads import get_num_threads

    return str(get_num_threads())


def _cupy() -> str:
    from minires.driver import cupy_packages

    packages = [f"{name} {_version(name)}" for name in cupy_packages()]
    if not packages and "cupy" not in sys.modules and find_spec("cupy") is None:
        return "not installed"
    more = ", two of them cannot work together: keep one" if len(packages) > 1 else ""
    return (", ".join(packages) or "installed, from a folder") + more


def _driver() -> str:
    from minires.driver import find_driver

    driver = find_driver()
    if driver is None:
        return "none found"
    return f"{driver.version or 'of unknown version'}, runs CUDA {driver.cuda[0]}.{driver.cuda[1]} and older"


def _runtime() -> str:
    from minires.device import cupy
    from minires.errors import DeviceError

    try:
        number = int(cupy().cuda.runtime.runtimeGetVersion())
    except DeviceError:
        return "none (it comes with CuPy)"
    return f"{number // 1000}.{number % 1000 // 10}"


def _gpus() -> dict[str, str]:
    """Name → what is known of it, for every GPU that CuPy sees; nothing where it sees none."""
    from minires.device import cupy

    try:
        count = int(cupy().cuda.runtime.getDeviceCount())
    except Exception:
        count = 0
    return {f"cuda:{index}": _try(partial(_gpu, index)) for index in range(count)}


def _gpu(index: int) -> str:
    from minires.device import cupy

    cuda = cupy().cuda
    properties = cuda.runtime.getDeviceProperties(index)
    name = properties["name"]
    name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    with cuda.Device(index):
        free, total = (int(number) / 2**30 for number in cuda.runtime.memGetInfo())
    capability = f"{properties['major']}.{properties['minor']}"
    return f"{name}, compute capability {capability}, {free:.1f} of {total:.1f} GiB free"


def _advice() -> str:
    """What is missing for ``device="cuda"``."""
    from minires.device import check
    from minires.errors import DeviceError

    try:
        check("cuda")
    except DeviceError as error:
        return str(error)
    return "nothing: device 'cuda' works"


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and need_packages() must be fast

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
