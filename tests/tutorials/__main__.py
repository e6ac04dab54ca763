"""``python -m tests.tutorials [NAME...]``: make the committed notebooks of the tutorials' sources, and run them.

Cell ids of cells that were there before are kept, and no times or versions are recorded. So a notebook changes only where
its source or its outputs did.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from tests.tutorials.student import execute

TUTORIALS = Path(__file__).parents[2] / "tutorials"


def update(source: Path) -> None:
    """Write the notebook beside ``source``, with outputs."""
    subprocess.run([sys.executable, "-m", "jupytext", "--quiet", "--to", "ipynb", "--update", str(source)], check=True)
    path = source.with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as scratch:
        execute(notebook, scratch)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for each in sorted(TUTORIALS.glob("[0-9][0-9]_*.py")):
        if not sys.argv[1:] or each.stem in sys.argv[1:]:
            print(each.stem)
            update(each)
