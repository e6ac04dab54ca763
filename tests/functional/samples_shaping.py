"""Sample inputs for ops that move elements. The references fill the result position by position, or index in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample

Shape = tuple[int, ...]
NO_PEER = "PyTorch has no function of this name"


def _sample(name: str, op: Any, reference: Any, shape: Shape, *args: Any, torch: Any = None, **kwargs: Any) -> Sample:
    """An op of one array; further arguments are fixed (arrays among them are copied)."""

    def make(rng):
        fixed = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        return (rng.standard_normal(shape), *fixed), kwargs

    return Sample(name, op, make, reference, torch)


def _method(name: str) -> Callable[..., Any]:
    return lambda torch, x, *args: getattr(x, name)(*args)


def flatten_loops(x: np.ndarray, start_dim: int = 0, end_dim: int = -1) -> np.ndarray:
    first, last = start_dim % x.ndim, end_dim % x.ndim
    size = 1
    for n in x.shape[first : last + 1]:
        size *= n
    return np.array(x.ravel().tolist()).reshape(*x.shape[:first], size, *x.shape[last + 1 :])


def permute_loops(x: np.ndarray, dims: Any) -> np.ndarray:
    out = np.empty([x.shape[d] for d in dims])
    for index in np.ndindex(out.shape):
        source = [0] * x.ndim
        for i, d in zip(index, dims, strict=True):
            source[d] = i
        out[index] = x[tuple(source)]
    return out


def roll_loops(x: np.ndarray, shifts: Any, dims: Any = None) -> np.ndarray:
    if dims is None:
        return roll_loops(x.ravel(), shifts, 0).reshape(x.shape)
    out = np.empty(x.shape)
    moves = zip(shifts, dims, strict=True) if isinstance(shifts, tuple) else [(shifts, dims)]
    by = {d % x.ndim: s for s, d in moves}
    for index in np.ndindex(x.shape):
        out[tuple((i + by.get(axis, 0)) % x.shape[axis] for axis, i in enumerate(index))] = x[index]
    return out


def pad_loops(x: np.ndarray, pad: Any, mode: str = "constant", value: Any = None) -> np.ndarray:
    """Each position of the result looks for its source in the input."""
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    out = np.full([n + b + a for n, (b, a) in zip(x.shape, widths, strict=True)], 0.0 if value is None else value)
    for index in np.ndindex(out.shape):
        source = []
        for i, (before, _), n in zip(index, widths, x.shape, strict=True):
            i -= before
            if mode == "reflect":
                i = -i if i < 0 else 2 * (n - 1) - i if i >= n else i
            elif mode == "replicate":
                i = min(max(i, 0), n - 1)
            elif mode == "circular":
                first, last = max(-before, 0), n + min(widths[len(source)][1], 0)
                i = first + (i - first) % (last - first)
            source.append(i)
        if all(0 <= i < n for i, n in zip(source, x.shape, strict=True)):
            out[index] = x[tuple(source)]
    return out


def gather_loops(x: np.ndarray, dim: int, index: np.ndarray) -> np.ndarray:
    out = np.empty(index.shape)
    for at in np.ndindex(index.shape):
        source = list(at)
        source[dim] = index[at]
        out[at] = x[tuple(source)]
    return out


def _cat(name: str, op: Any, reference: Any, shapes: list[Shape], *args: Any) -> Sample:
    return Sample(name, op, lambda rng: (([rng.standard_normal(s) for s in shapes], *args), {}), reference)


def _index(name: str, shape: Shape, index: Any) -> Sample:
    return Sample(
        f"getitem-{name}",
        F.getitem,
        lambda rng: ((rng.standard_normal(shape), index), {}),
        lambda x, i: x[i],
        lambda torch, x, i: x[i],
    )


def _split_reference(x: np.ndarray, sizes: Any, dim: int = 0) -> list[np.ndarray]:
    ends = range(sizes, x.shape[dim], sizes) if isinstance(sizes, int) else np.cumsum(sizes)[:-1]
    return np.split(x, list(ends), dim)


_ROWS = np.array([2, 0, 2])
_GRID = np.array([[0, 1], [1, 1]])
_MASK = np.array([[True, False, True, False], [False, False, True, True], [True, False, False, False]])

INDEXING = [
    _index("integer", (3, 4), 1),
    _index("negative", (3, 4), -1),
    _index("one-element", (3, 4), (2, -1)),
    _index("slice", (5, 4), slice(1, 4, 2)),
    _index("slices", (3, 4, 2), (slice(None), slice(1, 3), 0)),
    _index("ellipsis-none", (3, 4, 2), (..., None, 1)),
    _index("everything", (3, 4), ...),
    _index("empty", (3, 4), slice(2, 2)),
    _index("array", (3, 4), _ROWS),
    _index("array-2d", (3, 4), _GRID),
    _index("array-second", (3, 4, 2), (slice(None), _ROWS)),
    _index("arrays", (3, 4), (_ROWS, np.array([1, 3, 1]))),
    _index("arrays-apart", (3, 2, 4), (_ROWS, slice(None), np.array([1, 3, 1]))),
    _index("arrays-broadcast", (3, 4), (np.array([[0], [2]]), np.array([1, 3, 3]))),
    _index("list", (3, 4), [0, 2, 2]),
    _index("mask", (3, 4), _MASK),
    _index("mask-first", (3, 4), np.array([True, False, True])),
    _index("mask-second", (3, 4), (slice(None), _MASK[0])),
]

SAMPLES = [
    *INDEXING,
    _sample("clone", F.clone, lambda x: x, (2, 3)),
    _sample("contiguous", F.contiguous, lambda x: x, (2, 3), torch=lambda torch, x: x.contiguous()),
    _sample("cast", lambda x: F.cast(x, x.dtype), lambda x: x, (2, 3), torch=NO_PEER),
    _sample("to_device", F.to_device, lambda x, device: x, (2, 3), "cpu", torch=NO_PEER),
    _sample("reshape", F.reshape, lambda x, s: np.array(x.ravel().tolist()).reshape(s), (2, 3, 4), (4, -1)),
    _sample("reshape-0d", F.reshape, lambda x, s: x[0, 0], (1, 1), ()),
    _sample("flatten", F.flatten, flatten_loops, (2, 3, 4)),
    _sample("flatten-from", F.flatten, flatten_loops, (2, 3, 4, 2), 1),
    _sample("flatten-between", F.flatten, flatten_loops, (2, 3, 4, 2), 1, -2),
    _sample("squeeze", F.squeeze, lambda x: x[0, :, 0], (1, 3, 1, 2)),
    _sample("squeeze-dim", F.squeeze, lambda x, dim: x[:, :, 0], (1, 3, 1, 2), 2),
    _sample("squeeze-dims", F.squeeze, lambda x, dim: x[0], (1, 3, 1, 2), (0, 1)),
    _sample("unsqueeze", F.unsqueeze, lambda x, dim: x[:, None], (2, 3), 1),
    _sample("unsqueeze-last", F.unsqueeze, lambda x, dim: x[:, :, None], (2, 3), -1),
    _sample("permute", F.permute, permute_loops, (2, 3, 4), (2, 0, 1)),
    _sample("permute-negative", F.permute, permute_loops, (2, 3, 4, 2), (0, -1, 1, 2)),
    _sample("transpose", F.transpose, lambda x, a, b: permute_loops(x, (2, 1, 0)), (2, 3, 4), 0, -1),
    _sample("expand", F.expand, lambda x, s: np.array([[x[0]] * 4] * 2), (1, 3), (2, 4, 3), torch=_method("expand")),
    _sample(
        "expand-keep", F.expand, lambda x, s: np.concatenate([x] * 4, 1), (2, 1, 3), (-1, 4, -1), torch=_method("expand")
    ),
    _sample(
        "sum_to_size", F.sum_to_size, lambda x, s: x.sum(0).sum(1)[:, None], (2, 3, 4), (3, 1), torch=_method("sum_to_size")
    ),
    _sample("flip", F.flip, lambda x, dims: np.array(x.tolist()[::-1]), (3, 4), (0,)),
    _sample("flip-dims", F.flip, lambda x, dims: x[::-1, :, ::-1], (3, 4, 2), (0, -1)),
    _sample("roll", F.roll, roll_loops, (3, 4), 1, 1),
    _sample("roll-flat", F.roll, roll_loops, (3, 4), 5),
    _sample("roll-dims", F.roll, roll_loops, (3, 4, 2), (-1, 2), (1, 0)),
    _sample("roll-twice", F.roll, lambda x, shifts, dims: roll_loops(x, -2, 1), (3, 4), (1, -3), (1, -1)),
    _sample("roll-flat-tuple", F.roll, lambda x, shifts: roll_loops(x, *shifts), (3, 4), (5,)),
    _sample("roll-list", F.roll, lambda x, s, d: roll_loops(x, tuple(s), tuple(d)), (3, 4), [1, -2], [0, 1]),
    _sample("gather", F.gather, gather_loops, (3, 4), 1, np.array([[0, 3, 3], [1, 0, 2], [2, 2, 2]])),
    _sample("gather-smaller", F.gather, gather_loops, (3, 4), 0, np.array([[2, 0], [2, 1]])),
    _sample(
        "masked_fill", F.masked_fill, lambda x, m, v: np.where(m, v, x), (3, 4), _MASK, -5.0, torch=_method("masked_fill")
    ),
    _sample(
        "masked_fill-broadcast",
        F.masked_fill,
        lambda x, m, v: np.where(m, v, x),
        (3, 4),
        _MASK[1],
        2.0,
        torch=_method("masked_fill"),
    ),
    *[
        _sample(
            f"{op.name}{d:+}",
            op,
            lambda x, d, keep=keep: np.array(
                [[[v if keep(j - i, d) else 0 for j, v in enumerate(row)] for i, row in enumerate(m)] for m in x.tolist()]
            ),
            (2, 3, 4),
            d,
        )
        for op, keep in ((F.tril, lambda above, d: above <= d), (F.triu, lambda above, d: above >= d))
        for d in (0, 1, -1)
    ],
    _cat("cat", F.cat, lambda t, d: np.array([[*a, *b] for a, b in zip(*t, strict=True)]), [(2, 3), (2, 4)], 1),
    _cat("cat-three", F.cat, lambda t: np.array([row for x in t for row in x]), [(2, 3), (1, 3), (3, 3)]),
    _cat("cat-one", F.cat, lambda t, d: t[0], [(2, 3)], -1),
    _cat("stack", F.stack, lambda t: np.array([x.tolist() for x in t]), [(2, 3), (2, 3)]),
    _cat("stack-last", F.stack, np.stack, [(2, 3), (2, 3), (2, 3)], -1),
    _sample("split", F.split, _split_reference, (5, 2), 2, torch=lambda torch, *a: torch.split(*a)),
    _sample("split-sections", F.split, _split_reference, (2, 5), [1, 3, 1], 1, torch=lambda torch, *a: torch.split(*a)),
    _sample("split-whole", F.split, _split_reference, (2, 3), 7, torch=lambda torch, *a: torch.split(*a)),
    _sample("chunk", F.chunk, lambda x, n, d: _split_reference(x, 2, d), (2, 5), 3, 1),
    _sample("pad", F.pad, pad_loops, (2, 3), (1, 2)),
    _sample("pad-value", F.pad, pad_loops, (2, 3), (1, 0, 0, 2), "constant", 1.5),
    _sample("pad-crop", F.pad, pad_loops, (4, 5), (-1, 2, 1, -2)),
    _sample("pad-image", F.pad, pad_loops, (2, 1, 3, 2), (1, 2, 0, 1)),
    *[
        _sample(f"pad-{mode}", F.pad, pad_loops, (1, 2, 3, 4), (2, 1, 1, 2), mode)
        for mode in ("reflect", "replicate", "circular")
    ],
    *[
        _sample(f"pad-crop-{mode}", F.pad, pad_loops, (1, 2, 3, 4), (-1, 2, 1, -1), mode)
        for mode in ("reflect", "replicate", "circular")
    ],
]

_ZEROS = np.zeros((2, 3), np.float32)

BAD_CALLS = [
    BadCall(
        "reshape-count",
        lambda: F.reshape(_ZEROS, (4, 2)),
        r"reshape: cannot arrange 6 elements in shape \(4, 2\)",
        ShapeError,
    ),
    BadCall(
        "permute-twice",
        lambda: F.permute(_ZEROS, (0, 0)),
        r"permute: dims \(0, 0\) must name each of the 2 axes",
        ShapeError,
    ),
    BadCall("transpose-dim", lambda: F.transpose(_ZEROS, 0, 2), "transpose: dim 2 is out of range", ShapeError),
    BadCall(
        "flatten-order", lambda: F.flatten(_ZEROS, 1, 0), "flatten: start_dim 1 must not come after end_dim 0", ShapeError
    ),
    BadCall("squeeze-dim", lambda: F.squeeze(_ZEROS, 2), "squeeze: dim 2 is out of range", ShapeError),
    BadCall(
        "unsqueeze-dim", lambda: F.unsqueeze(_ZEROS, 3), "unsqueeze: dim 3 is out of range, expected -3 to 2", ShapeError
    ),
    BadCall("expand-size", lambda: F.expand(_ZEROS, (2, 4)), r"expand: .*\(2, 4\)\n.*\(2, 3\)", ShapeError),
    BadCall("flip-dim", lambda: F.flip(_ZEROS, (0, 5)), "flip: dim 5 is out of range", ShapeError),
    BadCall("roll-dims", lambda: F.roll(_ZEROS, (1, 2), 0), "roll: expected as many shifts as dims"),
    BadCall("cat-nothing", lambda: F.cat([]), "cat: expected at least one"),
    BadCall("cat-number", lambda: F.cat(3), "cat: 'tensors' must be a list or tuple", TypeError),
    BadCall(
        "cat-sizes", lambda: F.cat([_ZEROS, np.zeros((2, 4))]), r"cat: all sizes .*\n.*\(2, 3\)\n.*\(2, 4\)", ShapeError
    ),
    BadCall(
        "stack-shapes",
        lambda: F.stack([_ZEROS, np.zeros((3, 2))]),
        r"stack: all shapes .*\n.*\(2, 3\)\n.*\(3, 2\)",
        ShapeError,
    ),
    BadCall("split-sum", lambda: F.split(_ZEROS, [1, 1], 1), r"split: the sections \[1, 1\] must add up", ShapeError),
    BadCall("split-zero", lambda: F.split(_ZEROS, 0), "split: split_size must be positive, got 0"),
    BadCall("chunk-zero", lambda: F.chunk(_ZEROS, 0), "chunk: chunks must be positive, got 0"),
    BadCall("pad-odd", lambda: F.pad(_ZEROS, (1, 2, 3)), "pad: pad must hold two numbers for each", ShapeError),
    BadCall("pad-mode", lambda: F.pad(_ZEROS, (1, 1), "wrap"), "pad: mode must be constant, reflect, replicate or circular"),
    BadCall("pad-reflect", lambda: F.pad(_ZEROS, (3, 0), "reflect"), "pad: mode 'reflect' can add at most 2", ShapeError),
    BadCall("pad-crop", lambda: F.pad(_ZEROS, (-2, -2)), "pad: .* takes away more than there is", ShapeError),
    BadCall("gather-axes", lambda: F.gather(_ZEROS, 0, np.zeros(2, int)), r"gather: (.|\n)*\(2, 3\)\n.*\(2,\)", ShapeError),
    BadCall("tril-axes", lambda: F.tril(np.zeros(3)), "tril: needs at least two axes", ShapeError),
    BadCall("getitem-range", lambda: F.getitem(_ZEROS, 2), r"getitem: .*\(the Tensor has shape \(2, 3\)\)", IndexError),
    BadCall("getitem-axes", lambda: F.getitem(_ZEROS, (0, 0, 0)), "getitem: too many indices", IndexError),
    BadCall("getitem-float", lambda: F.getitem(_ZEROS, np.array([0.5])), "getitem: ", IndexError),
]
