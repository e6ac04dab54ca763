"""What becomes of each op in ONNX: one entry for each, in the order of the modules of :mod:`minires.functional`.

An entry gets the builder and the call, adds ONNX's ops and returns the name of the result. ONNX counts padding at both ends
of an axis, and a window that hangs over the far edge is one with more padding there: so sizes are always explicit, and no
rounding rule of another program decides anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.export.builder import Builder, Emitter
from minires.export.protobuf import ELEMENTS
from minires.export.trace import Call
from minires.functional.upsampling import _bilinear

__all__ = ["EMITTERS"]

#: Name of an op → its entry.
EMITTERS: dict[str, Emitter] = {}


def emits(*names: str) -> Callable[[Emitter], Emitter]:
    """Decorator: an entry for the ops of these names."""

    def enter(emitter: Emitter) -> Emitter:
        EMITTERS.update(dict.fromkeys(names, emitter))
        return emitter

    return enter


# ------------------------------------------------------------------------------------ arithmetic


def _alike(kind: str, parameters: Sequence[str]) -> Emitter:
    """ONNX has the same op; its operands must agree in dtype."""
    return lambda g, c: g.node(kind, [g.in_dtype(name) for name in parameters])


for _kind, _name in {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Max": "maximum", "Min": "minimum", "MatMul": "matmul",
}.items():  # fmt: skip
    emits(_name)(_alike(_kind, ("input", "other")))
for _kind, _name in {
    "Neg": "neg", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Sin": "sin", "Cos": "cos", "Abs": "abs", "Relu": "relu",
    "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf",
}.items():  # fmt: skip
    emits(_name)(_alike(_kind, ("input",)))
emits("pow")(_alike("Pow", ("input", "exponent")))
emits("naive_attention")(_alike("Mul", ("trunk", "mask")))
emits("clone", "contiguous")(lambda g, c: g.ref("input"))


@emits("where")
def _(g: Builder, c: Call) -> str:
    inputs = [g.in_dtype(name) for name in ("input", "other")]
    return g.node("Where", [g.ref("condition"), *inputs])


@emits("clamp")
def _(g: Builder, c: Call) -> str:
    limits = ["" if c[name] is None else g.in_dtype(name) for name in ("min", "max")]
    return g.node("Clip", [g.ref("input"), *limits])


@emits("cast")
def _(g: Builder, c: Call) -> str:
    return g.node("Cast", [g.ref("input")], to=ELEMENTS[np.dtype(g.option("dtype")).name])


# ------------------------------------------------------------------------------------ activations


@emits("leaky_relu")
def _(g: Builder, c: Call) -> str:
    return g.node("LeakyRelu", [g.ref("input")], alpha=float(g.option("negative_slope")))


@emits("silu")
def _(g: Builder, c: Call) -> str:
    x = g.ref("input")
    return g.node("Mul", [x, g.node("Sigmoid", [x])])


@emits("gelu")
def _(g: Builder, c: Call) -> str:
    """x·Φ(x), Φ by the error function or by its approximation with tanh."""
    x = g.ref("input")
    if g.option("approximate") == "none":
        bent = g.node("Erf", [g.node("Mul", [x, g.number(math.sqrt(0.5))])])
    else:
        cubed = g.node("Mul", [g.node("Mul", [x, x]), g.node("Mul", [x, g.number(0.044715)])])
        bent = g.node("Tanh", [g.node("Mul", [g.node("Add", [x, cubed]), g.number(math.sqrt(2 / math.pi))])])
    return g.node("Mul", [x, g.node("Mul", [g.number(0.5), g.node("Add", [g.number(1), bent])])])


@emits("softmax", "log_softmax")
def _(g: Builder, c: Call) -> str:
    kind = "Softmax" if c.name == "softmax" else "LogSoftmax"
    return g.node(kind, [g.ref("input")], axis=int(g.option("dim")))


# ------------------------------------------------------------------------------------ attention


@emits("gated_residual", "residual_attention")
def _(g: Builder, c: Call) -> str:
    """(1 + M)·F, as the paper writes it."""
    gated = c.name == "gated_residual"
    mask = g.node("Sigmoid", [g.ref("logits")]) if gated else g.ref("mask")
    return g.node("Mul", [g.node("Add", [g.number(1), mask]), g.ref("trunk")])


@emits("channel_attention")
def _(g: Builder, c: Call) -> str:
    """z/‖z‖ over the channels, with 1 for a norm of 0."""
    z = g.ref("logits")
    squared = g.node("ReduceSum", [g.node("Mul", [z, z]), g.integers(1)], keepdims=1)
    return g.node("Div", [z, _root_or_one(g, squared)])


@emits("spatial_attention")
def _(g: Builder, c: Call) -> str:
    axes = range(2, c["logits"].ndim)
    return g.node("Sigmoid", [_standardized(g, g.ref("logits"), axes, g.option("eps"))])


def _root_or_one(g: Builder, squared: str) -> str:
    """√squared, and 1 where it is 0."""
    zero = g.node("Equal", [squared, g.number(0)])
    return g.node("Sqrt", [g.node("Where", [zero, g.number(1), squared])])


def _standardized(g: Builder, x: str, axes: Sequence[int], eps: float) -> str:
    """(x - mean)/√(var + eps)."""
    over = g.integers(*axes)
    centred = g.node("Sub", [x, g.node("ReduceMean", [x, over], keepdims=1)])
    variance = g.node("ReduceMean", [g.node("Mul", [centred, centred]), over], keepdims=1)
    return g.node("Div", [centred, _root_or_one(g, g.node("Add", [variance, g.number(eps)]))])


# ------------------------------------------------------------------------------------ convolution


@emits("conv2d")
def _(g: Builder, c: Call) -> str:
    weight = c["weight"]
    kernel, stride, before, dilation = tuple(weight.shape[2:]), g.option("stride"), g.option("before"), g.option("dilation")
    sizes = zip(g.option("out_size"), stride, dilation, kernel, c["input"].shape[2:], before, strict=True)
    after = [max((o - 1) * s + d * (k - 1) + 1 - n - b, 0) for o, s, d, k, n, b in sizes]
    bias = [] if c["bias"] is None else [g.ref("bias")]
    return str(
        g.node(
            "Conv", [g.ref("input"), g.ref("weight"), *bias], kernel_shape=kernel, strides=stride,
            pads=(*before, *after), dilations=dilation, group=int(g.option("groups")),
        )
    )  # fmt: skip


@emits("conv_transpose2d")
def _(g: Builder, c: Call) -> str:
    """What lies beyond the wanted size is cut off at the far edge, what is missing there is added."""
    weight = c["weight"]
    kernel, stride, before, dilation = tuple(weight.shape[2:]), g.option("stride"), g.option("before"), g.option("dilation")
    sizes = zip(g.option("out_size"), stride, dilation, kernel, c["input"].shape[2:], before, strict=True)
    excess = [(n - 1) * s + d * (k - 1) + 1 - b - o for o, s, d, k, n, b in sizes]
    return str(
        g.node(
            "ConvTranspose", [g.ref("input"), g.ref("weight")], kernel_shape=kernel, strides=stride,
            pads=(*before, *(max(e, 0) for e in excess)), output_padding=tuple(max(-e, 0) for e in excess),
            dilations=dilation, group=int(g.option("groups")),
        )
    )  # fmt: skip


# ------------------------------------------------------------------------------------ linear maps, words


@emits("linear")
def _(g: Builder, c: Call) -> str:
    x, weight = g.ref("input"), g.ref("weight")
    bias = [] if c["bias"] is None else [g.ref("bias")]
    if c["input"].ndim == 2:
        return g.node("Gemm", [x, weight, *bias], transB=1)
    product = g.node("MatMul", [x, g.node("Transpose", [weight], perm=(1, 0))])
    return g.node("Add", [product, *bias]) if bias else product


@emits("embedding")
def _(g: Builder, c: Call) -> str:
    return g.node("Gather", [g.ref("weight"), g.ref("input")], axis=0)


# ------------------------------------------------------------------------------------ normalisation


@emits("batch_norm", "batch_norm_relu")
def _(g: Builder, c: Call) -> str:
    if g.option("training"):
        raise ValueError(
            f"{c.place()}: it normalises by the batch's own statistics, and keeps none (track_running_stats=False), which "
            "ONNX has no op for"
        )
    mean, variance = c["running"]
    ones = np.ones(c["input"].shape[1], c["input"].dtype)
    weight = g.constant(ones) if c["weight"] is None else g.ref("weight")
    bias = g.constant(ones * 0) if c["bias"] is None else g.ref("bias")
    moving = [g.beside(c["weight"], "running_mean", mean), g.beside(c["weight"], "running_var", variance)]
    y = g.node("BatchNormalization", [g.ref("input"), weight, bias, *moving], epsilon=float(g.option("eps")))
    return g.node("Relu", [y]) if c.name == "batch_norm_relu" else y


@emits("standardize")
def _(g: Builder, c: Call) -> str:
    axes = [axis % c["input"].ndim for axis in g.option("dim")]
    return _standardized(g, g.ref("input"), axes, g.option("eps"))


# ------------------------------------------------------------------------------------ pooling, resizing


@emits("max_pool2d")
def _(g: Builder, c: Call) -> str:
    window = g.option("window")
    if g.option("return_indices"):
        raise ValueError(f"{c.place()}: return_indices=True has no counterpart in ONNX")
    axes = zip(
        window.output_size, window.stride, window.dilation, window.kernel, window.input_size, window.padding, strict=True
    )
    after = [max((o - 1) * s + d * (k - 1) + 1 - n - p, 0) for o, s, d, k, n, p in axes]
    return str(
        g.node(
            "MaxPool", [g.ref("input")], kernel_shape=window.kernel, strides=window.stride,
            pads=(*window.padding, *after), dilations=window.dilation,
        )
    )  # fmt: skip


@emits("resample")
def _(g: Builder, c: Call) -> str:
    """A mean of everything, or A·X·Bᵀ as it stands.

    ONNX's Resize is only nearly the same: it computes coordinates in float32, so its weights are off by 1e-6 in a map of
    some dozen pixels, and deep networks whose masks are steep make an error in the third digit of that.
    """
    x, (rows, columns) = g.ref("input"), (np.asarray(g.option(name)) for name in ("rows", "columns"))
    if len(rows) == len(columns) == 1 and all(np.allclose(m, 1 / m.shape[1], atol=0) for m in (rows, columns)):
        return g.node("GlobalAveragePool", [x])
    if g.resize and all(np.array_equal(m, _bilinear(m.shape[1], m.shape[0], None, True)) for m in (rows, columns)):
        return str(
            g.node(
                "Resize", [x, "", "", g.integers(len(rows), len(columns))], mode="linear", axes=(2, 3),
                coordinate_transformation_mode="align_corners",
            )
        )  # fmt: skip
    a, b = (g.constant(m.astype(c["input"].dtype)) for m in (rows, columns.T))
    return g.node("MatMul", [g.node("MatMul", [a, x]), b])  # (H', H) x (N, C, H, W) x (W, W')


@emits("pick")
def _(g: Builder, c: Call) -> str:
    """Rows, then columns, by their numbers: exactly those that minires picks."""
    rows, columns = (g.constant(np.asarray(g.option(name)).astype(np.int64)) for name in ("rows", "columns"))
    return g.node("Gather", [g.node("Gather", [g.ref("input"), rows], axis=2), columns], axis=3)


# ------------------------------------------------------------------------------------ sums


@emits("sum", "mean", "amax", "amin")
def _(g: Builder, c: Call) -> str:
    kind = {"sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin"}[c.name]
    dim = g.option("dim")
    axes = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    inputs = [g.ref("input"), *([g.integers(*axes)] if axes else [])]
    return g.node(kind, inputs, keepdims=int(g.option("keepdim")))


# ------------------------------------------------------------------------------------ shapes


@emits("reshape")
def _(g: Builder, c: Call) -> str:
    return g.node("Reshape", [g.ref("input"), g.integers(*g.shape("shape"))])


@emits("permute")
def _(g: Builder, c: Call) -> str:
    dims = [axis % c["input"].ndim for axis in g.option("dims")]
    return g.node("Transpose", [g.ref("input")], perm=dims)


@emits("expand")
def _(g: Builder, c: Call) -> str:
    """An axis that is to be 1 keeps its length in ONNX; so does the batch."""
    return g.node("Expand", [g.ref("input"), g.integers(*(max(size, 1) for size in g.shape("shape")))])


@emits("cat")
def _(g: Builder, c: Call) -> str:
    return g.node("Concat", g.refs("tensors"), axis=int(g.option("dim")))


@emits("pad_constant")
def _(g: Builder, c: Call) -> str:
    pads = g.integers(*g.option("before"), *g.option("after"))
    return g.node("Pad", [g.ref("input"), pads, g.number(g.option("value"))])


@emits("split")
def _(g: Builder, c: Call) -> list[str]:
    dim = g.option("dim") % c["tensor"].ndim
    sizes = g.integers(*(each.shape[dim] for each in c.outputs))
    made = g.nodes("Split", [g.ref("tensor"), sizes], outputs=len(c.outputs), axis=dim)
    return made


@emits("getitem")
def _(g: Builder, c: Call) -> str:
    """Whole numbers, slices and new axes; anything else would be a Gather of its own kind."""
    index, shape = g.option("index"), c["input"].shape
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or part is Ellipsis or type(part) in (int, slice) for part in parts):
        raise ValueError(f"{c.place()}: indexing by {index!r} has no counterpart in ONNX; use whole numbers and slices")
    if Ellipsis in parts:
        at, given = parts.index(Ellipsis), sum(part is not None for part in parts) - 1
        parts[at : at + 1] = [slice(None)] * (len(shape) - given)
    x, old = g.ref("input"), [part for part in parts if part is not None]
    rows = [(*_bounds(part, shape[axis]), axis) for axis, part in enumerate(old) if part != slice(None)]
    if rows:
        starts, stops, steps, axes = zip(*rows, strict=True)
        x = g.node("Slice", [x, *(g.integers(*each) for each in (starts, stops, axes, steps))])
    numbers = [axis for axis, part in enumerate(old) if isinstance(part, int)]
    x = g.node("Squeeze", [x, g.integers(*numbers)]) if numbers else x
    left = [part for part in parts if not isinstance(part, int)]
    new = [axis for axis, part in enumerate(left) if part is None]
    return g.node("Unsqueeze", [x, g.integers(*new)]) if new else x


def _bounds(part: Any, size: int) -> tuple[int, int, int]:
    """Start, stop and step of an index along an axis."""
    if isinstance(part, int):
        return part, part + 1 if part != -1 else size, 1
    start, stop, step = part.indices(size)
    return start, stop if stop >= 0 else -(2**31), step
