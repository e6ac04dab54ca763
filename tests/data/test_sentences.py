"""Words as numbers, and batches of sentences of about one length."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data.sentences import BEGIN, END, PAD, UnknownWordError, Vocabulary, bucketed, padded


def test_words_and_numbers():
    words = Vocabulary(["one", "two", "hundred"])
    assert len(words) == 6 and words.encode(["two", "one"]) == [4, 3]
    assert words.decode([BEGIN, 5, 3, END, PAD]) == ["hundred", "one"]
    with pytest.raises(ValueError, match="occurs twice"):
        Vocabulary(["a", "a"])


def test_an_unknown_word_is_named_with_its_neighbours():
    words = Vocabulary(["hundred", "thousand", "three", "thirty", "一", "二"])
    with pytest.raises(UnknownWordError, match=r"^unknown word 'hundert'; the nearest known one is hundred$"):
        words.encode(["three", "hundert"])
    with pytest.raises(UnknownWordError, match="unknown word 'thre'; the nearest known ones are three, "):
        words.encode(["thre"])
    with pytest.raises(UnknownWordError, match="unknown word '两'; the known ones are hundred thousand three thirty 一 二"):
        words.encode(["两"])


def test_padding():
    rows = padded([[5, 6], [7], [3, 4, 5]])
    assert rows.tolist() == [[5, 6, 0], [7, 0, 0], [3, 4, 5]] and rows.dtype == np.int64


@pytest.mark.parametrize("shuffled", [False, True])
def test_every_sentence_is_in_one_batch(shuffled: bool):
    lengths = np.random.default_rng(0).integers(1, 15, 1000).tolist()
    batches = list(bucketed(lengths, 16, np.random.default_rng(1) if shuffled else None))
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    assert max(map(len, batches)) == 16
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert np.mean(spread) < 1
    assert (batches == list(bucketed(lengths, 16, np.random.default_rng(1)))) == shuffled


def test_no_sentences_no_batches():
    assert list(bucketed([], 4)) == [] == list(bucketed([], 4, np.random.default_rng(0)))
