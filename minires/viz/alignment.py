"""Where a translator looked: one row for each word it wrote, one column for each word it read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import font_manager

from minires.tensor import Tensor
from minires.viz.figure import BLACK, GREY, Picture

__all__ = ["alignment"]

CELL, LETTER = 0.42, 0.085  # inches: side of a cell, width of a letter of the labels
_COLORS = "Blues"
_NOTE, _NOTE_WIDTH = "weights in %; each row adds up to 100", 2.4  # inches

#: What fonts with Chinese characters are called; whether one has them is looked up in the font itself.
_LIKELY = ("cjk", "han", "hei", "song", "ming", "wenquanyi", "wqy", "noto", "yahei", "pingfang", "unicode", "gothic", "kai")


def alignment(
    weights: Any,
    source: Sequence[str],
    target: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    spoken: Mapping[str, str] | None = None,
) -> Picture:
    """Draw the weights of attention as a matrix; a dark cell is where a word came from.

    Args:
        weights: (T, S), each row positive with sum 1.
        source: the S words that were read.
        target: the T words that were written.
        path: where to save the picture, or None.
        title: stands above.
        spoken: word → how it is said, in letters. It takes the place of words that no font on this machine can draw.

    Raises:
        ValueError: the weights are not (T, S).
    """
    shares = np.asarray(weights.numpy() if isinstance(weights, Tensor) else weights, float)
    if shares.shape != (len(target), len(source)):
        wanted = f"{len(target)} target words and {len(source)} source words"
        raise ValueError(f"alignment: expected a weight for {wanted}, got an array of shape {shares.shape}")
    columns, rows = (_drawable(words, spoken or {}) for words in (source, target))
    left, top = _room(rows[0]) + 0.12, 0.87 * _room(columns[0]) + (0.5 if title else 0.2)  # columns stand at 60°
    width = max(left + CELL * len(source) + 0.5 * _room(columns[0][-1:]), _NOTE_WIDTH, _room([title]) + 0.1)
    height = top + CELL * len(target) + 0.3
    figure = Picture(width, height)
    axes = figure.add_axes((left / width, 0.3 / height, CELL * len(source) / width, CELL * len(target) / height))
    axes.imshow(shares, cmap=_COLORS, vmin=0, vmax=1, aspect="auto")
    _write_shares(axes, shares)
    _name_sides(axes, columns, rows)
    figure.text(0.12 / width, 0.1 / height, _NOTE, fontsize=7, color=GREY)
    if title:
        figure.text(0.12 / width, 1 - 0.14 / height, title, fontsize=10, color=BLACK, va="top")
    return figure.write(path)


def _write_shares(axes: Any, shares: np.ndarray[Any, Any]) -> None:
    """The weight in every cell where it can be seen, in per cent."""
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.05:
            color = "white" if share > 0.55 else BLACK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=color)


def _name_sides(axes: Any, columns: tuple[list[str], str | None], rows: tuple[list[str], str | None]) -> None:
    """The words at the sides, the source above; white lines between the cells."""
    look: dict[str, Any] = {"fontsize": 10, "color": BLACK}
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    slanted: dict[str, Any] = {"rotation": 60, "ha": "left", "rotation_mode": "anchor", **_font(columns[1])}
    axes.set_xticks(range(len(columns[0])), columns[0], **slanted, **look)
    axes.set_yticks(range(len(rows[0])), rows[0], **_font(rows[1]), **look)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks(np.arange(len(columns[0]) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows[0]) + 1) - 0.5, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", color="white", linewidth=1.5)


def _drawable(words: Sequence[str], spoken: Mapping[str, str]) -> tuple[list[str], str | None]:
    """The words, or how they are said where no font has their characters; and the font that has, None for the usual one."""
    special = {character for word in words for character in word if ord(character) > 0x2E7F}
    if not special:
        return list(words), None
    font = _font_with(special)
    if font is not None:
        return list(words), font
    return [spoken.get(word, word) for word in words], None


def _font_with(characters: set[str]) -> str | None:
    """The file of a font on this machine that has all the characters, or None."""
    likely = (font for font in font_manager.fontManager.ttflist if any(part in font.name.lower() for part in _LIKELY))
    plain = ("400", "normal", "regular")
    for font in sorted(likely, key=lambda font: (font.style != "normal", str(font.weight) not in plain, font.fname)):
        try:
            known = font_manager.get_font(font.fname).get_charmap()
        except (OSError, RuntimeError):
            continue
        if all(ord(character) in known for character in characters):
            return str(font.fname)
    return None


def _font(path: str | None) -> dict[str, Any]:
    return {} if path is None else {"fontproperties": font_manager.FontProperties(fname=path)}


def _room(words: list[str]) -> float:
    """Inches that the longest label needs; a Chinese character is as wide as two letters."""
    return LETTER * max(sum(2 if ord(c) > 0x2E7F else 1 for c in word) for word in words) + 0.1
