"""Layers without weights that change the shape of an image: pooling, resizing, flattening, patches.

Each calls the op of the same name in :mod:`minires.functional`; arguments and defaults are PyTorch's.
"""

from __future__ import annotations

from typing import Any

from minires import functional as F
from minires.nn.module import Module
from minires.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "Flatten", "Fold", "MaxPool2d", "MaxUnpool2d", "Unflatten",
    "Unfold", "Upsample",
]  # fmt: skip


def _options(module: Module, *names: str) -> str:
    """``name=value`` of some attributes."""
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)


class MaxPool2d(Module):
    """The largest value of each window of (N, C, H, W).

    Args:
        kernel_size: height and width of the window.
        stride: step of the window; default ``kernel_size``.
        padding: rows and columns of -inf put around the image.
        dilation: distance between the window's places.
        return_indices: also return where each maximum was, for :class:`MaxUnpool2d`.
        ceil_mode: also take the windows that hang over the far edge (they are clipped there).
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) → (N, C, H', W'), with the indices as a second Tensor if asked for."""
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "kernel_size", "stride", "padding", "dilation", "ceil_mode")


class MaxUnpool2d(Module):
    """Puts each value back where its maximum was found, zeros elsewhere; arguments as for :class:`MaxPool2d`."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        """(N, C, H', W') and the pool's indices → (N, C, H, W); ``output_size`` gives (H, W) where it is ambiguous."""
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "kernel_size", "stride", "padding")


class AvgPool2d(Module):
    """The mean of each window of (N, C, H, W).

    Args:
        kernel_size: height and width of the window.
        stride: step of the window; default ``kernel_size``.
        padding: rows and columns of zeros put around the image.
        ceil_mode: also take the windows that hang over the far edge.
        count_include_pad: the padding counts in the mean.
        divisor_override: divide by this instead of the number of places.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H', W')."""
        return F.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        )

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "kernel_size", "stride", "padding")


class AdaptiveAvgPool2d(Module):
    """The mean of each cell of a grid of ``output_size`` (None: the input's size) laid over (N, C, H, W)."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, *output_size)."""
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "output_size")


class AdaptiveMaxPool2d(Module):
    """The largest value of each cell of a grid of ``output_size`` (None: the input's size) laid over (N, C, H, W)."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) → (N, C, *output_size), with the indices as a second Tensor if asked for."""
        return F.adaptive_max_pool2d(input, self.output_size, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "output_size")


class Upsample(Module):
    """(N, C, H, W) resized to ``size`` or by ``scale_factor``.

    Args:
        size: (H', W') in pixels, or one number for both.
        scale_factor: instead of ``size``.
        mode: "nearest", "nearest-exact" or "bilinear".
        align_corners: for "bilinear": the corner pixels' centres stay in the corners.
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
    ) -> None:
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H', W')."""
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        """The options."""
        how = _options(self, "size") if self.size is not None else _options(self, "scale_factor")
        return f"{how}, mode={self.mode!r}"


class Flatten(Module):
    """The axes from ``start_dim`` to ``end_dim`` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C·H·W) by default."""
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "start_dim", "end_dim")


class Unflatten(Module):
    """The axis ``dim`` as several of sizes ``unflattened_size`` (one of them may be -1)."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...] | list[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        """(..., n, ...) → (..., *unflattened_size, ...)."""
        dim = range(input.ndim)[self.dim]
        return input.reshape(*input.shape[:dim], *self.unflattened_size, *input.shape[dim + 1 :])

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "dim", "unflattened_size")


class Unfold(Module):
    """All windows of (N, C, H, W) as columns (N, C·kH·kW, L): what turns a convolution into a matrix product."""

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C·kH·kW, L)."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "kernel_size", "dilation", "padding", "stride")


class Fold(Module):
    """The reverse of :class:`Unfold`: columns (N, C·kH·kW, L) added up to an image (N, C, *output_size)."""

    def __init__(self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C·kH·kW, L) → (N, C, *output_size)."""
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The options."""
        return _options(self, "output_size", "kernel_size", "dilation", "padding", "stride")
