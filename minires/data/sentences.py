"""Sentences as a network reads them: words become numbers, and sentences of about one length share a batch.

Padding costs time, so a batch is made of neighbours: every epoch the sentences are shuffled, sorted by length within large
pools, cut into batches, and the batches are shuffled. The order is a pure function of seed and epoch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["BEGIN", "END", "PAD", "UnknownWordError", "Vocabulary", "bucketed", "padded"]

#: Numbers that are no words: what fills a batch up, what stands before the first word, and what stands after the last.
PAD, BEGIN, END = 0, 1, 2
_FIRST = 3

_POOL = 40  # batches that are sorted together


class UnknownWordError(ValueError):
    """A word that is not in the vocabulary; the message names it, and the nearest ones that are."""


class Vocabulary:
    """The words that a network knows, numbered from 3 on (0 to 2 are :data:`PAD`, :data:`BEGIN` and :data:`END`).

    Args:
        words: each once.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(words)
        self._numbers = {word: number for number, word in enumerate(self.words, _FIRST)}
        if len(self._numbers) != len(self.words):
            raise ValueError("Vocabulary: a word occurs twice")

    def __len__(self) -> int:
        """How many numbers there are: the words and the three others."""
        return len(self.words) + _FIRST

    def encode(self, sentence: Sequence[str]) -> list[int]:
        """The numbers of words.

        Raises:
            UnknownWordError: a word is not known.
        """
        for word in sentence:
            if word not in self._numbers:
                raise UnknownWordError(f"unknown word {word!r}; {self._advice(word)}")
        return [self._numbers[word] for word in sentence]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The words of numbers; those that are no words are left out."""
        return [self.words[number - _FIRST] for number in numbers if number >= _FIRST]

    def _advice(self, word: str) -> str:
        near = difflib.get_close_matches(word, self.words, n=3, cutoff=0.6)
        if near:
            return f"the nearest known {'one is' if len(near) == 1 else 'ones are'} {', '.join(near)}"
        return f"the known ones are {' '.join(self.words)}"


def padded(sentences: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
    """Sentences as the rows of one array, (N, length of the longest) int64, filled up with :data:`PAD`."""
    out = np.full((len(sentences), max(map(len, sentences))), PAD, np.int64)
    for row, sentence in zip(out, sentences, strict=True):
        row[: len(sentence)] = sentence
    return out


def bucketed(lengths: Sequence[Any], batch_size: int, rng: np.random.Generator | None = None) -> Iterator[list[int]]:
    """Batches of sentence numbers, in each of which the lengths are about the same.

    Args:
        lengths: of every sentence; anything that can be compared, as pairs of the lengths in two languages.
        batch_size: sentences in a batch; the last of a pool may be smaller.
        rng: shuffles; None: in the order of their lengths.
    """
    order = [int(i) for i in (range(len(lengths)) if rng is None else rng.permutation(len(lengths)))]
    pool = len(order) if rng is None else _POOL * batch_size
    batches = []
    for start in range(0, len(order), max(pool, 1)):
        part = sorted(order[start : start + pool], key=lambda i: lengths[i])
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    for i in range(len(batches)) if rng is None else rng.permutation(len(batches)):
        yield batches[i]
