"""Convolution in two dimensions, its transpose, and why these two and the gradient of the weight are one family.

With x padded by zeros, a convolution (in deep learning: a cross-correlation, the kernel is not flipped) is

    y[n, o, i, j] = Σ_{c, u, v}  w[o, c, u, v] · x[n, c, i·s + u·d - p, j·s + v·d - p]  (+ b[o])

with stride s, dilation d and padding p. It is linear in x and linear in w, so each of its gradients is linear too:

    dL/dx: every y sends its gradient back to the x it saw, through the same w   -> the transposed convolution
    dL/dw: every w collects x times dy over all places where the two met         -> a correlation of x with dy
    dL/db: the sum of dy over n, i, j

The three ops here, convolution, transposed convolution and weight gradient, are each other's derivatives. So second and
higher derivatives need nothing new. How they are computed fast: :mod:`minires.kernels.cpu.conv`.
"""

from __future__ import annotations

from typing import Any

from minires import kernels
from minires.device import Array
from minires.errors import ShapeError
from minires.functional.linear import like_product
from minires.functional.reduction import sum as sum_over
from minires.functional.shaping import reshape
from minires.op import op
from minires.tensor import Tensor

__all__ = ["conv2d", "conv_transpose2d"]

Pair = tuple[int, int]


@op
def _conv2d(
    input: Array, weight: Array, bias: Array | None, out_size: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int
) -> Array:
    """y[n, o, i, j] = Σ_{c, u, v} w[o, c, u, v] · x[n, c, i·s + u·d - p, j·s + v·d - p] + b[o], for i, j < out_size."""
    return kernels.of(input).conv2d(input, weight, bias, stride, before, dilation, groups, out_size)


@_conv2d.backward
def _(
    dy: Array, input: Array, weight: Array, stride: Pair, before: Pair, dilation: Pair, groups: int, needs: Any
) -> tuple[Any, Any, Any]:
    """dx: scatter dy back through w.  dw: correlate x with dy.  db = Σ dy."""
    dx = _conv_transpose2d(dy, weight, input.shape[2:], stride, before, dilation, groups) if needs.input else None
    dw = _conv2d_weight(input, dy, weight.shape[2:], stride, before, dilation, groups) if needs.weight else None
    db = sum_over(dy, (0, 2, 3)) if needs.bias else None
    return dx, dw, db


@op
def _conv_transpose2d(
    input: Array, weight: Array, out_size: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int
) -> Array:
    """x[n, c, i·s + u·d - p, j·s + v·d - p] += Σ_o w[o, c, u, v] · y[n, o, i, j]: (N, O, H', W') -> (N, C, *out_size)."""
    return kernels.of(input).conv_transpose2d(input, weight, stride, before, dilation, groups, out_size)


@_conv_transpose2d.backward
def _(
    dy: Array, input: Array, weight: Array, stride: Pair, before: Pair, dilation: Pair, groups: int, needs: Any
) -> tuple[Any, Any]:
    """The mirror image of the convolution's rule: what was scattered is gathered, by a convolution."""
    dx = _conv2d(dy, weight, None, input.shape[2:], stride, before, dilation, groups) if needs.input else None
    dw = _conv2d_weight(dy, input, weight.shape[2:], stride, before, dilation, groups) if needs.weight else None
    return dx, dw


@op
def _conv2d_weight(
    input: Array, grad_output: Array, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, groups: int
) -> Array:
    """dw[o, c, u, v] = Σ_{n, i, j} dy[n, o, i, j] · x[n, c, i·s + u·d - p, j·s + v·d - p]."""
    return kernels.of(input).conv2d_weight(input, grad_output, kernel, stride, before, dilation, groups)


@_conv2d_weight.backward
def _(
    dy: Array, input: Array, grad_output: Array, stride: Pair, before: Pair, dilation: Pair, groups: int, needs: Any
) -> tuple[Any, Any]:
    """Here ``dy`` has the shape of a weight, and it acts as one."""
    dx = _conv_transpose2d(grad_output, dy, input.shape[2:], stride, before, dilation, groups) if needs.input else None
    dg = _conv2d(input, dy, None, grad_output.shape[2:], stride, before, dilation, groups) if needs.grad_output else None
    return dx, dg


# ------------------------------------------------------------------------------------------------ for the caller


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Convolution of images with kernels, as PyTorch's ``conv2d``.

    Args:
        input: (N, C, H, W).
        weight: (O, C/groups, kH, kW).
        bias: (O,) or None.
        stride: step between windows, an int or (vertical, horizontal).
        padding: zeros around the image, an int or a pair; ``"valid"`` is 0, ``"same"`` keeps H×W (stride 1 only; an odd
            number of zeros puts the larger part at the bottom and on the right).
        dilation: distance between kernel elements, an int or a pair.
        groups: channels fall into so many groups, each convolved on its own; divides C and O.

    Returns:
        (N, O, H', W') with H' = ⌊(H + 2·padding - dilation·(kH - 1) - 1) / stride⌋ + 1, in channels-last memory.

    Raises:
        ShapeError: the shapes do not fit together, or the kernel is larger than the padded image.
        ValueError: a stride, padding, dilation or groups that makes no sense.
    """
    shapes = _check_shapes("conv2d", input, weight, groups)
    if weight.shape[1] * groups != input.shape[1]:
        rule = f"input has C={input.shape[1]} channels, but weight I·groups = {weight.shape[1]}·{groups}; they must be equal"
        raise ShapeError("conv2d", rule, **shapes)
    if bias is not None and bias.shape != (weight.shape[0],):
        raise ShapeError("conv2d", "bias must have one value an output channel", bias=(bias.shape, "O"), **shapes)
    strides, dilations = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    spans = (dilations[0] * (weight.shape[2] - 1) + 1, dilations[1] * (weight.shape[3] - 1) + 1)
    if padding == "same":
        if strides != (1, 1):
            raise ValueError(f"conv2d: padding='same' needs stride 1, got {stride}")
        before, after = ((spans[0] - 1) // 2, (spans[1] - 1) // 2), (spans[0] // 2, spans[1] // 2)
    else:
        before = after = (0, 0) if padding == "valid" else _pair("padding", padding, 0)
    free = [n + b + a - span for n, b, a, span in zip(input.shape[2:], before, after, spans, strict=True)]
    if min(free) < 0:
        rule = f"the kernel covers {spans[0]}×{spans[1]} pixels, more than the image with padding {before}"
        raise ShapeError("conv2d", rule, **shapes)
    out_size = (free[0] // strides[0] + 1, free[1] // strides[1] + 1)
    return _conv2d(input, weight, bias, out_size, strides, before, dilations, groups)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Transposed convolution ("deconvolution"), as PyTorch's ``conv_transpose2d``: the gradient of conv2d as an op.

    Args:
        input: (N, C, H, W).
        weight: (C, O/groups, kH, kW): the weight of the convolution that maps O channels to C.
        bias: (O,) or None.
        stride: step between windows *in the output*, an int or a pair.
        padding: rows and columns cut off around the output, an int or a pair.
        output_padding: rows and columns added at the bottom and on the right, smaller than stride or dilation.
        groups: as in :func:`conv2d`; divides C and O.
        dilation: distance between kernel elements, an int or a pair.

    Returns:
        (N, O, H', W') with H' = (H - 1)·stride - 2·padding + dilation·(kH - 1) + output_padding + 1.

    Raises:
        ShapeError: the shapes do not fit together.
        ValueError: an output_padding that is too large.
    """
    name = "conv_transpose2d"
    shapes = _check_shapes(name, input, weight, groups)
    if weight.shape[0] != input.shape[1]:
        rule = f"input has C={input.shape[1]} channels, but weight has I={weight.shape[0]}; they must be equal"
        raise ShapeError(name, rule, **shapes)
    if bias is not None and tuple(bias.shape) != (weight.shape[1] * groups,):
        raise ShapeError(name, "bias must have one value an output channel", bias=(bias.shape, "O"), **shapes)
    strides, pads, dilations = _pair("stride", stride, 1), _pair("padding", padding, 0), _pair("dilation", dilation, 1)
    extra = _pair("output_padding", output_padding, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise ValueError(f"{name}: output_padding {extra} must be smaller than stride {strides} or dilation {dilations}")
    height, width = (
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(input.shape[2:], strides, pads, dilations, weight.shape[2:], extra, strict=True)
    )
    if min(height, width) < 1:
        raise ShapeError(name, f"padding {pads} leaves an output of {height}×{width} pixels", **shapes)
    out = _conv_transpose2d(input, weight, (height, width), strides, pads, dilations, groups)
    return out if bias is None else out + reshape(like_product(bias, out), (1, -1, 1, 1))  # (O,) -> (1, O, 1, 1)


# ------------------------------------------------------------------------------------------------ checks


def _pair(name: str, value: Any, least: int) -> Pair:
    """An int or a pair of ints, each at least ``least``, as a pair."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in pair):
        raise ValueError(f"convolution: {name} must be a whole number >= {least} or a pair of them, got {value!r}")
    return pair


def _check_shapes(name: str, input: Any, weight: Any, groups: int) -> dict[str, tuple[Any, str]]:
    """What convolution and transposed convolution have in common; returns both shapes for further messages."""
    shapes = {"input": (getattr(input, "shape", ()), "N C H W"), "weight": (getattr(weight, "shape", ()), "O I kH kW")}
    if len(shapes["input"][0]) != 4 or len(shapes["weight"][0]) != 4:
        raise ShapeError(name, "input and weight must have 4 axes", **shapes)
    if not isinstance(groups, int) or groups < 1 or input.shape[1] % groups or weight.shape[0] % groups:
        raise ShapeError(name, f"groups={groups} must divide the channels of input and the first axis of weight", **shapes)
    return shapes
