"""The table of sample inputs: what all modules ``samples_*.py`` in this folder list."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from tests.functional.sample import BadCall, Sample


def groups() -> list[str]:
    """The names of the groups of ops that have samples: "arithmetic", "convolution", …"""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return [name.removeprefix("samples_") for name in names if name.startswith("samples_")]


def samples(group: str | None = None) -> list[Sample]:
    """The samples of one group, or of all."""
    found = [s for g in ([group] if group else groups()) for s in _module(g).SAMPLES]
    names = [s.name for s in found]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"names of samples must be unique, these are not: {sorted(repeated)}")
    return found


def bad_calls() -> list[BadCall]:
    """The calls that must raise, of all groups."""
    return [call for g in groups() for call in getattr(_module(g), "BAD_CALLS", [])]


def _module(group: str):
    return importlib.import_module(f"tests.functional.samples_{group}")
