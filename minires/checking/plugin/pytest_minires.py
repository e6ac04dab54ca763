"""What pytest loads when minires is installed: the fixture ``gradcheck`` and the option ``--gradcheck-artifacts``.

It stands outside the package, since pytest imports a plugin at every start, whether it is used or not: importing the package
would cost every project in the same environment NumPy's start, and would hide minires' own import from pytest-cov. What the
fixture does is in :mod:`minires.checking.pytest_plugin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from minires.checking.pytest_plugin import Gradcheck

__all__ = ["gradcheck", "pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("minires", "gradient checks of minires").addoption(
        "--gradcheck-artifacts", metavar="DIR", default=None,
        help="where the fixture gradcheck leaves a JSON file and a picture of every failing check",
    )  # fmt: skip


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Gradcheck:
    """Checks gradients like minires.gradcheck (also: .pair, .model); the test fails with the report as its text."""
    from minires.checking.pytest_plugin import Gradcheck

    return Gradcheck(request)
