"""``minires gradcheck``: check functions in a file, without trusting them.

The functions run in a process of their own (:mod:`minires.checking.child`) with limits on time and memory. This side never
imports them; whatever they do ends in one message here. Exit codes: 0 right, 1 wrong, 2 undecidable, 3 no answer, because
the call, the files or the functions do not work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from minires.checking.report import HINTS, VERDICTS

__all__ = ["main"]

CODES = {**dict(zip(VERDICTS, (0, 1, 2), strict=True))}
BAD_CALL = 3
START, PRINTED = 60.0, 10  # seconds for the child to start and to draw; lines of its output that are shown

ABOUT = """\
Check a hand-written backward pass in plain NumPy against numeric derivatives, and name the mistake.

FILE.py has two functions: forward(inputs, **options) takes a tuple of arrays and returns an array, and
backward(inputs, grad_output, **options) returns one gradient for each input, in a tuple.
"""
EXAMPLES = """\
inputs:
  x=2,3,5,6                normally distributed numbers in this shape; x=() is a single number
  x=2,3:float:0.5..2       evenly distributed numbers between 0.5 and 2
  labels=4:int:0..9        whole numbers from 0 to 9
  x=@file.npy              an array from a file

exit code: 0 right, 1 wrong, 2 undecidable, 3 no answer (the call, the file or the functions do not work)

example:
  python -m minires gradcheck conv.py --input x=2,3,5,6 --input w=4,3,3,2 --option stride=2
"""

#: The child looks for minires where this one is, and only there for that long.
BOOT = """\
import sys
sys.path.insert(0, sys.argv[1])
from minires.checking.child import main
sys.path.pop(0)
main(sys.argv[2])
"""


class _Parser(argparse.ArgumentParser):
    """argparse, but an error is one line, and exit code 3."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} ({self.prog} --help lists the options)", file=sys.stderr)
        raise SystemExit(BAD_CALL)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code.

    Args:
        argv: the arguments after ``minires gradcheck``.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        if options.self_test:
            from minires.checking import selftest

            return int(selftest.main())
        return _run(options, argv)
    except KeyboardInterrupt:
        print("minires gradcheck: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone
        return BAD_CALL
    except (ValueError, OSError) as error:
        return _fail(" ".join(str(error).split()))


def _fail(message: str) -> int:
    print(f"minires gradcheck: {message}", file=sys.stderr)
    return BAD_CALL


def _run(options: argparse.Namespace, argv: Sequence[str]) -> int:
    spec = _spec(options, argv)
    with tempfile.TemporaryDirectory(prefix="gradcheck_") as folder:
        result, printed = _in_child(spec, Path(folder))
    _show(printed, spec)
    if "error" in result:
        return _fail(result["error"])
    if options.json:
        path = Path(options.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(result["json"] + "\n", encoding="utf-8")
    print(result["text"], flush=True)
    return _fail(result["note"]) if "note" in result else CODES[result["verdict"]]


# ------------------------------------------------------------------------------------ the child


def _in_child(spec: dict[str, Any], folder: Path) -> tuple[dict[str, str], str]:
    """What the child found (or one "error"), and what the functions printed."""
    spec |= {name: str(folder / name) for name in ("result", "stack")}
    task, output = folder / "task", folder / "output"
    task.write_text(json.dumps(spec), encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    with open(output, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, root, str(task)], stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(START + 3 * spec["max_seconds"] + 5)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill(process)
    printed = output.read_bytes().decode("utf-8", "replace")
    try:
        return json.loads(Path(spec["result"]).read_text(encoding="utf-8")), printed
    except (OSError, ValueError):
        return {"error": _why_silent(process.returncode, spec)}, printed


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it has started, if anything still runs."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()


def _why_silent(code: int, spec: dict[str, Any]) -> str:
    """What to say of a child that left no result: where it stood when time was up, or when it crashed."""
    from minires.checking import child

    stack = ""
    with contextlib.suppress(OSError):
        stack = Path(spec["stack"]).read_text(encoding="utf-8", errors="replace")
    where = ""
    for path, line, function in re.findall(r'File "(.+)", line (\d+) in (.+)', stack):  # most recent call first
        if child.is_users(path, spec):
            name = "" if function.startswith("<") else f", in {function}"
            where = f"{child.shown_name(path, spec)}, line {line}{name}: "
            break
    if "Timeout" in stack:
        seconds = spec["max_seconds"]
        return f"{where}does not come to an end: an endless loop, or too slow (--max-seconds, now {seconds:g}, allows more)"
    if stack:
        return f"{where}the process crashed: {stack.splitlines()[0].removeprefix('Fatal Python error: ')}"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"{spec['backward'][0]}: the process {how} before the check was done"


def _show(printed: str, spec: dict[str, Any]) -> None:
    """The first lines that the functions printed, on standard error: the report is all that is on standard output."""
    lines = printed.splitlines()
    for line in lines[:PRINTED]:
        print("  | " + "".join(c if c.isprintable() or c == "\t" else "�" for c in line[:200]), file=sys.stderr)
    if len(lines) > PRINTED:
        print(f"  | ... and {len(lines) - PRINTED} more lines printed by {spec['backward'][0]}", file=sys.stderr)


# ------------------------------------------------------------------------------------ the arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="minires gradcheck", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backward", metavar="FILE.py[:backward]", nargs="?", help="the file, and the name of the function")
    parser.add_argument("--forward", metavar="[FILE.py:]forward", help="the other function (default: in the same file)")
    parser.add_argument("--input", metavar="NAME=SHAPE", action="append", default=[], help="an input, in order; see below")
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help="a keyword option for both")
    parser.add_argument("--seed", type=_whole, default=0, help="of everything random (default: 0)")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="of inputs and gradients (default: float64)")
    parser.add_argument("--hints", choices=HINTS, default="full", help="how much to give away (default: full)")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON")
    parser.add_argument("--plot", metavar="FILE", help="write a picture of where it is wrong")
    parser.add_argument("--max-seconds", type=_seconds, default=10.0, help="how long the check may take (default: 10)")
    parser.add_argument("--memory", metavar="MB", type=_megabytes, default=2048, help="for the functions (default: 2048)")
    parser.add_argument("--self-test", action="store_true", help="check the checker with planted mistakes; takes no file")
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def _megabytes(text: str) -> int:
    if not 16 <= (_whole(text)) <= 1 << 30:
        raise argparse.ArgumentTypeError(f"expected at least 16 MB, got {text}")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.1 <= float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number of seconds from 0.1 to 86400, got {text!r}")


def _spec(options: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:
    """Everything that the child needs, in JSON's types."""
    if options.backward is None:
        raise ValueError("which file? For example: minires gradcheck conv.py --input x=2,3,5,6 (or --self-test)")
    if not options.input:
        raise ValueError("no inputs; say which with --input, for example --input x=2,3,5,6")
    path, name = _place(options.backward)
    forward_path, forward = _place(options.forward, path) if options.forward else (path, "")
    inputs = [_input(text) for text in options.input]
    names = [given["name"] for given in inputs]
    if len(set(names)) < len(names):
        raise ValueError(f"--input: {', '.join(names)}: two inputs have the same name")
    seed = [] if any(a == "--seed" or a.startswith("--seed=") for a in argv) else ["--seed", str(options.seed)]
    plot = None if options.plot is None else os.path.abspath(options.plot)
    return {
        "backward": (path, name or "backward"), "forward": (forward_path, forward), "inputs": inputs, "plot": plot,
        "options": dict(_named("--option", text) for text in options.option), "seed": options.seed, "dtype": options.dtype,
        "hints": options.hints, "max_seconds": options.max_seconds, "memory": options.memory,
        "reproduce": shlex.join(["minires", "gradcheck", *argv, *seed]),
    }  # fmt: skip


def _place(text: str, same: str | None = None) -> tuple[str, str]:
    """``FILE.py:function`` as a pair; a name alone is a function in the file ``same``."""
    path, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        path, name = (same, text) if same is not None and text.isidentifier() else (text, "")
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such file")
    return path, name


def _named(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"{option}: expected NAME=..., got {text!r}")
    return name, value


def _input(text: str) -> dict[str, Any]:
    """``x=2,3``, ``x=2,3:int:0..9``, ``x=2,3:float:0.5..2`` or ``x=@file.npy``."""
    name, value = _named("--input", text)
    if value.startswith("@"):
        if not os.path.isfile(value[1:]):
            raise ValueError(f"--input {text}: {value[1:]}: no such file")
        return {"name": name, "file": os.path.abspath(value[1:])}
    match = re.fullmatch(r"(\(\)|\d+(?:,\d+)*),?(?::(int|float):(-?[\d.]+?)\.\.(-?[\d.]+))?", value)
    if match is None:
        raise ValueError(f"--input {text}: expected a shape like {name}=2,3,5 or {name}=2,3:int:0..9 or {name}=@file.npy")
    sizes, kind, low, high = match.groups()
    found: dict[str, Any] = {
        "name": name,
        "shape": [] if sizes == "()" else [int(n) for n in sizes.split(",")],
        "kind": kind,
    }
    if kind:
        try:
            found |= {"low": float(low), "high": float(high)}
        except ValueError:
            raise ValueError(f"--input {text}: {low}..{high} are no two numbers") from None
        if found["low"] > found["high"] or (
            kind == "int" and not (found["low"].is_integer() and found["high"].is_integer())
        ):
            raise ValueError(f"--input {text}: expected {'whole numbers, ' if kind == 'int' else ''}the smaller one first")
    return found
