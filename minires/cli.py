"""The ``minires`` command: train, evaluate, look at masks, describe a network, check a gradient.

Whatever a user can get wrong (an option, a file, a device) ends in one line on standard error and exit code 2; Ctrl-C ends
in what was saved, and exit code 130. Nothing heavy is imported before it is needed, so help and errors come at once.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import math
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from minires import __version__
from minires.bench.options import add_bench, add_profile
from minires.errors import DataError, DeviceError
from minires.experiment import add_experiment
from minires.export.options import add_transfer
from minires.precision import HALVES
from minires.translate import add_translation, is_translation

__all__ = ["main"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>

OVERVIEW = """\
minires: the Residual Attention Network, and every gradient by hand

commands:
  train                       train a network; with no options, on cluttered digits, in under two minutes
  evaluate CHECKPOINT         measure a trained network on its test set
  masks CHECKPOINT IMAGE...   draw where a trained network looks on your own pictures
  info [MODEL]                the layers of a network: output shapes, parameters, multiply-adds
  gradcheck FILE.py           check a backward pass that you wrote by hand, and name the mistake
  translate TEXT              translate a written-out number (after: train --data numerals)
  export MODEL FILE           write weights for PyTorch (.safetensors), or a network as ONNX (.onnx)
  import FILE                 make a checkpoint of weights from PyTorch (.safetensors)
  experiment NAME             test a claim of the paper: a table, a figure and a verdict
  bench                       how fast a training step is, beside PyTorch's
  profile MODEL               where the time of a training step goes, per op and per module
  doctor                      versions and devices, for a bug report

example:
  python -m minires train --epochs 3
  python -m minires train --help
"""


class _Parser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} ({self.prog} --help lists the options)", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    Args:
        argv: the arguments, without the program's name; None for those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(OVERVIEW, end="")
        return 0
    if arguments[0] == "gradcheck":  # has options, messages and exit codes of its own
        from minires.checking import command

        return command.main(arguments[1:])
    try:
        options = _parser(is_translation(arguments)).parse_args(arguments)
    except SystemExit as stop:  # argparse has printed its line (or the help)
        return int(stop.code or 0)
    try:
        return int(options.command(options))
    except KeyboardInterrupt as stop:
        print(_interruption(stop, options), file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone (minires info ... | head)
        return 0
    except (ValueError, TypeError, ArithmeticError, OSError, DeviceError, ImportError, MemoryError, RuntimeError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        print(f"minires {options.name}: {line}", file=sys.stderr)
        return 2


def _interruption(stop: KeyboardInterrupt, options: argparse.Namespace) -> str:
    path = getattr(stop, "path", None)
    if path is None:
        return f"minires {options.name}: interrupted"
    run = getattr(options, "directory", None) or path.parent
    return f"minires train: {stop}; saved in {path}. To go on: python -m minires train --resume {run}"


# ------------------------------------------------------------------------------------ commands


def _train(options: argparse.Namespace) -> int:
    from minires.training import job as jobs
    from minires.training import report

    started = time.perf_counter()
    _keep_freed_memory()
    job, compared, directory = _new_run(options) if options.resume is None else _old_run(options)
    options.directory = directory
    print(f"{directory}: {_describe(job)}")
    with warnings.catch_warnings():  # the trainer stops at a loss that is not finite, and says so in one line
        warnings.filterwarnings("ignore", "(overflow|underflow|invalid value|divide by zero)", RuntimeWarning)
        warnings.showwarning = lambda message, *rest: print(f"\nminires train: {message}", file=sys.stderr)
        results = jobs.train(job, directory, compared, options.quiet)
    files = sorted(str(path.relative_to(directory)) for path in directory.iterdir() if path.is_file())
    print(f"\n{report.table(results)}\n\n{directory}/: {', '.join(files)}")
    print(f"total {time.perf_counter() - started:.0f} s")
    return 0


def _keep_freed_memory() -> None:
    """Tell glibc to keep the memory of freed arrays for the next step, rather than to give it back to the system.

    Every step needs the same arrays again, and fresh pages cost about an eighth of its time. Only here, where the process is
    ours; where there is no glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it accepts
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def _new_run(options: argparse.Namespace) -> tuple[Any, bool, Path]:
    """The job that the options describe, checked as far as possible before a directory is made for it."""
    from minires.training import job as jobs
    from minires.training import presets
    from minires.training.sources import open_source

    recipe = presets.RECIPES.get(options.recipe)
    data = options.data or (recipe.data if recipe else "digits")
    if recipe and data != recipe.data:
        raise ValueError(f"--recipe {options.recipe} is for {recipe.data}, not for --data {data}")
    _refuse_foreign_options(options, data)
    if data != "digits" and options.root is None:
        asked = f"--recipe {options.recipe}" if recipe else f"--data {data}"
        raise ValueError(f"{asked} needs --root with the directory of its files")
    preset = recipe or presets.PRESETS[data]
    changes = {name: getattr(options, name) for name in _JOB_OPTIONS}
    if options.model is not None and options.model != preset.model:
        changes["options"] = {}
    job = preset.with_(**changes)
    _refuse_graph_on_cpu(options, job)
    if options.compare or options.attention:
        jobs.need_attention(job.model)
    try:
        source = open_source(job, options.download)
        for kind in COMPARED if options.compare else (job.attention,):
            jobs.check(job.with_(attention=kind), source)
    except DataError as error:
        raise DataError(str(error).replace("pass download=True", "add --download")) from None
    return job, options.compare, jobs.new_directory(options.out)


def _refuse_foreign_options(options: argparse.Namespace, data: str) -> None:
    """Raise if an option was given that means nothing for the data."""
    for name, kinds in _DATA_OPTIONS.items():
        value = getattr(options, name, None)
        if value is not None and value is not False and data not in kinds:
            raise ValueError(f"--{name} is an option for {', '.join(kinds)}, not for {data}")


def _old_run(options: argparse.Namespace) -> tuple[Any, bool, Path]:
    """The job of a run that is to be continued; its own settings count."""
    from minires.training import checkpoint
    from minires.training import job as jobs

    given = [name for name in (*_JOB_OPTIONS, "out") if name not in _HOW and getattr(options, name) is not None]
    given += [name for name in ("recipe", "compare", "download") if getattr(options, name)]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--resume continues a run with its own settings; leave out {names}")
    path = Path(options.resume)
    directory = path if path.is_dir() else path.parent
    if not path.is_dir():
        checkpoint.read(path)
    job, compared = jobs.read_job(directory)
    job = job.with_(device=options.device, graph=options.graph)
    _refuse_graph_on_cpu(options, job)
    return job, compared, directory


def _refuse_graph_on_cpu(options: argparse.Namespace, job: Any) -> None:
    if options.graph and job.device.partition(":")[0] != "cuda":
        raise ValueError(f"--graph: only a GPU has CUDA graphs; add --device cuda (the device is {job.device})")


def _evaluate(options: argparse.Namespace) -> int:
    from minires.modes import set_float32_matmul_precision
    from minires.training import job as jobs
    from minires.training import report
    from minires.training.sources import open_source

    model, job, _ = jobs.load_model(options.checkpoint, options.device)
    set_float32_matmul_precision(options.precision or job.precision)
    _refuse_foreign_options(options, job.data)
    job = job.with_(root=options.root)
    if options.autocast:
        job = replace(job, autocast=None if options.autocast == "none" else options.autocast)
    print(report.table({jobs.name_of(job, model): jobs.measure(job, model, open_source(job))}))
    return 0


def _masks(options: argparse.Namespace) -> int:
    from minires import viz
    from minires.device import to_device
    from minires.training import job as jobs
    from minires.training.sources import read_pictures

    model, job, classes = jobs.load_model(options.checkpoint, options.device)
    if not hasattr(model, "masks"):
        raise ValueError(f"{options.checkpoint}: its network, {job.model}, has no attention modules, so it has no masks")
    images, shown = read_pictures(job, options.images, options.invert)
    if job.data == "digits":
        _hint_at_invert(options, shown)
    viz.masks(model, to_device(images, options.device), path=options.out, classes=classes, shown=shown)
    print(options.out)
    return 0


def _hint_at_invert(options: argparse.Namespace, shown: Any) -> None:
    """The digits are bright on black; a picture (N, 1, side, side) with a bright border was probably meant the other way."""
    edges = [(shown[:, 0, 0] + shown[:, 0, -1]) / 2, (shown[:, 0, :, 0] + shown[:, 0, :, -1]) / 2]  # (N, side) each
    border = (edges[0] + edges[1]).mean(axis=1) / 2  # (N,)
    bright = [path for path, value in zip(options.images, border, strict=True) if value > 0.5]
    if bright:
        advice = "leave out --invert" if options.invert else "for dark ink on white paper add --invert"
        print(f"minires masks: the network knows bright digits on black, but the border is bright in {', '.join(bright)}; "
              f"{advice}", file=sys.stderr)  # fmt: skip


def _info(options: argparse.Namespace) -> int:
    from minires import nn

    if options.model is None:
        print(_list_of_models())
        return 0
    model, shape = _network(options)
    print(nn.summary(model, shape, depth=options.depth))
    return 0


def _network(options: argparse.Namespace) -> tuple[Any, tuple[int, int, int]]:
    """The network that MODEL names, of a checkpoint or a new one, and C, H, W of an image for it."""
    from minires import models, nn
    from minires.training import job as jobs
    from minires.training.sources import picture_side

    if options.size == 0:
        raise ValueError("--size: expected at least 1 pixel, got 0")
    if options.model in models.names():
        model = models.build(options.model)
        side = models.usual_side(options.model)
    elif Path(options.model).exists():
        model, job, _ = jobs.load_model(options.model)
        side = picture_side(job)
    else:
        raise ValueError(f"{options.model!r} is neither a checkpoint nor a model; models: {', '.join(models.names())}")
    channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).weight.shape[1]
    side = options.size or side
    return model, (channels, side, side)


def _list_of_models() -> str:
    """Each model's name, and the first line of what its builder says of it."""
    from minires import models

    names = models.names()
    width = max(map(len, names))
    about = [(getattr(models, name).__doc__ or "").strip().partition("\n")[0] for name in names]
    return "\n".join(f"{name:<{width}}  {line}" for name, line in zip(names, about, strict=True))


def _bench(options: argparse.Namespace) -> int:
    from minires.bench import command

    _keep_freed_memory()
    return command.run(options)


def _profile(options: argparse.Namespace) -> int:
    from minires.bench import profile_command

    _keep_freed_memory()
    return profile_command.run(options, *_network(options))


def _doctor(options: argparse.Namespace) -> int:
    from minires.doctor import report

    print(report())
    return 0


def _describe(job: Any) -> str:
    data = f"cluttered digits {job.canvas}×{job.canvas}" if job.data == "digits" else f"{job.data} in {job.root}"
    epochs = "1 epoch" if job.epochs == 1 else f"{job.epochs} epochs"
    text = f"{job.model} on {data}, {epochs}, batch size {job.batch_size}, {job.device}, seed {job.seed}"
    return f"{text}\n{_describe_folder(job)}" if job.data == "folder" else text


def _describe_folder(job: Any) -> str:
    """How the pictures were understood: how many for training and for testing, and the classes."""
    from minires.training.sources import open_source

    source = open_source(job)
    sizes = [len(loader.dataset) for loader in (source.train, source.test)]
    classes = ", ".join(source.classes[:10]) + (", ..." if len(source.classes) > 10 else "")
    return f"{sizes[0]:,} training and {sizes[1]:,} test pictures, {len(source.classes)} classes: {classes}"


# ------------------------------------------------------------------------------------ options

_JOB_OPTIONS = (
    "data", "root", "size", "model", "attention", "epochs", "batch_size", "lr", "weight_decay", "device", "seed", "clutter",
    "canvas", "digit", "noise", "graph", "precision", "autocast",
)  # fmt: skip

#: what may be given for a run that is continued: where it is computed, not what
_HOW = ("device", "graph")

#: option → the data sets that it means something for
_DATA_OPTIONS = {
    "root": ("cifar10", "cifar100", "folder"), "download": ("cifar10", "cifar100"), "size": ("folder",),
    **dict.fromkeys(("clutter", "canvas", "digit", "noise"), ("digits",)),
}  # fmt: skip

PICTURES = """\
A picture is cut to its middle square and scaled down to the size of the training images. So the object should be in that
square, and about as large in it as in training: for a network trained on digits, one bright digit on black, half as high as
the picture (for dark ink on white paper: --invert); for other networks, colour pictures like those in the training set."""


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value


def _parser(translation: bool = False) -> argparse.ArgumentParser:
    parser = _Parser(prog="minires", description="The Residual Attention Network, and every gradient by hand.")
    parser.add_argument("--version", action="version", version=f"minires {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="name", required=True)
    if translation:
        add_translation(commands, _whole, _number)
    else:
        _add_train(commands)
        commands.add_parser("translate", help="translate a written-out number")
    evaluate = commands.add_parser("evaluate", help="measure a trained network on its test set")
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, or the directory of a run")
    evaluate.add_argument("--precision", choices=PRECISIONS, help=f"{PRECISION}; that of the training unless told")
    evaluate.add_argument("--autocast", choices=("none", *HALVES), help=f"{AUTOCAST}; as in the training unless told")
    evaluate.add_argument("--root", help="directory of the data files, if they have moved")
    masks = commands.add_parser("masks", help="draw where a trained network looks on your own pictures", epilog=PICTURES)
    masks.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint, or the directory of a run")
    masks.add_argument("images", metavar="IMAGE", nargs="+", help="PNG or JPEG files; see below for what is suitable")
    masks.add_argument("--out", default="masks.png", help="the picture to write (default: masks.png)")
    masks.add_argument("--invert", action="store_true", help="for a digit in dark ink on white paper")
    info = commands.add_parser("info", help="the layers of a network: output shapes, parameters, multiply-adds")
    info.add_argument("model", metavar="MODEL", nargs="?", help="name of a model, or a checkpoint; none lists the models")
    info.add_argument("--size", type=_whole, help="height and width of the input in pixels")
    info.add_argument("--depth", type=_whole, help="show modules down to this depth only")
    commands.add_parser("gradcheck", help="check a backward pass that you wrote by hand, and name the mistake")
    doctor = commands.add_parser("doctor", help="versions and devices, for a bug report")
    add_experiment(commands, _whole, _keep_freed_memory)
    add_bench(commands, _bench)
    add_profile(commands, _profile)
    add_transfer(commands, _network, _whole)
    for command in (evaluate, masks):
        command.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    for command, run in ((evaluate, _evaluate), (masks, _masks), (info, _info), (doctor, _doctor)):
        command.set_defaults(command=run)
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser("train", help="train a network; with no options, on cluttered digits")
    train.set_defaults(command=_train)
    train.add_argument("--recipe", choices=RECIPES, help=RECIPE)
    data = train.add_argument_group("data")
    data.add_argument("--data", choices=("digits", "cifar10", "cifar100", "folder", "numerals"), help=DATA)
    data.add_argument("--root", help=ROOT)
    data.add_argument("--download", action="store_true", help="fetch CIFAR into --root if it is not there")
    data.add_argument("--size", type=_whole, help="folder: scale pictures to this many pixels a side (default: 32)")
    data.add_argument("--clutter", type=_whole, help="digits: fragments on each canvas (default: 4)")
    data.add_argument("--canvas", type=_whole, help="digits: side of a canvas in pixels (default: 29)")
    data.add_argument("--digit", type=_whole, help="digits: side of a digit in pixels (default: 14)")
    data.add_argument("--noise", type=_number, help="digits: standard deviation of the noise (default: 0.1)")
    network = train.add_argument_group("network")
    network.add_argument("--model", help="name of the network (minires info lists them)")
    network.add_argument("--attention", choices=COMPARED, help="(1+M)F, MF, or no masks (default: residual)")
    network.add_argument("--compare", action="store_true", help="train all three kinds of attention and compare them")
    training = train.add_argument_group("training")
    training.add_argument("--epochs", type=_whole, help=EPOCHS)
    training.add_argument("--batch-size", type=_whole, help="images in a step")
    training.add_argument("--lr", type=_number, help="highest learning rate")
    training.add_argument("--weight-decay", type=_number, help="strength of the pull of all weights to 0")
    training.add_argument("--device", help="cpu (default), cuda or cuda:N")
    training.add_argument("--precision", choices=PRECISIONS, help=PRECISION)
    training.add_argument("--autocast", choices=HALVES, help=AUTOCAST)
    training.add_argument("--graph", action=argparse.BooleanOptionalAction, help=GRAPH)
    training.add_argument("--seed", type=_whole, help="of weights, order and canvases (default: 0)")
    run = train.add_argument_group("run")
    run.add_argument("--out", help="directory for the results (default: runs/DATE_TIME)")
    run.add_argument("--resume", metavar="RUN", help="continue an interrupted run: its directory or checkpoint")
    run.add_argument("--quiet", action="store_true", help="no progress bar")


COMPARED = ("residual", "naive", "none")
DATA = "what to train on (default: digits); numerals, a translation, has options of its own: train --data numerals --help"
RECIPES = ("paper-cifar", "fast-cifar")
RECIPE = (
    "settings that belong together, which other options change: paper-cifar (205 epochs, as in the paper; the default for "
    "CIFAR), fast-cifar (150 epochs of larger batches, meant for a GPU)"
)
PRECISIONS = ("highest", "high", "medium")
PRECISION = "cuda: of float32 products; highest (default) is float32, high TF32, medium as fast as may be"
AUTOCAST = "mixed precision: products and convolutions in 16 bits; weights and sums stay float32"
GRAPH = "cuda: make the training step one CUDA graph (default: if that is possible)"
ROOT = (
    "directory of the data files (not for digits); for folder it holds train/ and test/ (or val/), each with one folder of "
    "pictures for each class, or only the folders of the classes: then a random 80%% are for training, 20%% for testing"
)
EPOCHS = "passes over the images (default: 9 for digits, 60 for folder, 205 for cifar10 and cifar100: days on a CPU)"
