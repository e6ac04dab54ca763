"""Our side: training steps of minires on the CPU, on a GPU step by step, and on a GPU as a CUDA graph."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np

import minires as mr
from minires import functional as F
from minires import optim
from minires.bench.networks import Batch, Network, Precision
from minires.bench.rounds import Side
from minires.device import cupy
from minires.modes import no_grad
from minires.tensor import Tensor
from minires.training.graph import GraphStep

__all__ = ["OPTIONS", "WARM_STATISTICS", "CpuInference", "CpuSide", "CudaSide", "count_nodes"]

#: Of both sides' SGD. A small learning rate: rounding differs, and with a large one the losses soon would too.
OPTIONS: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}

#: Batches that a network sees in training mode before it is measured in evaluation mode: its norms then know something.
WARM_STATISTICS = 2


class CpuSide(Side):
    """Steps on the CPU, timed by the clock on the wall."""

    name = "minires"

    def __init__(self, network: Network, precision: Precision) -> None:
        self._precision = precision
        self._model = network.model()
        self._optimizer = optim.SGD(self._model.parameters(), **OPTIONS)
        self._batches = network.batches()
        self._done = 0

    def _step(self) -> Any:
        images, labels = self._batches[self._done % len(self._batches)]
        self._done += 1
        self._optimizer.zero_grad()
        loss = F.cross_entropy(self._model(mr.from_numpy(images)), mr.from_numpy(labels))
        loss.backward()
        self._optimizer.step()
        return loss

    def losses(self, count: int) -> list[float]:
        """See :class:`Side`."""
        with self._precision.chosen():
            return [float(self._step()) for _ in range(count)]

    def time(self, steps: int) -> float:
        """See :class:`Side`."""
        with self._precision.chosen():
            start = time.perf_counter()
            for _ in range(steps):
                self._step()
            return time.perf_counter() - start


class CpuInference(Side):
    """Looking at batches on the CPU, in evaluation mode and under no_grad."""

    name = "minires"

    def __init__(self, network: Network) -> None:
        self._model, self._batches = network.model(), [images for images, _ in network.batches()]
        self._done = 0
        with no_grad():
            for images in self._batches[:WARM_STATISTICS]:
                self._model(mr.from_numpy(images))
        self._model.eval()

    def losses(self, count: int) -> list[float]:
        """There are none; see ``outputs``."""
        raise NotImplementedError

    def outputs(self) -> np.ndarray[Any, Any]:
        """(N, classes) of the first batch."""
        with no_grad():
            return np.array(self._model(mr.from_numpy(self._batches[0])).numpy())

    def time(self, steps: int) -> float:
        """See :class:`Side`."""
        start = time.perf_counter()
        with no_grad():
            for _ in range(steps):
                self._model(mr.from_numpy(self._batches[self._done % len(self._batches)]))
                self._done += 1
        return time.perf_counter() - start


class CudaSide(Side):
    """Steps on a GPU, timed by two events on their stream: nothing waits for the host in between.

    Args:
        network: what to train.
        precision: how exactly.
        device: "cuda" or "cuda:N".
        graph: whether a step becomes a CUDA graph, as in ``minires train``.
    """

    def __init__(self, network: Network, precision: Precision, device: str, graph: bool) -> None:
        self.name = "minires, CUDA graph" if graph else "minires, step by step"
        self._graph, self._precision = graph, precision
        self._xp = xp = cupy()
        xp.get_default_memory_pool().free_all_blocks()
        self._before = int(xp.get_default_memory_pool().total_bytes())
        self._model = network.model().to(device)
        self._optimizer = optim.SGD(self._model.parameters(), **OPTIONS)
        self._step = GraphStep(self._compute, self._model, self._optimizer, device, graph)
        with self._step.running():
            self._batches = [_on_device(xp, batch) for batch in network.batches()]
            self._last = xp.zeros((), np.float32)
        self._done = 0

    def _compute(self, images: Any, labels: Any) -> None:
        """What is captured."""
        self._optimizer.zero_grad()
        loss = F.cross_entropy(self._model(images), labels)
        self._last[...] = loss.data
        loss.backward()
        self._optimizer.step()

    def _make(self) -> None:
        self._step(*self._batches[self._done % len(self._batches)])
        self._done += 1

    def losses(self, count: int) -> list[float]:
        """See :class:`Side`."""
        values = []
        with self._precision.chosen(), self._step.running():
            for _ in range(count):
                self._make()
                values.append(float(self._last))
        return values

    def time(self, steps: int) -> float:
        """See :class:`Side`."""
        cuda = self._xp.cuda
        start, end = cuda.Event(), cuda.Event()
        with self._precision.chosen(), self._step.running():
            start.record(self._step.stream)
            for _ in range(steps):
                self._make()
            end.record(self._step.stream)
            end.synchronize()
        return float(cuda.get_elapsed_time(start, end)) / 1e3

    def once(self) -> None:
        """One step without a graph, so that its launches can be watched."""
        with self._precision.chosen(), self._step.running():
            self._compute(*self._batches[0])

    def finish_setup(self) -> None:
        """See :class:`Side`."""
        held = int(self._xp.get_default_memory_pool().total_bytes()) - self._before
        pool = self._step._pool
        self.bytes_held = held + (int(pool.total_bytes()) if pool is not None else 0)
        if self._step.reason is not None and self._graph:
            self.note = f"no graph: {self._step.reason}"
        for captured in self._step._graphs.values():
            self.kernels = count_nodes(captured.graph)


def _on_device(xp: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch as our input kernel makes it: channels-last memory."""
    images, labels = batch
    memory = xp.asarray(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))  # (N, H, W, C)
    return Tensor(memory.transpose(0, 3, 1, 2)), Tensor(xp.asarray(labels))  # (N, C, H, W)


_KERNEL_NODE = 0  # CU_GRAPH_NODE_TYPE_KERNEL of cuda.h


def count_nodes(graph: Any) -> int | None:
    """The kernels in a CUDA graph (CuPy's, or the address of one), asked of the driver; None if it does not say."""
    try:
        address = ctypes.c_void_p(graph if isinstance(graph, int) else int(graph.graph))
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_size_t()
        if driver.cuGraphGetNodes(address, None, ctypes.byref(count)):
            return None
        nodes = (ctypes.c_void_p * count.value)()
        if driver.cuGraphGetNodes(address, nodes, ctypes.byref(count)):
            return None
        kinds = [ctypes.c_int(-1) for _ in nodes]
        for node, kind in zip(nodes, kinds, strict=True):
            driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind))
    except (OSError, AttributeError, TypeError, ValueError):
        return None
    return sum(kind.value == _KERNEL_NODE for kind in kinds)
