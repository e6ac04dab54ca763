"""The command line: what a user sees, right and wrong. Wrong is always one line, exit code 2, and no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import minires
from minires import cli, models
from minires.training import job as jobs
from minires.training import presets
from tests.training.tiny import TINY

QUICK = ["train", "--quiet", "--epochs", "1"]


@pytest.fixture(autouse=True)
def small_main_job(monkeypatch, tmp_path):
    """The commands run as they are, on a job that takes a second, in a directory of their own."""
    monkeypatch.setitem(presets.PRESETS, "digits", TINY)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    jobs.run(TINY.with_(epochs=1), directory, quiet=True, log=lambda line: None)
    return directory


def run(*arguments, capsys):
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_no_command_lists_the_commands(capsys):
    code, out, err = run(capsys=capsys)
    assert code == 0 and not err
    for command in ("train", "evaluate", "masks", "info", "gradcheck", "doctor"):
        assert re.search(rf"^  {command} .*\w", out, re.MULTILINE)
    assert "python -m minires train" in out
    listed = set(re.findall(r"^  ([a-z]+) ", out.split("example")[0], re.MULTILINE))
    assert run("--help", capsys=capsys)[0] == 0 and run("train", "--help", capsys=capsys)[0] == 0
    assert all(run(command, "--help", capsys=capsys)[0] == 0 for command in listed)


def test_train_with_no_options(capsys):
    code, out, _err = run("train", "--quiet", capsys=capsys)
    assert code == 0
    (directory,) = list(jobs.Path("runs").iterdir())
    assert str(directory) in out and "pointing game" in out and "ARL" in out and "chance" in out
    for name in ("config.json", "metrics.csv", "curves.png", "masks.png", "checkpoint.safetensors"):
        assert (directory / name).stat().st_size > 0 and name in out


def test_options_reach_the_job(capsys):
    options = ["--seed", 7, "--batch-size", 20, "--lr", 0.02, "--clutter", 0, "--noise", 0.5, "--attention", "naive"]
    assert run(*QUICK, "--out", "mine", *options, capsys=capsys)[0] == 0
    job, compared = jobs.read_job(jobs.Path("mine"))
    assert not compared
    assert job == TINY.with_(epochs=1, seed=7, batch_size=20, lr=0.02, clutter=0, noise=0.5, attention="naive")


def test_compare_and_resume(capsys):
    code, out, _ = run(*QUICK, "--compare", "--out", "three", capsys=capsys)
    three = out
    assert code == 0 and all(name in out for name in ("ARL", "NAL", "no masks"))
    code, again, _ = run("train", "--quiet", "--resume", "three", capsys=capsys)
    table = out.split("pointing")[1].split("chance")[0]
    assert code == 0 and table in again and "1 epoch," in three
    code, out, err = run("evaluate", "three", capsys=capsys)
    assert code == 2 and not out and all(str(jobs.Path("three") / kind) in err for kind in jobs.COMPARED)


def test_a_network_without_attention_is_called_by_its_name(monkeypatch, capsys):
    monkeypatch.setitem(presets.PRESETS, "digits", TINY.with_(model="resnet", options={"depth": 11}, canvas=32))
    code, out, err = run("train", "--epochs", 1, "--out", "plain", capsys=capsys)
    assert code == 0 and "resnet" in out.split("test accuracy")[1] and "resnet, epoch 1/1" in err
    assert "ARL" not in out + err and "resnet" in json.loads(jobs.Path("plain/results.json").read_text())
    code, out, _ = run("evaluate", "plain", capsys=capsys)
    assert code == 0 and "resnet" in out and "ARL" not in out
    code, out, err = run("masks", "plain", "x.png", capsys=capsys)
    assert code == 2 and not out and err.count("\n") == 1 and "no attention modules" in err


def test_comparing_checks_every_kind_before_a_directory_is_made(monkeypatch, capsys):
    def check(job, source):
        if job.attention == "none":
            raise ValueError("the last kind does not fit")

    monkeypatch.setattr(jobs, "check", check)
    code, out, err = run(*QUICK, "--compare", capsys=capsys)
    assert code == 2 and not out and "the last kind" in err and not jobs.Path("runs").exists()


def test_a_folder_of_pictures_is_described(monkeypatch, capsys):
    for name in ("cat", "dog"):
        for i in range(5):
            path = jobs.Path("pets", name, f"{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(path)
    small = {"widths": (8, 8), "depths": (1, 1), "stem": 4}
    job = presets.FOLDER.with_(model="cifar_attention", options=small, batch_size=4)
    monkeypatch.setitem(presets.PRESETS, "folder", job)
    code, out, _ = run(*QUICK, "--data", "folder", "--root", "pets", capsys=capsys)
    assert code == 0 and "8 training and 2 test pictures, 2 classes: cat, dog" in out


def test_help_knows_the_usual_number_of_epochs(capsys):
    _, out, _ = run("train", "--help", capsys=capsys)
    usual = " ".join(out.split())
    assert set(cli.RECIPES) == set(presets.RECIPES)
    digits, folder, cifar = presets.DIGITS.epochs, presets.FOLDER.epochs, presets.CIFAR.epochs
    assert f"{digits} for digits, {folder} for folder, {cifar} for cifar10" in usual and "train/ and test/" in usual


def test_models_and_version(capsys):
    code, out, _ = run("info", capsys=capsys)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == models.names()
    assert run("--version", capsys=capsys) == (0, f"minires {minires.__version__}\n", "")
    jobs.Path("small_attention").mkdir()  # a folder of that name does not hide the model
    code, out, _ = run("info", "small_attention", "--depth", 0, capsys=capsys)
    assert code == 0 and "241,946" in out


def test_a_bright_border_makes_one_think_of_invert(trained, capsys):
    for name, value in (("paper.png", 255), ("black.png", 0)):
        Image.new("L", (30, 30), value).save(name)
    code, out, err = run("masks", trained, "paper.png", "black.png", capsys=capsys)
    assert code == 0 and out == "masks.png\n" and err.count("\n") == 1
    assert "paper.png" in err and "black.png" not in err and "add --invert" in err
    assert run("masks", trained, "paper.png", "--invert", capsys=capsys)[2] == ""
    assert "leave out --invert" in run("masks", trained, "black.png", "--invert", capsys=capsys)[2]


def test_the_wrong_python_gets_one_line():
    source = str(jobs.Path(cli.__file__).parents[1])
    got = subprocess.run(  # -S: without the installed packages
        [sys.executable, "-S", "-m", "minires"], env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True
    )
    assert got.returncode == 2 and not got.stdout and got.stderr.count("\n") == 1
    assert "numpy" in got.stderr and ".venv/bin/python -m minires" in got.stderr


def test_evaluate_masks_info_and_doctor(trained, capsys):
    code, out, _ = run("evaluate", trained, capsys=capsys)
    assert code == 0 and "ARL" in out
    assert run("evaluate", trained / "checkpoint.safetensors", capsys=capsys) == (0, out, "")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save("own.jpg")
    code, out, _ = run("masks", trained, "own.jpg", "own.jpg", "--invert", "--out", "where.png", capsys=capsys)
    assert code == 0 and out.strip() == "where.png" and jobs.Path("where.png").read_bytes()[:4] == b"\x89PNG"
    code, out, _ = run("info", trained, "--depth", 1, capsys=capsys)
    assert code == 0 and "stem" in out
    code, out, _ = run("info", "cifar_attention", capsys=capsys)
    assert code == 0 and "1,030,394" in out and "3×32×32" in out
    code, out, _ = run("doctor", capsys=capsys)
    assert code == 0 and "numpy" in out and "python" in out


WRONG = {
    "unknown command": (["frobnicate"], "frobnicate"),
    "unknown option": (["train", "--wat"], "--wat"),
    "no number": (["train", "--epochs", "x"], "--epochs"),
    "negative number": (["train", "--epochs", "-1"], "--epochs"),
    "zero epochs": (["train", "--epochs", "0"], "epochs"),
    "negative rate": (["train", "--lr", "-1"], "lr"),
    "no rate": (["train", "--lr", "nan"], "--lr"),
    "word for a rate": (["train", "--noise", "much"], "--noise"),
    "unknown data": (["train", "--data", "mnist"], "mnist"),
    "recipe without root": (["train", "--recipe", "fast-cifar"], "--recipe fast-cifar needs --root"),
    "recipe for other data": (["train", "--recipe", "fast-cifar", "--data", "digits"], "is for cifar10, not for"),
    "no such recipe": (["train", "--recipe", "slow"], "fast-cifar"),
    "recipe of an old run": (["train", "--resume", "x", "--recipe", "fast-cifar"], "leave out --recipe"),
    "no root": (["train", "--data", "cifar10"], "--root"),
    "root without files": (["train", "--data", "cifar10", "--root", "nowhere"], "--download"),
    "no folder": (["train", "--data", "folder", "--root", "nowhere"], "nowhere"),
    "no GPU": (["train", "--device", "cuda"], "cuda"),
    "no device": (["train", "--device", "tpu"], "tpu"),
    "no model": (["train", "--model", "nothing"], "nothing"),
    "model for colour pictures": (["train", "--model", "attention56"], "colour pictures"),
    "no attention to compare": (["train", "--model", "resnet", "--compare"], "no choice of attention"),
    "no attention to choose": (["train", "--model", "resnet164", "--attention", "residual"], "no choice of attention"),
    "root of digits": (["train", "--root", "full"], "--root"),
    "size of digits": (["train", "--size", "32"], "--size"),
    "download of digits": (["train", "--download"], "--download"),
    "clutter in CIFAR": (["train", "--data", "cifar10", "--root", "full", "--clutter", "0"], "--clutter"),
    "canvas of a folder": (["train", "--data", "folder", "--root", "full", "--canvas", "32"], "--canvas"),
    "digit in CIFAR": (["train", "--data", "cifar100", "--root", "full", "--digit", "14"], "--digit"),
    "noise in a folder": (["train", "--data", "folder", "--root", "full", "--noise", "0"], "--noise"),
    "download of a folder": (["train", "--data", "folder", "--root", "full", "--download"], "--download"),
    "size of CIFAR": (["train", "--data", "cifar10", "--root", "full", "--size", "32"], "--size"),
    "no size": (["info", "cifar_attention", "--size", "0"], "--size"),
    "no device to evaluate on": (["evaluate", "full", "--device", "gpu"], "expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    "canvas too small": (["train", "--canvas", "10"], "canvas"),
    "canvas too small for the network": (["train", "--canvas", "12"], "at least 16"),
    "existing directory": (["train", "--out", "full"], "full exists"),
    "impossible directory": (["train", "--out", "full/file/x"], "full/file"),
    "nothing to resume": (["train", "--resume", "nowhere"], "nowhere"),
    "no run to resume": (["train", "--resume", "full"], "config.json"),
    "resume with settings": (["train", "--resume", "full", "--lr", "1", "--compare"], "--lr, --compare"),
    "missing checkpoint": (["evaluate", "nowhere"], "nowhere: no such file"),
    "no checkpoint given": (["evaluate"], "CHECKPOINT"),
    "corrupt checkpoint": (["evaluate", "full/file"], "full/file: is no safetensors file"),
    "run without a checkpoint": (["masks", "full", "x.png"], "checkpoint.safetensors: no such file"),
    "nothing to describe": (["info", "nothing"], "cifar_attention"),
    "size too small": (["info", "cifar_attention", "--size", "3"], "at least 32×32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_costs_one_line(name, capsys):
    arguments, part = WRONG[name]
    jobs.Path("full").mkdir()
    jobs.Path("full/file").write_text("text")
    if name == "no GPU" and jobs.to_device.__globals__["is_available"]():
        pytest.skip("there is a GPU")
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2 and not out
    assert err.count("\n") == 1 and err.startswith("minires") and part in err
    assert not jobs.Path("runs").exists() and os.listdir("full") == ["file"]  # nothing is left behind


def test_wrong_pictures_and_corrupt_data(trained, capsys):
    jobs.Path("text.png").write_text("text")
    for picture in ("missing.png", "text.png"):
        code, out, err = run("masks", trained, picture, capsys=capsys)
        assert code == 2 and not out and err.count("\n") == 1 and picture in err
    assert run("evaluate", trained, "--device", "tpu", capsys=capsys)[0] == 2
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        jobs.Path(name).write_bytes(b"not a record")
    code, out, err = run("train", "--data", "cifar10", "--root", ".", capsys=capsys)
    assert code == 2 and err.count("\n") == 1 and "data_batch_1.bin" in err


def test_a_diverging_run_says_so(capsys):
    code, _, err = run(*QUICK, "--lr", "1e30", "--out", "bad", capsys=capsys)  # a warning would be an error here
    assert code == 2 and err.count("\n") == 1 and "learning rate" in err


PROGRAM = """
import sys
from minires import cli
from minires.training import presets
from tests.training.tiny import TINY
presets.PRESETS["digits"] = TINY.with_(epochs=1000)
sys.exit(cli.main(["train", "--out", "run"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_and_says_where():
    environment = {**os.environ, "PYTHONPATH": str(jobs.Path(cli.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not jobs.Path("run/metrics.csv").exists() and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    last = err.strip().splitlines()[-1]
    assert "Traceback" not in err and "saved in run/checkpoint.safetensors" in last and "--resume run" in last
    assert jobs.load_model("run").job.epochs == 1000
    assert jobs.Path("run/config.json").exists()
