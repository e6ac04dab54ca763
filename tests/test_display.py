"""How a Tensor prints, as text and as HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

import minires as mr
from minires.tensor import Tensor


class Tags(HTMLParser):
    """Checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)
        assert not {"id", "class"} & dict(attrs).keys()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text():
    x = Tensor(np.array([1, 2.5], np.float32), requires_grad=True)
    assert repr(x) == "tensor([1. , 2.5], shape=(2,), dtype=float32, requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 5.], shape=(2,), dtype=float32, from mul)"
    assert repr(x.detach()) == "tensor([1. , 2.5], shape=(2,), dtype=float32)"
    assert repr(mr.tensor(3)) == "tensor(3, shape=(), dtype=int64)"
    assert "shape=(0, 3)" in repr(mr.zeros(0, 3))


def test_large_tensors_are_abbreviated():
    for x in (mr.randn(50, 60), mr.randn(50, 60, requires_grad=True) * 1e-5):
        text = repr(x)
        assert "..." in text and len(text.splitlines()) <= 9 and max(map(len, text.splitlines())) < 120
        assert "shape=(50, 60), dtype=float32" in text.splitlines()[-1]


def test_html_is_well_formed_and_says_what_matters():
    x = Tensor(np.array([[1, 2], [np.nan, np.inf]], np.float32), requires_grad=True)
    text = x._repr_html_()
    tags = Tags()
    tags.feed(text)
    assert not tags.open and tags.seen[0] == "details" and tags.seen.count("details") == 1
    for part in ("(2, 2)", "float32", "cpu", "1 to 2", "1.5 ± 0.5", "NaN", "infinite", "none yet", "16 B"):
        assert part in text
    assert "sigmoid" in x.sigmoid()._repr_html_()
    assert "style" in text and "<style" not in text


def test_html_of_other_kinds():
    assert "2 of 3" in mr.tensor([True, False, True])._repr_html_()
    assert "none" in mr.zeros(0)._repr_html_()
    assert "magnitude" in Tensor(np.array([3 + 4j]))._repr_html_()
    assert "NaN" in Tensor(np.array([np.nan]))._repr_html_()
    assert "MiB" in mr.zeros(1024, 1024)._repr_html_()
    assert "1 to 3" in mr.tensor([1, 2, 3])._repr_html_()
