"""One seeded random generator per device, whose state can be saved and restored.

Everything random in minires (initial weights, dropout, noise) draws from here, so that :func:`manual_seed` repeats a
whole run bit for bit and a checkpoint can carry the generators along. Data loaders keep generators of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.device import array_module
from minires.modes import state as mode

__all__ = ["generator", "get_rng_state", "manual_seed", "set_rng_state", "uniform"]

#: Made when the first number is drawn: loading ``numpy.random`` takes a tenth of the time of NumPy's own import.
_generators: dict[str, Any] = {}


def manual_seed(seed: int) -> None:
    """Start every generator anew from ``seed`` (a whole number ≥ 0)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"manual_seed: expected a whole number >= 0, got {seed!r}")
    _generators.clear()
    _generators["cpu"] = np.random.default_rng(int(seed))


def generator() -> np.random.Generator:
    """The generator of the CPU.

    Raises:
        RuntimeError: a CUDA graph is being captured. Numbers drawn on the host would be frozen in it.
    """
    if mode.capturing:
        raise RuntimeError("it draws random numbers on the host (as dropout does), and a graph would repeat the same ones")
    if "cpu" not in _generators:
        manual_seed(0)
    rng: np.random.Generator = _generators["cpu"]
    return rng


def uniform(like: Any, shape: tuple[int, ...]) -> Any:
    """Float32 numbers in [0, 1) of ``shape``, on the device of ``like``.

    They are drawn on the CPU and copied, so that both devices see the same numbers for the same seed.
    """
    return array_module(like).asarray(generator().random(shape, dtype=np.float32))


def get_rng_state() -> dict[str, Any]:
    """The state of the generators, as plain numbers and strings that JSON can hold."""
    return {"cpu": dict(generator().bit_generator.state)}


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what :func:`get_rng_state` returned."""
    generator().bit_generator.state = state["cpu"]
