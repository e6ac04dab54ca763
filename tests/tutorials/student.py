"""Tutorials as text: which cells they have, the student's version, answers put in place of the solution; and their run.

A tutorial is a Python file whose cells begin with ``# %%`` (jupytext's percent format). What a student is to write stands
between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, as nbgrader marks it. So everything here is a matter of a few lines.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from traitlets.config import Config

SOLUTION = re.compile(r"(?ms)^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION\n?")
BLANK = "# YOUR CODE HERE\nraise NotImplementedError()"


def with_answer(source: str, answer: str = BLANK) -> str:
    """``source`` with ``answer``, by default the student's blank, in place of every solution and indented as it was."""

    def indented(match: re.Match[str]) -> str:
        return "".join(f"{match[1]}{line}\n" if line else "\n" for line in answer.splitlines())

    return SOLUTION.sub(indented, source)


def is_solution(cell: Any) -> bool:
    """Whether the student is to write in this cell."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def is_graded(cell: Any) -> bool:
    """Whether this cell checks an answer."""
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def is_setup(cell: Any) -> bool:
    """Whether exercises need this cell: it imports what the notebook uses."""
    return "setup" in cell.metadata.get("tags", [])


def execute(notebook: Any, directory: str | Path, timeout: int = 600) -> None:
    """Run a notebook in ``directory`` with a kernel of its own; outputs are put into it, times are not.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises.
    """
    with tempfile.TemporaryDirectory() as sockets:  # files rather than ports, which other users of the machine could hear
        config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        resources = {"metadata": {"path": str(directory)}}
        NotebookClient(
            notebook, timeout=timeout, record_timing=False, coalesce_streams=True, resources=resources, config=config
        ).execute()
