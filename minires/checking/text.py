"""A report as people read it at the terminal, and as programs read it.

The text has at most 25 lines, however many inputs there are: one screen, with what is wrong on top. How much of it is shown
depends on the report's hint level, so that an exercise can keep the answer to itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from minires.checking.report import HINTS, InputReport, Report

__all__ = [
    "as_json",
    "as_text",
    "explanations",
    "gradient_name",
    "headline",
    "left_out",
    "ranked",
    "reasons",
    "shows",
    "table",
]

LINES = 25  # of a text, at most
ALTERNATIVES = 3  # explanations besides the best one
NAME = 36  # characters of an input's name, at most


def as_text(report: Report) -> str:
    """The report as text of at most 25 lines: headline, table, and a sentence for each wrong input."""
    lines = [headline(report), f"  checked: {report.coverage}"]
    footer = [f"note: {_one_line(note)}" for note in report.notes[:2]] if report.hints == "full" else []
    footer += [f"reproduce: {_one_line(report.reproduce)}"] if report.reproduce and not report.ok else []
    room = LINES - len(lines) - len(footer) - 1  # one line is the table's header
    inputs, more, below = _fit(report, room)
    header, rows = table(report, inputs)
    return "\n".join([*lines, *_aligned(header, rows), *more, *below, *footer])


def headline(report: Report) -> str:
    """What was checked, how, and the verdict: ``gradient of conv2d: wrong (reference: complex step, seed 0)``."""
    what = {1: "gradient", 2: "second derivative"}.get(report.order, f"derivative of order {report.order}")
    return f"{what} of {_one_line(report.function)}: {report.verdict} (reference: {report.reference}, seed {report.seed})"


def shows(report: Report, level: str) -> bool:
    """Whether the report's hint level allows what belongs to ``level``."""
    return HINTS.index(report.hints) >= HINTS.index(level)


def gradient_name(i: InputReport) -> str:
    """``dx`` for an input x; a dotted name of a parameter stays as it is."""
    name = shortened(i.name)
    return f"d{name}" if name.isidentifier() else name


def ranked(inputs: Sequence[InputReport]) -> list[InputReport]:
    """The inputs, wrong ones first, then undecidable ones; otherwise in their order."""
    order = {"wrong": 0, "undecidable": 1}
    return sorted(inputs, key=lambda i: order.get(i.verdict, 2))


# ------------------------------------------------------------------------------------ the table


def table(report: Report, inputs: Sequence[InputReport]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, as text; columns that would be empty are left out."""
    header = ["input", "shape", "verdict"]
    rows = [[shortened(i.name), _shape(i.shape), i.verdict] for i in inputs]
    if not shows(report, "where"):
        return header, rows
    header.append("bad/all")
    for row, i in zip(rows, inputs, strict=True):
        row.append(f"{i.bad}/{i.size}")
    for column in ("kinks", "unknown", "unchecked"):
        if any(getattr(i, column) for i in inputs):
            header.append(column)
            for row, i in zip(rows, inputs, strict=True):
                row.append(str(getattr(i, column) or ""))
    if any(i.bad and i.worst for i in inputs):
        header += ["worst at", "analytic", "numeric", "tolerance"]
        for row, i in zip(rows, inputs, strict=True):
            row += _worst(i)
    return header, rows


def _worst(i: InputReport) -> list[str]:
    if not i.bad or i.worst is None:
        return [""] * 4
    analytic, numeric = distinct(i.worst.analytic, i.worst.numeric)
    return [_shape(i.worst.index), analytic, numeric, f"{i.worst.tolerance:.1g}"]


def distinct(a: float, b: float) -> tuple[str, str]:
    """Both numbers with six digits, or with as many as it takes to tell them apart."""
    for digits in range(6, 18):
        pair = f"{a:.{digits}g}", f"{b:.{digits}g}"
        if pair[0] != pair[1]:
            return pair
    return pair


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Columns of equal width; numbers to the right."""
    left = {"input", "shape", "verdict", "worst at"}
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            f"{cell:<{width}}" if name in left else f"{cell:>{width}}"
            for cell, width, name in zip(row, widths, header, strict=True)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _shape(shape: tuple[int, ...]) -> str:
    return str(tuple(int(n) for n in shape))


def shortened(name: str) -> str:
    """The name, without its middle if it is very long."""
    name = _one_line(name)
    half = (NAME - 1) // 2
    return name if len(name) <= NAME else f"{name[:half]}…{name[-half:]}"


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


# ------------------------------------------------------------------------------------ the sentences


def explanations(report: Report, i: InputReport) -> list[str]:
    """The explanations of a wrong input, best first, as far as the hint level allows."""
    if i.verdict != "wrong" or not shows(report, "class"):
        return []
    found = i.diagnosis[: 1 + ALTERNATIVES]
    if not shows(report, "full"):
        return [d.label for d in found]
    return [f"{d.label}: {_one_line(d.sentence)}" for d in found]


def reasons(report: Report, i: InputReport) -> str:
    """Why an input could not be decided, in words; empty if it could, or if the hint level is "verdict"."""
    if i.verdict != "undecidable" or not shows(report, "where"):
        return ""
    parts = []
    if i.kinks:
        parts.append(f"{i.kinks} of {i.size} elements lie at a kink, where there is no derivative to compare with")
    if i.unknown:
        parts.append(f"at {i.unknown} of {i.size} elements the numeric derivative is not finite or too noisy")
    return f"cannot be decided here: {'; '.join(parts) or 'no element could be compared'}; try other inputs"


def _sentences(report: Report, inputs: Sequence[InputReport], alternatives: int) -> list[str]:
    """One line a diagnosis; at the level "class" one line for each input."""
    lines = []
    for i in inputs:
        best, *others = explanations(report, i)[: 1 + alternatives] or [reasons(report, i)]
        if not best:
            continue
        if others and not shows(report, "full"):
            best, others = f"{best} (or: {', '.join(others)})", []
        lines.append(f"{gradient_name(i)}: {best}")
        lines += [f"    or: {other}" for other in others]
    return lines


def _fit(report: Report, room: int) -> tuple[list[InputReport], list[str], list[str]]:
    """The inputs to list, the line that counts the others, and the sentences, in ``room`` lines together.

    Room is won first by leaving out alternative explanations, then by leaving out inputs, wrong ones last.
    """
    inputs = report.inputs
    for alternatives in range(ALTERNATIVES, -1, -1):
        sentences = _sentences(report, inputs, alternatives)
        if len(inputs) + len(sentences) <= room:
            return list(inputs), [], sentences
    order = ranked(inputs)
    listed: list[InputReport] = []
    sentences = []
    for i in order:
        added = _sentences(report, [i], 0)
        if len(listed) + len(sentences) + 1 + len(added) > room - 1:  # one line counts those left out
            break
        listed.append(i)
        sentences += added
    return listed, [left_out(order[len(listed) :])], sentences


def left_out(inputs: Sequence[InputReport]) -> str:
    """How many inputs of each verdict were left out of the table."""
    counts = {verdict: sum(i.verdict == verdict for i in inputs) for verdict in ("wrong", "undecidable", "right")}
    return "  and " + ", ".join(f"{count} more {verdict}" for verdict, count in counts.items() if count)


# ------------------------------------------------------------------------------------ for programs


def as_json(report: Report) -> str:
    """Everything but the arrays of the pictures, at every hint level. Numbers that are not finite are strings ("nan")."""
    content = {
        "function": report.function,
        "verdict": report.verdict,
        "labels": report.labels,
        "order": report.order,
        "reference": report.reference,
        "seed": report.seed,
        "coverage": _plain(vars(report.coverage)),
        "inputs": [_plain({k: v for k, v in vars(i).items() if k != "maps"}) for i in report.inputs],
        "hints": report.hints,
        "seconds": _plain(report.seconds),
        "reproduce": report.reproduce,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Dictionaries, lists, numbers and words only."""
    if hasattr(value, "tolist"):  # arrays and NumPy's scalars
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(vars(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
