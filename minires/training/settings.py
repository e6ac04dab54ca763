"""What a run was asked for: plain values, which lie in ``config.json`` beside its results so that it can be continued."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from minires.errors import CheckpointError
from minires.io import write_atomically

__all__ = ["CONFIG", "Settings", "read_settings", "write_settings"]

CONFIG = "config.json"

_S = TypeVar("_S", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Base of the settings of a run, frozen dataclasses whose ``__post_init__`` checks the values."""

    def with_(self, **changes: Any) -> Self:
        """A copy with some values changed; None means unchanged."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of :meth:`to_dict`.

        Raises:
            ValueError: an unknown name or a value out of range.
        """
        unknown = set(values) - {each.name for each in fields(cls)}
        if unknown:
            raise ValueError(f"config: unknown setting {min(unknown)!r}")
        return cls(**values)


def write_settings(directory: Path, settings: Settings, compared: bool) -> None:
    """Write ``config.json``; ``compared``: whether the run is a comparison of several networks."""
    text = json.dumps({**settings.to_dict(), "compare": compared}, indent=2)
    write_atomically(directory / CONFIG, f"{text}\n".encode())


def read_settings(directory: Path, kind: type[_S]) -> tuple[_S, bool]:
    """The settings of a run directory, and whether it is a comparison.

    Raises:
        CheckpointError: there is no ``config.json``, or it is damaged.
    """
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        compared = bool(values.pop("compare", False))
        return kind.from_dict(values), compared
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file, so {directory} is no run to continue") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from None
