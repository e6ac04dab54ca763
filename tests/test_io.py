"""Saving and loading: what comes back, and every way in which a file can be broken."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minires as mr
from minires import io
from minires.errors import CheckpointError


def test_everything_comes_back(tmp_path):
    values = {
        "tensor": mr.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3).T, requires_grad=True),
        "nested": {"array": np.arange(3), "zero_d": np.array(2.5), "empty": np.zeros((0, 2)), "flag": np.array([True])},
        "plain": [1, 2.5, "text", None, True, (1, 2, [3])],
        "numbers": {3: {"a": 1}, 4: {}},
        "odd": {"$tensor": "not a tensor"},
        "numpy": np.float32(0.5),
        "nan": math.nan,
        "a.b": np.ones(1),
        "a": {"b": np.zeros(1)},
    }
    mr.save(values, tmp_path / "file")
    back = mr.load(tmp_path / "file")
    assert isinstance(back["tensor"], mr.Tensor) and not back["tensor"].requires_grad
    np.testing.assert_array_equal(back["tensor"].data, values["tensor"].data)
    for name, array in values["nested"].items():
        assert back["nested"][name].dtype == array.dtype and back["nested"][name].shape == array.shape
        np.testing.assert_array_equal(back["nested"][name], array)
    for name in ("plain", "numbers", "odd"):
        assert back[name] == values[name]
    assert back["numpy"] == 0.5 and math.isnan(back["nan"])
    assert back["a.b"] == 1 and back["a"]["b"] == 0
    back["tensor"].data[...] = 0  # writable


def test_state_dict_is_a_plain_safetensors_file(tmp_path):
    mr.save({"weight": mr.ones(2, 3)}, tmp_path / "ours")
    np.testing.assert_array_equal(load_file(tmp_path / "ours")["weight"], np.ones((2, 3)))
    save_file({"weight": np.zeros(4, np.float32)}, tmp_path / "theirs")
    theirs = mr.load(tmp_path / "theirs")
    assert isinstance(theirs["weight"], mr.Tensor) and theirs["weight"].shape == (4,)


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"a\.1 is a set"):
        mr.save({"a": [1, {2}]}, tmp_path / "file")
    with pytest.raises(TypeError, match="keys"):
        mr.save({(1, 2): 3}, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def damage(name):
    return {
        "empty": lambda raw: b"",
        "text": lambda raw: b"hello",
        "half the header": lambda raw: raw[:60],
        "cut off": lambda raw: raw[:-3],
        "one byte of the data": lambda raw: raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:],
        "our header": lambda raw: raw.replace(b"crc32", b"crc33"),
        "our structure": lambda raw: raw.replace(b"$tensor", b"$tensro"),
        "an array's name": lambda raw: raw.replace(b'$tensor\\": \\"w', b'$tensor\\": \\"v'),
    }[name]


@pytest.mark.parametrize(
    "fault", ["empty", "text", "half the header", "cut off", "one byte of the data", "our header", "an array's name"]
)
def test_a_damaged_file_is_named(tmp_path, fault):
    path = tmp_path / "model.safetensors"
    mr.save({"w": mr.ones(3)}, path)
    raw = damage(fault)(path.read_bytes())
    assert raw != path.read_bytes()
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is"):
        mr.load(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match="nothing: no such file"):
        mr.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="is a folder"):
        mr.load(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    mr.save({"w": mr.ones(3)}, path)
    before = path.read_bytes()

    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        mr.save({"w": mr.zeros(3)}, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_new_folders_are_made_and_the_mode_is_usual(tmp_path):
    io.write_atomically(tmp_path / "a" / "b", b"x")
    (tmp_path / "usual").write_bytes(b"x")
    assert (tmp_path / "a" / "b").stat().st_mode == (tmp_path / "usual").stat().st_mode
