"""Reports made by hand, as a check would make them: for the tests of how a report is shown."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.checking.report import Coverage, Diagnosis, InputReport, Maps, Report, Worst

Array = np.ndarray[Any, Any]

COVERAGE = Coverage(elements=252, of=252, directions=4, points=2, upstreams=2, dtype="float64")
BORDER = Diagnosis(
    "border_missing",
    "windows at the border give no gradient, all others are right: padding mishandled",
    {"ring": np.int64(1), "share": np.float64(0.5), "axes": (2, 3)},
)
OFFSET = Diagnosis("window_offset_skipped", "the entries of kernel offset (0, 1) are missing: look at the loop's bounds")


def report(*inputs: InputReport, **changes: Any) -> Report:
    given: dict[str, Any] = {
        "function": "conv2d", "reference": "complex step", "order": 1, "seed": 0, "coverage": COVERAGE, "hints": "full",
    }  # fmt: skip
    return Report(**{**given, **changes}, inputs=list(inputs))


def right(name: str = "w", shape: tuple[int, ...] = (4, 3, 3, 2), maps: bool = True, **changes: Any) -> InputReport:
    rng = np.random.default_rng(1)
    numeric = rng.standard_normal(shape)
    found = Maps(numeric * (1 + 1e-16), numeric, np.full(shape, 1e-12)) if maps else None
    return InputReport(name, shape, "right", 0, numeric.size, maps=found, **changes)


def wrong(
    name: str = "x",
    shape: tuple[int, ...] = (2, 3, 5, 6),
    output: tuple[int, ...] | None = (2, 4, 5, 6),
    diagnosis: tuple[Diagnosis, ...] = (BORDER, OFFSET),
    jacobians: bool = False,
) -> InputReport:
    """The gradient of the border is missing, in the last two axes."""
    numeric = np.random.default_rng(2).standard_normal(shape)
    analytic = numeric * inner(shape)
    errors = None if output is None else [np.where(inner(output), 1e-15, np.random.default_rng(3).uniform(0.2, 1, output))]
    pair = None
    if jacobians:
        full = np.random.default_rng(4).standard_normal((int(np.prod(output or (1,))), numeric.size))
        pair = full * inner(shape).ravel(), full
    maps = Maps(analytic, numeric, np.full(shape, 1e-12), errors, pair)
    bad = np.argwhere(analytic != numeric)
    index = tuple(int(k) for k in bad[0]) if len(bad) else (0,) * len(shape)
    worst = Worst(index, 0.0, float(numeric[index]), 1e-12)
    return InputReport(name, shape, "wrong", len(bad), numeric.size, worst=worst, diagnosis=diagnosis, maps=maps)


def undecidable(name: str = "x", shape: tuple[int, ...] = (3, 4)) -> InputReport:
    size = int(np.prod(shape))
    return InputReport(name, shape, "undecidable", 0, size, kinks=size - 2, unknown=2)


def inner(shape: tuple[int, ...]) -> Array:
    """False at the border of the last two axes."""
    mask = np.ones(shape, bool)
    for axis in range(max(0, len(shape) - 2), len(shape)):
        at = np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))])
        mask &= (at > 0) & (at < shape[axis] - 1)
    return mask
