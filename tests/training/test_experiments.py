"""Experiments: the rule of the verdict, the store from which a killed run goes on, tables, each experiment's own trick."""

from __future__ import annotations

import csv
import io
import json
import math
import random

import numpy as np
import pytest

import minires as mr
from minires import cli, models, nn
from minires.errors import DataError
from minires.training import attribution, experiments
from minires.training.experiments import label_noise, runner, scales, statistics, store, trial, upsampling, wiring
from minires.training.experiments.experiment import Column, Experiment, Measured, Variant
from minires.training.experiments.report import csv_table, markdown_table
from minires.training.experiments.statistics import Contrast, Estimate, combine, estimate
from minires.training.sources import open_source
from tests.training import write_experiment_docs

SCALES = ("micro", *scales.SCALES)
CONFIRMED, NOT_CONFIRMED, UNDECIDED = statistics.CONFIRMED, statistics.NOT_CONFIRMED, statistics.UNDECIDED


# ------------------------------------------------------------------------------------ the rule


def test_the_standard_error_is_that_of_a_mean():
    found = estimate([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3 and found.count == 4
    assert found.error == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)
    assert estimate([5.0]) == Estimate(5.0, None, 1)
    with pytest.raises(ValueError, match="no value"):
        estimate([])


def test_the_errors_of_a_difference_add_in_squares():
    found = combine([1, -2], [Estimate(5, 0.3, 3), Estimate(1, 0.2, 4)], 10)
    assert found.mean == 13 and found.count == 3 and found.error == pytest.approx(0.5)
    assert combine([1, 1], [Estimate(5, 0.3, 3), Estimate(1, None, 1)]).error is None


def test_the_verdict_turns_round_with_the_claim():
    dice = random.Random(0)
    opposite = {CONFIRMED: NOT_CONFIRMED, NOT_CONFIRMED: CONFIRMED, UNDECIDED: UNDECIDED}
    seen = set()
    for _ in range(300):
        value = Estimate(dice.uniform(-3, 3), dice.uniform(0, 1), 3)
        said = statistics.verdict([value])
        seen.add(said)
        assert statistics.verdict([value.scaled(-1)]) == opposite[said]
        assert statistics.verdict([value.scaled(100)]) == said, "the unit does not matter"
    assert seen == set(opposite)


def test_equal_numbers_and_a_single_seed_decide_nothing():
    assert statistics.verdict([combine([1, -1], [estimate([0.3, 0.3, 0.3])] * 2)]) == UNDECIDED
    assert statistics.verdict([combine([1, -1], [estimate([0.9]), estimate([0.1])])]) == UNDECIDED
    assert statistics.verdict([]) == UNDECIDED
    assert statistics.verdict([Estimate(2.0, 1.0, 3)]) == UNDECIDED, "exactly at the border"


def test_one_contrary_difference_is_enough_and_one_undecided_too():
    yes, no, open_ = Estimate(5, 1, 3), Estimate(-5, 1, 3), Estimate(1, 1, 3)
    assert statistics.verdict([yes, yes]) == CONFIRMED
    assert statistics.verdict([yes, open_]) == UNDECIDED
    assert statistics.verdict([yes, open_, no]) == NOT_CONFIRMED


# ------------------------------------------------------------------------------------ tables


def rows(**values):
    return {name: [Measured({"error": value, "macs": 2e6}) for value in several] for name, several in values.items()}


def test_a_table_in_markdown_and_as_csv():
    results = {**rows(ours=[0.10, 0.14]), "|F|": [Measured({"macs": 1.0})]}
    text = markdown_table(results, (Column("error", "test error, %", 100), Column("macs", "MAC", digits=None)))
    assert text.splitlines() == [
        "|       | test error, % |       MAC |",
        "| :---- | ------------: | --------: |",
        "| ours  |  12.00 ± 2.00 | 2,000,000 |",
        "| \\|F\\| |               |         1 |",
    ]
    table = list(csv.DictReader(io.StringIO(csv_table(results))))
    assert [row["variant"] for row in table] == ["ours", "|F|"]
    assert float(table[0]["error_mean"]) == 0.12 and float(table[0]["error_standard_error"]) == pytest.approx(0.02)
    assert [table[0]["error_trial_0"], table[0]["error_trial_1"]] == ["0.1", "0.14"]
    assert table[1]["error_mean"] == "" and table[1]["macs_standard_error"] == "" and table[1]["macs_trial_1"] == ""


# ------------------------------------------------------------------------------------ a whole run


@pytest.fixture(scope="module")
def upsampling_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("upsampling")
    lines = []
    return experiments.run(experiments.find("upsampling"), "micro", 1, out, log=lines.append), out, lines


def test_a_run_leaves_table_figure_configuration_and_verdict(upsampling_run):
    report, out, lines = upsampling_run
    assert len(lines) == 4 and lines[-1].startswith("[4/4] deconv, learned, seed 0: test error ")
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "table.md").read_text()
    assert f"**Verdict: {report.verdict}**" in text and report.verdict in (CONFIRMED, NOT_CONFIRMED, UNDECIDED)
    assert "minires experiment upsampling --scale micro --seeds 1" in text and "| bilinear" in text
    assert [row["variant"] for row in csv.DictReader(io.StringIO((out / "table.csv").read_text()))] == list(report.results)
    config = json.loads((out / "config.json").read_text())
    assert config["seeds"] == 1 and config["rule"] == statistics.RULE
    assert config["variants"]["nearest"]["job"]["options"]["upsample"] == "nearest"
    assert not list(out.rglob("*.safetensors")), "a finished trial needs no checkpoint"


def test_a_run_becomes_a_section_of_the_docs(upsampling_run, tmp_path, monkeypatch):
    report, out, _ = upsampling_run
    monkeypatch.setattr(write_experiment_docs, "DOCS", tmp_path)
    write_experiment_docs.main([str(out)])
    page = (tmp_path / "experiments.md").read_text()
    assert (tmp_path / "images" / "experiments" / "upsampling.png").exists() and "## upsampling" in page
    assert f"| {report.verdict} |" in page and page.count("| not run |") == len(experiments.EXPERIMENTS) - 1
    assert page.count("minires experiment upsampling --scale micro --seeds 1") == 1


def test_what_is_finished_is_not_run_again_and_seeds_can_be_added(upsampling_run, monkeypatch):
    report, out, _ = upsampling_run
    made = []

    def pretended(experiment, variant, job, *rest):
        made.append((variant.name, job.seed))
        return report.results[variant.name][0]

    monkeypatch.setattr(runner, "run_trial", pretended)
    (out / "trials" / "nearest" / "seed-0.json").unlink()
    experiments.run(experiments.find("upsampling"), "micro", 2, out, log=str)
    assert made == [("nearest", 0), ("bilinear", 1), ("nearest", 1), ("deconv, frozen", 1), ("deconv, learned", 1)]


def test_results_of_another_configuration_are_refused(upsampling_run, monkeypatch):
    _, out, _ = upsampling_run
    longer = scales._JOBS["micro"].with_(epochs=5)
    monkeypatch.setitem(scales._JOBS, "micro", longer)
    with pytest.raises(DataError, match="another configuration"):
        experiments.run(experiments.find("upsampling"), "micro", 2, out, log=str)
    path = out / "trials" / "bilinear" / "seed-0.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"seed-0\.json: is no result"):
        experiments.run(experiments.find("upsampling"), "micro", 2, out, log=str)


def test_a_killed_trial_goes_on_from_its_checkpoint_and_ends_the_same(tmp_path, monkeypatch):
    experiment = experiments.find("wiring")
    variant = experiment.variants("micro")[1]  # the one whose network was changed after it was made
    job = store.job_of(variant, 1, None, "cpu")
    whole = trial.run_trial(experiment, variant, job, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def prepared(*args):
        trainer, source = prepare(*args)
        trainer.callbacks.append(lambda trainer, row: (_ for _ in ()).throw(KilledError))
        return trainer, source

    prepare = trial.prepare
    monkeypatch.setattr(trial, "prepare", prepared)
    with pytest.raises(KilledError):
        trial.run_trial(experiment, variant, job, tmp_path / "part")
    monkeypatch.setattr(trial, "prepare", prepare)
    assert (tmp_path / "part" / "checkpoint.safetensors").exists()
    rest = trial.run_trial(experiment, variant, job, tmp_path / "part")
    assert len(rest.extra["history"]) == job.epochs == 2
    for name in ("error", "loss", "train_error", "parameters", "macs"):
        assert rest.numbers[name] == whole.numbers[name], name


def test_masks_are_measured_beside_chance(tmp_path):
    report = experiments.run(experiments.find("localisation"), "micro", 1, tmp_path, log=str)
    assert report.verdict == UNDECIDED, "one seed decides nothing"
    kinds = ("M", "(1 + M)·F", "|F|", "Grad-CAM")
    assert list(report.rows) == [*(f"{kind}, module {i}" for i in (1, 2) for kind in kinds), "input saliency", "chance"]
    for (trial_,) in report.rows.values():
        assert 0 <= trial_.numbers["pointing"] <= 1 and 0 <= trial_.numbers["energy"] <= 1
    chance = report.rows["chance"][0].numbers
    assert chance["pointing"] == chance["energy"] == pytest.approx((11 / 17) ** 2, rel=0.1)
    assert (tmp_path / "figure.png").exists()


# ------------------------------------------------------------------------------------ the experiments


@pytest.mark.parametrize("name", list(experiments.EXPERIMENTS))
@pytest.mark.parametrize("scale", SCALES)
def test_names_fit_together_at_every_scale(name, scale):
    experiment = experiments.find(name)
    variants = experiment.variants(scale)
    files = [store.slug(variant.name) for variant in variants]
    assert len(set(files)) == len(files) and all(files)
    for variant in variants:
        assert set(variant.job.options) <= set(models.arguments(variant.job.model))
        json.dumps(store.configuration(variant))
    if name != "localisation":
        for contrast in experiment.contrasts(variants):
            assert set(contrast.weights) <= {variant.name for variant in variants}
            assert math.isclose(sum(contrast.weights.values()), 0, abs_tol=1e-12), "all equal must give 0"


def test_the_paper_s_networks_are_what_the_paper_trains():
    wanted = {
        "depth": {"m = 1": 1_030_394, "m = 3": 2_652_154, "ResNet": 1_703_258},
        "label-noise": {"attention, 50% noise": 1_841_274},
    }
    for name, counts in wanted.items():
        jobs = {variant.name: variant.job for variant in experiments.find(name).variants("paper")}
        for variant, count in counts.items():
            job = jobs[variant]
            assert (job.epochs, job.batch_size, job.lr, job.milestones) == (205, 64, 0.1, (0.4, 0.6))
            assert nn.count_parameters(models.build(job.model, **job.options)) == count


def test_noise_keeps_the_other_labels_and_is_drawn_once():
    labels = np.arange(20_000) % 10
    noisy = label_noise.with_noise(labels, 10, 0.3, seed=1)
    assert np.array_equal(noisy, label_noise.with_noise(labels, 10, 0.3, seed=1))
    wrong = noisy != labels
    assert wrong.mean() == pytest.approx(0.3, abs=0.01)
    shifts = np.bincount((noisy - labels)[wrong] % 10, minlength=10)
    assert shifts[0] == 0 and shifts[1:] / wrong.sum() == pytest.approx(np.full(9, 1 / 9), abs=0.012)
    assert np.array_equal(label_noise.with_noise(labels, 10, 0.0, 1), labels)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A directory with 10 small files of CIFAR-10's form, and networks small enough for it."""
    dice = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = dice.integers(0, 256, (8, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(tmp_path / name)
    small = scales._JOBS["cifar"].with_(epochs=1, batch_size=20, options={"widths": (8, 8, 8), "stem": 4})
    monkeypatch.setitem(scales._JOBS, "cifar", small)
    return str(tmp_path)


def test_the_larger_scales_read_cifar(cifar, tmp_path):
    report = experiments.run(experiments.find("mask-shape"), "cifar", 1, tmp_path / "out", root=cifar, log=str)
    assert [len(trials) for trials in report.results.values()] == [1, 1, 1]
    assert cifar not in (tmp_path / "out" / "config.json").read_text(), "where files lie decides nothing"
    variant = experiments.find("label-noise").variants("cifar")[3]
    source = open_source(store.job_of(variant, 0, cifar, "cpu"))
    before = source.train.dataset.labels
    experiments.find("label-noise").change_source(source, variant, 0)
    assert 15 < (source.train.dataset.labels != before).sum() < 40


def test_noise_reaches_training_digits_and_not_the_test():
    experiment = experiments.find("label-noise")
    variant = next(v for v in experiment.variants("micro") if v.settings["noise"] == 0.7)
    clean, source = open_source(variant.job), open_source(variant.job)
    experiment.change_source(source, variant, seed=0)
    assert (source.train.dataset.digits.labels != clean.train.dataset.digits.labels).mean() == pytest.approx(0.7, abs=0.05)
    assert np.array_equal(source.test.dataset.labels, clean.test.dataset.labels)


def test_the_gradient_that_passes_a_mask_is_known_where_the_mask_is():
    mr.manual_seed(0)
    model = models.small_attention(widths=(8, 8), depths=(2, 1), stem=4, after=0, p=0, t=1)
    x = mr.Tensor(np.random.default_rng(0).normal(size=(3, 1, 17, 17)).astype(np.float32))
    for value in (0.0, 0.25, 1.0):
        with nn.force_mask(model, value):
            np.testing.assert_allclose(label_noise.passed_gradient(model, x, np.array([1, 2, 3])), 1 + value, rtol=1e-5)
    passed = label_noise.passed_gradient(model, x, np.array([1, 2, 3]))
    assert passed.shape == (3,) and ((passed > 1) & (passed < 2)).all()
    assert model.training and all(p.grad is None for p in model.parameters())


def test_the_frozen_deconvolution_stays_bilinear_and_the_learned_one_moves():
    experiment = experiments.find("upsampling")
    moved = {}
    for variant in experiment.variants("micro")[2:]:
        trainer, _ = trial.prepare(experiment, variant, variant.job, None, True)
        before = {name: kernel.data.copy() for name, kernel in upsampling.kernels_of(trainer.model).items()}
        assert before
        trainer.fit(1)
        after = upsampling.kernels_of(trainer.model)
        moved[variant.name] = [not np.array_equal(before[name], after[name].data) for name in before]
    assert not any(moved["deconv, frozen"]) and all(moved["deconv, learned"])


def test_the_ports_wiring_has_the_same_weights_and_adds_two_terms():
    mr.manual_seed(0)
    model = models.small_attention(widths=(8, 8), depths=(2, 1), stem=4, after=0, p=0, t=1).eval()
    weights = {name: id(p) for name, p in model.named_parameters()}
    x = mr.Tensor(np.random.default_rng(0).normal(size=(2, 1, 17, 17)).astype(np.float32))
    ours = model.masks(x)
    wiring.rewire(model)
    assert {name: id(p) for name, p in model.named_parameters()} == weights
    module = model.stage2[0]  # its mask has one pooling, so there is only the second addition
    h = mr.Tensor(np.random.default_rng(1).normal(size=(2, 8, 5, 5)).astype(np.float32))
    mask, trunk = module.mask, module.trunk(h)
    wanted = mr.functional.sigmoid(mask.head(mask.resize0(mask.bottom(mask.pool(h)), (5, 5)) + trunk))
    np.testing.assert_allclose(mask(h, trunk=trunk).data, wanted.data, rtol=1e-6)
    np.testing.assert_allclose(module(h).data, (trunk * (1 + wanted)).data, rtol=1e-5)
    ports = model.masks(x)
    assert [m.name for m in ports] == [m.name for m in ours] and not np.allclose(ports[0].mask.data, ours[0].mask.data)
    np.testing.assert_array_equal(ports[0].trunk.data, ours[0].trunk.data)
    with pytest.raises(ValueError, match="residual attention"):
        wiring.rewire(models.small_attention(attention="none"))


# ------------------------------------------------------------------------------------ where a network looks


def test_grad_cam_and_saliency_by_hand():
    """A network whose answer is written down: class 0 is the mean of channel 0, class 1 minus that of channel 1."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[0].weight.data = np.array([[1, 0], [0, -1]], np.float32).reshape(2, 2, 1, 1)
    images = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
    found = attribution.attribute(model, images, ["0"], [0, 0, 1])
    features = images * np.array([1, -1], np.float32)[:, None, None]
    wanted = np.stack([features[0, 0], features[1, 0], features[2, 1]]).clip(0) / 20
    np.testing.assert_allclose(found.cams["0"], wanted, rtol=1e-5)
    np.testing.assert_allclose(found.saliency, np.full((3, 4, 5), 1 / 20), rtol=1e-5)
    assert model.training and all(p.grad is None for p in model.parameters())
    chosen = attribution.attribute(model, images).classes
    np.testing.assert_array_equal(chosen, model(mr.Tensor(images)).data.argmax(axis=1))


def test_wrong_questions_to_a_network_are_answered_in_one_line():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="no layer 'nine'"):
        attribution.attribute(model, np.zeros((1, 1, 4, 4), np.float32), ["nine"])
    with pytest.raises(ValueError, match="at least one"):
        attribution.attribute(model, np.zeros((0, 1, 4, 4), np.float32))


# ------------------------------------------------------------------------------------ the command


def test_the_command_lists_the_experiments_with_their_claims(capsys):
    assert cli.main(["experiment"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(experiments.EXPERIMENTS)
    assert len(lines) == 9 and "Table 3" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mnist"], "unknown experiment 'mnist'; there are naive-vs-residual, vanishing-features, activations"),
        (["depth", "--seeds", "0"], "--seeds: expected at least 1"),
        (["depth", "--scale", "cifar"], "--scale cifar needs --data"),
        (["depth", "--data", "somewhere"], "leave out --data"),
        (["depth", "--scale", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, said, capsys):
    assert cli.main(["experiment", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_the_command_runs_and_prints_the_verdict(tmp_path, capsys):
    assert cli.main(["experiment", "mask-shape", "--scale", "micro", "--seeds", "1", "--out", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "encoder–decoder" in out and "million MAC" in out and "undecided at this scale: an encoder–decoder mask" in out


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_trial", interrupted)
    assert cli.main(["experiment", "wiring", "--scale", "micro", "--out", str(tmp_path)]) == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err


def test_another_experiment_needs_four_methods_at_most():
    class Nothing(Experiment):
        name, claim, source = "nothing", "nothing differs from nothing", "nowhere"

        def variants(self, scale):
            return [Variant("a", scales.network(scale)), Variant("b", scales.network(scale))]

        def contrasts(self, variants):
            return [Contrast("b above a", "error", {"b": 1, "a": -1})]

        def draw(self, results, variants, path):
            raise NotImplementedError

    experiment = Nothing()
    variants = experiment.variants("micro")
    findings, said = runner.judge(experiment, variants, rows(a=[0.5, 0.5], b=[0.5, 0.5]))
    assert said == UNDECIDED and findings[0].value.mean == 0


@pytest.mark.parametrize("content", ['{"experiment": "wiring"}', '{"epochs": 3}', "no JSON"])
def test_a_directory_of_something_else_is_left_alone(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match="choose another directory"):
        experiments.run(experiments.find("activations"), "micro", 1, str(tmp_path))
    assert (tmp_path / "config.json").read_text() == content
