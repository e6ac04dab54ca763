"""``python -m tests.gradcheck.write_docs``: write what can be generated of ``docs/gradcheck.md``.

The page's words are written by hand. What the code says for itself is put between two comments, so that it cannot grow old:

* after a block of Python or of a command, ``<!-- output -->`` … ``<!-- end -->`` holds what it prints (all Python blocks run
  one after the other, in one module; one whose first line is ``# name.py`` is saved under that name instead);
* ``<!-- label NAME -->`` … holds an example of that mistake: its code out of the planted set, its report, its picture;
* ``<!-- index -->`` … holds the list of labels, out of the page's own headings.

``test_docs.py`` checks that the page is up to date. Pictures are drawn only here.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minires.checking import InputReport, Report, gradcheck_pair
from minires.checking.planted import CASES, Planted, contracts, norms
from minires.checking.text import gradient_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gradcheck.md"
PICTURES = ROOT / "docs" / "images" / "gradcheck"
RESOLUTION, COLORS = 125, 128  # of the pictures: dots an inch; a palette of so many keeps them small

#: A block to run, or a generated part.
PART = re.compile(
    r"(?ms)^```(?P<language>python|sh)\n(?P<code>.*?)^```$|^<!-- (?P<kind>output|label|index)(?: (?P<name>\w+))? -->\n"
    r".*?^<!-- end -->$"
)
HEADING = re.compile(r"(?m)^(#{3,4}) (.*)$")


@dataclass(frozen=True)
class Example:
    """The planted mistake that stands for a label: its name in the planted set, and helpers to show above it."""

    name: str
    helpers: tuple[Callable[..., Any], ...] = ()

    @property
    def case(self) -> Planted:
        """The planted mistake."""
        return next(case for case in CASES if case.name == self.name)

    def report(self) -> Report:
        """What the checker says of it."""
        inputs = self.case.inputs(np.random.default_rng(0))
        report = gradcheck_pair(self.case.forward, self.case.wrong, inputs, params=dict(self.case.options))
        return replace(report, function="backward")


_STATISTICS = (norms._through_statistics,)

EXAMPLES = {
    "shape": Example("flatten: the gradient is still flat"),
    "dtype": Example("embedding: a table of float32"),
    "missing_broadcast_sum": Example("scale_rows: the scale's gradient is not summed"),
    "damages_gout": Example("leaky_relu: the upstream gradient is changed in place"),
    "damages_input": Example("unit_rows: x divided in place"),
    "aliases_gout": Example("flatten: a view of the upstream gradient"),
    "state_leak": Example("embedding: the buffer is not cleared", (contracts._kept,)),
    "nondeterministic": Example("dropout: another mask"),
    "ignores_upstream": Example("sigmoid: the upstream gradient is ignored"),
    "not_finite": Example("softplus: infinity divided by infinity"),
    "low_precision": Example("matmul: da computed in float32"),
    "zero_gradient": Example("select: assigned to a copy"),
    "sign_flipped": Example("subtract: like add"),
    "constant_factor": Example("linear: dw is the mean over the samples, db the last sample's"),
    "gradients_swapped": Example("multiply: each operand gets the other's gradient"),
    "identity_branch_lost": Example("residual_unit: the direct way is lost"),
    "axis_swapped": Example("pixel_shuffle: rows and columns exchanged"),
    "axis_reversed": Example("cumulative_sum: not turned back"),
    "spatial_shift": Example("pad2d: top with bottom and left with right exchanged"),
    "border_missing": Example("avgpool1d: the last window is not visited"),
    "not_accumulated_over_axis": Example("time_distributed: dw of the last time step"),
    "overlap_overwritten": Example("unfold1d: += with repeated indices"),
    "window_offset_skipped": Example("upsample_nearest: the first of the copies is left out"),
    "kernel_flipped": Example("conv1d: dx correlates with the flipped kernel"),
    "operand_transposed": Example("matmul: b is not transposed"),
    "missing_operand": Example("product_of_three: c is missing from da"),
    "wrong_variant": Example("conv1d_same: dx forgets the dilation"),
    "bn_stats_constant": Example("batch_norm: mean and variance are constants", _STATISTICS),
    "bn_missing_mean_term": Example("batch_norm: the way through the mean is forgotten"),
    "bn_missing_variance_term": Example("instance_norm: the way through the variance is forgotten"),
    "bn_other_statistics": Example("batch_norm: the unbiased variance in the backward only"),
    "several_winners": Example("global_max_pool: every row has a winner"),
    "wrong_routing": Example("maxpool1d: the winner is counted from the signal's start"),
    "missing_chain_factor": Example("squared_tanh: the slope of the square only"),
    "wrong_local_derivative": Example("sigmoid: x (1 - x) for y (1 - y)"),
    "missing_term": Example("cross_entropy: the one at the label is not taken off"),
    "factor_per_element": Example("adaptive_avg_pool1d: all bins divided by the mean length"),
    "mixed_over_axis": Example("batched_matmul: db summed over the batch"),
    "wrong_weights": Example("resize_linear: the weights of the neighbours exchanged"),
    "unexplained": Example("unit_rows: x for the unit vector in the projection"),
}


# ------------------------------------------------------------------------------------ the parts of the page


def filled(page: str) -> str:
    """The page with all generated parts as they are now. It does not draw."""
    with _workplace() as names:
        printed = ""

        def replaced(match: re.Match[str]) -> str:
            nonlocal printed
            if match["language"]:
                printed = _run(match["language"], match["code"], names)
                return match[0]
            name = match["name"]
            if match["kind"] == "output":
                body = f"```text\n{printed.rstrip()}\n```"
            else:
                body = _index(page) if match["kind"] == "index" else _example(name)
            return f"<!-- {match['kind']}{' ' + name if name else ''} -->\n{body}\n<!-- end -->"

        return PART.sub(replaced, page)


@contextlib.contextmanager
def _workplace() -> Iterator[dict[str, Any]]:
    """An empty folder from which modules are imported, and a namespace for the blocks."""
    before, here = set(sys.modules), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        try:
            yield {"__name__": "page"}
        finally:
            os.chdir(here)
            sys.path.remove(folder)
            for name in set(sys.modules) - before:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                    del sys.modules[name]


def _run(language: str, code: str, names: dict[str, Any]) -> str:
    """Run a block of the page; returns what it prints."""
    if saved := re.match(r"# (\w+\.py)\n", code):
        Path(saved[1]).write_text(code, encoding="utf-8")
        return ""
    if language == "python":
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "<page>", "exec", dont_inherit=True), names)
        return out.getvalue()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = re.sub(r"^(minires|pytest)\b", rf"{sys.executable} -m \1", code.replace("\\\n", " ").strip())
    result = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
    return f"{result.stdout}{result.stderr}".replace(f"{Path.cwd()}{os.sep}", "")


def _index(page: str) -> str:
    """Every label with a link, in a table by group."""
    rows, group, found = ["| kind of mistake | labels |", "|---|---|"], "", []
    for level, title in [*HEADING.findall(page), ("###", "")]:
        if level == "####":
            label = title.strip("`")
            found.append(f"[`{label}`](#{label})")
            continue
        if found:
            rows.append(f"| {group} | {', '.join(found)} |")
        group, found = title, []
    return "\n".join(rows)


def labels(page: str) -> list[str]:
    """The labels that have a section."""
    return [title.strip("`") for level, title in HEADING.findall(page) if level == "####"]


def _example(label: str) -> str:
    """A planted mistake: what it is, its code, its report and, if it has been drawn, its picture."""
    example = EXAMPLES[label]
    case, report = example.case, example.report()
    operation, _, mistake = case.name.partition(": ")
    about = (inspect.getdoc(case.forward) or "").splitlines()[0].rstrip(".").replace("``", "`")
    names = {i.name: str(i.shape) for i in report.inputs}
    sizes = ", ".join(f"{name} {shape}" for name, shape in names.items())
    options = "".join(f", {name}={value!r}" for name, value in case.options.items())
    code = "\n\n".join([*(_source(helper) for helper in example.helpers), _source(case.wrong, "backward")])
    parts = [
        f"**Example.** `{operation}`, {about[:1].lower()}{about[1:]}, of {sizes}{options}. The mistake: {mistake}.",
        f"```python\n{code}\n```",
        f"```text\n{report}\n```",
    ]
    if has_picture(report):
        wrong = gradient_name(_shown(report, label))
        parts.append(f"![where {wrong} of {operation} is wrong: {label}](images/gradcheck/{label}.png)")
    return "\n\n".join(parts)


def _source(function: Callable[..., Any], name: str = "") -> str:
    """A function's code as a student would have written it: without types, and under another name."""
    code = textwrap.dedent(inspect.getsource(function))
    code = re.sub(r"(?m)^    del .*\n", "", code)
    head, _, body = code.partition(" -> Any:\n")
    head = re.sub(r": (Any|bool|int|float|str|tuple\[int, int\])\b", "", " ".join(head.split()))
    head = head.replace(" = ", "=").replace("( ", "(").replace(" )", ")")
    if name:
        head = re.sub(r"^def \w+", f"def {name}", head)
    return f"{head}:\n{body}".rstrip()


def _shown(report: Report, label: str) -> InputReport:
    """The input that the picture is of: the first one with this label."""
    return next(i for i in report.inputs if report.labels.get(i.name) == label)


def has_picture(report: Report) -> bool:
    """Whether there is anything to see: a gradient of the right shape with wrong elements."""
    return any(i.bad and i.maps is not None and i.maps.analytic is not None for i in report.inputs)


# ------------------------------------------------------------------------------------ comparing


def comparable(page: str) -> str:
    """The page without what depends on the machine: seconds, rounding, tolerances, the worst of several bad elements."""
    lines: list[str] = []
    cut: int | None = None
    for line in page.splitlines():
        if "worst at" in line:
            cut = line.index("worst at")
        elif cut is not None and not re.match(r"(E  )?  ", line):
            cut = None
        lines.append((line if cut is None else line[:cut]).rstrip())
    return re.sub(r"\b\d+\.\d+ ?s\b|(?<=right to )\d+(?= digits)", "…", "\n".join(lines))


# ------------------------------------------------------------------------------------ pictures


def draw() -> None:
    """Draw the pictures of all labels anew, with a small palette."""
    from PIL import Image

    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    for label, example in EXAMPLES.items():
        report = example.report()
        if not has_picture(report):
            continue
        raw = io.BytesIO()
        replace(report, inputs=[_shown(report, label)]).plot().savefig(raw, format="png", dpi=RESOLUTION)
        with Image.open(raw) as picture:
            small = picture.convert("RGB").quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        small.save(PICTURES / f"{label}.png", optimize=True)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if "--text" not in sys.argv:
        draw()
