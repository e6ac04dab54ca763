"""Fixtures for several folders of tests."""

from __future__ import annotations

import gc

import pytest

from minires import memory


@pytest.fixture
def nothing_stays_locked():
    """A test gives back all locks, also if something fails in it."""
    gc.collect()
    before = len(memory._held)
    yield
    gc.collect()
    assert len(memory._held) == before
