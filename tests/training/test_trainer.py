"""The loop: what it records, that it stops and continues without a trace, and what it refuses."""

from __future__ import annotations

import csv
import json
import threading

import numpy as np
import pytest

import minires as mr
from minires import nn, optim
from minires.data import DataLoader, TensorDataset
from minires.errors import CheckpointError
from minires.training import (
    DivergedError,
    Interrupted,
    Trainer,
    build_trainer,
    checkpoint,
    compare,
    load_model,
    measure,
    run,
    table,
)
from minires.training import job as jobs
from minires.training.presets import CIFAR, DIGITS, PRESETS, Job
from minires.training.progress import Progress
from minires.training.sources import open_source
from tests.training.tiny import TINY


def trainer(out=None, job=TINY):
    return build_trainer(job, open_source(job), out, quiet=True)


def state(t):
    return {name: tensor.data.copy() for name, tensor in t.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


WITHOUT_TIME = ("epoch", "step", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def losses(t):
    return [[row[key] for key in WITHOUT_TIME] for row in t.history]


def test_learns():
    t = trainer(job=TINY.with_(schedule="constant"))
    images, labels = next(iter(t.train_loader))
    losses = [t._train_batch(images, labels)[0] for _ in range(25)]
    assert losses[-1] < losses[0] * 0.6


def test_keeps_a_record(tmp_path):
    rows = []
    t = trainer(tmp_path)
    t.callbacks.append(lambda trainer, row: rows.append(row))
    history = t.fit(2)
    assert rows == history and [row["epoch"] for row in rows] == [1, 2] and [row["step"] for row in rows] == [3, 6]
    assert rows[0]["lr"] > rows[1]["lr"] == pytest.approx(0, abs=1e-12)
    assert t.evaluation is not None and t.evaluation.accuracy == rows[-1]["test_accuracy"]
    assert all(row["images_per_second"] == pytest.approx(40 / row["seconds"], rel=0.01) for row in rows)
    with open(tmp_path / "metrics.csv", newline="") as file:
        table_rows = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in table_rows] == pytest.approx([r["train_loss"] for r in rows], rel=1e-5)
    assert t.fit(2) is t.history  # nothing left to do


def test_same_seed_same_run():
    a, b, c = trainer(), trainer(), trainer(job=TINY.with_(seed=1))
    for t in (a, b, c):
        t.fit(1)
    assert_same(state(a), state(b))
    assert losses(a) == losses(b) != losses(c)


@pytest.mark.parametrize("steps", [2, 3, 4, 6])
def test_interrupted_and_continued_equals_uninterrupted(tmp_path, steps):
    """In the middle of an epoch, at the end of one, and after the last step."""
    whole = trainer()
    whole.fit(2)

    first = trainer(tmp_path)
    train_batch = first._train_batch

    def stop_after(*batch):
        result = train_batch(*batch)
        first._stop = first.step + 1 == steps
        return result

    first._train_batch = stop_after
    with pytest.raises(Interrupted) as stopped:
        first.fit(2)
    assert stopped.value.path == tmp_path / "checkpoint.safetensors"

    mr.manual_seed(99)  # the generator must come from the checkpoint
    second = trainer(tmp_path)
    second.load(tmp_path / "checkpoint.safetensors")
    assert second.step == steps
    second.fit(2)
    assert_same(state(whole), state(second))
    assert losses(whole) == losses(second)

    first._train_batch = train_batch  # the interrupted trainer itself can go on as well, as in a notebook
    first.fit(2)
    assert_same(state(whole), state(first))
    assert losses(whole) == losses(first)


def test_works_in_another_thread_and_without_extras():
    data = TensorDataset(np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32), np.arange(8) % 2)
    model = nn.Linear(3, 2)
    t = Trainer(model, optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), DataLoader(data, 4), quiet=True)
    thread = threading.Thread(target=t.fit, args=(2,))
    thread.start()
    thread.join()
    assert t.epoch == 2 and t.save() is None and t.history[0]["test_loss"] is None


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    t = trainer(tmp_path)
    t.fit(1)
    t.model.classifier.bias.assign(np.nan)
    with pytest.raises(DivergedError, match=r"became nan in epoch 2, step 4.*smaller.*checkpoint.safetensors"):
        t.fit(2)
    assert checkpoint.read(tmp_path / "checkpoint.safetensors")["epoch"] == 1


def test_progress_bar_says_what_matters(capsys):
    t = trainer()
    t.quiet, t.label = False, "tiny"
    t.fit(1)
    text = capsys.readouterr().err
    for part in ("tiny, epoch 1/1", "100%", "images/s", "left", "loss", "accuracy"):
        assert part in text


# ------------------------------------------------------------------------------------ checkpoints


def test_checkpoints_that_do_not_fit(tmp_path):
    t = trainer(tmp_path)
    path = t.save()
    good = mr.load(path)

    def write(**changes):
        mr.save({**good, **changes}, path)
        return path

    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.read(write(format=99))
    mr.save({"w": mr.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"checkpoint.safetensors: is no checkpoint"):
        checkpoint.read(path)
    mr.save({"weight": mr.ones(1)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        trainer().load(tmp_path / "other")
    with pytest.raises(CheckpointError, match="does not fit: it holds no optimizer"):
        trainer().load(write(optimizer=None))
    with pytest.raises(CheckpointError, match=r"checkpoint.safetensors: does not fit"):
        trainer(job=TINY.with_(batch_size=8)).load(write())
    wide = {**TINY.options, "widths": (8, 12)}
    with pytest.raises(CheckpointError, match="does not fit"):
        trainer(job=TINY.with_(options=wide)).load(path)
    with pytest.raises(CheckpointError, match="another version"):
        load_model(write(config={"nonsense": 1}))
    with pytest.raises(CheckpointError, match="another version"):
        load_model(write(model_config={"name": "nothing"}))


def test_load_model_gives_the_same_answers(tmp_path):
    t = trainer(tmp_path)
    t.fit(1)
    model, job, classes = load_model(tmp_path)
    assert job == TINY and classes == list("0123456789") and not model.training
    source = open_source(job)
    assert measure(job, model, source) == measure(TINY, t.model, source)


# ------------------------------------------------------------------------------------ whole jobs


def test_run_leaves_everything(tmp_path):
    lines = []
    result = run(TINY, tmp_path, quiet=True, log=lines.append)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "metrics.csv", "results.json", "curves.png", "masks.png", "checkpoint.safetensors"}
    assert jobs.read_job(tmp_path) == (TINY, False)
    assert json.loads((tmp_path / "results.json").read_text())["residual"]["accuracy"] == result.accuracy
    assert run(TINY, tmp_path, quiet=True, log=lines.append) == result  # finished: measured again, not trained again
    assert any("continuing after 2 of 2" in line for line in lines)
    text = table({"residual": result})
    assert "residual attention (ARL)" in text and f"{result.accuracy:.1%}" in text and "chance" in text


def test_compare_trains_all_three_alike(tmp_path):
    job = TINY.with_(epochs=1)
    results = compare(job, tmp_path, quiet=True, log=lambda line: None)
    assert list(results) == ["residual", "naive", "none"]
    assert (tmp_path / "curves.png").exists() and (tmp_path / "none" / "masks.png").exists()
    text = table(results)
    assert "naive attention (NAL)" in text and "no masks" in text
    assert list(results["none"].modules[0].pointing) == ["F"]
    assert jobs.read_job(tmp_path) == (job, True)
    again = compare(job, tmp_path, quiet=True, log=lambda line: None)
    assert again == results


def test_run_directories_are_never_reused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = jobs.new_directory(), jobs.new_directory()
    assert first != second and first.parent.name == "runs"
    assert jobs.new_directory("mine").is_dir() and jobs.new_directory("mine").is_dir()  # empty: nothing to lose
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ValueError, match="--resume mine"):
        jobs.new_directory("mine")
    with pytest.raises(CheckpointError, match="is no run to continue"):
        jobs.read_job(tmp_path / "mine")
    (tmp_path / "mine" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        jobs.read_job(tmp_path / "mine")


def test_jobs_check_their_values():
    assert Job.from_dict(json.loads(json.dumps(DIGITS.to_dict()))).to_dict() == DIGITS.to_dict()
    for preset in PRESETS.values():
        assert preset.with_(epochs=None) == preset
    bad = {"data": "mnist", "epochs": 0, "lr": float("nan"), "noise": -1.0, "warmup": 1.0, "seed": -1}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=name):
            DIGITS.with_(**{name: value})
    with pytest.raises(ValueError, match="root"):
        Job(data="cifar10")
    with pytest.raises(ValueError, match="'nonsense'"):
        Job.from_dict({"nonsense": 1})


def test_schedules_of_jobs():
    source = open_source(TINY)
    steps = 2 * len(source.train)
    rates = {}
    for name in ("cosine", "multistep", "constant"):
        t = build_trainer(TINY.with_(schedule=name, warmup=0.5, milestones=(0.8,), optimizer="sgd", lr=1.0), source)
        rates[name] = []
        for _ in range(steps):
            rates[name] += t.schedule.get_last_lr()
            t.schedule.step()
    assert all(r[0] == pytest.approx(0.01) and r[3] == 1.0 for r in rates.values())
    assert rates["constant"][-1] == 1.0 and rates["multistep"][-1] == pytest.approx(0.1) and 0 < rates["cosine"][-1] < 0.5
    assert CIFAR.with_(data="cifar100").milestones == (0.4, 0.6)


def test_the_rate_after_a_resume_counts_new_images_only(monkeypatch):
    monkeypatch.setattr("tqdm.std.tqdm.status_printer", lambda *args: lambda text: None)
    with Progress("", 1_000_000, False, 900_000) as progress:
        progress.advance(10, 0, 1, (1.0, 0.5))
        values = progress._bar.format_dict
    assert (values["initial"], values["n"]) == (900_000, 900_010)


def test_a_comparison_needs_a_choice(tmp_path):
    with pytest.raises(ValueError, match="resnet164 offers no choice of attention"):
        compare(TINY.with_(model="resnet164"), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()
