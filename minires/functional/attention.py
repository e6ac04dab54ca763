"""Attention as in the Residual Attention Network (Wang et al., CVPR 2017): how a mask M acts on a trunk's features F.

Multiplying features by a mask in (0, 1) over and over makes them vanish, and a mask of zeros stops the gradient as well. The
paper's answer is *residual* attention: H = (1 + M)·F. With M = 0 a module is then its trunk, and no worse; the factor on the
gradient lies in (1, 2). Three ways to make a mask of the mask branch's output z are compared in the paper (section 3.3, its
Table 1): f1 mixes channels and space, f2 is attention to channels, f3 to places.
"""

from __future__ import annotations

from typing import Any

from minires.device import Array
from minires.errors import ShapeError
from minires.functional.activation import sigmoid
from minires.functional.arithmetic import sqrt, where
from minires.functional.normalization import standard_deviation, standardize
from minires.functional.reduction import mean, sum
from minires.kernels import of as kernels_of
from minires.op import op
from minires.tensor import Tensor

__all__ = [
    "channel_attention", "gated_residual", "mixed_attention", "naive_attention", "residual_attention", "spatial_attention",
]  # fmt: skip


@op
def residual_attention(trunk: Array, mask: Array) -> Array:
    """H = (1 + M)·F, attention residual learning (equation 3 of the paper).

    Args:
        trunk: F, the features, (N, C, H, W) or any other shape.
        mask: M, of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    _check_same_shape("residual_attention", trunk=trunk, mask=mask)
    return (1 + mask) * trunk


@residual_attention.backward
def _(dy: Array, trunk: Array, mask: Array, needs: Any) -> Any:
    """dF = g·(1 + M), dM = g·F."""
    return (dy * (1 + mask) if needs.trunk else None), (dy * trunk if needs.mask else None)


@op
def naive_attention(trunk: Array, mask: Array) -> Array:
    """H = M·F, naive attention learning, which the paper compares with.

    Args:
        trunk: F, the features, (N, C, H, W) or any other shape.
        mask: M, of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    _check_same_shape("naive_attention", trunk=trunk, mask=mask)
    return mask * trunk


@naive_attention.backward
def _(dy: Array, trunk: Array, mask: Array, needs: Any) -> Any:
    """dF = g·M, dM = g·F."""
    return (dy * mask if needs.trunk else None), (dy * trunk if needs.mask else None)


@op
def gated_residual(trunk: Array, logits: Array) -> Array:
    """H = (1 + σ(z))·F: mixed attention and attention residual learning in one pass, without M ever being stored.

    Args:
        trunk: F, the features, (N, C, H, W) or any other shape.
        logits: z, the mask branch's output before the sigmoid, of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    _check_same_shape("gated_residual", trunk=trunk, logits=logits)
    return kernels_of(trunk).gated_residual(trunk, logits)


@gated_residual.backward
def _(dy: Array, trunk: Array, logits: Array) -> Any:
    """dF = g·(1 + M), dz = g·F·M·(1 - M)."""
    return kernels_of(trunk).gated_residual_backward(dy, trunk, logits)


@gated_residual.definition
def _(trunk: Array, logits: Array) -> Any:
    return residual_attention(trunk, mixed_attention(logits))


# ------------------------------------------------------------------------------------ masks


def mixed_attention(logits: Array) -> Tensor:
    """f1, the default: M = σ(z) = 1/(1 + e⁻ᶻ) at each position of each channel. dz = dM·M·(1 - M)."""
    return sigmoid(logits)


@op
def channel_attention(logits: Array) -> Array:
    """f2: M = z/‖z‖₂, the norm taken over the channels at each position. No sigmoid: M lies in [-1, 1].

    Args:
        logits: z, (N, C, ...).

    Where all channels are 0 there is no direction; 1 stands in for the norm, so M is 0 and its derivative finite.
    """
    _check_axes("channel_attention", logits, 2)
    return logits / _length(logits)


@channel_attention.backward
def _(dy: Array, y: Array, logits: Array) -> Any:
    """dz = (dM - M·Σ(M·dM))/‖z‖, the sum over the channels: what points along z changes its length only, which is lost."""
    return (dy - y * sum(y * dy, 1, keepdim=True)) / _length(logits)


@op
def spatial_attention(logits: Array, eps: float = 1e-5) -> Array:
    """f3: M = σ((z - mean)/std), mean and biased std over the positions of each channel of each sample.

    Args:
        logits: z, (N, C, H, W) (or (N, C, ...)).
        eps: added to the variance, so that a map that is constant up to rounding does not turn into noise: it gets
            M = 1/2. With 0 it is the paper's formula to the letter; a std of exactly 0 is then replaced by 1.
    """
    _check_axes("spatial_attention", logits, 3)
    return sigmoid(standardize(logits, tuple(range(2, logits.ndim)), eps))


@spatial_attention.backward
def _(dy: Array, y: Array, logits: Array, eps: float) -> Any:
    """s = dM·M·(1 - M), ẑ = (z - mean)/std, dz = (s - mean(s) - ẑ·mean(s·ẑ))/std."""
    dim = tuple(range(2, logits.ndim))
    s, z_hat = dy * y * (1 - y), standardize(logits, dim, eps)
    centred = s - mean(s, dim, keepdim=True) - z_hat * mean(s * z_hat, dim, keepdim=True)
    return centred / standard_deviation(logits, dim, eps)


def _length(logits: Any) -> Any:
    """‖z‖₂ over the channels, (N, 1, ...); 1 where it would be 0."""
    squared = sum(logits * logits, 1, keepdim=True)
    return sqrt(where(squared == 0, 1, squared))


def _check_same_shape(name: str, **operands: Any) -> None:
    shapes = {key: tuple(getattr(value, "shape", ())) for key, value in operands.items()}
    if len(set(shapes.values())) > 1:
        first, second = shapes
        raise ShapeError(
            name, f"{first} and {second} must have the same shape", **{key: (s, "N C H W") for key, s in shapes.items()}
        )


def _check_axes(name: str, logits: Any, least: int) -> None:
    if getattr(logits, "ndim", 0) < least:
        raise ShapeError(name, f"the input needs at least {least} axes", logits=(getattr(logits, "shape", ()), "N C H W"))
