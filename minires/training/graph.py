"""The whole training step as one CUDA graph, launched by a single call.

A step of a deep network is some thousand short kernels, and Python needs longer to start them than the GPU to run them. So
after a few ordinary steps, which count like all others, the next step is *captured*: Python runs it once while the stream
only writes down what it is given. From then on a step is: copy the batch to where the graph reads it, launch the graph.

What a graph cannot do decides how the rest is built. Its kernels see the same addresses each time: so batches are copied to
fixed places, parameters and running statistics change in place, and the memory of everything in between is a pool that lives
as long as the graph. Its kernels get the same arguments each time: so learning rates are in device memory
(:meth:`minires.optim.Optimizer.refresh_options`). Its Python code does not run: so nothing in a step may ask for a value of
the device, draw random numbers on the host, or need a hook. A step that does so is found out when it is captured, and then
training goes on without a graph, with one warning. A graph is the same kernels in the same order, so it makes the same
numbers, bit for bit.
"""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from minires.device import cupy, parse
from minires.modes import Mode, state
from minires.tensor import Tensor

__all__ = ["GraphStep"]

WARM_UP = 2  # ordinary steps before the first capture: they compile kernels and allocate what lasts
MOST_GRAPHS = 4  # shapes of batches with a graph of their own


class _Captured(NamedTuple):
    """A graph, and the memory that it reads its batch from."""

    graph: Any
    images: Tensor
    labels: Tensor


class GraphStep:
    """Makes training steps on a GPU, by a graph for each shape of batch as soon as that is possible.

    Args:
        compute: ``compute(images, labels)`` makes one step on Tensors of the device.
        model: the network; a change of its parameters' memory or of its mode drops the graphs.
        optimizer: its optimiser.
        device: "cuda" or "cuda:N".
        enabled: False never captures.
        obstacle: why a step cannot be captured, if the caller knows.

    Attributes:
        reason: why there is no graph, or None. A step of another shape that could be captured before keeps its graph.
        stream: what the steps run on.
        replays: steps that were made by a graph.
    """

    def __init__(
        self, compute: Callable[[Tensor, Tensor], None], model: Any, optimizer: Any, device: str, enabled: bool = True,
        obstacle: str | None = None,
    ) -> None:  # fmt: skip
        self._known_obstacle = obstacle
        self._compute, self._model, self._optimizer = compute, model, optimizer
        self._device = cupy().cuda.Device(parse(device)[1])
        self.reason: str | None = None if enabled else "it was switched off"
        self.replays = 0
        with self._device:
            self.stream = cupy().cuda.Stream(non_blocking=True)
        self._pool: Any = None
        self._graphs: dict[Any, _Captured] = {}
        self._seen: Counter[Any] = Counter()
        self._basis: list[Any] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Steps are made inside: on a stream of their own, after all work that was given before. The end waits for them."""
        with self._device:
            self.stream.wait_event(cupy().cuda.get_current_stream().record())
            self._forget_if_changed()
            with self.stream:
                try:
                    yield
                finally:
                    self.stream.synchronize()

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """One step on a batch that is on the device."""
        key = (_layout(images), _layout(labels))
        captured = self._graphs.get(key)
        if captured is None and self._is_time_to_capture(key):
            captured = self._capture(key, images, labels)
        if captured is None:
            self._seen[key] += 1
            with self._memory():
                self._compute(images, labels)
            return
        self._optimizer.refresh_options()
        captured.images.data[...] = images.data
        captured.labels.data[...] = labels.data
        captured.graph.launch(self.stream)
        self.replays += 1

    # -------------------------------------------------------------------------------- capturing

    def _is_time_to_capture(self, key: Any) -> bool:
        """After the warm-up; and at the second batch of its shape, since the first may make what lasts (tables, buffers)."""
        if self.reason is not None or len(self._graphs) >= MOST_GRAPHS:
            return False
        return self._seen[key] > 0 and self._seen.total() >= WARM_UP

    def _capture(self, key: Any, images: Tensor, labels: Tensor) -> _Captured | None:
        """The graph of a step; None, and a warning, if there can be none."""
        obstacle = self._obstacle()
        if obstacle is not None:
            self._give_up(obstacle)
            return None
        xp = cupy()
        fixed = [Tensor(xp.empty_like(batch.data)) for batch in (images, labels)]
        self._optimizer.refresh_options()
        gc.collect()  # a cycle with memory of the device that is found during the capture would disturb it
        xp.get_default_memory_pool().free_all_blocks()
        try:
            graph = self._record(*fixed)
        except Exception as error:  # whatever it was: the ordinary step shows it again if it is a fault of the step itself
            self._give_up(" ".join(str(error).split()) or type(error).__name__)
            return None
        if not self._graphs:
            self._basis = self._arrays_and_modes()
        self._graphs[key] = _Captured(graph, *fixed)
        return self._graphs[key]

    def _record(self, images: Tensor, labels: Tensor) -> Any:
        with Mode("capturing", True), self._pooled():
            self.stream.begin_capture()
            try:
                self._compute(images, labels)
            except BaseException:
                with contextlib.suppress(Exception):  # the capture has failed already; this only ends it
                    self.stream.end_capture()
                raise
            return self.stream.end_capture()

    def _memory(self) -> Any:
        """Where an ordinary step allocates: before the first capture in the pool, so that the graph uses that memory again.

        After it, never: what such a step leaves behind could lie where a graph works.
        """
        return contextlib.nullcontext() if self._graphs or self.reason is not None else self._pooled()

    def _pooled(self) -> Any:
        if self._pool is None:
            self._pool = cupy().cuda.MemoryPool()
        return cupy().cuda.using_allocator(self._pool.malloc)

    def _obstacle(self) -> str | None:
        """What can be known beforehand to make a graph impossible or wrong."""
        if self._known_obstacle is not None:
            return self._known_obstacle
        if self._optimizer.kernel is None:
            return f"{type(self._optimizer).__name__} computes with numbers of the host, which a graph would freeze"
        if state.anomaly:
            return "detect_anomaly() looks at the values of every op"
        for path, module in self._model.named_modules():
            if module._pre_hooks or module._post_hooks:
                return f"{path or 'the network'} has a hook, and hooks run on the host"
        for name, parameter in self._model.named_parameters():
            if parameter._hooks:
                return f"{name} has a hook, and hooks run on the host"
        return None

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        if not self._graphs:
            self._pool = None
        warnings.warn(f"training goes on without a CUDA graph, more slowly: {reason}", RuntimeWarning, stacklevel=4)

    # -------------------------------------------------------------------------------- what a graph rests on

    def _arrays_and_modes(self) -> list[Any]:
        """What the kernels of a graph point at, and what decides which kernels there are."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        arrays = [tensor._array for tensor in tensors]
        return [*arrays, *(t.requires_grad for t in tensors), *(module.training for module in self._model.modules())]

    def _forget_if_changed(self) -> None:
        """Drop the graphs if weights were replaced or frozen, or a module changed its mode, since the first capture."""
        if not self._graphs:
            return
        now = self._arrays_and_modes()
        if len(now) != len(self._basis) or any(a is not b for a, b in zip(now, self._basis, strict=True)):
            self._graphs.clear()
            self._seen.clear()
            self._pool = None


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype.str, tensor.data.strides
