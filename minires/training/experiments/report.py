"""What an experiment leaves for a reader: the table as CSV and Markdown, and the differences behind the verdict."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minires.training.experiments.experiment import Column, Experiment, Measured, Results, Variant
from minires.training.experiments.statistics import RULE, Estimate, Finding, combine, estimate, verdict

__all__ = ["Report", "csv_table", "judge", "markdown_table", "means"]


@dataclass(frozen=True)
class Report:
    """What came out of an experiment.

    Attributes:
        experiment: which.
        scale: at which scale.
        seeds: how many.
        variants: what was compared.
        results: the numbers of each trial.
        rows: the same as rows of the table.
        findings: what came out for each difference.
        verdict: what follows for the claim.
        directory: where all of it was written.
    """

    experiment: Experiment
    scale: str
    seeds: int
    variants: Sequence[Variant]
    results: Results
    rows: Results
    findings: Sequence[Finding]
    verdict: str
    directory: Path

    def text(self) -> str:
        """The table, the differences and the verdict, for a terminal."""
        table = ["  ".join(line).rstrip() for line in _aligned(_cells(self.rows, self.experiment.columns))]
        lines = [*table, "", *map(self._finding, self.findings), "", f"{self.verdict}: {self.experiment.claim}"]
        return "\n".join(lines)

    def markdown(self) -> str:
        """Claim, verdict, table and differences."""
        table = markdown_table(self.rows, self.experiment.columns)
        seeds = "1 seed; one seed has no standard error" if self.seeds == 1 else f"{self.seeds} seeds, mean ± standard error"
        lines = [f"- {self._finding(each)}" for each in self.findings]
        return "\n".join([
            f"# {self.experiment.name}", "", f"Claim ({self.experiment.source}): {self.experiment.claim}", "",
            f"**Verdict: {self.verdict}** (scale `{self.scale}`, {seeds}).", "", table, "",
            "Differences that the claim needs to be above 0:", "", *lines, "", f"The rule: {RULE}.", "",
            f"Command: `minires experiment {self.experiment.name} --scale {self.scale} --seeds {self.seeds}`", "",
        ])  # fmt: skip

    def _finding(self, finding: Finding) -> str:
        column = next((c for c in self.experiment.columns if c.metric == finding.contrast.metric), Column("", "", 1, 3))
        value, unit = finding.value.scaled(column.factor), column.title.rpartition(", ")[2]
        points = " points" if unit == "%" else f" {unit}" if ", " in column.title else ""
        return f"{finding.contrast.text}: {_number(value, column.digits, sign=True)}{points}, {finding.verdict}"


def means(results: Results, metric: str) -> dict[str, Estimate]:
    """Name of each variant that has a number → its mean."""
    found = {}
    for name, trials in results.items():
        values = [trial.numbers[metric] for trial in trials if metric in trial.numbers]
        if values:
            found[name] = estimate(values)
    return found


def judge(experiment: Experiment, variants: Sequence[Variant], rows: Results) -> tuple[list[Finding], str]:
    """What came out for each difference, and what follows for the claim."""
    findings = []
    for contrast in experiment.contrasts(variants):
        found = means(rows, contrast.metric)
        value = combine(list(contrast.weights.values()), [found[name] for name in contrast.weights], contrast.constant)
        findings.append(Finding(contrast, value, verdict([value])))
    return findings, verdict([finding.value for finding in findings])


def markdown_table(results: Results, columns: Sequence[Column]) -> str:
    """A row for each variant; a column that has no number for it is left empty."""
    head, *rows = _aligned([[cell.replace("|", "\\|") for cell in row] for row in _cells(results, columns)])
    rule = [f":{'-' * (len(head[0]) - 1)}", *(f"{'-' * (len(cell) - 1)}:" for cell in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def _cells(results: Results, columns: Sequence[Column]) -> list[list[str]]:
    """The table as text, with its head."""
    found = {column.metric: means(results, column.metric) for column in columns}
    rows = [[name, *(_number(_of(found[c.metric], name, c.factor), c.digits) for c in columns)] for name in results]
    return [["", *(column.title for column in columns)], *rows]


def _aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The first column filled up on the right, the others on the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]


def csv_table(results: Results) -> str:
    """Every number in full: a row for each variant, with mean, standard error and single values of each number."""
    metrics = list(dict.fromkeys(name for trials in results.values() for trial in trials for name in trial.numbers))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    seeds = max(len(trials) for trials in results.values())
    kinds = ["mean", "standard_error", *(f"trial_{i}" for i in range(seeds))]
    writer.writerow(["variant", "seeds", *(f"{metric}_{kind}" for metric in metrics for kind in kinds)])
    for name, trials in results.items():
        writer.writerow([name, len(trials), *(cell for metric in metrics for cell in _values(trials, metric, seeds))])
    return out.getvalue()


def _values(trials: Sequence[Measured], metric: str, seeds: int) -> list[str]:
    values = [trial.numbers[metric] for trial in trials if metric in trial.numbers]
    if not values:
        return [""] * (2 + seeds)
    whole = estimate(values)
    cells = [f"{whole.mean:.8g}", "" if whole.error is None else f"{whole.error:.8g}", *(f"{v:.8g}" for v in values)]
    return cells + [""] * (2 + seeds - len(cells))


def _of(found: dict[str, Estimate], name: str, factor: float) -> Estimate | None:
    return found[name].scaled(factor) if name in found else None


def _number(value: Estimate | None, digits: int | None, sign: bool = False) -> str:
    """Mean ± standard error; a number that is the same for every seed stands alone."""
    if value is None:
        return ""
    if digits is None:
        return f"{value.mean:,.0f}"
    text = f"{value.mean:{'+' if sign else ''}z.{digits}f}"
    return text if not value.error else f"{text} ± {value.error:.{digits}f}"
