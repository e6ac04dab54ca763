"""The self-test's table, and the other projects' criteria in it: each must behave as its source says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minires.checking import peers, selftest
from minires.checking.peers import PEERS, Peer, accepts
from minires.checking.planted import CASES

PEER = {p.name: p for p in PEERS}
ONES = ("DeZero", "SmallPebble", "minitorch")  # their upstream gradient is ones
RIGHT = ("conv2d: the last row", "linear: two gradients", "mean_squared_error: the upstream", "embedding: the buffer",
         "instance_norm: the way through the variance", "softplus", "batched_matmul", "flatten: a view")  # fmt: skip


def case(start):
    (found,) = [c for c in CASES if c.name.startswith(start)]
    return found


#: PyTorch is one where it is installed; the others are always there.
INSTALLED = [name for name, each in PEER.items() if each.available]


def says(name, start, which="wrong", seed=0):
    """Whether a checker accepts the wrong (or the right) backward of a planted mistake."""
    c = case(start)
    inputs = c.inputs(np.random.default_rng([seed, 1]))
    rng = np.random.default_rng(seed)
    return accepts(PEER[name].criterion, c.forward, getattr(c, which), inputs, c.options, rng)


@pytest.mark.parametrize("start", RIGHT)
@pytest.mark.parametrize("name", INSTALLED)
def test_right_backwards_are_accepted(name, start):
    assert says(name, start, "right")


@pytest.mark.parametrize("start", ["conv2d: overlapping", "matmul: b is not transposed", "linear: two gradients"])
@pytest.mark.parametrize("name", INSTALLED)
def test_everyone_finds_the_gross_ones(name, start):
    assert not says(name, start)


@pytest.mark.parametrize("start", ["softmax: the Jacobian is summed", "sigmoid: the upstream gradient is ignored"])
def test_an_upstream_of_ones_hides_what_a_random_one_shows(start):
    assert all(says(name, start) for name in ONES)
    assert not any(says(name, start) for name in ("Autograd", "Chainer", "MyGrad"))


def test_pytorch_takes_one_hot_upstreams():
    assert not says("PyTorch", "softmax: the Jacobian is summed")
    assert not says("PyTorch", "sigmoid: the upstream gradient is ignored")


@pytest.mark.parametrize(
    ("start", "finders"),
    [
        ("maxpool1d: a buffer of float32", {"Autograd", "Chainer", "MyGrad"}),
        ("gelu: the slope computed in float32", {"MyGrad"}),
        ("add: the upstream gradient itself", {"MyGrad"}),
        ("leaky_relu: the upstream gradient is changed", {"MyGrad"}),
        ("largest: the maximum subtracted in place", {"MyGrad"}),
        ("scale_rows: the scale's gradient", {"Autograd", "Chainer", "MyGrad", "DeZero", "SmallPebble", "minitorch"}),
        ("mean_squared_error: divided by one less", {"PyTorch", "Autograd", "MyGrad", "DeZero", "SmallPebble"}),
    ],
)
def test_who_finds_what(start, finders):
    assert {name for name in INSTALLED if not says(name, start)} == finders & set(INSTALLED)


@pytest.mark.parametrize(
    ("name", "slope", "accepted", "rejected"),
    [  # a gradient that is too large by this share
        *[("PyTorch", 1e3, 5e-4, 2e-3) for name in INSTALLED if name == "PyTorch"],
        ("Autograd", 1e3, 1e-6, 4e-6),  # the difference is compared with the sum, twice as large
        ("Chainer", 1e3, 5e-5, 2e-4),
        ("MyGrad", 1e3, 5e-9, 3e-8),
        ("DeZero", 1e3, 5e-5, 2e-4),
        ("SmallPebble", 1.0, 5e-7, 2e-6),  # not relative
        ("minitorch", 1e3, 5e-3, 2e-2),
    ],
)
def test_how_close_is_close_enough(name, slope, accepted, rejected):
    inputs = (np.linspace(0.5, 1.5, 6).reshape(2, 3),)

    def verdict(share):
        rng = np.random.default_rng(3)
        criterion = PEER[name].criterion
        return accepts(criterion, lambda i: slope * i[0], lambda i, g: (slope * (1 + share) * g,), inputs, {}, rng)

    assert verdict(0.0) and verdict(accepted) and verdict(-accepted)
    assert not verdict(rejected) and not verdict(-rejected)


def test_minitorch_looks_at_one_element():
    def one_is_wrong(inputs, g):
        dx = 2 * g
        dx[0, 0] = 0
        return (dx,)

    inputs = (np.ones((4, 5)),)
    found = [
        not accepts(peers.minitorch, lambda i: 2 * i[0], one_is_wrong, inputs, {}, np.random.default_rng(s))
        for s in range(200)
    ]
    assert 2 <= sum(found) <= 25  # 10 of 200 in the mean


def test_mygrad_without_complex_numbers():
    def softplus_a_bit_off(inputs, g):
        return (case("softplus").right(inputs, g)[0] * (1 + 1e-6),)

    c, x = case("softplus"), (np.linspace(-2, 2, 7),)
    assert accepts(peers.mygrad, c.forward, softplus_a_bit_off, x, {}, np.random.default_rng(0))  # within 1e-4
    off = accepts(peers.mygrad, lambda i: np.exp(i[0]), lambda i, g: (np.exp(i[0]) * g * (1 + 1e-6),), x, {},
                  np.random.default_rng(0))  # fmt: skip
    assert not off


def test_a_backward_that_raises_is_rejected_and_the_inputs_stay():
    x = np.linspace(1, 2, 4)

    def destroys(inputs, g):
        inputs[0][:] = np.nan
        raise RuntimeError("no")

    for p in PEERS:
        if p.available:
            assert not accepts(p.criterion, lambda i: i[0] ** 2, destroys, (x,), {}, np.random.default_rng(0))
    assert np.array_equal(x, np.linspace(1, 2, 4))


def test_the_backward_gets_the_memory_of_the_check():
    """In their own projects nothing copies for them; so a damaged input shows where the difference is taken afterwards."""
    assert not says("Chainer", "unit_rows: x divided in place")
    assert not says("Autograd", "unit_rows: x divided in place")
    assert says("DeZero", "unit_rows: x divided in place")  # its difference comes first


# The exam and its table -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exam():
    starts = ("linear: dw is the mean", "silu: half of the last", "matmul: a is not", "batch_norm: the way through the v",
              "softmax: the Jacobian", "linear: dw of earlier")  # fmt: skip
    return selftest.examine([case(s) for s in starts])


def row(exam, start):
    (found,) = [r for r in exam.rows if r.case.name.startswith(start)]
    return found


def test_minires_finds_and_names_and_accuses_no_right_one(exam):
    assert exam.passed
    assert exam.named == exam.found("minires") == len(exam.rows) == 6
    assert all(exam.accused(c) == 0 for c in exam.checkers if exam.ran(c))
    assert exam.found("DeZero") < 6


def test_every_checker_meets_a_mistake_with_a_memory_as_in_a_fresh_process(exam):
    again = selftest.examine([case("silu: half of the last"), case("linear: dw of earlier")])
    for which in (exam, again):
        for start in ("silu: half of the last", "linear: dw of earlier"):
            found = row(which, start).found
            assert found["minires"]
            assert not found["Autograd"] and not found["Chainer"]  # they call it once; the first call is right
            assert found.get("PyTorch", True)  # it calls it more often


def test_text_fits_the_terminal(exam):
    text = selftest.table(exam=exam)
    assert max(map(len, text.splitlines())) <= 120
    for r in exam.rows:
        assert f"  {r.case.name} " in text and r.label in text.splitlines()
    assert "minires passes" in text and "6 of 6" in text and "gradient_check" in text
    assert [line for line in text.splitlines() if line in {r.label for r in exam.rows}] == sorted(
        {r.label for r in exam.rows}
    )


def test_the_longest_name_fits_too():
    rows = [selftest.Row(c, {}, {"minires": True}, {"minires": False}) for c in CASES]
    text = selftest.table(exam=selftest.Exam(rows, [dataclasses.replace(p, version="") for p in PEERS], 1.0))
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    assert text.count("not installed") == len(PEERS) + 1  # and the legend


def test_markdown_has_straight_tables(exam):
    first, second = selftest.table(markdown=True, exam=exam).split("\n\n")
    for part, cells in ((first, 2 + 1 + len(PEERS)), (second, 4)):
        assert {line.count(" | ") + 1 for line in part.splitlines()} == {cells}
    assert len(first.splitlines()) == 2 + len(exam.rows)
    assert len(second.splitlines()) == 2 + 1 + len(PEERS)
    assert f"| `{exam.rows[0].label}` | {exam.rows[0].case.name} | ✓ |" in first


def test_other_names_misses_and_absent_checkers_are_shown(exam):
    c = case("linear: dw is the mean")
    wrong = selftest.Row(c, {"w": "unexplained", "b": "not_accumulated_over_axis"}, {"minires": True}, {"minires": False})
    missed = selftest.Row(case("silu: half"), {}, {"minires": False}, {"minires": False})
    absent = Peer("PyTorch", "", "gradcheck", peers.pytorch)
    bad = selftest.Exam([wrong, missed], [absent], 1.0)
    text, markdown = selftest.table(exam=bad), selftest.table(markdown=True, exam=bad)
    assert not wrong.named and not missed.named and not bad.passed and wrong.found_by_us_alone
    assert "minires says w: unexplained, b: not_accumulated_over_axis; expected w: constant_factor, b: not" in text
    assert "minires FAILS" in text and "1 of 2" in text and "not installed" in text
    assert "| w: unexplained, b: not_accumulated_over_axis | - |" in markdown and "| · | - |" in markdown


@pytest.mark.parametrize(("found", "accused", "code"), [(True, False, 0), (False, False, 1), (True, True, 1)])
def test_exit_code(found, accused, code, monkeypatch, capsys):
    rows = [selftest.Row(case("silu: half"), {"x": "state_leak"}, {"minires": found}, {"minires": accused})]
    monkeypatch.setattr(selftest, "examine", lambda: selftest.Exam(rows, [], 1.0))
    assert selftest.main() == code
    assert ("passes" if code == 0 else "FAILS") in capsys.readouterr().out
