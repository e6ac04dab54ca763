"""A report as a page and as a picture: safe, complete, and true to the numbers."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from minires import viz
from minires.checking.page import as_html
from minires.checking.report import Diagnosis, InputReport, Maps
from minires.viz.sheets import FINE, NOT_A_NUMBER, UNDECIDED, Errors, Sheet
from tests.gradcheck.reports import BORDER, report, right, undecidable, wrong


class Strict(HTMLParser):
    """Every tag is closed, in the right order; collects the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(page):
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def image(figure, path):
    figure.write(path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def pixels_of(color, picture):
    rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    return (np.abs(picture - rgb).max(axis=2) <= 1).sum()


# ------------------------------------------------------------------------------------ page


def test_the_page_says_what_the_text_says():
    found = report(wrong(), right(), reproduce="pytest a.py::b")
    page = found._repr_html_()
    assert page == as_html(found)
    text = parsed(page).text
    for part in ("gradient of conv2d", "✗ wrong", "✓ right", "108/180", "border_missing", BORDER.sentence,
                 "or: window_offset_skipped", "share = 0.5", "252 of 252 elements", "pytest a.py::b", "seed 0"):  # fmt: skip
        assert part in text, part
    assert "<script" not in page and " id=" not in page and "http" not in page  # needs nothing else
    assert "prefers-color" not in page and not re.search(r"[^-]color:(?!inherit|#ffffff)", page)  # the theme's own colour


def test_the_page_has_a_picture_only_where_it_helps():
    data = re.search(r"data:image/png;base64,([^\"]+)", as_html(report(wrong())))
    assert base64.b64decode(data.group(1))[:4] == b"\x89PNG"
    for found in (report(right()), report(undecidable()), report(wrong(), hints="verdict"),
                  report(InputReport("x", (2,), "wrong", 2, 2, diagnosis=(BORDER,)))):  # fmt: skip
        assert "<img" not in as_html(found)
    where = as_html(report(wrong(), hints="where"))
    assert "<img" in where and "border" not in parsed(where).text
    assert "padding mishandled" not in as_html(report(wrong(), hints="class"))


def test_what_comes_from_the_user_is_escaped():
    evil = '<img src=x onerror="alert(1)">'
    i = InputReport(evil, (2,), "wrong", 1, 2, diagnosis=(Diagnosis(evil, evil, {evil: evil}), Diagnosis("a", evil)))
    page = as_html(report(i, function=evil, reproduce=evil))
    assert parsed(page).tags.count("img") == 0 and "<img" not in page and parsed(page).text.count("onerror") >= 5
    bold = "".join(re.findall(r"<code[^>]*>(.*?)</code>", page))
    assert "&lt;img" in bold


def test_many_inputs_are_counted():
    page = parsed(as_html(report(*[right(f"w{k}", (2,)) for k in range(100)], wrong("x", (2, 2), None))))
    assert page.tags.count("tr") == 41 and "and 61 more right" in page.text and "dx" in page.text
    assert "dx cannot be decided here" in parsed(as_html(report(undecidable()))).text


# ------------------------------------------------------------------------------------ picture


def test_the_picture_shows_where(tmp_path):
    found = report(wrong(), right())
    figure = found.plot(tmp_path / "x.png")
    assert figure.get_figwidth() == pytest.approx(7.6)
    written = texts(figure)
    for text in ("gradient of conv2d: wrong", "dx is wrong", "border_missing", "error over the input, 2×3×5×6",
                 "error over the output, 2×4×5×6", "wrong elements: 108 of 180", "down: axis 0, across: axis 1", "fine",
                 "outputs whose derivatives are wrong: 144 of 240", "wrong", "1"):  # fmt: skip
        assert text in written, text
    assert "dw is right" not in written and "NaN or infinite" not in written
    shown = figure.axes[0].images
    assert len(shown) == 6 + 8 + 1  # a map for each sample and channel, and the colour bar
    fine = np.array(shown[0].get_array())[..., :3] * 255
    expected = np.array([int(FINE[k : k + 2], 16) for k in (1, 3, 5)])
    inner = np.abs(fine - expected).max(axis=2) < 1
    assert inner[1:-1, 1:-1].all() and not inner[0].any() and not inner[:, -1].any()


def test_nothing_is_cut_off_and_the_same_report_is_the_same_file(tmp_path):
    small = wrong(jacobians=True, shape=(2, 2, 4, 5), output=(2, 1, 4, 5))
    found = report(small, wrong("w" * 60, (300,)), wrong("b", (64, 50)), function="f" * 100)
    picture = image(found.plot(), tmp_path / "a.png")
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border == 255).all() and 1100 < picture.shape[1] < 1200
    found.plot(tmp_path / "b.png")
    found.plot(tmp_path / "c.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_jacobians_side_by_side():
    figure = viz.gradients(report(wrong(jacobians=True, shape=(2, 2, 4, 5), output=(2, 1, 4, 5))))
    assert {"backward gives", "should be", "difference"} <= set(texts(figure))
    matrices = [i for i in figure.axes[0].images if i.get_array().shape[:2] == (40, 80)]
    assert len(matrices) == 3 and len({(m.norm.vmin, m.norm.vmax) for m in matrices}) == 1
    analytic, numeric, difference = (np.asarray(m.get_array()) for m in matrices)
    np.testing.assert_allclose(analytic - numeric, difference)
    big = np.zeros((600, 3))
    big[599, 1] = -7
    i = wrong("x", (3,), (600,))
    maps = Maps(
        i.maps.analytic, i.maps.numeric, i.maps.tolerance, i.maps.error_over_output, (big, np.full((600, 3), np.nan))
    )
    shown = viz.gradients(report(InputReport("x", (3,), "wrong", 1, 3, maps=maps))).axes[0].images
    reduced = next(s for s in shown if s.get_array().shape[0] == 200 and s.get_array().shape[1] == 3)
    assert np.asarray(reduced.get_array()).min() == -7  # the strongest entry of a block is the one that is seen


def test_nan_and_undecided_have_colours_of_their_own(tmp_path):
    numeric = np.ones((3, 4))
    analytic, tolerance = numeric.copy(), np.full((3, 4), 1e-9)
    analytic[0, 0], analytic[0, 1], numeric[2, 3], analytic[1, 1] = np.nan, np.inf, np.nan, 1.5
    output = [np.array([[np.nan, 1e-16]]), np.array(0.5)]
    i = InputReport("x", (3, 4), "wrong", 3, 12, unknown=1, maps=Maps(analytic, numeric, tolerance, output))
    figure = viz.gradients(report(i))
    assert {"NaN or infinite", "not decided", "error over output 0, 1×2", "error over output 1, a number"} <= set(
        texts(figure)
    )
    assert texts(figure).count("×") == 3 and texts(figure).count("?") == 1
    picture = image(figure, tmp_path / "x.png")
    black, grey = pixels_of(NOT_A_NUMBER, picture), pixels_of(UNDECIDED, picture)
    assert black > 1.8 * grey > 1000


def test_a_kink_is_not_drawn_as_wrong():
    analytic, numeric, tolerance = np.zeros((2, 3)), np.full((2, 3), 0.5), np.full((2, 3), np.inf)
    for i in (InputReport("x", (2, 3), "right", 0, 6, kinks=6, maps=Maps(analytic, numeric, np.zeros((2, 3)))),
              InputReport("x", (2, 3), "wrong", 1, 6, kinks=6, maps=Maps(analytic, numeric, tolerance))):  # fmt: skip
        assert texts(viz.gradients(report(i))).count("?") == 6


def test_every_number_of_axes():
    for shape in ((), (5,), (33,), (2000,), (4, 7), (3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5), (12, 30, 3, 3), (2, 300, 200)):
        i = wrong("x", shape, None)
        if not shape:
            i = InputReport("x", (), "wrong", 1, 1, maps=Maps(np.array(1.0), np.array(2.0), np.array(1e-9)))
        figure = viz.gradients(report(i))
        assert figure.get_figheight() < 6
        written = " ".join(texts(figure))
        for expected in {(): ["backward gives 1, should be 2"], (33,): ["in lines of 32"], (2000,): ["worst of a few"],
                         (12, 30, 3, 3): ["worst 60 of 360"], (2, 300, 200): ["worst of 5×4"]}.get(shape, []):  # fmt: skip
            assert expected in written


def test_a_single_wrong_element_is_never_lost():
    errors = np.full((2, 40, 300, 200), -np.inf)
    errors[1, 33, 299, 199] = -3.0
    sheet = Sheet("x", errors)
    assert max(m.max() for row in sheet.maps for m in row) == -3 and "33" in sheet.column_names
    vector = np.full(5000, np.nan)
    vector[4999] = np.inf
    assert np.nanmax(Sheet("x", vector).maps[-1][-1]) == np.inf
    colors = Errors(-8).colors(np.array([-np.inf, -9.0, 0.0, 3.0]))
    assert (colors[2] == colors[3]).all() and not (colors[0] == colors[1]).all()


def test_right_reports_and_gradients_that_cannot_be_drawn():
    figure = viz.gradients(report(right(), right("b", (3,), maps=False), right("e", (0, 2)), right("more", (2,))))
    written = texts(figure)
    assert {"gradient of conv2d: right", "dw is right", "db is right", "e has no elements", "and 1 more input"} <= set(
        written
    )
    shape = InputReport("x", (2, 3), "wrong", 0, 6, diagnosis=(Diagnosis("shape", "is"),),
                        maps=Maps(None, np.ones((2, 3)), np.ones((2, 3))))  # fmt: skip
    written = texts(viz.gradients(report(shape, hints="where")))
    assert "there is no gradient of the input's shape to draw" in written and "shape" not in written
    assert "no element could be compared" in texts(viz.gradients(report(undecidable())))
    zero = InputReport("x", (2,), "wrong", 2, 2, maps=Maps(np.ones(2), np.zeros(2), np.zeros(2), [np.ones(2)]))
    assert "dx is wrong" in texts(viz.gradients(report(zero)))
