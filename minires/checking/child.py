"""The process in which ``minires gradcheck`` runs somebody's functions: it may hang, crash or eat memory without harm.

It gets a JSON file with what to check, and leaves a JSON file with the report, or with one sentence about what went wrong
and at which line of the user's own file. A watchdog, which also works while NumPy is busy, ends it when time is up and
leaves the stack behind; :mod:`minires.checking.command`, on the other side, reads both.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import faulthandler
import importlib.util
import json
import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from minires import checking

__all__ = ["is_users", "main", "options_of", "run", "shown_name"]

Spec = Mapping[str, Any]

FILE_SIZE = 64 << 20  # bytes that the child may write into one file, its output among them
_PACKAGE = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")})


HOW = "the check calls forward(inputs, **options) and backward(inputs, grad_output, **options), with a tuple of arrays"


class EndedError(BaseException):
    """The user's code called ``os._exit``."""


class SignatureError(TypeError):
    """A function cannot be called as the check does; with its file and line."""


def main(path: str) -> NoReturn:
    """Do what the file at ``path`` says, and end the process without a last word from the user's code."""
    spec = json.loads(Path(path).read_text(encoding="utf-8"))
    leave, process = os._exit, os.getpid()

    def refuse(status: int) -> None:
        if os.getpid() != process:  # a copy of this process, made by the user's code
            leave(status)
        raise EndedError(status)

    os._exit = refuse  # type: ignore[assignment]
    sys.argv = [spec["backward"][0]]
    with open(spec["stack"], "w") as stack:
        faulthandler.enable(stack)
        with limits(spec["memory"], 6 * spec["max_seconds"] + 60):
            result = run(spec, lambda seconds: faulthandler.dump_traceback_later(seconds, exit=True, file=stack))
        faulthandler.cancel_dump_traceback_later()
        Path(spec["result"]).write_text(json.dumps(result), encoding="utf-8")
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    leave(0)


def run(spec: Spec, watch: Callable[[float], None] = lambda seconds: None) -> dict[str, str]:
    """Check, and say what was found.

    Args:
        spec: files, inputs and settings, as ``command.py`` writes them.
        watch: called with the number of seconds that the next part may take.

    Returns:
        "verdict", "text" and "json" of the report, and "note" if the picture could not be written; or "error" alone.
    """
    try:
        return _check(spec, watch)
    except BaseException as error:  # whatever the user's code does, SystemExit included, is told in a sentence
        with contextlib.suppress(Exception):
            _set_memory(None)
        return {"error": explain(error, spec)}


def _check(spec: Spec, watch: Callable[[float], None]) -> dict[str, str]:
    if spec["plot"]:
        from minires import viz

        viz.gradients  # noqa: B018 - imported now, before the user's folder can hide a library's module
    watch(spec["max_seconds"])
    forward, backward = _functions(spec)
    inputs = _inputs(spec)
    _try_once(forward, backward, inputs, options_of(spec["options"]))
    watch(2 * spec["max_seconds"] + 5)
    settings = {name: spec[name] for name in ("seed", "hints", "max_seconds", "dtype")}
    report = checking.gradcheck_pair(forward, backward, inputs, params=options_of(spec["options"]), **settings)
    report = replace(report, reproduce=spec["reproduce"])
    _set_memory(None)
    watch(60)
    found = {"verdict": report.verdict, "text": str(report), "json": report.to_json()}
    if spec["plot"]:
        try:
            report.plot(spec["plot"])
        except (OSError, ValueError) as error:  # a folder that may not be written, an unknown kind of picture
            found["note"] = f"--plot {spec['plot']}: {' '.join(str(error).split())}"
    return found


def _try_once(forward: Any, backward: Any, inputs: dict[str, Any], options: dict[str, Any]) -> None:
    """One call of each, so that what never ends or does not fit is found before the long part begins."""
    from minires.checking.subject import Pair, WrongNumber

    pair = Pair(forward, backward, inputs, options)
    try:
        with contextlib.suppress(WrongNumber):
            outputs = pair.forward([v.copy() for v in pair.values])
            pair.pullback(pair.values)([np.ones_like(o) for o in outputs])
    except TypeError as error:
        for function in (forward, backward):
            code = getattr(function, "__code__", None)
            if code is not None and str(error).startswith(f"{function.__qualname__}()") and not _was_entered(error, code):
                raise SignatureError(f"{error}; {HOW}", code.co_filename, code.co_firstlineno) from None
        raise


def _was_entered(error: BaseException, code: Any) -> bool:
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))


# ------------------------------------------------------------------------------------ what is checked


def _functions(spec: Spec) -> tuple[Callable[..., Any], Callable[..., Any]]:
    path, name = spec["backward"]
    modules = {path: _load(path)}
    backward = _function(modules[path], path, [name])
    path, name = spec["forward"]
    if path not in modules:
        modules[path] = _load(path)
    usual = list(dict.fromkeys([spec["backward"][1].replace("backward", "forward"), _bare(spec["backward"][1]), "forward"]))
    return _function(modules[path], path, [name] if name else [n for n in usual if n != spec["backward"][1]]), backward


def _bare(name: str) -> str:
    return name.replace("_backward", "").replace("backward_", "")


def _load(path: str) -> Any:
    full = os.path.abspath(path)
    name = "checked_" + "".join(c if c.isalnum() else "_" for c in Path(full).stem)
    place = importlib.util.spec_from_file_location(name, full)
    if place is None or place.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(place)
    sys.modules[name] = module
    folder = os.path.dirname(full)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # the file may import its neighbours
    sys.dont_write_bytecode = True
    place.loader.exec_module(module)
    return module


def _function(module: Any, path: str, names: list[str]) -> Callable[..., Any]:
    for name in names:
        found = getattr(module, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    functions = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    there = f"; there is {', '.join(functions)}" if functions else ""
    raise ValueError(f"{path} has no function {' or '.join(names)}{there}")


def _inputs(spec: Spec) -> dict[str, Any]:
    """The inputs by name: random numbers from the seed, or from files."""
    rng = np.random.default_rng(spec["seed"])
    dtype = np.dtype(spec["dtype"] or np.float64)
    found: dict[str, Any] = {}
    for given in spec["inputs"]:
        if "file" in given:
            found[given["name"]] = _read(given["file"], spec["dtype"])
        elif given["kind"] == "int":
            found[given["name"]] = rng.integers(int(given["low"]), int(given["high"]), given["shape"], endpoint=True)
        elif given["kind"] == "float":
            found[given["name"]] = np.asarray(rng.uniform(given["low"], given["high"], given["shape"]), dtype)
        else:
            found[given["name"]] = np.asarray(rng.standard_normal(given["shape"]), dtype)
    return found


def _read(path: str, dtype: str | None) -> Any:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: is no .npy file of numbers ({error})") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: expected a .npy file with one array, got several")
    return array.astype(dtype) if dtype and array.dtype.kind == "f" else array


def options_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """The keyword options: Python's literals, and whatever is none as text (``padding=same``)."""
    found: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


# ------------------------------------------------------------------------------------ limits


@contextlib.contextmanager
def limits(megabytes: int, seconds: float) -> Any:
    """Limit memory beyond what is used now, processor time, and the size of files, where the system can."""
    try:
        import resource
    except ImportError:  # Windows; the watchdog is everywhere
        yield
        return
    processors = os.cpu_count() or 1
    for kind, value in ((resource.RLIMIT_CPU, int(seconds * processors)), (resource.RLIMIT_FSIZE, FILE_SIZE)):
        _lower(kind, value)
    _set_memory(megabytes)
    try:
        yield
    finally:
        _set_memory(None)


def _set_memory(megabytes: int | None) -> None:
    """Let the process have so much more memory than it has now; None for as much as it likes."""
    try:
        import resource
    except ImportError:
        return
    if megabytes is None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return
    used = 0
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, used + (megabytes << 20))


def _lower(kind: int, value: int) -> None:
    import resource

    hard = resource.getrlimit(kind)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS knows some limits and refuses them
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


# ------------------------------------------------------------------------------------ what went wrong


def explain(error: BaseException, spec: Spec) -> str:
    """One sentence, with the last line of the user's own that was running."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename, spec)]
    if isinstance(error, SyntaxError) and error.filename:
        line = (error.text or "").strip()
        return f"{shown_name(error.filename, spec)}, line {error.lineno}: {error.msg}" + (f": {line}" if line else "")
    if isinstance(error, SignatureError):
        message, path, number = error.args
        return f"{shown_name(path, spec)}, line {number}: {message}"
    what = _what(error, spec)
    if frames:
        last = frames[-1]
        function = "" if last.name.startswith("<") else f", in {last.name}"
        source = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
        return f"{shown_name(last.filename, spec)}, line {last.lineno}{function}: {what}" + (f": {source}" if source else "")
    words = str(error)
    if isinstance(error, (ValueError, TypeError, OSError)) and (words.startswith("gradcheck") or _is_ours(error)):
        return " ".join(words.removeprefix("gradcheck_pair: ").removeprefix("gradcheck: ").split())
    return what if isinstance(error, MemoryError) else f"the check itself failed: {what}"


def _is_ours(error: BaseException) -> bool:
    """Whether this module raised it, on purpose."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_code.co_filename == __file__


def _what(error: BaseException, spec: Spec) -> str:
    if isinstance(error, (SystemExit, EndedError)):
        return "the program ends itself here (exit), but a check needs functions that return"
    if isinstance(error, MemoryError):
        return f"more than {spec['memory']} MB of memory are needed; --memory allows more"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"prints or writes more than {FILE_SIZE >> 20} MB"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_users(filename: str, spec: Spec) -> bool:
    """Whether a file is the user's: one of those given, or a neighbour that is no library."""
    path = os.path.realpath(filename)
    given = [os.path.realpath(spec[key][0]) for key in ("backward", "forward")]
    if path in given:
        return True
    if path.startswith((_PACKAGE, *_LIBRARIES)) or not os.path.exists(path):
        return False
    return any(path.startswith(os.path.dirname(g) + os.sep) for g in given)


def shown_name(filename: str, spec: Spec) -> str:
    """A file's name as the user wrote it, or from here if that is shorter."""
    for key in ("backward", "forward"):
        if os.path.realpath(spec[key][0]) == os.path.realpath(filename):
            return str(spec[key][0])
    with contextlib.suppress(ValueError):
        return min(filename, os.path.relpath(filename), key=len)
    return filename
