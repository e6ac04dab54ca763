"""CIFAR in its official layout, on files of a few records that the tests write themselves."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import CIFAR10, CIFAR100, DataLoader
from minires.errors import DataError

NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def records(count, seed, ranges=(10,)):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, most, count) for most in ranges], axis=1).astype(np.uint8)
    pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    return np.concatenate([labels, pixels], axis=1)


@pytest.fixture
def cifar10(tmp_path):
    for seed, name in enumerate(NAMES):
        records(4, seed).tofile(tmp_path / name)
    return tmp_path


def test_cifar10_reads_all_files_in_order(cifar10):
    train, test = CIFAR10(cifar10), CIFAR10(str(cifar10), train=False)
    assert len(train) == 20 and len(test) == 4
    for number in range(5):
        written = records(4, number)
        part = slice(4 * number, 4 * number + 4)
        np.testing.assert_array_equal(train.images[part].reshape(4, -1), written[:, 1:])
        np.testing.assert_array_equal(train.labels[part], written[:, 0])
    np.testing.assert_array_equal(test.labels, records(4, 5)[:, 0])


def test_planes_rows_and_columns_lie_as_documented(cifar10):
    record = np.zeros((1, 3073), np.uint8)
    record[0, 0], record[0, 1 + 1024 * 2 + 32 * 5 + 7] = 3, 255  # blue, row 5, column 7
    record.tofile(cifar10 / "test_batch.bin")
    image, label = CIFAR10(cifar10, train=False)[0]
    assert label == 3 and np.argwhere(image == 1).tolist() == [[2, 5, 7]]


def test_pixels_stay_bytes_and_are_handed_out_as_float32(cifar10):
    data = CIFAR10(cifar10)
    assert data.images.dtype == np.uint8 and data.images.shape == (20, 3, 32, 32)
    image, label = data[3]
    assert image.dtype == np.float32 and type(label) is int
    images, labels = data.__getitems__([3, 4])
    assert images.dtype == np.float32 and labels.dtype == np.int64
    np.testing.assert_array_equal(images[0], image)
    np.testing.assert_array_equal(image, data.images[3].astype(np.float32) / np.float32(255))
    batch, _ = next(iter(DataLoader(data, 5)))
    assert batch.shape == (5, 3, 32, 32) and batch.dtype == np.float32


def test_the_official_folder_inside_root_is_found(cifar10, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in NAMES:
        (tmp_path / name).rename(folder / name)
    assert len(CIFAR10(tmp_path)) == 20
    assert len(CIFAR10(tmp_path, download=True)) == 20  # complete, so nothing is fetched


def test_class_names():
    from minires.data.cifar import COARSE, FINE

    assert len(set(FINE.split())) == 100 and sorted(FINE.split()) == FINE.split()
    assert len(set(COARSE.split())) == 20 and sorted(COARSE.split()) == COARSE.split()


def test_cifar10_classes_and_repr(cifar10):
    data = CIFAR10(cifar10)
    assert data.classes[0] == "airplane" and data.classes[9] == "truck" and len(data.classes) == 10
    assert repr(data).startswith("CIFAR10(") and repr(data).endswith("train=True)  # 20 images, 3x32x32")


def test_cifar100_has_fine_and_coarse_labels(tmp_path):
    for name, seed in (("train.bin", 0), ("test.bin", 1)):
        records(30, seed, (20, 100)).tofile(tmp_path / name)
    for train, seed in ((True, 0), (False, 1)):
        written = records(30, seed, (20, 100))
        data = CIFAR100(tmp_path, train)
        np.testing.assert_array_equal(data.coarse_labels, written[:, 0])
        np.testing.assert_array_equal(data.labels, written[:, 1])
        np.testing.assert_array_equal(data.images.reshape(30, -1), written[:, 2:])
    assert data.classes[99] == "worm" and data.coarse_classes[19] == "vehicles_2"


def test_missing_folder_and_missing_file(cifar10):
    with pytest.raises(DataError, match=r"no file data_batch_1\.bin in .*nowhere.*download=True"):
        CIFAR10(cifar10 / "nowhere")
    (cifar10 / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: cannot be read"):
        CIFAR10(cifar10)
    assert len(CIFAR10(cifar10, train=False)) == 4


@pytest.mark.parametrize("size", [0, 1, 3072, 4 * 3073 - 1, 4 * 3073 + 1])
def test_wrong_file_size(cifar10, size):
    (cifar10 / "data_batch_2.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"data_batch_2\.bin: expected .* 3073-byte records, the file has {size} bytes"):
        CIFAR10(cifar10)


def test_label_out_of_range(cifar10):
    content = records(4, 0)
    content[2, 0] = 10
    content.tofile(cifar10 / "test_batch.bin")
    with pytest.raises(DataError, match=r"test_batch\.bin: record 2 has label \[10\], expected 0\.\.9"):
        CIFAR10(cifar10, train=False)


def test_a_folder_in_place_of_a_file(cifar10):
    (cifar10 / "test_batch.bin").unlink()
    (cifar10 / "test_batch.bin").mkdir()
    with pytest.raises(DataError, match=r"test_batch\.bin"):
        CIFAR10(cifar10, train=False)
