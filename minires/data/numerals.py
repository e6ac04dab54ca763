"""Numbers written out in English and in Chinese: a language small enough to be known by rule, and never wrong.

Translation needs pairs of sentences. Real ones are many, large and full of errors; here a rule writes as many as are asked
for, so that every pair is exactly right and every mistake is the network's. The task is not trivial: English counts in
thousands, Chinese in ten thousands (万) and hundred millions (亿), so twelve thousand is 一万二千, one ten-thousand and two
thousands. Zeros inside a number are passed over in English and said, once for each gap, in Chinese (一千零一).

The English is British: "and" stands before the last two digits of each group of three, as in one hundred and one thousand
and one. The Chinese is that of mainland schools; see :func:`to_chinese`. Both go from 0 to 999,999,999.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CHINESE_WORDS", "ENGLISH_WORDS", "LARGEST", "LONGEST", "PINYIN", "Split", "from_chinese", "from_english", "join",
    "lengths", "split_numbers", "to_chinese", "to_english", "words_of",
]  # fmt: skip

LARGEST = 999_999_999

#: Words (English) and characters (Chinese) of the longest numbers in training.
LONGEST = 12

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_GROUPS = ("", "thousand", "million")

_DIGITS = "零一二三四五六七八九"
_PLACES = ("千", "百", "十", "")
_SECTIONS = ("", "万", "亿")

ENGLISH_WORDS = (*_ONES, *_TENS, "hundred", "thousand", "million", "and")
CHINESE_WORDS = (*_DIGITS, "十", "百", "千", "万", "亿")

#: How the Chinese words are said, for where their characters cannot be drawn.
PINYIN = dict(
    zip(CHINESE_WORDS, "líng yī èr sān sì wǔ liù qī bā jiǔ shí bǎi qiān wàn yì".split(), strict=True)
)  # fmt: skip


# ------------------------------------------------------------------------------------ English


def to_english(number: int) -> str:
    """A number in British English: 321 is "three hundred and twenty-one", 1,000,001 "one million and one".

    "And" stands in each group of three between the hundreds and what follows them, and in the last group also where there
    are no hundreds but something before it.

    Raises:
        ValueError: the number is not in 0 … 999,999,999.
    """
    _check(number)
    if number == 0:
        return _ONES[0]
    groups = [number // 1000**i % 1000 for i in (2, 1, 0)]
    parts = []
    for group, name in zip(groups, reversed(_GROUPS), strict=True):
        if group:
            and_first = not name and group < 100 and number > group
            parts.append(("and " if and_first else "") + _below_1000(group) + (f" {name}" if name else ""))
    return " ".join(parts)


def _below_1000(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    parts = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if rest:
        parts.append(_ONES[rest] if rest < 20 else _TENS[rest // 10 - 2] + (f"-{_ONES[rest % 10]}" if rest % 10 else ""))
    return " and ".join(parts)


def from_english(text: str) -> int:
    """The number that :func:`to_english` writes so.

    Raises:
        ValueError: nobody writes a number so.
    """
    values = {word: number for number, word in enumerate(_ONES)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
    total = group = 0
    for word in words_of(text, "en"):
        if word == "hundred":
            group *= 100
        elif word in _GROUPS[1:]:
            total += group * 1000 ** _GROUPS.index(word)
            group = 0
        elif word in values:
            group += values[word]
        elif word != "and":
            raise ValueError(f"from_english: {word!r} is no word of a number")
    return _the_only_one(total + group, text, "en")


# ------------------------------------------------------------------------------------ Chinese


def to_chinese(number: int) -> str:
    """A number in Chinese: 321 is 三百二十一.

    The number is cut into sections of four digits, 亿 (10⁸), 万 (10⁴) and ones. In a section each digit is followed by its
    place, 千 (1000), 百 (100) or 十 (10), and zeros are not said; but

    * zeros at the end of a section are not said: 1,000,000 is 一百万, 20,005,000 is 二千万五千;
    * all others before a digit that is said, however many, also where a whole section is zero, are said as one 零: 1,001 is
      一千零一, 10,010 is 一万零一十, 100,005,000 is 一亿零五千;
    * 一十 at the very beginning is shortened to 十: 10 is 十, 100,000 is 十万, but 110 is 一百一十;
    * two is always 二, never 两, which speakers prefer before 千, 万 and 亿 but never have to use;
    * 0 itself is 零.

    Raises:
        ValueError: the number is not in 0 … 999,999,999.
    """
    _check(number)
    if number == 0:
        return _DIGITS[0]
    out, empty = "", False
    for name, section in zip(reversed(_SECTIONS), (number // 10000**i % 10000 for i in (2, 1, 0)), strict=True):
        if section:
            gap = out and (empty or section < 1000)
            out += (_DIGITS[0] if gap else "") + _below_10000(section) + name
        empty = not section
    return out.removeprefix("一") if out.startswith("一十") else out


def _below_10000(section: int) -> str:
    out, gap = "", False
    for digit, place in zip(f"{section:04d}", _PLACES, strict=True):
        if digit == "0":
            gap = bool(out)
        else:
            out += (_DIGITS[0] if gap else "") + _DIGITS[int(digit)] + place
            gap = False
    return out


def from_chinese(text: str) -> int:
    """The number that :func:`to_chinese` writes so.

    Raises:
        ValueError: nobody writes a number so (or writes it with 两).
    """
    total = section = 0
    digit = 1 if text.startswith("十") else 0
    for word in words_of(text, "zh"):
        if word in _DIGITS:
            digit = _DIGITS.index(word)
        elif word in _PLACES:
            section += digit * 10 ** (3 - _PLACES.index(word))
            digit = 0
        elif word in _SECTIONS:
            total += (section + digit) * 10000 ** _SECTIONS.index(word)
            section = digit = 0
        else:
            raise ValueError(f"from_chinese: {word!r} is no character of a number")
    return _the_only_one(total + section + digit, text, "zh")


# ------------------------------------------------------------------------------------ words


def words_of(text: str, language: str) -> list[str]:
    """The words of an English ("en") text, in small letters, or the characters of a Chinese ("zh") one.

    A hyphen is a border between words, and commas count for nothing.
    """
    if language == "zh":
        return [character for character in text if not character.isspace()]
    return re.sub(r"[-‐‑–,]", " ", text.lower()).split()


def join(words: list[str], language: str) -> str:
    """The text of words: the reverse of :func:`words_of`, with a hyphen in "twenty-one"."""
    if language == "zh":
        return "".join(words)
    out = ""
    for before, word in zip(["", *words], words, strict=False):
        out += ("-" if before in _TENS and word in _ONES[1:10] else " " if before else "") + word
    return out


def lengths(number: int) -> tuple[int, int]:
    """How many words a number has in English, and how many characters in Chinese."""
    return len(words_of(to_english(number), "en")), len(to_chinese(number))


def _check(number: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number <= LARGEST:
        raise ValueError(f"expected a whole number from 0 to {LARGEST:,}, got {number!r}")


def _the_only_one(number: int, text: str, language: str) -> int:
    """``number``, if ``text`` is how it is written."""
    write = to_chinese if language == "zh" else to_english
    if 0 <= number <= LARGEST and words_of(write(number), language) == words_of(text, language):
        return number
    raise ValueError(f"{text!r} is not how a number from 0 to {LARGEST:,} is written")


# ------------------------------------------------------------------------------------ what to learn from


@dataclass(frozen=True)
class Split:
    """Three sets of numbers of which no two have a number in common.

    Attributes:
        train: to learn from; none longer than :data:`LONGEST` words in either language.
        test: drawn in the same way.
        longer: longer than :data:`LONGEST` words in both languages.
    """

    train: list[int]
    test: list[int]
    longer: list[int]


def split_numbers(train: int = 16_000, test: int = 2000, longer: int = 2000, seed: int = 0) -> Split:
    """Draw numbers to learn from and numbers to be tested with.

    All counts of digits from one to nine are equally likely, and so are numbers with few zeros and with many. The numbers
    below 100, which are the words of all others, are always among those to learn from.

    Args:
        train: how many numbers to learn from, 100 or more.
        test: how many like them to be tested with.
        longer: how many longer ones.
        seed: of all that is random; the two test sets depend on it as well.

    Raises:
        ValueError: a count that is too small.
    """
    if train < 100 or test < 1 or longer < 1:
        raise ValueError(f"split_numbers: expected train >= 100, test >= 1, longer >= 1, got {train}, {test}, {longer}")
    rng = np.random.default_rng(seed)
    usual, long = dict.fromkeys(range(100)), dict[int, None]()
    while len(usual) < train + test or len(long) < longer:
        number = _draw(rng)
        count = lengths(number)
        if max(count) <= LONGEST:
            usual[number] = None
        elif min(count) > LONGEST:
            long[number] = None
    above = rng.permutation([number for number in usual if number >= 100]).tolist()
    learned = [*range(100), *above[test : test + train - 100]]
    return Split(learned, above[:test], list(long)[:longer])


def _draw(rng: np.random.Generator) -> int:
    digits = rng.integers(0, 10, int(rng.integers(1, 10)))
    digits[rng.random(len(digits)) < rng.uniform(0, 0.7)] = 0
    digits[0] = rng.integers(1, 10)
    return int("".join(map(str, digits)))
