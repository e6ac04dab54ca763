"""Checkpoints: everything a run needs to go on exactly where it was, in one safetensors file.

A checkpoint carries the network and how it was built, the optimiser's and the schedule's state, the place in the data,
the random generators, the configuration and the metrics so far. A run that is continued from it makes the same numbers,
bit for bit, as one that was never interrupted.
"""

from __future__ import annotations

import os
from typing import Any

from minires import io, random
from minires.errors import CheckpointError

__all__ = ["FORMAT", "read", "restore", "snapshot", "write"]

FORMAT = 1  # raised when the meaning of a file changes
_REQUIRED = ("model", "model_config", "config", "classes", "epoch", "history")


def snapshot(model: Any, optimizer: Any = None, schedule: Any = None, loader: Any = None, **more: Any) -> dict[str, Any]:
    """The state of a run as one dict of arrays and plain values.

    Args:
        model: the network.
        optimizer: its optimiser, or None.
        schedule: its learning-rate schedule, or None.
        loader: the training loader, whose position is kept, or None.
        **more: plain values to keep beside these: ``model_config``, ``config``, ``epoch``, ``history`` and what the
            trainer counts.
    """
    return {
        "format": FORMAT,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer is not None else None,
        "schedule": schedule.state_dict() if schedule is not None else None,
        "loader": loader.state_dict() if loader is not None else None,
        "random": random.get_rng_state(),
        **more,
    }


def write(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a snapshot to a file, all of it or nothing (see :func:`minires.io.save`)."""
    io.save(state, path)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint and check that it is one.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint of minires, or of a newer format.
    """
    state = io.load(path)
    if not isinstance(state, dict) or "format" not in state or any(name not in state for name in _REQUIRED):
        raise CheckpointError(f"{path}: is no checkpoint of a training run (it holds other arrays)")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{path}: has checkpoint format {state['format']}, this version of minires reads {FORMAT}")
    return state


def restore(
    path: str | os.PathLike[str],
    state: dict[str, Any],
    model: Any,
    optimizer: Any = None,
    schedule: Any = None,
    loader: Any = None,
) -> None:
    """Put a snapshot back into objects that were built in the same way. ``path`` is for the error messages.

    Raises:
        CheckpointError: something does not fit; the message names the file and what.
    """
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
    try:
        for name, part in parts.items():
            if part is None:
                continue
            if state.get(name) is None:
                raise ValueError(f"it holds no {name}")
            part.load_state_dict(state[name])
        if optimizer is not None:
            random.set_rng_state(state["random"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: does not fit: {error}") from None
