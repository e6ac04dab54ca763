"""The command ``minires experiment``: its options, and what it prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["add_experiment"]

#: As in :mod:`minires.training.experiments`, which help must not wait for.
SCALES = ("tiny", "cifar", "paper")

EXPERIMENT = """\
Without a name it lists the experiments and the claim of each. Results are in one directory: config.json, table.csv,
table.md, figure.png, and trials/ with a file for each finished network. An interrupted experiment goes on when the same
command is given again; more --seeds add to those that are there."""

SCALE = (
    "tiny (default): digits that come with the package, minutes on two CPU cores; cifar: CIFAR-10, 30 epochs; paper: the "
    "paper's recipe; the last two are meant for a GPU"
)


def add_experiment(commands: Any, whole: Callable[[str], int], keep_memory: Callable[[], None]) -> None:
    """Add ``experiment`` to the parsers of commands.

    Args:
        commands: what ``add_subparsers`` returned.
        whole: reads a whole number.
        keep_memory: called before the first network is made.
    """
    about = "test a claim of the paper: a table, a figure and a verdict"
    parser = commands.add_parser("experiment", help=about, description=EXPERIMENT)
    parser.add_argument("experiment", metavar="NAME", nargs="?", help="which; none lists them")
    parser.add_argument("--scale", choices=(*SCALES, "micro"), metavar=f"{{{','.join(SCALES)}}}", default="tiny", help=SCALE)
    parser.add_argument("--seeds", type=whole, default=3, help="how often each network is trained (default: 3)")
    parser.add_argument("--out", help="directory for the results (default: runs/NAME-SCALE)")
    parser.add_argument("--data", metavar="ROOT", help="cifar, paper: directory of the CIFAR-10 files")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(command=_run, keep_memory=keep_memory)


def _run(options: argparse.Namespace) -> int:
    from minires.training import experiments

    if options.experiment is None:
        print(experiments.overview())
        return 0
    experiment = experiments.find(options.experiment)
    options.keep_memory()
    started = time.perf_counter()
    quiet = options.quiet or not sys.stderr.isatty()
    try:
        report = experiments.run(
            experiment, options.scale, options.seeds, options.out, options.data, options.device, quiet
        )  # fmt: skip
    except KeyboardInterrupt:
        print("minires experiment: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    print(f"\n{report.text()}\n\n{report.directory}/: config.json, figure.png, table.csv, table.md")
    print(f"total {time.perf_counter() - started:.0f} s")
    return 0
