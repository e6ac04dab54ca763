"""From a job to a finished run: build, train, measure, draw, and leave everything in one directory.

A run directory holds ``config.json``, ``metrics.csv``, ``checkpoint.safetensors``, ``results.json``, ``curves.png`` and
``masks.png``. A comparison holds one such directory for each network, and pictures and a table of all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minires import models, nn, optim
from minires.device import parse, to_device
from minires.errors import CheckpointError
from minires.io import write_atomically
from minires.modes import no_grad, set_float32_matmul_precision
from minires.random import manual_seed
from minires.tensor import Tensor
from minires.training import checkpoint
from minires.training.metrics import Evaluation, evaluate
from minires.training.mixed import MixedPrecision
from minires.training.presets import Job
from minires.training.report import NAMES
from minires.training.settings import read_settings, write_settings
from minires.training.sources import Source, open_source
from minires.training.trainer import CHECKPOINT, Trainer

__all__ = [
    "Trained", "build_trainer", "check", "compare", "load_model", "measure", "name_of", "need_attention", "new_directory",
    "read_job", "run", "train", "write_job",
]  # fmt: skip

RESULTS = "results.json"
COMPARED = ("residual", "naive", "none")


def new_directory(out: str | os.PathLike[str] | None = None) -> Path:
    """Make the directory of a new run: ``out``, or ``runs/`` with the date and time. An old run is never touched.

    Raises:
        ValueError: ``out`` exists and is not empty.
    """
    if out is not None:
        path = Path(out)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} exists already; choose another --out, or continue that run with --resume {path}")
        path.mkdir(parents=True, exist_ok=True)
        return path
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1


def write_job(directory: Path, job: Job, compared: bool = False) -> None:
    """Write ``config.json``."""
    write_settings(directory, job, compared)


def read_job(directory: Path) -> tuple[Job, bool]:
    """The job of a run directory, and whether it is a comparison; see :func:`read_settings`."""
    return read_settings(directory, Job)


def build_model(job: Job, source: Source) -> Any:
    """The job's network, with fresh weights of the job's seed."""
    manual_seed(job.seed)
    options = {"num_classes": len(source.classes), **job.options}
    if job.attention != "residual" or job.model == "small_attention":
        need_attention(job.model)
        options["attention"] = job.attention
    if source.channels != 3:
        if "in_channels" not in models.arguments(job.model):
            raise ValueError(
                f"{job.model} takes colour pictures, these have {source.channels} channel; models for both: "
                f"{_models_with('in_channels')}"
            )
        options["in_channels"] = source.channels
    model = models.build(job.model, **options)
    return model.to(job.device) if job.device != "cpu" else model


def need_attention(model: str) -> None:
    """Raise unless the network can be built with each kind of attention.

    Raises:
        ValueError: it has no attention modules, or always residual ones.
    """
    if "attention" not in models.arguments(model):
        raise ValueError(f"{model} offers no choice of attention; these do: {_models_with('attention')}")


def name_of(job: Job, model: Any) -> str:
    """What a network is called among results: its kind of attention, or the model's name if it has no attention modules."""
    return job.attention if any(isinstance(module, nn.AttentionModule) for module in model.modules()) else job.model


def _models_with(argument: str) -> str:
    return ", ".join(name for name in models.names() if argument in models.arguments(name))


def build_trainer(job: Job, source: Source, out: Path | None = None, quiet: bool = False, label: str = "") -> Trainer:
    """Network, optimiser, schedule and loaders of a job, ready to train.

    Raises:
        ValueError: an option of the network that it does not have.
        DeviceError: the device is not there.
    """
    to_device(np.zeros(1, np.float32), job.device)  # a missing device shows here, not after the data was read
    model = build_model(job, source)
    optimizer = _optimizer(job, model)
    return Trainer(
        model, optimizer, nn.CrossEntropyLoss(label_smoothing=job.label_smoothing), source.train,
        schedule=_schedule(job, optimizer, job.epochs * len(source.train)),
        test=lambda network: measure(job, network, source), test_every=job.test_every, device=job.device, out=out,
        autocast=job.autocast, graph=job.graph if parse(job.device)[0] == "cuda" else None,
        config=job.to_dict(), model_config=model.config, classes=source.classes, quiet=quiet, label=label,
    )  # fmt: skip


def check(job: Job, source: Source) -> None:
    """Run one image through the job's network, so that what does not fit shows before a run begins.

    Raises:
        ValueError: an option of the network that it does not have, or images that it cannot take.
        DeviceError: the device is not there.
    """
    model = build_trainer(job, source, quiet=True).model.eval()
    with no_grad():
        model(Tensor(to_device(source.first_test_images(1)[0], job.device)))


def train(
    job: Job, out: Path, compared: bool = False, quiet: bool = False, log: Callable[[str], None] = print
) -> dict[str, Evaluation]:
    """:func:`run`, or :func:`compare` if ``compared``; returns the results by name (see :func:`name_of`)."""
    return compare(job, out, quiet, log) if compared else dict([_run(job, out, quiet, log)])


def run(job: Job, out: Path, quiet: bool = False, log: Callable[[str], None] = print) -> Evaluation:
    """Train a job in a directory, from the beginning or from the checkpoint there; measure and draw.

    Args:
        job: what to train.
        out: the run's directory.
        quiet: no progress bar.
        log: called with each line for the reader.

    Returns:
        The result of the last epoch on the test set.
    """
    return _run(job, out, quiet, log)[1]


def _run(job: Job, out: Path, quiet: bool, log: Callable[[str], None]) -> tuple[str, Evaluation]:
    set_float32_matmul_precision(job.precision)
    source = open_source(job)
    trainer = build_trainer(job, source, out, quiet)
    name = name_of(job, trainer.model)
    trainer.label = NAMES.get(name, name)
    write_job(out, job)
    if (out / CHECKPOINT).exists():
        trainer.load(out / CHECKPOINT)
        log(f"continuing after {trainer.epoch} of {job.epochs} epochs, step {trainer.step}")
    try:
        trainer.fit(job.epochs)
    finally:
        if trainer.history:
            draw_curves(out, out / "curves.png")
    result = trainer.evaluation or measure(job, trainer.model, source)
    write_results(out, {name: result})
    draw_masks(job, trainer.model, source, out / "masks.png")
    log(f"{trainer.step} steps, {sum(row['seconds'] for row in trainer.history):.0f} s of training")
    return name, result


def compare(job: Job, out: Path, quiet: bool = False, log: Callable[[str], None] = print) -> dict[str, Evaluation]:
    """Train the job with residual attention, with naive attention and without masks, all else equal.

    Networks that an interrupted comparison has trained already are not trained again.

    Raises:
        ValueError: the network offers no choice of attention.
    """
    need_attention(job.model)
    write_job(out, job, compared=True)
    results = {}
    for attention in COMPARED:
        directory = out / attention
        directory.mkdir(exist_ok=True)
        log(f"{NAMES[attention]}: {directory}")
        results[attention] = run(job.with_(attention=attention), directory, quiet, log)
    write_results(out, results)
    draw_curves({NAMES[name]: out / name for name in COMPARED}, out / "curves.png")
    return results


def measure(job: Job, model: Any, source: Source) -> Evaluation:
    """The network on the whole test set, with its attention where the boxes are known."""
    loss = nn.CrossEntropyLoss(label_smoothing=job.label_smoothing)
    localise = source.boxes and hasattr(model, "masks")
    with MixedPrecision(job.autocast).casting():
        return evaluate(model, source.test, loss, localise=localise, device=job.device)


class Trained(NamedTuple):
    """A trained network, the job that trained it, and the names of its classes."""

    model: Any
    job: Job
    classes: list[str]


def load_model(path: str | os.PathLike[str], device: str = "cpu") -> Trained:
    """The network of a checkpoint, in evaluation mode. A run's directory will do as the path.

    Raises:
        CheckpointError: the file cannot be read, or the network does not fit it.
        DeviceError: the device is not there.
    """
    to_device(np.zeros(1, np.float32), device)
    file = _checkpoint_of(Path(path))
    state = checkpoint.read(file)
    try:
        job = Job.from_dict(state["config"]).with_(device=device)
        model = models.build(state["model_config"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file}: is damaged or from another version ({error})") from None
    checkpoint.restore(file, state, model)
    return Trained((model.to(device) if device != "cpu" else model).eval(), job, list(state["classes"]))


def _checkpoint_of(path: Path) -> Path:
    """The checkpoint's file, of itself or of a run's directory."""
    file = path / CHECKPOINT if path.is_dir() else path
    parts = sorted(part.parent for part in path.glob(f"*/{CHECKPOINT}")) if path.is_dir() and not file.exists() else []
    if parts:
        raise CheckpointError(f"{path}: holds several runs; choose one of {', '.join(map(str, parts))}")
    return file


def write_results(directory: Path, results: Mapping[str, Evaluation]) -> None:
    """Write ``results.json``: what the table shows, in full precision."""
    text = json.dumps({name: asdict(result) for name, result in results.items()}, indent=2)
    write_atomically(directory / RESULTS, f"{text}\n".encode())


def draw_curves(runs: Any, path: Path) -> None:
    """Write ``curves.png``."""
    from minires import viz  # matplotlib is slow to import, so it is loaded when there is something to draw

    viz.curves(runs, path)


def draw_masks(job: Job, model: Any, source: Source, path: Path, count: int = 6) -> None:
    """Write ``masks.png`` for the first ``count`` test images, whatever they look like."""
    if not any(isinstance(module, nn.AttentionModule) for module in model.modules()):
        return
    from minires import viz

    images, shown, labels, *boxes = source.first_test_images(count)
    x = to_device(images, job.device)
    viz.masks(model, x, boxes[0] if boxes else None, labels, path, classes=source.classes, shown=shown)


def _optimizer(job: Job, model: Any) -> optim.Optimizer:
    if job.optimizer == "sgd":
        momentum = job.momentum
        return optim.SGD(model.named_parameters(), job.lr, momentum, weight_decay=job.weight_decay, nesterov=momentum > 0)
    return optim.AdamW(model.named_parameters(), job.lr, weight_decay=job.weight_decay)


def _schedule(job: Job, optimizer: optim.Optimizer, steps: int) -> optim.Schedule | None:
    warmup = round(job.warmup * steps)
    after: optim.Schedule
    if job.schedule == "cosine":
        after = optim.CosineAnnealingLR(optimizer, max(steps - warmup, 1))
    else:
        milestones = [round(share * steps) - warmup for share in job.milestones] if job.schedule == "multistep" else []
        after = optim.MultiStepLR(optimizer, milestones)
    return optim.LinearWarmup(after, warmup) if warmup else after
