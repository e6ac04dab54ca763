"""Element by element arithmetic, with broadcasting.

No rule here undoes broadcasting: the engine sums a gradient over the axes along which its input was repeated
(:meth:`minires.tape.Node.gradients`), so each rule is just the derivative from school.

Integers next to floats count as floats of the same precision, and a function of integers is float32, as in PyTorch. (NumPy
alone would answer float64, and one such number turns a whole float32 network into float64.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import kernels
from minires.device import Array, array_module
from minires.errors import ShapeError
from minires.op import op
from minires.precision import is_half

__all__ = [
    "abs", "add", "clamp", "clip", "cos", "div", "exp", "floor_divide", "log", "maximum", "minimum", "mul", "neg", "pow",
    "remainder", "sin", "sqrt", "sub", "where",
]  # fmt: skip


def floating(input: Any) -> Any:
    """An array of integers or booleans as float32; anything else as it is."""
    return input.astype("float32") if getattr(input, "dtype", None) is not None and input.dtype.kind in "iub" else input


def total(input: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The sum of an array over ``axes``. 16-bit numbers add up in float32; a sum that is too large for them is infinite."""
    if not is_half(input):
        return input.sum(axis=axes, keepdims=keepdims)
    with np.errstate(over="ignore"):
        return input.sum(axis=axes, dtype="float32", keepdims=keepdims).astype(input.dtype)


def _operands(op: str, input: Any, other: Any) -> tuple[Any, Any]:
    """Two operands that fit: their shapes broadcast, and integers have taken the dtype of a floating point partner."""
    if type(input) is type(other) is np.ndarray and input.dtype is other.dtype and input.shape == other.shape:
        return input, other  # most often there is nothing to do
    shapes = getattr(input, "shape", ()), getattr(other, "shape", ())
    if shapes[0] != shapes[1]:
        sizes = zip(shapes[0][::-1], shapes[1][::-1], strict=False)
        if any(m != n and 1 not in (m, n) for m, n in sizes):
            rule = "from the last axis on, sizes must be equal or one of them 1 (broadcasting)"
            raise ShapeError(op, rule, input=(shapes[0], ""), other=(shapes[1], ""))
    kinds = _kind(input), _kind(other)
    if kinds == ("integer", "float"):
        input = input.astype(getattr(other, "dtype", "float32"))
    elif kinds == ("float", "integer"):
        other = other.astype(getattr(input, "dtype", "float32"))
    return _weak(input, other), _weak(other, input)


def _weak(operand: Any, partner: Any) -> Any:
    """A Python float beside bfloat16 as such a number: it should not change the dtype, but NumPy would answer float32."""
    if type(operand) is float and is_half(partner) and partner.dtype.kind == "V":
        return partner.dtype.type(operand)
    return operand


def _kind(operand: Any) -> str:
    """What an operand is: "integer" (an array of them), "float" (array or Python float), "number" (Python's integers)."""
    dtype = getattr(operand, "dtype", None)
    if dtype is None:
        return "float" if isinstance(operand, float) else "number"
    return "integer" if dtype.kind in "iub" else "float"


@op
def add(input: Array, other: Array) -> Array:
    """``input + other``, element by element with broadcasting."""
    return kernels.of(input).add(*_operands("add", input, other))


@add.backward
def _(dy: Array) -> Any:
    return dy, dy


@op
def sub(input: Array, other: Array) -> Array:
    """``input - other``, element by element with broadcasting."""
    input, other = _operands("sub", input, other)
    return input - other


@sub.backward
def _(dy: Array, needs: Any) -> Any:
    return dy, (-dy if needs.other else None)


@op
def mul(input: Array, other: Array) -> Array:
    """``input * other``, element by element with broadcasting."""
    input, other = _operands("mul", input, other)
    return input * other


@mul.backward
def _(dy: Array, input: Array, other: Array, needs: Any) -> Any:
    return (dy * other if needs.input else None), (dy * input if needs.other else None)


mul.keep_only_for(input="other", other="input")


@op
def div(input: Array, other: Array) -> Array:
    """``input / other``, element by element with broadcasting."""
    input, other = _operands("div", input, other)
    return floating(input) / floating(other)


@div.backward
def _(dy: Array, input: Array, other: Array, needs: Any) -> Any:
    """d(a/b)/da = 1/b,  d(a/b)/db = -a/b²."""
    da = dy / other
    return da, (-da * input / other if needs.other else None)


div.keep_only_for(input="other")


@op
def neg(input: Array) -> Array:
    """``-input``."""
    return -input


@neg.backward
def _(dy: Array) -> Any:
    return -dy


@op
def pow(input: Array, exponent: Array) -> Array:
    """``input ** exponent``, element by element with broadcasting."""
    input, exponent = _operands("pow", input, exponent)
    return input**exponent


@pow.backward
def _(dy: Array, y: Array, input: Array, exponent: Array, needs: Any) -> Any:
    """d(aⁿ)/da = n·aⁿ⁻¹,  d(aⁿ)/dn = aⁿ·ln a (taken as 0 where a ≤ 0, as PyTorch does at a = 0)."""
    da = dn = None
    if needs.input:
        if isinstance(exponent, int | float):
            da = dy * (exponent * input ** (exponent - 1)) if exponent != 0 else dy * 0
        else:  # 0·a⁻¹ would be NaN at a = 0, so where n is 0 another power stands in
            da = dy * exponent * input ** where(exponent == 0, exponent, exponent - 1)
    if needs.exponent:
        positive = input > 0
        dn = dy * where(positive, y * log(where(positive, input, exponent * 0 + 1)), exponent * 0)
    return da, dn


@op
def exp(input: Array) -> Array:
    """eˣ, element by element."""
    return array_module(input).exp(floating(input))


@exp.backward
def _(dy: Array, y: Array) -> Any:
    return dy * y


@op
def log(input: Array) -> Array:
    """Ln x, element by element (-inf at 0, NaN below)."""
    return array_module(input).log(floating(input))


@log.backward
def _(dy: Array, input: Array) -> Any:
    return dy / input


@op
def sqrt(input: Array) -> Array:
    """√x, element by element (NaN below 0; the derivative at 0 is infinite)."""
    return array_module(input).sqrt(floating(input))


@sqrt.backward
def _(dy: Array, y: Array) -> Any:
    return dy / (2 * y)


@op
def sin(input: Array) -> Array:
    """Sin x, element by element; x in radians."""
    return array_module(input).sin(floating(input))


@sin.backward
def _(dy: Array, input: Array) -> Any:
    return dy * cos(input)


@op
def cos(input: Array) -> Array:
    """Cos x, element by element; x in radians."""
    return array_module(input).cos(floating(input))


@cos.backward
def _(dy: Array, input: Array) -> Any:
    return -dy * sin(input)


@op
def abs(input: Array) -> Array:
    """|x|, element by element; the derivative at 0 is 0."""
    return array_module(input).where(input < 0, -input, input)  # not np.abs: complex input keeps its imaginary part


@abs.backward
def _(dy: Array, input: Array) -> Any:
    return where(input < 0, -dy, dy * (input > 0))


@op
def maximum(input: Array, other: Array) -> Array:
    """The larger of two, element by element with broadcasting; where they tie, each gets half of the gradient."""
    return array_module(input, other).maximum(*_operands("maximum", input, other))


@maximum.backward
def _(dy: Array, input: Array, other: Array, needs: Any) -> Any:
    return _to_winners(dy, input > other, input == other, needs)


@op
def minimum(input: Array, other: Array) -> Array:
    """The smaller of two, element by element with broadcasting; where they tie, each gets half of the gradient."""
    return array_module(input, other).minimum(*_operands("minimum", input, other))


@minimum.backward
def _(dy: Array, input: Array, other: Array, needs: Any) -> Any:
    return _to_winners(dy, input < other, input == other, needs)


def _to_winners(dy: Array, first_wins: Any, tie: Any, needs: Any) -> tuple[Any, Any]:
    """``dy`` where an operand won, half of it where both did, 0 elsewhere."""
    half = dy * 0.5
    first = where(tie, half, where(first_wins, dy, 0)) if needs.input else None
    second = where(tie, half, where(first_wins, 0, dy)) if needs.other else None
    return first, second


@op
def where(condition: Any, input: Array, other: Array) -> Array:
    """``input`` where ``condition`` holds, ``other`` elsewhere, with broadcasting. No gradient for the condition."""
    input, other = _operands("where", input, other)
    xp = array_module(condition, input, other)
    try:
        return xp.where(xp.full((), condition) if isinstance(condition, bool) else condition, input, other)
    except ValueError:
        shapes = {"condition": condition, "input": input, "other": other}
        rule = "from the last axis on, sizes must be equal or 1 (broadcasting)"
        raise ShapeError("where", rule, **{k: (getattr(v, "shape", ()), "") for k, v in shapes.items()}) from None


@where.backward
def _(dy: Array, condition: Any, needs: Any) -> Any:
    return (where(condition, dy, 0) if needs.input else None), (where(condition, 0, dy) if needs.other else None)


@op
def clamp(input: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """``input`` limited to [min, max]; either bound may be None.

    The gradient passes inside and at the bounds; outside it goes to the bound, if that is a Tensor that wants it.
    """
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    try:
        return array_module(input).clip(input, min, max)
    except ValueError:
        rule = "from the last axis on, sizes must be equal or 1 (broadcasting)"
        bounds = {name: (getattr(bound, "shape", ()), "") for name, bound in (("min", min), ("max", max))}
        raise ShapeError("clamp", rule, input=(input.shape, ""), **bounds) from None


@clamp.backward
def _(dy: Array, input: Array, min: Any, max: Any, needs: Any) -> Any:
    """The gradient belongs to the one of the three that is the result; with min > max that is max."""
    inside = (input >= min) if min is not None else (input == input)
    if max is not None:
        inside = inside & (input <= max)
    low = high = None
    if needs.min:
        low = where((input < min) if max is None else (input < min) & (min <= max), dy, 0)
    if needs.max:
        high = where((input > max) if min is None else (input > max) | (max < min), dy, 0)
    return (where(inside, dy, 0) if needs.input else None), low, high


clip = clamp  # NumPy's name, which PyTorch accepts as well


@op
def floor_divide(input: Array, other: Array) -> Array:
    """⌊a / b⌋, element by element with broadcasting; its derivative is 0."""
    input, other = _operands("floor_divide", input, other)
    return input // other


@floor_divide.backward
def _(dy: Array, needs: Any) -> Any:
    return (dy * 0 if needs.input else None), (dy * 0 if needs.other else None)


@op
def remainder(input: Array, other: Array) -> Array:
    """A - b·⌊a / b⌋, element by element with broadcasting: the remainder with the sign of ``b``."""
    input, other = _operands("remainder", input, other)
    return input % other


@remainder.backward
def _(dy: Array, input: Array, other: Array, needs: Any) -> Any:
    return dy, (-dy * floor_divide(input, other) if needs.other else None)
