"""The profiler on the stand-in: it waits for the device around every op, and measures limits by events."""

from __future__ import annotations

import numpy as np
import pytest

from minires import bench, models
from minires.bench import profiling
from tests.cuda import shim
from tests.cuda.standin import total_syncs

needs_shim = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))


@needs_shim
def test_a_step_on_a_device(standin, monkeypatch):
    monkeypatch.setitem(profiling._SIZES, "cuda", (1 << 12, 16, 2, 2))
    monkeypatch.setattr(standin.cuda, "get_elapsed_time", lambda start, end: 1.0)
    model = models.small_attention(3, widths=(16,), depths=(1,), stem=8, min_size=8).to("cuda")
    images = np.random.default_rng(0).standard_normal((2, 1, 9, 9)).astype(np.float32)
    before = total_syncs()
    found = bench.profile(model, images, np.array([0, 2]), steps=1)
    rows = {(row.name, row.part): row for row in found.rows}
    calls = sum(row.calls for row in found.rows if row.is_op)
    assert total_syncs() - before >= 2 * calls
    assert rows["gated_residual", "forward"].calls == rows["gated_residual", "backward"].calls == 1
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert sum(row.kept for row in found.rows) > 0
    assert found.copy > 0
    assert found.product > 0
    assert "the GPU is waited for before and after each op" in str(found)
    assert all(parameter.device.startswith("cuda") for parameter in model.parameters())
