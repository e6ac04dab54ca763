"""One trial: a variant is trained from one seed and measured, or continued from the checkpoint that a killed one left."""

from __future__ import annotations

from pathlib import Path

from minires import nn
from minires.modes import set_float32_matmul_precision
from minires.training.experiments.experiment import Experiment, Measured, Trained, Variant
from minires.training.job import build_trainer, measure
from minires.training.presets import Job
from minires.training.sources import Source, open_source
from minires.training.trainer import CHECKPOINT, Trainer

__all__ = ["prepare", "run_trial"]


def prepare(experiment: Experiment, variant: Variant, job: Job, folder: Path | None, quiet: bool) -> tuple[Trainer, Source]:
    """Data, network, optimiser and schedule of a trial, with the changes that the experiment makes.

    Args:
        experiment: which.
        variant: which of its networks.
        job: the variant's job with the seed and the device of this trial.
        folder: where its checkpoint goes, or None.
        quiet: no progress bar.
    """
    set_float32_matmul_precision(job.precision)
    source = open_source(job)
    experiment.change_source(source, variant, job.seed)
    trainer = build_trainer(job, source, folder, quiet, variant.name)
    experiment.change_model(trainer.model, variant)
    return trainer, source


def run_trial(experiment: Experiment, variant: Variant, job: Job, folder: Path, quiet: bool = True) -> Measured:
    """Train, or go on from the checkpoint in ``folder``, and measure.

    Returns:
        The numbers that every experiment has (error: share of wrong answers on the test images; loss on them; train_error:
        in the last epoch; parameters; macs: multiply-adds for one image; ms_per_step: of the fastest epoch; seconds: of
        training), and those of this experiment.

    Raises:
        Interrupted: Ctrl-C; the state is saved in ``folder``.
        DivergedError: the loss is not a finite number any more.
    """
    trainer, source = prepare(experiment, variant, job, folder, quiet)
    if (folder / CHECKPOINT).exists():
        trainer.load(folder / CHECKPOINT)
    trainer.fit(job.epochs)
    evaluation = trainer.evaluation or measure(job, trainer.model, source)
    size = nn.summary(trainer.model, (source.channels, source.side, source.side))
    seconds = [row["seconds"] for row in trainer.history]
    numbers = {
        "error": 1 - evaluation.accuracy,
        "loss": evaluation.loss,
        "train_error": 1 - trainer.history[-1]["train_accuracy"],
        "parameters": size.parameters,
        "macs": size.macs,
        "ms_per_step": 1000 * min(seconds) / len(source.train),
        "seconds": sum(seconds),
    }
    own = experiment.measure(Trained(variant, job, source, trainer, evaluation))
    return Measured({**numbers, **own.numbers}, {**own.extra, "history": trainer.history})
