"""The table at the end of a run: how often each network is right, and how well its attention finds the object."""

from __future__ import annotations

from collections.abc import Mapping

from minires.training.metrics import Evaluation

__all__ = ["NAMES", "table"]

NAMES = {"residual": "residual attention (ARL)", "naive": "naive attention (NAL)", "none": "no masks"}

_LOCALISED = ("network", "test accuracy", "module", "|M·F|", "M", "|F|", "|M·F|", "M", "|F|")


def table(results: Mapping[str, Evaluation]) -> str:
    """The results of one or several networks as text.

    Args:
        results: name of the network → what was measured on the test set.
    """
    first = next(iter(results.values()))
    if first.area is None:
        return _layout([("network", "test accuracy", "test loss"), *_plain_rows(results)], None)
    rows = [row for name, result in results.items() for row in _localised_rows(NAMES.get(name, name), result)]
    chance = ("chance", "", "", *[f"{first.area:.1%}"] * 6)
    text = _layout([_LOCALISED, *rows, chance], ("", "", "", "pointing game", "", "", "energy in the box", "", ""))
    return f"{text}\n{first.samples:,} test images. Boxes cover {first.area:.1%} of an image on average: that is chance."


def _plain_rows(results: Mapping[str, Evaluation]) -> list[tuple[str, ...]]:
    return [(NAMES.get(name, name), f"{result.accuracy:.2%}", f"{result.loss:.4f}") for name, result in results.items()]


def _localised_rows(name: str, result: Evaluation) -> list[tuple[str, ...]]:
    rows = []
    for i, module in enumerate(result.modules):
        numbers = [
            f"{values[kind]:.1%}" if kind in values else "-"
            for values in (module.pointing, module.energy)
            for kind in ("MF", "M", "F")
        ]
        rows.append(("" if i else name, "" if i else f"{result.accuracy:.1%}", module.module, *numbers))
    return rows or [(name, f"{result.accuracy:.1%}", "-", *["-"] * 6)]


def _layout(rows: list[tuple[str, ...]], groups: tuple[str, ...] | None) -> str:
    """Columns of even width: words to the left, numbers to the right; a rule under the head and above the last row."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    words = {0, 2} if groups else {0}
    lines = ["  ".join(row[i].ljust(w) if i in words else row[i].rjust(w) for i, w in enumerate(widths)) for row in rows]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:]]
    if groups:
        starts = [sum(widths[:i]) + 2 * i for i in range(len(widths))]
        head = ""
        for start, name in zip(starts, groups, strict=True):
            head = head.ljust(start) + name if name else head
        lines = [head, *lines[:-1], rule, lines[-1]]
    return "\n".join(line.rstrip() for line in lines)
