"""Write ``docs/experiments.md`` and its pictures: ``python -m tests.training.write_experiment_docs DIRECTORY...``.

Give the directories of finished experiments (``--out`` of ``minires experiment``); whatever experiment is not among them is
listed as not run. Pictures and tables are taken as they are, so the page says what came out.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import date
from pathlib import Path

from minires.training import experiments

DOCS = Path(__file__).parents[2] / "docs"

HEAD = """\
# The paper's claims, tested

`minires experiment NAME` trains the networks that a sentence of the paper is about, each from several seeds, and leaves a
table, a figure, the exact configuration and a verdict; `minires experiment` lists what there is. Everything below is the
output of one such command at `--scale tiny`: small networks, 150 training steps of 64 embedded cluttered digits
(`localisation`: 378, `depth`: 100), minutes on two CPU cores. That is a hint about the paper's networks, not a proof:
`--scale cifar` and `--scale paper` are for a GPU.

**The rule.** A verdict is computed from the numbers alone. A claim is a list of differences that have to be above 0. It is
*confirmed* if each is more than two of its standard errors above 0, *not confirmed* if one is more than two below 0, and
else *undecided at this scale*. The standard error of a mean is s/√seeds, those of a difference add in squares. With three
seeds for each of two networks a difference that does not exist is called confirmed in about one of 17 cases.

An experiment that was killed goes on where it stopped when the same command is given again; more `--seeds` are added to
those that are there.
"""

#: What a reader should know of some results; to be read again, with the numbers, when an experiment was run anew.
REMARKS: dict[str, str] = {
    "naive-vs-residual": """\
The gap opens with depth as the paper says, and far wider than in its Table 3. These runs are short, though: they show that
deep networks of M·F begin to learn slowly, not where they would end.""",
    "vanishing-features": """\
By the paper's measure, which relates every stage to the first, nothing is decided here. The right half of the figure shows
more: at the end of stage 1 the features of M·F are already ten times weaker than those of (1 + M)·F, and four times weaker
than those of the ResNet. But the unit at the beginning of a stage normalises what it gets, so each stage starts anew, and
what is lost in the first does not show in a ratio to it. After the same 150 steps NAL's error is 86 %, the others' about
60 %.""",
    "upsampling": """\
Both ways to interpolate come out the same within the noise. The learned kernels that moved most are no longer bilinear: they
lost their symmetry, so they also shift the mask by a part of a pixel, and some of their weights became negative.""",
    "mask-shape": """\
As they are, the local mask has the lower error here by 5.5 points, but also half as many multiply-adds again; beside a
longer trunk that costs about as much the gap is 2.2 points, and not certain. The maps of this network have 9×9 and 5×5
cells, and the three 3×3 convolutions of a local mask see 7×7 of them; on larger images that is little. (The
network of equal cost was added after the first two had been seen; between those two alone the claim is not confirmed.)""",
    "localisation": """\
The network was trained on classes alone. In the first module the mask finds the digit where its trunk does not yet; in the
second the features find it by themselves, and the mask adds nothing that could be measured. Grad-CAM and saliency, which are
told the true class and need a backward pass, point about as well and are more concentrated.""",
}


def main(directories: list[str]) -> int:
    """Write the page; the directories may be in any order."""
    runs = {json.loads((Path(each) / "config.json").read_text())["experiment"]: Path(each) for each in directories}
    pictures = DOCS / "images" / "experiments"
    pictures.mkdir(parents=True, exist_ok=True)
    rows, sections = ["| experiment | claim | verdict |", "| :--- | :--- | :--- |"], []
    for name, experiment in experiments.EXPERIMENTS.items():
        found = "not run"
        if name in runs:
            shutil.copyfile(runs[name] / "figure.png", pictures / f"{name}.png")
            text = (runs[name] / "table.md").read_text(encoding="utf-8")
            found = text.partition("**Verdict: ")[2].partition("**")[0]
            sections.append(section(name, text, date.fromtimestamp((runs[name] / "table.md").stat().st_mtime)))
        link = f"[{name}](#{name})" if name in runs else name
        rows.append(f"| {link} | {experiment.claim} ({experiment.source}) | {found} |")
    page = "\n".join([HEAD, *rows, "", *sections])
    (DOCS / "experiments.md").write_text(page.rstrip() + "\n", encoding="utf-8")
    return 0


def section(name: str, text: str, day: date) -> str:
    """One experiment: its report, a level lower, with the figure and the day; the rule stands on top of the page."""
    lines = [line for line in text.splitlines() if not line.startswith(("# ", "The rule: ", "Command: "))]
    command = next(line for line in text.splitlines() if line.startswith("Command: "))
    body = "\n".join(lines).strip().replace("\n\n\n", "\n\n")
    parts = [f"## {name}", body, f"![{name}](images/experiments/{name}.png)", REMARKS.get(name, "")]
    return "\n\n".join([*filter(None, parts), f"{command}, {day.isoformat()}.\n"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
