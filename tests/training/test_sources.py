"""The data of a job: CIFAR, folders, and a user's own pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from minires.errors import DataError
from minires.training import job as jobs
from minires.training.presets import CIFAR, FOLDER
from minires.training.sources import open_source, read_pictures
from tests.training.tiny import TINY


def picture(path, value, size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, value).save(path)
    return str(path)


def test_folder_with_and_without_a_test_set(tmp_path):
    for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        for i in range(5):
            picture(tmp_path / "all" / name / f"{i}.png", color)
            picture(tmp_path / "split" / "train" / name / f"{i}.png", color)
        picture(tmp_path / "split" / "test" / name / "0.png", color)
    job = FOLDER.with_(root=str(tmp_path / "all"), size=8, batch_size=4)
    source = open_source(job)
    assert (len(source.train.dataset), len(source.test.dataset)) == (8, 2) and list(source.classes) == ["blue", "red"]
    split = open_source(job.with_(root=str(tmp_path / "split")))
    assert (len(split.train.dataset), len(split.test.dataset)) == (10, 2)
    images, shown, labels = split.first_test_images(6)
    assert images.shape == (2, 3, 8, 8) and labels.tolist() == [0, 1] and not split.boxes
    np.testing.assert_allclose(shown[1, :, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(images[1, :, 0, 0], [2, -2, -2])
    (tmp_path / "split" / "test" / "green").mkdir()
    picture(tmp_path / "split" / "test" / "green" / "0.png", (0, 255, 0))
    with pytest.raises(ValueError, match="different class folders"):
        open_source(job.with_(root=str(tmp_path / "split")))


def test_cifar(tmp_path):
    record = np.zeros((4, 3073), np.uint8)
    record[:, 0] = [0, 1, 2, 9]
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (tmp_path / name).write_bytes(record.tobytes())
    source = open_source(CIFAR.with_(root=str(tmp_path), batch_size=4))
    images, _ = next(iter(source.train))
    assert images.shape == (4, 3, 32, 32) and len(source.train.dataset) == 20 and source.classes[9] == "truck"
    assert images.dtype == np.float32 and images.data.max() < 0  # black, after the mean is subtracted
    jobs.check(CIFAR.with_(root=str(tmp_path), model="cifar_attention", options={"widths": (8, 8, 8)}), source)
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(DataError, match=r"test_batch\.bin"):
        open_source(CIFAR.with_(root=str(tmp_path)))


def test_own_pictures_become_what_the_network_wants(tmp_path):
    paths = [picture(tmp_path / "a.png", (255, 255, 255)), picture(tmp_path / "b.jpg", (0, 0, 0))]
    images, shown = read_pictures(TINY, paths)
    assert images.shape == (2, 1, 16, 16) and images.dtype == np.float32 and shown is images
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), [1, 0], atol=1e-6)
    np.testing.assert_allclose(read_pictures(TINY, paths, invert=True)[0].mean(axis=(1, 2, 3)), [0, 1], atol=1e-6)
    color, shown = read_pictures(CIFAR, paths)
    assert color.shape == (2, 3, 32, 32) and shown.max() == 1 and color.max() > 1.5


def test_what_does_not_fit_shows_before_a_run(tmp_path):
    small = TINY.with_(canvas=12)
    with pytest.raises(ValueError, match="at least 16×16"):
        jobs.check(small, open_source(small))
    with pytest.raises(ValueError, match="no argument 'depth'"):
        jobs.check(TINY.with_(options={"depth": 1}), open_source(TINY))
