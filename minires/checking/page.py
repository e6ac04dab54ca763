"""A report in a notebook: the same table and sentences as the text, with the pictures below.

Styles are inline and there are no ids or scripts, so it looks alike everywhere. Text takes the notebook's own colour and
backgrounds are see-through, which makes it readable in light and in dark themes; only the verdicts have colours, white on
strong ones. Whatever comes from the user (names, sentences) is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from minires.checking import text
from minires.checking.report import InputReport, Report

__all__ = ["as_html"]

ROWS = 40  # of the table, at most
COLORS = {"right": "#00704f", "wrong": "#b34700", "undecidable": "#5c5c66"}  # legible under white, distinct if colour-blind
SIGNS = {"right": "✓", "wrong": "✗", "undecidable": "?"}

_LINE = "1px solid rgba(128,128,128,0.35)"
_CELL = "padding:3px 18px 3px 0;border:0;background:transparent;color:inherit;font-size:13px;white-space:nowrap"
_FAINT = "opacity:0.72;font-size:12px"
_NUMBERS = {"bad/all", "kinks", "unknown", "unchecked", "analytic", "numeric", "tolerance"}


def as_html(report: Report) -> str:
    """The report as a piece of HTML that needs nothing else."""
    inputs = list(report.inputs) if len(report.inputs) <= ROWS else text.ranked(report.inputs)
    listed, others = inputs[:ROWS], inputs[ROWS:]
    parts = [
        _headline(report),
        f'<div style="{_FAINT};margin:2px 0 8px 0">checked: {escape(str(report.coverage))}</div>',
        _table(report, listed),
        f'<div style="{_FAINT};margin:2px 0">{escape(text.left_out(others))}</div>' if others else "",
        *[_explanation(report, i) for i in listed],
        _pictures(report),
    ]
    if report.reproduce and not report.ok:
        parts.append(f'<div style="{_FAINT};margin:8px 0 0 0">reproduce: <code>{escape(report.reproduce)}</code></div>')
    return f'<div style="max-width:1000px;margin:6px 0;color:inherit;font-size:14px;line-height:1.45">{"".join(parts)}</div>'


def _headline(report: Report) -> str:
    what, _, how = text.headline(report).partition(f": {report.verdict} ")
    name = escape(what).replace(" of ", ' of <code style="font-size:14px;background:transparent;color:inherit">', 1)
    return (
        f'<div style="font-size:14px"><span style="font-weight:600">{name}</code></span> &nbsp;{_badge(report.verdict)}'
        f'&nbsp; <span style="{_FAINT}">{escape(how)}</span></div>'
    )


def _badge(verdict: str) -> str:
    color = COLORS.get(verdict, COLORS["undecidable"])
    style = f"background:{color};color:#ffffff;border-radius:9px;padding:1px 9px;font-size:12px;font-weight:600"
    return f'<span style="{style};white-space:nowrap">{SIGNS.get(verdict, "")} {escape(verdict)}</span>'


def _table(report: Report, inputs: Sequence[InputReport]) -> str:
    header, rows = text.table(report, inputs)
    align = ["right" if name in _NUMBERS else "left" for name in header]
    head = "".join(
        f'<th style="{_CELL};text-align:{side};font-weight:600;border-bottom:{_LINE}">{escape(name)}</th>'
        for name, side in zip(header, align, strict=True)
    )
    body = []
    for row in rows:
        cells = []
        for name, cell, side in zip(header, row, align, strict=True):
            shown = _badge(cell) if name == "verdict" else escape(cell)
            digits = ";font-family:monospace" if name not in ("verdict",) else ""
            cells.append(f'<td style="{_CELL};text-align:{side}{digits}">{shown}</td>')
        body.append(f'<tr style="background:transparent">{"".join(cells)}</tr>')
    style = "border-collapse:collapse;margin:0;border:0;color:inherit"
    return (
        f'<div style="overflow-x:auto"><table style="{style}"><thead><tr style="background:transparent">{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _explanation(report: Report, i: InputReport) -> str:
    """What is wrong with one input; further explanations and the numbers behind the first one can be unfolded."""
    name = escape(text.gradient_name(i))
    if reason := text.reasons(report, i):
        return f'<div style="margin:6px 0 0 0"><code>{name}</code> {escape(reason)}</div>'
    best, *others = text.explanations(report, i) or [""]
    if not best:
        return ""
    label, _, sentence = best.partition(": ")
    lines = [
        f'<div style="margin:8px 0 0 0;padding:1px 0 1px 10px;border-left:3px solid {COLORS["wrong"]}">'
        f"<code>{name}</code> &nbsp;<b>{escape(label)}</b> {escape(sentence)}"
    ]
    more = [f"<div>or: {escape(other)}</div>" for other in others]
    evidence = i.diagnosis[0].evidence if text.shows(report, "full") else {}
    if evidence:
        numbers = ", ".join(f"{name} = {value}" for name, value in evidence.items())
        more.append(f"<div>evidence: {escape(numbers)}</div>")
    if more:
        title = "other explanations" if others else "evidence"
        summary = f'<summary style="cursor:pointer">{title}</summary>'
        lines.append(f'<details style="{_FAINT};margin:2px 0 0 0">{summary}{"".join(more)}</details>')
    return "".join([*lines, "</div>"])


def _pictures(report: Report) -> str:
    """The pictures of a wrong report, on a white card: their colours are made for paper."""
    drawable = any(i.verdict == "wrong" and i.maps is not None for i in report.inputs)
    if not drawable or not text.shows(report, "where"):
        return ""
    data = base64.b64encode(report.plot()._repr_png_()).decode()
    about = escape(f"where the gradient of {report.function} is wrong", quote=True)
    return (
        '<div style="background:#ffffff;border-radius:6px;padding:8px;margin:10px 0 0 0;display:inline-block;max-width:100%;'
        f'box-sizing:border-box"><img alt="{about}" src="data:image/png;base64,{data}" style="display:block;width:760px;'
        'max-width:100%;height:auto;margin:0"></div>'
    )
