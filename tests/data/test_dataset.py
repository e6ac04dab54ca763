"""Data sets hand out the right samples, alone and as batches, and say what is wrong in one line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from minires.data import Dataset, Subset, TensorDataset, random_split
from minires.tensor import Tensor


class Squares(Dataset):
    """The least that a user has to write."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if not -5 <= index < 5:
            raise IndexError(index)
        return np.full((1, 2, 2), index**2, np.float32), index, index / 2


def test_plain_dataset_gets_batches_from_its_samples():
    images, labels, halves = Squares().__getitems__([3, 1])
    assert images.shape == (2, 1, 2, 2) and images.dtype == np.float32
    np.testing.assert_array_equal(images[:, 0, 0, 0], [9, 1])
    assert labels.dtype == np.int64 and labels.tolist() == [3, 1]
    assert halves.dtype == np.float32 and halves.tolist() == [1.5, 0.5]


def test_iterating_a_dataset_ends():
    assert [label for _, label, _ in Squares()] == [0, 1, 2, 3, 4]


def test_samples_of_different_shape_are_refused_with_both_shapes():
    class Ragged(Squares):
        def __getitem__(self, index):
            return np.zeros((1, 2, 2 + index)), index

    with pytest.raises(ValueError, match=r"sample 1 .*\(1, 2, 3\).*\(1, 2, 2\)"):
        Ragged().__getitems__([0, 1])
    with pytest.raises(ValueError, match="at least one sample"):
        Ragged().__getitems__([])


def test_dataset_is_abstract():
    with pytest.raises(TypeError):
        Dataset()


def test_tensor_dataset_takes_arrays_tensors_and_lists():
    rows = np.arange(12.0).reshape(4, 3)
    dataset = TensorDataset(rows, Tensor(np.arange(4)), [7, 8, 9, 10])
    assert len(dataset) == 4
    row, number, value = dataset[-1]
    np.testing.assert_array_equal(row, [9, 10, 11])
    assert (number, value) == (3, 10) and type(number) is int
    batch = dataset.__getitems__([2, 0])
    np.testing.assert_array_equal(batch[0], rows[[2, 0]])
    assert batch[0].dtype == np.float64
    assert not np.shares_memory(batch[0], rows)
    assert repr(dataset) == "TensorDataset(float64 (4, 3), int64 (4,), int64 (4,))"


@pytest.mark.parametrize("arrays", [(), (np.zeros(3), np.zeros(4)), (np.zeros(()),)])
def test_tensor_dataset_refuses_what_has_no_rows_in_common(arrays):
    with pytest.raises(ValueError, match="TensorDataset"):
        TensorDataset(*arrays)


def test_subset_keeps_order_and_checks_bounds():
    subset = Subset(Squares(), [4, 0, -2])
    assert len(subset) == 3 and subset[0][1] == 4 and subset[2][1] == -2
    assert subset.__getitems__([1, 0])[1].tolist() == [0, 4]
    with pytest.raises(IndexError, match="5 in a data set of 5"):
        Subset(Squares(), [0, 5])
    subset.set_epoch(3)  # nothing to tell


def test_subset_of_a_subset_passes_the_epoch_on():
    class Clock(Squares):
        def set_epoch(self, epoch):
            self.epoch = epoch

    clock = Clock()
    Subset(Subset(clock, [1, 2]), [0]).set_epoch(7)
    assert clock.epoch == 7


@pytest.mark.parametrize("lengths", [(3, 2), (0.6, 0.4), [5], (0.5, 0.25, 0.25), (5, 0)])
def test_random_split_deals_every_sample_once(lengths):
    parts = random_split(Squares(), lengths, seed=3)
    assert sorted(int(index) for part in parts for index in part.indices) == [0, 1, 2, 3, 4]
    if isinstance(lengths[0], int):
        assert [len(part) for part in parts] == list(lengths)
    again = random_split(Squares(), lengths, seed=3)
    assert all((one.indices == two.indices).all() for one, two in zip(parts, again, strict=True))


def test_random_split_depends_on_the_seed():
    data = TensorDataset(np.arange(100))
    assert (random_split(data, (50, 50), 0)[0].indices != random_split(data, (50, 50), 1)[0].indices).any()


@pytest.mark.parametrize("lengths", [(3, 3), (0.5, 0.6), (6, -1), ()])
def test_random_split_refuses_lengths_that_do_not_add_up(lengths):
    with pytest.raises(ValueError, match="random_split"):
        random_split(Squares(), lengths)


def test_import_needs_neither_pillow_nor_matplotlib():
    code = "import sys, minires.data; print([name for name in ('PIL', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
