"""PyTorch's side: eager in both memory layouts, as a CUDA graph, and compiled, each as fast as its documentation says how.

Imported only where PyTorch is installed.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch

from minires.bench.groups import EAGER
from minires.bench.networks import Network, Precision
from minires.bench.ours import OPTIONS, WARM_STATISTICS, count_nodes
from minires.bench.peer import twin_of
from minires.bench.rounds import Side

__all__ = ["EAGER", "TorchInference", "TorchSide", "settle"]

_WARM_UP = 3  # ordinary steps before a capture, on its stream, as PyTorch's documentation asks for


def settle(precision: Precision, threads: int | None = None) -> None:
    """PyTorch's own switches for this precision; cuDNN may try its algorithms out."""
    torch.set_float32_matmul_precision(precision.word)
    torch.backends.cuda.matmul.allow_tf32 = precision.word != "highest"
    torch.backends.cudnn.allow_tf32 = precision.word != "highest"
    torch.backends.cudnn.benchmark = True
    if threads is not None:
        torch.set_num_threads(threads)


class TorchSide(Side):
    """Steps of PyTorch.

    Args:
        network: what to train; from the same weights as ours.
        precision: how exactly; see :func:`settle`.
        device: "cpu", "cuda" or "cuda:N".
        layout: "NCHW" or "channels_last".
        kind: "eager", "graph" or "compile".
    """

    def __init__(self, network: Network, precision: Precision, device: str, layout: str, kind: str = "eager") -> None:
        self.name = {
            "eager": f"torch, {layout}", "graph": f"torch CUDA graph, {layout}", "compile": f"torch.compile, {layout}",
        }[kind]  # fmt: skip
        self._kind, self._precision, self._device = kind, precision, torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        if self._on_gpu:
            torch.cuda.empty_cache()
            self._before = torch.cuda.memory_reserved(self._device)
        settle(precision)
        form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        model = twin_of(network.model()).to(self._device, memory_format=form)
        self._parameters = list(model.parameters())
        self._model = torch.compile(model) if kind == "compile" else model
        self._optimizer = torch.optim.SGD(self._parameters, **OPTIONS, foreach=True)
        self._batches = [
            (torch.from_numpy(x).to(self._device).to(memory_format=form), torch.from_numpy(y).to(self._device))
            for x, y in network.batches()
        ]
        self._fixed = tuple(torch.empty_like(each) for each in self._batches[0]) if kind == "graph" else ()
        self._loss: Any = torch.zeros((), device=self._device)
        self._graph: Any = None
        self._done = 0

    def _compute(self, images: Any, labels: Any) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        kind = torch.autocast(self._device.type, torch.bfloat16) if self._precision.autocast else nullcontext()
        with kind:
            loss = torch.nn.functional.cross_entropy(self._model(images), labels)
        self._loss.copy_(loss.detach())
        loss.backward()
        self._optimizer.step()

    def _make(self) -> None:
        images, labels = self._batches[self._done % len(self._batches)]
        self._done += 1
        if self._kind != "graph" or self._done <= _WARM_UP:
            self._compute(images, labels)
            return
        if self._graph is None:
            self._capture()
        self._fixed[0].copy_(images)
        self._fixed[1].copy_(labels)
        self._graph.replay()

    def _capture(self) -> None:
        torch.cuda.synchronize(self._device)
        try:
            graph = torch.cuda.CUDAGraph(keep_graph=True)  # so that its kernels can be counted
        except TypeError:  # an older PyTorch
            graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute(*self._fixed)
        self._graph = graph

    def _run(self, steps: int) -> None:
        if self._kind != "graph" or self._graph is not None:
            for _ in range(steps):
                self._make()
            return
        stream = torch.cuda.Stream(self._device)  # the warm-up of a capture
        stream.wait_stream(torch.cuda.current_stream(self._device))
        early = min(steps, max(0, _WARM_UP - self._done))
        with torch.cuda.stream(stream):
            for _ in range(early):
                self._make()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        for _ in range(steps - early):
            self._make()

    def losses(self, count: int) -> list[float]:
        """See :class:`Side`."""
        settle(self._precision)
        values = []
        for _ in range(count):
            self._run(1)
            values.append(float(self._loss))
        return values

    def time(self, steps: int) -> float:
        """See :class:`Side`."""
        settle(self._precision)
        if not self._on_gpu:
            begin = time.perf_counter()
            self._run(steps)
            return time.perf_counter() - begin
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self._run(steps)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def finish_setup(self) -> None:
        """See :class:`Side`."""
        if not self._on_gpu:
            return
        self.bytes_held = torch.cuda.memory_reserved(self._device) - self._before
        if self._graph is not None and hasattr(self._graph, "raw_cuda_graph"):
            self.kernels = count_nodes(int(self._graph.raw_cuda_graph()))


class TorchInference(Side):
    """Looking at batches on the CPU, in evaluation mode and under no_grad.

    Args:
        network: what looks at them; from the same weights as ours.
        layout: "NCHW" or "channels_last".
    """

    def __init__(self, network: Network, layout: str) -> None:
        self.name = f"torch, {layout}"
        form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self._model = twin_of(network.model()).to(memory_format=form)
        self._batches = [torch.from_numpy(images).to(memory_format=form) for images, _ in network.batches()]
        self._done = 0
        with torch.no_grad():
            for images in self._batches[:WARM_STATISTICS]:
                self._model(images)
        self._model.eval()

    def losses(self, count: int) -> list[float]:
        """There are none; see ``outputs``."""
        raise NotImplementedError

    def outputs(self) -> Any:
        """(N, classes) of the first batch, a NumPy array."""
        with torch.no_grad():
            return self._model(self._batches[0]).numpy()

    def time(self, steps: int) -> float:
        """See :class:`Side`."""
        begin = time.perf_counter()
        with torch.no_grad():
            for _ in range(steps):
                self._model(self._batches[self._done % len(self._batches)])
                self._done += 1
        return time.perf_counter() - begin
