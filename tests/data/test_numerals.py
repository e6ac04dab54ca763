"""Written-out numbers: known ones, all that fits through the inverse, and sets that have nothing in common."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import numerals
from minires.data.numerals import from_chinese, from_english, to_chinese, to_english

#: Written by people.
KNOWN = [
    (0, "zero", "零"),
    (2, "two", "二"),
    (10, "ten", "十"),
    (11, "eleven", "十一"),
    (20, "twenty", "二十"),
    (99, "ninety-nine", "九十九"),
    (100, "one hundred", "一百"),
    (101, "one hundred and one", "一百零一"),
    (110, "one hundred and ten", "一百一十"),
    (111, "one hundred and eleven", "一百一十一"),
    (321, "three hundred and twenty-one", "三百二十一"),
    (1_000, "one thousand", "一千"),
    (1_001, "one thousand and one", "一千零一"),
    (1_010, "one thousand and ten", "一千零一十"),
    (1_100, "one thousand one hundred", "一千一百"),
    (2_002, "two thousand and two", "二千零二"),
    (10_000, "ten thousand", "一万"),
    (10_010, "ten thousand and ten", "一万零一十"),
    (10_101, "ten thousand one hundred and one", "一万零一百零一"),
    (12_000, "twelve thousand", "一万二千"),
    (60_300, "sixty thousand three hundred", "六万零三百"),
    (100_000, "one hundred thousand", "十万"),
    (110_000, "one hundred and ten thousand", "十一万"),
    (105_000, "one hundred and five thousand", "十万五千"),
    (1_000_000, "one million", "一百万"),
    (1_000_010, "one million and ten", "一百万零一十"),
    (1_100_000, "one million one hundred thousand", "一百一十万"),
    (10_000_000, "ten million", "一千万"),
    (20_005_000, "twenty million five thousand", "二千万五千"),
    (20_000_500, "twenty million five hundred", "二千万零五百"),
    (20_050_000, "twenty million fifty thousand", "二千零五万"),
    (100_000_000, "one hundred million", "一亿"),
    (100_000_001, "one hundred million and one", "一亿零一"),
    (100_005_000, "one hundred million five thousand", "一亿零五千"),
    (100_010_000, "one hundred million ten thousand", "一亿零一万"),
    (101_000_000, "one hundred and one million", "一亿零一百万"),
    (110_000_000, "one hundred and ten million", "一亿一千万"),
    (
        123_456_789,
        "one hundred and twenty-three million four hundred and fifty-six thousand seven hundred and eighty-nine",
        "一亿二千三百四十五万六千七百八十九",
    ),
    (
        999_999_999,
        "nine hundred and ninety-nine million nine hundred and ninety-nine thousand nine hundred and ninety-nine",
        "九亿九千九百九十九万九千九百九十九",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("number", "english", "chinese"), KNOWN, ids=[str(case[0]) for case in KNOWN])
def test_known_numbers(number: int, english: str, chinese: str):
    assert to_english(number) == english and to_chinese(number) == chinese
    assert from_english(english) == number and from_chinese(chinese) == number


def test_numbers_come_back_from_their_words():
    rng = np.random.default_rng(0)
    zeros = rng.random((2000, 9)) < rng.random((2000, 1))
    digits = np.where(zeros, 0, rng.integers(1, 10, zeros.shape))  # many zeros, where the rules are hard
    numbers = {*range(2100), *(int("".join(map(str, row[: 1 + i % 9]))) for i, row in enumerate(digits))}
    for number in numbers:
        assert from_english(to_english(number)) == number
        assert from_chinese(to_chinese(number)) == number
    for write in (to_english, to_chinese):
        assert len({write(number) for number in numbers}) == len(numbers)


def test_the_words_are_those_of_the_lists():
    rng = np.random.default_rng(1)
    for number in [0, *rng.integers(0, numerals.LARGEST, 300).tolist()]:
        for write, language, known in (
            (to_english, "en", numerals.ENGLISH_WORDS), (to_chinese, "zh", numerals.CHINESE_WORDS)
        ):  # fmt: skip
            words = numerals.words_of(write(number), language)
            assert set(words) <= set(known)
            assert numerals.join(words, language) == write(number)
    assert set(numerals.PINYIN) == set(numerals.CHINESE_WORDS) and len(numerals.PINYIN) == 15


def test_spelling_is_read_generously():
    assert from_english("Three  hundred and Twenty one") == 321
    assert from_english("One thousand, one hundred") == 1100
    assert from_chinese(" 三百 二十一 ") == 321


NO_ENGLISH = [
    "", "and", "one one", "hundred", "twenty-eleven", "one hundred one", "one thousand million", "zero hundred",
    "two hundredd", "million", "one thousand and one hundred",
]  # fmt: skip
NO_CHINESE = ["", "一十", "百", "两千", "一千一", "一千零零一", "一百十", "零一", "十百", "一万零千", "九九"]


@pytest.mark.parametrize("text", NO_ENGLISH)
def test_what_is_no_english_number(text: str):
    with pytest.raises(ValueError, match="number"):
        from_english(text)


@pytest.mark.parametrize("text", NO_CHINESE)
def test_what_is_no_chinese_number(text: str):
    with pytest.raises(ValueError, match="number"):
        from_chinese(text)


@pytest.mark.parametrize("number", [-1, 10**9, 1.5, True, "3"])
def test_what_has_no_words(number: object):
    for write in (to_english, to_chinese):
        with pytest.raises(ValueError, match="whole number from 0 to 999,999,999"):
            write(number)  # type: ignore[arg-type]


def test_sets_have_nothing_in_common_and_their_lengths():
    sets = numerals.split_numbers(2000, 200, 150)
    assert (len(sets.train), len(sets.test), len(sets.longer)) == (2000, 200, 150)
    everything = [*sets.train, *sets.test, *sets.longer]
    assert len(set(everything)) == len(everything)
    assert set(range(100)) <= set(sets.train)
    longest = [max(numerals.lengths(number)[k] for number in sets.train) for k in (0, 1)]
    assert longest == [numerals.LONGEST] * 2
    assert all(max(numerals.lengths(number)) <= numerals.LONGEST for number in sets.test)
    assert all(min(numerals.lengths(number)) > numerals.LONGEST for number in sets.longer)
    assert {len(str(number)) for number in sets.test} >= {3, 4, 5, 6, 7, 8, 9}
    for language, write, known in (
        ("en", to_english, numerals.ENGLISH_WORDS), ("zh", to_chinese, numerals.CHINESE_WORDS)
    ):  # fmt: skip
        assert {word for number in sets.train for word in numerals.words_of(write(number), language)} == set(known)


def test_sets_depend_on_the_seed_alone():
    assert numerals.split_numbers(300, 20, 5) == numerals.split_numbers(300, 20, 5)
    assert numerals.split_numbers(300, 20, 5).test != numerals.split_numbers(300, 20, 5, seed=1).test
    with pytest.raises(ValueError, match="train >= 100"):
        numerals.split_numbers(99)
