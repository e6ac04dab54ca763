"""Where the results of an experiment are kept: each finished trial in a JSON file of its own.

A trial is one variant trained from one seed. Its file appears when the trial has ended, whole or not at all, and says with
which configuration it was made. So an experiment that was killed goes on where it stopped, another seed can be added later,
and results of different configurations never end up in one table.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minires.errors import DataError
from minires.io import write_atomically
from minires.training.experiments.experiment import Measured, Variant
from minires.training.presets import Job

__all__ = ["Store", "as_json", "configuration", "job_of", "slug"]

#: What of a job says where it is computed and not what; it may differ between the trials of one experiment.
_WHERE = ("root", "device", "graph", "seed")


class Store:
    """The trials of one experiment at one scale, in ``directory/trials``.

    Args:
        directory: of the experiment; made when something is written.
        experiment: its name.
        scale: its scale.
    """

    def __init__(self, directory: Path, experiment: str, scale: str) -> None:
        self.directory, self._head = directory, {"experiment": experiment, "scale": scale}

    def folder(self, variant: Variant, seed: int) -> Path:
        """Where a trial keeps its checkpoint while it runs."""
        return self.directory / "trials" / slug(variant.name) / f"seed-{seed}"

    def path(self, variant: Variant, seed: int) -> Path:
        """The file of a finished trial."""
        return self.folder(variant, seed).with_suffix(".json")

    def read(self, variant: Variant, seed: int) -> Measured | None:
        """A finished trial, or None if it has not ended yet.

        Raises:
            DataError: the file is damaged, or was made with another configuration.
        """
        path = self.path(variant, seed)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            made = {name: found[name] for name in (*self._head, "configuration")}
            measured = Measured(found["numbers"], found["extra"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: is no result of a trial ({error}); delete it to run the trial again") from None
        if made != {**self._head, "configuration": configuration(variant)}:
            raise DataError(f"{path}: is the result of another configuration; choose another --out, or delete it")
        return measured

    def write(self, variant: Variant, seed: int, measured: Measured) -> None:
        """Keep a finished trial, and drop what it needed while it ran."""
        path = self.path(variant, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            **self._head, "variant": variant.name, "seed": seed, "configuration": configuration(variant),
            "numbers": dict(measured.numbers), "extra": dict(measured.extra),
        }  # fmt: skip
        write_atomically(path, as_json(content))
        shutil.rmtree(self.folder(variant, seed), ignore_errors=True)  # its checkpoint: only now is it needed no more


def configuration(variant: Variant) -> dict[str, Any]:
    """Everything that decides the result of a variant, apart from the seed, as plain values."""
    job = {name: value for name, value in variant.job.to_dict().items() if name not in _WHERE}
    plain: dict[str, Any] = json.loads(json.dumps({"job": job, "settings": dict(variant.settings)}))
    return plain


def slug(name: str) -> str:
    """The name of a variant as a file's: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def as_json(content: Mapping[str, Any]) -> bytes:
    """Readable JSON with the order kept."""
    return f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode()


def job_of(variant: Variant, seed: int, root: str | None, device: str) -> Job:
    """The job of one trial: the variant's, with the seed, and where it is computed."""
    return variant.job.with_(seed=seed, root=root, device=device)
