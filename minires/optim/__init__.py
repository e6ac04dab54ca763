"""Optimisers and learning-rate schedules, with PyTorch's names, update rules and defaults."""

from __future__ import annotations

from minires.optim.adam import Adam, AdamW
from minires.optim.clip import clip_grad_norm_
from minires.optim.optimizer import Optimizer
from minires.optim.scaler import GradScaler
from minires.optim.schedule import (
    CosineAnnealingLR,
    LinearLR,
    LinearWarmup,
    MultiStepLR,
    OneCycleLR,
    Schedule,
    StepLR,
)
from minires.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "GradScaler",
    "LinearLR",
    "LinearWarmup",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "Schedule",
    "StepLR",
    "clip_grad_norm_",
]
