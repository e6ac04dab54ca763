"""Sample inputs for convolution, with loops as the reference."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, tuple) else (value, value)


def conv2d_loops(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """The definition: one loop an index."""
    (sy, sx), (dy, dx) = _pair(stride), _pair(dilation)
    outputs, per_group, kh, kw = w.shape
    if padding == "same":
        ys, xs = dy * (kh - 1), dx * (kw - 1)
        pad = ((ys // 2, ys - ys // 2), (xs // 2, xs - xs // 2))
    else:
        py, px = (0, 0) if padding == "valid" else _pair(padding)
        pad = ((py, py), (px, px))
    x = np.pad(x, ((0, 0), (0, 0), *pad))
    height = (x.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1
    y = np.zeros((len(x), outputs, height, width), np.result_type(x, w))
    for n, o, i, j in product(range(len(x)), range(outputs), range(height), range(width)):
        group = o // (outputs // groups)
        for c, u, v in product(range(per_group), range(kh), range(kw)):
            y[n, o, i, j] += w[o, c, u, v] * x[n, group * per_group + c, i * sy + u * dy, j * sx + v * dx]
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def conv_transpose2d_loops(x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every input value stamps the kernel into the output; the border is cut off."""
    (sy, sx), (dy, dx), (py, px), (ey, ex) = (_pair(v) for v in (stride, dilation, padding, output_padding))
    count, channels, height, width = x.shape
    _, per_group, kh, kw = w.shape
    full = ((height - 1) * sy + dy * (kh - 1) + 1 + ey, (width - 1) * sx + dx * (kw - 1) + 1 + ex)
    y = np.zeros((count, per_group * groups, *full), np.result_type(x, w))
    for n, c, i, j in product(range(count), range(channels), range(height), range(width)):
        group = c // (channels // groups)
        for o, u, v in product(range(per_group), range(kh), range(kw)):
            y[n, group * per_group + o, i * sy + u * dy, j * sx + v * dx] += w[c, o, u, v] * x[n, c, i, j]
    y = y[:, :, py : full[0] - py, px : full[1] - px]
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def _conv(name: str, x: tuple[int, ...], w: tuple[int, ...], bias: bool = False, **options: Any) -> Sample:
    def make(rng):
        args = (rng.standard_normal(x), rng.standard_normal(w), *([rng.standard_normal(w[0])] if bias else []))
        return args, options

    return Sample(f"conv2d-{name}", F.conv2d, make, conv2d_loops)


def _transposed(name: str, x: tuple[int, ...], w: tuple[int, ...], bias: bool = False, **options: Any) -> Sample:
    outputs = w[1] * options.get("groups", 1)

    def make(rng):
        args = (rng.standard_normal(x), rng.standard_normal(w), *([rng.standard_normal(outputs)] if bias else []))
        return args, options

    return Sample(f"conv_transpose2d-{name}", F.conv_transpose2d, make, conv_transpose2d_loops)


SAMPLES = [
    _conv("plain", (2, 3, 5, 4), (4, 3, 3, 2)),
    _conv("square", (3, 3, 3, 3), (3, 3, 3, 3), padding=1),
    _conv("bias-padding", (2, 2, 4, 3), (3, 2, 3, 2), bias=True, padding=(1, 2)),
    _conv("stride", (1, 2, 7, 6), (3, 2, 3, 2), stride=(2, 3)),
    _conv("stride-leaves-a-rest", (2, 1, 6, 5), (2, 1, 3, 3), stride=2, padding=1, bias=True),
    _conv("stride-above-kernel", (1, 2, 7, 5), (2, 2, 1, 2), stride=3),
    _conv("dilation", (1, 2, 7, 5), (2, 2, 3, 2), dilation=(2, 3)),
    _conv("dilation-and-stride", (1, 1, 8, 7), (2, 1, 3, 2), dilation=(2, 3), stride=(4, 2), padding=2),
    _conv("groups", (2, 4, 3, 4), (6, 2, 2, 3), groups=2, bias=True),
    _conv("depthwise", (2, 3, 4, 3), (3, 1, 3, 2), groups=3, padding=1),
    _conv("depthwise-multiplier", (1, 2, 4, 3), (6, 1, 2, 2), groups=2, stride=2),
    _conv("1x1", (2, 3, 2, 4), (5, 3, 1, 1), bias=True),
    _conv("1x1-stride", (2, 3, 4, 3), (2, 3, 1, 1), stride=2),
    _conv("1x1-padding", (1, 2, 2, 3), (3, 2, 1, 1), padding=1),
    _conv("same", (1, 2, 4, 5), (2, 2, 3, 3), padding="same"),
    _conv("same-uneven", (1, 2, 4, 5), (2, 2, 2, 3), padding="same", dilation=(3, 1)),
    _conv("valid", (1, 2, 4, 5), (2, 2, 2, 3), padding="valid"),
    _conv("kernel-covers-image", (2, 2, 3, 4), (3, 2, 3, 4)),
    _conv("padding-beyond-kernel", (1, 1, 2, 3), (2, 1, 2, 2), padding=3),
    _conv("no-images", (0, 2, 4, 5), (3, 2, 3, 3)),
    _transposed("plain", (2, 3, 3, 2), (3, 4, 3, 2)),
    _transposed("square", (2, 2, 2, 2), (2, 2, 2, 2), stride=2),
    _transposed("bias-padding", (1, 2, 4, 3), (2, 3, 3, 3), bias=True, padding=(1, 2)),
    _transposed("stride", (1, 2, 3, 2), (2, 2, 3, 2), stride=(2, 3)),
    _transposed("stride-above-kernel", (1, 2, 3, 2), (2, 1, 2, 1), stride=3),
    _transposed("output-padding", (1, 2, 3, 2), (2, 2, 3, 3), stride=(2, 3), padding=1, output_padding=(1, 2)),
    _transposed("dilation", (1, 1, 3, 4), (1, 2, 3, 2), dilation=(2, 3), stride=2),
    _transposed("groups", (2, 4, 2, 3), (4, 3, 2, 2), groups=2, bias=True),
    _transposed("fcn", (1, 2, 3, 4), (2, 2, 4, 4), stride=2, padding=1),
]


def _call(function: Any, x: tuple[int, ...], w: tuple[int, ...], *bias: tuple[int, ...], **options: Any) -> Any:
    return lambda: function(np.zeros(x), np.zeros(w), *(np.zeros(b) for b in bias), **options)


BAD_CALLS = [
    BadCall("conv2d-channels", _call(F.conv2d, (2, 3, 8, 8), (5, 4, 3, 3)),
            r"(?s)conv2d: input has C=3 channels.*I·groups = 4·1.*input  \(N=2, C=3, H=8, W=8\).*"
            r"weight \(O=5, I=4, kH=3, kW=3\)", ShapeError),
    BadCall("conv2d-rank", _call(F.conv2d, (3, 8, 8), (5, 3, 3, 3)), "conv2d: input and weight must have 4 axes",
            ShapeError),
    BadCall("conv2d-groups", _call(F.conv2d, (2, 4, 8, 8), (5, 2, 3, 3), groups=2), r"groups=2 must divide", ShapeError),
    BadCall("conv2d-bias", _call(F.conv2d, (2, 3, 8, 8), (5, 3, 3, 3), (3,)), r"bias must have one value.*", ShapeError),
    BadCall("conv2d-kernel", _call(F.conv2d, (2, 3, 2, 8), (5, 3, 3, 3)), r"the kernel covers 3×3 pixels, more",
            ShapeError),
    BadCall("conv2d-stride", _call(F.conv2d, (2, 3, 8, 8), (5, 3, 3, 3), stride=0), r"stride must be a whole number >= 1"),
    BadCall("conv2d-padding", _call(F.conv2d, (2, 3, 8, 8), (5, 3, 3, 3), padding=-1),
            r"padding must be a whole number >= 0"),
    BadCall("conv2d-same", _call(F.conv2d, (2, 3, 8, 8), (5, 3, 3, 3), padding="same", stride=2), "'same' needs stride 1"),
    BadCall("conv2d-padding-word", _call(F.conv2d, (2, 3, 8, 8), (5, 3, 3, 3), padding="full"), "padding must be .*'full'"),
    BadCall("transposed-channels", _call(F.conv_transpose2d, (2, 3, 8, 8), (5, 4, 3, 3)),
            r"(?s)conv_transpose2d: input has C=3 channels, but weight has I=5", ShapeError),
    BadCall("transposed-output-padding", _call(F.conv_transpose2d, (2, 3, 8, 8), (3, 4, 3, 3), stride=2, output_padding=2),
            r"output_padding \(2, 2\) must be smaller than stride \(2, 2\)"),
    BadCall("transposed-padding", _call(F.conv_transpose2d, (2, 3, 2, 2), (3, 4, 3, 3), padding=2), "leaves an output",
            ShapeError),
    BadCall("transposed-bias", _call(F.conv_transpose2d, (2, 3, 2, 2), (3, 4, 3, 3), (3,)), "bias must have", ShapeError),
]  # fmt: skip
