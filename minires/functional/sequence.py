"""Words and chance: rows looked up by index, classes as vectors, and dropout."""

from __future__ import annotations

from typing import Any

from minires.device import Array, array_module
from minires.errors import ShapeError
from minires.functional.arithmetic import where
from minires.functional.shaping import put
from minires.op import op
from minires.operators import raw
from minires.random import uniform
from minires.tensor import Tensor

__all__ = ["dropout", "dropout2d", "embedding", "one_hot"]


def dropout(input: Array, p: float = 0.5, training: bool = True) -> Tensor:
    """Each element set to 0 with probability ``p``, the others divided by 1 - p (Srivastava et al., 2014).

    The random numbers come from :mod:`minires.random`, so ``manual_seed`` repeats them. Without ``training`` the input is
    returned as it is.

    Args:
        input: any shape, floating point.
        p: probability in [0, 1].
        training: whether to do anything.
    """
    _check_probability("dropout", p)
    return _drop(input, p if training else 0, tuple(input.shape))


def dropout2d(input: Array, p: float = 0.5, training: bool = True) -> Tensor:
    """As :func:`dropout`, but whole channels go to 0 together: neighbouring pixels say nearly the same.

    Args:
        input: (N, C, H, W), floating point.
        p: probability in [0, 1].
        training: whether to do anything.

    Raises:
        ShapeError: the input has no four axes.
    """
    _check_probability("dropout2d", p)
    if input.ndim != 4:
        raise ShapeError("dropout2d", "the input must have four axes", input=(input.shape, "N C H W"))
    return _drop(input, p if training else 0, (*input.shape[:2], 1, 1))


def _check_probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: expected a probability p between 0 and 1, got {p}")


def _drop(input: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    """``input`` times 1/(1 - p) or 0, one choice for each element of ``shape``."""
    if p == 0:
        return input
    kept = uniform(raw(input), shape) >= p
    dropped: Tensor = input * (kept.astype(input.dtype) * (1 / (1 - p) if p < 1 else 0.0))
    return dropped


@op
def embedding(input: Any, weight: Array, padding_idx: int | None = None) -> Array:
    """The rows of ``weight`` that ``input`` names: a table of vectors, one for each word.

    Args:
        input: indices, integers of any shape.
        weight: the table, (V, D).
        padding_idx: a row that gets no gradient (it may be counted from the end).

    Returns:
        (*input.shape, D).

    Raises:
        ShapeError: the table has no two axes.
        IndexError: an index outside the table.
        TypeError: indices that are not integers.
    """
    index = array_module(weight).asarray(input)
    if weight.ndim != 2:
        raise ShapeError("embedding", "the table must have two axes", weight=(weight.shape, "V D"))
    if index.dtype.kind not in "iu":
        raise TypeError(f"embedding: expected indices as integers, got {index.dtype}")
    rows = weight.shape[0]
    if index.size and (int(index.min()) < 0 or int(index.max()) >= rows):
        wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise IndexError(f"embedding: expected indices from 0 to {rows - 1}, got {wrong}")
    _padding_row(rows, padding_idx)
    return weight[index]


@embedding.backward
def _(dy: Array, input: Any, weight_shape: tuple[int, ...], padding_idx: int | None) -> Any:
    """Each row gets the sum of the gradients of all its copies."""
    padding = _padding_row(weight_shape[0], padding_idx)
    index = array_module(raw(dy)).asarray(raw(input))
    if padding is not None:
        dy = where(index[..., None] == padding, 0, dy)  # (*input.shape, 1)
    return put(dy, index, weight_shape)


def _padding_row(rows: int, padding_idx: int | None) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise ValueError(f"embedding: expected padding_idx within the {rows} rows of the table, got {padding_idx}")
    return padding_idx % rows


def one_hot(input: Any, num_classes: int = -1) -> Any:
    """Class indices as vectors of zeros with a single 1. Not differentiable.

    Args:
        input: class indices, integers of any shape.
        num_classes: how many classes there are; -1: one more than the largest index.

    Returns:
        int64, (*input.shape, num_classes); a Tensor if ``input`` is one, else an array.

    Raises:
        ValueError: an index outside the classes, or no indices and no ``num_classes``.
        TypeError: indices that are not integers.
    """
    index = raw(input)
    xp = array_module(index)
    index = xp.asarray(index)
    if index.dtype.kind not in "iu":
        raise TypeError(f"one_hot: expected class indices as integers, got {index.dtype}")
    if num_classes == -1:
        if not index.size:
            raise ValueError("one_hot: num_classes must be given where there are no indices, got -1")
        num_classes = int(index.max()) + 1
    if index.size and (int(index.min()) < 0 or int(index.max()) >= num_classes):
        wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise ValueError(f"one_hot: expected class indices from 0 to {num_classes - 1}, got {wrong}")
    hot = (index[..., None] == xp.arange(num_classes)).astype(xp.int64)  # (*input.shape, num_classes)
    return Tensor(hot) if isinstance(input, Tensor) else hot
