"""Products of matrices and, more generally, sums of products over named axes.

The one thing to remember of this file: if C = A·B, then dA = dC·Bᵀ and dB = Aᵀ·dC. The shapes leave no other choice.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

from minires import kernels
from minires.device import Array, array_module
from minires.errors import ShapeError
from minires.functional.shaping import cast, expand, reshape, transpose, unsqueeze
from minires.op import Saved, op
from minires.precision import einsum_in_float32, is_half
from minires.tensor import Tensor

__all__ = ["bilinear", "einsum", "linear", "matmul"]


@op
def matmul(input: Array, other: Array) -> Array:
    """The matrix product over the last two axes: (…, M, K) times (…, K, N) is (…, M, N).

    All axes before the last two are broadcast. An ``input`` of one axis is a row (K), an ``other`` of one axis a column
    (K); that axis is missing in the result.
    """
    ndims = input.ndim, other.ndim
    if not all(ndims) or input.shape[-1] != other.shape[-2 if ndims[1] > 1 else -1]:
        rule = "the last axis of input must be as long as the last but one (or only) axis of other"
        axes = _matrix_axes(ndims[0], "M K"), _matrix_axes(ndims[1], "K N")
        raise ShapeError("matmul", rule, input=(input.shape, axes[0]), other=(other.shape, axes[1]))
    try:
        return kernels.of(input).matmul(input, other)
    except ValueError:
        rule = "the axes before the last two must be equal, or 1"
        raise ShapeError("matmul", rule, input=(input.shape, ""), other=(other.shape, "")) from None


def _matrix_axes(ndim: int, names: str) -> str:
    """The names of the axes of an operand for messages."""
    return "K" if ndim == 1 else names if ndim == 2 else ""


@matmul.backward
def _(dy: Array, input: Array, other: Array, needs: Any) -> Any:
    """dA = dC·Bᵀ,  dB = Aᵀ·dC. The engine sums over the axes that were broadcast."""
    a = input if input.ndim > 1 else unsqueeze(input, 0)  # (…, M, K)
    b = other if other.ndim > 1 else unsqueeze(other, 1)  # (…, K, N)
    dy = dy if other.ndim > 1 else unsqueeze(dy, -1)
    dy = dy if input.ndim > 1 else unsqueeze(dy, -2)  # (…, M, N)
    da = matmul(dy, transpose(b, -2, -1)) if needs.input else None  # (…, M, K)
    if not needs.other:
        return da, None
    if b.ndim == 2 and a.ndim > 2:  # one product, instead of one for each matrix of the batch and their sum
        a, dy = _as_matrix(a), _as_matrix(dy)  # (…·M, K), (…·M, N)
    db = matmul(transpose(a, -2, -1), dy)  # (…, K, N)
    return da, (db if other.ndim > 1 else reshape(db, db.shape[:-1]))


def _as_matrix(x: Any) -> Any:
    """All axes but the last as one."""
    return reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


@op
def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    """y = x·Wᵀ + b.

    Args:
        input: (…, I).
        weight: (O, I).
        bias: (O), or None.

    Returns:
        (…, O).
    """
    if weight.ndim != 2 or not input.ndim or input.shape[-1] != weight.shape[1]:
        rule = "the last axis of input must have as many features as weight takes"
        axes = "N I" if input.ndim == 2 else ""
        raise ShapeError("linear", rule, input=(input.shape, axes), weight=(weight.shape, "O I"))
    if bias is not None and bias.shape != weight.shape[:1]:
        rule = "bias must have one element for each output"
        raise ShapeError("linear", rule, bias=(bias.shape, "O"), weight=(weight.shape, "O I"))
    out = kernels.of(input).matmul(_as_matrix(input), weight.T)  # (N, O)
    if bias is not None:
        out = out + bias
    return out.reshape((*input.shape[:-1], weight.shape[0]))


@linear.backward
def _(dy: Array, input: Array, weight: Array, needs: Any) -> Any:
    """dx = dy·W,  dW = dyᵀ·x,  db = Σ dy (by the engine: b was broadcast)."""
    dx = matmul(dy, weight) if needs.input else None  # (…, I)
    dw = matmul(transpose(_as_matrix(dy), 0, 1), _as_matrix(input)) if needs.weight else None  # (O, N) x (N, I)
    return dx, dw, (dy if needs.bias else None)


def bilinear(input1: Array, input2: Array, weight: Array, bias: Array | None = None) -> Tensor:
    """yₒ = Σᵢⱼ x1ᵢ·Wₒᵢⱼ·x2ⱼ + bₒ.

    Args:
        input1: (…, I).
        input2: (…, J), the other axes as in ``input1``.
        weight: (O, I, J).
        bias: (O), or None.

    Returns:
        (…, O).
    """
    shapes = input1.shape, input2.shape, weight.shape
    fits = len(shapes[2]) == 3 and (shapes[0][-1:], shapes[1][-1:]) == (shapes[2][1:2], shapes[2][2:])
    if not fits or shapes[0][:-1] != shapes[1][:-1]:
        rule = "the inputs must agree but for their last axes, which are those of weight"
        raise ShapeError("bilinear", rule, input1=(shapes[0], ""), input2=(shapes[1], ""), weight=(shapes[2], "O I J"))
    out = einsum("...i,oij,...j->...o", input1, weight, input2)
    return out if bias is None else out + like_product(bias, out)


def like_product(bias: Any, product: Any) -> Any:
    """The bias of a product, in 16 bits if ``autocast`` made the product so: a float32 bias would make the sum float32."""
    return cast(bias, product.dtype) if is_half(product) and product.dtype != bias.dtype else bias


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products over named axes, as in ``einsum("nchw,oc->nohw", x, weight)``.

    Each operand's axes are named by letters; the product is summed over all letters that the output does not name. An
    operand may repeat a letter (the diagonal), ``...`` stands for axes to broadcast, and without ``->`` the output has the
    letters that occur once, in alphabetic order.
    """
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    inputs, output = _parse(equation, [tuple(t.shape) for t in tensors])
    return contraction(tensors, inputs, output)


@op
def contraction(operands: Sequence[Array], inputs: list[str], output: str) -> Array:
    """Σ of the product of all operands over the letters that ``output`` lacks. ``inputs``: the letters of each operand."""
    xp = array_module(*operands)
    out = einsum_in_float32(xp, ",".join(inputs) + "->" + output, operands)
    axes = [(c, n, term) for term, x in zip(inputs, operands, strict=True) for c, n in zip(term, x.shape, strict=True)]
    return Saved(out, identities={c: xp.eye(n, dtype=out.dtype) for c, n, term in axes if term.count(c) > 1})


@contraction.backward
def _(dy: Array, operands: list[Any], inputs: list[str], output: str, identities: dict[str, Any], needs: Any) -> Any:
    """The gradient of one operand is the contraction of dy with all others, to the letters of that operand.

    This follows because each term of the sum is linear in the operand. A letter that only this operand has (it was just
    summed over) is a repeated axis of the gradient. A diagonal A_ii is Σ_j A_ij·I_ij with the identity matrix I, one more
    operand, so afterwards the letters of every operand differ.
    """
    return [
        _operand_gradient(k, dy, operands, inputs, output, identities) if wanted else None
        for k, wanted in enumerate(needs.operands)
    ]


def _operand_gradient(
    k: int, dy: Any, operands: list[Any], inputs: list[str], output: str, identities: dict[str, Any]
) -> Any:
    """The gradient of operand number ``k``."""
    factors = [dy, *operands[:k], *operands[k + 1 :]]
    letters = [output, *inputs[:k], *inputs[k + 1 :]]
    target, fresh = "", iter(sorted(set(string.ascii_letters) - set("".join([output, *inputs]))))
    for letter in inputs[k]:
        if letter in target:  # second place of a diagonal: a letter of its own, tied to the first by the identity
            factors.append(identities[letter])
            letters.append(letter + next(fresh))
            target += letters[-1][1]
        else:
            target += letter
    known = "".join(c for c in target if c in "".join(letters))
    gradient = contraction(factors, letters, known)
    sizes = iter(gradient.shape)  # a letter that only this operand has is missing so far, and put in with size 1
    gradient = reshape(gradient, tuple(next(sizes) if c in known else 1 for c in target))
    widths = zip(gradient.shape, operands[k].shape, strict=True)
    return expand(gradient, tuple(own if n == 1 else n for n, own in widths))


def _parse(equation: str, shapes: list[tuple[int, ...]]) -> tuple[list[str], str]:
    """The letters of every operand and of the output, with ``...`` spelled out in letters that are free."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"einsum: {equation!r} names {len(terms)} operands, got {len(shapes)}")
    free = sorted(set(string.ascii_letters) - set(equation))
    counts = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    for term, shape, count in zip(terms, shapes, counts, strict=True):
        if count < 0 or (count and "..." not in term):
            rule = f"{term!r} in {equation!r} does not name the axes of its operand"
            raise ShapeError("einsum", rule, operand=(shape, ""))
    dots = "".join(free[: max((c for c, term in zip(counts, terms, strict=True) if "..." in term), default=0)])
    inputs = [term.replace("...", dots[len(dots) - c :]) for term, c in zip(terms, counts, strict=True)]
    if not arrow:
        named = left.replace("...", "").replace(",", "")
        output = ("..." if "..." in left else "") + "".join(sorted(c for c in set(named) if named.count(c) == 1))
    output = output.replace("...", dots)
    _check_letters(equation, inputs, output, shapes)
    return inputs, output


def _check_letters(equation: str, inputs: list[str], output: str, shapes: list[tuple[int, ...]]) -> None:
    """Each letter must have one size, and each letter of the output must come from some operand, once."""
    used = "".join(inputs)
    if not (used + output).isalpha() and used + output:
        raise ValueError(f"einsum: {equation!r} may hold only letters, commas, '...' and '->'")
    if any(c not in used or output.count(c) > 1 for c in output):
        raise ValueError(f"einsum: the output of {equation!r} must name letters of the operands, each once")
    sizes: dict[str, int] = {}
    for letter, size in zip(used, (n for shape in shapes for n in shape), strict=True):
        if size != sizes.setdefault(letter, size) and 1 not in (size, sizes[letter]):
            named = {f"operand{i}": (shape, " ".join(inputs[i])) for i, shape in enumerate(shapes)}
            raise ShapeError("einsum", f"{letter!r} in {equation!r} stands for sizes {sizes[letter]} and {size}", **named)
        sizes[letter] = max(size, sizes[letter])
