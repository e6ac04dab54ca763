"""``minires bench`` as it is typed, on the CPU and with as little as possible."""

from __future__ import annotations

import json

import pytest

from minires import cli, models
from minires.bench import cases, command, memory, networks, options, peers, scaling
from minires.bench.cases import Case
from minires.bench.networks import Network


@pytest.fixture(autouse=True)
def little(monkeypatch):
    tiny = Network("tiny", "tiny, batch 2", lambda: models.small_attention(3, widths=(8,), depths=(1,)), 2, (1, 16, 16), 3)
    monkeypatch.setattr(networks, "of_device", lambda kind, quick: [tiny])
    monkeypatch.setattr(command, "_CPU_SIZES", (1 << 16, 32, 1, 2))
    monkeypatch.setattr(command, "find_spec", lambda name: None)  # PyTorch is measured by hand only
    monkeypatch.setattr(peers, "NAMES", ("minires",))
    pool = Case("avgpool", "average pooling", "avg_pool2d", ((2, 3, 8, 8),), {"size": 2})
    monkeypatch.setattr(cases, "cases", lambda: (pool,))
    peak = {"before": 1 << 20, "peak": 1 << 21, "method": "guessing"}
    monkeypatch.setattr(memory, "_in_process", lambda side, network: peak)
    sweep = scaling.Sweep("batch", "tiny by batch", "images", {2: tiny, 3: tiny, 4: tiny})
    monkeypatch.setattr(scaling, "sweeps", lambda quick: [sweep])


def test_a_run_prints_and_writes_everything(capsys, tmp_path):
    assert cli.main(["bench", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    (group,) = found["steps"]
    assert group["rows"][0]["name"] == "minires"
    assert group["rounds"] == 5
    assert len(group["rows"][0]["seconds"]) == 5
    assert found["ceilings"]["copy"] > 0
    assert found["machine"]["numpy"]
    assert group["flops"] > 0
    assert 0 < group["rows"][0]["of_product"] < 1
    (group,) = found["inference"]
    assert group["rows"][0]["of_copy"] > 0
    assert found["ops"]["cases"][0]["rows"][0]["backward"]["median"] > 0
    assert found["memory"][0]["rows"] == [
        {"name": "minires", "ratio": None, "before": 1 << 20, "peak": 1 << 21, "method": "guessing"}
    ]
    assert "scaling" not in found
    text = capsys.readouterr().out
    assert "PyTorch is not installed, so minires is measured alone" in text
    assert "average pooling             forward" in text
    assert "measured by guessing" in text
    assert "tiny, batch 2, fp32" in text
    assert "kernels" not in text  # a column without any number


def test_one_part_alone(capsys):
    assert cli.main(["bench", "--only", "ceilings"]) == 0
    text = capsys.readouterr().out
    assert "copy of large arrays" in text
    assert "ms a step" not in text


def test_scaling_is_written_read_and_drawn(capsys, tmp_path):
    written, picture = tmp_path / "found.json", tmp_path / "chart.png"
    assert cli.main(["bench", "--only", "scaling", "--quick", "--json", str(written)]) == 0
    (sweep,) = json.loads(written.read_text())["scaling"]
    assert [point["x"] for point in sweep["points"]] == [2, 3, 4]
    assert "no point is further from it than" in capsys.readouterr().out
    assert cli.main(["bench", "--read", str(written), "--plot", str(picture)]) == 0
    assert not picture.exists()  # no ratio was measured
    assert (tmp_path / "chart-scaling.png").stat().st_size > 1000


def test_the_parser_knows_the_peers():
    assert ("minires", *options.PEERS) == tuple(peers._CLASSES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peer-path", "dezero"], "expected NAME=DIR with one of torch, "),
        (["--peer-path", "dezero=/nowhere"], "/nowhere is no directory"),
        (["--read", "/nowhere.json"], "/nowhere.json: cannot be read"),
        (["--networks", "nobody"], "minires bench: --networks: 'nobody' is not one of tiny"),
        (["--device", "gpu"], "minires bench: device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        (["--seconds", "soon"], "expected a number above 0, got 'soon'"),
        (["--seconds", "-1"], "expected a number above 0, got '-1'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("option", "name"), [("--json", "."), ("--json", "missing/x.json"), ("--plot", "x.txt")])
def test_where_nothing_can_be_written_is_said_before_anything_is_measured(option, name, capsys, tmp_path):
    assert cli.main(["bench", "--quick", option, str(tmp_path / name)]) != 0
    captured = capsys.readouterr()
    assert f"{option} {tmp_path}" in captured.err
    assert not captured.out
