"""How a report reads: at most 25 lines, what is wrong on top, and never more than the hint level allows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from minires.checking.report import Diagnosis, InputReport, Worst
from minires.checking.text import as_json, distinct
from tests.gradcheck.reports import BORDER, OFFSET, report, right, undecidable, wrong


def lines(text):
    return text.splitlines()


def test_a_right_report_says_what_right_means():
    text = str(report(right("x", (2, 3)), right()))
    covered = "252 of 252 elements and 4 random directions at 2 points with 2 random upstream gradients each, in float64"
    assert lines(text) == [
        "gradient of conv2d: right (reference: complex step, seed 0)",
        f"  checked: {covered}",
        "  input  shape         verdict  bad/all",
        "  x      (2, 3)        right        0/6",
        "  w      (4, 3, 3, 2)  right       0/72",
    ]


def test_a_wrong_report_names_the_mistake_and_ends_in_how_to_repeat_it():
    found = report(wrong(), right(), order=2, seed=3, reproduce="pytest a.py::b")
    head, _, columns, x, w, best, other, last = lines(str(found))
    assert head == "second derivative of conv2d: wrong (reference: complex step, seed 3)"
    assert columns.split() == ["input", "shape", "verdict", "bad/all", "worst", "at", "analytic", "numeric", "tolerance"]
    assert x.split("  ")[1] == "x" and "108/180" in x and "(0, 0, 0, 0)" in x and "1e-12" in x
    assert w.split()[-1] == "0/72"  # nothing is said of an element that is right
    assert best == f"dx: border_missing: {BORDER.sentence}" and other == f"    or: window_offset_skipped: {OFFSET.sentence}"
    assert last == "reproduce: pytest a.py::b" and repr(found) == str(found)
    assert "reproduce" not in str(report(right(), reproduce="pytest a.py::b"))


def test_hints_give_away_as_much_as_their_level():
    texts = {level: str(report(wrong(), right(), hints=level)) for level in ("verdict", "where", "class", "full")}
    assert "wrong" in texts["verdict"] and "108" not in texts["verdict"] and "(0, 0, 0, 0)" not in texts["verdict"]
    assert "108/180" in texts["where"] and "(0, 0, 0, 0)" in texts["where"] and "border" not in texts["where"]
    assert lines(texts["class"])[-1] == "dx: border_missing (or: window_offset_skipped)"
    assert "padding mishandled" not in texts["class"] and "padding mishandled" in texts["full"]
    assert "try other inputs" not in str(report(undecidable(), hints="verdict"))


def test_kinks_noise_and_what_time_did_not_allow_have_columns_only_where_there_are_any():
    text = str(report(right(), undecidable(), right("b", (3,), unchecked=2)))
    assert lines(text)[2].split() == ["input", "shape", "verdict", "bad/all", "kinks", "unknown", "unchecked"]
    assert lines(text)[4].split()[-3:] == ["0/12", "10", "2"] and lines(text)[5].split()[-1] == "2"
    assert "dx: cannot be decided here: 10 of 12 elements lie at a kink" in text and "not finite or too noisy" in text
    bare = InputReport("x", (2,), "undecidable", 0, 2)
    assert "no element could be compared" in str(report(bare))


@pytest.mark.parametrize("count", [1, 4, 5, 8, 19, 22, 23, 60, 300])
@pytest.mark.parametrize("hints", ["verdict", "where", "class", "full"])
@pytest.mark.parametrize("bad", [0, 1, 3, 300])
def test_never_more_than_25_lines_and_wrong_ones_first(count, hints, bad):
    many = (BORDER, *(Diagnosis(f"label_{k}", "a sentence\nwith a line break") for k in range(6)))
    inputs = [wrong(f"w{k}", (2, 2), None, many) if k >= count - bad else right(f"r{k}", (2,)) for k in range(count)]
    text = lines(str(report(*inputs, hints=hints, reproduce="pytest")))
    assert len(text) <= 25
    rows = [line.split()[2] if "(2, 2)" not in line else line.split()[3] for line in text if line.startswith(("  w", "  r"))]
    if len(rows) < count:
        assert rows == sorted(rows, reverse=True)  # wrong before right
        rest = next(line for line in text if line.startswith("  and "))
        left_out = sum(int(part.split()[0]) for part in rest.removeprefix("  and ").split(", "))
        assert left_out == count - len(rows)
    assert all(sum(line.startswith("    or:") for line in text) <= 3 * max(1, bad) for line in text)


def test_at_most_three_alternatives():
    many = tuple(Diagnosis(f"label_{k}", "sentence") for k in range(7))
    assert str(report(wrong(diagnosis=many))).count("    or: ") == 3
    assert str(report(wrong(diagnosis=many), hints="class")).count("label_") == 4


def test_names_are_cut_in_the_middle_and_parameters_get_no_d():
    name = "stage3.unit2." + "residual." * 9 + "weight"
    text = str(report(wrong(name, (2, 2)), function="a\nb"))
    assert "gradient of a b: wrong" in text and name not in text and "stage3.unit2.resi…l.residual.weight" in text
    assert "\nstage3" in text and "dstage3" not in text


def test_numbers_are_told_apart():
    assert distinct(1.0, 2.0) == ("1", "2")
    assert distinct(0.123456789, 0.123456780) == ("0.12345679", "0.12345678")
    assert distinct(math.nan, 1.0) == ("nan", "1") and distinct(1 / 3, 1 / 3)[0].startswith("0.333")


def test_a_broken_contract_has_no_worst_element():
    fault = InputReport(
        "x", (2, 3), "wrong", 0, 6, worst=Worst((0, 0), 1.0, 1.0, 1e-9), diagnosis=(Diagnosis("dtype", "is"),)
    )
    assert "worst at" not in str(report(fault)) and "dx: dtype: is" in str(report(fault))
    assert str(report(InputReport("x", (2, 3), "wrong", 0, 6))).count("\n") == 3  # nothing to say, nothing said


def test_json_has_everything_but_the_arrays_and_is_strict():
    worst = Worst((np.int64(1),), math.nan, np.float64(2), math.inf)
    evidence = {"axes": (0, np.int32(2)), "which": {3}, "array": np.arange(2), "kind": float, "worst": worst}
    i = InputReport("x", (3,), "wrong", 1, 3, worst=worst, diagnosis=(Diagnosis("sign_flipped", "minus", evidence),))
    found = report(i, right(), seconds=np.float32(0.5), hints="verdict")
    content = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert found.to_json() == as_json(found)
    assert content["verdict"] == "wrong" and content["labels"] == {"x": "sign_flipped"} and content["seconds"] == 0.5
    assert content["coverage"]["elements"] == 252 and content["coverage"]["dtype"] == "float64"
    x, w = content["inputs"]
    assert x["worst"] == {"index": [1], "analytic": "nan", "numeric": 2.0, "tolerance": "inf"} and "maps" not in w
    kept = x["diagnosis"][0]["evidence"]
    assert kept["axes"] == [0, 2] and kept["which"] == [3] and kept["array"] == [0, 1] and "float" in kept["kind"]
    assert kept["worst"]["index"] == [1]
