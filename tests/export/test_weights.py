"""Weights to and from PyTorch: names, shapes, what PyTorch answered with the same weights, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minires as mr
from minires import models
from minires.errors import CheckpointError
from minires.export import load_weights, read_weights, save_weights
from minires.export.weights import read_names
from minires.modes import no_grad
from tests.fixtures import weights

TABLE = Path(__file__).parent / "names.txt"


def small() -> Any:
    return models.small_attention(widths=(8, 16), stem=8, after=0, t=1)


def scores(net: Any) -> np.ndarray:
    with no_grad():
        return net.eval()(mr.Tensor(weights.image())).numpy()


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sorted(load_file(path).items())}


def test_pytorchs_weights_give_pytorchs_scores(tmp_path: Path):
    """Out under PyTorch's names, back in with weights made from those names; the scores are the recorded ones."""
    net, names = models.cifar_attention(**weights.ATTENTION_SIZES), read_names(TABLE)
    save_weights(net, tmp_path / "out.safetensors", names)
    shapes = shapes_of(tmp_path / "out.safetensors")
    with np.load(weights.ATTENTION) as recorded:
        expected, layout = recorded["scores"], int(recorded["layout"])
    assert weights.checksum(shapes) == layout
    save_file({name: weights.of(name, shape) for name, shape in shapes.items()}, tmp_path / "in.safetensors")
    assert load_weights(net, tmp_path / "in.safetensors", names) == []
    np.testing.assert_allclose(scores(net), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_resnet50_needs_no_table(tmp_path: Path):
    width, classes = weights.SIZES["narrow"]
    net = models.ImageNetResNet(width=width, num_classes=classes)
    made = {name: weights.of(name, tensor.shape) for name, tensor in net.state_dict().items()}
    save_file(made, tmp_path / "x.safetensors")
    load_weights(net, tmp_path / "x.safetensors")
    with np.load(weights.RESNET50) as recorded:
        expected = recorded["narrow_scores"]
    np.testing.assert_allclose(scores(net), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_round_trip_to_the_bit(tmp_path: Path):
    net, twin = small(), small()
    net.train()(mr.Tensor(np.random.default_rng(0).standard_normal((2, 1, 16, 16), np.float32)))  # statistics move
    names = save_weights(net, tmp_path / "x.safetensors")
    assert names == list(net.state_dict())
    assert load_weights(twin, tmp_path / "x.safetensors") == []
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in
               zip(net.state_dict().values(), twin.state_dict().values(), strict=True))  # fmt: skip
    found = read_weights(tmp_path / "x.safetensors")
    assert found.config == {**net.config} and found.arrays["stem.1.num_batches_tracked"] == 1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model._orig_mod."])
def test_what_wrappers_put_in_front_of_names(prefix: str, tmp_path: Path):
    net, twin = small(), small()
    save_weights(net, tmp_path / "x.safetensors")
    arrays = load_file(tmp_path / "x.safetensors")
    save_file({prefix + name: array for name, array in arrays.items()}, tmp_path / "y.safetensors")
    load_weights(twin, tmp_path / "y.safetensors")
    assert np.array_equal(twin.classifier.weight.numpy(), net.classifier.weight.numpy())


def test_files_without_counters_and_in_half_precision(tmp_path: Path):
    net, twin = small(), small()
    arrays = {name: t.numpy().astype(np.float16) for name, t in net.state_dict().items() if "num_batches" not in name}
    save_file(arrays, tmp_path / "x.safetensors")
    counters = load_weights(twin, tmp_path / "x.safetensors")
    assert counters == [name for name in net.state_dict() if "num_batches" in name]
    assert twin.classifier.weight.dtype == np.float32
    np.testing.assert_allclose(twin.classifier.weight.numpy(), net.classifier.weight.numpy(), rtol=1e-3, atol=1e-6)


def damaged(arrays: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    if what == "missing":
        arrays.pop("norm.bias")
    elif what == "superfluous":
        arrays["head.weight"] = np.zeros((2, 3), np.float32)
    elif what == "shape":
        arrays["classifier.weight"] = np.zeros((7, 16), np.float32)
    return arrays


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("missing", r"does not fit ResidualAttentionNetwork, .* missing: norm\.bias \(expected \(16,\)\)$"),
        ("superfluous", r"superfluous: head\.weight \(found \(2, 3\)\)$"),
        ("shape", r"of another shape: classifier\.weight \(expected \(10, 16\), found \(7, 16\)\)$"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_changes(what: str, match: str, tmp_path: Path):
    net = small()
    before = {name: t.numpy().copy() for name, t in net.state_dict().items()}
    save_file(damaged({n: np.asarray(a + 1) for n, a in before.items()}, what), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=match):
        load_weights(net, tmp_path / "x.safetensors")
    assert all(np.array_equal(t.numpy(), before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file"),
        (b"PK\x03\x04 and so on", r"a file of torch\.save, .* safetensors\.torch\.save_file"),
        (b"\x80\x02}q", r"a file of torch\.save"),
        (b"a text", "is no safetensors file, or a damaged one"),
        (b"", "is no safetensors file"),
    ],
)
def test_wrong_files(content: bytes | None, match: str, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as error:
        load_weights(small(), path)
    assert str(path) in str(error.value)


def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path):
    net, path = small(), tmp_path / "x.safetensors"
    for filling in range(300):  # its length is a multiple of 8, so the lowest byte comes to 0x80 soon
        save_file({n: np.asarray(t.numpy()) for n, t in net.state_dict().items()}, path, {"filling": "x" * filling})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    assert load_weights(small(), path) == []


def test_other_files_of_safetensors(tmp_path: Path):
    mr.save({"a": mr.zeros(3)}, tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match="is a checkpoint of minires already"):
        read_weights(tmp_path / "ours.safetensors")
    save_file({"a": np.zeros(3, np.int8)}, tmp_path / "bytes.safetensors")
    with pytest.raises(CheckpointError, match="a has dtype I8; expected F64, F32, F16"):
        read_weights(tmp_path / "bytes.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_weights(tmp_path / "empty.safetensors")
    save_file({"a": np.zeros(3)}, tmp_path / "odd.safetensors", {"minires.model": "{"})
    with pytest.raises(CheckpointError, match="what it says of its network is damaged"):
        read_weights(tmp_path / "odd.safetensors")


def test_tables_of_names(tmp_path: Path):
    table = tmp_path / "names.txt"
    table.write_text("# here  there\n\nstem.0  conv1  # the first\nstem bn1\n")
    assert read_names(table) == [("stem.0", "conv1"), ("stem", "bn1")]
    net = small()
    names = save_weights(net, tmp_path / "x.safetensors", read_names(table))
    assert "conv1.weight" in names and "bn1.1.weight" in names  # the longest beginning decides
    load_weights(small(), tmp_path / "x.safetensors", read_names(table))
    for text, match in (
        ("a b c\n", "line 1: expected the name here and PyTorch's, got 'a b c'"),
        ("a b\na c\n", "a comes twice"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=match):
            read_names(table)
