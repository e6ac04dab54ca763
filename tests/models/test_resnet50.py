"""ResNet-50 is torchvision's: the names, their order and shapes, and what it answers."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires import models
from minires.modes import no_grad
from tests.fixtures import weights


@pytest.mark.parametrize("size", ["narrow", pytest.param("full", marks=pytest.mark.slow)])
def test_names_shapes_and_scores_are_pytorchs(size: str):
    width, classes = weights.SIZES[size]
    net = models.resnet50() if size == "full" else models.ImageNetResNet(width=width, num_classes=classes)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    with np.load(weights.RESNET50) as recorded:
        scores, layout = recorded[f"{size}_scores"], int(recorded[f"{size}_layout"])
    assert weights.checksum(shapes) == layout  # names and their order, too
    assert list(shapes)[:2] == ["conv1.weight", "bn1.weight"] and "layer4.0.downsample.1.running_var" in shapes
    net.load_state_dict({name: weights.of(name, shape) for name, shape in shapes.items()})
    with no_grad():
        ours = net.eval()(mr.Tensor(weights.image())).numpy()
    np.testing.assert_allclose(ours, scores, rtol=0, atol=1e-4 * np.abs(scores).max())


def test_any_number_of_classes_and_any_size():
    net = models.ImageNetResNet((1, 1, 1, 1), width=8, num_classes=5)
    with no_grad():
        assert net.eval()(mr.Tensor(np.zeros((2, 3, 33, 47), np.float32))).shape == (2, 5)
