"""The errors that minires raises on purpose.

A wrong call should cost a student one minute, not an evening: every error here is one message that names the thing,
says what was expected and what came. All of them derive from the built-in class that Python users would catch anyway.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AnomalyError",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "FreedGraphError",
    "InPlaceError",
    "MissingRuleError",
    "ShapeError",
]


class _LocatedError(ValueError):
    """A ValueError to which the modules on the call stack add where in the network it happened."""

    module_path: str = ""

    def __str__(self) -> str:
        where = f"\n  in module: {self.module_path}" if self.module_path else ""
        return super().__str__() + where

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message rather than what it was made of: an error crosses to the parent of a worker process."""
        return _restored, (type(self), self.args, dict(self.__dict__))


def _restored(kind: type[_LocatedError], args: tuple[Any, ...], attributes: dict[str, Any]) -> _LocatedError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ShapeError(_LocatedError):
    """The shapes given to an op do not fit together.

    Args:
        op: name of the op.
        rule: the rule that was broken, in words.
        **operands: each operand as a pair ``(shape, axis names)``, for example ``input=(x.shape, "N C H W")``. With an
            empty string for the names, the plain shape is shown.

    The message shows every operand with its axes named, for example ``input (N=2, C=3, H=8, W=8)``.
    """

    def __init__(self, op: str, rule: str, **operands: tuple[Any, str]) -> None:
        lines = [f"{op}: {rule}"]
        width = max((len(name) for name in operands), default=0)
        for name, (shape, axes) in operands.items():
            lines.append(f"  {name:<{width}} {named_shape(shape, axes)}")
        super().__init__("\n".join(lines))


def named_shape(shape: Any, axes: str = "") -> str:
    """``(2, 3)`` with axes ``"N C"`` as ``(N=2, C=3)``; plain when the number of names does not match."""
    sizes, names = tuple(shape), axes.split()
    if len(sizes) != len(names):
        expected = f", expected ({', '.join(names)})" if names else ""
        return f"{sizes}{expected}"
    return "(" + ", ".join(f"{name}={size}" for name, size in zip(names, sizes, strict=True)) + ")"


class DataError(ValueError):
    """A data file is missing, corrupt or not what its name says; the message names the file."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read or does not fit the model; the message names the file and the fault."""


class DeviceError(RuntimeError):
    """The device that was asked for is not there; the message says what is missing and how to install it."""


class FreedGraphError(RuntimeError):
    """``backward()`` ran a second time over a graph whose saved arrays were freed by the first."""


class InPlaceError(RuntimeError):
    """An array was changed in place, or is about to be, while an op still needs it for its gradient."""


class MissingRuleError(NotImplementedError):
    """A gradient has to pass through an op that has no backward rule."""


class AnomalyError(RuntimeError):
    """Under ``detect_anomaly()``: an op made a NaN or an infinity. The message says which op, where."""
