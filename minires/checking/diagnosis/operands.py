"""Mistakes that are the right gradient of something else: of a flipped kernel, a transposed operand, another keyword.

Here the numeric derivative is computed anew, for the changed operand or option, and compared with what the backward gives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minires.checking.diagnosis.case import Case, View, exchanges, moved_axes, subsets
from minires.checking.report import Diagnosis
from minires.checking.subject import Values

__all__ = ["hidden_operand_transposed", "kernel_flipped", "operand_transposed", "wrong_variant"]

Array = np.ndarray[Any, Any]


def kernel_flipped(case: Case) -> Diagnosis | None:
    """The right gradient, had another operand been reversed along some axes."""
    for i in case.other_inputs():
        shape = case.subject.values[i].shape
        for axes in subsets(k for k, n in enumerate(shape) if n > 1):
            if case.is_late():
                return None
            if case.explains(_with(i, partial(np.flip, axis=axes))) or case.explains(_with(i, partial(_around, axis=axes))):
                name = case.subject.names[i]
                return Diagnosis("kernel_flipped", f"would be right if {name} were reversed along its axes {list(axes)}: it "
                                 "has to be flipped here and is not, or it is and must not be",
                                 {"operand": name, "axes": axes})  # fmt: skip
    return None


def _around(array: Array, axis: tuple[int, ...]) -> Array:
    """Reversed on a circle, where the first element stays the first: what conjugating a Fourier transform does."""
    return np.roll(np.flip(array, axis), 1, axis)


def operand_transposed(case: Case) -> Diagnosis | None:
    """The right gradient, had two axes of another operand been exchanged."""
    for i in case.other_inputs():
        shape = case.subject.values[i].shape
        for order in exchanges(shape):
            if case.is_late():
                return None
            if case.explains(_with(i, partial(np.transpose, axes=order))):
                name, moved = case.subject.names[i], list(moved_axes(order))
                return Diagnosis("operand_transposed", f"would be right if {name} had its axes {moved} exchanged: it has to "
                                 "be transposed here and is not, or it is and must not be",
                                 {"operand": name, "axes": moved})  # fmt: skip
    return None


def hidden_operand_transposed(case: Case) -> Diagnosis | None:
    """The same where the operand is hidden in the forward: the Jacobian itself is transposed, along all axes or some."""
    if case.out_shape != case.shape or (len(case.outputs) != 1 and case.rows is None):
        return None
    for axes in subsets(a for a, size in enumerate(case.shape) if size > 1):
        if case.fits(partial(_transposed, case, axes)):
            return Diagnosis("operand_transposed", "is the product with a matrix where that with its transpose is needed "
                             f"(along axes {list(axes)}): Jᵀ·dy, not J·dy", {"axes": axes})  # fmt: skip
    return None


def _transposed(case: Case, axes: tuple[int, ...], view: View) -> Array:
    """The numeric Jacobian with each of ``axes`` of the output exchanged for the same axis of the input."""
    n = len(case.shape)
    order = [a + n if a in axes else a for a in range(n)] + [a if a in axes else a + n for a in range(n)]
    grid = view.value.reshape(case.out_shape + case.shape)  # (output axes, input axes)
    return np.asarray(grid.transpose(order).reshape(view.value.shape))  # (outputs, elements)


def wrong_variant(case: Case) -> Diagnosis | None:
    """The right gradient of the same forward with another option."""
    for name, forward in case.alternatives():
        if case.is_late():
            return None
        if case.explains(lambda view: view.reference.values, forward):
            return Diagnosis("wrong_variant", f"is the right gradient of another variant of the forward: {name}",
                             {"variant": name})  # fmt: skip
    return None


def _with(i: int, change: Callable[[Array], Array]) -> Callable[[View], Values]:
    """The inputs at a point, with one of them changed."""

    def values(view: View) -> Values:
        changed = list(view.reference.values)
        changed[i] = np.ascontiguousarray(change(changed[i]))
        return changed

    return values
