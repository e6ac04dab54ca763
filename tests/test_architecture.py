"""The house stays straight: imports point one way, ops know no device, and no file pretends to be two."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import minires

PACKAGE = Path(minires.__file__).parent

#: From the ground up. A module may import (at its top level) from its own floor and from those below.
FLOORS = [
    {"driver", "errors", "modes", "precision"},
    {"device", "memory"},
    {"random", "operators", "kernels"},
    {"tensor"},
    {"tape"},
    {"op"},
    {"autograd", "creation"},
    {"functional", "io"},
    {"nn", "checking", "data", "optim"},
    {"models", "display"},
    {"viz", "training"},
    {"bench", "cli", "doctor", "experiment", "export", "translate"},
    {"__init__", "__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.parse(path.read_text()).body:  # the top level only: an import inside a function says why it is there
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minires"):
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name in FLOOR}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    own = FLOOR[room(path)]
    assert {name for name in imported_rooms(path) if FLOOR[name] > own} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_says_why_it_exists_and_is_read_in_one_sitting(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the module has no docstring"
    assert text.count("\n") <= 450


@pytest.mark.parametrize("path", sorted((PACKAGE / "functional").glob("*.py")), ids=lambda p: p.name)
def test_no_op_asks_for_its_device(path):
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert not names & {"cupy", "is_available"}


def test_matplotlib_and_cupy_are_imported_in_one_place():
    users = {"matplotlib": set(), "cupy": set()}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                if module.partition(".")[0] in users:
                    users[module.partition(".")[0]].add(room(path))
    assert users["matplotlib"] <= {"viz"}
    assert users["cupy"] <= {"device", "kernels"}


def test_no_pickle():
    for path in FILES:
        imported = {a.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for a in n.names}
        assert not imported & {"pickle", "shelve", "marshal", "dill"}, path
