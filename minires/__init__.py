"""minires: read it in an evening, verify every gradient yourself, train the real paper's network with it.

``import minires as mr`` offers Tensors and the engine; the ops are in ``mr.functional``, layers in ``mr.nn``, the paper's
networks in ``mr.models``, and so on. Names, arguments and defaults are PyTorch's wherever PyTorch has the thing.

The parts that a short script may not need are imported when they are first used.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # python -m minires: a Python without the packages gets a line, not the traceback of an import
    from minires.doctor import need_packages

    need_packages()

from numpy import bool_, float16, float32, float64, int8, int16, int32, int64, uint8

from minires import errors as errors
from minires import functional as functional
from minires.autograd import Saved, backward, detect_anomaly, enable_grad, grad, is_grad_enabled, no_grad, op
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
from minires.modes import get_float32_matmul_precision, set_float32_matmul_precision
from minires.precision import autocast, get_autocast_dtype, is_autocast_enabled
from minires.precision import bfloat16 as _bfloat16
from minires.random import get_rng_state, manual_seed, set_rng_state
from minires.tensor import Tensor

if TYPE_CHECKING:
    from minires import checking, data, models, nn, optim, training, viz
    from minires.checking import gradcheck, gradcheck_model, gradcheck_pair
    from minires.io import load, save
    from minires.optim import GradScaler

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

#: name -> the module that has it, for what is imported on first use
_LAZY = {name: f"minires.{name}" for name in ("checking", "data", "models", "nn", "optim", "training", "viz")}
_LAZY |= {name: "minires.checking" for name in ("gradcheck", "gradcheck_model", "gradcheck_pair")}
_LAZY |= {"GradScaler": "minires.optim", "load": "minires.io", "save": "minires.io"}


def __getattr__(name: str) -> Any:
    if name == "bfloat16":  # NumPy lacks it
        return _bfloat16()
    if name not in _LAZY:
        raise AttributeError(f"module 'minires' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    value = module if module.__name__ == f"minires.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
