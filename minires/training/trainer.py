"""The training loop: batches, steps, a progress bar, a row of metrics each epoch, and a checkpoint.

The loop can be stopped at any moment and loses nothing. Ctrl-C only raises a flag, which is read between two steps, so
weights are never left half updated; then the exact place in the epoch is saved. Metrics on test images are for looking
at: nothing here chooses an epoch by them, the result of a run is its last epoch.
"""

from __future__ import annotations

import csv
import io as text_io
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from minires.device import parse
from minires.io import write_atomically
from minires.training import checkpoint
from minires.training.cuda import CudaSteps, NotFiniteError
from minires.training.metrics import Evaluation
from minires.training.mixed import MixedPrecision
from minires.training.progress import Progress

__all__ = ["DivergedError", "Interrupted", "Trainer"]

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.csv"

#: Called with the trainer and the new row of metrics after each epoch.
Callback = Callable[["Trainer", dict[str, Any]], None]


class DivergedError(RuntimeError):
    """The loss became NaN or infinite, so going on is pointless; the message says where and what may help."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; its state is saved in ``path`` (None without an output directory)."""

    def __init__(self, path: Path | None, epoch: int, step: int) -> None:
        super().__init__(f"stopped in epoch {epoch + 1} after step {step}")
        self.path = path


class Trainer:
    """Trains a model and keeps a record of it.

    Args:
        model: a module that maps images (N, C, H, W) to logits (N, classes).
        optimizer: its optimiser.
        loss: ``loss(logits, labels)``, a Tensor of one element.
        train_loader: batches of images, labels, and whatever else, which is ignored.
        schedule: stepped after every batch, or None.
        test: ``test(model)``, an :class:`~minires.training.metrics.Evaluation`; called after every ``test_every`` epochs and
            after the last one. Or None.
        test_every: see above; 0 for the last epoch only.
        device: where the model lives; batches are moved there.
        autocast: "bfloat16" or "float16": forward passes run under :func:`minires.autocast`, in training and in ``test``;
            with float16 the loss is scaled by a :class:`minires.GradScaler`. None: in float32.
        graph: make the step one CUDA graph, see :mod:`minires.training.graph`. None: wherever the device is a GPU.
        out: directory for ``metrics.csv`` and ``checkpoint.safetensors``, made if missing; None writes nothing.
        config: plain values that describe the run; kept in the checkpoint.
        model_config: what ``minires.models.build`` needs to build the model again; kept in the checkpoint.
        classes: names of the classes; kept in the checkpoint.
        callbacks: called with the trainer and the row of metrics after each epoch.
        quiet: no progress bar.
        label: what the progress bar says first.

    Attributes:
        epoch: epochs completed.
        step: steps made.
        history: one dict for each completed epoch: epoch, step, lr, train_loss, train_accuracy, test_loss,
            test_accuracy (None where not measured), seconds, images_per_second.
        mixed: the precision of the steps, with the scaler of float16.
        steps: on a GPU what makes the steps, else None.
        evaluation: what ``test`` found after the last epoch of :meth:`fit`, or None.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Callable[[Any, Any], Any],
        train_loader: Any,
        *,
        schedule: Any = None,
        test: Callable[[Any], Evaluation] | None = None,
        test_every: int = 1,
        device: str = "cpu",
        autocast: str | None = None,
        graph: bool | None = None,
        out: str | Path | None = None,
        config: dict[str, Any] | None = None,
        model_config: dict[str, Any] | None = None,
        classes: Sequence[str] = (),
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
        label: str = "",
    ) -> None:
        self.model, self.optimizer, self.loss, self.schedule = model, optimizer, loss, schedule
        self.train_loader, self.test, self.test_every = train_loader, test, test_every
        self.device, self.out = device, Path(out) if out is not None else None
        self.config, self.model_config = config or {}, model_config or {}
        self.classes = list(classes)
        self.callbacks, self.quiet, self.label = list(callbacks), quiet, label
        self.epoch = self.step = 0
        self.history: list[dict[str, Any]] = []
        self.evaluation: Evaluation | None = None
        self._sums = _zero_sums()
        self._stop = False
        self.mixed = MixedPrecision(autocast)
        self.steps = (
            CudaSteps(model, optimizer, loss, device, graph is not False, self.mixed)
            if parse(device)[0] == "cuda" else None
        )  # fmt: skip
        if graph and self.steps is None:
            raise ValueError(f"graph: only a GPU has CUDA graphs, the device is {device!r}")
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint_path(self) -> Path | None:
        """Where the checkpoint is written."""
        return None if self.out is None else self.out / CHECKPOINT

    def fit(self, epochs: int) -> list[dict[str, Any]]:
        """Train until ``epochs`` epochs are complete (those before a resume count); returns the history.

        Raises:
            Interrupted: Ctrl-C was pressed; the state has been saved.
            DivergedError: the loss is not a finite number any more.
        """
        if self.epoch >= epochs:
            return self.history
        samples = min(len(self.train_loader.dataset), len(self.train_loader) * self.train_loader.batch_size)
        if self._sums["images"]:  # in the middle of an epoch: its remaining batches come first
            self.train_loader.load_state_dict(self.train_loader.state_dict())
        done = self.epoch * samples + self._sums["images"]
        with self._catching_ctrl_c(), Progress(self.label, epochs * samples, self.quiet, done) as progress:
            while self.epoch < epochs:
                self.train_loader.set_epoch(self.epoch)
                self._run_epoch(progress, epochs)
                self._finish_epoch(epochs)
        return self.history

    def load(self, path: str | Path, state: dict[str, Any] | None = None) -> None:
        """Continue from a checkpoint; the next :meth:`fit` goes on in the middle of the epoch if it was saved there.

        Raises:
            CheckpointError: the file cannot be read or does not fit this trainer.
        """
        state = checkpoint.read(path) if state is None else state
        checkpoint.restore(path, state, self.model, self.optimizer, self.schedule, self.train_loader)
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.history, self._sums = list(state["history"]), dict(state["sums"])
        if self.mixed.scaler is not None and state.get("scaler"):
            self.mixed.scaler.load_state_dict(state["scaler"])

    def save(self) -> Path | None:
        """Write checkpoint and metrics now; returns the path of the checkpoint."""
        if self.out is None or self.checkpoint_path is None:
            return None
        state = checkpoint.snapshot(
            self.model, self.optimizer, self.schedule, self.train_loader, epoch=self.epoch, step=self.step,
            history=self.history, sums=self._sums, config=self.config, model_config=self.model_config,
            classes=self.classes, scaler=self.mixed.scaler.state_dict() if self.mixed.scaler is not None else None,
        )  # fmt: skip
        checkpoint.write(self.checkpoint_path, state)
        if self.history:
            write_atomically(self.out / METRICS, _as_csv(self.history).encode())
        return self.checkpoint_path

    # -------------------------------------------------------------------------------- one epoch

    def _run_epoch(self, progress: Progress, epochs: int) -> None:
        self.model.train()
        started, sums, first, stopped = time.perf_counter(), self._sums, self.step, False
        before, make = sums["seconds"], self._make_step if self.steps is None else self._make_step_on_gpu
        try:
            with nullcontext() if self.steps is None else self.steps.epoch(sums):
                for images, labels, *_ in self.train_loader:
                    shown = make(images.to(self.device), labels.to(self.device))
                    sums["images"] += len(labels)
                    sums["seconds"] = before + time.perf_counter() - started
                    self.step += 1
                    progress.advance(len(labels), self.epoch, epochs, shown)
                    stopped = self._stop
                    if stopped:
                        break
        except NotFiniteError as found:
            raise DivergedError(self._explain_divergence(found.value, first + found.steps + 1)) from None
        if self.steps is not None:
            sums["seconds"] = before + time.perf_counter() - started
        if stopped:
            raise Interrupted(self.save(), self.epoch, self.step)

    def _make_step(self, images: Any, labels: Any) -> tuple[float, float]:
        """One step on the CPU; returns mean loss and share of right answers of the epoch so far."""
        loss, right = self._train_batch(images, labels)
        sums, count = self._sums, len(labels)
        sums["loss"] += loss * count
        sums["right"] += right
        images_so_far = sums["images"] + count
        return sums["loss"] / images_so_far, sums["right"] / images_so_far

    def _make_step_on_gpu(self, images: Any, labels: Any) -> tuple[float, float] | None:
        """One step on the GPU, which nobody waits for; returns the same two of some steps ago, None before."""
        assert self.steps is not None
        shown = self.steps.make(images, labels)
        if self.schedule is not None:
            self.schedule.step()
        return shown

    def _train_batch(self, images: Any, labels: Any) -> tuple[float, int]:
        """One step on the CPU; returns the loss and the number of right answers before it."""
        self.optimizer.zero_grad()
        with self.mixed.casting():
            logits = self.model(images)
            loss = self.loss(logits, labels)
        value = float(loss)
        if not math.isfinite(value):
            raise DivergedError(self._explain_divergence(value, self.step + 1))
        self.mixed.update(loss, self.optimizer)
        if self.schedule is not None:
            self.schedule.step()
        return value, int((logits.data.argmax(axis=1) == labels.data).sum())

    def _finish_epoch(self, epochs: int) -> None:
        """A row of metrics, the checkpoint, the callbacks."""
        sums, images = self._sums, max(self._sums["images"], 1)
        row = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": sums["loss"] / images,
            "train_accuracy": sums["right"] / images,
            "test_loss": None,
            "test_accuracy": None,
            "seconds": round(sums["seconds"], 3),
            "images_per_second": round(images / sums["seconds"], 1) if sums["seconds"] else None,
        }
        last = self.epoch + 1 >= epochs
        if self.test is not None and (last or (self.test_every and (self.epoch + 1) % self.test_every == 0)):
            with self.mixed.casting():
                result = self.test(self.model)
            row.update(test_loss=result.loss, test_accuracy=result.accuracy)
            self.evaluation = result if last else None
        self.epoch += 1
        self.history.append(row)
        self._sums = _zero_sums()
        self.save()
        for callback in self.callbacks:
            callback(self, row)
        if self._stop:
            raise Interrupted(self.checkpoint_path, self.epoch, self.step)

    def _explain_divergence(self, value: float, step: int) -> str:
        rate = self.optimizer.param_groups[0]["lr"]
        text = (
            f"training stopped: the loss became {value} in epoch {self.epoch + 1}, step {step}, at a learning rate "
            f"of {rate:.3g}; a smaller one may help, and minires.detect_anomaly() finds the op"
        )
        if self.checkpoint_path is not None and self.checkpoint_path.exists():
            text += f"; the end of the last whole epoch is saved in {self.checkpoint_path}"
        return text

    @contextmanager
    def _catching_ctrl_c(self) -> Iterator[None]:
        """Turn Ctrl-C into a flag while training; a second Ctrl-C interrupts at once."""
        self._stop = False
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set signal handlers
            return

        def handler(number: int, frame: Any) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        before = signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _zero_sums() -> dict[str, Any]:
    return {"images": 0, "loss": 0.0, "right": 0, "seconds": 0.0}


def _as_csv(rows: list[dict[str, Any]]) -> str:
    out = text_io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return out.getvalue()
