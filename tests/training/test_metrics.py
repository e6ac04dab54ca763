"""The measures of localisation on maps whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import minires as mr
from minires import nn
from minires.training import accuracy, box_share, energy_in_box, evaluate, pointing_hits
from minires.training.metrics import heatmaps

BOXES = np.array([[1, 2, 3, 5], [0, 0, 4, 6]])


def test_accuracy():
    logits = np.array([[1, 2], [3, 0], [0, 1]], np.float32)
    assert accuracy(mr.Tensor(logits), mr.tensor([1, 0, 0])) == pytest.approx(2 / 3)


def test_pointing_game_edges_are_half_open():
    maps = np.zeros((4, 6, 6), np.float32)
    for n, (y, x) in enumerate([(1, 2), (2, 4), (3, 4), (2, 5)]):
        maps[n, y, x] = 1
    boxes = np.tile(BOXES[:1], (4, 1))
    np.testing.assert_array_equal(pointing_hits(maps, boxes), [True, True, False, False])


def test_energy_of_an_even_map_is_the_share_of_the_area():
    maps = np.ones((2, 4, 6), np.float32)
    np.testing.assert_allclose(energy_in_box(maps, BOXES), [6 / 24, 1])
    np.testing.assert_allclose(box_share(BOXES, (4, 6)), [6 / 24, 1])
    maps[0] = 0
    np.testing.assert_array_equal(energy_in_box(maps, BOXES), [0, 1])
    maps[0, 2, 3] = 5
    np.testing.assert_array_equal(energy_in_box(maps, BOXES), [1, 1])


def test_heatmaps_average_magnitudes_and_enlarge():
    trunk = np.array([[[[1.0]], [[-3.0]]]], np.float32)  # (1, 2, 1, 1)
    mask = np.array([[[[0.5]], [[0.25]]]], np.float32)
    maps = heatmaps(mr.Tensor(trunk), mr.Tensor(mask), (2, 3))
    assert {name: m.shape for name, m in maps.items()} == {"MF": (1, 2, 3), "M": (1, 2, 3), "F": (1, 2, 3)}
    np.testing.assert_allclose([m.mean() for m in maps.values()], [0.625, 0.375, 2.0])
    assert list(heatmaps(trunk, None, (2, 2))) == ["F"]


class Pointer(nn.Module):
    """Says class 0, and attends to the brightest pixel."""

    def forward(self, x):
        assert not self.training and not mr.is_grad_enabled()
        return mr.Tensor(np.tile(np.array([[1, 0]], np.float32), (len(x), 1)))

    def masks(self, x):
        self(x)
        return [SimpleNamespace(name="m", trunk=x, mask=mr.Tensor(np.ones_like(x.data)))]


def test_evaluate_counts_every_image_once():
    images = np.zeros((5, 1, 4, 6), np.float32)
    images[:, 0, 1, 2] = 1
    labels, boxes = np.array([0, 1, 0, 0, 1]), np.array([[1, 2, 2, 3]] * 4 + [[0, 0, 1, 1]])
    batches = [tuple(map(mr.Tensor, (images[s], labels[s], boxes[s]))) for s in (slice(0, 3), slice(3, 5))]
    model = Pointer()
    model.train()
    result = evaluate(model, batches, nn.CrossEntropyLoss(), localise=True)
    assert model.training and result.samples == 5 and result.accuracy == pytest.approx(0.6)
    loss = np.log(1 + np.exp(-1)) * 0.6 + np.log(1 + np.exp(1)) * 0.4
    assert result.loss == pytest.approx(loss, rel=1e-6) and result.area == pytest.approx(1 / 24)
    # An even mask has its strongest point in the first corner, where the last box is.
    assert result.modules[0].pointing == {"MF": 0.8, "M": 0.2, "F": 0.8}
    assert result.modules[0].energy["MF"] == pytest.approx(0.8)
    plain = evaluate(model, [batch[:2] for batch in batches], nn.CrossEntropyLoss())
    assert plain.area is None and not plain.modules
    with pytest.raises(ValueError, match="no test images"):
        evaluate(model, [], nn.CrossEntropyLoss())
