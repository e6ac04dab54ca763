"""``minires profile``: a random batch for a network, the tables printed, everything written as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from minires.bench import report
from minires.bench.profile_text import text
from minires.bench.profiling import profile
from minires.device import check
from minires.modes import no_grad
from minires.tensor import Tensor

__all__ = ["run"]


def run(options: argparse.Namespace, model: Any, shape: tuple[int, int, int]) -> int:
    """Profile ``model`` on images of ``shape`` (C, H, W) with numbers that are normally distributed."""
    check(options.device)
    model = model.to(options.device)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((options.batch, *shape), np.float32)  # (N, C, H, W)
    labels = None if options.eval else rng.integers(0, _classes(model, images[:1], options.device), options.batch)
    found = profile(model, images, labels, options.steps, train=not options.eval)
    rows = {"rows": options.rows} if options.rows else {}
    print(text(found, options.by, options.sort, options.depth, **rows))
    if options.json is not None:
        everything = {"machine": report.machine(options.device), **found.to_dict()}
        options.json.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nwritten to {options.json}")
    return 0


def _classes(model: Any, image: Any, device: str) -> int:
    """How many classes a network tells apart: as many as it has outputs for one image."""
    model.eval()
    with no_grad():
        return int(model(Tensor(image).to(device)).shape[-1])
