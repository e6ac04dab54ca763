"""NVIDIA's driver on this machine, and which CuPy fits it: what an error about ``device="cuda"`` and the doctor have to say.

Nothing here needs a GPU, CuPy or rights: the driver is asked through its own library, else through the files and the
program that come with it. Everything may be missing, and then the answer is None.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

__all__ = ["Driver", "cupy_packages", "find_driver", "fitting_extra", "install_line", "what_to_install"]

#: CUDA's major version → the oldest driver that runs it (CUDA release notes, "CUDA driver" tables).
OLDEST_DRIVER = {13: 580, 12: 525}
_PROC = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Driver:
    """An installed driver.

    Attributes:
        version: its own version, such as ``"580.65.06"``; empty if only the CUDA version could be learnt.
        cuda: the newest CUDA version that it runs, (major, minor); minor is 0 where it was inferred from ``version``.
    """

    version: str
    cuda: tuple[int, int]

    def __str__(self) -> str:
        name = f"driver {self.version}" if self.version else "the driver"
        return f"{name} (CUDA {self.cuda[0]}.{self.cuda[1]})"


def find_driver() -> Driver | None:
    """The NVIDIA driver of this machine, or None."""
    version = _version_from_proc() or ""
    cuda = _cuda_from_library()
    if not version and (cuda is None or os.name == "nt"):
        version = _version_from_smi() or ""
    if cuda is None and version:
        cuda = (_cuda_of(int(version.partition(".")[0])), 0)
    return None if cuda is None else Driver(version, cuda)


def fitting_extra(driver: Driver | None) -> str | None:
    """The extra of minires whose CuPy runs on this driver: ``"cuda13x"``, ``"cuda12x"``, or None if it is too old."""
    if driver is None:
        return None
    return next((f"cuda{major}x" for major in OLDEST_DRIVER if driver.cuda[0] >= major), None)


def install_line(extra: str) -> str:
    """The command that installs minires with CuPy; in a checkout for the checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        return f'pip install "minires[{extra}]"'
    where = os.path.relpath(root)  # "." or "..", as people type it
    where = where if where in (".", "..") else str(root)
    return f'python -m pip install -e "{where}[{extra}]"'


def what_to_install(driver: Driver | None) -> str:
    """What has to be installed for ``device="cuda"``, as a sentence without its full stop."""
    if driver is None and sys.platform == "darwin":
        return "there is no CuPy for macOS, so minires runs on the CPU here"
    if driver is None:
        lines = f"{install_line('cuda13x')}  (for driver 525 to 579: cuda12x)"
        return f"no NVIDIA driver was found; install one, version {OLDEST_DRIVER[13]} or newer, and then: {lines}"
    extra = fitting_extra(driver)
    if extra is None:
        return f"{driver} is too old; CuPy needs {OLDEST_DRIVER[12]} or newer (CUDA 12), {OLDEST_DRIVER[13]} for CUDA 13"
    return f"for {driver}: {install_line(extra)}"


def cupy_packages() -> dict[str, int | None]:
    """The installed packages that are CuPy → the CUDA major version each is built for (None: built on this machine)."""
    names = {str(each.metadata["Name"] or "").lower() for each in distributions()}
    matches = {name: re.fullmatch(r"cupy(?:-cuda(\d\d)x)?", name) for name in sorted(names)}
    return {name: int(match[1]) if match[1] else None for name, match in matches.items() if match}


def _cuda_of(major: int) -> int:
    """The newest CUDA major version that drivers of this major version run; 11 stands for all older ones."""
    return next((cuda for cuda, oldest in OLDEST_DRIVER.items() if major >= oldest), 11)


def _cuda_from_library() -> tuple[int, int] | None:
    """What ``cuDriverGetVersion`` says; it answers without a GPU, too."""
    number = ctypes.c_int(0)
    try:
        library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        if library.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value <= 0:
            return None
    except (OSError, AttributeError):
        return None
    return number.value // 1000, number.value % 1000 // 10


def _version_from_proc() -> str | None:
    try:
        text = _PROC.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None


def _version_from_smi() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"\s*(\d+\.\d+(?:\.\d+)?)", done.stdout)
    return found[1] if found and done.returncode == 0 else None
