"""The pictures: that they show what they should, not just that a file appears."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import minires as mr
from minires import viz
from minires.errors import DataError
from minires.training import job as jobs
from minires.training.sources import open_source
from tests.training.tiny import TINY


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def network():
    source = open_source(TINY)
    return jobs.build_model(TINY, source).eval(), source


def test_importing_minires_does_not_import_matplotlib():
    code = "import sys, minires, minires.training, minires.viz, minires.cli; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_pyplot_is_never_touched(network, tmp_path):
    code = (
        "import sys, numpy as np\nfrom minires import viz, models\n"
        "m = models.build('small_attention', widths=(8, 8), depths=(1, 1), stem=4)\n"
        "viz.masks(m, np.zeros((1, 1, 16, 16), np.float32))\nprint('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_masks_sheet(network, tmp_path):
    model, source = network
    images, _, labels, boxes = source.first_test_images(3)
    path = tmp_path / "masks.png"
    figure = viz.masks(model, images, boxes, labels, path)
    picture = pixels(path)
    width = picture.shape[1]
    assert width == pytest.approx(figure.get_figwidth() * 150, abs=2) and 900 < width < 1300
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border == 255).all()  # nothing is cut off
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 3 * (1 + 2 * 3)
    shown = [axes.images[0].get_array() for axes in panels]
    maps = model.masks(mr.Tensor(images))
    np.testing.assert_allclose(shown[0], images[0, 0])
    np.testing.assert_allclose(shown[1], np.abs(maps[0].trunk.data[0]).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(shown[2], maps[0].mask.data[0].mean(axis=0), rtol=1e-5)
    attended = np.abs((1 + maps[0].mask.data[0]) * maps[0].trunk.data[0]).mean(axis=0)
    np.testing.assert_allclose(shown[3], attended, rtol=1e-4)
    for axes in panels:  # the true box, around the same pixels in every panel
        assert len(axes.patches) == 1
    y0, x0, y1, x1 = boxes[0]
    assert panels[0].patches[0].get_bbox().bounds == (x0 - 0.5, y0 - 0.5, x1 - x0, y1 - y0)
    texts = [text.get_text() for axes in figure.axes for text in (axes.title, axes.xaxis.label)]
    assert texts.count("mask M") == 2 and texts.count("(1 + M)·F") == 2 and any("predicted" in t for t in texts)


def test_masks_of_naive_attention_and_of_none(network):
    images = network[1].first_test_images(2)[0]
    for attention, panels, name in (("naive", 7, "M·F"), ("none", 3, None)):
        model = jobs.build_model(TINY.with_(attention=attention), network[1])
        figure = viz.masks(model, images, classes=list("abcdefghij"))
        titles = [axes.title.get_text() for axes in figure.axes]
        assert sum(bool(axes.images) for axes in figure.axes) == 2 * panels
        assert (name in titles) if name else ("mask M" not in titles)
        assert any("predicted " in axes.xaxis.label.get_text() for axes in figure.axes)
    assert figure._repr_png_()[:4] == b"\x89PNG"


def test_masks_refuses_what_it_cannot_draw(network):
    with pytest.raises(ValueError, match="at least one"):
        viz.masks(network[0], np.zeros((0, 1, 16, 16), np.float32))
    bare = jobs.build_model(TINY.with_(options={**TINY.options, "m": 0, "after": 1}), network[1])
    with pytest.raises(ValueError, match="no attention modules"):
        viz.masks(bare, np.zeros((1, 1, 16, 16), np.float32))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        viz.nothing  # noqa: B018


HEADER = "epoch,step,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds,images_per_second\n"


def test_curves(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        test = {1: "2.2,0.4", 2: ",", 3: "0.7,0.4"}
        rows = "".join(f"{e},{e},0.1,{2 / e},{1 - 0.5 / e},{test[e]},1,1\n" for e in (1, 2, 3))
        (tmp_path / name / "metrics.csv").write_text(HEADER + rows)
    runs = {"one": "a", "other": "b", "residual attention (ARL)": "a", "naive attention (NAL)": "b"}
    figure = viz.curves({name: tmp_path / run for name, run in runs.items()}, tmp_path / "curves.png")
    loss, accuracy = figure.axes
    assert len(loss.lines) == len(accuracy.lines) == 8
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2, 1, 2 / 3], rtol=1e-5)
    np.testing.assert_allclose(loss.lines[1].get_xdata(), [1, 3])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [40, 40])
    assert loss.lines[0].get_color() != loss.lines[2].get_color()
    styles, names = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert styles == ["training images", "test images"] and names == list(runs)
    picture = pixels(tmp_path / "curves.png")
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border == 255).all() and (picture < 128).any()
    assert len(viz.curves([tmp_path / "a"]).axes) == 2


def test_curves_says_what_is_wrong_with_a_table(tmp_path):
    with pytest.raises(DataError, match=r"metrics.csv: no such file"):
        viz.curves(tmp_path)
    for text in ("", HEADER, "a,b\n1,2\n", HEADER + "x,1,1,1,1,1,1,1,1\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(DataError, match="is no table of metrics"):
            viz.curves(tmp_path)
