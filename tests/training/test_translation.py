"""Training a translator: it learns, continues without a trace, keeps all in a directory, and says what it got wrong."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from minires.data import numerals
from minires.data.sentences import BEGIN, END, UnknownWordError
from minires.errors import CheckpointError
from minires.models import Translation
from minires.training import translation_runs as runs
from minires.training.trainer import CHECKPOINT, DivergedError
from minires.training.translation import (
    NUMERALS,
    Pairs,
    Stopped,
    TranslationJob,
    TranslationTrainer,
    load_translator,
    measure_translator,
    open_corpus,
)
from tests.training.tiny_translation import TINY_NUMERALS


def quiet(line: str) -> None:
    """For runs whose lines nobody reads."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("translator")
    return directory, runs.compare(TINY_NUMERALS, directory, quiet=True, log=quiet)


def test_the_pairs_are_translations_of_each_other():
    for direction in ("en-zh", "zh-en"):
        corpus = open_corpus(TINY_NUMERALS.with_(direction=direction))
        for pairs in corpus.sets.values():
            for source, target in zip(pairs.source, pairs.target, strict=True):
                sentences = [corpus.source.decode(source), corpus.target.decode(target)]
                english, chinese = sentences if direction == "en-zh" else reversed(sentences)
                assert numerals.from_english(" ".join(english)) == numerals.from_chinese("".join(chinese))


def test_a_batch_holds_what_stands_before_each_word_and_the_word():
    source, before, after = Pairs([[3, 4], [5], [6]], [[7], [8, 9], []]).batch([0, 1])
    assert source.tolist() == [[3, 4], [5, 0]]
    assert before.tolist() == [[BEGIN, 7, 0], [BEGIN, 8, 9]] and after.tolist() == [[7, END, 0], [8, 9, END]]


@pytest.mark.parametrize("attention", ["additive", "dot", "none"])
def test_it_learns(attention: str):
    trainer = TranslationTrainer(TINY_NUMERALS.with_(attention=attention, epochs=30), open_corpus(TINY_NUMERALS), quiet=True)
    batch = trainer.corpus.sets["train"].batch(range(16))
    losses = [trainer._make_step(batch)[0] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_score_counts_sentences_by_length():
    class Network:
        def eval(self) -> None: ...

        def greedy(self, source, longest):  # right for sentences that begin with 3
            return [Translation([9] if row[0] == 3 else [8], 0.0, None) for row in source]

    pairs = Pairs([[3, 4], [5, 4], [3], [3, 5]], [[9]] * 4)
    score = measure_translator(Network(), pairs)  # type: ignore[arg-type]
    assert score.exact == 0.75 and score.sentences == 4 and score.by_length == {1: (1, 0), 2: (3, 1)}


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path):
    corpus = open_corpus(TINY_NUMERALS)
    whole = TranslationTrainer(TINY_NUMERALS, corpus, quiet=True)
    whole.fit()
    first = TranslationTrainer(TINY_NUMERALS, corpus, tmp_path, quiet=True)
    make, steps = first._make_step, []

    def stop(batch):
        steps.append(0)
        if len(steps) == 10:  # in the second epoch of 8 steps
            raise KeyboardInterrupt
        return make(batch)

    first._make_step = stop
    with pytest.raises(Stopped, match="stopped in epoch 2, which will begin again") as stopped:
        first.fit()
    assert stopped.value.path == tmp_path / CHECKPOINT
    second = TranslationTrainer(TINY_NUMERALS, corpus, tmp_path, quiet=True)
    second.load(tmp_path / CHECKPOINT)
    second.fit()
    for (name, a), b in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    times = ("seconds", "sentences_per_second")
    assert [{k: v for k, v in row.items() if k not in times} for row in whole.history] == [
        {k: v for k, v in row.items() if k not in times} for row in second.history
    ]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer = TranslationTrainer(TINY_NUMERALS, open_corpus(TINY_NUMERALS), quiet=True)
    trainer._make_step = lambda batch: (float("nan"), 0, 1)
    with pytest.raises(DivergedError, match="the loss became nan in epoch 1"):
        trainer.fit()
    assert trainer.checkpoint_path is None


def test_what_a_comparison_leaves_behind(compared):
    directory, results = compared
    for kind in ("additive", "none"):
        files = {path.name for path in (directory / kind).iterdir()}
        expected = {"config.json", "metrics.csv", "checkpoint.safetensors", "results.json", "curves.png", "errors.png"}
        assert files == expected | ({"alignment.png"} if kind == "additive" else set())
        with open(directory / kind / "metrics.csv", newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
        assert runs.read_job(directory / kind) == (TINY_NUMERALS.with_(attention=kind), False)
    assert runs.read_job(directory) == (TINY_NUMERALS, True)
    stored = json.loads((directory / "results.json").read_text())
    assert stored["none"]["test"]["exact"] == results["none"].test.exact
    assert {"errors.png", "curves.png"} <= {path.name for path in directory.iterdir()}
    text = runs.table(results)
    assert "additive attention" in text and "no attention" in text and "of 12 and of 6" in text
    table = runs.length_table(results)
    assert sum(int(line.split()[1]) for line in table.splitlines()[2:]) == 18
    assert runs.length_table(results, markdown=True).startswith("| words | sentences | additive attention | no attention |")


def test_translating_from_a_checkpoint(compared, tmp_path):
    directory, _ = compared
    trained = load_translator(directory / "additive")
    text, found = trained.translate("Three hundred and twenty-one", 2)
    assert text == "".join(trained.target.decode(found.words))
    assert found.alignment.shape[1] == 5
    assert runs.draw_alignment(trained, "Three hundred and twenty-one", tmp_path / "a.png", 2) == text
    assert (tmp_path / "a.png").stat().st_size > 0
    with pytest.raises(UnknownWordError, match="unknown word 'hundret'; the nearest known one is hundred"):
        trained.translate("three hundret")
    with pytest.raises(ValueError, match="expected a text to translate, got '  '"):
        trained.translate("  ")
    with pytest.raises(ValueError, match="no attention, so there is no alignment"):
        runs.draw_alignment(load_translator(directory / "none"), "one", tmp_path / "b.png")


def test_the_newest_run_with_attention_is_found(compared, tmp_path):
    directory, _ = compared
    (tmp_path / "runs").mkdir()
    shutil.copytree(directory, tmp_path / "runs" / "both")
    shutil.copytree(directory / "none", tmp_path / "runs" / "newer")
    assert runs.latest_run(tmp_path / "runs") == tmp_path / "runs" / "both" / "additive" / CHECKPOINT
    with pytest.raises(CheckpointError, match="there is no trained translator in"):
        runs.latest_run(tmp_path / "none")


def test_jobs():
    assert TranslationJob.from_dict(NUMERALS.to_dict()) == NUMERALS
    with pytest.raises(ValueError, match="unknown setting 'speed'"):
        TranslationJob.from_dict({"speed": 3})
    for name, value in {"direction": "en-fr", "hidden": 0, "lr": 0.0, "warmup": 1.0, "attention": "residual"}.items():
        with pytest.raises(ValueError, match=name):
            NUMERALS.with_(**{name: value})
    with pytest.raises(ValueError, match="needs attention to compare with"):
        runs.compare(NUMERALS.with_(attention="none"), None)


@pytest.mark.slow
def test_the_targets():
    """99 % exact sentences; the time is in docs/translator.md, since a test measures none."""
    trainer = TranslationTrainer(NUMERALS, open_corpus(NUMERALS), quiet=True)
    trainer.fit()
    assert trainer.history[-1]["test_accuracy"] >= 0.99
    assert trainer.history[-1]["longer_accuracy"] >= 0.95
