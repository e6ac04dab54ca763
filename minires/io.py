"""Saving and loading: one safetensors file for arrays, with everything else as JSON in its header.

safetensors is a plain format (a length, a JSON header, raw arrays) that holds no code, so a file from a stranger can do
no harm, and other programs can read the arrays in it. A file is written beside its place and moved there when it is
complete: an interruption leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from minires.device import array_module, to_device
from minires.errors import CheckpointError
from minires.tensor import Tensor

__all__ = ["load", "save", "write_atomically"]

_HEADER = "minires"  # the key of our JSON among the metadata of the file
_MARKS = ("$tensor", "$array", "$tuple", "$dict")


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Save Tensors, arrays and plain values to a safetensors file, so that :func:`load` gives them back.

    Args:
        obj: a dict (such as ``model.state_dict()``), list or tuple, nested as you like, of Tensors, NumPy or CuPy
            arrays, and values that JSON can hold: strings, numbers, booleans, None. Dict keys are strings or ints.
        path: the file. An existing one is replaced, but only once the new one is complete on the disk.

    Raises:
        TypeError: something in ``obj`` can not be saved; the message says where it is.
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    structure = _encode(obj, "", arrays)
    header = {"structure": structure, "crc32": _checksum(arrays)}
    write_atomically(path, to_bytes(arrays, {_HEADER: json.dumps(header)}))


def load(path: str | os.PathLike[str]) -> Any:
    """Load what :func:`save` wrote. Tensors come back as Tensors on the CPU (that collect no gradient).

    A safetensors file from elsewhere is a dict of Tensors.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or of another format; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        fault = "is a folder" if Path(path).is_dir() else f"is no safetensors file, or a damaged one ({error})"
        raise CheckpointError(f"{path}: {fault}") from None
    if _HEADER not in metadata:
        return {name: Tensor(array) for name, array in arrays.items()}
    try:
        header = json.loads(metadata[_HEADER])
        structure, checksum = header["structure"], header["crc32"]
        if _checksum(arrays) != checksum:
            raise CheckpointError(f"{path}: is damaged (the checksum of its arrays is wrong)")
        return _decode(structure, arrays)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: is damaged ({type(error).__name__} in its header: {error})") from None


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment it is either the old one or the complete new one."""
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OSError(f"{target}: is {'a folder' if target.is_dir() else 'no ordinary file'}; nothing was written")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes a file that only its owner can read
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _encode(value: Any, name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """``value`` as JSON, with its arrays moved to ``arrays`` under a name that says where they were."""
    if isinstance(value, Tensor | np.ndarray) or array_module(value) is not np:
        raw = value.data if isinstance(value, Tensor) else value
        if raw.dtype.name == "bfloat16":  # safetensors' side for NumPy cannot read it back
            raise TypeError(f"save: {name or 'the Tensor'} is bfloat16, which the file cannot hold; save x.to('float32')")
        key = name or "value"
        while key in arrays:
            key += "_"
        arrays[key] = np.asarray(to_device(raw, "cpu"), order="C")
        return {"$tensor" if isinstance(value, Tensor) else "$array": key}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        items = [_encode(item, _join(name, i), arrays) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) and not isinstance(key, bool) for key in value):
            raise TypeError(f"save: {name or 'the dict'} has keys that are neither strings nor whole numbers")
        pairs = [(key, _encode(item, _join(name, key), arrays)) for key, item in value.items()]
        plain = all(isinstance(key, str) and key not in _MARKS for key in value)
        return dict(pairs) if plain else {"$dict": [list(pair) for pair in pairs]}
    raise TypeError(f"save: {name or 'the object'} is a {type(value).__name__}, which can not be saved")


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _decode(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value)) if len(value) == 1 else ""
    if mark == "$tensor":
        return Tensor(arrays[value[mark]])
    if mark == "$array":
        return arrays[value[mark]]
    if mark == "$tuple":
        return tuple(_decode(item, arrays) for item in value[mark])
    if mark == "$dict":
        return {key: _decode(item, arrays) for key, item in value[mark]}
    return {key: _decode(item, arrays) for key, item in value.items()}


def _checksum(arrays: dict[str, np.ndarray[Any, Any]]) -> int:
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode(), crc)
        if arrays[name].size:  # an empty array has no bytes to look at
            crc = zlib.crc32(arrays[name].data.cast("B"), crc)
    return crc
