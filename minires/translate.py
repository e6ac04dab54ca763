"""The commands about translation: ``minires train --data numerals`` and ``minires translate``, and their options.

A translator learns from sentences, not from pictures, so its training has options of its own. Nothing heavy is imported
before it is needed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["add_translation", "is_translation"]

_JOB_OPTIONS = (
    "direction", "attention", "embedding", "hidden", "train_numbers", "epochs", "batch_size", "lr", "seed", "device",
)  # fmt: skip

NUMERALS = """\
Numbers from 0 to 999,999,999 are written out in English and in Chinese by rule, and a network with attention learns to
translate them. Two sets of other numbers test it; those of the second are longer than any in training."""

TRANSLATE = """\
The network knows the words of numbers only, as in: minires translate "three hundred and twenty-one". Train it first with:
minires train --data numerals"""


def is_translation(arguments: Sequence[str]) -> bool:
    """Whether the arguments of a command ask for one of these: its name, its data, or the run that it continues."""
    if not arguments or arguments[0] != "train":
        return bool(arguments) and arguments[0] == "translate"
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--data")
    parser.add_argument("--resume")
    try:
        given, _ = parser.parse_known_args(list(arguments[1:]))
        if given.data is not None or given.resume is None:
            return bool(given.data == "numerals")
        run = Path(given.resume)
        config = json.loads(((run if run.is_dir() else run.parent) / "config.json").read_text(encoding="utf-8"))
        return bool(config["data"] == "numerals")
    except (argparse.ArgumentError, OSError, ValueError, TypeError, KeyError):
        return False  # whatever is wrong, the other parser says it


def add_translation(commands: Any, whole: Callable[[str], int], number: Callable[[str], float]) -> None:
    """Add ``train``, as it is for numerals, and ``translate`` to the parsers of commands.

    Args:
        commands: what ``add_subparsers`` returned.
        whole: reads a whole number.
        number: reads a number.
    """
    train = commands.add_parser("train", help="train a network", description=NUMERALS)
    train.set_defaults(command=_train)
    train.add_argument("--data", choices=("numerals",), help="written-out numbers")
    train.add_argument("--direction", choices=("en-zh", "zh-en"), help="English to Chinese (default) or the reverse")
    train.add_argument("--attention", choices=("additive", "dot", "none"), help="how to look back (default: additive)")
    train.add_argument("--compare", action="store_true", help="also train the same network without attention")
    train.add_argument("--embedding", type=whole, help="size of a word's vector (default: 32)")
    train.add_argument("--hidden", type=whole, help="size of the states (default: 64)")
    train.add_argument("--train-numbers", type=whole, help="how many numbers to learn from (default: 16000)")
    train.add_argument("--epochs", type=whole, help="passes over the training numbers (default: 6)")
    train.add_argument("--batch-size", type=whole, help="sentences in a step (default: 64)")
    train.add_argument("--lr", type=number, help="highest learning rate of Adam (default: 0.005)")
    train.add_argument("--seed", type=whole, help="of weights and order (default: 0)")
    train.add_argument("--device", help="cpu (default), cuda or cuda:N")
    train.add_argument("--out", help="directory for the results (default: runs/DATE_TIME)")
    train.add_argument("--resume", metavar="RUN", help="continue an interrupted run: its directory")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    translate = commands.add_parser("translate", help="translate a written-out number", description=TRANSLATE)
    translate.set_defaults(command=_translate)
    translate.add_argument("text", metavar="TEXT", nargs="+", help="the number, in words")
    translate.add_argument("--checkpoint", help="a checkpoint, or the directory of a run (default: the newest in runs/)")
    translate.add_argument("--align", metavar="FILE.png", help="draw which word came from where")
    translate.add_argument("--beam", type=whole, default=5, help="beginnings that the search keeps (default: 5)")
    translate.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")


def _train(options: argparse.Namespace) -> int:
    from minires.training import translation_runs as runs

    started = time.perf_counter()
    job, compared, directory = _new_run(options) if options.resume is None else _old_run(options)
    options.directory = directory
    epochs = "1 epoch" if job.epochs == 1 else f"{job.epochs} epochs"
    numbers = f"{epochs} of {job.train_numbers:,} numbers"
    print(f"{directory}: numerals, {job.direction}, {numbers}, {job.device}, seed {job.seed}")
    results = runs.train(job, directory, compared, options.quiet)
    files = sorted(str(path.relative_to(directory)) for path in directory.iterdir() if path.is_file())
    print(f"\n{runs.table(results)}\n\n{directory}/: {', '.join(files)}")
    print(f"total {time.perf_counter() - started:.0f} s")
    return 0


def _new_run(options: argparse.Namespace) -> tuple[Any, bool, Path]:
    from minires.training.job import new_directory
    from minires.training.translation import NUMERALS as usual

    job = usual.with_(**{name: getattr(options, name) for name in _JOB_OPTIONS})
    if options.compare and job.attention == "none":
        raise ValueError("--compare needs attention to compare with: --attention additive or dot, not none")
    return job, options.compare, new_directory(options.out)


def _old_run(options: argparse.Namespace) -> tuple[Any, bool, Path]:
    from minires.training import translation_runs as runs

    given = [name for name in (*_JOB_OPTIONS, "out") if name != "device" and getattr(options, name) is not None]
    given += ["compare"] if options.compare else []
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--resume continues a run with its own settings; leave out {names}")
    path = Path(options.resume)
    directory = path if path.is_dir() else path.parent
    job, compared = runs.read_job(directory)
    return job.with_(device=options.device), compared, directory


def _translate(options: argparse.Namespace) -> int:
    from minires.data import UnknownWordError
    from minires.training import translation_runs as runs
    from minires.training.trainer import CHECKPOINT
    from minires.training.translation import LANGUAGES, load_translator

    path = Path(options.checkpoint or "runs")
    if options.checkpoint is None or (path.is_dir() and not (path / CHECKPOINT).exists()):  # as that of a comparison is
        path = runs.latest_run(path)
    trained = load_translator(path, options.device)
    text, width = " ".join(options.text), options.beam
    try:
        if options.align is None:
            translated, _ = trained.translate(text, width)
        else:
            translated = runs.draw_alignment(trained, text, Path(options.align), width)
    except UnknownWordError as error:
        source, target = (LANGUAGES[language] for language in trained.job.direction.split("-"))
        raise ValueError(f"{error} (this network translates numbers from {source} to {target})") from None
    print(translated)
    return 0
