"""The options of ``minires export`` and ``minires import``. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

__all__ = ["add_transfer"]

EXPORT = """\
Write a network's weights to a safetensors file, which PyTorch reads, or the network itself to an ONNX file, which ONNX
Runtime computes: the name of the file decides. Of a model's name, rather than a checkpoint, the weights are fresh ones."""

IMPORT = """\
Read the weights of a PyTorch state_dict from a safetensors file and make a checkpoint of them, for the commands evaluate,
masks, info and export."""

#: Makes the network that options.model names, with options.size: the network, and (C, H, W).
Network = Callable[[argparse.Namespace], tuple[Any, tuple[int, int, int]]]


def add_transfer(commands: Any, network: Network, whole: Callable[[str], int]) -> None:
    """Add ``export`` and ``import`` to the parsers of commands.

    Args:
        commands: what ``add_subparsers`` returned.
        network: makes the network of a checkpoint or a name.
        whole: reads a whole number.
    """
    out = commands.add_parser("export", help="write weights for PyTorch, or a network as ONNX", description=EXPORT)
    out.add_argument("model", metavar="MODEL", help="a checkpoint, or the name of a model")
    out.add_argument("file", metavar="FILE", help="the file to write: .safetensors or .onnx")
    out.add_argument("--onnx", action="store_true", help="write ONNX whatever the file is called")
    out.add_argument("--size", type=whole, help="ONNX: height and width of the images in pixels")
    out.add_argument("--resize", action="store_true", help="ONNX: bilinear resizing as one op, a little less exact")
    out.add_argument("--names", metavar="TABLE", help=NAMES)
    out.set_defaults(command=lambda options: _run("export_", options, network))
    into = commands.add_parser("import", help="read weights from PyTorch", description=IMPORT)
    into.add_argument("file", metavar="FILE", help="a safetensors file of a state_dict")
    into.add_argument("--model", metavar="NAME", help="of which network (minires info lists them), if the file does not say")
    into.add_argument("--out", metavar="CHECKPOINT", required=True, help="the checkpoint to write")
    into.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help=OPTION)
    into.add_argument("--names", metavar="TABLE", help=NAMES)
    into.add_argument("--classes", metavar="FILE", help="the names of the classes, one on each line")
    into.set_defaults(command=lambda options: _run("import_", options))


NAMES = "a text file of names, two on each line: that of a module or tensor here, and PyTorch's"
OPTION = "an argument of the network, as in --option m=2; as often as needed"


def _run(name: str, *arguments: Any) -> int:
    from minires.export import command

    return int(getattr(command, name)(*arguments))
