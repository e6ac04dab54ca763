"""The translator as an ONNX file: a graph written by hand, because its length is that of its sentences.

A traced pass would have as many steps as the sentence that was traced. ONNX has ops that run over sequences of any length:
its GRU is the encoder (with PyTorch's formulas if ``linear_before_reset`` is set, and the gates in the order z, r, n), and a
Scan, whose body is one step, is the decoder. Padding is seen in the source itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires.data.sentences import PAD
from minires.device import to_device
from minires.export.protobuf import ELEMENTS, Graph, Node
from minires.models import Translator
from minires.nn.alignment import NEVER

__all__ = ["translator_graph"]

N, S, T = "N", "S", "T"


def translator_graph(model: Translator) -> Graph:
    """Teacher forcing, as ``model(source, target)``: ``source`` (N, S) and ``target`` (N, T), int64, to scores (N, T, V)."""
    main = _Writer(Graph("Translator"), model)
    graph = main.graph
    graph.inputs = {"source": ("int64", (N, S)), "target": ("int64", (N, T))}
    state = _encode(main)
    embedded = main.add("Gather", [main.weight("target.weight"), "target"], axis=0)  # (N, T, E)
    words = main.add("Transpose", [embedded], perm=(1, 0, 2))  # (T, N, E)
    main.add("Scan", [state, words], "last", "states", "contexts", body=_step(model, main), num_scan_inputs=1)
    joined = main.add("Concat", ["states", "contexts", words], axis=2)  # (T, N, H + C + E)
    scores = main.linear(main.add("Tanh", [main.linear(joined, "readout")]), "output")  # (T, N, V)
    main.add("Transpose", [scores], "output", perm=(1, 0, 2))
    size = main.state["output.weight"].shape[0]
    graph.outputs = {"output": (main.dtype, (N, T, size))}
    return graph


class _Writer:
    """Adds ops to a graph; weights go to the constants of the outermost one."""

    def __init__(self, graph: Graph, model: Translator, outer: _Writer | None = None) -> None:
        self.graph, self.outer = graph, outer or self
        self.state = {name: np.asarray(to_device(t.data, "cpu")) for name, t in model.state_dict().items()}
        self.dtype = self.state["output.weight"].dtype.name

    def add(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """One more op; returns the name of its first output."""
        name = f"/{self.graph.name}/{kind}_{len(self.graph.nodes)}"
        made = list(outputs) or [name]
        self.graph.nodes.append(Node(kind, inputs, made, name, attributes))
        return made[0]

    def weight(self, name: str) -> str:
        """A weight of the network under its own name."""
        return self.constant(self.state[name], name)

    def constant(self, value: Any, name: str) -> str:
        """A constant; a Python number has the dtype of the weights."""
        array = value if isinstance(value, np.ndarray) else np.array(value, self.dtype)
        self.outer.graph.constants[name] = array
        return name

    def axes(self, *axes: int) -> str:
        """A constant vector of int64."""
        return self.constant(np.array(axes, np.int64), f"axes {axes}")

    def linear(self, x: str, path: str) -> str:
        """x·Wᵀ + b on the last axis."""
        product = self.add("MatMul", [x, self.constant(self.state[f"{path}.weight"].T, f"{path}.weight, transposed")])
        return self.add("Add", [product, self.weight(f"{path}.bias")]) if f"{path}.bias" in self.state else product


def _encode(g: _Writer) -> str:
    """Adds ``memory``, ``ends``, ``mask`` and, with attention, ``keys``; returns the state with which the decoder begins."""
    pad = g.constant(np.array(PAD, np.int64), "padding")
    g.add("Not", [g.add("Equal", ["source", pad])], "mask")  # (N, S)
    counts = g.add("ReduceSum", [g.add("Cast", ["mask"], to=ELEMENTS["int32"]), g.axes(1)], keepdims=0)
    x = g.add("Transpose", [g.add("Gather", [g.weight("source.weight"), "source"], axis=0)], perm=(1, 0, 2))  # (S, N, E)
    w, r = (
        g.constant(np.stack([_gates(g.state[f"encoder.{name}_l0{d}"]) for d in ("", "_reverse")]), f"encoder.{name}")
        for name in ("weight_ih", "weight_hh")
    )
    biases = [[_gates(g.state[f"encoder.{name}_l0{d}"]) for name in ("bias_ih", "bias_hh")] for d in ("", "_reverse")]
    b = g.constant(np.stack([np.concatenate(pair) for pair in biases]), "encoder.bias")
    size = g.state["encoder.weight_hh_l0"].shape[1]
    options = {"hidden_size": size, "direction": "bidirectional", "linear_before_reset": 1}
    g.add("GRU", [x, w, r, b, counts], "outputs", "finals", **options)  # (S, 2, N, H), (2, N, H)
    flat = g.constant(np.array([0, 0, -1], np.int64), "flat")
    g.add("Reshape", [g.add("Transpose", ["outputs"], perm=(2, 0, 1, 3)), flat], "memory")  # (N, S, 2·H)
    row = g.constant(np.array([0, -1], np.int64), "row")
    g.add("Reshape", [g.add("Transpose", ["finals"], perm=(1, 0, 2)), row], "ends")  # (N, 2·H)
    if "attention.key.weight" in g.state:
        g.add("Identity", [g.linear("memory", "attention.key")], "keys")
    return g.add("Tanh", [g.linear("ends", "bridge")])


def _gates(weight: Any) -> Any:
    """The blocks r, z, n of a weight in ONNX's order z, r, n."""
    r, z, n = np.split(weight, 3)
    return np.concatenate((z, r, n))


def _step(model: Translator, main: _Writer) -> Graph:
    """The body of the Scan: the state (N, H) and a word (N, E) to the new state, and to what is collected."""
    g = _Writer(Graph("step"), model, main)
    size, width = g.state["cell.weight_hh"].shape[1], g.state["target.weight"].shape[1]
    g.graph.inputs = {"state": (g.dtype, (N, size)), "word": (g.dtype, (N, width))}
    context = _look_back(g) if "attention.key.weight" in g.state else g.add("Identity", ["ends"])
    both = g.add("Concat", ["word", context], axis=1)
    products = [
        g.add("Gemm", [x, g.weight(f"cell.weight_{kind}"), g.weight(f"cell.bias_{kind}")], transB=1)
        for x, kind in ((both, "ih"), ("state", "hh"))
    ]  # (N, 3·H) each
    thirds = g.constant(np.array([size] * 3, np.int64), "thirds")
    (ir, iz, i_n), (hr, hz, hn) = ([f"{side}_{gate}" for gate in "rzn"] for side in "ih")
    for product, parts in zip(products, ((ir, iz, i_n), (hr, hz, hn)), strict=True):
        g.add("Split", [product, thirds], *parts, axis=1)
    r, z = (g.add("Sigmoid", [g.add("Add", [a, b])]) for a, b in ((ir, hr), (iz, hz)))
    n = g.add("Tanh", [g.add("Add", [i_n, g.add("Mul", [r, hn])])])
    kept = g.add("Mul", [z, "state"])
    new = g.add("Add", [g.add("Mul", [g.add("Sub", [g.constant(1, "one"), z]), n]), kept], "after")
    outputs = {"after": new, "collected state": new, "collected context": context}
    for name, value in outputs.items():
        if name != value:
            g.add("Identity", [value], name)
    ends = g.state["bridge.weight"].shape[1]
    sizes = {"after": size, "collected state": size, "collected context": ends}
    g.graph.outputs = {name: (g.dtype, (N, each)) for name, each in sizes.items()}
    return g.graph


def _look_back(g: _Writer) -> str:
    """The context of a state, (N, 2·H): the memory summed with weights that fit."""
    one = g.axes(1)
    if "attention.score.weight" in g.state:  # additive
        query = g.add("Unsqueeze", [g.linear("state", "attention.query"), one])  # (N, 1, A)
        scores = g.linear(g.add("Tanh", [g.add("Add", [query, "keys"])]), "attention.score")  # (N, S, 1)
        scores = g.add("Squeeze", [scores, g.axes(2)])
    else:
        scale = g.constant(1 / math.sqrt(g.state["cell.weight_hh"].shape[1]), "scale")
        query = g.add("Unsqueeze", [g.add("Mul", ["state", scale]), g.axes(2)])  # (N, H, 1)
        scores = g.add("Squeeze", [g.add("MatMul", ["keys", query]), g.axes(2)])  # (N, S)
    scores = g.add("Where", ["mask", scores, g.constant(NEVER, "never")])
    weights = g.add("Unsqueeze", [g.add("Softmax", [scores], axis=-1), one])  # (N, 1, S)
    return g.add("Squeeze", [g.add("MatMul", [weights, "memory"]), one])
