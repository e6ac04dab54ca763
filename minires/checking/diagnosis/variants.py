"""What a keyword option may be confused with: its neighbours, its default, the other words of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minires.checking.subject import Subject

__all__ = ["changed_options"]

#: Words that options of deep-learning functions choose among.
CHOICES = (
    ("none", "mean", "sum", "batchmean"),
    ("nearest", "bilinear", "linear", "bicubic", "area", "nearest-exact"),
    ("constant", "zeros", "reflect", "reflection", "replicate", "border", "circular", "wrap", "edge", "symmetric"),
    ("valid", "same", "full"),
    ("max", "avg", "mean", "min"),
    ("none", "tanh", "erf", "sigmoid"),
    ("left", "right", "center"),
    ("lower", "upper"),
    ("forward", "backward", "ortho"),
)


def changed_options(subject: Subject) -> Iterator[tuple[str, Any]]:
    """Every keyword option with every other value that is worth a try: (name, value)."""
    for name, value in subject.keywords.items():
        tried: list[Any] = [value]
        for other in (*_default(subject, name), *_others(value)):
            if not any(type(other) is type(t) and np.array_equal(other, t) for t in tried):
                tried.append(other)
                yield name, other


def _default(subject: Subject, name: str) -> Iterator[Any]:
    if name in subject.defaults and subject.defaults[name] is not subject.keywords[name]:
        yield subject.defaults[name]


def _others(value: Any) -> Iterator[Any]:
    if isinstance(value, bool | np.bool_):
        yield not value
    elif isinstance(value, int | np.integer):
        yield from (value - 1, value + 1, 1, 0, -value, 2 * value)
    elif isinstance(value, float | np.floating):
        yield from (0.0, 1.0, -value, 1 - value, 2 * value, value / 2, 10 * value, value / 10)
    elif isinstance(value, str):
        for words in CHOICES:
            if value in words:
                yield from words
    elif isinstance(value, tuple | list) and value and all(isinstance(v, int | float) for v in value):
        kind = type(value)
        if len(value) > 1:
            yield kind(reversed(value))
        for step in (-1, 1):
            yield kind(v + step for v in value)
            for k in range(len(value)):
                yield kind(v + step * (j == k) for j, v in enumerate(value))
