"""Sliding windows taken apart and put together: ``unfold`` and ``fold``; and what all pooling ops ask of their windows.

``unfold`` writes every window of an image as a column; a convolution is then one matrix product. ``fold`` adds the columns
back to where they came from. Each is the gradient of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from minires.device import Array, array_module
from minires.errors import ShapeError
from minires.functional.shaping import reshape
from minires.kernels.window import Window
from minires.op import op
from minires.tensor import Tensor

__all__ = ["fold", "unfold"]

Pair = tuple[int, int]
Size = int | tuple[int, ...] | list[int]


def unfold(input: Array, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """Every window of an image as a column.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size: height and width of the window, one number or two; so are the following.
        dilation: step between the cells of the window.
        padding: zeros around the image.
        stride: step between windows.

    Returns:
        (N, C·kH·kW, L) or (C·kH·kW, L): one column for each of the L windows, row by row; in a column channel by channel,
        each channel's cells row by row.

    Raises:
        ShapeError: ``input`` has not 3 or 4 axes, or the window is larger than the padded image.
    """
    check_image("unfold", input)
    sizes = (pair("unfold", "kernel_size", kernel_size, 1), pair("unfold", "stride", stride, 1),
             pair("unfold", "padding", padding, 0), pair("unfold", "dilation", dilation, 1))  # fmt: skip
    window = make_window("unfold", input, *sizes)
    return batched(_unfold, input, window)


def fold(
    input: Array, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """The sum of windows, each added where :func:`unfold` would take it from an image of ``output_size``.

    Args:
        input: (N, C·kH·kW, L) or (C·kH·kW, L), one column for each window.
        output_size: height and width of the image, one number or two; so are the following.
        kernel_size: height and width of the window.
        dilation: step between the cells of the window.
        padding: how far windows reach over the edge of the image; what falls outside is dropped.
        stride: step between windows.

    Returns:
        (N, C, H, W) or (C, H, W).

    Raises:
        ShapeError: the columns are not C·kH·kW long for a whole C, or not as many as there are windows.
    """
    height, width = pair("fold", "output_size", output_size, 1)
    kernel, stride = pair("fold", "kernel_size", kernel_size, 1), pair("fold", "stride", stride, 1)
    padding, dilation = pair("fold", "padding", padding, 0), pair("fold", "dilation", dilation, 1)
    shape = tuple(input.shape)
    axes = "C·kH·kW L" if len(shape) == 2 else "N C·kH·kW L"
    if len(shape) not in (2, 3):
        raise ShapeError("fold", "input must have 3 axes, or 2 for a single image", input=(shape, axes))
    arguments = zip((height, width), kernel, stride, padding, dilation, strict=True)
    counts = [max(0, window_count(*each)) for each in arguments]
    window = Window(kernel, stride, padding, dilation, (height, width), (counts[0], counts[1]))
    if shape[-2] % window.cells:
        rule = f"columns must be C·kH·kW long with kernel_size {kernel}, so a multiple of {window.cells}"
        raise ShapeError("fold", rule, input=(shape, axes))
    windows = window.output_size[0] * window.output_size[1]
    if shape[-1] != windows:
        rule = f"an image of {(height, width)} has {window.output_size[0]}·{window.output_size[1]} = {windows} windows"
        raise ShapeError("fold", rule + ", one column for each is expected", input=(shape, axes))
    return batched(_fold, input, window, axes=3)


@op
def _unfold(input: Array, window: Window) -> Array:
    """(N, C, H, W) -> (N, C·kH·kW, L)."""
    images, channels = input.shape[:2]
    columns = array_module(input).zeros((images, channels, window.cells, *window.output_size), input.dtype)
    for cell, (rows, cols), seen in window.taps():
        columns[:, :, cell, rows, cols] = input[:, :, *seen]
    windows = window.output_size[0] * window.output_size[1]
    return columns.reshape(images, channels * window.cells, windows)  # (N, C, kH·kW, H', W') -> (N, C·kH·kW, L)


@_unfold.backward
def _(dy: Array, window: Window) -> Any:
    return _fold(dy, window)


@op
def _fold(input: Array, window: Window) -> Array:
    """(N, C·kH·kW, L) -> (N, C, H, W)."""
    images, channels = input.shape[0], input.shape[1] // window.cells
    columns = input.reshape(images, channels, window.cells, *window.output_size)  # (N, C, kH·kW, H', W')
    out = array_module(input).zeros((images, channels, *window.input_size), input.dtype)
    for cell, (rows, cols), seen in window.taps():
        out[:, :, *seen] += columns[:, :, cell, rows, cols]
    return out


@_fold.backward
def _(dy: Array, window: Window) -> Any:
    return _unfold(dy, window)


# ---------------------------------------------------------------------------------------- arguments of window ops


def pair(op_name: str, name: str, value: Any, least: int) -> Pair:
    """An option given as one integer or two, as (vertical, horizontal); each at least ``least``."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    whole = all(hasattr(v, "__index__") and not isinstance(v, bool) for v in values)
    if len(values) not in (1, 2) or not whole or any(v < least for v in values):
        raise ValueError(f"{op_name}: {name} must be one integer or two, each at least {least}, got {value!r}")
    return int(values[0]), int(values[-1])


def check_image(op_name: str, input: Array) -> None:
    """Raise unless ``input`` is (N, C, H, W) or (C, H, W)."""
    if getattr(input, "ndim", 0) not in (3, 4):
        shape = getattr(input, "shape", ())
        raise ShapeError(op_name, "input must have 4 axes, or 3 for a single image", input=(shape, "N C H W"))


def window_count(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool = False) -> int:
    """How many windows fit along an axis. In ceil mode the last may reach over the edge, but must start before it."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count


def make_window(
    op_name: str, input: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool = False
) -> Window:
    """The window over the last two axes of ``input``, with the number of output positions worked out and checked."""
    size = (input.shape[-2], input.shape[-1])
    arguments = zip(size, kernel, stride, padding, dilation, strict=True)
    counts = [window_count(*each, ceil_mode=ceil_mode) for each in arguments]
    if min(counts) < 1 or min(size) < 1:
        rule = f"a window of {kernel} with dilation {dilation} does not fit into the input padded by {padding}"
        raise ShapeError(op_name, rule, input=(input.shape, image_axes(input)))
    return Window(kernel, stride, padding, dilation, size, (counts[0], counts[1]))


def image_axes(input: Array) -> str:
    """The names of the axes of an image or a batch of images."""
    return "N C H W" if input.ndim == 4 else "C H W"


def batched(function: Callable[..., Tensor], input: Array, *arguments: Any, axes: int = 4) -> Tensor:
    """``function`` of a batch; a single image becomes a batch of one on the way in, and an image again on the way out."""
    if input.ndim == axes:
        return function(input, *arguments)
    out: Any = function(reshape(input, (1, *input.shape)), *arguments)
    if isinstance(out, tuple):  # a result and its indices
        return cast(Tensor, tuple(reshape(each, each.shape[1:]) for each in out))
    return reshape(out, out.shape[1:])
