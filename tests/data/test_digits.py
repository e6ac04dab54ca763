"""The embedded data are what their docstrings say, and no digit is in both parts."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from minires.data import Digits, photograph
from minires.data.digits import _read
from minires.errors import DataError


def test_shapes_types_and_range():
    for train, count in ((True, 1438), (False, 359)):
        digits = Digits(train)
        assert len(digits) == count
        images, labels = digits.__getitems__(range(count))
        assert images.shape == (count, 1, 8, 8) and images.dtype == np.float32
        assert images.min() == 0 and images.max() == 1
        assert labels.dtype == np.int64 and set(labels) == set(range(10))
        image, label = digits[-1]
        np.testing.assert_array_equal(image, images[-1])
        assert image.dtype == np.float32 and type(label) is int and label == labels[-1]
        assert digits.classes[label] == str(label)
        with pytest.raises(IndexError):
            digits[count]


def test_train_and_test_share_no_image_and_are_stratified():
    train, test = Digits(True), Digits(False)
    assert sorted([*train.indices, *test.indices]) == list(range(1797))
    pictures = {image.tobytes() for image in train.images}
    assert len(pictures) == 1438
    assert not pictures & {image.tobytes() for image in test.images}
    share = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    assert (abs(share - 0.2) < 0.005).all()


def test_the_split_never_moves():
    # Numbers from the day the file was made.
    assert Digits(False).indices[:8].tolist() == [1, 2, 3, 13, 14, 15, 16, 24]
    assert int(Digits(True).images.sum(dtype=np.int64)) == 449_259
    # All images and labels in the order of scikit-learn's load_digits(), of which this was computed too.
    images, labels = np.empty((1797, 8, 8), np.uint8), np.empty(1797, np.uint8)
    for part in (Digits(True), Digits(False)):
        images[part.indices], labels[part.indices] = part.images[:, 0], part.labels
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == (
        "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    )


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "digits.npz"
    with pytest.raises(DataError, match=r"digits\.npz"):
        _read(path)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"digits\.npz"):
        _read(path)
    np.savez(path, images=np.zeros((2, 8, 8), np.uint8), labels=np.zeros(2), train=np.zeros(2, bool))
    with pytest.raises(DataError, match="expected 1797"):
        _read(path)


def test_photograph():
    photo = photograph()
    assert photo.shape == (3, 96, 96) and photo.dtype == np.uint8
    assert photo.std() > 30 and photo[0].mean() > photo[2].mean()  # an orange cat, not noise


def test_repr():
    assert repr(Digits()) == "Digits(train=True)  # 1438 images, 1x8x8"
