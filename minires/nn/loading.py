"""Loading weights into a network: first everything is checked, then everything is written.

The commonest mistake with a checkpoint is a network that was built with other options. So the error lists what is
missing, what is left over and which shapes differ, all at once, and the network is as it was before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minires.device import array_module, to_device
from minires.errors import CheckpointError
from minires.tensor import Tensor

__all__ = ["IncompatibleKeys", "load"]

_SHOWN = 8


class IncompatibleKeys(NamedTuple):
    """Names that only the module (``missing_keys``) or only the state dict (``unexpected_keys``) has."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load(owner: str, targets: dict[str, Tensor], state_dict: dict[str, Any], strict: bool) -> IncompatibleKeys:
    """Write ``state_dict`` into ``targets``; see :meth:`minires.nn.Module.load_state_dict`."""
    if not hasattr(state_dict, "keys"):
        raise TypeError(f"load_state_dict: expected a dictionary of Tensors, got {type(state_dict).__name__}")
    keys = IncompatibleKeys([k for k in targets if k not in state_dict], [k for k in state_dict if k not in targets])
    faults = []
    if strict and keys.missing_keys:
        faults.append(_listing("missing from the state dict", keys.missing_keys))
    if strict and keys.unexpected_keys:
        faults.append(_listing("in the state dict but not in the module", keys.unexpected_keys))
    sources = {k: v.data if isinstance(v, Tensor) else v for k, v in state_dict.items() if k in targets}
    misfits = [m for k, source in sources.items() if (m := _misfit(k, source, targets[k]))]
    if misfits:
        faults.append(_listing("do not fit", misfits))
    if faults:
        raise CheckpointError(f"{owner}: the state dict cannot be loaded (nothing was changed)\n" + "\n".join(faults))
    for key, source in sources.items():
        targets[key].assign(to_device(source, targets[key].device))
    return keys


def _misfit(key: str, source: Any, target: Tensor) -> str:
    """What is wrong with one entry, or an empty string."""
    if not isinstance(source, np.ndarray) and array_module(source) is np:
        return f"{key}: expected a Tensor or an array, got {type(source).__name__}"
    if tuple(source.shape) != target.shape:
        return f"{key}: the module has shape {target.shape}, the state dict {tuple(source.shape)}"
    if not np.can_cast(source.dtype, target.dtype, "same_kind"):
        return f"{key}: the module has dtype {target.dtype}, the state dict {source.dtype}"
    return ""


def _listing(title: str, lines: list[str]) -> str:
    more = [f"    ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([f"  {title} ({len(lines)}):", *(f"    {line}" for line in lines[:_SHOWN]), *more])
