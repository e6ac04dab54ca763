"""The tables of what is measured on the CPU alone: single ops, memory, scaling. From the dictionaries that become JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minires.bench.report import align

__all__ = ["memory", "op", "op_head", "scaling"]

Found = dict[str, Any]

_TITLE, _MS, _SPREAD, _RATIO = 28, 8, 15, 9

#: Names that are too long for the head of a column.
_SHORT = {"PyTorch, channels_last": "ch. last"}


def op_head(names: Sequence[str]) -> str:
    """The head over the rows of :func:`op`: ours, then a ratio for each other framework."""
    columns = "".join(f"{_SHORT.get(name, name):>{_RATIO}}" for name in names[1:])
    return f"  {'':<{_TITLE}}{'':<9}{'ours, ms':>{_MS}}{'quartiles':>{_SPREAD}}{columns}"


def op(found: Found, names: Sequence[str]) -> str:
    """An op: a line for the forward pass and one for the backward pass, and a line for each error."""
    rows = {row["name"]: row for row in found["rows"]}
    ours = rows[names[0]]
    lines = []
    for part in ("forward", "backward"):
        if part in ours:
            title = found["title"] if part == "forward" else ""
            word = part if "backward" in ours else "step"
            low, high = (1e3 * value for value in ours[part]["quartiles"])
            spread = f"{_number(low)} to {_number(high)}"
            ratios = "".join(f"{_ratio(rows.get(name, {}), part):>{_RATIO}}" for name in names[1:])
            median = f"{_number(1e3 * ours[part]['median']):>{_MS}}"
            lines.append(f"  {title:<{_TITLE}}{word:<9}{median}{spread:>{_SPREAD}}{ratios}")
    lines += [f"    {row['name']}: not timed: {row['error']}" for row in found["rows"] if row.get("error")]
    return "\n".join(lines)


def _ratio(row: Found, part: str) -> str:
    if row.get("error"):
        return "error"
    return f"{row[part]['ratio']:.2f}" if part in row else "-"


def _number(value: float) -> str:
    """Three digits that count."""
    digits = sum(value < border for border in (1, 10, 100))
    return f"{value:.{digits}f}"


def memory(found: Sequence[Found]) -> str:
    """What each side needs above its weights, network by network."""
    rows: list[list[str]] = [["", "", "peak, MiB", "weights etc., MiB", "ours / this"]]
    for group in found:
        for i, row in enumerate(group["rows"]):
            start = [group["title"] if i == 0 else "", row["name"]]
            if row.get("error"):
                rows.append([*start, "not measured", "-", "-"])
                continue
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            rows.append([*start, f"{row['peak'] / 2**20:,.0f}", f"{row['before'] / 2**20:,.0f}", ratio])
    notes = {f"  {row['name']}: {row['error']}": None for group in found for row in group["rows"] if row.get("error")}
    methods = {row["method"]: None for group in found for row in group["rows"] if "method" in row}
    return "\n".join([align(rows, left=2), *notes, *(f"  measured by {method}" for method in methods)])


def scaling(found: Found) -> str:
    """Points of a line, and how far they are from it."""
    rows: list[list[str]] = [[found["what"], "ms a step", "quartiles", "ms by the line", "off the line"]]
    for point in found["points"]:
        low, high = point["quartiles"]
        off = 100 * (point["median"] / point["fitted"] - 1)
        rows.append([
            f"{point['x']}", f"{1e3 * point['median']:.1f}", f"{1e3 * low:.1f} to {1e3 * high:.1f}",
            f"{1e3 * point['fitted']:.1f}", f"{off:+.1f} %",
        ])  # fmt: skip
    line = f"  {1e3 * found['offset']:.1f} ms + {1e3 * found['slope']:.2f} ms × {found['what']}"
    far = f"; no point is further from it than {100 * found['deviation']:.1f} %"
    return "\n".join([found["title"], align(rows), line + far])
