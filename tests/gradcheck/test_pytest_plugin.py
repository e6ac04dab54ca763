"""The pytest fixture: the report is the failure, nothing of ours is in its traceback, and it costs nothing when unused."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minires
from minires import checking
from minires.checking.pytest_plugin import LONGEST, file_name
from tests.gradcheck.reports import report, right

pytest_plugins = ("pytester",)

ROOT = Path(minires.__file__).parents[1]
PLUGIN = ROOT / "minires" / "checking" / "plugin" / "pytest_minires.py"

TESTS = """
import numpy as np
import pytest

x = np.random.default_rng(0).normal(size=(3, 4))

def square(inputs):
    (x,) = inputs
    return x**2

def right(inputs, grad_output):
    return (2 * inputs[0] * grad_output,)

def wrong(inputs, grad_output):
    return (-2 * inputs[0] * grad_output,)

def test_right(gradcheck):
    assert gradcheck.pair(square, right, (x,))
    assert gradcheck(lambda a: a * a, x).labels == {}

@pytest.mark.parametrize("which", ["a b"])
def test_wrong(gradcheck, which):
    try:
        gradcheck.pair(square, wrong, (x,))
    except AssertionError:
        pass
    gradcheck.pair(square, wrong, (x,), seed=7)
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on a file of tests, with our plugin whether minires is installed or not."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(PLUGIN.parent))

    def run_it(*options, text=TESTS):
        pytester.mkdir("checks")
        (pytester.path / "checks" / "test_mine.py").write_text(text)
        return pytester.runpytest_inprocess("-p", "pytest_minires", "-p", "no:cacheprovider", *options)

    return run_it


def test_a_wrong_gradient_fails_with_the_report(run, pytester):
    result = run("checks")
    result.assert_outcomes(passed=1, failed=1)
    out = result.stdout.str()
    result.stdout.fnmatch_lines([
        ">*gradcheck.pair(square, wrong, (x,), seed=7)*",
        "E*AssertionError: gradient of wrong: wrong (reference: complex step, seed 7)",
        "E*dx: sign_flipped: *",
        "E*reproduce: pytest 'checks/test_mine.py::test_wrong[[]a b[]]' # seed 7",
    ])  # fmt: skip
    places = re.findall(r"^(\S+\.py):\d+: ", out, re.MULTILINE)
    assert places and set(places) == {"checks/test_mine.py"}  # no line of ours in the traceback
    assert not (pytester.path / "reports").exists()


def test_a_call_that_does_not_work_shows_none_of_our_lines(run):
    text = TESTS.replace("-2 * inputs[0]", "inputs[3]").partition("@pytest")[0]
    text += "def test_error(gradcheck):\n    gradcheck.pair(square, wrong, (x,))\n"
    text += "def test_call(gradcheck):\n    gradcheck(lambda a: a, np.arange(3))\n"
    result = run(text=text)
    result.assert_outcomes(passed=1, failed=2)
    out = result.stdout.str()
    assert "IndexError: tuple index" in out and "none of the inputs is floating point" in out
    assert set(re.findall(r"^(\S+\.py):\d+: ", out, re.MULTILINE)) == {"checks/test_mine.py"}


def test_artifacts(run, pytester):
    result = run("--gradcheck-artifacts=reports")
    result.stdout.fnmatch_lines(["*Captured gradcheck call*", "*reports/checks.test_mine.test_wrong*.png"])
    folder = pytester.path / "reports"
    first, *others = sorted(path.name for path in folder.iterdir())
    assert len(others) == 3 and re.fullmatch(r"checks\.test_mine\.test_wrong\[a_b\]-[0-9a-f]{8}(-2)?\.(json|png)", first)
    content = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    assert sorted(c["seed"] for c in content) == [0, 7] and all(c["labels"] == {"x": "sign_flipped"} for c in content)
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in folder.glob("*.png"))
    assert "test_wrong[a b]" in content[0]["reproduce"]


def test_models_are_checked_too(run, monkeypatch):
    asked = []
    monkeypatch.setattr(checking, "gradcheck_model", lambda *a, **k: asked.append((a, k)) or report(right()), raising=False)
    text = "def test_it(gradcheck):\n    assert gradcheck.model('net', 'x', 'y', seed=3)"
    run(text=text).assert_outcomes(passed=1)
    assert asked == [(("net", "x", "y", None), {"seed": 3})]


def test_the_option_and_the_fixture_are_documented(run):
    out = run("--help").stdout.str()
    assert "--gradcheck-artifacts=DIR" in out


def test_names_of_files_are_safe_and_different():
    assert file_name("tests/a/test_b.py::Test::test_c[3-x]") == "tests.a.test_b.Test.test_c[3-x]"
    names = [file_name(f"test_a.py::test[{c}]") for c in "*?<>|: "] + [file_name("a" * 400), file_name("a" * 399)]
    assert len(set(names)) == len(names) and all(len(name) < LONGEST + 12 for name in names)
    assert not any(set(name) & set('*?<>|: /\\"') for name in names)


def test_the_plugin_is_registered_and_imports_nothing_of_minires():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"minires": "pytest_minires"}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {PLUGIN.relative_to(ROOT).as_posix(): PLUGIN.name}
    code = "import sys, pytest_minires; print(any(name.partition('.')[0] in ('minires', 'numpy') for name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PLUGIN.parent)
    assert found.stdout.strip() == "False"


def test_installed_means_found():
    points = importlib.metadata.entry_points(group="pytest11", name="minires")
    if not points:
        pytest.skip("minires is not installed here, only on the path")
    assert {point.value for point in points} == {"pytest_minires"}
