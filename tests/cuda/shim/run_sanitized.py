"""Tests of kernels with every memory access watched: ``python -m tests.cuda.shim.run_sanitized [--cases N] [FILE ...]``.

AddressSanitizer has to be in a process from its start, hence a process of its own. One order of the threads is enough for
it, and ``--cases 10`` keeps at most ten cases of each test, spread over all of them. Other options are pytest's; without
files, all tests of kernels run. (This module is also the pytest plugin that picks the cases.)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cuda import shim

__all__ = ["kernel_tests", "run"]

TESTS = Path(__file__).parents[1]
PLUGIN = "tests.cuda.shim.run_sanitized"
OPTIONS = ("-q", "-x", "--no-header", "-p", PLUGIN, "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov")


def kernel_tests() -> list[str]:
    """The test files that run kernels in both orders of the threads."""
    texts = {str(path): path.read_text(encoding="utf-8") for path in sorted(TESTS.glob("test_*.py"))}
    return [path for path, text in texts.items() if re.search(r"\b(lanes|lane_order)\b", text)]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run pytest; its output holds the sanitizer's report if there is one."""
    files = (
        []
        if any(not each.startswith("-") and each.partition("::")[0].endswith(".py") for each in arguments)
        else kernel_tests()
    )
    command = [sys.executable, "-m", "pytest", *OPTIONS, *arguments, *files]
    environment = shim.sanitizer_environment()
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=TESTS.parents[1])


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--cases", type=int, default=0, help="at most so many cases of each test (0: all)")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Drop the second order of threads, the real GPU, and all but some of the cases of each test."""
    tests: dict[str, list[Any]] = {}
    for item in items:
        if not {"descending", "gpu"} & set(re.split(r"[\[\]-]", item.nodeid)):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    most = config.getoption("cases")
    kept = [item for cases in tests.values() for item in (_spread(cases, most) if most else cases)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _spread(cases: list[Any], most: int) -> list[Any]:
    """At most so many of ``cases``. The distance between them is no divisor of how often parameters repeat, mostly."""
    count = min(most, len(cases))
    return [cases[i * len(cases) // count] for i in range(count)]


if __name__ == "__main__":
    done = run(sys.argv[1:])
    print(done.stdout, done.stderr, sep=os.linesep)
    sys.exit(done.returncode)
