"""Weights from and for PyTorch: a safetensors file of a ``state_dict``.

The names here are PyTorch's, because modules and their parameters are called what PyTorch calls them; so most files need no
table. Where the same network was written down with other names, a table of prefixes maps them (:func:`read_names`). What the
two programs must agree on besides the names, the shapes, is checked before anything is changed. See ``docs/weights.md``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minires.device import to_device
from minires.errors import CheckpointError
from minires.io import write_atomically
from minires.nn import Module

__all__ = ["Weights", "fit", "load_weights", "read_names", "read_weights", "save_weights"]

CONFIG = "minires.model"  # the key under which a file says what network it belongs to

#: What PyTorch puts in front of all names: DataParallel, torch.compile, and trainers that hold the network as an attribute.
PREFIXES = ("module.", "_orig_mod.", "model.", "state_dict.")

COUNTER = "num_batches_tracked"

_SHOWN = 3  # of each kind of misfit, in a message

Array = np.ndarray[Any, Any]

#: Pairs (name here, name there), both of modules or of single tensors.
Names = list[tuple[str, str]]


class Weights(NamedTuple):
    """What a file holds: arrays by name, and what network it says they belong to, or None."""

    arrays: dict[str, Array]
    config: dict[str, Any] | None


# ------------------------------------------------------------------------------------ there


def save_weights(model: Module, path: str | os.PathLike[str], names: Names | None = None) -> list[str]:
    """Write parameters and buffers to a safetensors file.

    PyTorch reads it by ``model.load_state_dict(safetensors.torch.load_file("model.safetensors"))``.

    Args:
        model: the network.
        path: the file.
        names: other names for what PyTorch calls otherwise, see :func:`read_names`.

    Returns:
        The names in the file.
    """
    from safetensors.numpy import save as to_bytes

    table = [(ours, theirs) for ours, theirs in names or []]
    arrays: dict[str, Array] = {}
    for name, tensor in model.state_dict().items():
        other = _renamed(name, table)
        if other in arrays:
            raise ValueError(f"{path}: by the table of names '{name}' and another tensor are both called '{other}'")
        arrays[other] = np.asarray(to_device(tensor.data, "cpu"), order="C")
    metadata = {"format": "pt"}  # which is how PyTorch's own files are marked
    if getattr(model, "config", None) is not None:
        metadata[CONFIG] = json.dumps(model.config)
    write_atomically(path, to_bytes(arrays, metadata))
    return list(arrays)


# ------------------------------------------------------------------------------------ and back


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a safetensors file of a ``state_dict``; half precision becomes float32.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    _refuse_pickle(Path(path))
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            foreign = [name for name, kind in kinds.items() if kind not in _KINDS]
            if foreign:
                first = foreign[0]
                raise CheckpointError(f"{path}: {first} has dtype {kinds[first]}; expected {', '.join(_KINDS)}")
            arrays = {name: file.get_tensor(name) for name in kinds}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: is no safetensors file, or a damaged one ({error})") from None
    if "minires" in metadata:
        raise CheckpointError(f"{path}: is a checkpoint of minires already; it needs no import")
    if not arrays:
        raise CheckpointError(f"{path}: holds no tensors")
    wide = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}
    return Weights(wide, _config(path, metadata))


#: The dtypes that a file may have.
_KINDS = ("F64", "F32", "F16", "I64", "I32")


def load_weights(model: Module, path: str | os.PathLike[str], names: Names | None = None) -> list[str]:
    """Read a safetensors file of PyTorch's into a network; all of it or nothing.

    Counters of batches (``num_batches_tracked``), which old files lack, may be missing.

    Args:
        model: the network.
        path: the file.
        names: other names for what PyTorch calls otherwise, see :func:`read_names`.

    Returns:
        The names of the counters that were missing.

    Raises:
        CheckpointError: the file cannot be read, or names, shapes or dtypes do not fit; the message names them.
    """
    return fit(model, renamed_back(read_weights(path).arrays, names), path)


def fit(model: Module, arrays: dict[str, Array], path: str | os.PathLike[str]) -> list[str]:
    """Put arrays with the names of here into a network; see :func:`load_weights`."""
    state = model.state_dict()
    arrays = without_prefix(arrays, state)
    counters = [name for name in state if name.endswith(COUNTER) and name not in arrays]
    arrays |= {name: np.zeros((), np.int64) for name in counters}
    wanted, found = ({name: tuple(each.shape) for name, each in group.items()} for group in (state, arrays))
    faults = [
        _fault("missing", [f"{name} (expected {shape})" for name, shape in wanted.items() if name not in found]),
        _fault("superfluous", [f"{name} (found {shape})" for name, shape in found.items() if name not in wanted]),
        _fault("of another shape", [
            f"{name} (expected {shape}, found {found[name]})" for name, shape in wanted.items()
            if found.get(name, shape) != shape
        ]),
    ]  # fmt: skip
    if any(faults):
        listed = "; ".join(filter(None, faults))
        raise CheckpointError(f"{path}: does not fit {type(model).__name__}, which was not changed. {listed}")
    model.load_state_dict(arrays)
    return counters


def _fault(what: str, tensors: list[str]) -> str:
    """What is wrong with some tensors, the first of them by name."""
    more = f" and {len(tensors) - _SHOWN} more" if len(tensors) > _SHOWN else ""
    return f"{what}: {', '.join(tensors[:_SHOWN])}{more}" if tensors else ""


def renamed_back(arrays: dict[str, Array], names: Names | None) -> dict[str, Array]:
    """Arrays with PyTorch's names under those of here."""
    back = [(theirs, ours) for ours, theirs in names or []]
    return {_renamed(name, back): array for name, array in arrays.items()} if back else arrays


def without_prefix(arrays: dict[str, Array], known: Iterable[str]) -> dict[str, Array]:
    """Names without what a wrapper put in front of all of them."""
    wanted = set(known)
    while arrays and not wanted & set(arrays):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in arrays)), None)
        if prefix is None:
            break
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return dict(arrays)


def _config(path: str | os.PathLike[str], metadata: dict[str, str]) -> dict[str, Any] | None:
    if CONFIG not in metadata:
        return None
    try:
        config = json.loads(metadata[CONFIG])
        return dict(config) if config is not None else None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: what it says of its network is damaged ({error})") from None


def _refuse_pickle(path: Path) -> None:
    """A file of ``torch.save`` is a zip archive of pickled objects, or, from long ago, a pickle.

    A file of safetensors begins with 8 bytes, the length of its header, which may look like either; then comes a brace.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if begin.startswith((b"PK\x03\x04", b"\x80")) and begin[8:] != b"{":
        raise CheckpointError(
            f"{path}: is a file of torch.save, which can hold any program, so minires does not read it. Write it anew in "
            "PyTorch: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )


# ------------------------------------------------------------------------------------ names


def read_names(path: str | os.PathLike[str]) -> Names:
    """A table of names: on each line the name here and PyTorch's, of a module (all below it follows) or of one tensor.

    Empty lines, and what comes after a ``#``, do not count.

    Raises:
        ValueError: a line has not two names, or a name comes twice in its column.
    """
    pairs: Names = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        parts = line.partition("#")[0].split()
        if parts and len(parts) != 2:
            raise ValueError(f"{path}, line {number}: expected the name here and PyTorch's, got {line.strip()!r}")
        if parts:
            pairs.append((parts[0], parts[1]))
    for column in zip(*pairs, strict=True):
        twice = [name for name in column if column.count(name) > 1]
        if twice:
            raise ValueError(f"{path}: {twice[0]} comes twice")
    return pairs


def _renamed(name: str, table: Names) -> str:
    """``name`` with the longest beginning that the table has replaced."""
    fitting = [pair for pair in table if name == pair[0] or name.startswith(f"{pair[0]}.")]
    if not fitting:
        return name
    before, after = max(fitting, key=lambda pair: len(pair[0]))
    return after + name[len(before) :]
