"""One training step (forward, backward, Nesterov SGD) of a paper's network, ours beside PyTorch's, in one run on the CPU.

Both start from the same weights and see the same batches, and the losses of the first three steps have to agree before
anything is timed. Steps alternate, so that a noisy machine disturbs both alike. PyTorch is installed by hand
(``pip install torch``, CPU build); it is no dependency of minires. ``minires bench`` measures the usual networks; here the
depth, the batch and the number of threads can be chosen.

    python -m tests.benchmarks [--m 1] [--batch-size 64] [--rounds 10] [--threads 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from minires import models
from minires.bench import report
from minires.bench.command import Bench
from minires.bench.networks import Network
from minires.bench.rounds import Budget, Plan


def main() -> None:
    """Compare, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--m", type=int, default=1, help="attention modules a stage (default 1: Attention-56)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of each side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of PyTorch")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(args.threads)
    title = f"cifar_attention({args.m}), batch {args.batch_size}"
    network = Network("cifar", title, lambda: models.cifar_attention(args.m), args.batch_size, (3, 32, 32), 10)
    plan = Plan(warm_up=0, steps=1, rounds=args.rounds, losses=3, least_rounds=args.rounds)
    bench = Bench("cpu", "cpu", plan, Budget(float("inf")), only="steps")
    bench.measure([network])
    bench.found["threads"] = args.threads
    if args.json:
        args.json.write_text(report.as_json(bench.found))
    sys.exit(1 if any(group["error"] for group in bench.found["steps"]) else 0)


if __name__ == "__main__":
    main()
