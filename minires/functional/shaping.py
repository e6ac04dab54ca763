"""Ops that move elements and change none of them: shapes, axes, pieces.

Each rule moves the gradient back the way the elements came. Where an element was used more than once (expand, pad with
copies, repeated indices) its gradients add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minires import kernels
from minires.device import Array, array_module, bring, device_of
from minires.device import to_device as move
from minires.errors import ShapeError
from minires.functional.arithmetic import total, where
from minires.op import Saved, op
from minires.operators import raw
from minires.tensor import Tensor

__all__ = [
    "cast", "cat", "chunk", "clone", "contiguous", "expand", "flatten", "flip", "gather", "getitem", "masked_fill", "pad",
    "permute", "reshape", "roll", "split", "squeeze", "stack", "sum_to_size", "to_device", "transpose", "tril", "triu",
    "unsqueeze",
]  # fmt: skip


def axis_of(op: str, dim: int, shape: tuple[int, ...], ndim: int | None = None) -> int:
    """``dim`` counted from the front, or an error in the name of ``op``. An array of no axes has one for this purpose."""
    count = (len(shape) or 1) if ndim is None else ndim
    if not hasattr(dim, "__index__"):
        raise TypeError(f"{op}: dim must be an integer, got {dim!r}")
    if not -count <= dim < count:
        raise ShapeError(op, f"dim {dim} is out of range, expected {-count} to {count - 1}", input=(shape, ""))
    return int(dim) % count


def axes_of(op: str, dim: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that ``dim`` (an integer, several, or None for all) names, counted from the front, in order."""
    if dim is None:
        return tuple(range(len(shape)))
    axes = sorted(axis_of(op, d, shape) for d in (dim if isinstance(dim, tuple | list) else (dim,)))
    if len(set(axes)) < len(axes):
        raise ShapeError(op, f"dim {tuple(dim)} names an axis twice", input=(shape, ""))
    return tuple(axes) if shape else ()


@op
def clone(input: Array) -> Array:
    """A copy with memory of its own."""
    return input.copy(order="K")


@clone.backward
def _(dy: Array) -> Any:
    return dy


@op
def contiguous(input: Array) -> Array:
    """The same values in C-contiguous memory (a copy only if they are not)."""
    return array_module(input).asarray(input, order="C")


@contiguous.backward
def _(dy: Array) -> Any:
    return dy


@op
def cast(input: Array, dtype: Any) -> Array:
    """The values as another dtype; the gradient comes back in the dtype of the input."""
    return input.astype(dtype)


@cast.backward
def _(dy: Array) -> Any:
    return dy  # the engine gives every gradient the dtype of its input


@op
def to_device(input: Array, device: str) -> Array:
    """A copy on another device: "cpu", "cuda", "cuda:1"."""
    return Saved(move(input, device), source=device_of(input))


@to_device.backward
def _(dy: Array, source: str) -> Any:
    return to_device(dy, source)


@op
def reshape(input: Array, shape: tuple[int, ...]) -> Array:
    """The same elements in C order with another shape; one size may be -1. A view where the memory allows it."""
    try:
        return input.reshape(shape)
    except ValueError:
        rule = f"cannot arrange {input.size} elements in shape {tuple(shape)}"
        raise ShapeError("reshape", rule, input=(input.shape, "")) from None


@reshape.backward
def _(dy: Array, input_shape: tuple[int, ...]) -> Any:
    return reshape(dy, input_shape)


def flatten(input: Array, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes ``start_dim`` to ``end_dim`` as one. A view where the memory allows it."""
    shape = input.shape
    first, last = axis_of("flatten", start_dim, shape), axis_of("flatten", end_dim, shape)
    if first > last:
        raise ShapeError("flatten", f"start_dim {start_dim} must not come after end_dim {end_dim}", input=(shape, ""))
    return reshape(input, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def unsqueeze(input: Array, dim: int) -> Tensor:
    """A new axis of size 1 in front of axis ``dim``. A view."""
    at = axis_of("unsqueeze", dim, input.shape, len(input.shape) + 1)
    return reshape(input, (*input.shape[:at], 1, *input.shape[at:]))


def squeeze(input: Array, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Without the axes of size 1 among ``dim`` (None: all axes). A view."""
    axes = axes_of("squeeze", dim, input.shape)
    return reshape(input, tuple(n for i, n in enumerate(input.shape) if n != 1 or i not in axes))


@op
def permute(input: Array, dims: Sequence[int]) -> Array:
    """The axes in another order: axis i of the result is axis ``dims[i]`` of ``input``. A view."""
    if sorted(d % input.ndim if -input.ndim <= d < input.ndim else -1 for d in dims) != list(range(input.ndim)):
        rule = f"dims {tuple(dims)} must name each of the {input.ndim} axes once"
        raise ShapeError("permute", rule, input=(input.shape, ""))
    return input.transpose(tuple(dims))


@permute.backward
def _(dy: Array, dims: Sequence[int]) -> Any:
    inverse = np.argsort([d % len(dims) for d in dims])
    return permute(dy, tuple(int(i) for i in inverse))


def transpose(input: Array, dim0: int, dim1: int) -> Tensor:
    """Two axes swapped. A view."""
    first, second = (axis_of("transpose", d, input.shape) for d in (dim0, dim1))
    dims = list(range(input.ndim))
    if dims:
        dims[first], dims[second] = dims[second], dims[first]
    return permute(input, tuple(dims))


@op
def flip(input: Array, dims: Any) -> Array:
    """The order of the elements along ``dims`` (an integer or several) reversed. A view."""
    axes = axes_of("flip", dims, input.shape)
    return input[tuple(slice(None, None, -1 if i in axes else None) for i in range(input.ndim))]


@flip.backward
def _(dy: Array, dims: Any) -> Any:
    return flip(dy, dims)


@op
def roll(input: Array, shifts: Any, dims: Any = None) -> Array:
    """The elements moved ``shifts`` places along ``dims``; what falls off the end comes in at the front.

    Both may be tuples of the same length. With ``dims=None`` the elements are moved in C order, over all axes.
    """
    counts = [len(v) if isinstance(v, tuple | list) else 1 for v in (shifts, dims)]
    if dims is not None and counts[0] != counts[1]:
        raise ValueError(f"roll: expected as many shifts as dims, got shifts={shifts!r} and dims={dims!r}")
    for dim in dims if isinstance(dims, tuple | list) else () if dims is None else (dims,):
        axis_of("roll", dim, input.shape)  # one may be named twice: its shifts add up
    return array_module(input).roll(input, shifts, axis=dims)


@roll.backward
def _(dy: Array, shifts: Any, dims: Any) -> Any:
    back = tuple(-s for s in shifts) if isinstance(shifts, tuple | list) else -shifts
    return roll(dy, back, dims)


@op
def expand(input: Array, shape: tuple[int, ...]) -> Array:
    """Axes of size 1 repeated (and new axes put in front), without a copy; -1 keeps a size."""
    offset = len(shape) - input.ndim
    sizes = tuple(input.shape[i - offset] if n == -1 and i >= offset else n for i, n in enumerate(shape))
    try:
        return array_module(input).broadcast_to(input, sizes)
    except ValueError:
        rule = f"only axes of size 1 can be repeated to {tuple(shape)}"
        raise ShapeError("expand", rule, input=(input.shape, "")) from None


@expand.backward
def _(dy: Array) -> Any:
    return dy  # the engine sums over the repeated axes, as for every broadcast


@op
def sum_to_size(input: Array, shape: tuple[int, ...]) -> Array:
    """The reverse of broadcasting: sum over the axes along which ``shape`` was repeated to the shape of ``input``."""
    leading = input.ndim - len(shape)
    axes = (*range(leading), *(i + leading for i, n in enumerate(shape) if n == 1 and input.shape[i + leading] != 1))
    return total(input, axes, True).reshape(shape)


@sum_to_size.backward
def _(dy: Array, input_shape: tuple[int, ...]) -> Any:
    return expand(dy, input_shape)


@op
def cat(tensors: Sequence[Array], dim: int = 0) -> Array:
    """Several arrays one after the other along ``dim``; on all other axes their sizes agree."""
    if not tensors:
        raise ValueError("cat: expected at least one Tensor, got an empty list")
    axis = axis_of("cat", dim, tensors[0].shape)
    try:
        joined = array_module(*tensors).concatenate(tensors, axis)
    except ValueError:
        rule = f"all sizes but those of dim {dim} must agree"
        raise ShapeError("cat", rule, **{f"tensors[{i}]": (t.shape, "") for i, t in enumerate(tensors)}) from None
    return Saved(joined, sizes=[t.shape[axis] for t in tensors])


@cat.backward
def _(dy: Array, sizes: list[int], dim: int) -> Any:
    return list(split(dy, sizes, dim))


def stack(tensors: Sequence[Array], dim: int = 0) -> Tensor:
    """Several arrays of one shape along a new axis ``dim``."""
    shapes = [tuple(t.shape) for t in tensors]
    if any(shape != shapes[0] for shape in shapes):
        rule = "all shapes must be the same"
        raise ShapeError("stack", rule, **{f"tensors[{i}]": (shape, "") for i, shape in enumerate(shapes)})
    return cat([unsqueeze(t, dim) for t in tensors], dim)


@op
def split(tensor: Array, split_size_or_sections: int | Sequence[int], dim: int = 0) -> Array:
    """The pieces along ``dim``, as a tuple of views: of one size (the last may be smaller), or of the sizes listed."""
    axis = axis_of("split", dim, tensor.shape)
    total, sizes = tensor.shape[axis], split_size_or_sections
    if isinstance(sizes, int):
        if sizes <= 0:
            raise ValueError(f"split: split_size must be positive, got {sizes}")
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)] or [0]
    if sum(sizes) != total or min(sizes) < 0:
        rule = f"the sections {list(sizes)} must add up to the size of dim {dim}"
        raise ShapeError("split", rule, tensor=(tensor.shape, ""))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(tensor[(slice(None),) * axis + (slice(s, s + n),)] for s, n in zip(starts, sizes, strict=True))


@split.backward
def _(dy: Any, dim: int) -> Any:
    return cat(list(dy) if isinstance(dy, tuple) else [dy], dim)


def chunk(input: Array, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Up to ``chunks`` pieces of equal size along ``dim`` (the last may be smaller), as a tuple of views."""
    if chunks <= 0:
        raise ValueError(f"chunk: chunks must be positive, got {chunks}")
    total = (input.shape or (0,))[axis_of("chunk", dim, input.shape)]
    return tuple(split(input, -(-total // chunks) if total else [0] * chunks, dim))


def pad(input: Array, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """More (or, where negative, fewer) elements at both ends of the last axes.

    Args:
        input: any shape.
        pad: two numbers for each axis to pad, *last axis first*: ``(left, right, top, bottom)`` for (N, C, H, W).
        mode: "constant" (filled with ``value``, default 0), "reflect" (mirrored at the edge element, which is not
            repeated), "replicate" (the edge element repeated) or "circular" (from the other end).
        value: for "constant".
    """
    before, after = _pad_widths(input, pad)
    if mode == "constant":
        return pad_constant(input, before, after, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError(f"pad: mode must be constant, reflect, replicate or circular, got {mode!r}")
    out: Tensor = input
    for axis, (left, right) in enumerate(zip(before, after, strict=True)):
        if left or right:
            out = getitem(out, (slice(None),) * axis + (_padded_positions(mode, input.shape, axis, left, right),))
    return out


def _pad_widths(input: Array, pad: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """PyTorch's list, last axis first, as the widths before and after each axis, first axis first."""
    ndim = len(input.shape)
    if len(pad) % 2 or len(pad) > 2 * ndim:
        rule = f"pad must hold two numbers for each of the last axes (at most {ndim}), got {tuple(pad)}"
        raise ShapeError("pad", rule, input=(input.shape, ""))
    untouched = (0,) * (ndim - len(pad) // 2)
    before, after = untouched + tuple(pad[-2::-2]), untouched + tuple(pad[::-2])
    if any(n + b + a < 0 for n, b, a in zip(input.shape, before, after, strict=True)):
        raise ShapeError("pad", f"pad {tuple(pad)} takes away more than there is", input=(input.shape, ""))
    return before, after


def _padded_positions(mode: str, shape: tuple[int, ...], axis: int, left: int, right: int) -> list[int]:
    """From which position along the axis each element of the padded one comes."""
    size = shape[axis]
    first, kept = max(-left, 0), size + min(left, 0) + min(right, 0)  # what negative widths leave
    limit = {"reflect": size - 1, "circular": kept, "replicate": max(left, right) if size else 0}[mode]
    if max(left, right) > limit:
        rule = f"mode {mode!r} can add at most {limit} at an end of axis {axis}, got {max(left, right)}"
        raise ShapeError("pad", rule, input=(shape, ""))
    positions = range(-left, size + right)
    if mode == "circular":
        return [first + (i - first) % kept for i in positions]
    if mode == "replicate":
        return [min(max(i, 0), size - 1) for i in positions]
    return [size - 1 - abs(size - 1 - abs(i)) for i in positions]


@op
def pad_constant(input: Array, before: tuple[int, ...], after: tuple[int, ...], value: float) -> Array:
    """``before`` and ``after`` elements of ``value`` added at the ends of each axis; negative widths cut off."""
    sizes = [n + b + a for n, b, a in zip(input.shape, before, after, strict=True)]
    out = array_module(input).full_like(input, value, shape=sizes)  # in the memory order of the input
    inside = tuple(slice(max(b, 0), n - max(a, 0)) for n, b, a in zip(sizes, before, after, strict=True))
    kept = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, b, a in zip(input.shape, before, after, strict=True))
    out[inside] = input[kept]
    return out


@pad_constant.backward
def _(dy: Array, before: tuple[int, ...], after: tuple[int, ...]) -> Any:
    """Padding is undone by cutting off, which is padding by a negative width."""
    return pad_constant(dy, tuple(-n for n in before), tuple(-n for n in after), 0)


def masked_fill(input: Array, mask: Any, value: float) -> Tensor:
    """``input`` with ``value`` where ``mask`` (booleans, broadcast to the shape of ``input``) holds."""
    return where(mask, value, input)


@op
def tril(input: Array, diagonal: int = 0) -> Array:
    """The lower triangle of the last two axes, up to ``diagonal`` (0: the main one, 1: the one above it); 0 elsewhere."""
    return array_module(input).tril(_matrix("tril", input), diagonal)


@tril.backward
def _(dy: Array, diagonal: int) -> Any:
    return tril(dy, diagonal)


@op
def triu(input: Array, diagonal: int = 0) -> Array:
    """The upper triangle of the last two axes, from ``diagonal`` (0: the main one, 1: the one above it); 0 elsewhere."""
    return array_module(input).triu(_matrix("triu", input), diagonal)


@triu.backward
def _(dy: Array, diagonal: int) -> Any:
    return triu(dy, diagonal)


def _matrix(op: str, input: Array) -> Array:
    if input.ndim < 2:
        raise ShapeError(op, "needs at least two axes", input=(input.shape, ""))
    return input


@op
def getitem(input: Array, index: Any) -> Array:
    """``input[index]``: integers, slices, ``...``, ``None``, integer arrays and boolean arrays, as in NumPy.

    Unlike in PyTorch the axis that ``[1, 2]`` makes in ``x[0, :, [1, 2]]`` comes first; write ``x[0][:, [1, 2]]``.
    """
    index = _plain(index, input)
    try:
        return Saved(input[index], at=_own(index))
    except (IndexError, TypeError) as error:
        raise IndexError(f"getitem: {error} (the Tensor has shape {tuple(input.shape)})") from None


@getitem.backward
def _(dy: Array, at: Any, input_shape: tuple[int, ...]) -> Any:
    return put(dy, at, input_shape)


@op
def put(input: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """Zeros of ``shape`` with ``input`` added at ``index``, repeated indices adding up: the reverse of indexing."""
    if _may_repeat(index):
        return kernels.of(input).put_add(input, index, shape)
    out = array_module(input).zeros(shape, input.dtype)
    out[index] = input
    return out


@put.backward
def _(dy: Array, index: Any) -> Any:
    return getitem(dy, index)


def _may_repeat(index: Any) -> bool:
    """Whether an element can be named twice: only by arrays of integers, never by slices or booleans."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(i, list) or (getattr(i, "ndim", 0) and i.dtype.kind != "b") for i in parts)


def _plain(index: Any, like: Any) -> Any:
    """The index with Tensors replaced by their arrays, on the device of ``like``."""
    if isinstance(index, tuple):
        return tuple(_plain(i, like) for i in index)
    if isinstance(index, list):
        return [_plain(i, like) for i in index]
    return bring(index.data if isinstance(index, Tensor) else index, like)


def _own(index: Any) -> Any:
    """The index with its arrays copied, so that the caller may go on to change them."""
    if isinstance(index, tuple):
        return tuple(_own(i) for i in index)
    return index.copy() if hasattr(index, "dtype") or isinstance(index, list) else index


def gather(input: Array, dim: int, index: Any) -> Tensor:
    """``out[i][j][k] = input[i][index[i][j][k]][k]`` for dim 1 of three axes: picks along one axis.

    Args:
        input: any shape.
        dim: the axis along which the index counts.
        index: integers, with as many axes as ``input`` and, on all axes but ``dim``, at most its sizes.
    """
    index = _plain(index, raw(input))
    axis, shape = axis_of("gather", dim, input.shape), tuple(input.shape)
    if index.ndim != len(shape) or any(k > n for i, (k, n) in enumerate(zip(index.shape, shape, strict=True)) if i != axis):
        rule = f"index must have as many axes as input and, but for dim {dim}, no larger sizes"
        raise ShapeError("gather", rule, input=(shape, ""), index=(index.shape, ""))
    return getitem(input, along(axis, index))


def along(axis: int, index: Any) -> tuple[Any, ...]:
    """The index tuple that picks ``index`` along one axis and every position of its own on all others."""
    xp, ndim = array_module(index), index.ndim
    grid = [xp.arange(n).reshape((n,) + (1,) * (ndim - i - 1)) for i, n in enumerate(index.shape)]
    return (*grid[:axis], index, *grid[axis + 1 :])
