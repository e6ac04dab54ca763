"""``minires bench`` as it is typed, on the CPU and with as little as possible."""

from __future__ import annotations

import json

import pytest

from minires import cli, models
from minires.bench import command, networks
from minires.bench.networks import Network


@pytest.fixture(autouse=True)
def little(monkeypatch):
    tiny = Network("tiny", "tiny, batch 2", lambda: models.small_attention(3, widths=(8,), depths=(1,)), 2, (1, 16, 16), 3)
    monkeypatch.setattr(networks, "of_device", lambda kind, quick: [tiny])
    monkeypatch.setattr(command, "_CPU_SIZES", (1 << 16, 32, 1, 2))
    monkeypatch.setattr(command, "find_spec", lambda name: None)  # PyTorch is measured by hand only


def test_a_run_prints_and_writes_everything(capsys, tmp_path):
    assert cli.main(["bench", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    (group,) = found["steps"]
    assert group["rows"][0]["name"] == "minires"
    assert group["rounds"] == 5
    assert len(group["rows"][0]["seconds"]) == 5
    assert found["ceilings"]["copy"] > 0
    assert found["machine"]["numpy"]
    text = capsys.readouterr().out
    assert "PyTorch is not installed, so minires is measured alone" in text
    assert "tiny, batch 2, fp32" in text
    assert "kernels" not in text  # a column without any number


def test_one_part_alone(capsys):
    assert cli.main(["bench", "--only", "ceilings"]) == 0
    text = capsys.readouterr().out
    assert "copy of large arrays" in text
    assert "ms a step" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
