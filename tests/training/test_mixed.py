"""Training in mixed precision: it learns like float32, loses nothing in a checkpoint, and is an option everywhere."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

import minires as mr
from minires import cli, nn, optim
from minires.data import DataLoader, TensorDataset
from minires.training import Trainer, build_trainer, checkpoint, load_model, measure, presets
from minires.training import job as jobs
from minires.training.presets import Job
from minires.training.sources import open_source
from tests.training.tiny import TINY

HAS_BFLOAT16 = importlib.util.find_spec("ml_dtypes") is not None
BFLOAT16 = pytest.param(
    "bfloat16", marks=pytest.mark.skipif(not HAS_BFLOAT16, reason="ml_dtypes is not installed (pip install ml_dtypes)")
)
half = pytest.mark.parametrize("half", ["float16", BFLOAT16])


def trainer(out=None, job=TINY):
    return build_trainer(job, open_source(job), out, quiet=True)


@half
def test_reaches_the_loss_of_float32(half):
    found = []
    for autocast in (None, half):
        t = trainer(job=TINY.with_(schedule="constant", autocast=autocast))
        images, labels = next(iter(t.train_loader))
        found.append([t._train_batch(images, labels)[0] for _ in range(25)])
    (exact, low) = found
    assert low != exact and low[0] == pytest.approx(exact[0], rel=0.02)
    assert low[-1] < 0.6 * low[0] and abs(low[-1] - exact[-1]) < 0.15 * exact[0]
    assert (t.mixed.scaler is not None) == (half == "float16")
    assert all(p.dtype == p.grad.dtype == np.float32 for p in t.model.parameters())
    assert all(b.dtype.kind != "f" or b.dtype == np.float32 for b in t.model.buffers())


def test_the_forward_pass_and_the_test_run_under_autocast():
    seen = []

    def loss(logits, labels):
        seen.append((logits.dtype.name, mr.is_autocast_enabled()))
        return mr.functional.cross_entropy(logits, labels)

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    data = TensorDataset(mr.randn(4, 1, 2, 2), mr.tensor([0, 1, 2, 0]))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def test(network):
        seen.append((network(data.tensors[0]).dtype.name, mr.is_autocast_enabled()))
        return mr.training.Evaluation(4, 1.0, 0.5)

    Trainer(model, optimizer, loss, DataLoader(data, 4), test=test, autocast="float16", quiet=True).fit(1)
    assert seen == [("float16", True)] * 2 and not mr.is_autocast_enabled()


def test_interrupted_and_continued_equals_uninterrupted(tmp_path):
    """The scaler's factor and its count of good steps are in the checkpoint."""
    job = TINY.with_(autocast="float16")
    whole, first = trainer(job=job), trainer(tmp_path, job)
    for t in (whole, first):
        t.mixed.scaler.load_state_dict({**t.mixed.scaler.state_dict(), "growth_interval": 4})
    whole.fit(2)
    first.fit(1)
    second = trainer(job=job)
    second.load(first.checkpoint_path)
    assert second.mixed.scaler.state_dict() == first.mixed.scaler.state_dict()
    second.fit(2)
    assert second.mixed.scaler.state_dict() == whole.mixed.scaler.state_dict()
    assert whole.mixed.scaler.get_scale() == 2**17 and whole.mixed.scaler.state_dict()["_growth_tracker"] == 2
    for name, tensor in whole.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name].data, tensor.data, err_msg=name)
        assert tensor.dtype == np.float32 or tensor.dtype.kind == "i"


def test_a_checkpoint_of_float32_goes_on_in_float16(tmp_path):
    first = trainer(tmp_path)
    first.fit(1)
    assert checkpoint.read(first.checkpoint_path)["scaler"] is None
    second = trainer(job=TINY.with_(autocast="float16"))
    second.load(first.checkpoint_path)
    second.fit(2)
    assert second.step == 6


def test_a_factor_that_is_too_large_is_found_without_harm():
    """Steps are left out until the factor fits; no warning of an overflow is shown."""
    t = trainer(job=TINY.with_(autocast="float16", schedule="constant"))
    t.mixed.scaler.update(2.0**40)
    before = [p.data.copy() for p in t.model.parameters()]
    images, labels = next(iter(t.train_loader))
    t._train_batch(images, labels)
    assert t.mixed.scaler.get_scale() == 2.0**39
    assert all((p.data == old).all() for p, old in zip(t.model.parameters(), before, strict=True))
    losses = [t._train_batch(images, labels)[0] for _ in range(45)]
    assert t.mixed.scaler.get_scale() < 2.0**39 and losses[-1] < 0.7 * losses[0]


def test_measuring_under_autocast_is_close():
    t = trainer()
    t.fit(2)
    exact = measure(TINY, t.model, open_source(TINY))
    low = measure(TINY.with_(autocast="float16"), t.model, open_source(TINY))
    assert low.loss == pytest.approx(exact.loss, rel=2e-2) and low.loss != exact.loss
    for a, b in zip(low.modules, exact.modules, strict=True):
        assert a.energy == pytest.approx(b.energy, rel=2e-2)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(presets.PRESETS, "digits", TINY.with_(epochs=1))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--quiet", "--autocast", "float16", "--out", "a"]) == 0
    assert json.loads((tmp_path / "a/config.json").read_text())["autocast"] == "float16"
    assert checkpoint.read("a/checkpoint.safetensors")["scaler"]["scale"] >= 1
    assert load_model("a").job.autocast == "float16"
    seen = []
    monkeypatch.setattr(jobs, "measure", lambda job, *rest: seen.append(job.autocast) or measure(job, *rest))
    for option in ((), ("--autocast", "none"), ("--autocast", "float16")):
        assert cli.main(["evaluate", "a", *option]) == 0
    assert seen == ["float16", None, "float16"]
    capsys.readouterr()
    assert cli.main(["train", "--autocast", "int8"]) == 2
    assert "invalid choice: 'int8'" in capsys.readouterr().err


def test_bfloat16_without_its_package_is_one_line(tmp_path, monkeypatch, capsys):
    def missing(name, *rest):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(mr.precision.importlib, "import_module", missing)
    monkeypatch.setitem(presets.PRESETS, "digits", TINY)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--autocast", "bfloat16"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("minires train: bfloat16 needs the package ml_dtypes: pip install ml_dtypes")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_wrong_words():
    with pytest.raises(ValueError, match="autocast: expected one of None, bfloat16, float16, got 'float32'"):
        Job(autocast="float32")
    with pytest.raises(ValueError, match="autocast: dtype must be 'float16' or 'bfloat16', got 'half'"):
        Trainer(nn.Linear(1, 1), None, None, None, autocast="half")
