"""The peak of a step, each side in a process of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minires.bench import memory, networks, tables

DIGITS = replace(networks.of_device("cpu", quick=True)[0], batch_size=2)


def test_a_process_of_its_own():
    found = memory.measure(DIGITS, memory.SIDES[:1])
    (row,) = found["rows"]
    assert "error" not in row
    assert 1 << 20 < row["peak"] < 1 << 29  # two images of 29×29
    assert row["before"] > 1 << 24  # Python and NumPy
    assert "digits" in tables.memory([found])


def test_the_peak_is_that_of_the_work():
    def work():
        assert np.ones(1 << 23, np.float64).sum() > 0  # 64 MiB

    found = memory.peak_of(work)
    if found["method"].startswith("VmHWM"):
        assert 60 << 20 < found["peak"] < 80 << 20


def test_without_clear_refs_the_whole_process_counts(monkeypatch):
    monkeypatch.setattr(memory, "_begin_anew", lambda: False)
    found = memory.peak_of(lambda: None)
    assert found["method"].startswith("getrusage")
    assert found["peak"] >= 0


def test_ratios_and_what_failed():
    peaks = {"minires": 1 << 20, "torch, NCHW": 1 << 21}

    def run(side, network):
        if side not in peaks:
            raise MemoryError("no memory is left")
        return {"before": 1 << 22, "peak": peaks[side], "method": "guessing"}

    found = memory.measure(DIGITS, memory.SIDES, run)
    assert [row.get("ratio") for row in found["rows"]] == [None, 0.5, None]
    text = tables.memory([found])
    assert "0.50" in text
    assert "torch, channels_last: no memory is left" in text


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        memory._in_process("minires", replace(DIGITS, name="nobody"))
