"""All drawing. matplotlib is imported in here only, and only when something is drawn for the first time.

Every function returns a :class:`~minires.viz.figure.Picture`, which shows itself in a notebook, and writes it to a file if
it is given a path. pyplot and its global state are not used, so a figure of minires never mixes with the user's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.viz.curves import curves
    from minires.viz.masks import masks

__all__ = ["curves", "masks"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'minires.viz' has no attribute '{name}'")
    import importlib

    function = getattr(importlib.import_module(f"minires.viz.{name}"), name)
    globals()[name] = function  # the submodule of the same name has just taken its place
    return function
