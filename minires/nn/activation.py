"""Layers that work on each element, or on each vector of scores, and dropout.

Each calls the op of the same name in :mod:`minires.functional`. ``inplace`` is accepted because PyTorch code passes it,
and ignored: a result never overwrites its input here.
"""

from __future__ import annotations

from minires import functional as F
from minires.nn.module import Module
from minires.tensor import Tensor

__all__ = [
    "GELU", "Dropout", "Dropout2d", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh",
]  # fmt: skip


class ReLU(Module):
    """max(0, x)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape."""
        return F.relu(input)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope·x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """The options."""
        return f"negative_slope={self.negative_slope}"


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape, in (0, 1)."""
        return F.sigmoid(input)


class Tanh(Module):
    """(e^x - e^-x) / (e^x + e^-x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape, in (-1, 1)."""
        return F.tanh(input)


class Softplus(Module):
    """ln(1 + e^(beta·x)) / beta; x itself where beta·x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape, > 0."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The options."""
        return f"beta={self.beta}, threshold={self.threshold}"


class SiLU(Module):
    """x·sigmoid(x)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape."""
        return F.silu(input)


class GELU(Module):
    """x·Φ(x) with the normal distribution's Φ, or its approximation by "tanh"."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """The options."""
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """e^x / Σ e^x along ``dim``."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape, adding up to 1 along ``dim``."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The options."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """The logarithm of softmax along ``dim``, computed without overflow."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape, ≤ 0."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The options."""
        return f"dim={self.dim}"


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be a probability between 0 and 1, got {p!r}")
        self.p = p

    def extra_repr(self) -> str:
        """The options."""
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training each element is 0 with probability ``p``, else multiplied by 1/(1 - p)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape → the same shape."""
        return F.dropout(input, self.p, self.training)


class Dropout2d(_Dropout):
    """In training each whole channel of each sample is 0 with probability ``p``, else multiplied by 1/(1 - p)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return F.dropout2d(input, self.p, self.training)
