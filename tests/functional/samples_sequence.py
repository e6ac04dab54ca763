"""Sample inputs for embedding, one_hot and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minires as mr
from minires import functional as F
from minires.errors import ShapeError
from tests.functional.sample import BadCall, Sample


def _rows(index: np.ndarray, weight: np.ndarray, padding_idx: int | None = None) -> np.ndarray:
    return np.array([weight[i] for i in index.ravel()]).reshape(*index.shape, weight.shape[1])


def _seeded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same random numbers at each call."""

    def call(x: Any, **options: Any) -> Any:
        mr.manual_seed(3)
        return function(x, **options)

    return call


def _kept(shape: tuple[int, ...], p: float) -> np.ndarray:
    numbers = np.random.default_rng(3).random(shape, dtype=np.float32)
    return np.array([0.0 if u < p else 1 / (1 - p) for u in numbers.ravel()]).reshape(shape)


_CHANCE = "PyTorch draws other random numbers"

SAMPLES = [
    Sample("embedding", F.embedding,
           lambda rng: ((np.array([[1, 4, 1], [0, 1, 3]]), rng.standard_normal((5, 4))), {}), _rows),
    Sample("embedding-padding", F.embedding,
           lambda rng: ((np.array([2, 0, 2, 1]), rng.standard_normal((3, 2))), {"padding_idx": 2}), _rows,
           smooth=False, derivative=False),
    Sample("embedding-padding-from-the-end", F.embedding,
           lambda rng: ((np.array([2, 0, 2, 1]), rng.standard_normal((3, 2))), {"padding_idx": -1}), _rows,
           smooth=False, derivative=False),
    Sample("embedding-padding-first", F.embedding,
           lambda rng: ((np.array([2, 0, 2, 1]), rng.standard_normal((3, 2))), {"padding_idx": -3}), _rows,
           smooth=False, derivative=False),
    Sample("dropout", _seeded(F.dropout), lambda rng: ((rng.standard_normal((3, 4, 2)),), {"p": 0.3}),
           lambda x, p: x * _kept(x.shape, p), _CHANCE),
    Sample("dropout2d", _seeded(F.dropout2d), lambda rng: ((rng.standard_normal((3, 4, 2, 1)),), {}),
           lambda x: x * _kept((*x.shape[:2], 1, 1), 0.5), _CHANCE),
    Sample("dropout-evaluation", F.dropout, lambda rng: ((rng.standard_normal((3, 4)),), {"training": False}),
           lambda x, training: x),
    Sample("dropout-everything", F.dropout, lambda rng: ((rng.standard_normal((3, 4)),), {"p": 1.0}), lambda x, p: 0 * x),
    Sample("dropout-nothing", F.dropout, lambda rng: ((rng.standard_normal((3, 4)),), {"p": 0.0}), lambda x, p: x),
]  # fmt: skip


_table = np.zeros((5, 4))

BAD_CALLS = [
    BadCall("embedding-index", lambda: F.embedding(np.array([5]), _table), "from 0 to 4, got 5", IndexError),
    BadCall("embedding-negative", lambda: F.embedding(np.array([-1]), _table), "from 0 to 4, got -1", IndexError),
    BadCall("embedding-floats", lambda: F.embedding(np.array([1.0]), _table), "indices as integers, got float64", TypeError),
    BadCall("embedding-table", lambda: F.embedding(np.array([1]), _table[0]), r"two axes\n  weight \(4,\)", ShapeError),
    BadCall("embedding-padding", lambda: F.embedding(np.array([1]), _table, 5), "padding_idx within the 5 rows"),
    BadCall("dropout-p", lambda: F.dropout(_table, 1.5), "dropout: expected a probability p between 0 and 1, got 1.5"),
    BadCall("dropout2d-axes", lambda: F.dropout2d(_table), "must have four axes", ShapeError),
    BadCall("one_hot-index", lambda: F.one_hot(np.array([3]), 3), "one_hot: expected class indices from 0 to 2, got 3"),
    BadCall("one_hot-negative", lambda: F.one_hot(np.array([-1])), "got -1"),
    BadCall("one_hot-empty", lambda: F.one_hot(np.array([], int)), "num_classes must be given"),
    BadCall("one_hot-floats", lambda: F.one_hot(np.array([1.0])), "as integers", TypeError),
]  # fmt: skip
