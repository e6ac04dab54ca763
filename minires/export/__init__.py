"""Networks and weights that leave for other programs, and weights that come from them.

* :func:`save_weights`, :func:`load_weights`, :func:`read_weights`: a safetensors file with PyTorch's names, see
  ``docs/weights.md``;
* :func:`to_onnx`: an ONNX file, which ONNX Runtime and many others compute.

Each is loaded when it is first asked for, since the command line knows the options of ``minires export`` from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.export.network import to_onnx as to_onnx
    from minires.export.weights import load_weights as load_weights
    from minires.export.weights import read_weights as read_weights
    from minires.export.weights import save_weights as save_weights

__all__ = ["load_weights", "read_weights", "save_weights", "to_onnx"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "network" if name == "to_onnx" else "weights"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
