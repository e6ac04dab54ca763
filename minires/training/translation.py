"""Translation from beginning to end: the pairs of sentences, the training of a translator, and what it gets wrong.

A run directory holds ``config.json``, ``metrics.csv``, ``checkpoint.safetensors``, ``results.json``, ``curves.png``,
``errors.png`` and, with attention, ``alignment.png``. A comparison holds one such directory with attention and one without.
A run that was stopped begins again with the epoch that was not complete, and makes the same numbers.
"""

from __future__ import annotations

import csv
import io as text_io
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from minires import functional as F
from minires import optim
from minires.data import numerals
from minires.data.sentences import BEGIN, END, PAD, Vocabulary, bucketed, padded
from minires.device import to_device
from minires.errors import CheckpointError
from minires.io import write_atomically
from minires.models import Translation, Translator
from minires.random import manual_seed
from minires.tensor import Tensor
from minires.training import checkpoint
from minires.training.progress import Progress
from minires.training.settings import Settings
from minires.training.trainer import CHECKPOINT, METRICS, DivergedError

__all__ = [
    "NUMERALS", "Corpus", "Pairs", "Score", "Stopped", "TrainedTranslator", "TranslationJob", "TranslationTrainer",
    "load_translator", "measure_translator", "open_corpus",
]  # fmt: skip

LANGUAGES = {"en": "English", "zh": "Chinese"}
_TEST_BATCH = 200


def small_products() -> Any:
    """Context manager: BLAS keeps to one thread. Products are so small here that switching costs more than they do."""
    return threadpool_limits(1, user_api="blas")


@dataclass(frozen=True)
class TranslationJob(Settings):
    """One training run of a translator.

    Attributes:
        data: "numerals", numbers written out.
        direction: "en-zh", English to Chinese, or "zh-en".
        train_numbers: how many to learn from.
        test_numbers: how many to be tested with.
        longer_numbers: how many that are longer than any in training.
        attention: "additive", "dot" or "none".
        embedding: size of a word's vector.
        hidden: size of the states.
        epochs: passes over the training pairs.
        batch_size: sentences in a step.
        lr: highest learning rate of Adam; it falls as a cosine to 0.
        warmup: share of all steps in which the rate rises from almost 0.
        clip: the largest norm of the gradient.
        seed: of weights and of the order of the sentences. The numbers are always the same.
        device: "cpu" or "cuda".
    """

    data: str = "numerals"
    direction: str = "en-zh"
    train_numbers: int = 16_000
    test_numbers: int = 2000
    longer_numbers: int = 2000
    attention: str = "additive"
    embedding: int = 32
    hidden: int = 64
    epochs: int = 6
    batch_size: int = 64
    lr: float = 0.005
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        choices = {"data": ("numerals",), "direction": ("en-zh", "zh-en"), "attention": ("additive", "dot", "none")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("train_numbers", "test_numbers", "longer_numbers", "embedding", "hidden", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}: expected a number > 0, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1 or self.seed < 0:
            raise ValueError(f"expected warmup in [0, 1) and seed >= 0, got {self.warmup} and {self.seed}")


#: What ``minires train --data numerals`` does.
NUMERALS = TranslationJob()


# ------------------------------------------------------------------------------------ sentences


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations, as numbers of words.

    Attributes:
        source: the sentences.
        target: the translation of each, without BEGIN and END.
    """

    source: list[list[int]]
    target: list[list[int]]

    def __len__(self) -> int:
        """How many."""
        return len(self.source)

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Sources (N, S), and of the targets (N, T) what stands before each word, and the words (and END) themselves."""
        target = [self.target[i] for i in indices]
        before, after = padded([[BEGIN, *words] for words in target]), padded([[*words, END] for words in target])
        return padded([self.source[i] for i in indices]), before, after

    def lengths(self) -> list[tuple[int, int]]:
        """How many words each pair has."""
        return [(len(source), len(target)) for source, target in zip(self.source, self.target, strict=True)]


@dataclass(frozen=True)
class Corpus:
    """The data of a job.

    Attributes:
        source: the words of the language to translate from.
        target: those of the language to translate to.
        sets: "train", "test" and "longer" → the pairs.
    """

    source: Vocabulary
    target: Vocabulary
    sets: dict[str, Pairs]


def vocabularies(direction: str) -> tuple[Vocabulary, Vocabulary]:
    """The words of both languages of a direction such as "en-zh"."""
    words = {"en": numerals.ENGLISH_WORDS, "zh": numerals.CHINESE_WORDS}
    source, target = direction.split("-")
    return Vocabulary(words[source]), Vocabulary(words[target])


def open_corpus(job: TranslationJob) -> Corpus:
    """Write the numbers of a job out in both languages."""
    source, target = vocabularies(job.direction)
    numbers = numerals.split_numbers(job.train_numbers, job.test_numbers, job.longer_numbers)
    write = {"en": numerals.to_english, "zh": numerals.to_chinese}

    def sentences(which: list[int], language: str, vocabulary: Vocabulary) -> list[list[int]]:
        return [vocabulary.encode(numerals.words_of(write[language](number), language)) for number in which]

    first, second = job.direction.split("-")
    sets = {
        name: Pairs(sentences(which, first, source), sentences(which, second, target))
        for name, which in (("train", numbers.train), ("test", numbers.test), ("longer", numbers.longer))
    }
    return Corpus(source, target, sets)


# ------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Score:
    """How many sentences were translated without any mistake (by greedy search).

    Attributes:
        exact: share of the sentences, 0 to 1.
        sentences: how many there are.
        by_length: words of the source → (sentences of this length, how many of them had a mistake).
    """

    exact: float
    sentences: int
    by_length: dict[int, tuple[int, int]]


def measure_translator(model: Translator, pairs: Pairs) -> Score:
    """Translate all sources, and compare with the targets word for word."""
    model.eval()
    longest = 1 + max(map(len, pairs.target))  # what does not end by then is wrong anyway
    counts: dict[int, tuple[int, int]] = {}
    for indices in bucketed([len(source) for source in pairs.source], _TEST_BATCH):
        with small_products():
            found = model.greedy(padded([pairs.source[i] for i in indices]), longest)
        for i, translation in zip(indices, found, strict=True):
            all_of, wrong = counts.get(len(pairs.source[i]), (0, 0))
            counts[len(pairs.source[i])] = all_of + 1, wrong + (translation.words != pairs.target[i])
    mistakes = sum(wrong for _, wrong in counts.values())
    return Score(1 - mistakes / len(pairs), len(pairs), dict(sorted(counts.items())))


# ------------------------------------------------------------------------------------ training


class Stopped(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; ``path`` holds the end of the last complete epoch, or is None if there is none."""

    def __init__(self, path: Path | None, epoch: int) -> None:
        super().__init__(f"stopped in epoch {epoch + 1}, which will begin again")
        self.path = path


class TranslationTrainer:
    """Trains a translator, with its own past words given (teacher forcing), and keeps a record of it.

    Args:
        job: what to train.
        corpus: its data.
        out: directory for ``metrics.csv`` and ``checkpoint.safetensors``; None writes nothing.
        quiet: no progress bar.

    Attributes:
        model: the network.
        history: one dict for each completed epoch: epoch, step, lr, train_loss (cross entropy in nats a word),
            train_accuracy (words), test_accuracy and longer_accuracy (exact sentences), seconds (of training), and
            sentences_per_second.
        scores: "test" and "longer" → what was measured after the last epoch; empty before.
    """

    def __init__(self, job: TranslationJob, corpus: Corpus, out: Path | None = None, quiet: bool = False) -> None:
        self.job, self.corpus, self.out, self.quiet = job, corpus, out, quiet
        to_device(np.zeros(1, np.float32), job.device)  # a missing device shows here
        manual_seed(job.seed)
        model = Translator(len(corpus.source), len(corpus.target), job.embedding, job.hidden, job.attention)
        self.model = model.to(job.device) if job.device != "cpu" else model
        self.optimizer = optim.Adam(self.model.named_parameters(), job.lr)
        self.lengths = corpus.sets["train"].lengths()
        steps = job.epochs * len(self._batches(0))
        warmup = round(job.warmup * steps)
        self.schedule = optim.LinearWarmup(optim.CosineAnnealingLR(self.optimizer, max(steps - warmup, 1)), warmup)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.scores: dict[str, Score] = {}

    @property
    def checkpoint_path(self) -> Path | None:
        """Where the checkpoint is, once there is one."""
        return self.out / CHECKPOINT if self.out is not None and self.history else None

    def fit(self) -> list[dict[str, Any]]:
        """Train until all epochs are complete; returns the history.

        Raises:
            Stopped: Ctrl-C was pressed.
            DivergedError: the loss is not a finite number any more.
        """
        job, done, total = self.job, len(self.history), len(self.lengths)
        bar = Progress(f"attention: {job.attention}", job.epochs * total, self.quiet, done * total, " sentences")
        with small_products(), bar as progress:
            for epoch in range(done, job.epochs):
                try:
                    self.history.append(self._epoch(epoch, progress))
                except KeyboardInterrupt:
                    raise Stopped(self.checkpoint_path, epoch) from None
                self._save()
        return self.history

    def load(self, path: Path) -> None:
        """Continue after the epochs that a checkpoint has completed.

        Raises:
            CheckpointError: the file cannot be read or does not fit.
        """
        state = checkpoint.read(path)
        checkpoint.restore(path, state, self.model, self.optimizer, self.schedule)
        self.history, self.step = list(state["history"]), int(state["step"])

    def measure(self) -> dict[str, Score]:
        """The scores on both test sets."""
        return {name: measure_translator(self.model, self.corpus.sets[name]) for name in ("test", "longer")}

    def _batches(self, epoch: int) -> list[list[int]]:
        return list(bucketed(self.lengths, self.job.batch_size, np.random.default_rng([self.job.seed, epoch])))

    def _epoch(self, epoch: int, progress: Progress) -> dict[str, Any]:
        """One pass over the training pairs; returns the row of metrics."""
        job, started, total, right, words = self.job, time.perf_counter(), 0.0, 0, 0
        self.model.train()
        for indices in self._batches(epoch):
            loss, hits, count = self._make_step(self.corpus.sets["train"].batch(indices))
            if not math.isfinite(loss):
                raise DivergedError(f"training stopped: the loss became {loss} in epoch {epoch + 1}; try a smaller --lr")
            total, right, words = total + loss * count, right + hits, words + count
            progress.advance(len(indices), epoch, job.epochs, (total / words, right / words))
        seconds = time.perf_counter() - started
        self.scores = self.measure()
        return {
            "epoch": epoch + 1, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"], "train_loss": total / words,
            "train_accuracy": right / words, "test_accuracy": self.scores["test"].exact,
            "longer_accuracy": self.scores["longer"].exact, "seconds": round(seconds, 3),
            "sentences_per_second": round(len(self.lengths) / seconds, 1),
        }  # fmt: skip

    def _make_step(self, batch: tuple[Any, Any, Any]) -> tuple[float, int, int]:
        """One step; returns the loss, how many words were right, and how many there were."""
        source, before, after = (Tensor(to_device(part, self.job.device)) for part in batch)
        self.optimizer.zero_grad()
        scores = self.model(source, before)
        flat, wanted = F.reshape(scores, (-1, scores.shape[-1])), F.reshape(after, (-1,))  # (N·T, words), (N·T,)
        loss = F.cross_entropy(flat, wanted, ignore_index=PAD)
        loss.backward()
        optim.clip_grad_norm_(self.model.parameters(), self.job.clip)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        real = wanted.data != PAD
        return float(loss), int((flat.data.argmax(axis=1) == wanted.data)[real].sum()), int(real.sum())

    def _save(self) -> None:
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        state = checkpoint.snapshot(
            self.model, self.optimizer, self.schedule, epoch=len(self.history), step=self.step, history=self.history,
            config=self.job.to_dict(), model_config=self.model.config, classes=[],
        )  # fmt: skip
        checkpoint.write(self.out / CHECKPOINT, state)
        out = text_io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(self.history[0]), lineterminator="\n")
        writer.writeheader()
        for row in self.history:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        write_atomically(self.out / METRICS, out.getvalue().encode())


# ------------------------------------------------------------------------------------ using


class TrainedTranslator(NamedTuple):
    """A trained translator, the job that trained it, and the words of both languages."""

    model: Translator
    job: TranslationJob
    source: Vocabulary
    target: Vocabulary

    def words(self, text: str) -> list[str]:
        """The words of a source text."""
        return numerals.words_of(text, self.job.direction[:2])

    def translate(self, text: str, width: int = 5) -> tuple[str, Translation]:
        """The translation of a text, by beam search (greedy for width 1).

        Raises:
            UnknownWordError: a word that the network does not know.
            ValueError: no word at all.
        """
        words = self.words(text)
        if not words:
            raise ValueError(f"expected a text to translate, got {text!r}")
        found = self.model.beam(self.source.encode(words), width)[0]
        return numerals.join(self.target.decode(found.words), self.job.direction[3:]), found


def load_translator(path: str | os.PathLike[str], device: str = "cpu") -> TrainedTranslator:
    """The translator of a checkpoint, in evaluation mode. A run's directory will do as the path.

    Raises:
        CheckpointError: the file cannot be read, or is of another kind of network.
        DeviceError: the device is not there.
    """
    to_device(np.zeros(1, np.float32), device)
    file = Path(path) / CHECKPOINT if Path(path).is_dir() else Path(path)
    state = checkpoint.read(file)
    if state["config"].get("data") != "numerals":
        raise CheckpointError(f"{file}: its network translates nothing (it was trained on {state['config'].get('data')})")
    try:
        job = TranslationJob.from_dict(state["config"]).with_(device=device)
        config = {key: value for key, value in state["model_config"].items() if key != "name"}
        model = Translator(**config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file}: is damaged or from another version ({error})") from None
    checkpoint.restore(file, state, model)
    return TrainedTranslator((model.to(device) if device != "cpu" else model).eval(), job, *vocabularies(job.direction))
