"""``python -m tests.training.write_translator_docs RUN [RUN...]``: put comparisons into docs/translator.md.

Each RUN is the directory of ``python -m minires train --data numerals --compare --out RUN``. The pictures and the table of
lengths are those of the first one.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from minires.data import to_english
from minires.training import translation_runs as runs
from minires.training.translation import Score, load_translator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "translator.md"
PICTURES = ROOT / "docs" / "images" / "translator"

SHOWN = 123_456_789  # 17 words: longer than any in training


def results(run: Path) -> dict[str, runs.Result]:
    """What a comparison wrote to its ``results.json``."""

    def score(values: dict) -> Score:
        by_length = {int(length): tuple(counts) for length, counts in values["by_length"].items()}
        return Score(values["exact"], values["sentences"], by_length)

    return {
        kind: runs.Result(score(each["test"]), score(each["longer"]), each["parameters"], each["seconds"])
        for kind, each in runs.json.loads((run / "results.json").read_text()).items()
    }


def replace(page: str, part: str, text: str) -> str:
    """``page`` with ``text`` between the comments of a part."""
    new, count = re.subn(rf"(?s)(<!-- {part} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{text}\n{m[2]}", page)
    assert count == 1, f"{PAGE} has {count} parts {part!r}"
    return new


def result_table(directories: list[Path]) -> str:
    """The first table of the page: two rows for each comparison."""
    lines = [
        ("direction", "seed", "network", "exact, test set", "exact, longer numbers", "parameters", "training"),
        ("---", "---:", "---", *["---:"] * 4),
    ]
    for directory in directories:
        job, _ = runs.read_job(directory)
        for kind, each in results(directory).items():
            exact = [f"{score.exact:.2%}" for score in (each.test, each.longer)]
            lines.append(
                (job.direction, str(job.seed), runs.NAMES[kind], *exact, f"{each.parameters:,}", f"{each.seconds:.0f} s")
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(directories: list[Path]) -> int:
    """Write the page and its pictures."""
    run = directories[0]
    found = results(run)
    page = replace(PAGE.read_text(encoding="utf-8"), "result", result_table(directories))
    PAGE.write_text(replace(page, "lengths", runs.length_table(found, markdown=True)), encoding="utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in ("errors.png", "curves.png"):
        shutil.copyfile(run / name, PICTURES / name)
    kind = next(kind for kind in found if kind != "none")
    print(runs.draw_alignment(load_translator(run / kind), to_english(SHOWN), PICTURES / "alignment.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
