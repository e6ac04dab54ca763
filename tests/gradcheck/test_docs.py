"""The page on the gradient checker says what the code does now, and has a section for every label."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from minires.checking.planted import CASES
from tests.gradcheck import write_docs

PAGE = write_docs.PAGE.read_text(encoding="utf-8")
CHECKING = write_docs.ROOT / "minires" / "checking"


def test_the_generated_parts_are_up_to_date():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        now = write_docs.filled(PAGE)
    assert write_docs.comparable(PAGE) == write_docs.comparable(now), "run python -m tests.gradcheck.write_docs"


def test_every_label_has_its_section_and_its_example():
    sections = write_docs.labels(PAGE)
    assert len(sections) == len(set(sections))
    assert sections == [name for name in re.findall(r"(?m)^<!-- label (\w+) -->$", PAGE)]
    assert set(sections) == set(write_docs.EXAMPLES)
    planted = {label for case in CASES for names in case.labels.values() for label in names}
    assert planted <= set(sections)


def test_every_label_that_the_code_gives_is_explained():
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted(CHECKING.rglob("*.py")) if "planted" not in path.parts
    )
    given = re.findall(r'Diagnosis\(\s*"([a-z_]+)"|\.add\(\w+, "([a-z_]+)"|return "([a-z_]+)", f?"', text)
    found = {label for match in given for label in match if label}
    found |= set(re.findall(r'"(bn_[a-z_]+)"', text))
    assert len(found) > 35
    assert found <= set(write_docs.EXAMPLES), found - set(write_docs.EXAMPLES)


@pytest.mark.parametrize("label", write_docs.EXAMPLES)
def test_an_example_has_its_label_at_first_place(label):
    block = PAGE.partition(f"<!-- label {label} -->")[2].partition("<!-- end -->")[0]
    assert re.search(rf"(?m)^\S+: {label}: ", block), block


def test_pictures_and_links_lead_somewhere():
    found = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE)
    assert len(found) > 20
    for target in found:
        path = Path(write_docs.PAGE.parent, target)
        assert path.exists(), target
        assert path.suffix != ".png" or path.stat().st_size < 25_000
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*)$", PAGE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
    drawn = {path.name for path in write_docs.PICTURES.iterdir()}
    assert drawn == {Path(target).name for target in found if target.endswith(".png")}


def test_what_depends_on_the_machine_is_not_compared():
    report = "  input  shape  verdict  bad/all  worst at  analytic\n"
    report += "  x      (3,)   wrong        3/3  {}         {}\ndx: sign_flipped"
    one, other = report.format("(0,)", 1.5), report.format("(2,)", 2.5)
    assert write_docs.comparable(one) == write_docs.comparable(other)
    assert write_docs.comparable(one) != write_docs.comparable(one.replace("3/3", "2/3"))
    assert write_docs.comparable(one) != write_docs.comparable(one.replace("sign_flipped", "shape"))
    assert write_docs.comparable("1 failed in 0.31s") == write_docs.comparable("1 failed in 2.00s")
