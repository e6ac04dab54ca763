"""The pytest fixture ``gradcheck``: a wrong gradient fails the test, and the report is the failure's text.

pytest finds it through ``pytest_minires.py``, which imports this module when a test asks for the fixture.
"""

from __future__ import annotations

import os
import shlex
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires import checking
from minires.checking.report import Report

if TYPE_CHECKING:
    import pytest

__all__ = ["Gradcheck"]

LONGEST = 150  # characters of a file's name


class Gradcheck:
    """Call it like :func:`minires.gradcheck`; ``pair`` and ``model`` are like ``gradcheck_pair`` and ``gradcheck_model``.

    Each returns the report if every gradient is right, and raises AssertionError with the report as its text otherwise.
    With ``--gradcheck-artifacts=DIR``, a JSON file and a picture of it are left in DIR.

    Args:
        request: pytest's own, of the test.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._failures = 0
        _hide_ours()

    def __call__(self, fn: Callable[..., Any], inputs: Any, **options: Any) -> Report:
        """See :func:`minires.gradcheck`."""
        __tracebackhide__ = True
        return self._judge(checking.gradcheck(fn, inputs, **options))

    def pair(self, forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any, **options: Any) -> Report:
        """See :func:`minires.gradcheck_pair`."""
        __tracebackhide__ = True
        return self._judge(checking.gradcheck_pair(forward, backward, inputs, **options))

    def model(self, model: Any, x: Any, y: Any, loss: Any = None, **options: Any) -> Report:
        """See :func:`minires.gradcheck_model`."""
        __tracebackhide__ = True
        return self._judge(checking.gradcheck_model(model, x, y, loss, **options))

    def _judge(self, report: Report) -> Report:
        __tracebackhide__ = True
        if report.ok:
            return report
        report = replace(report, reproduce=f"pytest {shlex.quote(self._test())}  # seed {report.seed}")
        self._failures += 1
        self._keep(report)
        raise AssertionError(str(report))

    def _test(self) -> str:
        """The test's name as it is given to pytest, from the directory that pytest was started in."""
        node = self._request.node
        _, separator, name = node.nodeid.partition("::")
        path = Path(os.path.relpath(node.path, self._request.config.invocation_params.dir))
        return f"{path.as_posix()}{separator}{name}"

    def _keep(self, report: Report) -> None:
        """Write the JSON and the picture, if there is a directory for them, and say so in the test's report."""
        directory = self._request.config.getoption("--gradcheck-artifacts", None)
        if not directory:
            return
        folder = Path(self._request.config.invocation_params.dir, directory)
        folder.mkdir(parents=True, exist_ok=True)
        name = file_name(self._request.node.nodeid) + (f"-{self._failures}" if self._failures > 1 else "")
        data, picture = folder / f"{name}.json", folder / f"{name}.png"
        data.write_text(report.to_json() + "\n", encoding="utf-8")
        report.plot(picture)
        self._request.node.add_report_section("call", "gradcheck", f"{data}\n{picture}")


def _hide_ours() -> None:
    """Let pytest leave the checker out of tracebacks: an error in a checked function then follows the test's own line."""
    for name, module in list(sys.modules.items()):
        if name.startswith("minires.checking") and module is not None:
            vars(module)["__tracebackhide__"] = True


def file_name(test: str) -> str:
    """A file's name for a test: ``tests/test_ops.py::test_conv[3]`` as ``tests.test_ops.test_conv[3]``.

    Where a character is not allowed in file names on every system, or the name is too long, a checksum keeps it unique.
    """
    readable = test.replace(".py::", ".").replace("::", ".").replace("/", ".")
    safe = "".join(c if c.isalnum() or c in "._-[]=,+@" else "_" for c in readable)
    if safe == readable and len(safe) <= LONGEST:
        return safe
    return f"{safe[:LONGEST]}-{zlib.crc32(test.encode()):08x}"
