"""Sample inputs for interpolate, with a loop over the output pixels as the reference."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample


def _pair(value: Any) -> tuple[Any, Any]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _source(i: int, old: int, new: int, factor: float | None, mode: str, align_corners: bool) -> float:
    """Where output pixel i of an axis looks in the input; for nearest already rounded down."""
    if old == new and mode != "nearest-exact":
        return i
    if mode == "nearest" and new == 2 * old:
        return i // 2  # PyTorch forgets a factor that only rounds down to 2
    step = 1 / factor if factor else old / new
    if mode == "nearest":
        return min(floor(np.float32(i) * np.float32(step)), old - 1)
    if mode == "nearest-exact":
        return min(floor(np.float32(i + 0.5) * np.float32(step)), old - 1)
    if align_corners:
        return i * (old - 1) / (new - 1) if new > 1 else 0
    return min(max((i + 0.5) * step - 0.5, 0), old - 1)


def interpolate_loops(x, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """Each output pixel mixes its four neighbours by its distances from them."""
    factors = _pair(scale_factor)
    old = x.shape[-2:]
    new = _pair(size) if size is not None else tuple(floor(n * f) for n, f in zip(old, factors, strict=True))
    y = np.empty((*x.shape[:-2], *new))
    for i, j in np.ndindex(*new):
        h, w = (_source(k, old[a], new[a], factors[a], mode, bool(align_corners)) for a, k in enumerate((i, j)))
        top, left = floor(h), floor(w)
        bottom, right = min(top + 1, old[0] - 1), min(left + 1, old[1] - 1)
        upper = (1 - (w - left)) * x[..., top, left] + (w - left) * x[..., top, right]
        lower = (1 - (w - left)) * x[..., bottom, left] + (w - left) * x[..., bottom, right]
        y[..., i, j] = (1 - (h - top)) * upper + (h - top) * lower
    return y


def _resize(name: str, shape: tuple[int, ...], size: Any = None, factor: Any = None, **options: Any) -> Sample:
    if factor is not None:
        options["scale_factor"] = factor
    make = lambda rng: ((rng.standard_normal(shape), size), options)  # noqa: E731
    return Sample(f"interpolate-{name}", F.interpolate, make, interpolate_loops)


SAMPLES = [
    *(
        _resize(f"{mode}-{name}", shape, size, factor, mode=mode)
        for mode in ("nearest", "nearest-exact", "bilinear")
        for name, shape, size, factor in [
            ("size", (2, 3, 2, 4), (5, 3), None),
            ("square", (2, 2, 2, 2), 4, None),
            ("smaller", (1, 2, 5, 7), (2, 3), None),
            ("same", (1, 2, 3, 4), (3, 4), None),
            ("factor", (1, 2, 3, 4), None, 2.3),
            ("factors", (2, 1, 5, 4), None, (1.5, 0.6)),
            ("factor-below-2", (1, 2, 3, 2), None, 1.7),
            ("no-images", (0, 2, 3, 4), (4, 2), None),
        ]
    ),
    _resize("nearest-factor-rounds-to-2", (1, 2, 4, 3), None, 2.1),
    _resize("bilinear-corners", (2, 3, 2, 4), (5, 3), mode="bilinear", align_corners=True),
    _resize("bilinear-corners-square", (1, 2, 2, 2), (4, 4), mode="bilinear", align_corners=True),
    _resize("bilinear-corners-smaller", (1, 2, 5, 7), (2, 4), mode="bilinear", align_corners=True),
    _resize("bilinear-corners-to-one", (1, 2, 3, 4), (1, 6), mode="bilinear", align_corners=True),
    _resize("bilinear-corners-from-one", (1, 2, 1, 3), (4, 5), mode="bilinear", align_corners=True),
    _resize("bilinear-corners-factor", (1, 2, 3, 4), None, (2.5, 1.8), mode="bilinear", align_corners=True),
    _resize("bilinear-no-corners", (1, 2, 4, 3), (7, 5), mode="bilinear", align_corners=False),
]


def _call(shape: tuple[int, ...], *args: Any, **options: Any) -> Any:
    return lambda: F.interpolate(np.zeros(shape), *args, **options)


BAD_CALLS = [
    BadCall("interpolate-rank", _call((2, 3, 4), 2), r"(?s)interpolate: input must have 4 axes.*\(2, 3, 4\)", ShapeError),
    BadCall("interpolate-neither", _call((1, 2, 3, 4)), "exactly one of size and scale_factor"),
    BadCall("interpolate-both", _call((1, 2, 3, 4), 2, 2.0), "exactly one of size and scale_factor"),
    BadCall("interpolate-mode", _call((1, 2, 3, 4), 2, mode="cubic"), "mode must be one of 'nearest', .*got 'cubic'"),
    BadCall("interpolate-corners", _call((1, 2, 3, 4), 2, align_corners=True), "align_corners is an option of mode"),
    BadCall("interpolate-size", _call((1, 2, 3, 4), (1, 2, 3)), "size must be one integer or two"),
    BadCall("interpolate-factor", _call((1, 2, 3, 4), None, -1), "scale_factor must be one number or two, above 0"),
    BadCall("interpolate-vanishes", _call((1, 2, 3, 4), None, 0.3), r"(?s)at least 1.*\(0, 1\).*H=3", ShapeError),
    BadCall("interpolate-integers", lambda: F.interpolate(np.ones((1, 1, 2, 2), int), 3, mode="bilinear"),
            r"needs floating point input, got int64", TypeError),
]  # fmt: skip
