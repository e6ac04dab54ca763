"""Sample inputs for the losses. The references add up one element, or one sample, after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import Tensor
from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample

REDUCTIONS = ("none", "mean", "sum")


def _reduced(loss: np.ndarray, reduction: str, total: float | None = None) -> Any:
    if reduction == "none":
        return loss
    added = sum(loss.ravel().tolist())
    return added if reduction == "sum" else added / (loss.size if total is None else total)


# ------------------------------------------------------------------------------------ classes


def _log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(v) for v in row))
    return [v - total for v in row]


def _class_loss(
    x: np.ndarray,
    target: np.ndarray,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    logits: bool = True,
) -> Any:
    if x.ndim == 1:
        x, single = x[None], True
        target = np.asarray(target)[None]
    else:
        single = False
    classes = x.shape[1]
    weights = [1.0] * classes if weight is None else list(weight)
    places = [(n, *rest) for n in range(x.shape[0]) for rest in np.ndindex(x.shape[2:])]
    loss, total = np.zeros((x.shape[0], *x.shape[2:])), 0.0
    for n, *rest in places:
        row = [float(x[(n, c, *rest)]) for c in range(classes)]
        row = _log_softmax(row) if logits else row
        if target.dtype.kind == "f":
            wanted = [float(target[(n, c, *rest)]) for c in range(classes)]
            total += 1
        else:
            right = int(target[(n, *rest)])
            if right == ignore_index:
                continue
            wanted = [float(c == right) for c in range(classes)]
            total += weights[right]
        for c in range(classes):
            share = wanted[c] * (1 - label_smoothing) + label_smoothing / classes
            loss[(n, *rest)] -= share * weights[c] * row[c]
    return _reduced(loss[0] if single else loss, reduction, total)


def _with(
    function: Callable[..., Any], wrap: Callable[[Any], Any], weight: Any = None, **options: Any
) -> Callable[..., Any]:
    """The loss with options, and with class weights, which get no gradient."""
    if weight is not None:
        options["weight"] = wrap(np.array(weight))
    return lambda *args: function(*args, **options)


def _classes(name: str, make: Callable[[np.random.Generator], Any], nll: bool = False, **options: Any) -> Sample:
    ours = F.nll_loss if nll else F.cross_entropy
    return Sample(
        name,
        _with(ours, lambda w: w, **options),
        lambda rng: (make(rng), {}),
        _with(lambda *args, **o: _class_loss(*args, **o, logits=not nll), lambda w: w, **options),
        lambda torch, *args: _with(getattr(torch.nn.functional, ours.__name__), torch.tensor, **options)(*args),
    )


def _indices(*shape: int, ignored: int | None = None) -> Callable[[np.random.Generator], Any]:
    def make(rng: np.random.Generator) -> Any:
        target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        if ignored is not None:
            target.ravel()[1] = ignored
        return rng.standard_normal(shape) * 2, target

    return make


def _probabilities(*shape: int) -> Callable[[np.random.Generator], Any]:
    def make(rng: np.random.Generator) -> Any:
        target = rng.uniform(0.1, 1, shape)
        return rng.standard_normal(shape), target / target.sum(axis=1, keepdims=True)

    return make


def _class_samples() -> list[Sample]:
    weight = [0.5, 2.0, 1.5]
    found = []
    for r in REDUCTIONS:
        found += [
            _classes(f"cross_entropy-{r}", _indices(4, 3), reduction=r),
            _classes(f"cross_entropy-weight-{r}", _indices(5, 3), reduction=r, weight=weight),
            _classes(f"cross_entropy-probabilities-{r}", _probabilities(4, 3), reduction=r, weight=weight),
            _classes(f"nll_loss-{r}", _indices(4, 3), nll=True, reduction=r),
            _classes(f"nll_loss-weight-{r}", _indices(5, 3, ignored=-100), nll=True, reduction=r, weight=weight),
            _classes(f"cross_entropy-everything-{r}", _indices(2, 3, 4, 2, ignored=1), reduction=r, weight=weight,
                     ignore_index=1, label_smoothing=0.1),
        ]  # fmt: skip
    return [
        *found,
        _classes("cross_entropy-square", _indices(3, 3)),
        _classes("cross_entropy-ignored", _indices(5, 3, ignored=-100)),
        _classes("cross_entropy-smoothing", _indices(4, 3), label_smoothing=0.2),
        _classes("cross_entropy-image", _indices(2, 3, 2, 4)),
        _classes("cross_entropy-probabilities-image", _probabilities(2, 3, 4, 1), label_smoothing=0.3),
        _classes("cross_entropy-one-sample", lambda rng: (rng.standard_normal(4), np.array(2)), label_smoothing=0.1),
        _classes("nll_loss-image", _indices(2, 3, 2, 4, ignored=2), nll=True, ignore_index=2),
        _classes("nll_loss-one-sample", lambda rng: (rng.standard_normal(4), np.array(2)), nll=True),
        Sample("cross_entropy-large", F.cross_entropy, lambda rng: (
            (np.array([[1000.0, 999.0, -1000.0], [-np.inf, 2.0, 1.0]]), np.array([1, 2])), {}), smooth=False, second=False),
        Sample("nll_loss-ignored-infinity", F.nll_loss, lambda rng: (
            (np.array([[-np.inf, -0.5, -0.9], [-1.0, -2.0, -3.0]]), np.array([0, 2])), {"ignore_index": 0}),
            smooth=False, second=False),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ element by element


def _smooth_l1(x: float, t: float, beta: float = 1.0) -> float:
    d = abs(x - t)
    return d * d / (2 * beta) if d < beta else d - beta / 2


def _bce(x: float, t: float) -> float:
    return -(t * math.log(x) + (1 - t) * math.log(1 - x))


def _bce_logits(x: float, t: float, pos_weight: float = 1.0) -> float:
    p = 1 / (1 + math.exp(-x))
    return -(pos_weight * t * math.log(p) + (1 - t) * math.log(1 - p))


def _kl(x: float, t: float, log_target: bool = False) -> float:
    p = math.exp(t) if log_target else t
    return p * (math.log(p) - x) if p else 0.0


def _each(function: Callable[..., float]) -> Callable[..., Any]:
    def reference(x: np.ndarray, target: np.ndarray, reduction: str = "mean", **options: Any) -> Any:
        pairs = zip(x.ravel().tolist(), target.ravel().tolist(), strict=True)
        loss = np.reshape([function(v, t, **options) for v, t in pairs], x.shape)
        if reduction == "batchmean":
            return sum(loss.ravel().tolist()) / x.shape[0]
        return _reduced(loss, reduction)

    return reference


def _any_numbers(rng: np.random.Generator) -> Any:
    return rng.standard_normal((2, 3, 4)) * 1.5, rng.standard_normal((2, 3, 4)) * 1.5


def _probability_pairs(rng: np.random.Generator) -> Any:
    return rng.uniform(0.05, 0.95, (3, 4)), rng.uniform(0, 1, (3, 4))


def _logit_pairs(rng: np.random.Generator) -> Any:
    return rng.standard_normal((3, 4)) * 3, rng.uniform(0, 1, (3, 4))


def _log_pairs(rng: np.random.Generator) -> Any:
    return np.log(rng.uniform(0.1, 1, (2, 5))), np.log(rng.uniform(0.1, 1, (2, 5)))


def _log_and_plain(rng: np.random.Generator) -> Any:
    return np.log(rng.uniform(0.1, 1, (2, 5))), rng.uniform(0.1, 1, (2, 5))


def _pairs(name: str, op: Any, make: Callable[..., Any], function: Callable[..., float], **options: Any) -> list[Sample]:
    reductions = (*REDUCTIONS, "batchmean") if op is F.kl_div else REDUCTIONS
    return [
        Sample(f"{name}-{r}", op, lambda rng, r=r: (make(rng), {"reduction": r, **options}), _each(function))
        for r in reductions
    ]


def _weighted(name: str, make: Callable[..., Any], **weights: list[float]) -> Sample:
    """A binary cross entropy with factors, which get no gradient."""
    op = F.binary_cross_entropy_with_logits if "logits" in name else F.binary_cross_entropy

    def torch(torch: Any, *args: Any) -> Any:
        options = {key: torch.tensor(value, dtype=torch.float64) for key, value in weights.items()}
        return getattr(torch.nn.functional, op.__name__)(*args, **options)

    def ours(*args: Any) -> Any:
        return op(*args, **{key: np.array(value) for key, value in weights.items()})

    return Sample(name, ours, lambda rng: (make(rng), {}), None, torch)


def _fixed(name: str, op: Any, x: list[float], target: list[float], **options: Any) -> Sample:
    """Kinks and limits, where only PyTorch says what the gradient is."""
    return Sample(name, op, lambda rng: ((np.array(x), np.array(target)), options), smooth=False)


SAMPLES = [
    *_class_samples(),
    *_pairs("mse_loss", F.mse_loss, _any_numbers, lambda x, t: (x - t) ** 2),
    *_pairs("l1_loss", F.l1_loss, _any_numbers, lambda x, t: abs(x - t)),
    *_pairs("smooth_l1_loss", F.smooth_l1_loss, _any_numbers, _smooth_l1),
    *_pairs("smooth_l1_loss-beta", F.smooth_l1_loss, _any_numbers, _smooth_l1, beta=0.4),
    *_pairs("binary_cross_entropy", F.binary_cross_entropy, _probability_pairs, _bce),
    *_pairs("binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, _logit_pairs, _bce_logits),
    *_pairs("kl_div", F.kl_div, _log_and_plain, _kl),
    *_pairs("kl_div-log-target", F.kl_div, _log_pairs, _kl, log_target=True),
    _weighted("binary_cross_entropy-weight", _probability_pairs, weight=[1.0, 0.5, 2.0, 3.0]),
    _weighted("binary_cross_entropy_with_logits-weights", _logit_pairs, weight=[1.0, 0.5, 2.0, 3.0],
              pos_weight=[3.0, 1.0, 0.5, 2.0]),
    _fixed("l1_loss-ties", F.l1_loss, [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]),
    _fixed("smooth_l1_loss-no-beta", F.smooth_l1_loss, [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], beta=0.0),
    Sample("binary_cross_entropy-certain", F.binary_cross_entropy,
           lambda rng: ((np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])), {}), lambda x, t: 50.0,
           "PyTorch's derivative for the target is infinite here, although its loss is cut off at 100", smooth=False,
           second=False),
    _fixed("binary_cross_entropy_with_logits-large", F.binary_cross_entropy_with_logits, [800.0, -800.0, 800.0, -800.0],
           [1.0, 0.0, 0.0, 1.0], reduction="none"),
    Sample("kl_div-impossible", F.kl_div, lambda rng: ((np.array([-1.0, -2.0, -0.5]), np.array([0.0, 1.0, 0.5])), {}),
           _each(_kl), "PyTorch's derivative for a target of 0 is NaN, ours 0", smooth=False),
]  # fmt: skip


_x, _y = np.zeros((4, 3)), np.array([0, 1, 2, 1])

BAD_CALLS = [
    BadCall("cross_entropy-reduction", lambda: F.cross_entropy(_x, _y, reduction="avg"), "expected reduction to be"),
    BadCall("cross_entropy-smoothing", lambda: F.cross_entropy(_x, _y, label_smoothing=2.0), "label_smoothing between 0"),
    BadCall("cross_entropy-class", lambda: F.cross_entropy(_x, _y + 1), "class indices from 0 to 2 .*, got 3"),
    BadCall("cross_entropy-negative-class", lambda: F.cross_entropy(_x, _y - 1), "got -1"),
    BadCall("cross_entropy-target-shape", lambda: F.cross_entropy(_x, _y[:3]),
            r"cross_entropy: the target must have the shape \(4,\).*\n  input  \(4, 3\)\n  target \(3,\)", ShapeError),
    BadCall("cross_entropy-probabilities", lambda: F.cross_entropy(_x, np.zeros((4, 2))), "shape of the input", ShapeError),
    BadCall("cross_entropy-weight", lambda: F.cross_entropy(_x, _y, weight=np.ones(4)), "each of the 3 classes", ShapeError),
    BadCall("cross_entropy-no-classes", lambda: F.cross_entropy(Tensor(np.array(1.0)), _y), "class axis", ShapeError),
    BadCall("cross_entropy-of-0-classes", lambda: F.cross_entropy(np.zeros((4, 0)), _y), "class indices from 0 to -1"),
    BadCall("nll_loss-floats", lambda: F.nll_loss(_x, np.zeros(4)), "expected class indices as integers", TypeError),
    BadCall("mse_loss-shapes", lambda: F.mse_loss(np.zeros((4, 1)), np.zeros(4)),
            r"mse_loss: input and target must have the same shape\n  input  \(4, 1\)\n  target \(4,\)", ShapeError),
    BadCall("smooth_l1_loss-beta", lambda: F.smooth_l1_loss(_x, _x, beta=-1.0), "expected beta >= 0"),
    BadCall("binary_cross_entropy-range", lambda: F.binary_cross_entropy(_x + 2, _x), "between 0 and 1, got 2 to 2"),
    BadCall("kl_div-reduction", lambda: F.kl_div(_x, _x, reduction="batch"), "'batchmean'"),
]  # fmt: skip
