"""Derivatives by evaluation alone: what a backward rule is compared with.

Two references, best first. The **complex step**, Im f(x + iε)/ε with ε = 1e-30, needs no subtraction and is exact to
rounding, but the function has to accept complex numbers (all ops of minires do). Where it does not, **Richardson
extrapolation** of central differences at h and h/2 takes its place; the difference between its two estimates, and the
rounding noise of the function, say how far the result can be trusted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["complex_step", "complex_step_works", "is_kink", "richardson"]

Function = Callable[[list[np.ndarray[Any, Any]]], Any]

_STEP = 1e-30


def complex_step(function: Function, inputs: list[np.ndarray[Any, Any]], which: int) -> np.ndarray[Any, Any]:
    """The gradient of a number-valued ``function`` with respect to ``inputs[which]``, exact to rounding."""
    inputs = [x.astype(np.complex128) if x.dtype.kind == "f" else x for x in inputs]
    x = inputs[which]
    slopes = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        stepped = x.copy()
        stepped[index] += 1j * _STEP
        slopes[index] = np.imag(function([*inputs[:which], stepped, *inputs[which + 1 :]])) / _STEP
    return slopes


def complex_step_works(function: Function, inputs: list[np.ndarray[Any, Any]], direction: np.random.Generator) -> bool:
    """Whether ``function`` carries complex numbers through: same real part, and a slope that a difference confirms."""
    along = [direction.standard_normal(x.shape) if x.dtype.kind == "f" else None for x in inputs]

    def moved(step: complex) -> list[Any]:
        return [x if u is None else x + step * u for x, u in zip(inputs, along, strict=True)]

    plain = function(inputs)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)  # a step that falls off is no step
            stepped = function(moved(1j * _STEP))
    except (TypeError, ValueError, NotImplementedError, np.exceptions.ComplexWarning):
        return False
    if not np.isclose(np.real(stepped), plain, rtol=1e-12, atol=1e-12):
        return False
    slope = np.imag(stepped) / _STEP
    h = 1e-6
    difference = (function(moved(h)) - function(moved(-h))) / (2 * h)
    return bool(np.isclose(slope, difference, rtol=1e-3, atol=1e-5 * (1 + np.abs(plain))))


def is_kink(function: Function, inputs: list[np.ndarray[Any, Any]], which: int, index: tuple[int, ...]) -> bool:
    """Whether the slopes to the left and to the right of one element differ, as ReLU's do at 0.

    On a smooth function the gap between the two shrinks with the step, at a kink it stays.
    """
    x = inputs[which]

    def value(step: float) -> float:
        stepped = x.copy()
        stepped[index] += step
        return float(np.real(function([*inputs[:which], stepped, *inputs[which + 1 :]])))

    def gap(h: float) -> float:
        return abs(value(h) - 2 * value(0.0) + value(-h)) / h

    h = 1e-4 * max(1.0, abs(float(x[index])))
    noise = 1e-10 * (1 + abs(value(0.0))) / h
    return gap(h / 4) > 0.5 * gap(h) + noise


def richardson(
    function: Function, inputs: list[np.ndarray[Any, Any]], which: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The gradient as in :func:`complex_step`, by differences, and an estimate of its error for every element."""
    x = inputs[which]
    slopes, errors = np.empty(x.shape), np.empty(x.shape)
    noise = 4 * np.finfo(x.dtype).eps * (1 + abs(float(np.real(function(inputs)))))
    for index in np.ndindex(x.shape):

        def central(h: float, index: tuple[int, ...] = index) -> float:
            values = []
            for sign in (1, -1):
                stepped = x.copy()
                stepped[index] += sign * h
                values.append((stepped[index], function([*inputs[:which], stepped, *inputs[which + 1 :]])))
            (ahead, f_ahead), (behind, f_behind) = values
            return float((f_ahead - f_behind) / (ahead - behind))  # the step that was really made, after rounding

        h = 1e-2 * max(1.0, abs(float(x[index])))
        coarse, middle, fine = central(h), central(h / 2), central(h / 4)
        first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3  # error h⁴
        slopes[index] = (16 * second - first) / 15  # error h⁶
        errors[index] = abs(second - first) + noise / h
    return slopes, errors
