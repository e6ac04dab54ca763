"""The tables of :class:`minires.bench.Profile`: a screenful, largest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minires.bench.report import align

if TYPE_CHECKING:
    from minires.bench.profiling import ModuleRow, Profile, Row

__all__ = ["SORTS", "text"]

#: What rows can be sorted by (the names are those in options.py).
SORTS: dict[str, Callable[[Any], float]] = {
    "time": lambda row: row.seconds,
    "calls": lambda row: row.calls,
    "flops": lambda row: row.flops or 0,
    "bytes": lambda row: row.bytes or 0,
    "kept": lambda row: row.kept,
}

#: Rows of both tables together, and the ops' part of them.
_ROWS, _OP_ROWS = 28, 16

Cells = list[str]


def text(found: Profile, by: str = "both", sort: str = "time", depth: int | None = 2, rows: int = _ROWS) -> str:
    """The tables.

    Args:
        found: what is shown.
        by: "op", "module" or "both".
        sort: "time", "calls", "flops", "bytes" (moved) or "kept".
        depth: show modules down to this depth; None shows all.
        rows: how many rows the tables may have together; the smallest are left out, and their number is said.
    """
    parts = [_head(found)]
    ops = min(rows * _OP_ROWS // _ROWS, len(found.rows)) if by == "both" else rows
    if by != "module":
        parts.append(_ops(found, sort, ops))
    if by != "op":
        parts.append(_modules(found, sort, depth, rows - ops if by == "both" else rows))
    if found.unknown:
        parts.append(f"no formula for operations and bytes of: {', '.join(found.unknown)}")
    return "\n\n".join(parts)


def _head(found: Profile) -> str:
    size = f"batch {found.shape[0]} of {'×'.join(map(str, found.shape[1:]))}"
    what = "training step" if found.train else "forward pass (evaluation mode, no_grad)"
    plain, seen = (1e3 * float(np.mean(each)) for each in (found.plain, found.observed))
    lines = [
        f"{found.model}, {what}, {size}, {found.device}; means of {len(found.observed)} steps",
        f"{plain:.2f} ms a step undisturbed ({1e3 * min(found.plain):.2f} to {1e3 * max(found.plain):.2f}), "
        f"{seen:.2f} ms observed",
    ]
    if found.device != "cpu":
        lines[1] += ": the GPU is waited for before and after each op, so nothing overlaps"
    if found.copy and found.product:
        limit = f"copy {found.copy / 1e9:,.1f} GB/s, large product {found.product / 1e9:,.0f} GFLOP/s"
        lines.append(f"this machine's limits now: {limit}; 'of limit' is the share of the nearer one")
    return "\n".join(lines)


def _ops(found: Profile, sort: str, limit: int) -> str:
    """One row for each op and direction, and for each part that is no op."""
    rows = sorted(found.rows, key=SORTS[sort], reverse=True)
    cells: list[Cells] = [["op", "pass", "calls", "ms a step", "share", "GFLOP/s", "GB/s", "of limit", "MB kept"]]
    cells += [
        [row.name, row.part, _count(row.calls) if row.is_op else "", _milliseconds(row.seconds), *_common(found, row)]
        for row in rows[:limit]
    ]
    total = sum(row.seconds for row in rows)
    calls = sum(row.calls for row in rows if row.is_op)
    share, kept = sum(row.share for row in rows), sum(row.kept for row in rows)
    left = rows[limit:]
    if left:
        rest = [f"{len(left)} more", "", _count(sum(row.calls for row in left if row.is_op))]
        rest += [_milliseconds(sum(row.seconds for row in left)), _percent(sum(row.share for row in left)), "", "", ""]
        cells.append([*rest, _megabytes(sum(row.kept for row in left))])
    cells.append(["together", "", _count(calls), _milliseconds(total), _percent(share), "", "", "", _megabytes(kept)])
    return align(cells, left=2)


def _modules(found: Profile, sort: str, depth: int | None, limit: int) -> str:
    """The tree: of the rows that are not too deep, the largest; below each module the largest first."""
    known = [row for row in found.modules if depth is None or len(row.path) <= depth]
    largest = _largest(known, sort, limit)
    header = ["module", "kind", "calls", "forward ms", "backward ms", "share", "GFLOP/s", "GB/s", "of limit", "MB kept"]
    cells: list[Cells] = [header]
    for row in _as_tree(largest):
        name = "  " * len(row.path) + row.path[-1] if row.path else found.model
        name = row.path[0] if row.path == ("(outside)",) else name
        times = [_milliseconds(row.forward), _milliseconds(row.backward)]
        cells.append([name, row.kind if row.path else "", _count(row.calls), *times, *_common(found, row)])
    table = align(cells, left=2)
    hidden, deeper = len(known) - len(largest), len(found.modules) - len(known)
    more = [f"{hidden} smaller ones"] * bool(hidden) + [f"{deeper} deeper ones"] * bool(deeper)
    return table + (f"\n  and {' and '.join(more)}" if more else "")


def _largest(known: Sequence[ModuleRow], sort: str, limit: int) -> list[ModuleRow]:
    """The largest rows, each with all its parents, as many as fit; largest first, and of equals the outer one."""
    by_path = {row.path: row for row in known}
    chosen: dict[tuple[str, ...], ModuleRow] = {}
    order = sorted(known, key=lambda row: (-SORTS[sort](row), len(row.path)))
    for row in order:
        line = [row.path[:n] for n in range(_first(row), len(row.path) + 1)]
        new = [path for path in line if path not in chosen and path in by_path]
        if len(chosen) + len(new) <= limit:
            chosen.update((path, by_path[path]) for path in new)
    return [row for row in order if row.path in chosen]


def _as_tree(rows: Sequence[ModuleRow]) -> list[ModuleRow]:
    """Each row after its parent; siblings in the order given; what is outside of the network at the end."""
    place = {row.path: i for i, row in enumerate(rows)}
    return sorted(rows, key=lambda row: (_first(row), [place.get(row.path[:n], -1) for n in range(len(row.path) + 1)]))


def _first(row: ModuleRow) -> int:
    """What is outside of the network stands beside it, not below."""
    return int(row.path == ("(outside)",))


def _common(found: Profile, row: Row | ModuleRow) -> Cells:
    flops = f"{row.flops / row.seconds / 1e9:,.1f}" if row.flops and row.seconds else "-"
    moved = f"{row.bytes / row.seconds / 1e9:,.1f}" if row.bytes and row.seconds else "-"
    limit = found.limit(row)
    return [_percent(row.share), flops, moved, "-" if limit is None else f"{100 * limit:.0f} %", _megabytes(row.kept)]


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f}" if size else ""
