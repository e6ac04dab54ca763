"""The same random weights in every test, whichever tests run."""

from __future__ import annotations

import pytest

import minires as mr


@pytest.fixture(autouse=True)
def seeded() -> None:
    mr.random.manual_seed(3)
