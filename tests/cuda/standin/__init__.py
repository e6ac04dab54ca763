"""A strict stand-in for CuPy, for machines without a GPU.

``with installed():`` puts a module named ``cupy`` into ``sys.modules`` whose arrays are NumPy arrays behind glass: the same
results, but every silent mixing of host and device raises, and every wait of the host is counted. It holds only what
minires uses; anything else is an AttributeError. What it promises about CuPy is written down in ``tests/cuda/rules.py``,
which also runs on the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import numpy as np

from tests.cuda.standin import cublas
from tests.cuda.standin import meter as _meter
from tests.cuda.standin.array import ndarray
from tests.cuda.standin.functions import FUNCTIONS
from tests.cuda.standin.meter import CaptureError, SyncError, capturing, meter, no_syncs, total_syncs
from tests.cuda.standin.runtime import RawModule, namespace

__all__ = ["CaptureError", "SyncError", "capturing", "installed", "meter", "module", "ndarray", "no_syncs", "total_syncs"]

_TYPES = ("bool_", "complex64", "complex128", "float16", "float32", "float64", "int8", "int32", "int64", "intp", "uint8",
          "uint32", "uint64")  # fmt: skip


@cache
def module() -> ModuleType:
    """The module ``cupy`` with its submodule ``cupy.cuda``; always the same, since compiled kernels are kept by module."""
    fake, cuda = ModuleType("cupy"), ModuleType("cupy.cuda")
    vars(cuda).update(namespace())
    vars(fake).update(FUNCTIONS)
    vars(fake).update({name: getattr(np, name) for name in _TYPES})
    pool = cuda.MemoryPool()
    vars(fake).update(
        __version__="14.2.0", __standin__=True, __path__=[], RawModule=RawModule, cuda=cuda, inf=np.inf, nan=np.nan,
        ndarray=ndarray, newaxis=None, pi=np.pi, get_default_memory_pool=lambda: pool, get_array_module=lambda *a: fake,
    )  # fmt: skip
    return fake


@contextmanager
def installed() -> Iterator[ModuleType]:
    """``import cupy`` finds the stand-in inside the block; counting starts anew."""
    _meter.reset()
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "cupy"}
    fake = module()
    sys.modules.update({"cupy": fake, "cupy.cuda": fake.cuda})
    try:
        with cublas.installed():
            yield fake
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
            del sys.modules[name]
        sys.modules.update(before)
