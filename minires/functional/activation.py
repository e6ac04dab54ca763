"""Nonlinearities, element by element, and softmax along an axis.

The exponential in most of them overflows long before the function itself does, so each is written such that only
exponentials of negative numbers occur.
"""

from __future__ import annotations

import math
from typing import Any

from minires.device import Array, array_module
from minires.functional.arithmetic import exp, floating, where
from minires.functional.reduction import sum
from minires.functional.shaping import axes_of
from minires.op import op

__all__ = [
    "erf", "gelu", "leaky_relu", "log_softmax", "relu", "sigmoid", "silu", "softmax", "softplus", "tanh",
]  # fmt: skip


@op
def relu(input: Array) -> Array:
    """max(x, 0), element by element. The derivative at 0 is 0."""
    xp = array_module(input)
    if xp.iscomplexobj(input):  # the real part decides, also at 0, where NumPy's maximum would ask the imaginary one
        return xp.where(input.real > 0, input, 0)
    return xp.maximum(input, 0)


@relu.backward
def _(dy: Array, y: Array) -> Any:
    """1 where x > 0, which is where y > 0: the output says all, so the input is not kept."""
    return dy * (y > 0)


@op
def leaky_relu(input: Array, negative_slope: float = 0.01) -> Array:
    """x where x > 0, else ``negative_slope``·x, element by element."""
    return array_module(input).where(input > 0, input, input * negative_slope)


@leaky_relu.backward
def _(dy: Array, input: Array, negative_slope: float) -> Any:
    return where(input > 0, dy, dy * negative_slope)


@op
def sigmoid(input: Array) -> Array:
    """σ(x) = 1 / (1 + e⁻ˣ), element by element, in (0, 1). Below 0 it is computed as eˣ / (1 + eˣ)."""
    xp, x = array_module(input), floating(input)
    z = xp.exp(xp.minimum(x, -x))
    return xp.where(x < 0, z, 1) / (1 + z)


@sigmoid.backward
def _(dy: Array, y: Array) -> Any:
    """dσ/dx = σ(1 - σ), so only the output is kept."""
    return dy * (y * (1 - y))


@op
def tanh(input: Array) -> Array:
    """tanh x, element by element, in (-1, 1)."""
    return array_module(input).tanh(floating(input))


@tanh.backward
def _(dy: Array, y: Array) -> Any:
    """d tanh/dx = 1 - tanh²."""
    return dy * (1 - y * y)


@op
def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + e^(βx)) / β, a smooth ReLU; where βx > ``threshold`` it is x itself (they differ by less than e^-threshold)."""
    xp, x = array_module(input), floating(input)
    z = x * beta
    soft = (xp.maximum(z, 0) + xp.log1p(xp.exp(xp.minimum(z, -z)))) / beta  # ln(1 + eᶻ) = max(z, 0) + ln(1 + e^-|z|)
    return xp.where(z > threshold, x, soft)


@softplus.backward
def _(dy: Array, input: Array, beta: float, threshold: float) -> Any:
    """d softplus/dx = σ(βx)."""
    z = input * beta
    return where(z > threshold, dy, dy * sigmoid(z))


@op
def silu(input: Array) -> Array:
    """x·σ(x), element by element (also called swish)."""
    return input * sigmoid(input)


@silu.backward
def _(dy: Array, input: Array) -> Any:
    """d(xσ)/dx = σ + xσ(1 - σ)."""
    s = sigmoid(input)
    return dy * (s * (1 + input * (1 - s)))


@op
def erf(input: Array) -> Array:
    """erf x = 2/√π ∫₀ˣ exp(-t²) dt, element by element; correct to 4e-15 in float64, also for tiny x.

    NumPy has no erf. The trapezoidal rule with step h, applied to erf x = (2x/π) e^(-x²) ∫ e^(-t²)/(t² + x²) dt, is exact
    up to e^(-(π/h)²) once the residue of the pole at t = ix is added (Chiarella and Reichel, Mathematics of Computation 22,
    1968, on midpoints)::

        erf x = tanh(πx/h) - (2hx/π) e^(-x²) Σₖ e^(-tₖ²) / (tₖ² + x²)      tₖ = (k + ½)h,  k = 0, 1, …

    It is one formula for all x (also a complex x near the real axis), of which h = ½ needs 13 terms.
    """
    xp, step = array_module(input), 0.5
    x = xp.clip(floating(input), -6, 6)  # beyond, erf is ±1 in float64
    squares, total = x * x, 0
    for k in range(13):
        t2 = ((k + 0.5) * step) ** 2
        total = total + math.exp(-t2) / (squares + t2)
    return xp.tanh(x * (math.pi / step)) - (2 * step / math.pi) * x * xp.exp(-squares) * total


@erf.backward
def _(dy: Array, input: Array) -> Any:
    """d erf/dx = 2/√π · exp(-x²)."""
    return dy * (2 / math.sqrt(math.pi) * exp(-(input * input)))


@op
def gelu(input: Array, approximate: str = "none") -> Array:
    """x·Φ(x), where Φ is the distribution function of the normal distribution (Hendrycks and Gimpel, arXiv 1606.08415).

    ``approximate="none"``: Φ(x) = (1 + erf(x/√2)) / 2; ``"tanh"``: (1 + tanh(√(2/π)·(x + 0.044715x³))) / 2.
    """
    return input * _normal_cdf(input, approximate)


def _normal_cdf(x: Any, approximate: str) -> Any:
    if approximate == "none":
        return 0.5 * (1 + erf(x * math.sqrt(0.5)))
    if approximate == "tanh":
        return 0.5 * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


@gelu.backward
def _(dy: Array, input: Array, approximate: str) -> Any:
    """d(xΦ)/dx = Φ + xΦ', with Φ' = exp(-x²/2)/√(2π), or of the tanh form: 2Φ(1 - Φ)·√(2/π)·(1 + 3·0.044715x²)."""
    cdf, square = _normal_cdf(input, approximate), input * input
    if approximate == "none":
        density = exp(square * -0.5) / math.sqrt(2 * math.pi)
    else:
        density = 2 * cdf * (1 - cdf) * (math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * square))
    return dy * (cdf + input * density)


@op
def softmax(input: Array, dim: int) -> Array:
    """yᵢ = e^xᵢ / Σⱼ e^xⱼ along ``dim``: positive, with sum 1. The largest x is taken off all first (y stays the same)."""
    axes, x = axes_of("softmax", dim, input.shape), floating(input)
    if not x.size:
        return x.copy()
    z = array_module(x).exp(x - x.real.max(axis=axes, keepdims=True))
    return z / z.sum(axis=axes, keepdims=True)


@softmax.backward
def _(dy: Array, y: Array, dim: int) -> Any:
    """∂yᵢ/∂xⱼ = yᵢ(δᵢⱼ - yⱼ), so dxⱼ = yⱼ(dyⱼ - Σᵢ dyᵢyᵢ)."""
    return y * (dy - sum(dy * y, dim, True))


@op
def log_softmax(input: Array, dim: int) -> Array:
    """yᵢ = xᵢ - ln Σⱼ e^xⱼ along ``dim``; stays exact where softmax itself would be 0."""
    axes, x = axes_of("log_softmax", dim, input.shape), floating(input)
    if not x.size:
        return x.copy()
    xp = array_module(x)
    z = x - x.real.max(axis=axes, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis=axes, keepdims=True))


@log_softmax.backward
def _(dy: Array, y: Array, dim: int) -> Any:
    """∂yᵢ/∂xⱼ = δᵢⱼ - e^yⱼ, so dxⱼ = dyⱼ - e^yⱼ·Σᵢ dyᵢ."""
    return dy - exp(y) * sum(dy, dim, True)
