"""An experiment from beginning to end: every trial that is not there yet, then the table, the verdict and the figure."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minires import __version__
from minires.errors import DataError
from minires.io import write_atomically
from minires.training.experiments.experiment import Experiment, Measured, Variant
from minires.training.experiments.report import Report, csv_table, judge
from minires.training.experiments.scales import SCALES
from minires.training.experiments.statistics import RULE
from minires.training.experiments.store import Store, as_json, configuration, job_of
from minires.training.experiments.trial import run_trial

__all__ = ["run"]

CONFIG, CSV, MARKDOWN, FIGURE = "config.json", "table.csv", "table.md", "figure.png"


def run(
    experiment: Experiment,
    scale: str = "tiny",
    seeds: int = 3,
    out: str | os.PathLike[str] | None = None,
    root: str | None = None,
    device: str = "cpu",
    quiet: bool = True,
    log: Callable[[str], None] = print,
) -> Report:
    """Run an experiment, or go on with one that was interrupted, in the same directory.

    Args:
        experiment: which, see :func:`minires.training.experiments.find`.
        scale: "tiny", "cifar" or "paper".
        seeds: how many times each network is trained, from the seeds 0, 1, 2, ...
        out: directory of the results; by default ``runs/NAME-SCALE``.
        root: directory of the CIFAR-10 files, for the scales that need them.
        device: "cpu", "cuda" or "cuda:N".
        quiet: no progress bars.
        log: called with each line for the reader.

    Returns:
        The numbers and the verdict; ``out`` then holds config.json, table.csv, table.md, figure.png and trials/.

    Raises:
        ValueError: an unknown scale, no seed, or a scale that needs ``root``.
        DataError: files are missing, or ``out`` holds the results of another configuration.
    """
    variants = _variants(experiment, scale, seeds, root)
    directory = Path(out) if out is not None else Path("runs") / f"{experiment.name}-{scale}"
    _check_owner(directory, experiment.name)
    store = Store(directory, experiment.name, scale)
    plan = [(variant, seed) for seed in range(seeds) for variant in variants]
    found = {(variant.name, seed): store.read(variant, seed) for variant, seed in plan}
    write_atomically(_made(directory) / CONFIG, as_json(_configuration(experiment, scale, seeds, variants)))
    for number, (variant, seed) in enumerate(plan, 1):
        if found[variant.name, seed] is not None:
            continue
        job = job_of(variant, seed, root, device)
        measured = run_trial(experiment, variant, job, store.folder(variant, seed), quiet)
        store.write(variant, seed, measured)
        found[variant.name, seed] = measured
        log(f"[{number}/{len(plan)}] {variant.name}, seed {seed}: {_in_short(measured)}")
    results = {v.name: [_there(found[v.name, seed]) for seed in range(seeds)] for v in variants}
    rows = experiment.rows(results)
    findings, verdict = judge(experiment, variants, rows)
    report = Report(experiment, scale, seeds, variants, results, rows, findings, verdict, directory)
    _write(report, directory)
    return report


def _variants(experiment: Experiment, scale: str, seeds: int, root: str | None) -> list[Variant]:
    """What is compared, after a look at what was asked for."""
    if scale not in (*SCALES, "micro"):
        raise ValueError(f"--scale: expected one of {', '.join(SCALES)}, got {scale!r}")
    if seeds < 1:
        raise ValueError(f"--seeds: expected at least 1, got {seeds}")
    variants = experiment.variants(scale)
    needs_files = any(variant.job.data != "digits" for variant in variants)
    if needs_files and root is None:
        raise ValueError(f"--scale {scale} needs --data with the directory of the CIFAR-10 files")
    if root is not None and not needs_files:
        raise ValueError(f"--scale {scale} runs on digits that come with the package; leave out --data")
    return variants


def _check_owner(directory: Path, name: str) -> None:
    """Raise DataError if ``directory`` holds what is not this experiment's."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise DataError(f"--out {directory}: is a file, expected a directory for the results")
    try:
        owner = json.loads((directory / CONFIG).read_text(encoding="utf-8")).get("experiment", "another program")
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError):
        owner = "another program"
    if owner != name:
        raise DataError(f"--out {directory}: its {CONFIG} belongs to {owner}, not to {name}; choose another directory")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _there(measured: Measured | None) -> Measured:
    assert measured is not None, "every trial has been run"
    return measured


def _in_short(measured: Measured) -> str:
    return f"test error {measured.numbers['error']:.2%}, {measured.numbers['seconds']:.0f} s of training"


def _configuration(experiment: Experiment, scale: str, seeds: int, variants: list[Variant]) -> dict[str, Any]:
    return {
        "experiment": experiment.name, "claim": experiment.claim, "source": experiment.source, "scale": scale,
        "seeds": seeds, "rule": RULE, "minires": __version__,
        "variants": {variant.name: configuration(variant) for variant in variants},
    }  # fmt: skip


def _write(report: Report, directory: Path) -> None:
    write_atomically(directory / CSV, csv_table(report.rows).encode())
    write_atomically(directory / MARKDOWN, report.markdown().encode())
    report.experiment.draw(report.results, report.variants, str(directory / FIGURE))
