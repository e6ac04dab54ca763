"""Sample inputs for arithmetic. The references are NumPy's own operators."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample

Shape = tuple[int, ...]


def _unary(op: Callable[..., Any], reference: Callable[..., Any], low: float = -3, high: float = 3) -> Sample:
    return Sample(op.name, op, lambda rng: ((rng.uniform(low, high, (2, 3, 4)),), {}), reference)


def _binary(name: str, op: Any, reference: Callable[..., Any], a: Shape, b: Shape, positive: bool) -> Sample:
    def make(rng):
        values = [rng.uniform(0.4, 2, shape) if positive else rng.standard_normal(shape) for shape in (a, b)]
        return tuple(values), {}

    return Sample(name, op, make, reference, lambda torch, *v: reference(*v))


def _scalar(
    name: str, op: Any, reference: Callable[..., Any], scalar: Any, first: bool = False, positive: bool = False
) -> Sample:
    def make(rng):
        x = rng.uniform(0.4, 2, (3, 4)) if positive else rng.standard_normal((3, 4))
        return ((scalar, x) if first else (x, scalar)), {}

    return Sample(name, op, make, reference, lambda torch, *v: reference(*v))


BOUNDS = [{"min": -0.5}, {"max": 0.3}, {"min": -0.5, "max": 0.3}]
SHAPES = r"{}: .*\n.*\(2, 3\)\n.*\(4,\)"


def _fixed(name: str, op: Any, reference: Callable[..., Any], *args: Any, torch: Any = None, **kwargs: Any) -> Sample:
    """At a tie or a kink: nothing random, nothing to differentiate numerically."""
    copies = lambda: tuple(np.array(a) if isinstance(a, list) else a for a in args)  # noqa: E731
    return Sample(name, op, lambda rng: (copies(), kwargs), reference, torch, smooth=False)


def _pairs(name: str, op: Any, reference: Callable[..., Any], positive: bool = False) -> list[Sample]:
    """Equal shapes; broadcasting of both operands; an operand without axes."""
    return [
        _binary(name, op, reference, (2, 3), (2, 3), positive),
        _binary(f"{name}-broadcast", op, reference, (3, 1, 4), (2, 1), positive),
        _binary(f"{name}-0d", op, reference, (2, 3), (), positive),
    ]


def _loop_clip(x: np.ndarray, min: Any = None, max: Any = None) -> np.ndarray:
    bounds = [[b] * x.size if b is None or np.ndim(b) == 0 else b.ravel() for b in (min, max)]
    values = [v if low is None or v > low else low for v, low in zip(x.ravel(), bounds[0], strict=True)]
    return np.reshape([v if high is None or v < high else high for v, high in zip(values, bounds[1], strict=True)], x.shape)


SAMPLES = [
    *_pairs("add", F.add, operator.add),
    *_pairs("sub", F.sub, operator.sub),
    *_pairs("mul", F.mul, operator.mul),
    *_pairs("div", F.div, operator.truediv, positive=True),
    *_pairs("pow", F.pow, operator.pow, positive=True),
    _scalar("add-scalar", F.add, operator.add, 2.5),
    _scalar("sub-reflected", F.sub, operator.sub, 2, first=True),
    _scalar("mul-scalar", F.mul, operator.mul, -3),
    _scalar("div-reflected", F.div, operator.truediv, 1.5, first=True, positive=True),
    *[_scalar(f"pow-{n}", F.pow, operator.pow, n) for n in (0, 1, 2, 3, -1, True)],
    *[_scalar(f"pow-{n}", F.pow, operator.pow, n, positive=True) for n in (0.5, -1.5)],
    _scalar("pow-reflected", F.pow, operator.pow, 2, first=True),
    _fixed("pow-at-zero", F.pow, operator.pow, [0.0, 0.0, 0.0, 2.0], [0.0, 1.0, 2.0, 0.0]),
    _fixed("pow-2-at-zero", F.pow, operator.pow, [0.0, -1.0], 2),
    _fixed("pow-0-at-infinity", F.pow, operator.pow, [np.inf, 1.0, 0.0], 0),
    _fixed("pow-whole-numbers", F.pow, operator.pow, [-0.5, 0, 0, 0, 0, 0, np.inf, -0.5, 3], [0, 0, 0, 0, 0, 0, 0, 3, 2]),
    _unary(F.neg, operator.neg),
    _unary(F.exp, np.exp),
    _unary(F.log, np.log, 0.2),
    _unary(F.sqrt, np.sqrt, 0.2),
    _unary(F.sin, np.sin),
    _unary(F.cos, np.cos),
    _unary(F.abs, np.abs),
    _fixed("abs-at-zero", F.abs, np.abs, [-1.0, 0.0, 2.0]),
    *[
        Sample(
            f"{op.name}{kind}", op, lambda rng, b=b: ((rng.standard_normal((4, 3)), rng.standard_normal(b)), {}), reference
        )
        for op, reference in ((F.maximum, np.maximum), (F.minimum, np.minimum))
        for kind, b in (("", (4, 3)), ("-broadcast", (4, 1)))
    ],
    _fixed("maximum-ties", F.maximum, np.maximum, [1.0, 2.0, 3.0], [3.0, 2.0, 3.0]),
    _fixed("minimum-ties", F.minimum, np.minimum, [1.0, 2.0, 3.0], [3.0, 2.0, 3.0]),
    Sample(
        "where",
        F.where,
        lambda rng: ((rng.random((3, 1)) > 0.5, rng.standard_normal((3, 4)), rng.standard_normal(4)), {}),
        np.where,
    ),
    Sample(
        "where-scalar", F.where, lambda rng: ((rng.random((3, 4)) > 0.5, rng.standard_normal((3, 4)), 0.0), {}), np.where
    ),
    *[
        Sample(f"clamp-{'-'.join(limits)}", F.clamp, lambda rng, o=limits: ((rng.standard_normal((4, 5)),), o), _loop_clip)
        for limits in BOUNDS
    ],
    _fixed("clamp-at-the-bounds", F.clamp, _loop_clip, [-2.0, -1.0, 0.0, 1.0, 2.0], min=-1.0, max=1.0),
    _fixed("clamp-at-tensor-min", F.clamp, _loop_clip, [-2.0, -1.0, 0.0], [-1.0, -1.0, -1.0]),
    _fixed("clamp-at-tensor-max", F.clamp, _loop_clip, [2.0, 1.0, 0.0], None, [1.0, 1.0, 1.0]),
    _fixed("clamp-at-tensors", F.clamp, _loop_clip, [-2.0, -1.0, 0.0, 1.0, 2.0], [-1.0] * 5, [1.0] * 5),
    _fixed("clamp-between-equals", F.clamp, _loop_clip, [-2.0, 2.0], [1.0] * 2, [1.0] * 2,
           torch="PyTorch gives what is below two equal bounds to neither of them, we give it to min"),
    Sample(
        "clamp-tensor-max",
        F.clamp,
        lambda rng: ((rng.standard_normal((4, 5)), None, rng.standard_normal((4, 1))), {}),
        lambda x, low, high: _loop_clip(x, low, np.broadcast_to(high, x.shape)),
    ),
    Sample(
        "clamp-tensors",
        F.clamp,
        lambda rng: ((rng.standard_normal((4, 5)) * 2, np.linspace(-2, 0.9, 5), np.array([[0.5], [1], [0.2], [-0.3]])), {}),
        lambda x, low, high: _loop_clip(*np.broadcast_arrays(x, low, high)),
    ),
    Sample(
        "clamp-tensor-min",
        F.clamp,
        lambda rng: ((rng.standard_normal((4, 5)), rng.standard_normal((2, 1, 5))), {}),
        lambda x, low: _loop_clip(*np.broadcast_arrays(x, low)),
    ),
    Sample(
        "floor_divide",
        F.floor_divide,
        lambda rng: ((rng.uniform(-5, 5, (3, 4)), rng.uniform(0.5, 2, 4)), {}),
        np.floor_divide,
        lambda torch, a, b: torch.floor(a / b),
        complex=False,
    ),
    Sample(
        "remainder",
        F.remainder,
        lambda rng: ((rng.uniform(-5, 5, (3, 4)), rng.uniform(0.5, 2, 4)), {}),
        np.remainder,
        complex=False,
    ),
]


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


BAD_CALLS = [
    *[
        BadCall(f"{op.name}-shapes", lambda op=op: op(_zeros(2, 3), _zeros(4)), SHAPES.format(op.name), ShapeError)
        for op in (F.add, F.sub, F.mul, F.div, F.pow, F.maximum, F.minimum, F.floor_divide, F.remainder)
    ],
    BadCall(
        "where-shapes", lambda: F.where(_zeros(5) > 0, _zeros(2, 3), 0), r"where: (.|\n)*\(5,\)(.|\n)*\(2, 3", ShapeError
    ),
    BadCall("clamp-no-bounds", lambda: F.clamp(_zeros(2)), "clamp: at least one"),
    BadCall("clamp-shapes", lambda: F.clamp(_zeros(2, 3), _zeros(4)), r"clamp: (.|\n)*\(2, 3\)(.|\n)*\(4,\)", ShapeError),
    BadCall("add-text", lambda: F.add(_zeros(2), "1"), "add: 'other' must be", TypeError),
    BadCall("add-missing", lambda: F.add(_zeros(2)), "add: missing argument 'other'", TypeError),
    BadCall("exp-unknown-option", lambda: F.exp(_zeros(2), out=3), "exp: .*'out'", TypeError),
]
