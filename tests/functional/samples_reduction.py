"""Sample inputs for reductions. The references loop over the results and compute each from a list of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample


def over(function: Callable[[list[float]], float]) -> Callable[..., np.ndarray]:
    """A function of a list of numbers as a reduction with ``dim`` and ``keepdim``."""

    def reduce(x: np.ndarray, dim: Any = None, keepdim: bool = False) -> np.ndarray:
        dims = range(x.ndim) if dim is None else dim if isinstance(dim, tuple) else (dim,)
        axes = {d % x.ndim for d in dims}
        out = np.empty([1 if i in axes else n for i, n in enumerate(x.shape)])
        for index in np.ndindex(out.shape):
            piece = x[tuple(slice(None) if axis in axes else i for axis, i in enumerate(index))]
            out[index] = function(piece.ravel().tolist())
        return out if keepdim else out.squeeze(tuple(axes))

    return reduce


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _variance(correction: int) -> Callable[[list[float]], float]:
    return lambda values: sum((v - _mean(values)) ** 2 for v in values) / (len(values) - correction)


def _options(
    name: str, op: Any, function: Callable[[list[float]], float], torch: Any = None, tuples: bool = True
) -> list[Sample]:
    """The same op over all axes, one axis, several, kept or not."""
    kinds: dict[str, dict[str, Any]] = {"": {}, "-dim": {"dim": 1}, "-keepdim": {"dim": -1, "keepdim": True}}
    if tuples:
        kinds |= {"-dims": {"dim": (0, -1)}, "-dims-keepdim": {"dim": (1, 2), "keepdim": True}}
    return [
        Sample(name + kind, op, lambda rng, o=options: ((rng.standard_normal((3, 4, 2)),), o), over(function), torch)
        for kind, options in kinds.items()
    ]


def _given(
    name: str, op: Any, values: Any, torch: Any = None, smooth: bool = True, derivative: bool = True, **options: Any
) -> Sample:
    make = ((np.array(values, float),), options)
    return Sample(name, op, lambda rng: make, torch=torch, smooth=smooth, derivative=derivative)


def _extremes(op: Any, function: Callable[..., float]) -> list[Sample]:
    """``max`` and ``min``: over all elements; along an axis with the indices."""
    name = op.__name__

    def both(x: np.ndarray, dim: int, keepdim: bool = False) -> Any:
        best = over(lambda values: values.index(function(values)))(x, dim, keepdim)
        return over(function)(x, dim, keepdim), best

    ties = [[1.0, 3.0, 3.0], [1.0, 1.0, 3.0]]
    return [
        Sample(name, op, lambda rng: ((rng.standard_normal((3, 4)),), {}), over(function)),
        Sample(f"{name}-dim", op, lambda rng: ((rng.standard_normal((3, 4, 2)), 1), {}), both),
        Sample(f"{name}-keepdim", op, lambda rng: ((rng.standard_normal((3, 4)),), {"dim": -2, "keepdim": True}), both),
        _given(f"{name}-ties-choose-one", op, ties, smooth=False, dim=1),
        _given(f"{name}-ties-share", op, ties, smooth=False),
        _given(f"{name}-0d", op, 3.0, dim=0),
    ]


def _spread(name: str, op: Any, root: Callable[[float], float]) -> list[Sample]:
    def option(kind: str, divisor: int, args: tuple[Any, ...] = (), **options: Any) -> Sample:
        """``divisor``: what is taken off n."""
        dims = {k: v for k, v in options.items() if k in ("dim", "keepdim")}
        reference = over(lambda values: root(_variance(divisor)(values)))
        make = lambda rng: ((rng.standard_normal((3, 4, 2)), *args), options)  # noqa: E731
        return Sample(name + kind, op, make, lambda x, *a, **k: reference(x, **dims))

    return [
        option("", 1),
        option("-dim", 1, dim=1),
        option("-biased", 0, dim=(0, 2), unbiased=False),
        option("-unbiased-first", 0, (False,)),
        option("-correction-0", 0, dim=0, correction=0),
        option("-correction-2", 2, dim=1, correction=2, keepdim=True),
    ]


def _logsumexp(values: list[float]) -> float:
    return math.log(sum(math.exp(v) for v in values))


def _norms() -> list[Sample]:
    functions = {
        2: lambda values: math.sqrt(sum(v * v for v in values)),
        1: lambda values: sum(abs(v) for v in values),
        math.inf: lambda values: max(abs(v) for v in values),
        -math.inf: lambda values: min(abs(v) for v in values),
        3: lambda values: sum(abs(v) ** 3 for v in values) ** (1 / 3),
    }
    found = []
    for p, function in functions.items():
        for kind, options in {"": {}, "-dim": {"dim": 1}, "-dims": {"dim": (0, 2), "keepdim": True}}.items():
            reference = lambda x, p, dim=None, keepdim=False, f=function: over(f)(x, dim, keepdim)  # noqa: E731
            make = lambda rng, p=p, o=options: ((rng.standard_normal((3, 4, 2)), p), o)  # noqa: E731
            found.append(Sample(f"norm-{p}{kind}", F.norm, make, reference, lambda torch, *a, **k: torch.norm(*a, **k)))
    return found


def _torch_prod(torch: Any, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return torch.prod(x) if dim is None else torch.prod(x, dim, keepdim)


SAMPLES = [
    *_options("sum", F.sum, sum),
    *_options("mean", F.mean, _mean),
    *_options("amax", F.amax, max, lambda torch, x, dim=(), keepdim=False: torch.amax(x, dim, keepdim)),
    *_options("amin", F.amin, min, lambda torch, x, dim=(), keepdim=False: torch.amin(x, dim, keepdim)),
    *_options("prod", F.prod, math.prod, _torch_prod, tuples=False),
    Sample(
        "prod-dims",
        F.prod,
        lambda rng: ((rng.standard_normal((3, 4, 2)), (0, 2)), {}),
        over(math.prod),
        lambda torch, x, dim: torch.prod(torch.prod(x, 2), 0),
    ),
    *_options(
        "logsumexp",
        lambda x, dim=None, keepdim=False: F.logsumexp(x, dim, keepdim),
        _logsumexp,
        lambda torch, x, dim=(0, 1, 2), keepdim=False: torch.logsumexp(x, dim, keepdim),
    ),
    _given("amax-ties", F.amax, [[2.0, 2.0, 1.0], [2.0, 0.0, 0.0]], smooth=False, dim=1),
    _given("amax-ties-dims", F.amax, [[2.0, 2.0, 1.0], [2.0, 0.0, 0.0]], smooth=False, dim=(0, 1)),
    _given("amin-ties", F.amin, [[2.0, 2.0, 1.0], [2.0, 0.0, 0.0]], smooth=False, dim=1),
    _given("prod-one-zero", F.prod, [[1.5, 0.0, 3.0], [2.0, 4.0, -1.0]], dim=1),
    _given("prod-two-zeros", F.prod, [[1.5, 0.0, 0.0], [2.0, 0.0, -1.0]], dim=1),
    _given("prod-all-with-zero", F.prod, [[1.5, 0.0], [2.0, 4.0]]),
    _given(
        "prod-dims-with-zero",
        F.prod,
        [[[1.5, 0.0], [2.0, 4.0]], [[0.5, -1.0], [3.0, 1.0]]],
        lambda torch, x, dim, keepdim: torch.prod(torch.prod(x, 2, True), 0, True),
        dim=(0, 2),
        keepdim=True,
    ),
    Sample(
        "cumsum",
        F.cumsum,
        lambda rng: ((rng.standard_normal((3, 4)), 1), {}),
        lambda x, dim: np.array([[sum(row[: i + 1]) for i in range(len(row))] for row in x.tolist()]),
        lambda torch, x, dim: torch.cumsum(x, dim),
    ),
    Sample("cumsum-first", F.cumsum, lambda rng: ((rng.standard_normal((3, 4)),), {"dim": -2})),
    _given("cumsum-0d", F.cumsum, 2.5, dim=0),
    *_extremes(F.max, max),
    *_extremes(F.min, min),
    *_spread("var", F.var, lambda v: v),
    *_spread("std", F.std, math.sqrt),
    _given("std-at-zero", F.std, [[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]], smooth=False, dim=1),
    _given("prod-all-zero", F.prod, [[0.0], [0.0]], dim=1),
    _given("var-of-two", F.var, [[1.0, 3.0], [2.0, 2.5]], dim=1),
    _given("std-of-two", F.std, [[1.0, 3.0], [2.0, 2.5]], dim=1),
    _given("sum-list", F.sum, [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]], dim=[0, 2]),
    _given("logsumexp-large", F.logsumexp, [[1000.0, 999.0], [-1000.0, -999.0]], dim=1),
    _given("logsumexp-infinite", F.logsumexp, [[2.0, -np.inf], [-np.inf, 3.0]], smooth=False, dim=1),
    *_norms(),
    _given(
        "norm-at-zero", F.norm, [[0.0, 0.0], [3.0, 4.0]], lambda torch, *a, **k: torch.norm(*a, **k), smooth=False, dim=1
    ),
    *[
        _given(f"norm-{p}-away", F.norm, [[1.5, -2.0], [0.5, 4.0]], lambda torch, *a, **k: torch.norm(*a, **k), p=p, dim=1)
        for p in (0.5, 1.5, -1)
    ],
    *[
        _given(
            f"norm-{p}-at-zero", F.norm, [[0.0, 0.0], [0.0, 4.0]], lambda torch, *a, **k: torch.norm(*a, **k), smooth=False,
            derivative=p != 0, p=p, dim=1,
        )
        for p in (3, 0.5, 0)
    ],
    _given(
        "norm-inf-ties",
        F.norm,
        [[2.0, -2.0], [3.0, 4.0]],
        lambda torch, *a, **k: torch.norm(*a, **k),
        smooth=False,
        p=math.inf,
        dim=1,
    ),
    _given("sum-0d", F.sum, 3.0, dim=-1),
    _given("mean-0d", F.mean, 3.0),
]

_ZEROS = np.zeros((2, 3), np.float32)
_REDUCTIONS = [F.sum, F.mean, F.prod, F.amax, F.amin, F.max, F.min, F.var, F.std, F.logsumexp, F.norm, F.cumsum]

BAD_CALLS = [
    *[
        BadCall(f"{op.__name__}-dim", lambda op=op: op(_ZEROS, dim=2), f"{op.__name__}: dim 2 is out of range", ShapeError)
        for op in _REDUCTIONS
    ],
    BadCall("sum-0d", lambda: F.sum(np.zeros(()), 1), "sum: dim 1 is out of range, expected -1 to 0", ShapeError),
    BadCall("sum-twice", lambda: F.sum(_ZEROS, (0, -2)), "sum: dim .* names an axis twice", ShapeError),
    BadCall("max-dims", lambda: F.max(_ZEROS, (0, 1)), r"max: dim must be an integer, got \(0, 1\)", TypeError),
    BadCall("max-empty", lambda: F.max(np.zeros((2, 0)), 1), "max: there is no extreme of no elements", ShapeError),
    BadCall("amin-empty", lambda: F.min(np.zeros(0)), "amin: there is no extreme of no elements", ShapeError),
    BadCall("norm-p", lambda: F.norm(_ZEROS, p="nuc"), "norm: p must be a number or 'fro', got 'nuc'"),
]
