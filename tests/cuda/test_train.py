"""``--device cuda`` from end to end: the commands, checkpoints that move between devices, and measuring without waiting."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import minires as mr
from minires import cli, nn
from minires.training import build_trainer, checkpoint, evaluate, load_model, measure, presets
from minires.training import job as jobs
from minires.training.sources import open_source
from tests.cuda import standin as stand_in
from tests.cuda.standin import cublas
from tests.training.tiny import TINY

#: 2 steps an epoch.
JOB = TINY.with_(
    batch_size=4, train_images=8, test_images=12, epochs=2,
    options={"widths": (4, 4), "depths": (1, 1), "stem": 4, "after": 0, "p": 0, "t": 1, "r": 1},
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_main_job(monkeypatch, tmp_path):
    monkeypatch.setitem(presets.PRESETS, "digits", JOB)
    monkeypatch.chdir(tmp_path)
    yield
    mr.set_float32_matmul_precision("highest")


@pytest.fixture
def gpu(standin):
    with cublas.installed():
        yield standin


def run(*arguments, capsys):
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_train_evaluate_and_masks(gpu, capsys):
    code, out, err = run("train", "--quiet", "--device", "cuda", "--precision", "high", "--out", "a", capsys=capsys)
    assert code == 0 and not err, err
    assert "batch size 4, cuda, seed 0" in out and "4 steps" in out and "pointing game" in out
    names = {path.name for path in jobs.Path("a").iterdir()}
    assert names == {"config.json", "metrics.csv", "results.json", "curves.png", "masks.png", "checkpoint.safetensors"}
    config = json.loads(jobs.Path("a/config.json").read_text())
    assert (config["device"], config["precision"], config["graph"]) == ("cuda", "high", None)
    assert mr.get_float32_matmul_precision() == "high"
    code, on_cuda, _ = run("evaluate", "a", "--device", "cuda", "--precision", "highest", capsys=capsys)
    assert code == 0 and mr.get_float32_matmul_precision() == "highest"
    code, on_cpu, _ = run("evaluate", "a", capsys=capsys)
    assert code == 0 and re.findall(r"[\d.]+%", on_cpu)[0] == re.findall(r"[\d.]+%", on_cuda)[0]
    code, out, _ = run("masks", "a", "a/curves.png", "--device", "cuda", "--out", "where.png", capsys=capsys)
    assert code == 0 and jobs.Path("where.png").exists()


def test_a_graph_is_asked_for_and_refused(gpu, capsys, monkeypatch):
    replays = []
    fit = jobs.Trainer.fit

    def watched(trainer, epochs):
        history = fit(trainer, epochs)
        replays.append(trainer.steps.step.replays)
        return history

    monkeypatch.setattr(jobs.Trainer, "fit", watched)
    for option in ("--graph", "--no-graph"):
        assert run("train", "--quiet", "--device", "cuda", option, "--epochs", 3, capsys=capsys)[0] == 0
    assert replays == [4, 0]


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_why_there_is_no_graph_is_one_line(gpu, capsys, monkeypatch):
    monkeypatch.setattr(presets, "PRESETS", {"digits": JOB.with_(epochs=3)})
    monkeypatch.setattr(jobs, "_optimizer", lambda job, model: OwnRule(model.parameters(), lr=0.01))
    code, _, err = run("train", "--quiet", "--device", "cuda", capsys=capsys)
    assert code == 0
    reason = "OwnRule computes with numbers of the host, which a graph would freeze"
    assert err.strip() == f"minires train: training goes on without a CUDA graph, more slowly: {reason}"


class OwnRule(mr.optim.SGD):
    def update(self, group, steps, weight, gradient, scratch, state):
        super().update(group, steps, weight, gradient, scratch, state)


WRONG = {
    "graph on the CPU": (["train", "--graph"], "--graph: only a GPU has CUDA graphs; add --device cuda"),
    "unknown precision": (["train", "--precision", "low"], "invalid choice: 'low'"),
    "no GPU of that number": (["train", "--device", "cuda:3"], "'cuda:3': there is no such GPU, this process sees cuda:0"),
}


@pytest.mark.parametrize(("arguments", "part"), WRONG.values(), ids=WRONG.keys())
def test_wrong_is_one_line(gpu, capsys, arguments, part):
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2 and not out and part in err and err.count("\n") == 1
    assert not jobs.Path("runs").exists(), "no directory was made for a run that cannot begin"


@pytest.mark.parametrize(("before", "after"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_run_moves_to_another_device(gpu, capsys, monkeypatch, before, after):
    """Everything in the checkpoint is the same after it was loaded; what is trained from there agrees but for rounding."""
    job = JOB.with_(device=before)
    first = build_trainer(job, open_source(job), jobs.Path("a"), quiet=True)
    first.fit(1)
    jobs.write_job(jobs.Path("a"), job)
    saved = checkpoint.read("a/checkpoint.safetensors")
    moved = JOB.with_(device=after)
    second = build_trainer(moved, open_source(moved), None, quiet=True)
    second.load("a/checkpoint.safetensors")
    assert_equal(second.model.state_dict(), saved["model"])
    assert_equal(second.optimizer.state_dict()["state"], saved["optimizer"]["state"])
    assert {p.device for p in second.model.parameters()} == {"cpu" if after == "cpu" else "cuda:0"}
    first.fit(2)
    second.fit(2)
    for name, tensor in first.model.state_dict().items():
        other = second.model.state_dict()[name].cpu().numpy()
        if before == after:
            np.testing.assert_array_equal(other, tensor.cpu().numpy(), err_msg=name)
        elif other.dtype.kind == "f":
            np.testing.assert_allclose(other, tensor.cpu().numpy(), atol=0.05, err_msg=name)
    code, _, err = run("train", "--resume", "a", "--device", after, "--quiet", capsys=capsys)
    assert code == 0, err
    model, job, _ = load_model("a", after)
    assert measure(job, model, open_source(job)).samples == 12


def assert_equal(a, b):
    if isinstance(a, dict):
        assert [str(key) for key in a] == [str(key) for key in b]
        for x, y in zip(a.values(), b.values(), strict=True):
            assert_equal(x, y)
    else:
        np.testing.assert_array_equal(on_cpu(a), on_cpu(b))


def on_cpu(value):
    value = value.data if isinstance(value, mr.Tensor) else value
    return value.get() if hasattr(value, "get") else np.asarray(value)


def test_measuring_waits_once_not_for_every_batch(gpu):
    rng = np.random.default_rng(0)
    job = JOB.with_(device="cuda")
    model = build_trainer(job, open_source(job), quiet=True).model
    batches = []
    for _ in range(3):
        images = rng.standard_normal((4, 1, 16, 16)).astype(np.float32)
        batches.append((mr.Tensor(images), mr.Tensor(np.arange(4)), mr.Tensor(np.tile([2, 3, 9, 12], (4, 1)))))
    loss = nn.CrossEntropyLoss()

    def unchecked(logits, labels):  # outside of captures the labels are looked at, to name a wrong one
        with mr.modes.Mode("capturing", True):
            return loss(logits, labels)

    waits, found = [], []
    for count in (1, 3):
        before = stand_in.total_syncs()
        found.append(evaluate(model, batches[:count], unchecked, localise=True, device="cuda"))
        waits.append(stand_in.total_syncs() - before)
    assert waits[0] == waits[1] > 0
    on_cpu = evaluate(model.to("cpu"), batches, loss, localise=True)
    assert found[1].samples == 12 and found[1].accuracy == on_cpu.accuracy and found[1].area == on_cpu.area
    assert found[1].loss == pytest.approx(on_cpu.loss, rel=1e-5)
    for module, expected in zip(found[1].modules, on_cpu.modules, strict=True):
        assert module.energy == pytest.approx(expected.energy, rel=1e-4) and module.pointing == expected.pointing
