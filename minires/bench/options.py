"""The options of ``minires bench`` and ``minires profile``, apart from what they do: help must not wait for a network."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["BY", "PARTS", "PEERS", "SORTS", "add_bench", "add_profile"]

#: What ``minires bench`` measures, and the frameworks that it knows; the latter as in :mod:`minires.bench.peers`.
PARTS = ("ceilings", "kernels", "ops", "steps", "inference", "memory", "scaling")
PEERS = ("torch", "torch_cl", "dezero", "chainer", "mygrad", "autograd", "tinygrad")

#: What ``minires profile`` shows, and what its rows can be sorted by.
BY = ("op", "module", "both")
SORTS = ("time", "calls", "flops", "bytes", "kept")

Command = Callable[[argparse.Namespace], int]

BENCH = """\
parts, in this order; without --only all but scaling, which takes minutes:
  ceilings   what the machine copies and multiplies
  kernels    of a GPU: every kernel of a step
  ops        on the CPU: single ops beside PyTorch, DeZero, Chainer, MyGrad, Autograd and tinygrad, those that are there
  steps      training steps beside PyTorch's
  inference  on the CPU: looking at a batch in evaluation mode
  memory     on the CPU: the peak of a training step above its weights, each side in a process of its own
  scaling    on the CPU: step time against batch size and depth
Outputs, gradients and losses are compared before anything is timed. Ratios are ours / theirs: below 1, minires is faster."""

PROFILE = """\
Operations and bytes are counted by formula (a multiply-add is two operations; every array is read or written once), and
"of limit" compares them with what this machine copies and multiplies in the same run. MB kept: memory that the ops keep for
the backward pass, each piece once, weights and buffers not counted. Where there is a GPU it is waited for before and after
each op."""


def add_bench(commands: Any, command: Command) -> None:
    """The parser of ``minires bench``."""
    about = "how fast training steps and single ops are, beside PyTorch's and others'"
    bench = commands.add_parser("bench", help=about, epilog=BENCH, formatter_class=argparse.RawDescriptionHelpFormatter)
    bench.set_defaults(command=command)
    bench.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    bench.add_argument("--quick", action="store_true", help="the first network alone, and fewer rounds")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file, too")
    bench.add_argument("--only", choices=PARTS, help="this part alone")
    bench.add_argument(
        "--networks", nargs="+", metavar="NAME", help="cuda: cifar, wide, imagenet; cpu: digits, cifar, wide, imagenet"
    )
    bench.add_argument("--seconds", type=_seconds, help="time for all of it (default: 510 on a GPU, else 1200; --quick 150)")
    bench.add_argument("--peers", nargs="+", choices=PEERS, metavar="NAME", help=f"for single ops: {', '.join(PEERS)}")
    bench.add_argument(
        "--peer-path", type=_peer_path, action="append", default=[], metavar="NAME=DIR",
        help="where a peer lies that is not installed, as dezero=DIR",
    )  # fmt: skip
    bench.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios as a chart (scaling: FILE-scaling)")
    bench.add_argument("--read", nargs="+", type=Path, metavar="FILE", help="measure nothing: draw what --json wrote before")


def add_profile(commands: Any, command: Command) -> None:
    """The parser of ``minires profile``."""
    about = "where the time of a training step goes, per op and per module"
    profile = commands.add_parser("profile", help=about, epilog=PROFILE)
    profile.set_defaults(command=command)
    profile.add_argument("model", metavar="MODEL", help="name of a model, or a checkpoint")
    profile.add_argument("--batch", type=_count, default=64, help="images in a batch (default: 64)")
    profile.add_argument("--size", type=_count, help="height and width of the images in pixels")
    profile.add_argument("--steps", type=_count, default=5, help="steps that are observed (default: 5)")
    profile.add_argument("--eval", action="store_true", help="only the forward pass, in evaluation mode, under no_grad")
    profile.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    profile.add_argument("--by", choices=BY, default="both", help="what to show (default: both)")
    profile.add_argument("--depth", type=_depth, default=2, help="show modules down to this depth only (default: 2)")
    profile.add_argument("--sort", choices=SORTS, default="time", help="what to sort by, largest first (default: time)")
    profile.add_argument("--rows", type=_count, help="show so many rows; all are in the JSON file (default: 28)")
    profile.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file, too")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return int(text)


def _peer_path(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in PEERS or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=DIR with one of {', '.join(PEERS)}, got {text!r}")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{path} is no directory")
    return name, Path(path)


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value
