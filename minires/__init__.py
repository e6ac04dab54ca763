"""minires: read it in an evening, verify every gradient yourself, train the real paper's network with it.

``import minires as mr`` offers Tensors and the engine; the ops are in ``mr.functional``, layers in ``mr.nn``, the paper's
networks in ``mr.models``, and so on. Names, arguments and defaults are PyTorch's wherever PyTorch has the thing.

Every part is imported when it is first used, so ``import minires`` takes little longer than ``import numpy``. Type checkers
and editors read the imports below, Python itself the table under them.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # python -m minires: a Python without the packages gets a line, not the traceback of an import
    from minires.doctor import need_packages

    need_packages()

from numpy import bool_, float16, float32, float64, int8, int16, int32, int64, uint8

if TYPE_CHECKING:
    from minires import checking, data, errors, export, functional, models, nn, optim, training, viz
    from minires.autograd import backward, grad
    from minires.checking import gradcheck, gradcheck_model, gradcheck_pair
    from minires.creation import (
        arange,
        empty,
        eye,
        from_numpy,
        full,
        full_like,
        linspace,
        ones,
        ones_like,
        rand,
        randint,
        randn,
        randperm,
        tensor,
        zeros,
        zeros_like,
    )  # fmt: skip
    from minires.device import Array, is_available, synchronize
    from minires.io import load, save
    from minires.modes import (
        detect_anomaly,
        enable_grad,
        get_float32_matmul_precision,
        is_grad_enabled,
        no_grad,
        set_float32_matmul_precision,
    )
    from minires.op import Saved, op
    from minires.optim import GradScaler
    from minires.precision import autocast, get_autocast_dtype, is_autocast_enabled
    from minires.random import get_rng_state, manual_seed, set_rng_state
    from minires.tensor import Tensor

__version__ = "0.1.0"

__all__ = [
    "Array",
    "GradScaler",
    "Saved",
    "Tensor",
    "arange",
    "autocast",
    "backward",
    "bool_",
    "checking",
    "data",
    "detect_anomaly",
    "empty",
    "enable_grad",
    "errors",
    "export",
    "eye",
    "float16",
    "float32",
    "float64",
    "from_numpy",
    "full",
    "full_like",
    "functional",
    "get_autocast_dtype",
    "get_float32_matmul_precision",
    "get_rng_state",
    "grad",
    "gradcheck",
    "gradcheck_model",
    "gradcheck_pair",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_autocast_enabled",
    "is_available",
    "is_grad_enabled",
    "linspace",
    "load",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "op",
    "optim",
    "rand",
    "randint",
    "randn",
    "randperm",
    "save",
    "set_float32_matmul_precision",
    "set_rng_state",
    "synchronize",
    "tensor",
    "training",
    "uint8",
    "viz",
    "zeros",
    "zeros_like",
]  # fmt: skip

#: module → the public names that come from it
_NAMES = {
    "autograd": ("backward", "grad"),
    "checking": ("gradcheck", "gradcheck_model", "gradcheck_pair"),
    "creation": (
        "arange", "empty", "eye", "from_numpy", "full", "full_like", "linspace", "ones", "ones_like", "rand", "randint",
        "randn", "randperm", "tensor", "zeros", "zeros_like",
    ),
    "device": ("Array", "is_available", "synchronize"),
    "io": ("load", "save"),
    "modes": (
        "detect_anomaly", "enable_grad", "get_float32_matmul_precision", "is_grad_enabled", "no_grad",
        "set_float32_matmul_precision",
    ),
    "op": ("Saved", "op"),
    "optim": ("GradScaler",),
    "precision": ("autocast", "get_autocast_dtype", "is_autocast_enabled"),
    "random": ("get_rng_state", "manual_seed", "set_rng_state"),
    "tensor": ("Tensor",),
}  # fmt: skip

#: the modules that are reached as an attribute, ``mr.nn``, without an import of their own; last those of the engine
_MODULES = (
    "checking", "data", "errors", "export", "functional", "models", "nn", "optim", "training", "viz",
    "autograd", "creation", "device", "kernels", "memory", "modes", "operators", "precision", "random", "tape",
)  # fmt: skip

#: public name → the module that it comes from
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """What Python asks for a name that is not here yet."""
    if name == "bfloat16":  # NumPy lacks it
        from minires.precision import bfloat16

        return bfloat16()
    if name in _MODULES:
        value: Any = importlib.import_module(f"minires.{name}")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"minires.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'minires' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package. Two of its functions are named like a file: ``mr.tensor`` and ``mr.op`` always mean the functions."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Python binds a file that was imported to its name here; not if that name means something else."""
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
