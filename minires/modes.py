"""What a thread is doing right now: are ops recorded, are they cast, are NaNs hunted? And how exact products must be.

Besides the random generators this is the only state that minires keeps outside of objects.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from contextlib import ContextDecorator
from typing import Any

__all__ = [
    "detect_anomaly",
    "enable_grad",
    "get_float32_matmul_precision",
    "is_grad_enabled",
    "no_grad",
    "set_float32_matmul_precision",
    "state",
    "user_line",
]

_PACKAGE = os.path.dirname(__file__) + os.sep  # not with pathlib, the import of which takes as long as half the engine's


class State(threading.local):
    """What a thread is doing: whether ops are recorded, whether NaNs are hunted, and inside which modules it is.

    ``autocast``: the 16-bit dtype of :func:`minires.autocast`, or None. ``capturing``: GPU work is being captured in a CUDA
    graph, so nothing may wait for its results. ``observer``: makes the calls of ops and of rules instead of the engine, to
    see them (:mod:`minires.bench.observer`), or None.
    """

    grad_enabled = True
    anomaly = False
    autocast: Any = None
    capturing = False
    observer: Any = None

    def __init__(self) -> None:
        self.modules: list[str] = []


state = State()


class Mode(ContextDecorator):
    """Sets one attribute of ``state`` for a ``with`` block or a decorated function."""

    def __init__(self, attribute: str, value: Any) -> None:
        self._attribute, self._value = attribute, value
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before.append(getattr(state, self._attribute))
        setattr(state, self._attribute, self._value)

    def __exit__(self, *error: object) -> None:
        setattr(state, self._attribute, self._before.pop())

    def _recreate_cm(self) -> Mode:
        """A decorated function may run in several threads at once, so each call gets a Mode of its own."""
        return Mode(self._attribute, self._value)

    def __call__(self, function: Any) -> Any:
        if inspect.isgeneratorfunction(function):  # its body runs after the call, outside of the mode
            raise TypeError(f"{function.__name__} is a generator; set the mode in a 'with' block inside it")
        return super().__call__(function)


def no_grad() -> Mode:
    """Context manager or decorator: ops inside are not recorded, so they keep nothing for a backward pass."""
    return Mode("grad_enabled", False)


def enable_grad() -> Mode:
    """Context manager or decorator: ops inside are recorded, also within ``no_grad()``."""
    return Mode("grad_enabled", True)


def is_grad_enabled() -> bool:
    """Whether ops on Tensors that require a gradient are being recorded."""
    return state.grad_enabled


def detect_anomaly() -> Mode:
    """Context manager or decorator: raise :class:`AnomalyError` at the op that first makes a NaN or an infinity.

    The error names the op, the path of the module it was called in, and the line of the caller's code, in the forward
    pass as well as in a backward pass over a graph that was recorded inside. Slow: every array is looked at.
    """
    return Mode("anomaly", True)


#: One for all threads, as in PyTorch: a backward pass in another thread computes like the forward pass did.
_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """How exactly a GPU multiplies float32 numbers in matrix products and convolutions; sums are float32 always.

    Nothing changes on the CPU, for other dtypes, or in what a GPU does with elements one by one. Unlike PyTorch, which has a
    switch of its own for convolutions and opens it by default, minires has this one for both, and it is closed by default.

    Args:
        precision: ``"highest"`` (the default): in float32, 24 bits. ``"high"``: the tensor cores may round both factors to
            TensorFloat32, 11 bits. ``"medium"``: to bfloat16, 8 bits, where that is faster still; else as ``"high"``.

    Raises:
        ValueError: any other word.
    """
    global _precision
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"set_float32_matmul_precision: precision must be 'highest', 'high' or 'medium', got {precision!r}")
    _precision = precision


def get_float32_matmul_precision() -> str:
    """``"highest"``, ``"high"`` or ``"medium"``, see :func:`set_float32_matmul_precision`."""
    return _precision


def user_line() -> str:
    """File and line of the innermost caller outside this package."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
