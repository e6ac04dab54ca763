"""Layers with weights: linear maps, convolutions, embeddings.

Each layer only holds parameters and options; the computation is the op of the same name in :mod:`minires.functional`.
Constructor arguments, defaults and initial distributions are PyTorch's (without ``device`` and ``dtype``: use ``.to()``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires import functional as F
from minires.errors import ShapeError
from minires.nn import init
from minires.nn.module import Module, Parameter
from minires.tensor import Tensor

__all__ = ["Bilinear", "Conv2d", "ConvTranspose2d", "Embedding", "Linear"]


def _empty(*shape: int) -> Parameter:
    return Parameter(np.zeros(shape, np.float32))


def _pair(value: Any) -> tuple[Any, Any]:
    """``3`` means (3, 3)."""
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _check_positive(layer: str, **sizes: Any) -> None:
    for name, size in sizes.items():
        for n in size if isinstance(size, tuple) else (size,):
            if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
                raise ValueError(f"{layer}: {name} must be a whole number >= 1, got {size!r}")


class Linear(Module):
    """y = x·Wᵀ + b on the last axis: (..., in_features) → (..., out_features).

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: learn an additive bias.

    Attributes:
        weight: (out_features, in_features), initially uniform in ±1/√in_features.
        bias: (out_features,), initially the same, or None.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        _check_positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = _empty(out_features, in_features)
        self.register_parameter("bias", _empty(out_features) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            _uniform_bias(self.bias, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) → (..., out_features)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The options."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """y_o = x₁ᵀ·W_o·x₂ + b_o on the last axes: (..., in1), (..., in2) → (..., out).

    Attributes:
        weight: (out_features, in1_features, in2_features), initially uniform in ±1/√in1_features.
        bias: (out_features,), initially the same, or None.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        _check_positive("Bilinear", in1_features=in1_features, in2_features=in2_features, out_features=out_features)
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = _empty(out_features, in1_features, in2_features)
        self.register_parameter("bias", _empty(out_features) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """(..., in1_features), (..., in2_features) → (..., out_features)."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The options."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class _Convolution(Module):
    """What both convolutions share: options, weight and bias, and how they print."""

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, groups: int,
        bias: bool, padding_mode: str, transposed: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = _pair(kernel_size), _pair(stride), _pair(dilation)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        _check_positive(
            name, in_channels=in_channels, out_channels=out_channels, kernel_size=self.kernel_size, stride=self.stride,
            dilation=self.dilation, groups=groups,
        )  # fmt: skip
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: in_channels and out_channels must be multiples of groups, "
                f"got in_channels={in_channels}, out_channels={out_channels}, groups={groups}"
            )
        if padding_mode != "zeros":
            raise ValueError(f"{name}: padding_mode must be 'zeros', got {padding_mode!r}; pad the input with F.pad instead")
        if transposed:
            self.weight = _empty(in_channels, out_channels // groups, *self.kernel_size)
        else:
            self.weight = _empty(out_channels, in_channels // groups, *self.kernel_size)
        self.register_parameter("bias", _empty(out_channels) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values anew: uniform in ±1/√fan_in."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            _uniform_bias(self.bias, init.calculate_fans(self.weight)[0])

    def extra_repr(self) -> str:
        """The options that differ from their defaults."""
        parts = [str(self.in_channels), str(self.out_channels), f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        defaults = {"padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1}
        for name, default in defaults.items():
            value = getattr(self, name, default)
            if value != default:
                parts.append(f"{name}={value}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class Conv2d(_Convolution):
    """Cross-correlation of (N, C, H, W) with learned kernels.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: one number or (height, width), in pixels, as for the other sizes.
        stride: step of the window.
        padding: zeros put around the image, or "same" (stride 1 only), or "valid".
        dilation: distance between the kernel's taps.
        groups: input and output channels are split into this many groups that do not see each other.
        bias: learn an additive bias.
        padding_mode: only "zeros".

    Attributes:
        weight: (out_channels, in_channels / groups, kH, kW), initially uniform in ±1/√fan_in.
        bias: (out_channels,), initially the same, or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, transposed=False
        )

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) → (N, out_channels, H', W')."""
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Convolution):
    """The reverse of :class:`Conv2d`: its input gradient as a layer, which enlarges the image by ``stride``.

    Arguments as for :class:`Conv2d`; ``output_padding`` adds rows and columns at the far edge, because several input
    sizes of a convolution lead to the same output size.

    Attributes:
        weight: (in_channels, out_channels / groups, kH, kW).
        bias: (out_channels,) or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros",
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, transposed=True
        )
        self.output_padding = _pair(output_padding)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """(N, in_channels, H, W) → (N, out_channels, H', W'); ``output_size`` (H', W') chooses among the possible sizes."""
        extra = self.output_padding if output_size is None else self._output_padding(input, _pair(output_size[-2:]))
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _output_padding(self, input: Tensor, wanted: tuple[int, int]) -> tuple[int, int]:
        """The rows and columns to add to reach ``wanted``."""
        least = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                input.shape[-2:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        extra = (wanted[0] - least[0], wanted[1] - least[1])
        if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, self.stride, self.dilation, strict=True)):
            most = tuple(n + max(s, d) - 1 for n, s, d in zip(least, self.stride, self.dilation, strict=True))
            rule = f"output_size {wanted} is out of reach, possible are {least} to {most}"
            raise ShapeError("ConvTranspose2d", rule, input=(input.shape, "N C H W"))
        return extra


class Embedding(Module):
    """A table of learned vectors: integer indices of any shape → that shape + (embedding_dim,).

    Args:
        num_embeddings: number of rows of the table.
        embedding_dim: size of a vector.
        padding_idx: this row starts as zeros and gets no gradient.

    Attributes:
        weight: (num_embeddings, embedding_dim), initially standard normal.
    """

    weight: Parameter

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        _check_positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"Embedding: padding_idx {padding_idx} is out of range for {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = _empty(num_embeddings, embedding_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            values = self.weight.data.copy()
            values[self.padding_idx] = 0
            self.weight.assign(values)

    def forward(self, input: Tensor) -> Tensor:
        """(...) integers → (..., embedding_dim)."""
        return F.embedding(input, self.weight, padding_idx=self.padding_idx)

    def extra_repr(self) -> str:
        """The options."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def _uniform_bias(bias: Parameter, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    init.uniform_(bias, -bound, bound)
