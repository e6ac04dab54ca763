"""The front of the package: ``import minires`` alone loads next to nothing, and yet every name is there."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import minires as mr

SOURCE = Path(mr.__file__)

#: What minires can do without until it is asked for.
OPTIONAL = ("PIL", "cupy", "matplotlib", "ml_dtypes", "safetensors", "threadpoolctl", "tqdm")

#: Prints which modules are loaded.
LOADED = "import sys; print(*sorted(name for name in sys.modules if name.partition('.')[0] in {wanted}))"


def fresh(code, *arguments, check=True):
    """Standard output and standard error of ``code`` in a Python of its own."""
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parents[1])}
    got = subprocess.run(command, env=environment, capture_output=True, text=True, check=check)
    return got.stdout, got.stderr


def loaded_after(code, *wanted):
    """The modules of the packages ``wanted`` that are loaded after ``code``."""
    return set(fresh(f"{code}\n{LOADED.format(wanted=wanted)}")[0].splitlines()[-1].split())


def test_importing_it_imports_nothing_but_numpy():
    wanted = {"minires", *OPTIONAL, *sys.stdlib_module_names}
    before = loaded_after("import numpy, importlib, types, typing", *wanted)
    assert loaded_after("import minires", *wanted) - before == {"minires"}


def test_a_tensor_needs_no_ops():
    loaded = loaded_after("import minires as mr; mr.tensor([1.0])", "minires", "pathlib", *OPTIONAL)
    assert {"minires.tensor", "minires.creation"} <= loaded
    assert not {"minires.functional", "minires.op", "minires.kernels", "minires.nn", "pathlib", *OPTIONAL} & loaded


def test_a_first_op_brings_the_ops_and_no_layers():
    code = "import minires as mr; x = mr.tensor([1.0, 2.0], requires_grad=True); (x * 3 + 1).sum().backward(); print(x.grad)"
    loaded = loaded_after(code, "minires", *OPTIONAL)
    assert "minires.functional" in loaded and not {"minires.nn", "minires.checking", *OPTIONAL} & loaded
    assert "3" in fresh(code)[0]


@pytest.mark.parametrize("first", ["minires.nn", "minires.tensor", "minires.op", "minires.functional", "minires.operators"])
def test_any_module_may_be_the_first(first):
    """Also one that Python would bind over a function of the same name."""
    code = (
        f"import warnings; warnings.simplefilter('error')\nimport {first}\nimport minires as mr\n"
        "from minires.tensor import Tensor\n"
        "assert isinstance(mr.tensor([1.0]) + 1, Tensor) and callable(mr.op) and mr.op.__name__ == 'op'\n"
        "from minires import tensor, op\nassert tensor is mr.tensor and op is mr.op and mr.Tensor is Tensor"
    )
    assert fresh(code) == ("", "")


def test_help_of_the_command_imports_neither_ops_nor_layers():
    loaded = loaded_after("from minires.cli import main; main(['--help'])", "minires", *OPTIONAL)
    heavy = {f"minires.{name}" for name in ("checking", "functional", "models", "nn", "op", "tensor", "training", "viz")}
    assert "minires.cli" in loaded and not {*heavy, *OPTIONAL} & loaded
    assert "importlib.metadata" not in loaded_after("from minires import doctor", "importlib")


def test_every_public_name_is_there_and_listed():
    assert dir(mr) == sorted(mr.__all__) and len(set(mr.__all__)) == len(mr.__all__)
    for name in mr.__all__:
        value = getattr(mr, name)
        assert isinstance(value, ModuleType) == (name in mr._MODULES), name
        assert mr.__dict__[name] is value, f"{name} is looked up anew each time"
    for name in mr._MODULES:
        assert getattr(mr, name) is sys.modules[f"minires.{name}"]


def test_type_checkers_and_python_see_the_same():
    """The imports that a type checker reads, ``__all__`` and the table name the same things at the same places."""
    blocks = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    (block,) = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    read = {alias.name: node.module for node in block.body for alias in node.names}
    modules = {name: "minires" for name in mr._MODULES if name in mr.__all__}
    assert modules | {name: f"minires.{module}" for name, module in mr._HOMES.items()} == read
    numpys = {name for name in mr.__all__ if name not in read}
    assert all(getattr(mr, name) is getattr(np, name) for name in numpys) and "float32" in numpys


def test_star_import():
    names = fresh("from minires import *\nprint(*sorted(n for n in dir() if n[0] != '_'))")[0].split()
    assert names == sorted(mr.__all__)


def test_a_misspelt_name_gets_the_right_one():
    with pytest.raises(AttributeError, match="module 'minires' has no attribute 'tensr'") as caught:
        mr.tensr  # noqa: B018
    assert caught.value.name == "tensr" and caught.value.obj is mr
    assert "Did you mean: 'tensor'?" in fresh("import minires as mr\nmr.tensr", check=False)[1]
    error = fresh("from minires import tensr", check=False)[1]
    assert "cannot import name 'tensr' from 'minires'" in error
    assert not hasattr(mr, "__wrapped__")


def test_the_first_use_in_several_threads_at_once():
    code = (
        "import threading, minires as mr\nstart, sums = threading.Barrier(4), []\n"
        "def work():\n    start.wait(); sums.append((mr.tensor([1.0, 2.0]) * 2).sum().item())\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\nprint(sums)"
    )
    assert fresh(code) == (f"{[6.0] * 4}\n", "")


def test_a_pickled_tensor_is_read_by_a_fresh_python(tmp_path):
    path = tmp_path / "tensor.pkl"
    path.write_bytes(pickle.dumps(mr.tensor([1.5])))
    code = "import pickle, sys; x = pickle.load(open(sys.argv[1], 'rb')); import minires as mr"
    assert fresh(code + "; print(isinstance(x, mr.Tensor), x.item(), (x + 1).item())", str(path))[0] == "True 1.5 2.5\n"


def test_a_function_of_ones_own_may_take_its_place(monkeypatch):
    monkeypatch.setattr(mr, "tensor", len)
    assert mr.tensor is len
