"""Training: the loop, checkpoints, what is measured, and the main job."""

from __future__ import annotations

from minires.training.job import build_trainer, compare, load_model, measure, run
from minires.training.metrics import Evaluation, Localisation, accuracy, box_share, energy_in_box, evaluate, pointing_hits
from minires.training.presets import CIFAR, DIGITS, FOLDER, Job
from minires.training.report import table
from minires.training.trainer import DivergedError, Interrupted, Trainer

__all__ = [
    "CIFAR",
    "DIGITS",
    "FOLDER",
    "DivergedError",
    "Evaluation",
    "Interrupted",
    "Job",
    "Localisation",
    "Trainer",
    "accuracy",
    "box_share",
    "build_trainer",
    "compare",
    "energy_in_box",
    "evaluate",
    "load_model",
    "measure",
    "pointing_hits",
    "run",
    "table",
]
