"""ONNX files: their structure without any package, and (slow) what ONNX Runtime computes from them."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import models, nn
from minires.device import Array
from minires.export import to_onnx
from minires.export.network import graph_of
from minires.export.protobuf import Graph, Node, model_bytes
from minires.modes import no_grad
from minires.op import op
from tests.export.wire import all_of, fields, one


def narrow(**options: Any) -> Any:
    return models.cifar_attention(1, widths=(8, 16, 32), stem=8, **options)


VARIANTS: dict[str, dict[str, Any]] = {
    "mixed": {}, "channel": {"activation": "channel"}, "spatial": {"activation": "spatial"}, "naive": {"attention": "naive"},
    "nearest": {"upsample": "nearest"}, "deconv": {"upsample": "deconv"}, "local": {"mask": "local"},
    "no masks": {"attention": "none"}, "p, t, r": {"p": 2, "t": 1, "r": 2},
}  # fmt: skip


RUNTIME = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def runtime(test: Any) -> Any:
    """Marks a test for which ONNX Runtime computes."""
    missing = pytest.mark.skipif(not RUNTIME, reason="needs the extra: pip install minires[onnx]")
    return pytest.mark.slow(missing(test))


# ------------------------------------------------------------------------------------ structure


@pytest.mark.parametrize("name", VARIANTS)
def test_every_value_is_made_before_it_is_used(name: str):
    net = narrow(**VARIANTS[name])
    graph = graph_of(net, (3, 33, 35))
    known = {*graph.inputs, *graph.constants, ""}
    for node in graph.nodes:
        assert set(node.inputs) <= known, node
        assert not set(node.outputs) & known
        known |= set(node.outputs)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    assert graph.inputs == {"input": ("float32", ("N", 3, 33, 35))} and graph.outputs == {"output": ("float32", ("N", 10))}
    state = net.state_dict()
    assert {n for n in state if "num_batches" not in n} <= set(graph.constants)  # weights keep their names
    assert all(np.array_equal(array, state[n].numpy()) for n, array in graph.constants.items() if n in state)


def test_ops_of_the_usual_network():
    kinds = Counter(node.kind for node in graph_of(narrow(), (3, 32, 32)).nodes)
    assert kinds == {
        "Conv": 108, "BatchNormalization": 107, "Relu": 107, "Add": 39, "MaxPool": 6, "MatMul": 12, "Sigmoid": 3, "Mul": 3,
        "GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1, "Identity": 1,
    }  # fmt: skip
    kinds = Counter(node.kind for node in graph_of(narrow(), (3, 32, 32), resize=True).nodes)
    assert kinds["Resize"] == 6 and not kinds["MatMul"]


def test_windows_over_the_edge_are_padding_there():
    """ceil_mode as explicit padding: 33 pixels make 16 windows of which the last fits, 32 make 16 of which it does not."""
    for side, pads in ((33, (0, 0, 0, 0)), (32, (0, 0, 1, 1))):
        graph = graph_of(narrow(), (3, side, side))
        pool = next(node for node in graph.nodes if node.kind == "MaxPool")
        assert tuple(pool.attributes["pads"]) == pads and pool.name == "/stage1/0/mask/pool/MaxPool"


def test_the_file_says_what_it_is(tmp_path: Path):
    net = narrow()
    graph = to_onnx(net, tmp_path / "x.onnx", (3, 32, 32))
    model = fields((tmp_path / "x.onnx").read_bytes())
    assert one(model, 1) == 8 and one(model, 2) == b"minires" and one(model, 3) == mr.__version__.encode()
    assert dict(fields(one(model, 8)))[2] == 18
    assert json.loads(dict(fields(one(model, 14)))[2]) == net.config
    content = fields(one(model, 7))
    assert [one(fields(node), 4).decode() for node in all_of(content, 1)] == [node.kind for node in graph.nodes]
    tensors = {one(t, 8).decode(): t for t in map(fields, all_of(content, 5))}
    weight = tensors["stage1.0.trunk.0.conv2.weight"]
    assert all_of(weight, 1) == [2, 2, 3, 3] and one(weight, 2) == 1
    assert one(weight, 9) == net.stage1[0].trunk[0].conv2.weight.numpy().astype("<f4").tobytes()
    axes = fields(one(fields(one(fields(one(fields(one(content, 11)), 2)), 1)), 2))
    assert [fields(axis)[0] for _, axis in axes] == [(2, b"N"), (1, 3), (1, 32), (1, 32)]
    conv = next(fields(node) for node in all_of(content, 1) if one(fields(node), 4) == b"Conv")
    attributes = {one(a, 1).decode(): a for a in map(fields, all_of(conv, 5))}
    assert all_of(attributes["pads"], 8) == [1, 1, 1, 1] and one(attributes["pads"], 20) == 7
    assert one(attributes["group"], 3) == 1 and one(attributes["group"], 20) == 2


def test_numbers_of_any_size_in_a_message():
    node = Node("X", [], [], "x", {"i": -1, "f": 0.5, "s": "text", "ints": (300, -(2**31)), "g": Graph("inner")})
    read = fields(one(fields(one(fields(model_bytes(Graph("g", [node]), "1")), 7)), 1))
    attributes = {one(a, 1).decode(): a for a in map(fields, all_of(read, 5))}
    assert one(attributes["i"], 3) == -1 and one(attributes["f"], 2) == 0.5 and one(attributes["s"], 4) == b"text"
    assert all_of(attributes["ints"], 8) == [300, -(2**31)] and one(fields(one(attributes["g"], 6)), 2) == b"inner"
    assert [one(attributes[name], 20) for name in ("i", "f", "s", "ints", "g")] == [2, 1, 3, 7, 5]


def test_the_network_is_as_it_was():
    net = narrow()
    net.stage2.eval()
    modes = [module.training for module in net.modules()]
    before = {name: t.numpy().copy() for name, t in net.state_dict().items()}
    graph_of(net, (3, 32, 32))
    assert [module.training for module in net.modules()] == modes
    assert all(np.array_equal(t.numpy(), before[name]) for name, t in net.state_dict().items())


# ------------------------------------------------------------------------------------ what cannot be written


class Layer(nn.Module):
    """A function as a module with a weight."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(4, 3), function

    def forward(self, input: Any) -> Any:
        return self.function(self.linear(input))


def outside(x: Any) -> Any:
    return x + mr.Tensor(x.data * 2)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: F.cat((x, mr.Tensor(x.data[:, :1])), 1), "op 'cat' in Layer: what it is given depends on the images"),
        (lambda x: F.cumsum(x, 1), r"op 'cumsum' \(called in Layer\) has no counterpart in ONNX"),
        (outside, "op 'add' in Layer: what it is given depends on the images, but was not computed by an op"),
        (lambda x: F.relu(x) if x.shape[0] == 2 else F.tanh(x), "calls other ops for other images"),
        (lambda x: F.reshape(x, (1, -1, x.shape[0])), "the batch must be one axis of the new shape"),
        (lambda x: (x, x), "the network's output must be one Tensor out of an op, got tuple"),
        (lambda x: x[:, [0, 2]], "indexing by .* has no counterpart"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(function: Any, match: str):
    with pytest.raises(ValueError, match=match):
        graph_of(Layer(function), (4,))


def test_statistics_of_the_batch_have_no_counterpart():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ValueError, match=r"op 'batch_norm' in Sequential\.1: it normalises by the batch's own statistics"):
        graph_of(net, (1, 5, 5))


def test_an_op_of_ones_own_is_followed_into_its_definition():
    @op
    def twice(input: Array) -> Array:
        return input + input

    with pytest.raises(ValueError, match=r"op 'twice' .* State its meaning in plain ops with @twice\.definition"):
        graph_of(Layer(twice), (4,))
    twice.definition(lambda input: input * 2)
    assert [node.kind for node in graph_of(Layer(twice), (4,)).nodes] == ["Gemm", "Mul", "Identity"]


def test_a_network_too_large_for_the_format():
    graph = Graph("g", constants={"a": np.broadcast_to(np.float32(0), (2**15, 2**14))})
    with pytest.raises(ValueError, match=r"can hold less than 2 GiB, this network has 2\.0 GiB"):
        model_bytes(graph, "1")


# ------------------------------------------------------------------------------------ ONNX Runtime


def settle(net: Any, shape: tuple[int, ...]) -> Any:
    """Statistics as training leaves them, and weights of one axis that differ."""
    rng = np.random.default_rng(0)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            parameter.assign((parameter.data + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32))
    norms = [module for module in net.modules() if hasattr(module, "running_mean")]
    for norm in norms:
        norm.momentum = 1.0
    with no_grad():
        net.train()(mr.Tensor(rng.standard_normal((4, *shape), np.float32)))
    return net.eval()


def relative_error(net: Any, shape: tuple[int, ...], path: Path, batch: int = 3, **options: Any) -> float:
    """The largest difference between ONNX Runtime's scores and ours, by our largest score."""
    import onnx
    import onnxruntime

    to_onnx(net, path, shape, **options)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).standard_normal((batch, *shape), np.float32)
    (theirs,) = session.run(None, {"input": images})
    with no_grad():
        ours = net.eval()(mr.Tensor(images)).numpy()
    assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


@runtime
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
@pytest.mark.parametrize("name", VARIANTS)
def test_runtime_agrees_on_every_variant(name: str, size: tuple[int, int], tmp_path: Path):
    net = settle(narrow(**VARIANTS[name]), (3, *size))
    assert relative_error(net, (3, *size), tmp_path / "x.onnx") < 1e-4
    assert relative_error(net, (3, *size), tmp_path / "y.onnx", batch=1, resize=True) < 1e-4


@runtime
@pytest.mark.parametrize("name", [name for name in models.names() if name != "attention"])
def test_runtime_agrees_on_every_network(name: str, tmp_path: Path):
    net = models.build(name)
    channels, side = 1 if name == "small_attention" else 3, min(models.usual_side(name), 64)
    shape = (channels, side, side)
    assert relative_error(settle(net, shape), shape, tmp_path / "x.onnx", batch=2) < 1e-4


class Mixture(nn.Module):
    """Ops that no network of the package uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.back = (
            nn.Conv2d(3, 4, 3, padding="same", dilation=2),
            nn.ConvTranspose2d(4, 2, 3, 2, output_padding=1),
        )
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, input: Any) -> Any:
        x = F.leaky_relu(self.conv(input), 0.2)
        x = F.avg_pool2d(F.pad(x, (1, 2, 0, 1)), 3, 2, 1, ceil_mode=True)
        y = F.interpolate(self.back(x), size=(7, 8))  # (N, 2, 7, 8)
        y = F.cat((y, F.interpolate(y, size=(7, 8), mode="nearest")[:, :1], F.max_pool2d(y, 3, 1, 1)), 1)
        y = self.linear(F.silu(self.norm(y))) - F.exp(-F.abs(y)) / (2 + F.sqrt(y * y + 1))
        parts = F.split(F.permute(y, (0, 2, 3, 1)), [2, 3], 3)  # (N, 7, 8, 2), (N, 7, 8, 3)
        z = F.softmax(F.matmul(F.transpose(parts[0], 2, 3), parts[1]), -1)  # (N, 7, 2, 3)
        z = F.where(
            mr.Tensor(np.array([True, False, True])),
            F.clamp(z, 0.1, 0.5),
            F.gelu(z) + F.gelu(z, "tanh") + F.sum(z, (1, 2), keepdim=True),
        )
        return F.log_softmax(F.flatten(z[:, 1:-1:2, ..., 0], 1) * F.mean(y, (1, 2, 3))[:, None].expand(-1, 6), 1)


@runtime
def test_runtime_agrees_on_other_ops(tmp_path: Path):
    assert relative_error(Mixture(), (3, 9, 8), tmp_path / "x.onnx") < 1e-5


# ------------------------------------------------------------------------------------ the translator

SOURCES = np.array([[3, 4, 5, 6, 3], [5, 7, 0, 0, 0], [7, 3, 4, 0, 0]])  # 0 is padding
TARGETS = np.array([[1, 4, 5, 6], [1, 3, 3, 5], [1, 2, 0, 0]])
KINDS = ("additive", "dot", "none")


def translator(kind: str) -> Any:
    network = models.Translator(8, 7, embedding=5, hidden=6, attention=kind).eval()
    for parameter in network.parameters():
        parameter.assign(parameter.data * 2)
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_a_translator_s_file_has_words_of_any_length_as_inputs(kind: str, tmp_path: Path):
    graph = to_onnx(translator(kind), tmp_path / "x.onnx")
    assert graph.inputs == {"source": ("int64", ("N", "S")), "target": ("int64", ("N", "T"))}
    assert graph.outputs == {"output": ("float32", ("N", "T", 7))}
    kinds = Counter(node.kind for node in graph.nodes)
    assert kinds["GRU"] == kinds["Scan"] == 1
    (scan,) = (node for node in graph.nodes if node.kind == "Scan")
    known = {*graph.inputs, *graph.constants, ""} | {name for node in graph.nodes for name in node.outputs}
    known |= set(scan.attributes["body"].inputs)
    for node in scan.attributes["body"].nodes:
        assert set(node.inputs) <= known, node
        known |= set(node.outputs)


def test_a_network_for_images_needs_their_shape(tmp_path: Path):
    with pytest.raises(ValueError, match="expected the shape"):
        to_onnx(narrow(), tmp_path / "x.onnx")


@runtime
@pytest.mark.parametrize("kind", KINDS)
def test_runtime_agrees_on_the_translator(kind: str, tmp_path: Path):
    import onnx
    import onnxruntime

    network, path = translator(kind), tmp_path / "x.onnx"
    to_onnx(network, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for source, target in ((SOURCES, TARGETS), (SOURCES[1:, :3], TARGETS[1:, :2]), (SOURCES[:1], TARGETS[:1, :1])):
        (theirs,) = session.run(None, {"source": source, "target": target})
        with no_grad():
            ours = network(source, target).numpy()
        assert theirs.shape == ours.shape and np.abs(theirs - ours).max() < 1e-5 * np.abs(ours).max()
