"""A job that takes a second, for the tests of training, pictures and the command line."""

from __future__ import annotations

from minires.training import Job

#: 16×16 canvases, 8 channels, 3 steps an epoch.
TINY = Job(
    canvas=16, digit=12, clutter=1, train_images=40, test_images=24, batch_size=16, epochs=2, warmup=0.0,
    options={"widths": (8, 8), "depths": (1, 1), "stem": 4, "after": 0, "t": 1},
)  # fmt: skip
