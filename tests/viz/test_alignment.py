"""The two pictures of translation: cells where the weights are, and words that a font can draw."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from minires import viz

SPOKEN = {"三": "sān", "百": "bǎi"}


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def labels(figure):
    axes = figure.axes[0]
    return [label.get_text() for label in axes.get_xticklabels()], [label.get_text() for label in axes.get_yticklabels()]


def test_a_dark_cell_is_where_a_word_came_from(tmp_path):
    weights = np.array([[0.9, 0.1, 0.0], [0.02, 0.03, 0.95]])
    figure = viz.alignment(weights, ["three", "hundred", "seventy"], ["a", "b"], tmp_path / "a.png", title="title")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert sorted(text.get_text() for text in axes.texts if text.get_text().isdigit()) == ["10", "90", "95"]
    assert labels(figure) == (["three", "hundred", "seventy"], ["a", "b"])
    picture = pixels(tmp_path / "a.png")
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border == 255).all()  # nothing is cut off


def test_words_without_a_font_are_spelt(monkeypatch, tmp_path):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    figure = viz.alignment(np.full((1, 2), 0.5), ["三", "百"], ["three"], spoken=SPOKEN)
    assert labels(figure) == (["sān", "bǎi"], ["three"])


def test_a_font_that_has_the_words_is_used(monkeypatch):
    entry = next(font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans")
    named = font_manager.FontEntry(fname=entry.fname, name="Noto Sans CJK SC", style="normal", weight=400)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [named])
    figure = viz.alignment(np.full((1, 1), 1.0), ["ﬀ"], ["x"], spoken={"ﬀ": "ff"})  # U+FB00, which DejaVu has
    assert labels(figure)[0] == ["ﬀ"]
    figure = viz.alignment(np.full((1, 1), 1.0), ["三"], ["x"], spoken=SPOKEN)  # which it has not
    assert labels(figure)[0] == ["sān"]


def test_weights_that_do_not_fit_the_words():
    with pytest.raises(ValueError, match=r"3 target words and 2 source words, got an array of shape \(2, 2\)"):
        viz.alignment(np.zeros((2, 2)), ["a", "b"], ["a", "b", "c"])


def test_errors_by_length(tmp_path):
    networks = {"with": {2: (10, 0), 3: (20, 1), 4: (2, 2)}, "without": {2: (10, 1), 3: (20, 10), 4: (2, 2)}}
    figure = viz.lengths(networks, tmp_path / "l.png", longest=2)
    lines = [line for line in figure.axes[0].lines if line.get_label() in networks]
    assert [line.get_xydata().tolist() for line in lines] == [[[2, 0], [3, 5]], [[2, 10], [3, 50]]]  # 4: too few
    assert (tmp_path / "l.png").stat().st_size > 0 and figure.axes[0].patches
    assert not viz.lengths(networks).axes[0].patches
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.lengths({"with": {2: (1, 0)}})
