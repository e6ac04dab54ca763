"""The tutorials run, their two files agree, and their exercises can tell right answers from wrong ones."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

from tests.tutorials.student import BLANK, execute, is_graded, is_setup, is_solution, with_answer

TUTORIALS = sorted((Path(__file__).parents[2] / "tutorials").glob("[0-9][0-9]_*.py"))

#: Wrong answers that students give, by exercise. Each must lose the graded check.
WRONG = {
    "silu": {
        "forgets the second term": "return dy * F.sigmoid(input)",
        "forgets the upstream gradient": "s = F.sigmoid(input)\nreturn s + input * s * (1 - s)",
        "takes x for σ in σ′": "return dy * (F.sigmoid(input) + input * input * (1 - input))",
        "forgets the factor x": "s = F.sigmoid(input)\nreturn dy * (s + s * (1 - s))",
        "flips a sign": "s = F.sigmoid(input)\nreturn dy * (s - input * s * (1 - s))",
        "is right, but not for Tensors": "s = 1 / (1 + np.exp(-np.asarray(input)))\nreturn dy * (s + input * s * (1 - s))",
    },
    "soft-gate": {
        "forgets the sigmoid": "return dy * (1 + F.sigmoid(scores)), dy * trunk",
        "is naive attention": "m = F.sigmoid(scores)\nreturn dy * m, dy * trunk * m * (1 - m)",
        "takes z for M in σ′": "m = F.sigmoid(scores)\nreturn dy * (1 + m), dy * trunk * scores * (1 - scores)",
        "swaps the two": "m = F.sigmoid(scores)\nreturn dy * trunk * m * (1 - m), dy * (1 + m)",
        "forgets the upstream gradient": "m = F.sigmoid(scores)\nreturn 1 + m, trunk * m * (1 - m)",
        "forgets the features": "m = F.sigmoid(scores)\nreturn dy * (1 + m), dy * m * (1 - m)",
        "is naive and forgets the sigmoid": "m = F.sigmoid(scores)\nreturn dy * m, dy * trunk",
    },
}


def read(path: Path, answer: str | None = None) -> Any:
    source = path.read_text(encoding="utf-8")
    return jupytext.reads(source if answer is None else with_answer(source, answer), fmt="py:percent")


def code(notebook: Any, *wanted: Any) -> list[Any]:
    """The code cells for which one of the questions ``wanted`` is answered by yes; all if there is none."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if not wanted or any(ask(cell) for ask in wanted)]


def run(cells: list[Any]) -> dict[str, Any]:
    """Run cells one after the other, as a notebook would."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(cell.source, "<cell>", "exec", dont_inherit=True), names)
    return names


def run_exercise(path: Path, answer: str | None = None) -> dict[str, Any]:
    """Run what an exercise needs: the imports, the cell in which the student writes, and the check."""
    return run(code(read(path, answer), is_setup, is_solution, is_graded))


def grade_id(path: Path) -> str:
    (cell,) = code(read(path), is_solution)
    return str(cell.metadata["nbgrader"]["grade_id"])


by_notebook = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
wrong_answers = pytest.mark.parametrize(
    ("path", "answer"),
    [pytest.param(p, answer, id=f"{p.stem}: {what}") for p in TUTORIALS for what, answer in WRONG[grade_id(p)].items()],
)


@pytest.mark.slow
@by_notebook
def test_source_executes(path: Path, tmp_path: Path) -> None:
    notebook = read(path)
    execute(notebook, tmp_path, timeout=180)
    for cell in code(notebook):
        for output in cell.outputs:
            assert output.get("name") != "stderr", f"a cell warns:\n{cell.source}\n{output.text}"


@by_notebook
def test_committed_notebook_is_in_step(path: Path) -> None:
    committed = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(committed)
    source = read(path)
    assert [(c.cell_type, c.source) for c in committed.cells] == [(c.cell_type, c.source) for c in source.cells]
    assert [c.metadata.get("nbgrader") for c in committed.cells] == [c.metadata.get("nbgrader") for c in source.cells]


@by_notebook
def test_committed_notebook_has_been_run(path: Path) -> None:
    cells = code(nbformat.read(path.with_suffix(".ipynb"), as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = nbformat.writes(nbformat.from_dict({**nbformat.v4.new_notebook(), "cells": cells}))
    here = str(TUTORIALS[0].parents[1])
    assert not any(place in text for place in ("/home/", "/root/", "site-packages", here))  # no paths of a machine


@by_notebook
def test_exercise_metadata(path: Path) -> None:
    solutions, checks = code(read(path), is_solution), code(read(path), is_graded)
    assert solutions and len(solutions) == len(checks)
    for cell in [*solutions, *checks]:
        meta = cell.metadata["nbgrader"]
        assert set(meta) >= {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
        assert meta["schema_version"] == 3 and meta["task"] is False
        assert meta["locked"] is meta["grade"] is not meta["solution"]
    for check in checks:
        assert check.metadata["nbgrader"]["points"] > 0
        assert "assert " in check.source


@by_notebook
def test_student_version(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    stripped = with_answer(source)
    ast.parse(stripped)
    assert "SOLUTION" not in stripped and stripped.count("raise NotImplementedError()") == source.count("### BEGIN SOLUTION")
    for cell in code(read(path), is_solution):  # nothing of the solution is left in the student's cell
        secret = cell.source.partition("### BEGIN SOLUTION\n")[2].partition("### END SOLUTION")[0].strip()
        assert secret and secret not in stripped
    with pytest.raises(NotImplementedError):
        run_exercise(path, BLANK)


@by_notebook
def test_right_answer_passes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_exercise(path)
    assert "Well done" in capsys.readouterr().out


@wrong_answers
def test_wrong_answer_fails(path: Path, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        run_exercise(path, answer)
    assert "Well done" not in capsys.readouterr().out
