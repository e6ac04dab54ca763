"""The checker checked: every planted mistake is shown to it, and to the checkers of other projects.

``minires gradcheck --self-test`` prints the table that this module makes: who finds which mistake, whether minires also says
which mistake it is, and how many right backwards each of them rejects. A checker that rejects everything finds everything,
so the last number counts as much as the first. Three of the mistakes are random on purpose; a checker that looks at few
elements finds them on some runs and not on others, so its total may change by one or two.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minires.checking.check import gradcheck_pair
from minires.checking.peers import PEERS, Peer, accepts
from minires.checking.planted import CASES, Planted

__all__ = ["Exam", "Row", "examine", "main", "table"]

OURS = "minires"
FOUND, OTHERWISE, MISSED, ABSENT = "✓", "≈", "·", "-"
WIDTH = 120  # columns of the table at the terminal
#: How a checker's name stands over its column, on two lines.
HEADS = {
    "minires": ("mini-", "res"), "PyTorch": ("Py-", "Torch"), "Autograd": ("Auto-", "grad"), "Chainer": ("Chai-", "ner"),
    "MyGrad": ("My-", "Grad"), "DeZero": ("De-", "Zero"), "SmallPebble": ("Small", "Pebble"),
    "minitorch": ("mini-", "torch"),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What the checkers said of one planted mistake.

    Attributes:
        case: the planted mistake.
        labels: minires' best label for every input whose gradient it calls wrong.
        found: for each checker that ran, by name: whether it rejects the wrong backward.
        accused: the same for the right one.
    """

    case: Planted
    labels: Mapping[str, str]
    found: Mapping[str, bool]
    accused: Mapping[str, bool]

    @property
    def label(self) -> str:
        """The first label that a teacher would give."""
        return next(iter(self.case.labels.values()))[0]

    @property
    def named(self) -> bool:
        """Whether minires gives every wrong input one of the labels that a teacher would give it, at first place."""
        return all(self.labels.get(name) in labels for name, labels in self.case.labels.items())

    @property
    def found_by_us_alone(self) -> bool:
        """Whether minires finds it, and none of the other checkers that ran."""
        return [name for name, found in self.found.items() if found] == [OURS]


@dataclass(frozen=True)
class Exam:
    """All the rows, sorted by label, and how long it took.

    Attributes:
        rows: one for each planted mistake.
        peers: the other checkers, those that are not installed too.
        seconds: of the whole run.
    """

    rows: Sequence[Row]
    peers: Sequence[Peer]
    seconds: float

    @property
    def checkers(self) -> list[str]:
        """Names, in the order of the columns."""
        return [OURS, *(peer.name for peer in self.peers)]

    def ran(self, checker: str) -> bool:
        """Whether a checker is installed."""
        return checker == OURS or next(p for p in self.peers if p.name == checker).available

    def found(self, checker: str) -> int:
        """How many mistakes a checker finds."""
        return sum(row.found[checker] for row in self.rows)

    def accused(self, checker: str) -> int:
        """How many right backwards it rejects."""
        return sum(row.accused[checker] for row in self.rows)

    @property
    def named(self) -> int:
        """How many mistakes minires names."""
        return sum(row.named for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether minires finds every mistake and rejects no right backward."""
        return self.found(OURS) == len(self.rows) and not self.accused(OURS)


def main() -> int:
    """Run the self-test and print its table; 0 if minires finds every mistake and rejects no right backward, else 1."""
    print(f"{len(CASES)} planted mistakes, {1 + len(PEERS)} checkers; this takes about half a minute ...\n", flush=True)
    exam = examine()
    print(table(exam=exam))
    return 0 if exam.passed else 1


# The exam -------------------------------------------------------------------------------------------------------------


def examine(cases: Sequence[Planted] = CASES, peers: Sequence[Peer] = PEERS, seed: int = 0) -> Exam:
    """Show planted mistakes, and the right backwards, to all checkers; each sees the same inputs and is called once.

    Args:
        cases: the planted mistakes.
        peers: the other checkers.
        seed: of the inputs and of what the checkers draw.
    """
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of overflows and casts, which are what some of the mistakes are made of
        rows = [_row(case, peers, seed) for case in cases]
    return Exam(sorted(rows, key=lambda row: row.label), peers, time.perf_counter() - started)


def _row(case: Planted, peers: Sequence[Peer], seed: int) -> Row:
    inputs = case.inputs(np.random.default_rng([seed, 1]))  # not the numbers that the checkers draw from the same seed
    _forget(case)
    wrong = gradcheck_pair(case.forward, case.wrong, inputs, params=case.options, seed=seed)
    right = gradcheck_pair(case.forward, case.right, inputs, params=case.options, seed=seed)
    found, accused = {OURS: wrong.verdict == "wrong"}, {OURS: right.verdict == "wrong"}
    for peer in peers:
        if peer.available:
            _forget(case)
            for backward, answers in ((case.wrong, found), (case.right, accused)):
                rng = np.random.default_rng(seed)
                answers[peer.name] = not accepts(peer.criterion, case.forward, backward, inputs, case.options, rng)
    return Row(case, wrong.labels, found, accused)


def _forget(case: Planted) -> None:
    """Let a mistake that remembers earlier calls start anew, so that every checker meets it as in a fresh process.

    Loading a module again gives new values to the global names that its old functions see.
    """
    if any("state_leak" in labels for labels in case.labels.values()):
        importlib.reload(sys.modules[case.wrong.__module__])


# The table ------------------------------------------------------------------------------------------------------------


def table(markdown: bool = False, exam: Exam | None = None) -> str:
    """Planted mistakes × checkers, with totals.

    Args:
        markdown: as two Markdown tables, for the documentation, instead of text of at most 120 columns.
        exam: what to show; None runs the whole self-test.
    """
    exam = exam or examine()
    return _markdown(exam) if markdown else "\n".join([*_text_rows(exam), "", *_text_totals(exam), "", *_remarks(exam)])


def _cell(exam: Exam, row: Row, checker: str) -> str:
    if not exam.ran(checker):
        return ABSENT
    if not row.found[checker]:
        return MISSED
    return FOUND if checker != OURS or row.named else OTHERWISE


def _text_rows(exam: Exam) -> list[str]:
    heads = [HEADS.get(name, ("", name)) for name in exam.checkers]
    widths = [max(map(len, head)) for head in heads]
    room = WIDTH - sum(widths) - len(widths)

    def line(name: str, cells: Sequence[str]) -> str:
        return f"{name:<{room}} " + " ".join(f"{c:^{w}}" for c, w in zip(cells, widths, strict=True)).rstrip()

    lines = [line("", [head[0] for head in heads]), line("planted mistake", [head[1] for head in heads])]
    label = ""
    for row in exam.rows:
        if row.label != label:
            label = row.label
            lines.append(label)
        name = "  " + row.case.name
        name = name if len(name) <= room else name[: room - 1] + "…"
        lines.append(line(name, [_cell(exam, row, checker) for checker in exam.checkers]))
        if row.found[OURS] and not row.named:
            lines.append(f"    minires says {_given(row)}; expected {_expected(row)}")
    return lines


def _given(row: Row) -> str:
    return ", ".join(f"{name}: {label}" for name, label in row.labels.items()) or "nothing"


def _expected(row: Row) -> str:
    return ", ".join(f"{name}: {' or '.join(labels)}" for name, labels in row.case.labels.items())


def _totals(exam: Exam) -> list[list[str]]:
    """Checker, found, named, right ones rejected."""
    of, rows = f"of {len(exam.rows)}", []
    for checker in exam.checkers:
        version = next((f" {p.version}, {p.function}" for p in exam.peers if p.name == checker and p.available), "")
        if not exam.ran(checker):
            rows.append([checker, "not installed", "", ""])
            continue
        named = f"{exam.named} {of}" if checker == OURS else "names none"
        rows.append([checker + version, f"{exam.found(checker)} {of}", named, f"{exam.accused(checker)} {of}"])
    return rows


TOTALS = ("checker", "mistakes found", "and named", "right ones rejected")


def _text_totals(exam: Exam) -> list[str]:
    rows = [list(TOTALS), *_totals(exam)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(TOTALS))]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _remarks(exam: Exam) -> list[str]:
    remarks = [
        f"{FOUND} found (by minires: and given the right name)   {OTHERWISE} found, but called something else   "
        f"{MISSED} missed   {ABSENT} not installed",
        f"found by minires alone: {sum(row.found_by_us_alone for row in exam.rows)} of {len(exam.rows)}",
        f"minires {'passes' if exam.passed else 'FAILS'}; {exam.seconds:.0f} s",
    ]
    return remarks


def _markdown(exam: Exam) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    lines = [row(["label", "planted mistake", *exam.checkers]), row(["---", "---", *[":-:"] * len(exam.checkers)])]
    for r in exam.rows:
        cells = [_cell(exam, r, checker) for checker in exam.checkers]
        cells[0] = _given(r) if cells[0] == OTHERWISE else cells[0]
        lines.append(row([f"`{r.label}`", r.case.name.replace("|", "\\|"), *cells]))
    totals = [row(TOTALS), row(["---", ":-:", ":-:", ":-:"]), *(row(cells) for cells in _totals(exam))]
    return "\n".join([*lines, "", *totals])
