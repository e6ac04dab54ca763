"""The commands about translation, right and wrong. Wrong is one line, exit code 2, and no traceback."""

from __future__ import annotations

import pytest

from minires import cli
from minires.training import translation
from minires.training import translation_runs as runs
from tests.training.tiny_translation import TINY_NUMERALS

QUICK = ["train", "--data", "numerals", "--quiet"]


@pytest.fixture(autouse=True)
def small_job(monkeypatch, tmp_path):
    monkeypatch.setattr(translation, "NUMERALS", TINY_NUMERALS)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    runs.run(TINY_NUMERALS, directory, quiet=True, log=lambda line: None)
    return directory


def run(*arguments, capsys):
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def refused(*arguments, capsys):
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2 and not out and err.count("\n") == 1 and err.startswith("minires"), err
    return err


def test_train_and_translate(capsys):
    options = ["--epochs", 1, "--out", "runs/mine", "--direction", "zh-en", "--attention", "dot"]
    code, out, err = run(*QUICK, *options, capsys=capsys)
    assert code == 0 and not err and "numerals, zh-en, 1 epoch of 120 numbers" in out and "dot-product attention" in out
    for name in ("config.json", "metrics.csv", "curves.png", "errors.png", "alignment.png", "checkpoint.safetensors"):
        assert (runs.Path("runs/mine") / name).stat().st_size > 0 and name in out
    code, out, err = run("translate", "三百二十一", capsys=capsys)  # from the newest run
    assert code == 0 and not err and out.count("\n") == 1
    assert runs.read_job(runs.Path("runs/mine"))[0] == TINY_NUMERALS.with_(epochs=1, direction="zh-en", attention="dot")


def test_compare_and_resume(monkeypatch, capsys):
    for draws in ("_draw_curves", "_draw_errors", "draw_alignment"):  # tests/training looks at those
        monkeypatch.setattr(runs, draws, lambda *anything: None)
    code, out, _ = run(*QUICK, "--compare", "--epochs", 1, "--out", "two", capsys=capsys)
    assert code == 0 and "no attention" in out
    checkpoints = [runs.Path("two") / kind / "checkpoint.safetensors" for kind in ("additive", "none")]
    before = [path.stat().st_mtime_ns for path in checkpoints]
    code, again, _ = run("train", "--quiet", "--resume", "two", capsys=capsys)
    assert [path.stat().st_mtime_ns for path in checkpoints] == before  # what is complete is not trained again
    assert code == 0 and out.split("network")[1].split("total")[0] == again.split("network")[1].split("total")[0]
    code, translated, _ = run("translate", "--checkpoint", "two", "one", capsys=capsys)  # by the one with attention
    assert code == 0 and translated == run("translate", "--checkpoint", "two/additive", "one", capsys=capsys)[1]
    assert "--resume continues a run with its own settings; leave out --epochs, --compare" in refused(
        "train", "--resume", "two", "--epochs", 3, "--compare", capsys=capsys
    )


def test_align_draws_a_picture(trained, capsys):
    options = ["--checkpoint", trained, "--align", "out.png"]
    code, out, _ = run("translate", *options, "three hundred and twenty-one", capsys=capsys)
    assert code == 0 and out.count("\n") == 1 and runs.Path("out.png").stat().st_size > 0
    code, greedy, _ = run("translate", "--checkpoint", trained, "--beam", 1, "three", "hundred", capsys=capsys)
    assert code == 0 and greedy.count("\n") == 1


def test_an_unknown_word_is_named(trained, capsys):
    err = refused("translate", "--checkpoint", trained, "three hundrd and one", capsys=capsys)
    assert "unknown word 'hundrd'; the nearest known one is hundred" in err and "from English to Chinese" in err
    assert "unknown word '三'" in refused("translate", "--checkpoint", trained, "三", capsys=capsys)
    assert "expected a text" in refused("translate", "--checkpoint", trained, "", capsys=capsys)


def test_what_is_refused(trained, tmp_path, capsys):
    assert "there is no trained translator in runs/" in refused("translate", "one", capsys=capsys)
    assert "no such file" in refused("translate", "--checkpoint", "nowhere", "one", capsys=capsys).lower()
    assert "invalid choice: 'en-fr'" in refused(*QUICK, "--direction", "en-fr", capsys=capsys)
    assert "--compare needs attention" in refused(*QUICK, "--compare", "--attention", "none", capsys=capsys)
    assert "exists already" in refused(*QUICK, "--out", trained, capsys=capsys)
    assert "unrecognized arguments: --clutter" in refused(*QUICK, "--clutter", 3, capsys=capsys)
    assert "width of at least 1" in refused("translate", "--beam", 0, "--checkpoint", trained, "one", capsys=capsys)
    assert "hidden: expected a whole number of at least 1" in refused(*QUICK, "--hidden", 0, capsys=capsys)
    assert not runs.Path("runs").exists()


def test_help(capsys):
    assert "--direction" in run("train", "--data", "numerals", "--help", capsys=capsys)[1]
    assert "numerals" in run("train", "--help", capsys=capsys)[1]
    assert "--align" in run("translate", "--help", capsys=capsys)[1]
    assert "translate" in run("--help", capsys=capsys)[1] and "translate TEXT" in run(capsys=capsys)[1]


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    monkeypatch.setattr(runs, "draw_alignment", lambda *anything: None)
    make = translation.TranslationTrainer._make_step

    def interrupted(self, batch):
        if self.step == 9:
            raise KeyboardInterrupt
        return make(self, batch)

    monkeypatch.setattr(translation.TranslationTrainer, "_make_step", interrupted)
    code, _, err = run(*QUICK, "--out", "mine", capsys=capsys)
    assert code == 130 and err.count("\n") == 1 and "stopped in epoch 2" in err and "--resume mine" in err
    monkeypatch.setattr(translation.TranslationTrainer, "_make_step", make)
    code, out, _ = run("train", "--quiet", "--resume", "mine", capsys=capsys)
    assert code == 0 and "continuing after 1 of 2 epochs" in out


def test_which_commands_are_about_translation(trained):
    from minires.translate import is_translation

    assert is_translation(["translate"]) and is_translation(["train", "--data=numerals", "--epochs", "3"])
    assert is_translation(["train", "--resume", str(trained)])
    for other in ([], ["train"], ["train", "--data", "digits"], ["train", "--out", "numerals"], ["train", "--data"],
                  ["train", "--resume", "nowhere"], ["evaluate", "--data", "numerals"]):  # fmt: skip
        assert not is_translation(other)
