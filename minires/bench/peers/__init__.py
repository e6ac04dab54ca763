"""Other frameworks that single ops are measured against, one small adapter for each, in a file of its own.

None of them is a dependency: :func:`load` imports one when it is asked for, and what is missing is said in a word.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from minires.bench.peers.base import Peer

__all__ = ["NAMES", "load"]

#: What the command line calls them → (file here, class in it), in the order of tables. All are compared to the first.
_CLASSES = {
    "minires": ("ours", "Ours"),
    "torch": ("pytorch", "PyTorch"),
    "torch_cl": ("pytorch", "PyTorchChannelsLast"),
    "dezero": ("dezero", "DeZero"),
    "chainer": ("chainer", "Chainer"),
    "mygrad": ("mygrad", "MyGrad"),
    "autograd": ("autograd", "Autograd"),
    "tinygrad": ("tinygrad", "Tinygrad"),
}
NAMES = tuple(_CLASSES)


def load(name: str, paths: Mapping[str, Path] | None = None) -> Peer:
    """The adapter of a framework.

    Args:
        name: one of ``NAMES``.
        paths: name → directory that is searched first, for those that are not installed.

    Raises:
        Exception: whatever the framework raises when it is imported on a Python or NumPy that it was not made for.
    """
    path = str((paths or {}).get(name, ""))
    if path and path not in sys.path:
        sys.path.insert(0, path)
    file, kind = _CLASSES[name]
    peer: Peer = getattr(importlib.import_module(f"{__name__}.{file}"), kind)()
    return peer
