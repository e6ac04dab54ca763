"""Convolution on tensor cores without columns: the product reads its windows straight from the image (``conv_mma.cu``).

Columns are written once and read once, each time kH·kW times as much as the image holds. Here the threads of a block bring
the windows they multiply into shared memory themselves; what neighbouring windows share comes from the cache. Products are
those of TensorFloat32 for float32 images, exact for float16 and bfloat16; sums are float32 always.

* Forward: one launch.
* Gradient of the input: output pixels that lie a whole stride apart are reached by the same taps of the kernel, so the
  result falls apart into stride² interleaved images, each a stride-1 convolution of ``grad_output`` with a part of the
  kernel (as on the CPU). One launch each, straight into its place.
* Gradient of the weight: the rows of the product are cut into shares, each summed up by blocks of its own; then the shares
  are added in their order. Their number depends on the shapes alone, so results repeat bit for bit, on any GPU.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from minires.device import array_module
from minires.kernels.cuda.build import launch
from minires.kernels.cuda.geometry import Geometry
from minires.modes import get_float32_matmul_precision

__all__ = ["forward", "input_gradient", "is_worthwhile", "weight_gradient"]

Pair = tuple[int, int]

#: Sizes of the tiles of results in conv_mma.cu, by the number of the TILE: rows, columns, threads.
_TILES = [(64, 32, 128), (64, 64, 128), (128, 64, 128), (128, 128, 128)]

#: Blocks that keep a large GPU busy: four for each of the 132 multiprocessors of an H200. A constant, for the number of
#: shares of a weight gradient must not depend on the GPU.
_ENOUGH_BLOCKS = 4 * 132

#: A share has at least so many rows, and there are at most so many shares.
_SHARE_ROWS, _MOST_SHARES = 512, 256

#: Image and result have fewer numbers than this: the kernels count in 32 bits.
_MOST_NUMBERS = 2**31

# Thresholds of is_worthwhile. Predicted, to be replaced by measured ones: cuBLAS is the better multiplier, and columns cost
# bytes in proportion to kH·kW·C for each output pixel, while the product costs kH·kW·C·O operations. So the fewer outputs,
# the more the columns weigh.
_FEWEST_OUTPUTS, _MOST_OUTPUTS = 16, 256


def is_worthwhile(g: Geometry, dtype: Any) -> bool:
    """Whether the convolution of geometry ``g`` should run here rather than by columns and cuBLAS.

    The one rule:

    * its factors may be rounded as tensor cores do: float16, bfloat16, or float32 below the precision "highest";
    * channels and outputs of a group fill whole chunks of 16 bytes (an input of few channels, a picture, is filled up);
    * its columns would outweigh the product: 16 to 256 outputs a group.
    """
    if dtype.itemsize > 2 and (dtype.name != "float32" or get_float32_matmul_precision() == "highest"):
        return False
    chunk, outputs = 16 // dtype.itemsize, g.outputs // g.groups
    channels = g.group_channels if g.groups > 1 or g.channels > chunk else chunk
    most = max(math.prod(g.in_size) * max(g.channels, channels), math.prod(g.out_size) * g.outputs) * g.count
    if channels % chunk or outputs % chunk or most >= _MOST_NUMBERS:
        return False
    return bool(_FEWEST_OUTPUTS <= outputs <= _MOST_OUTPUTS)


def forward(g: Geometry, image: Any, weight: Any, bias: Any, out: Any) -> Any:
    """Fill out (N, H', W', O) with the convolution of image (N, H, W, C) and weight (O, C/g, kH, kW), plus bias (O)."""
    image = _whole_chunks(image)
    outputs, cells, channels = g.outputs // g.groups, math.prod(g.kernel), image.shape[3] // g.groups
    strides = (outputs * g.terms, g.terms, cells)
    taps = (Taps(0, 1, g.kernel[0], 0, 0), Taps(0, 1, g.kernel[1], 0, 0))
    matrix = _arranged(weight, (g.groups, outputs), channels, g.group_channels, strides, taps)  # (g, O/g, kH, kW, C/g)
    grid = (g.stride, (-g.before[0], -g.before[1]), g.dilation, g.out_size)
    _correlate(image, matrix, bias, out, g.kernel, grid, ((1, 1), (0, 0)), g.groups)
    return out


def input_gradient(g: Geometry, dy: Any, weight: Any, dx: Any) -> Any:
    """Fill dx (N, H, W, C) from dy (N, H', W', O) and weight (O, C/g, kH, kW)."""
    outputs, cells = g.outputs // g.groups, math.prod(g.kernel)
    strides = (outputs * g.terms, cells, g.terms)
    for row in range(min(g.stride[0], g.in_size[0])):
        for column in range(min(g.stride[1], g.in_size[1])):
            taps = _taps(row, g, 0), _taps(column, g, 1)
            # Inputs and outputs swap roles: (O, C/g, kH, kW) -> (g, C/g, taps, taps, O/g)
            matrix = _arranged(weight, (g.groups, g.group_channels), outputs, outputs, strides, taps)
            size = (-(-(g.in_size[0] - row) // g.stride[0]), -(-(g.in_size[1] - column) // g.stride[1]))
            grid = ((1, 1), (taps[0].origin, taps[1].origin), (taps[0].distance, taps[1].distance), size)
            kernel = (taps[0].number, taps[1].number)
            _correlate(dy, matrix, None, dx, kernel, grid, (g.stride, (row, column)), g.groups)
    return dx


class Taps(NamedTuple):
    """Some cells of a kernel along an axis: first, first + step, …, and what they see there.

    Attributes:
        first, step, number: which cells.
        origin: the position that the first one sees, relative to the window's.
        distance: between the positions that two neighbours see.
    """

    first: int
    step: int
    number: int
    origin: int
    distance: int


def _taps(phase: int, g: Geometry, axis: int) -> Taps:
    """Which taps u of the kernel reach the positions phase, phase + stride, … of the input, and from where.

    Position p takes from output (p + before - u·dilation) / stride wherever that is whole. So taps are in the order of
    ascending output, and what they see are outputs, relative to p // stride.
    """
    stride, dilation, before = g.stride[axis], g.dilation[axis], g.before[axis]
    taps = [u for u in reversed(range(g.kernel[axis])) if (phase + before - u * dilation) % stride == 0]
    every = stride // math.gcd(stride, dilation)
    first = taps[0] if taps else 0
    return Taps(first, -every, len(taps), (phase + before - first * dilation) // stride, dilation * every // stride)


def _arranged(
    weight: Any, rows: Pair, channels: int, given: int, strides: tuple[int, int, int], taps: tuple[Taps, Taps]
) -> Any:
    """Weight (O, C/g, kH, kW) in the order in which it is multiplied, (groups, rows, taps, taps, channels), and rounded.

    Args:
        weight: in any layout.
        rows: number of groups, and of rows of each.
        channels: of the result; those from ``given`` on are 0.
        given: channels of the weight.
        strides: in the weight's memory, from one group, row, channel to the next.
        taps: vertical and horizontal.
    """
    xp = array_module(weight)
    matrix = xp.empty((*rows, taps[0].number, taps[1].number, channels), weight.dtype)
    sizes = (rows[1], taps[0].number, taps[1].number, channels, given, *strides, weight.shape[3])
    where = (taps[0].first, taps[1].first, taps[0].step, taps[1].step)
    args = (xp.ascontiguousarray(weight), matrix, matrix.size, *sizes, *where)
    launch("conv_mma", "arrange", matrix.size, args, xp=xp, dtype=weight.dtype, TILE=0)
    return matrix


def weight_gradient(g: Geometry, image: Any, dy: Any) -> Any:
    """(O, C/g, kH, kW): the products of every window of image (N, H, W, C) with its dy (N, H', W', O), summed."""
    xp = array_module(image)
    image = _whole_chunks(image)
    channels, outputs = image.shape[3] // g.groups, g.outputs // g.groups
    terms = g.kernel[0] * g.kernel[1] * channels
    tile = _weight_tile(outputs, terms)
    tiles = -(-outputs // _TILES[tile][0]) * -(-terms // _TILES[tile][1])
    share_rows, count = _shares(g.out_rows, tiles * g.groups)
    shares = xp.empty((count, g.outputs, terms), xp.float32)
    sizes = (*g.in_size, image.shape[3], channels, *g.kernel, *g.stride, *(-b for b in g.before), *g.dilation)
    args = (image, dy, shares, g.out_rows, share_rows, *sizes, *g.out_size, outputs, g.outputs)
    grid, threads = (tiles, count, g.groups), _TILES[tile][2]
    launch("conv_mma", "conv_weight", tiles, args, xp=xp, dtype=image.dtype, grid=grid, block=threads, TILE=tile)
    total = xp.empty((g.outputs, *g.kernel, channels), image.dtype)  # (O, kH, kW, C/g)
    args = (shares, total, count, total.size)
    launch("conv_mma", "add_shares", total.size, args, xp=xp, dtype=image.dtype, TILE=tile)
    return total[..., : g.group_channels].transpose(0, 3, 1, 2)


def _shares(rows: int, tiles: int) -> tuple[int, int]:
    """Into how many shares to cut ``rows``, if each takes ``tiles`` blocks: rows of a share, and number of shares."""
    wanted = min(_MOST_SHARES, -(-_ENOUGH_BLOCKS // tiles), -(-rows // _SHARE_ROWS))
    share_rows = -(-rows // max(wanted, 1))
    return share_rows, -(-rows // share_rows)


def _correlate(
    image: Any, matrix: Any, bias: Any, out: Any, kernel: Pair, grid: tuple[Pair, ...], into: tuple[Pair, Pair], groups: int
) -> None:
    """Windows of image (N, H, W, C) times matrix (O, kH, kW, C/g).

    Args:
        image: the one factor.
        matrix: the other.
        bias: (O,) to be added, or None.
        out: (N, H', W', O), for the results.
        kernel: number of taps.
        grid: of the windows' first pixels: their distance, the first of all, the distance of taps, how many windows.
        into: the distance of the windows' results in out, and the first of all.
        groups: of channels.
    """
    xp = array_module(image)
    rows, outputs, channels = len(image) * math.prod(grid[-1]), out.shape[3] // groups, image.shape[3] // groups
    tile = _tile(rows, outputs)
    blocks = -(-rows // _TILES[tile][0]) * -(-outputs // _TILES[tile][1])
    sizes = (*image.shape[1:], channels, *kernel, *grid[0], *grid[1], *grid[2], *grid[3])
    targets = (*out.shape[1:3], *into[0], *into[1], outputs, out.shape[3])
    bias = None if bias is None else xp.ascontiguousarray(bias.astype(image.dtype, copy=False))
    args = (image, matrix, bias, out, rows, *sizes, *targets)
    where: dict[str, Any] = {"grid": (blocks, groups), "block": _TILES[tile][2]}
    launch("conv_mma", "conv_windows", rows, args, xp=xp, dtype=image.dtype, TILE=tile, **where)


def _tile(rows: int, outputs: int) -> int:
    """The number of the largest tile that is not half empty and of which there are enough (predicted, not measured)."""
    if outputs <= 32:
        return 0
    for tile in (3, 2):
        height, width, _ = _TILES[tile]
        if outputs > width // 2 and -(-rows // height) * -(-outputs // width) >= _ENOUGH_BLOCKS // 2:
            return tile
    return 1


def _weight_tile(outputs: int, terms: int) -> int:
    """The same for the gradient of the weight, where shares can always be made enough."""
    if outputs <= 64:
        return 1 if terms > 32 else 0
    return 2


def _whole_chunks(image: Any) -> Any:
    """``image`` (N, H, W, C) with zeros added up to whole chunks of 16 bytes: itself if there is nothing to add."""
    missing = -image.shape[3] % (16 // image.itemsize)
    if not missing:
        return image
    filled = array_module(image).zeros((*image.shape[:3], image.shape[3] + missing), image.dtype)
    filled[..., : image.shape[3]] = image
    return filled
