"""Fixtures for the tests of the CUDA backend: a stand-in for CuPy always, the real one where there is a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.cuda import shim
from tests.cuda import standin as stand_in
from tests.cuda.gpu import why_no_gpu


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a GPU one skipped case stands for all cases of a test function, so that a report stays readable."""
    if not why_no_gpu():
        return
    seen: set[Any] = set()
    spare = []
    for item in items:
        if item.get_closest_marker("gpu"):
            function = item.nodeid.partition("[")[0]
            (spare if function in seen else []).append(item)
            seen.add(function)
    if spare:
        config.hook.pytest_deselected(items=spare)
        left = set(spare)
        items[:] = [item for item in items if item not in left]


@pytest.fixture
def standin() -> Iterator[ModuleType]:
    """The strict stand-in as ``cupy`` for one test."""
    with stand_in.installed() as module:
        yield module


@pytest.fixture
def real_cupy() -> ModuleType:
    """The real CuPy; the test is skipped, visibly, where it or a GPU is missing."""
    reason = why_no_gpu()
    if reason:
        pytest.skip(reason)
    import cupy

    return cupy


@pytest.fixture(params=["standin", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest) -> ModuleType:
    """A test runs twice: on the stand-in, and on a GPU."""
    return request.getfixturevalue("standin" if request.param == "standin" else "real_cupy")


@pytest.fixture(params=["ascending", "descending"])
def lanes(request: pytest.FixtureRequest) -> Iterator[str]:
    """A test runs twice: the threads of a block take turns in one order, then in the other (see tests/cuda/shim)."""
    with shim.lane_order(descending=request.param == "descending"):
        yield request.param
