"""The tables that ``minires bench`` prints, from the very dictionary that it writes as JSON."""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minires.doctor import report as doctor

__all__ = ["align", "as_json", "ceilings", "group", "kernels", "machine"]

Table = Sequence[Sequence[str]]


def machine(device: str) -> dict[str, Any]:
    """Everything that a figure depends on: versions, processor, GPU, driver."""
    facts = dict(line.split("  ", 1) for line in doctor().splitlines() if "  " in line)
    found = {name.strip(): value.strip() for name, value in facts.items()}
    found.pop("to do", None)
    found["processor"] = _processor()
    return found | {"device": device} | _torch()


def _processor() -> str:
    """What it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _torch() -> dict[str, str]:
    if find_spec("torch") is None:
        return {"torch": "not installed"}
    torch: Any = importlib.import_module("torch")
    threads = {"torch threads": str(torch.get_num_threads())}
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {"torch": str(torch.__version__)} | threads | ({"cudnn": str(cudnn)} if cudnn else {})


def ceilings(found: dict[str, Any]) -> str:
    """One line for the memory and one for each precision."""
    lines = [f"copy of large arrays      {found['copy'] / 1e9:8,.0f} GB/s (read and written)"]
    lines += [f"large product, {name:<8}   {rate / 1e12:8,.2f} TFLOP/s" for name, rate in found["products"].items()]
    return "\n".join(lines)


def group(found: dict[str, Any]) -> str:
    """The sides of one network in one precision, and how we compare."""
    title = f"{found['title']}, {found['precision']}"
    if found.get("error"):
        return f"{title}\n  not measured: {found['error']}"
    head = ["quartiles", "images/s", "ours / this", "of product", "of copy", "kernels", "MiB held"]
    rows: list[list[str]] = [["", found.get("unit", "ms a step"), *head]]
    for row in found["rows"]:
        if "median" not in row:
            rows.append([row["name"], f"not measured: {row['note']}"])
            continue
        low, high = row["quartiles"]
        rows.append([
            row["name"], f"{1e3 * row['median']:.2f}", f"{1e3 * low:.2f} to {1e3 * high:.2f}",
            f"{found['batch_size'] / row['median']:,.0f}", "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            _percent(row.get("of_product")), _percent(row.get("of_copy")),
            _or_dash(row["kernels"]), _mebibytes(row["bytes_held"]),
        ])  # fmt: skip
    lines = [title, align(rows)]
    lines += [f"  {row['name']}: {row['note']}" for row in found["rows"] if row["note"] and "median" in row]
    if found["cut"]:
        lines.append(f"  {found['cut']}")
    restless = [row["name"] for row in found["rows"] if "median" in row and _scatters(row)]
    if restless:
        lines.append(f"  not to be relied on, is something else running here? Times scatter widely: {'; '.join(restless)}")
    if "flops" in found:
        lines.append(f"  shares of the ceilings: {found['flops'] / 1e9:.1f} GFLOP, {found['bytes'] / 1e9:.2f} GB by formula")
    if found["verdict"] is not None:
        lines.append(f"  {found['verdict']}")
    return "\n".join(lines)


def kernels(found: Sequence[dict[str, Any]], copy: float | None, top: int = 40) -> str:
    """Kernel by kernel, those first that take most of a step; ``copy`` is the measured copy bandwidth."""
    rows: list[list[str]] = [["kernel", "sizes", "times", "µs each", "ms a step", "MB each", "GB/s", "of copy", "TFLOP/s"]]
    shown = sorted(found, key=lambda row: -row["count"] * (row["seconds"] or row["bytes"] / 1e15))
    for row in shown[:top]:
        seconds = row["seconds"]
        start = [f"{row['name']} {row['dtype']}".strip(), row["what"], str(row["count"])]
        if seconds is None:
            rows.append([*start, "-", "-", f"{row['bytes'] / 1e6:.2f}", "-", "-", "-"])
            continue
        bandwidth = row["bytes"] / seconds
        rows.append([
            *start, f"{1e6 * seconds:.1f}", f"{1e3 * row['count'] * seconds:.3f}", f"{row['bytes'] / 1e6:.2f}",
            f"{bandwidth / 1e9:,.0f}", f"{100 * bandwidth / copy:.0f} %" if copy else "-",
            f"{row['flops'] / seconds / 1e12:.2f}",
        ])  # fmt: skip
    lines = [align(rows, left=2)]
    notes = dict.fromkeys(f"  {row['name']}: {row['note']}" for row in shown if row["note"])
    lines += list(notes)[:10]
    if len(shown) > top:
        lines.append(f"  and {len(shown) - top} more, in the JSON file")
    total = sum(row["count"] * row["seconds"] for row in shown if row["seconds"])
    lines.append(f"  together {1e3 * total:.2f} ms in {sum(row['count'] for row in shown)} launches")
    return "\n".join(lines)


def as_json(found: dict[str, Any]) -> str:
    """Text of a file."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _scatters(row: dict[str, Any]) -> bool:
    """Whether the middle half of the times is spread over more than a quarter of their median."""
    low, high = row["quartiles"]
    return bool(high - low > row["median"] / 4)


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _mebibytes(value: Any) -> str:
    return "-" if value is None else f"{value / 2**20:,.0f}"


def align(rows: Table, left: int = 1) -> str:
    """Columns under each other; the first ones to the left, numbers to the right. A row of two cells is a sentence."""
    full = [row for row in rows if len(row) > 2]
    known = [i for i, _ in enumerate(full[0]) if i < left or any(row[i] not in ("", "-") for row in full[1:])]
    rows = [[row[i] for i in known] if len(row) > 2 else row for row in rows]
    full = [row for row in rows if len(row) > 2]
    widths = [max(len(row[i]) for row in full) for i in range(len(full[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=False)
        text = [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(cells)]
        lines.append("  " + ("  ".join(text) if len(row) > 2 else "  ".join([text[0], *row[1:]])).rstrip())
    return "\n".join(lines)
