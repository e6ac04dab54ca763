"""A translator's run in a directory of its own, and the comparison of one with attention and one without."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from minires.data import numerals
from minires.errors import CheckpointError
from minires.io import write_atomically
from minires.training import checkpoint
from minires.training.report import _layout as layout
from minires.training.settings import read_settings, write_settings
from minires.training.trainer import CHECKPOINT
from minires.training.translation import (
    LANGUAGES,
    Score,
    TrainedTranslator,
    TranslationJob,
    TranslationTrainer,
    load_translator,
    open_corpus,
)

__all__ = ["Result", "compare", "draw_alignment", "latest_run", "length_table", "read_job", "run", "table", "train"]

RESULTS = "results.json"
NAMES = {"additive": "additive attention", "dot": "dot-product attention", "none": "no attention"}

#: What ``alignment.png`` shows: every English word belongs to one place, but the groups of digits differ.
EXAMPLE = 20_305_680

Log = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Attributes:
        test: exact sentences on the test set.
        longer: the same on the numbers that are longer than any in training.
        parameters: how many the network has.
        seconds: of training, without the measuring.
    """

    test: Score
    longer: Score
    parameters: int
    seconds: float

    def errors(self) -> dict[int, tuple[int, int]]:
        """Source words → (sentences, those with a mistake), of both test sets."""
        found = dict(self.test.by_length)
        for length, (count, wrong) in self.longer.by_length.items():
            before = found.get(length, (0, 0))
            found[length] = before[0] + count, before[1] + wrong
        return dict(sorted(found.items()))


def train(
    job: TranslationJob, out: Path, compared: bool = False, quiet: bool = False, log: Log = print
) -> dict[str, Result]:
    """:func:`run`, or :func:`compare` if ``compared``; returns the results by kind of attention."""
    return compare(job, out, quiet, log) if compared else {job.attention: run(job, out, quiet, log)}


def run(job: TranslationJob, out: Path, quiet: bool = False, log: Log = print) -> Result:
    """Train a translator in a directory, from the beginning or from the checkpoint there; measure and draw."""
    trainer = TranslationTrainer(job, open_corpus(job), out, quiet)
    write_settings(out, job, compared=False)
    if (out / CHECKPOINT).exists():
        trainer.load(out / CHECKPOINT)
        log(f"continuing after {len(trainer.history)} of {job.epochs} epochs")
    trainer.fit()
    result = _result(trainer)
    _write(out / RESULTS, {job.attention: asdict(result)})
    _draw_curves({job.attention: trainer.history}, out / "curves.png")
    _draw_errors({job.attention: result}, job, out / "errors.png")
    if job.attention != "none":
        write = numerals.to_english if job.direction == "en-zh" else numerals.to_chinese
        draw_alignment(load_translator(out), write(EXAMPLE), out / "alignment.png")
    log(f"{NAMES[job.attention]}: {trainer.step} steps, {result.seconds:.0f} s of training")
    return result


def compare(job: TranslationJob, out: Path, quiet: bool = False, log: Log = print) -> dict[str, Result]:
    """Train the job with its attention and without any, all else equal. What is trained already is not trained again.

    Raises:
        ValueError: the job itself has no attention.
    """
    if job.attention == "none":
        raise ValueError("a comparison needs attention to compare with: additive or dot, not none")
    write_settings(out, job, compared=True)
    results, histories = {}, {}
    for kind in (job.attention, "none"):
        results[kind] = run(job.with_(attention=kind), out / kind, quiet, log)
        histories[kind] = checkpoint.read(out / kind / CHECKPOINT)["history"]
    _write(out / RESULTS, {kind: asdict(result) for kind, result in results.items()})
    _draw_curves(histories, out / "curves.png")
    _draw_errors(results, job, out / "errors.png")
    return results


def read_job(directory: Path) -> tuple[TranslationJob, bool]:
    """The job of a run directory, and whether it is a comparison; see :func:`read_settings`."""
    return read_settings(directory, TranslationJob)


def latest_run(folder: Path = Path("runs")) -> Path:
    """The newest translator with attention, or else the newest, below ``folder``.

    Raises:
        CheckpointError: there is none.
    """
    found = []
    for path in sorted([*folder.glob(f"*/{CHECKPOINT}"), *folder.glob(f"*/*/{CHECKPOINT}")]):
        try:
            job, _ = read_job(path.parent)
        except CheckpointError:
            continue  # a run of another kind
        found.append((job.attention != "none", path.stat().st_mtime, path))
    if not found:
        raise CheckpointError(
            f"there is no trained translator in {folder}/; train one with: python -m minires train --data numerals, "
            "or name one with --checkpoint"
        )
    return max(found)[2]


# ------------------------------------------------------------------------------------ what is shown


def table(results: Mapping[str, Result]) -> str:
    """The results of one or two networks as text."""
    head = ("network", "test", "longer numbers", "parameters", "training")
    rows = [
        (NAMES[kind], f"{each.test.exact:.2%}", f"{each.longer.exact:.2%}", f"{each.parameters:,}", f"{each.seconds:.0f} s")
        for kind, each in results.items()
    ]
    first = next(iter(results.values()))
    note = (
        f"Sentences without any mistake, of {first.test.sentences:,} and of {first.longer.sentences:,}. None of these "
        f"numbers is in the training set, whose sentences have up to {numerals.LONGEST} words; the longer ones have more."
    )
    return f"{layout([head, *rows], None)}\n{note}"


def length_table(results: Mapping[str, Result], markdown: bool = False) -> str:
    """The share of sentences with a mistake by the number of words of the source."""
    kinds, errors = list(results), {kind: result.errors() for kind, result in results.items()}
    first = errors[kinds[0]]
    head = ("words", "sentences", *(NAMES[kind] for kind in kinds))
    rows = [
        (str(length), f"{count:,}", *(f"{errors[kind][length][1] / count:.1%}" for kind in kinds))
        for length, (count, _) in first.items()
    ]
    if not markdown:
        return layout([head, *rows], None)
    lines = [head, tuple("---:" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_alignment(trained: TrainedTranslator, text: str, path: Path, width: int = 5) -> str:
    """Translate a text and draw where each word came from; returns the translation.

    Raises:
        ValueError: the network has no attention.
    """
    from minires import viz  # matplotlib is slow to import, so it is loaded when there is something to draw

    translated, found = trained.translate(text, width)
    if found.alignment is None:
        raise ValueError("this network has no attention, so there is no alignment to draw")
    words = trained.target.decode(found.words)
    target = [*words, "(end)"][: len(found.alignment)]
    first, second = (LANGUAGES[language] for language in trained.job.direction.split("-"))
    title = f"{first} to {second}, {NAMES[trained.job.attention]}"
    viz.alignment(found.alignment, trained.words(text), target, path, title=title, spoken=numerals.PINYIN)
    return translated


def _result(trainer: TranslationTrainer) -> Result:
    scores = trainer.scores or trainer.measure()
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    return Result(scores["test"], scores["longer"], parameters, sum(row["seconds"] for row in trainer.history))


def _draw_curves(histories: Mapping[str, list[dict[str, float]]], path: Path) -> None:
    from minires import viz

    def lines(column: str, factor: float) -> dict[str, tuple[list[float], list[float]]]:
        return {
            NAMES[kind]: ([row["epoch"] for row in rows], [factor * row[column] for row in rows])
            for kind, rows in histories.items()
        }

    charts = {
        "training loss, nats a word": lines("train_loss", 1),
        "exact sentences of the test set, %": lines("test_accuracy", 100),
        "exact among the longer numbers, %": lines("longer_accuracy", 100),
    }  # fmt: skip
    viz.lines(charts, path, xlabel="epoch", markers=True)


def _draw_errors(results: Mapping[str, Result], job: TranslationJob, path: Path) -> None:
    from minires import viz

    unit = "words of the English sentence" if job.direction == "en-zh" else "characters of the Chinese sentence"
    errors = {NAMES[kind]: result.errors() for kind, result in results.items()}
    viz.lengths(errors, path, longest=numerals.LONGEST, unit=unit, least=1 if job.test_numbers < 500 else 5)


def _write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{json.dumps(values, indent=2)}\n".encode())
