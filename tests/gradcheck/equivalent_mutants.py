"""Mutants that are no mistakes, each with the reason: kept by hand, checked by every full run of the mutation test.

A change is named as the mutation test prints it, without the line, so that code may move. An entry that no longer names a
mutant, or names one that a test finds after all, fails the run.
"""

from __future__ import annotations

_FILLER = "fills places that another where() leaves out of the result"
_ONE_PATH = "both ways give the same numbers; the other one is only faster"
_DTYPE = "the engine gives the gradient its input's dtype; this only costs time in float32"
_BOUNDS = "clamp is the middle one of three numbers, in any order"
_TIE = "at a tie _to_winners does not look at it"
_NO_RELU = "bias only says where a ReLU was open, and there is none"
_ZERO = "0 times any finite number; where the factor is infinite, so are value and gradient"
_SUM = "the three are added"

EQUIVALENT: dict[str, dict[str, str]] = {
    "arithmetic.pow": {
        "`isinstance(exponent, int | float)` -> `isinstance(dy, int | float)`": _ONE_PATH,
        "`isinstance(exponent, int | float)` -> `isinstance(y, int | float)`": _ONE_PATH,
        "`isinstance(exponent, int | float)` -> `isinstance(input, int | float)`": _ONE_PATH,
        "`int | float` -> `int`": _ONE_PATH,
        "`int | float` -> `float`": _ONE_PATH,
        "`dy * (exponent * input ** (exponent - 1)) if exponent != 0 else dy * 0` -> "
        "`dy * (exponent * input ** (exponent - 1)) if exponent != 0 else y * 0`": "y is 1 wherever the exponent is 0",
        "`dy * (exponent * input ** (exponent - 1)) if exponent != 0 else dy * 0` -> "
        "`dy * (exponent * input ** (exponent - 1)) if exponent != 0 else -(dy * 0)`": "-0 is 0",
        "`exponent * 0` -> `dy * 0`": _FILLER,
        "`exponent * 0` -> `y * 0`": _FILLER,
        "`exponent * 0 + 1` -> `exponent * 0 + 2`": _FILLER,
        "`exponent * 0` -> `0` (2)": "0 is 0",
        "`exponent * 0` -> `dy * 0` (2)": "0 is 0",
    },
    "arithmetic.maximum": {"`input > other` -> `input >= other`": _TIE},
    "arithmetic.minimum": {"`input < other` -> `input <= other`": _TIE},
    "arithmetic.floor_divide": {
        "`dy * 0 if needs.input else None` -> `-(dy * 0) if needs.input else None`": "-0 is 0",
        "`dy * 0 if needs.other else None` -> `-(dy * 0) if needs.other else None`": "-0 is 0",
    },
    "attention.spatial_attention": {
        "`standardize(logits, dim, eps)` -> `-standardize(logits, dim, eps)`": "it occurs twice in a product",
    },
    "linear.matmul": {
        "`input.ndim > 1` -> `input.ndim < 1`": "a leading axis of 1 more, which the engine takes off again",
        "`input.ndim > 1` -> `input.ndim > 2`": "a leading axis of 1 more, which the engine takes off again",
        "`b.ndim == 2 and a.ndim > 2` -> `b.ndim == 2`": _ONE_PATH,
        "`b.ndim == 2` -> `b.ndim == 1`": _ONE_PATH,
        "`a.ndim > 2` -> `a.ndim >= 2`": _ONE_PATH,
        "`a.ndim > 2` -> `a.ndim < 2`": _ONE_PATH,
        "`a.ndim > 2` -> `a.ndim > 3`": _ONE_PATH,
        "`a.ndim > 2` -> `a.ndim > 1`": _ONE_PATH,
        "`a, dy = (_as_matrix(a), _as_matrix(dy))` -> `pass`": _ONE_PATH,
        "`db.shape[:-1]` -> `db.shape[:1]`": "an other of one axis has a gradient of two, (K, 1), here",
    },
    "linear.contraction()": {
        "`xp.eye(n, dtype=out.dtype)` -> `xp.eye(n)`": _DTYPE,
        "`term.count(c) > 1` -> `term.count(c) >= 1`": "identities that nobody asks for",
        "`term.count(c) > 1` -> `term.count(c) > 0`": "identities that nobody asks for",
    },
    "linear._operand_gradient": {
        "`zip(gradient.shape, operands[k].shape, strict=True)` -> `zip(operands[k].shape, gradient.shape, strict=True)`":
            "of two sizes that broadcast it takes the larger, in either order",
    },
    "loss.absolute_error": {
        "`where(input > target, dy, dy * 0)` -> `where(input > target, dy, 0)`": "0 is 0",
        "`where(input > target, dy, dy * 0)` -> `where(input > target, dy, input * 0)`": _ZERO,
        "`where(input > target, dy, dy * 0)` -> `where(input > target, dy, target * 0)`": _ZERO,
    },
    "loss.smooth_absolute_error": {
        "`clamp((input - target) / beta, -1, 1)` -> `clamp(-1, (input - target) / beta, 1)`": _BOUNDS,
    },
    "loss.bernoulli_loss": {
        "`clamp(input * (1 - input), 1e-12)` -> `clamp(1e-12, input * (1 - input))`": _BOUNDS,
        "`clamp(log(1 - input), -100)` -> `clamp(-100, log(1 - input))`": _BOUNDS,
        "`clamp(log(input), -100)` -> `clamp(-100, log(input))`": _BOUNDS,
    },
    "loss.divergence": {"`where(target == 0, 1, target)` -> `where(target == 0, 2, target)`": _FILLER},
    "loss.label_cross_entropy": {
        "`kernels_of(slope).cross_entropy_backward(dy, slope, divisor, labels, ignore_index)` -> "
        "`kernels_of(slope).cross_entropy_backward(dy, slope, divisor, ignore_index, labels)`":
            "the two are only compared with each other",
    },
    "loss._quiet": {
        "`np.errstate(divide='ignore', invalid='ignore')` -> `np.errstate(divide='ignore')`":
            "probabilities are checked to lie in [0, 1], so no logarithm is invalid",
    },
    "normalization.batch_norm": {
        "`kernels_of(input).batch_norm_backward(dy, input, mean, variance, weight, bias, eps, training, relu=False)` -> "
        f"`kernels_of(input).batch_norm_backward(dy, input, mean, variance, weight, {other}, eps, training, relu=False)`":
            _NO_RELU
        for other in ("weight", "mean", "variance")
    },
    "normalization.standard_deviation": {
        "`input - mean(input, dim, keepdim=True)` -> `mean(input, dim, keepdim=True) - input`": "it is squared",
    },
    "reduction.prod": {"`input == 0` -> `y == 0`": "a product is 0 where a factor is (or underflows: both ways are right)"},
    "reduction._products_of_others": {
        "`(*(shape[i] for i in free), -1)` -> `(*(shape[i] for i in free), -2)`": "NumPy takes any negative size for -1",
        "`xp.eye(rows.shape[-1], dtype=bool)` -> `xp.eye(rows.shape[-1])`": "where() takes numbers for conditions",
    },
    "reduction.extreme_along": {"`reshape(chosen, input_shape)` -> `chosen`": "(1,) becomes () in the engine"},
    "reduction._shared": {
        "`cast(input == _restored(y, 'amax', dim, input.shape), dy.dtype)` -> "
        "`input == _restored(y, 'amax', dim, input.shape)`": _DTYPE,
        "`cast(input == _restored(y, 'amax', dim, input.shape), dy.dtype)` -> "
        "`-cast(input == _restored(y, 'amax', dim, input.shape), dy.dtype)`": "the sign is divided out again",
    },
    "reduction._freedom": {"`left if left > 0 else math.nan` -> `left if left > 0 else -math.nan`": "-NaN is NaN"},
    "sequence.embedding": {"`raw(input)` -> `input`": "asarray() takes a Tensor as well"},
    "shaping.to_device": {"`to_device(dy, source)` -> `dy`": "shows on a machine with two devices only"},
    "shaping.pad_constant()": {
        "`zip(input.shape, before, after, strict=True)` -> `zip(before, input.shape, after, strict=True)`": _SUM,
        "`zip(input.shape, before, after, strict=True)` -> `zip(input.shape, after, before, strict=True)`": _SUM,
        "`n - max(a, 0)` -> `n - max(a, -1)`": "a slice that ends behind the end ends at the end",
        "`max(-a, 0)` -> `max(-a, -1)`": "a slice that ends behind the end ends at the end",
    },
    "shaping.put()": {
        "`array_module(input).zeros(shape, input.dtype)` -> `array_module(input).zeros(shape)`": _DTYPE,
    },
    "shaping._may_repeat": {
        "`any((isinstance(i, list) or (getattr(i, 'ndim', 0) and i.dtype.kind != 'b') for i in parts))` -> "
        "`-any((isinstance(i, list) or (getattr(i, 'ndim', 0) and i.dtype.kind != 'b') for i in parts))`": "-1 is true",
        "`getattr(i, 'ndim', 0) and i.dtype.kind != 'b'` -> `getattr(i, 'ndim', 0)`": _ONE_PATH,
    },
}  # fmt: skip
