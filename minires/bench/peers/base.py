"""What an adapter says about a framework, and how an op of it is run forward and back.

A framework offers an op if its adapter has a method of that name (see :attr:`minires.bench.cases.Case.op`)::

    conv2d(x, weight, stride, padding, groups)      conv_transpose2d(x, weight, stride, padding)
    batch_norm_relu(x, weight, bias)                in training, eps 1e-5
    max_pool2d(x, size, stride)                     the last windows may hang over the edge (PyTorch's ceil_mode)
    avg_pool2d(x, size)                             interpolate(x, size)   bilinear, corners aligned
    cross_entropy(x, labels)                        mean over the samples
    sgd(weights, gradients, lr, momentum, weight_decay)    Nesterov; returns (what makes a step, what reads the weights)

A method that cannot do what it is asked for raises :class:`Lacking`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.bench.cases import Case

__all__ = ["Array", "Lacking", "OpWork", "Peer", "StepWork", "Work"]

Array = np.ndarray[Any, Any]


class Lacking(Exception):
    """The framework has no such op, or not with these options."""


class Work(ABC):
    """An op with its inputs, ready to run. ``forward`` and ``backward`` are timed, the rest is not."""

    has_backward = True

    @abstractmethod
    def reset(self) -> None:
        """Forget outputs and gradients of the last run."""

    @abstractmethod
    def forward(self) -> None:
        """Compute the output, and record what the backward pass needs."""

    def backward(self) -> None:  # noqa: B027  (an update has none)
        """Compute the gradients of all inputs, after ``forward``."""

    @abstractmethod
    def results(self) -> list[Array]:
        """The output and all gradients (or the new weights), to be compared."""


class Peer(ABC):
    """A framework.

    Attributes:
        name: what a table calls it.
        note: what has to be known about how it was run.
    """

    name = ""
    note = ""

    def work(self, case: Case) -> Work:
        """A case in this framework.

        Raises:
            Lacking: it has no such op.
        """
        function = getattr(self, case.op, None)
        if function is None:
            raise Lacking(f"{self.name} has no {case.op}")
        if case.is_update:
            weights = case.inputs()
            return StepWork(self, *function(weights, [weight[::-1].copy() for weight in weights], **case.options))
        return OpWork(self, case, function)

    def call(self, function: Callable[..., Any], leaves: Sequence[Any]) -> Any:
        """Run an op so that it can be differentiated; what this returns is handed to the methods below."""
        return function(*leaves)

    def shape(self, output: Any) -> tuple[int, ...]:
        """Of an output."""
        return tuple(output.shape)

    def constant(self, array: Array) -> Any:
        """An array that needs no gradient."""
        return array

    def wait(self) -> None:  # noqa: B027  (most compute at once)
        """Until everything that was asked for is computed."""

    def forget(self, leaves: Sequence[Any]) -> None:
        """Drop the leaves' gradients."""
        for leaf in leaves:
            leaf.grad = None

    @abstractmethod
    def leaf(self, array: Array) -> Any:
        """An input that gets a gradient; in the memory layout that the framework's own networks would give it."""

    @abstractmethod
    def backward(self, output: Any, upstream: Any, leaves: Sequence[Any]) -> Any:
        """The backward pass; its result is handed to ``gradients``. ``upstream`` is None for a loss."""

    @abstractmethod
    def gradients(self, result: Any, leaves: Sequence[Any]) -> list[Array]:
        """Of all leaves."""

    @abstractmethod
    def numpy(self, value: Any) -> Array:
        """A value of the framework as an array."""


class OpWork(Work):
    """An op of any framework that computes at once."""

    def __init__(self, peer: Peer, case: Case, function: Callable[..., Any]) -> None:
        self._peer = peer
        self._leaves = [peer.leaf(array) for array in case.inputs()]
        options = dict(case.options)
        if case.classes:
            options["labels"] = peer.constant(case.labels())
        self._function = lambda *leaves: function(*leaves, **options)
        self._output: Any = None
        self._result = self._upstream = None
        self.forward()
        shape = peer.shape(self._output)
        self._upstream = peer.constant(case.upstream(shape)) if shape else None
        self.reset()

    def reset(self) -> None:
        """See :class:`Work`."""
        self._output = self._result = None
        self._peer.forget(self._leaves)

    def compute(self) -> Any:
        """The output."""
        return self._peer.call(self._function, self._leaves)

    def differentiate(self, output: Any) -> Any:
        """What the backward pass from ``output`` gives."""
        return self._peer.backward(output, self._upstream, self._leaves)

    def forward(self) -> None:
        """See :class:`Work`."""
        self._output = self.compute()
        self._peer.wait()

    def backward(self) -> None:
        """See :class:`Work`."""
        self._result = self.differentiate(self._output)
        self._peer.wait()

    def results(self) -> list[Array]:
        """See :class:`Work`."""
        return [self._peer.numpy(self._output), *self._peer.gradients(self._result, self._leaves)]


class StepWork(Work):
    """An update of an optimiser."""

    has_backward = False

    def __init__(self, peer: Peer, step: Callable[[], Any], weights: Callable[[], list[Array]]) -> None:
        self._peer, self._step, self._weights = peer, step, weights

    def reset(self) -> None:
        """See :class:`Work`: each step goes on from the one before."""

    def forward(self) -> None:
        """See :class:`Work`."""
        self._step()
        self._peer.wait()

    def results(self) -> list[Array]:
        """See :class:`Work`."""
        return self._weights()
