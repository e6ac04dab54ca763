"""``minires export`` and ``minires import``: what a user sees. Wrong is one line, exit code 2, and no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minires import cli, io, models
from minires.training import job as jobs


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def file(capsys: pytest.CaptureFixture[str]) -> str:
    """The weights of a small network."""
    assert run("export", "small_attention", "x.safetensors", capsys=capsys)[0] == 0
    return "x.safetensors"


def test_out_and_in_and_out(file: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = run("import", file, "--out", "checkpoint.safetensors", capsys=capsys)
    assert (code, err) == (0, "") and out == "checkpoint.safetensors: small_attention, 381 tensors, 10 classes\n"
    _, job, classes = jobs.load_model("checkpoint.safetensors")
    assert job.data == "digits" and job.canvas == 29 and classes == [str(i) for i in range(10)]
    assert run("export", "checkpoint.safetensors", "y.safetensors", capsys=capsys)[0] == 0
    first, second = load_file(file), load_file("y.safetensors")
    assert all(np.array_equal(second[name], array) for name, array in first.items()) and len(first) == len(second)
    assert run("info", "checkpoint.safetensors", capsys=capsys)[0] == 0
    code, out, err = run("export", "checkpoint.safetensors", "z.onnx", capsys=capsys)
    assert (code, err) == (0, "") and out.endswith("input (N, 1, 29, 29)\n") and Path("z.onnx").stat().st_size > 10_000
    assert run("export", "checkpoint.safetensors", "z", "--onnx", "--size", 33, capsys=capsys)[1].endswith(
        "(N, 1, 33, 33)\n"
    )


def test_a_file_from_pytorch_says_less(capsys: pytest.CaptureFixture[str]):
    """Number of classes and of channels are seen; the rest is told."""
    net = models.cifar_attention(num_classes=7, widths=(8, 16), depths=(1, 0), stem=4)
    save_file({f"module.{name}": np.asarray(t.numpy()) for name, t in net.state_dict().items()}, "x.safetensors")
    options = ["--option", "widths=[8, 16]", "--option", "depths=[1, 0]", "--option", "stem=4"]
    Path("classes.txt").write_text("\n".join("abcdefg"))
    options += ["--classes", "classes.txt"]
    code, _, err = run("import", "x.safetensors", "--model", "cifar_attention", *options, "--out", "c", capsys=capsys)
    assert (code, err) == (0, "")
    trained = jobs.load_model("c")
    assert trained.classes == list("abcdefg") and trained.job.data == "folder" and trained.job.size == 32
    assert trained.model.config["widths"] == [8, 16]


def test_a_translator_s_weights(capsys: pytest.CaptureFixture[str]):
    from minires.training import translation_runs
    from tests.training.tiny_translation import TINY_NUMERALS

    translation_runs.run(TINY_NUMERALS, Path("run"), quiet=True, log=lambda line: None)
    assert run("export", "run", "t.safetensors", capsys=capsys)[0] == 0
    assert "encoder.weight_ih_l0_reverse" in load_file("t.safetensors")
    code, out, _ = run("export", "run", "t.onnx", capsys=capsys)
    assert code == 0 and out.endswith("source (N, S) and target (N, T)\n")
    assert (
        "--size is an option for networks that see images" in run("export", "run", "t.onnx", "--size", 9, capsys=capsys)[2]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nope", "x.onnx"], "'nope' is neither a checkpoint nor a model"),
        (["export", "small_attention", "x.txt"], "x.txt: expected a file name that ends in .safetensors or .onnx"),
        (["export", "small_attention", "x.safetensors", "--size", "32"], "--size is an option for ONNX"),
        (["export", "small_attention", "x.onnx", "--names", "n"], "--names is an option for weights"),
        (["export", "small_attention", "x.onnx", "--size", "8"], "at least 16×16 pixels"),
        (["export", "small_attention", "x.safetensors", "--names", "n"], "No such file"),
        (["import", "none.safetensors", "--out", "c"], "none.safetensors: no such file"),
        (["import", "FILE", "--out", "c", "--model", "nope"], "unknown model 'nope'; known are: attention"),
        (["import", "FILE", "--out", "c", "--option", "m"], "--option: expected NAME=VALUE, got 'm'"),
        (["import", "FILE", "--out", "c", "--option", "n=1"], "small_attention takes no argument 'n'"),
        (["import", "FILE", "--out", "c", "--option", "stem=8"],
         "of another shape: stem.0.weight (expected (8, 1, 3, 3), found (16, 1, 3, 3))"),
        (["import", "FILE", "--out", "c", "--classes", "names"], "names: the network has 10 classes, the file names 1"),
        (["import", "FILE"], "required: --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_calls(arguments: list[str], message: str, file: str, capsys: pytest.CaptureFixture[str]):
    Path("names").write_text("a\n")
    code, out, err = run(*[file if each == "FILE" else each for each in arguments], capsys=capsys)
    assert code == 2 and not out and message in err and err.count("\n") == 1
    assert not Path("c").exists()


def test_files_that_need_a_name_or_no_import(file: str, capsys: pytest.CaptureFixture[str]):
    save_file(load_file(file), "plain.safetensors")
    assert (
        "does not say of which network it is: add --model"
        in run("import", "plain.safetensors", "--out", "c", capsys=capsys)[2]
    )
    io.save({"a": 1}, "ours.safetensors")
    assert "is a checkpoint of minires already" in run("import", "ours.safetensors", "--out", "c", capsys=capsys)[2]


def test_nothing_is_lost_by_writing(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Neither a run's checkpoint, nor the file that is read, nor a tensor whose new name is another's."""
    run("import", file, "--out", "checkpoint.safetensors", capsys=capsys)
    Path("table").write_text("stem.0 stem.1\n")
    Path("folder.onnx").mkdir()
    before = {name: Path(name).read_bytes() for name in (file, "checkpoint.safetensors")}
    for arguments, message in [
        (["export", "small_attention", "checkpoint.safetensors"], "is the checkpoint of a training run"),
        (["import", file, "--out", file], "is the file that is read"),
        (["export", "small_attention", "y.safetensors", "--names", "table"], "are both called 'stem.1"),
        (["export", "small_attention", "folder.onnx"], "is a folder; nothing was written"),
    ]:
        code, out, err = run(*arguments, capsys=capsys)
        assert code == 2 and not out and message in err
    assert all(Path(name).read_bytes() == content for name, content in before.items())
