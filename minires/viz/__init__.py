"""All drawing. matplotlib is imported in here only, and only when something is drawn for the first time.

Every function returns a :class:`~minires.viz.figure.Picture`, which shows itself in a notebook, and writes it to a file if
it is given a path. pyplot and its global state are not used, so a figure of minires never mixes with the user's own.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.viz.alignment import alignment
    from minires.viz.bench import bench
    from minires.viz.curves import curves
    from minires.viz.gradients import gradients
    from minires.viz.lengths import lengths
    from minires.viz.lines import lines
    from minires.viz.masks import masks
    from minires.viz.panels import panels
    from minires.viz.roofline import roofline
    from minires.viz.scaling import scaling
    from minires.viz.windows import windows

__all__ = [
    "alignment", "bench", "curves", "gradients", "lengths", "lines", "masks", "panels", "roofline", "scaling", "windows",
]  # fmt: skip


class _Package(ModuleType):
    """This package. Each function lives in a file of its own name, and that name is to mean the function."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        importlib.import_module(f"{self.__name__}.{name}")  # which ends in the method below
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        """Python binds a file that was imported to its name here; bind what is in it instead."""
        super().__setattr__(name, getattr(value, name) if name in __all__ and isinstance(value, ModuleType) else value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
