"""The kernel table: every launch of a training step, started again on its own and timed.

Many kernels take a few microseconds, less than Python needs to launch one. So launches of the same kernel are captured into
a CUDA graph, and the graph is timed. Each launch works on other memory than the one before, together several times what the
second-level cache holds, so that times are those of reading from memory; within a step much is still in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minires.bench.ceilings import Stopwatch
from minires.bench.costs import family
from minires.bench.record import Entry
from minires.bench.rounds import Budget, Spread

__all__ = ["Row", "measure", "per_kernel"]

_LAUNCHES = 24  # in a graph
_ROUNDS = 5


@dataclass
class Row:
    """A kernel at one choice of sizes.

    Attributes:
        name: "source.kernel", or "gemm".
        what: the sizes.
        dtype: of the data.
        count: launches in a step.
        bytes: moved by a launch, by formula.
        flops: made by a launch, by formula.
        seconds: of a launch, or None if it was not measured.
        note: why not, or how.
    """

    name: str
    what: str
    dtype: str
    count: int
    bytes: int
    flops: int
    seconds: float | None = None
    note: str = ""


def measure(entries: Sequence[Entry], xp: Any, budget: Budget) -> list[Row]:
    """Time every entry; the largest first, so that what the time cuts off is small."""
    watch = Stopwatch(xp)
    rows = []
    for entry in sorted(entries, key=lambda each: -each.count * (each.cost.bytes + each.cost.flops // 100)):
        row = Row(entry.name, entry.what, entry.dtype, entry.count, *entry.cost)
        if budget.left:
            try:
                row.seconds, row.note = _time(entry, xp, watch)
            except Exception as error:  # one kernel that cannot be started again must not cost the others
                row.note = " ".join(str(error).split()) or type(error).__name__
        else:
            row.note = "not measured: the time was over"
        rows.append(row)
    return rows


def _time(entry: Entry, xp: Any, watch: Stopwatch) -> tuple[float, str]:
    """Seconds of a launch."""
    with watch.stream:
        sets = entry.rotation(xp)  # copied in this stream: tables of indices are among them, not to be read too early
        for arrays in sets:
            entry.start(arrays)
        watch.stream.synchronize()
        watch.stream.begin_capture()
        try:
            for i in range(_LAUNCHES):
                entry.start(sets[i % len(sets)])
        finally:
            graph = watch.stream.end_capture()
    for _ in range(2):
        watch.time(lambda: graph.launch(watch.stream))
    seconds = Spread.of([watch.time(lambda: graph.launch(watch.stream)) for _ in range(_ROUNDS)]).median
    return seconds / _LAUNCHES, "" if len(sets) > 1 or entry.cost.bytes > 128 << 20 else "partly from the cache"


def per_kernel(rows: Sequence[Row]) -> list[Row]:
    """The rows of each kernel taken together: a launch then has their mean bytes, operations and time."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((family(row.name), row.dtype), []).append(row)
    return [_together(name, dtype, some) for (name, dtype), some in groups.items()]


def _together(name: str, dtype: str, rows: list[Row]) -> Row:
    count = sum(row.count for row in rows)
    moved = sum(row.count * row.bytes for row in rows) // count
    flops = sum(row.count * row.flops for row in rows) // count
    known = [row.count * row.seconds for row in rows if row.seconds is not None]
    seconds = sum(known) / count if len(known) == len(rows) else None
    note = "" if seconds is not None or not known else f"{len(known)} of {len(rows)} sizes measured"
    what = rows[0].what if len(rows) == 1 else f"{len(rows)} sizes"
    return Row(name, what, dtype, count, moved, flops, seconds, note)
