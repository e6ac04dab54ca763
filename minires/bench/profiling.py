"""Where the time of a training step goes: per op, per module, and in what is neither.

A step is made of laps that follow each other without a gap (data, forward, backward, optimiser), and in the two middle ones
every op and every rule is timed. What is left of them is a row of its own, so the rows add up to the whole step, and nothing
can hide. Half of the steps are made without being observed, to see what observing costs.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minires.bench import ceilings as limits
from minires.bench.networks import Precision
from minires.bench.observer import BACKWARD, FORWARD, Observer, Tally
from minires.bench.ours import OPTIONS
from minires.device import cupy, parse, synchronize
from minires.functional import cross_entropy
from minires.modes import get_float32_matmul_precision, no_grad, state
from minires.nn import Module
from minires.optim import SGD
from minires.tensor import Tensor

__all__ = ["ModuleRow", "Profile", "Row", "profile"]

#: bytes to copy, side of the matrices, repeats, rounds
_SIZES = {"cpu": (1 << 26, 1024, 2, 5), "cuda": (1 << 28, 4096, 5, 5)}

BETWEEN = "between the ops"


@dataclass
class Row:
    """An op in one direction, or a part of the step that is no op (``part`` is then empty, or says of which pass).

    Attributes:
        name: of the op, or of the part.
        part: "forward" or "backward".
        is_op: whether it is an op.
        calls: in a step.
        seconds: in a step.
        share: of the step; all rows add up to 1.
        flops: operations of a step; None if they are not counted.
        bytes: moved in a step, by formula; None if there is no formula.
        kept: bytes that are kept for the backward pass, and that no other row counts.
    """

    name: str
    part: str
    is_op: bool
    calls: float
    seconds: float
    share: float
    flops: float | None = None
    bytes: float | None = None
    kept: float = 0.0


@dataclass
class ModuleRow:
    """A module with all that is below it.

    Attributes:
        path: names from the network on, which is (); ops outside of all modules, like the loss, are ("(outside)",).
        kind: name of its class.
        calls: in a step.
        forward: seconds of its ops' forward passes in a step; what is between the ops is not in it.
        backward: of their backward passes.
        share: of the step.
        flops: operations, where they are counted.
        bytes: moved, by formula.
        kept: bytes that its ops keep for the backward pass, as in :class:`Row`.
    """

    path: tuple[str, ...]
    kind: str
    calls: float
    forward: float = 0.0
    backward: float = 0.0
    share: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    kept: float = 0.0

    @property
    def seconds(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward

    def add(self, part: str, tally: Tally, total: float, steps: int) -> None:
        """One op of it."""
        if part == FORWARD:
            self.forward += tally.seconds / steps
        else:
            self.backward += tally.seconds / steps
        self.share += tally.seconds / total
        self.flops += (tally.flops or 0) / steps
        self.bytes += (tally.bytes or 0) / steps
        self.kept += tally.kept / steps


@dataclass
class Profile:
    """What :func:`profile` found; print it, or read its rows.

    Attributes:
        model: name of the network's class.
        shape: of the batch.
        device: where it ran.
        train: whether the steps were training steps; else forward passes in evaluation mode.
        plain: seconds of each step that was not observed.
        observed: seconds of each step that was, without the observer's own work; rows are means over these.
        rows: ops and the rest, largest first.
        modules: the tree of modules in the order of their first call.
        unknown: names of ops that have no formula.
        copy: bytes that this machine copies in a second, measured in the same run; None if it was not asked for.
        product: operations a second of a large product of float32 matrices.
    """

    model: str
    shape: tuple[int, ...]
    device: str
    train: bool
    plain: list[float]
    observed: list[float]
    rows: list[Row]
    modules: list[ModuleRow]
    unknown: list[str] = field(default_factory=list)
    copy: float | None = None
    product: float | None = None

    def limit(self, row: Row | ModuleRow) -> float | None:
        """The share of the machine that a row makes use of: of the copy's bandwidth or the product's rate, the larger."""
        if not self.copy or not self.product or not row.seconds or not (row.flops or row.bytes):
            return None
        return max((row.bytes or 0) / self.copy, (row.flops or 0) / self.product) / row.seconds

    def to_json(self) -> str:
        """Everything, as text: seconds, operations and bytes of one step."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """As in :meth:`to_json`, with the rates that tables show."""
        found = asdict(self)
        tables: list[tuple[str, Sequence[Row | ModuleRow]]] = [("rows", self.rows), ("modules", self.modules)]
        for kind, rows in tables:
            for each, row in zip(found[kind], rows, strict=True):
                each["flops_per_second"] = row.flops / row.seconds if row.flops and row.seconds else None
                each["bytes_per_second"] = row.bytes / row.seconds if row.bytes and row.seconds else None
                each["of_limit"] = self.limit(row)
        return found

    def __str__(self) -> str:
        from minires.bench.profile_text import text

        return text(self)


def profile(
    model: Module,
    images: Any,
    labels: Any = None,
    steps: int = 5,
    *,
    train: bool = True,
    loss: Callable[[Any, Any], Tensor] = cross_entropy,
    optimizer: Any = None,
    ceilings: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Make training steps (or forward passes) and say where their time goes.

    A GPU is waited for before and after every op, so that each op's time is its own; host and device then do not overlap.
    Weights, buffers, gradients and modes are afterwards as they were.

    Args:
        model: the network, on the device where it is to run.
        images: (N, ...) a batch: an array of the host (bringing it to the device is part of the step), or a Tensor.
        labels: (N, ...) what ``loss`` compares the outputs with; not needed without ``train``.
        steps: so many are observed, and so many are not, in turns.
        train: False: only the forward pass, in evaluation mode and under ``no_grad()``.
        loss: called with outputs and labels.
        optimizer: for the model's parameters, and its own state will have changed; None: Nesterov SGD with momentum and
            weight decay.
        ceilings: measure also what the machine can do at best: copying, and a large product.
        clock: seconds.

    Raises:
        ValueError: fewer than one step, an empty batch, or no labels for a training step.
    """
    _check(steps, images, labels, train)
    device = next((p.device for p in model.parameters()), "cpu")
    kind, index = parse(device)
    with cupy().cuda.Device(index) if kind == "cuda" else nullcontext(), _unchanged(model):
        model.train(train)
        if train and optimizer is None:  # learning rate 0: whole steps, but the losses stay finite however many there are
            optimizer = SGD(model.parameters(), **(OPTIONS | {"lr": 0.0}))
        found = _Step(model, images, labels, device, loss, optimizer if train else None, clock).take_turns(steps)
        if ceilings:
            found.copy, found.product = _ceilings(kind)
    return found


def _check(steps: int, images: Any, labels: Any, train: bool) -> None:
    if steps < 1:
        raise ValueError(f"profile: steps must be at least 1, got {steps}")
    if train and labels is None:
        raise ValueError("profile: a training step needs labels")
    if not images.shape or not images.shape[0]:
        raise ValueError(f"profile: the batch is empty: shape {tuple(images.shape)}")


@contextmanager
def _unchanged(model: Module) -> Iterator[None]:
    """Inside, a network may be trained; afterwards it is as it was."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.data.copy(order="K") for tensor in tensors]
    grads = [tensor.grad for tensor in tensors]
    modes = [(module, module.training) for module in model.modules()]
    for tensor in tensors:
        tensor.grad = None
    try:
        yield
    finally:
        for tensor, value, grad in zip(tensors, values, grads, strict=True):
            tensor.assign(value)
            tensor.grad = grad
        for module, mode in modes:
            module.training = mode


class _Step:
    """Makes steps, and collects what was observed."""

    def __init__(
        self, model: Module, images: Any, labels: Any, device: str, loss: Any, optimizer: Any, clock: Callable[[], float]
    ) -> None:
        self._model, self._batch, self._device = model, (images, labels), device
        self._loss, self._optimizer, self._clock = loss, optimizer, clock
        self._observer = Observer(clock, self._wait)
        self._module_calls: Counter[tuple[str, ...]] = Counter()
        self._rest: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._observed: list[float] = []

    def _wait(self) -> None:
        if self._device != "cpu":
            synchronize(self._device)

    def _data(self) -> list[Any]:
        return [
            value if isinstance(value, Tensor) or value is None else Tensor(np.asarray(value)).to(self._device)
            for value in self._batch
        ]

    def _forward(self, images: Any, labels: Any) -> Any:
        if self._optimizer is None:
            with no_grad():
                return self._model(images)
        return self._loss(self._model(images), labels)

    def take_turns(self, steps: int) -> Profile:
        """So many steps that are observed, after one to warm up, and each after one that is not."""
        self.plain()
        plain = []
        for _ in range(steps):
            plain.append(self.plain())
            self.observed()
        return self.found(plain)

    def plain(self) -> float:
        """A step that nobody watches; its seconds."""
        self._wait()
        begin = self._clock()
        result = self._forward(*self._data())
        if self._optimizer is not None:
            result.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._wait()
        return self._clock() - begin

    def observed(self) -> None:
        """A step that is watched."""
        observer, rest = self._observer, self._rest
        begin_own = observer.own
        with self._counting_modules():
            begin = last = self._lap()
            batch = self._data()
            last = self._note(("data to the device", ""), last)
            with observer.watching():
                with self._between(FORWARD):
                    result = self._forward(*batch)
                    self._wait()
                    observer.count_kept(t.data for t in (*self._model.parameters(), *self._model.buffers()))
                if self._optimizer is not None:
                    with self._between(BACKWARD):
                        result.backward()
            last = self._lap()
            if self._optimizer is not None:
                self._optimizer.step()
                self._optimizer.zero_grad()
                last = self._note(("optimiser", ""), last)
        self._observed.append(last - begin - (observer.own - begin_own))
        known = observer.inside + sum(rest.values())
        rest[BETWEEN, FORWARD] += sum(self._observed) - known  # the moments between two laps

    def _lap(self) -> float:
        self._wait()
        return self._clock()

    def _note(self, key: tuple[str, str], since: float) -> float:
        now = self._lap()
        self._rest[key] += now - since
        return now

    @contextmanager
    def _between(self, part: str) -> Iterator[None]:
        """Add the time of the block that is spent neither in ops nor by the observer."""
        observer = self._observer
        before = observer.inside + observer.own
        begin = self._lap()
        yield
        self._rest[BETWEEN, part] += self._lap() - begin - (observer.inside + observer.own - before)

    @contextmanager
    def _counting_modules(self) -> Iterator[None]:
        def count(module: Module, args: tuple[Any, ...]) -> None:
            self._module_calls[tuple(state.modules)] += 1

        handles = [module.register_forward_pre_hook(count) for module in self._model.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    # ------------------------------------------------------------------------------------- what was found

    def found(self, plain: list[float]) -> Profile:
        """Everything so far, for one step."""
        return Profile(
            type(self._model).__name__, tuple(self._batch[0].shape), self._device, self._optimizer is not None, plain,
            list(self._observed), self._rows(), self._modules(), list(self._observer.unknown),
        )  # fmt: skip

    def _rows(self) -> list[Row]:
        total, steps = sum(self._observed), len(self._observed)
        sums: dict[tuple[str, str], Tally] = {}
        for (name, part, _), tally in self._observer.tallies.items():
            merged = sums.setdefault((name, part), Tally())
            merged.add(tally.seconds, tally.flops, tally.bytes)
            merged.calls += tally.calls - 1
            merged.kept += tally.kept
        rows = [
            Row(name, part, True, t.calls / steps, t.seconds / steps, t.seconds / total,
                None if t.flops is None else t.flops / steps, None if t.bytes is None else t.bytes / steps, t.kept / steps)
            for (name, part), t in sums.items()
        ]  # fmt: skip
        rows += [Row(*key, False, 1, seconds / steps, seconds / total) for key, seconds in self._rest.items()]
        return sorted(rows, key=lambda row: -row.seconds)

    def _modules(self) -> list[ModuleRow]:
        total, steps = sum(self._observed), len(self._observed)
        kinds = {tuple(path.split(".")) if path else (): type(m).__name__ for path, m in self._model.named_modules()}
        rows = {
            path[1:]: ModuleRow(path[1:], kinds.get(path[1:], ""), calls / steps)
            for path, calls in self._module_calls.items()
        }
        for (_, part, path), tally in self._observer.tallies.items():
            if path[:1] != (type(self._model).__name__,):  # a loss that is a module is not the network's
                outside = rows.setdefault(("(outside)",), ModuleRow(("(outside)",), "", 1))
                outside.add(part, tally, total, steps)
                continue
            for length in range(1, len(path) + 1):
                key = path[1:length]
                rows.setdefault(key, ModuleRow(key, kinds.get(key, ""), 0)).add(part, tally, total, steps)
        return list(rows.values())


def _ceilings(kind: str) -> tuple[float, float]:
    """Bytes copied, and operations of a large product, in a second, as precisely as the ops multiply now."""
    xp: Any = cupy() if kind == "cuda" else np
    watch = limits.Stopwatch(xp) if kind == "cuda" else limits.WallStopwatch()
    precision = Precision("float32", get_float32_matmul_precision(), (0.0, 0.0))
    found = limits.measure(xp, watch, [precision], *_SIZES[kind])
    return found.copy, found.products["float32"]
