"""Sample inputs for pooling, unfold and fold, with loops over every window as the reference."""

from __future__ import annotations

from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from minires.functional import pooling
from minires.kernels.window import Window
from tests.functional.sample import BadCall, Sample, beside


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def window_starts(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool = False) -> list[int]:
    """Where the windows along an axis start; the definition is a walk along the axis."""
    starts, start, reach = [], -padding, dilation * (kernel - 1)
    while start + reach < size + padding or (ceil_mode and start - stride + reach < size + padding - 1 and start < size):
        starts.append(start)
        start += stride
    return starts


def max_pool2d_loops(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The definition. Padding is left out, which is what -inf means; of equals the first; NaN counts as largest."""
    if x.ndim == 3:
        y = max_pool2d_loops(x[None], kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return (y[0][0], y[1][0]) if return_indices else y[0]
    kernel, step = _pair(kernel_size), _pair(kernel_size if stride is None else stride)
    pad, spread = _pair(padding), _pair(dilation)
    height, width = x.shape[2:]
    rows, columns = (window_starts(x.shape[2 + a], kernel[a], step[a], pad[a], spread[a], ceil_mode) for a in (0, 1))
    y = np.empty((*x.shape[:2], len(rows), len(columns)), x.dtype)
    indices = np.empty(y.shape, np.int64)
    for n, c, i, j in np.ndindex(y.shape):
        best = None
        for u, v in product(range(kernel[0]), range(kernel[1])):
            h, w = rows[i] + u * spread[0], columns[j] + v * spread[1]
            if 0 <= h < height and 0 <= w < width:
                value = x[n, c, h, w]
                if best is None or value > best or np.isnan(value):
                    best, y[n, c, i, j], indices[n, c, i, j] = value, value, h * width + w
    return (y, indices) if return_indices else y


def avg_pool2d_loops(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The definition: a sum over the part of the window inside the image, divided by what the options say."""
    if x.ndim == 3:
        return avg_pool2d_loops(x[None], kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)[0]
    kernel, step, pad = _pair(kernel_size), _pair(kernel_size if stride is None else stride), _pair(padding)
    size = x.shape[2:]
    rows, columns = (window_starts(size[a], kernel[a], step[a], pad[a], 1, ceil_mode) for a in (0, 1))
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for n, c, i, j in np.ndindex(y.shape):
        inside = padded = 0
        for h, w in product(range(rows[i], rows[i] + kernel[0]), range(columns[j], columns[j] + kernel[1])):
            padded += h < size[0] + pad[0] and w < size[1] + pad[1]
            if 0 <= h < size[0] and 0 <= w < size[1]:
                y[n, c, i, j] += x[n, c, h, w]
                inside += 1
        y[n, c, i, j] /= divisor_override or (padded if count_include_pad else inside)
    return y


def adaptive_loops(x, output_size, reduce):
    """``reduce`` of every window; window i of n covers ⌊i·H/n⌋ to ⌈(i+1)·H/n⌉."""
    height, width = (n if o is None else o for n, o in zip(x.shape[-2:], _pair(output_size), strict=True))
    y = np.empty((*x.shape[:-2], height, width))
    for index in np.ndindex(y.shape):
        (i, j), (h, w) = index[-2:], x.shape[-2:]
        rows, columns = slice(floor(i * h / height), ceil((i + 1) * h / height)), slice(
            floor(j * w / width), ceil((j + 1) * w / width))  # fmt: skip
        y[index] = reduce(x[index[:-2]][rows, columns])
    return y


def adaptive_max_loops(x, output_size, return_indices=False):
    """The definition; the indices by looking the maximum up."""
    y = adaptive_loops(x, output_size, np.max)
    if not return_indices:
        return y
    positions = np.arange(x.shape[-2] * x.shape[-1], dtype=float).reshape(x.shape[-2:])
    lookup = np.stack([np.broadcast_to(positions, x.shape), x], axis=-3)  # (..., 2, H, W)
    find = np.empty(y.shape, np.int64)
    for index in np.ndindex(y.shape):
        plane = lookup[index[:-2]]  # (2, H, W)
        find[index] = plane[0][plane[1] == y[index]].min()
    return y, find


def unpool_loops(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    """Zeros, and every element put back where its index says."""
    kernel, step, pad = _pair(kernel_size), _pair(kernel_size if stride is None else stride), _pair(padding)
    size = output_size or [(x.shape[a - 2] - 1) * step[a] - 2 * pad[a] + kernel[a] for a in (0, 1)]
    y = np.zeros((*x.shape[:-2], size[-2], size[-1]))
    for index in np.ndindex(x.shape):
        y[index[:-2]].reshape(-1)[indices[index]] = x[index]
    return y


def unfold_loops(x, kernel_size, dilation=1, padding=0, stride=1):
    """Row (c, u, v) of column (i, j) is what cell (u, v) of window (i, j) sees in channel c."""
    if x.ndim == 3:
        return unfold_loops(x[None], kernel_size, dilation, padding, stride)[0]
    (kh, kw), (dy, dx), (py, px), (sy, sx) = _pair(kernel_size), _pair(dilation), _pair(padding), _pair(stride)
    rows, columns = window_starts(x.shape[2], kh, sy, py, dy), window_starts(x.shape[3], kw, sx, px, dx)
    x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    windows = [
        [x[:, c, i + py + u * dy, j + px + v * dx] for i, j in product(rows, columns)]
        for c, u, v in product(range(x.shape[1]), range(kh), range(kw))
    ]  # (C·kH·kW, L, N)
    return np.moveaxis(np.reshape(windows, (len(windows), len(rows) * len(columns), len(x))), 2, 0)


def fold_loops(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Where unfold would put a 1 for a pixel, fold adds that row and column of ``x`` to the pixel."""
    if x.ndim == 2:
        return fold_loops(x[None], output_size, kernel_size, dilation, padding, stride)[0]
    kernel, size = _pair(kernel_size), _pair(output_size)
    channels = x.shape[1] // (kernel[0] * kernel[1])
    y = np.zeros((len(x), channels, *size))
    for c, h, w in np.ndindex(channels, *size):
        one = np.zeros((1, channels, *size))
        one[0, c, h, w] = 1
        y[:, c, h, w] = (x * unfold_loops(one, kernel_size, dilation, padding, stride)).sum(axis=(1, 2))
    return y


# ------------------------------------------------------------------------------------ samples


def _max(name: str, shape: tuple[int, ...], *args: Any, ties: bool = False, **options: Any) -> Sample:
    def make(rng):
        return ((rng.integers(-1, 2, shape).astype(float) if ties else rng.standard_normal(shape)), *args), options

    return Sample(f"max_pool2d-{name}", F.max_pool2d, make, max_pool2d_loops, smooth=not ties)


def _avg(name: str, shape: tuple[int, ...], *args: Any, **options: Any) -> Sample:
    make = lambda rng: ((rng.standard_normal(shape), *args), options)  # noqa: E731
    return Sample(f"avg_pool2d-{name}", F.avg_pool2d, make, avg_pool2d_loops)


def _adaptive_avg(name: str, shape: tuple[int, ...], size: Any) -> Sample:
    return Sample(f"adaptive_avg_pool2d-{name}", F.adaptive_avg_pool2d, lambda rng: ((rng.standard_normal(shape), size), {}),
                  lambda x, size: adaptive_loops(x, size, np.mean))  # fmt: skip


def _adaptive_max(name: str, shape: tuple[int, ...], size: Any, **options: Any) -> Sample:
    make = lambda rng: ((rng.standard_normal(shape), size), options)  # noqa: E731
    return Sample(f"adaptive_max_pool2d-{name}", F.adaptive_max_pool2d, make, adaptive_max_loops)


def _unpool(name: str, image: tuple[int, ...], kernel: Any, output_size: Any = None, **options: Any) -> Sample:
    def make(rng):
        y, indices = max_pool2d_loops(rng.standard_normal(image), kernel, return_indices=True, **options)
        return (y, indices, kernel), options | ({"output_size": output_size} if output_size else {})

    return Sample(f"max_unpool2d-{name}", F.max_unpool2d, make, unpool_loops)


def _unfold(name: str, shape: tuple[int, ...], *args: Any, **options: Any) -> Sample:
    return Sample(f"unfold-{name}", F.unfold, lambda rng: ((rng.standard_normal(shape), *args), options), unfold_loops)


def _fold(name: str, shape: tuple[int, ...], *args: Any, **options: Any) -> Sample:
    return Sample(f"fold-{name}", F.fold, lambda rng: ((rng.standard_normal(shape), *args), options), fold_loops)


# Windows 3×2 that overlap, and the cell of each that won: for the ops that are gradients of max_pool2d and of each other.
_WINDOW = Window((3, 2), (2, 1), (1, 0), (1, 1), (4, 3), (2, 2))
_WINNERS = np.array([[[[2, 5], [1, 0]], [[3, 2], [4, 3]], [[5, 4], [3, 2]]]], np.uint8)  # (1, 3, 2, 2)


def _positions() -> np.ndarray:
    """Where ``_WINNERS`` lie in the flat image."""
    places = []
    for _, _, i, j in np.ndindex(_WINNERS.shape):
        places.append((2 * i - 1, j))
    cells = _WINNERS.reshape(-1)
    flat = [(h + cell // 2) * 3 + w + cell % 2 for (h, w), cell in zip(places, cells.astype(int), strict=True)]
    return np.reshape(flat, _WINNERS.shape)


def _gather_loops(x: np.ndarray) -> np.ndarray:
    y = np.empty(_WINNERS.shape)
    for n, c, i, j in np.ndindex(y.shape):
        y[n, c, i, j] = x[n, c].reshape(-1)[_positions()[n, c, i, j]]
    return y


def _scatter_loops(dy: np.ndarray) -> np.ndarray:
    x = np.zeros((1, 3, 4, 3))
    for n, c, i, j in np.ndindex(dy.shape):
        x[n, c].reshape(-1)[_positions()[n, c, i, j]] += dy[n, c, i, j]
    return x


def _small(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.standard_normal((1, 3, 2, 2)),), {}


def _large(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.standard_normal((1, 3, 4, 3)),), {}


def _up(name: str, function: Any) -> Sample:
    """An op that only gradients use, from (1, 3, 2, 2) to (1, 3, 4, 3)."""
    return Sample(name, function, _small, _scatter_loops, "in gradients only")


def _down(name: str, function: Any) -> Sample:
    """An op that only gradients use, from (1, 3, 4, 3) to (1, 3, 2, 2)."""
    return Sample(name, function, _large, _gather_loops, "in gradients only")


SAMPLES = [
    _max("plain", (2, 3, 5, 4), 2),
    _max("square", (2, 2, 4, 4), 2),
    _max("paper", (1, 2, 5, 6), 3, 2, ceil_mode=True),
    _max("ceil-clipped", (1, 2, 6, 4), 3, 2, padding=1, ceil_mode=True),
    _max("ceil-drops-a-window", (1, 1, 5, 4), 2, 3, padding=1, ceil_mode=True),
    _max("rectangle", (2, 1, 4, 7), (2, 3), stride=(1, 2), padding=(1, 0)),
    _max("dilation", (1, 2, 6, 5), (3, 2), stride=1, padding=1, dilation=(2, 3)),
    _max("stride-above-kernel", (1, 3, 7, 5), 2, stride=(3, 4)),
    _max("one-cell", (1, 2, 3, 4), 1),
    _max("image", (3, 4, 5), 2, stride=1),
    _max("indices", (2, 3, 4, 5), 3, stride=2, padding=1, return_indices=True),
    _max("image-indices", (2, 4, 3), 2, return_indices=True),
    _max("ties", (2, 2, 5, 6), 3, stride=2, padding=1, ceil_mode=True, return_indices=True, ties=True),
    _max("many-cells", (1, 1, 18, 17), (16, 17), padding=(1, 0), return_indices=True),
    _max("no-images", (0, 2, 5, 4), 2),
    _unpool("plain", (2, 3, 4, 6), 2),
    _unpool("rectangle", (1, 2, 6, 4), (3, 2), stride=(3, 2)),
    _unpool("output-size", (1, 2, 5, 7), 2, output_size=(5, 7)),
    _unpool("output-shape", (2, 1, 5, 4), 2, output_size=(2, 1, 5, 4)),
    _unpool("image", (3, 4, 2), 2),
    _unpool("no-images", (0, 2, 4, 4), 2),
    _up("max_pool2d-gradient", lambda dy: pooling._max_scatter(dy, beside(dy, _WINNERS), _WINDOW)),
    _up("adaptive_max_pool2d-gradient", lambda dy: pooling._scatter(dy, beside(dy, _positions()), (4, 3))),
    _down("max_pool2d-gradient-of-gradient", lambda x: pooling._max_gather(x, beside(x, _WINNERS), _WINDOW)),
    _down("max_unpool2d-gradient", lambda x: pooling._gather(x, beside(x, _positions()))),
    _avg("plain", (2, 3, 5, 4), 2),
    _avg("square", (2, 2, 4, 4), 2),
    _avg("rectangle", (2, 1, 5, 7), (2, 3), stride=(1, 2)),
    _avg("padding", (1, 2, 5, 4), 3, stride=2, padding=1),
    _avg("padding-not-counted", (1, 2, 5, 4), 3, stride=2, padding=(1, 0), count_include_pad=False),
    _avg("ceil", (1, 2, 6, 5), 3, stride=2, ceil_mode=True),
    _avg("ceil-padding", (1, 2, 6, 4), 3, stride=2, padding=1, ceil_mode=True),
    _avg("ceil-padding-not-counted", (1, 2, 6, 4), 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    _avg("divisor", (1, 2, 4, 5), 2, padding=1, divisor_override=3),
    _avg("image", (3, 4, 5), 2, stride=1),
    _avg("no-images", (0, 2, 5, 4), 2),
    _adaptive_avg("global", (2, 3, 4, 5), 1),
    _adaptive_avg("divides", (1, 2, 4, 6), (2, 3)),
    _adaptive_avg("overlaps", (2, 1, 5, 7), (3, 4)),
    _adaptive_avg("larger", (1, 2, 3, 2), (5, 4)),
    _adaptive_avg("none", (1, 2, 3, 5), (None, 2)),
    _adaptive_avg("image", (3, 4, 5), 2),
    _adaptive_max("global", (2, 3, 4, 5), 1),
    _adaptive_max("overlaps", (2, 1, 5, 7), (3, 4), return_indices=True),
    _adaptive_max("larger", (1, 2, 3, 2), (5, 4)),
    _adaptive_max("none", (1, 2, 3, 5), (None, 2), return_indices=True),
    _adaptive_max("image", (3, 4, 5), 2, return_indices=True),
    _adaptive_max("no-images", (0, 2, 4, 5), 2),
    _unfold("plain", (2, 3, 4, 5), 2),
    _unfold("square", (2, 2, 4, 4), 2, stride=2),
    _unfold("everything", (1, 2, 6, 5), (3, 2), dilation=(2, 1), padding=(1, 2), stride=(1, 3)),
    _unfold("image", (2, 3, 4), (2, 3)),
    _unfold("no-images", (0, 2, 3, 4), 2),
    _fold("plain", (2, 4, 6), (3, 4), 2),
    _fold("everything", (1, 12, 6), (6, 5), (3, 2), dilation=(2, 1), padding=(1, 2), stride=(2, 3)),
    _fold("image", (6, 4), (3, 4), (2, 3), stride=1),
]


def _call(function: Any, shape: tuple[int, ...], *args: Any, **options: Any) -> Any:
    return lambda: function(np.zeros(shape), *args, **options)


_INDICES = np.zeros((1, 2, 2, 2), int)

BAD_CALLS = [
    BadCall("max_pool2d-rank", _call(F.max_pool2d, (4, 4), 2), "max_pool2d: input must have 4 axes", ShapeError),
    BadCall("max_pool2d-too-large", _call(F.max_pool2d, (1, 2, 3, 4), 5),
            r"(?s)max_pool2d: a window of \(5, 5\).*does not fit.*N=1, C=2, H=3, W=4", ShapeError),
    BadCall("max_pool2d-padding", _call(F.max_pool2d, (1, 2, 3, 4), 2, padding=2), "padding .* more than half"),
    BadCall("max_pool2d-kernel", _call(F.max_pool2d, (1, 2, 3, 4), 0), "kernel_size must be .* at least 1, got 0"),
    BadCall("max_pool2d-stride", _call(F.max_pool2d, (1, 2, 3, 4), 2, stride=1.5), "stride must be one integer or two"),
    BadCall("max_pool2d-three", _call(F.max_pool2d, (1, 2, 3, 4), (1, 2, 3)), "kernel_size must be one integer or two"),
    BadCall("max_pool2d-sees-nothing", _call(F.max_pool2d, (1, 2, 1, 4), 2, 1, 1, 2), "sees no input", ShapeError),
    BadCall("max_pool2d-bool", lambda: F.max_pool2d(np.ones((1, 1, 2, 2), bool), 2), "booleans have no maximum", TypeError),
    BadCall("avg_pool2d-divisor", _call(F.avg_pool2d, (1, 2, 3, 4), 2, divisor_override=0), "divisor_override must"),
    BadCall("avg_pool2d-integers", lambda: F.avg_pool2d(np.ones((1, 1, 2, 2), int), 2), "needs floating point", TypeError),
    BadCall("adaptive_avg_pool2d-integers", lambda: F.adaptive_avg_pool2d(np.ones((1, 1, 2, 2), int), 1),
            "needs floating point", TypeError),
    BadCall("adaptive_avg_pool2d-empty", _call(F.adaptive_avg_pool2d, (1, 2, 0, 4), 2), "the image is empty", ShapeError),
    BadCall("adaptive_max_pool2d-size", _call(F.adaptive_max_pool2d, (1, 2, 3, 4), (1, 2, 3)), "output_size must be one"),
    BadCall("max_unpool2d-indices", _call(F.max_unpool2d, (1, 2, 2, 3), _INDICES, 2),
            r"(?s)indices must have the shape of input.*W=3.*W=2", ShapeError),
    BadCall("max_unpool2d-float", _call(F.max_unpool2d, (1, 2, 2, 2), _INDICES + 0.0, 2), "must be integers", TypeError),
    BadCall("max_unpool2d-outside", _call(F.max_unpool2d, (1, 2, 2, 2), _INDICES + 16, 2), "reach from 16", IndexError),
    BadCall("max_unpool2d-size", _call(F.max_unpool2d, (1, 2, 2, 2), _INDICES, 2, output_size=(6, 4)),
            r"output_size \(6, 4\) must differ by less", ShapeError),
    BadCall("unfold-too-large", _call(F.unfold, (1, 2, 3, 4), 5), "unfold: a window of", ShapeError),
    BadCall("fold-rank", _call(F.fold, (4,), 3, 2), "fold: input must have 3 axes", ShapeError),
    BadCall("fold-rows", _call(F.fold, (1, 7, 9), 4, 2), r"(?s)a multiple of 4.*C·kH·kW=7", ShapeError),
    BadCall("fold-columns", _call(F.fold, (8, 8), 4, 2), r"(?s)3·3 = 9 windows.*C·kH·kW=8, L=8", ShapeError),
]  # fmt: skip
