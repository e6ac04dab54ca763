"""The figures of the lessons: panels side by side, lines named at their ends, windows on a row of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires.functional import max_pool2d
from minires.viz.lines import lines
from minires.viz.panels import panels
from minires.viz.windows import windows

PHOTO = np.arange(3 * 8 * 6, dtype=np.uint8).reshape(3, 8, 6)


def texts(figure: Any) -> list[str]:
    return [t.get_text() for t in figure.texts] + [t.get_text() for axes in figure.axes for t in axes.texts]


def test_panels_name_every_map_and_its_size(tmp_path: Path) -> None:
    maps = {"photo": PHOTO, "grey": np.zeros((1, 4, 5)), "map": mr.tensor(np.eye(3)), "gate": np.full((2, 7), 0.25)}
    figure = panels(maps, tmp_path / "panels.png", kind={"gate": "mask"}, columns=2)
    assert (tmp_path / "panels.png").read_bytes().startswith(b"\x89PNG")
    assert {"photo", "8 × 6", "grey", "4 × 5", "map", "3 × 3", "gate", "2 × 7"} <= set(texts(figure))
    assert len(figure.axes) == 4 + 2  # colour bars for the maps alone


@pytest.mark.parametrize(("kind", "limits", "ends"), [
    ("feature", None, (-1, 3)), ("feature", (-2.0, 9.0), (-2, 9)), ("mask", None, (0, 1)), ("signed", None, (-3, 3)),
    ("image", None, (0, 1)),
])  # fmt: skip
def test_panels_scales(kind: str, limits: Any, ends: tuple[float, float]) -> None:
    figure = panels({"m": np.array([[-1.0, 0.0], [1.0, 3.0]])}, kind=kind, limits=limits)
    norm = figure.axes[0].images[0].norm
    assert (norm.vmin, norm.vmax) == ends


def test_panels_numbers_signs_and_boxes() -> None:
    maps = {"A": np.array([[1.0, 1 / 3], [-0.001, 12345.0]]), "B": np.zeros((2, 4))}
    boxes = {"A": (0, 0, 1, 1), "B": {"left": (0, 0, 2, 2)}}
    figure = panels(maps, numbers=True, between=("=",), to_scale=True, boxes=boxes)
    assert {"1", "0.33", "−1e−3", "1e4", "=", "left"} <= set(texts(figure))
    a, b = (axes.get_position() for axes in figure.axes)
    assert np.isclose(2 * a.width, b.width) and np.isclose(a.height, b.height)  # to scale: 2 and 4 pixels wide


def test_panels_refuse_what_they_cannot_draw() -> None:
    for maps in ({}, {"m": np.zeros(3)}, {"m": np.zeros((2, 4, 4))}):
        with pytest.raises(ValueError, match="panels"):
            panels(maps)
    with pytest.raises(ValueError, match="kind must be one of"):
        panels({"m": np.eye(2)}, kind="jet")


def test_lines_are_named_and_keep_their_colour(tmp_path: Path) -> None:
    x = np.arange(1, 6)
    charts = {"one": {"a": (x, x), "b": (x, x + 0.01)}, "two": {"b": (x, mr.tensor(1.0 / x))}}
    figure = lines(charts, tmp_path / "lines.png", xlabel=["step", "depth"], log=True, markers=True)
    left, right = figure.axes
    assert {"a", "b"} <= {t.get_text() for t in left.texts} and left.get_xlabel() == "step"
    assert left.lines[1].get_color() == right.lines[0].get_color() != left.lines[0].get_color()
    first, second = sorted(t.get_position()[1] for t in left.texts)
    assert second - first > 0.08  # names of lines that end together do not overlap
    assert (tmp_path / "lines.png").exists()
    with pytest.raises(ValueError, match="nothing to draw"):
        lines({"empty": {}})


@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("size", [3, 4, 7, 8, 9])
def test_windows_counts_as_pooling_does(size: int, ceil_mode: bool, tmp_path: Path) -> None:
    count = max_pool2d(np.zeros((1, 1, size, size)), 3, stride=2, ceil_mode=ceil_mode).shape[-1]
    figure = windows(size, 3, 2, ceil_mode, tmp_path / "windows.png")
    assert f"{size} pixels → {count} windows" in texts(figure)
