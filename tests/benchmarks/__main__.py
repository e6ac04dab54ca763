"""One training step (forward, backward, Nesterov SGD) of a paper's network, ours beside PyTorch's, in one run.

Both start from the same weights and see the same batches, and the losses of the first three steps have to agree before
anything is timed. Steps alternate, so that a noisy machine disturbs both alike. PyTorch is installed by hand
(``pip install torch``, CPU build); it is no dependency of minires.

    python -m tests.benchmarks [--m 1] [--batch-size 64] [--rounds 10] [--threads 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def ours(m: int) -> tuple[object, Callable[[np.ndarray, np.ndarray], float]]:
    """Our network, and a function that makes one step and returns the loss."""
    import minires as mr
    from minires import functional as F
    from minires import models, optim

    mr.manual_seed(0)
    model = models.cifar_attention(m)
    optimiser = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def step(images: np.ndarray, labels: np.ndarray) -> float:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(mr.from_numpy(images)), mr.from_numpy(labels))
        loss.backward()
        optimiser.step()
        return float(loss)

    return model, step


def theirs(m: int, weights: list[np.ndarray], layout: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """PyTorch's step from the same weights, in its default layout or in channels_last."""
    import torch

    from tests.benchmarks.torch_attention import CifarAttention

    model = CifarAttention(m)
    parameters = list(model.parameters())
    if [tuple(p.shape) for p in parameters] != [w.shape for w in weights]:
        raise SystemExit("the two networks differ in their parameters")
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = model.to(memory_format=form)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def step(images: np.ndarray, labels: np.ndarray) -> float:
        optimiser.zero_grad()
        batch = torch.from_numpy(images).to(memory_format=form)
        loss = torch.nn.functional.cross_entropy(model(batch), torch.from_numpy(labels))
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def main() -> None:
    """Compare, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--m", type=int, default=1, help="attention modules a stage (default 1: Attention-56)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of each side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()

    model, step = ours(args.m)
    weights = [p.numpy().copy() for p in model.parameters()]
    sides: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"minires": step}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: minires alone", file=sys.stderr)
    else:
        torch.set_num_threads(args.threads)
        for layout in ("default", "channels_last"):
            sides[f"PyTorch {torch.__version__}, {layout}"] = theirs(args.m, weights, layout)

    rng = np.random.default_rng(0)
    batches = [
        (rng.standard_normal((args.batch_size, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, args.batch_size))
        for _ in range(3)
    ]
    losses = {name: [side(*batch) for batch in batches] for name, side in sides.items()}
    for name, values in losses.items():
        print(f"{name:<32} losses of the first steps: " + "  ".join(f"{v:.6f}" for v in values))
        if not np.allclose(values, losses["minires"], rtol=1e-3):
            raise SystemExit("the losses differ: the two sides do not compute the same")

    times: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(args.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side(*batches[i % 3])
            times[name].append(time.perf_counter() - start)
    report = {
        "network": f"cifar_attention({args.m})", "batch_size": args.batch_size, "threads": args.threads,
        "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
        "numpy": np.__version__, "losses": losses, "sides": {},
    }  # fmt: skip
    for name, seconds in times.items():
        low, middle, high = np.percentile(seconds, [25, 50, 75])
        ratio = float(np.median(np.array(times["minires"]) / np.array(seconds)))  # round by round
        report["sides"][name] = {"median": middle, "quartiles": [low, high], "minires / this": ratio}
        rate = args.batch_size / middle
        print(f"{name:<32} {middle:.3f} s a step [{low:.3f}, {high:.3f}], {rate:.0f} images/s, minires takes {ratio:.2f}×")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
