"""Training steps on a GPU: the graph that makes them and the tally that counts them, as the trainer uses the two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minires.training.graph import GraphStep
from minires.training.mixed import MixedPrecision
from minires.training.tally import Count, Tally

__all__ = ["CudaSteps", "NotFiniteError"]


class NotFiniteError(ArithmeticError):
    """A loss is NaN or infinite: ``value``, in the step after ``steps`` good ones of this stretch of an epoch."""

    def __init__(self, value: float, steps: int) -> None:
        super().__init__(f"the loss became {value}")
        self.value, self.steps = value, steps


class CudaSteps:
    """Makes the steps of an epoch without waiting for them.

    Args:
        model: the network.
        optimizer: its optimiser.
        loss: ``loss(logits, labels)``, a Tensor of one element.
        device: "cuda" or "cuda:N".
        graph: whether a step may become a graph.
        mixed: in which precision.

    Attributes:
        step: the :class:`~minires.training.graph.GraphStep`, which knows whether it replays a graph, and why not.
    """

    def __init__(
        self, model: Any, optimizer: Any, loss: Callable[[Any, Any], Any], device: str, graph: bool,
        mixed: MixedPrecision | None = None,
    ) -> None:  # fmt: skip
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._mixed = mixed or MixedPrecision(None)
        self.step = GraphStep(self._compute, model, optimizer, device, graph, self._mixed.obstacle)
        with self.step.running():
            self._tally = Tally()
        self._images = 0
        self._shown: tuple[float, float] | None = None

    @contextmanager
    def epoch(self, sums: dict[str, Any]) -> Iterator[None]:
        """Steps are made inside. ``sums`` says how far the epoch has come (images, loss, right) and is brought up to date.

        Raises:
            NotFiniteError: at the end, if a loss was not finite.
        """
        self._images, self._shown = sums["images"], None
        with self.step.running():
            self._tally.start(sums["loss"], sums["right"])
            try:
                yield
            finally:  # also where a step failed: those before it count
                count = self._tally.read()
                sums["loss"], sums["right"] = count.loss, count.right
            _checked(count)

    def make(self, images: Any, labels: Any) -> tuple[float, float] | None:
        """One step; returns mean loss and share of right answers of the epoch some steps ago, None while they are unknown.

        Raises:
            NotFiniteError: a loss was not finite, a few steps ago.
        """
        self.step(images, labels)
        count = self._tally.peek(self.step.stream)
        if count is not None:
            images_so_far = self._images + _checked(count).images
            self._shown = count.loss / images_so_far, count.right / images_so_far
        return self._shown

    def _compute(self, images: Any, labels: Any) -> None:
        """What is captured: nothing in here may wait for the GPU."""
        self._optimizer.zero_grad()
        with self._mixed.casting():
            logits = self._model(images)
            loss = self._loss(logits, labels)
        self._tally.add(logits.data, loss.data, labels.data)
        self._mixed.update(loss, self._optimizer)


def _checked(count: Count) -> Count:
    if count.bad is not None:
        raise NotFiniteError(count.bad, count.steps)
    return count
