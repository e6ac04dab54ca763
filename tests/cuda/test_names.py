"""Every name of CuPy that minires uses exists there, with the arguments that we pass; the same for the stand-in.

CuPy can be imported without a GPU, so this runs wherever it is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import minires
from tests.cuda.standin import module, ndarray
from tests.cuda.standin.functions import FUNCTIONS, SIGNATURES, UFUNCS

PACKAGE = Path(minires.__file__).parent
#: What stands for the array module in our code.
MODULES = ("xp", "self._xp", "self.xp", "cupy", "module", "cp")
#: Where CuPy may be although it is not beside minires: a folder of site-packages.
ELSEWHERE = os.environ.get("MINIRES_CUPY_PATH", "")


def uses() -> Iterator[tuple[str, tuple[str, ...], ast.Call | None]]:
    """Every ``xp.name`` (or ``array_module(x).name``): where, the dotted name, and the call it is part of."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                name = _dotted(node)
                if name:
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", name, calls.get(id(node))


def _dotted(node: Any) -> tuple[str, ...]:
    """The names behind an array module, or nothing."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        if ast.unparse(node) in MODULES:
            return tuple(names)
        names.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in MODULES and node.id != "module":
        return tuple(names)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("array_module", "cupy"):
        return tuple(names)
    return ()


USES = [(where, name, call) for where, name, call in uses()]


def _problems(find: Any) -> list[str]:
    """What ``find`` (dotted name → object) lacks, or takes with other arguments."""
    problems = []
    for where, name, call in USES:
        try:
            found = find(name)
        except AttributeError as error:
            problems.append(f"{where}: {error}")
            continue
        if call is not None and not any(isinstance(a, ast.Starred) for a in call.args):
            keywords = [k.arg for k in call.keywords if k.arg]
            problem = _misfit(found, len(call.args), keywords)
            if problem:
                problems.append(f"{where}: {'.'.join(name)}: {problem}")
    return problems


def _misfit(function: Any, positional: int, keywords: list[str]) -> str:
    if type(function).__name__ in ("ufunc", "Ufunc"):
        unknown = set(keywords) - {"out", "dtype", "casting"}
        return f"a ufunc takes no {unknown}" if unknown else ""
    try:
        inspect.signature(function).bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    except ValueError:  # compiled, without a signature
        return ""
    return ""


def test_the_scan_sees_something() -> None:
    names = {name for _, name, _ in USES}
    assert {("where",), ("asarray",), ("exp",), ("cuda", "Device")} <= names


def test_the_stand_in_has_every_name_with_its_arguments() -> None:
    problems = _problems(lambda name: reduce(getattr, name, module()))
    assert not problems, "\n".join(problems)


# ------------------------------------------------------------------------------------ against the real CuPy


def real_cupy() -> Any:
    """CuPy, imported although there may be no GPU."""
    if ELSEWHERE and ELSEWHERE not in sys.path:
        sys.path.append(ELSEWHERE)
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed (it can be without a GPU: pip install cupy-cuda13x)")
    import cupy

    return cupy


def test_cupy_has_every_name_with_its_arguments() -> None:
    cupy = real_cupy()
    problems = _problems(lambda name: reduce(getattr, name, cupy))
    assert not problems, "\n".join(problems)


def test_the_stand_in_takes_what_cupy_takes() -> None:
    cupy = real_cupy()
    for name, text in SIGNATURES.items():
        function = getattr(cupy, name)
        if name == "matmul":  # a ufunc of its own kind
            continue
        expected = [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
        ours = inspect.signature(eval(f"lambda {text}: None"))
        assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == expected, name
    assert all(type(getattr(cupy, name)).__name__ == "ufunc" for name in UFUNCS)
    assert set(FUNCTIONS) <= set(dir(cupy))


def test_cupys_arrays_have_what_those_of_the_stand_in_have() -> None:
    cupy = real_cupy()
    ours = {name for name in vars(ndarray) if not name.startswith("_")} | {"__add__", "__radd__", "__getitem__", "__iadd__"}
    assert ours <= set(dir(cupy.ndarray))
    assert not hasattr(cupy.ndarray, "__index__") and not hasattr(ndarray, "__index__")
    assert cupy.ndarray.__hash__ is None


def test_importing_minires_imports_no_cupy() -> None:
    code = "import sys, minires; assert not [m for m in sys.modules if m.partition('.')[0] == 'cupy']"
    subprocess.run([sys.executable, "-c", code], check=True)
