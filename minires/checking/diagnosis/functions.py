"""The functions that derivatives are made of, as people write them: of x, of the output y, of another input q.

Hypotheses try them in turn: as a factor that was forgotten, as a derivative that was put in another's place, or as a term
that is missing from a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["OF_Q", "OF_X", "OF_Y", "PARTS"]

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]

_erf = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _normal(x: Array) -> Array:
    """The density φ of the standard normal distribution."""
    return np.asarray(np.exp(-x * x / 2) / np.sqrt(2 * np.pi))


def _distribution(x: Array) -> Array:
    """Its distribution function Φ."""
    return np.asarray((1 + _erf(x / np.sqrt(2))) / 2)


#: Functions of x that a derivative may be (in words → function).
OF_X: dict[str, Function] = {
    "x": lambda x: x, "2x": lambda x: 2 * x, "x²": lambda x: x * x, "3x²": lambda x: 3 * x * x, "x³": lambda x: x**3,
    "1/x": lambda x: 1 / x, "1/x²": lambda x: 1 / x**2, "−1/x²": lambda x: -1 / x**2, "√x": np.sqrt,
    "1/(2√x)": lambda x: 0.5 / np.sqrt(x), "1/√x": lambda x: 1 / np.sqrt(x), "eˣ": np.exp, "−e⁻ˣ": lambda x: -np.exp(-x),
    "e⁻ˣ": lambda x: np.exp(-x), "σ(x)": _sigmoid, "σ(x)(1 − σ(x))": lambda x: _sigmoid(x) * (1 - _sigmoid(x)),
    "1 − σ(x)": lambda x: 1 - _sigmoid(x), "σ(x) + xσ(x)(1 − σ(x))": lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x))),
    "1 − tanh²x": lambda x: 1 - np.tanh(x) ** 2, "tanh x": np.tanh, "1 − tanh x": lambda x: 1 - np.tanh(x),
    "cos x": np.cos, "sin x": np.sin, "−sin x": lambda x: -np.sin(x), "1/cos²x": lambda x: 1 / np.cos(x) ** 2,
    "[x > 0]": lambda x: (x > 0) * 1.0, "[x < 0]": lambda x: (x < 0) * 1.0, "sign x": np.sign, "|x|": np.abs,
    "log x": np.log, "1 + log x": lambda x: 1 + np.log(x), "1/(1 + x²)": lambda x: 1 / (1 + x * x),
    "1/(1 + x)": lambda x: 1 / (1 + x), "1/(1 + |x|)²": lambda x: 1 / (1 + np.abs(x)) ** 2,
    "1/(1 + |x|)": lambda x: 1 / (1 + np.abs(x)), "e^(−x²)": lambda x: np.exp(-x * x),
    "2/√π·e^(−x²)": lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x), "φ(x)": _normal, "Φ(x)": _distribution,
    "Φ(x) + xφ(x)": lambda x: _distribution(x) + x * _normal(x),
    "1/√(1 − x²)": lambda x: 1 / np.sqrt(1 - x * x), "1/√(1 + x²)": lambda x: 1 / np.sqrt(1 + x * x),
    "x(1 − x)": lambda x: x * (1 - x), "1 − x²": lambda x: 1 - x * x, "1 − x": lambda x: 1 - x, "1 + x": lambda x: 1 + x,
    "sinh x": np.sinh, "cosh x": np.cosh, "1/(1 + x²)²": lambda x: 1 / (1 + x * x) ** 2, "−2x": lambda x: -2 * x,
    "−x": lambda x: -x, "4x³": lambda x: 4 * x**3, "1 − 1/x": lambda x: 1 - 1 / x, "1": lambda x: np.ones_like(x),
    "min(eˣ, 1)": lambda x: np.minimum(np.exp(x), 1), "eˣ − 1": np.expm1,
}  # fmt: skip

#: Parts of derivatives of products, on top of the functions that are derivatives themselves.
PARTS: dict[str, Function] = {
    "xφ(x)": lambda x: x * _normal(x), "xσ(x)(1 − σ(x))": lambda x: x * _sigmoid(x) * (1 - _sigmoid(x)),
    "x cos x": lambda x: x * np.cos(x), "−x sin x": lambda x: -x * np.sin(x), "xeˣ": lambda x: x * np.exp(x),
    "xe⁻ˣ": lambda x: x * np.exp(-x), "x(1 − tanh²x)": lambda x: x * (1 - np.tanh(x) ** 2),
    "x/(1 + x²)": lambda x: x / (1 + x * x), "xe^(−x²)": lambda x: x * np.exp(-x * x),
    "x²cos x": lambda x: x * x * np.cos(x), "x²eˣ": lambda x: x * x * np.exp(x), "x⁴": lambda x: x**4,
    "x log x": lambda x: x * np.log(x),
    "xσ(x)(1 − tanh²(softplus x))": lambda x: x * (1 - np.tanh(np.logaddexp(0, x)) ** 2) * _sigmoid(x),
    "tanh(softplus x)": lambda x: np.tanh(np.logaddexp(0, x)),
}  # fmt: skip

#: Functions of the output y.
OF_Y: dict[str, Function] = {
    "y": lambda y: y, "y(1 − y)": lambda y: y * (1 - y), "1 − y²": lambda y: 1 - y * y, "1 − y": lambda y: 1 - y,
    "1/y": lambda y: 1 / y, "1/(2y)": lambda y: 0.5 / y, "2y": lambda y: 2 * y, "y²": lambda y: y * y,
    "−y²": lambda y: -y * y, "e^y": np.exp, "e^(−y)": lambda y: np.exp(-y), "1 − e^(−y)": lambda y: 1 - np.exp(-y),
    "1 + y²": lambda y: 1 + y * y, "[y > 0]": lambda y: (y > 0) * 1.0, "y³": lambda y: y**3, "√y": np.sqrt,
    "1 + y": lambda y: 1 + y, "1/y²": lambda y: 1 / y**2, "e^y(1 − e^y)": lambda y: np.exp(y) * (1 - np.exp(y)),
    "−y": lambda y: -y, "y − 1": lambda y: y - 1,
}  # fmt: skip

#: Functions of another input q.
OF_Q: dict[str, Function] = {
    "{q}": lambda q: q, "1/{q}": lambda q: 1 / q, "−{q}": lambda q: -q, "{q}²": lambda q: q * q, "1 + {q}": lambda q: 1 + q,
    "1 − {q}": lambda q: 1 - q, "σ({q})": _sigmoid, "1 − σ({q})": lambda q: 1 - _sigmoid(q),
    "1 + σ({q})": lambda q: 1 + _sigmoid(q), "exp({q})": np.exp, "exp(−{q})": lambda q: np.exp(-q), "tanh({q})": np.tanh,
    "√{q}": np.sqrt, "log {q}": np.log, "1/{q}²": lambda q: 1 / q**2, "1/√{q}": lambda q: 1 / np.sqrt(q),
    "−1/{q}": lambda q: -1 / q,
    "−1/{q}²": lambda q: -1 / q**2, "exp(−2{q})": lambda q: np.exp(-2 * q), "|{q}|": np.abs,
    "[{q} > 0]": lambda q: (q > 0) * 1.0,
}  # fmt: skip
