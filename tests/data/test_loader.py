"""The loader repeats itself bit for bit, continues anywhere, and leaves no thread behind."""

from __future__ import annotations

import gc
import json
import threading
import time

import numpy as np
import pytest

from minires.data import (
    ClutteredDigits,
    Compose,
    Cutout,
    DataLoader,
    Dataset,
    Digits,
    Normalize,
    PadCrop,
    RandomHorizontalFlip,
    TensorDataset,
)
from minires.tensor import Tensor

AUGMENT = Compose([PadCrop(1), RandomHorizontalFlip(), Normalize(0.3, 0.4), Cutout(2)])


def arrays(batches):
    return [tuple(part.numpy().copy() for part in batch) for batch in batches]


def assert_equal(one, two):
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def numbers(length=10):
    return TensorDataset(np.zeros((length, 1, 1, 1), np.float32), np.arange(length))


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "minires-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    assert not workers()


def test_batches_are_tensors_of_the_documented_types():
    images, labels = next(iter(DataLoader(Digits(), 16)))
    assert isinstance(images, Tensor) and isinstance(labels, Tensor)
    assert images.shape == (16, 1, 8, 8) and images.dtype == np.float32
    assert labels.shape == (16,) and labels.dtype == np.int64


def test_extra_arrays_come_along():
    dataset = ClutteredDigits(size=10, with_boxes=True)
    images, labels, boxes = next(iter(DataLoader(dataset, 4)))
    np.testing.assert_array_equal(boxes.numpy(), dataset.boxes[:4])
    np.testing.assert_array_equal(images.numpy(), dataset.images[:4])
    np.testing.assert_array_equal(labels.numpy(), dataset.labels[:4])


def test_uint8_images_become_float_and_labels_int64():
    data = TensorDataset(np.full((3, 3, 2, 2), 255, np.uint8), np.arange(3, dtype=np.int8))
    images, labels = next(iter(DataLoader(data, 3)))
    assert images.dtype == np.float32 and (images.numpy() == 1).all()
    assert labels.dtype == np.int64


def test_anything_with_a_length_and_items_will_do():
    samples = [(np.full((1, 1, 1), number, np.float32), number) for number in range(5)]
    batches = arrays(DataLoader(samples, 2))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_length_and_last_batch(drop_last, sizes):
    loader = DataLoader(numbers(), 4, drop_last=drop_last)
    assert len(loader) == len(sizes)
    assert [len(labels) for _, labels in arrays(loader)] == sizes


def test_without_shuffling_the_order_is_the_data_sets():
    assert np.concatenate([labels for _, labels in arrays(DataLoader(numbers(), 3))]).tolist() == list(range(10))


def test_each_epoch_visits_every_sample_once_in_a_new_order():
    loader = DataLoader(numbers(100), 7, shuffle=True, seed=5)
    first, second = (np.concatenate([labels for _, labels in arrays(loader)]) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any()
    np.testing.assert_array_equal(first, loader.order(0))
    np.testing.assert_array_equal(second, loader.order(1))
    assert (DataLoader(numbers(100), shuffle=True, seed=6).order(0) != first).any()


@pytest.mark.parametrize("prefetch", [1, 2, 50])
def test_prefetching_changes_nothing(prefetch):
    plain = DataLoader(Digits(), 100, True, seed=1, prefetch=0, transform=AUGMENT)
    ahead = DataLoader(Digits(), 100, True, seed=1, prefetch=prefetch, transform=AUGMENT)
    for _ in range(2):
        assert_equal(arrays(plain), arrays(ahead))


def test_augmentation_differs_between_batches_and_epochs():
    data = TensorDataset(np.repeat(np.random.default_rng(0).random((1, 1, 6, 6), np.float32), 40, axis=0))
    loader = DataLoader(data, 20, transform=PadCrop(3))
    (one,), (two,) = arrays(loader)
    (three,), _ = arrays(loader)
    assert (one != two).any() and (one != three).any()


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("taken", [0, 1, 4, 8])
def test_resuming_in_the_middle_gives_the_rest_bit_for_bit(prefetch, taken):
    def make():
        data = ClutteredDigits(size=60, fresh=True, with_boxes=True)
        return DataLoader(data, 8, True, seed=2, prefetch=prefetch, transform=AUGMENT)

    whole = make()
    whole.set_epoch(3)
    expected = arrays(whole) + arrays(whole)

    broken = make()
    broken.set_epoch(3)
    seen = []
    for batch in broken:
        if len(seen) == taken:
            break
        seen.extend(arrays([batch]))
        state = json.loads(json.dumps(broken.state_dict()))
        assert (state["epoch"], state["batch"]) == (3, len(seen))
    if not taken:
        state = make().state_dict() | {"epoch": 3}
    resumed = make()
    resumed.load_state_dict(state)
    resumed.set_epoch(3)  # a training loop says so for each epoch; the position within it stays
    rest = arrays(resumed)
    assert resumed.epoch == 4
    assert_equal(seen + rest + arrays(resumed), expected)


def test_set_epoch_goes_back_to_the_start_of_an_epoch():
    loader = DataLoader(numbers(), 2, True)
    first = arrays(loader)
    loader.set_epoch(0)
    assert_equal(arrays(loader), first)
    next(iter(loader))
    loader.set_epoch(loader.epoch)
    assert len(arrays(loader)) == 5
    with pytest.raises(ValueError, match="count from 0"):
        loader.set_epoch(-1)


def test_a_pass_left_early_is_followed_by_the_next_epoch():
    loader = DataLoader(numbers(), 2, True)
    next(iter(loader))
    assert loader.epoch == 0
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in arrays(loader)]), loader.order(1))
    assert loader.epoch == 2


def test_only_the_newest_pass_moves_the_position():
    loader = DataLoader(numbers(), 2)
    old = iter(loader)
    next(old)
    new = iter(loader)
    next(new)
    list(old)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 1)
    new.close()


def test_a_state_of_another_loader_is_refused():
    loader = DataLoader(numbers(), 2, True, seed=1)
    for other in (
        DataLoader(numbers(), 3, True, seed=1),
        DataLoader(numbers(), 2, True, seed=2),
        DataLoader(numbers(), 2, False, seed=1),
        DataLoader(numbers(9), 2, True, seed=1),
        DataLoader(numbers(), 2, True, seed=1, drop_last=True),
    ):
        with pytest.raises(ValueError, match="saved position"):
            loader.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="no position"):
        loader.load_state_dict(loader.state_dict() | {"batch": 6})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"prefetch": -1}, "prefetch"),
        ({"batch_size": 11, "drop_last": True}, "no batch of 11 from a data set of 10"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DataLoader(numbers(), **options)


def test_empty_data_set():
    with pytest.raises(ValueError, match="the data set is empty"):
        DataLoader(numbers(0))


class Failing(Dataset):
    """Fails at sample 5 with an error of its own."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 5:
            raise KeyError("sample five is broken")
        return np.zeros((1, 1, 1), np.float32), index


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_reaches_the_consumer_at_its_place(prefetch):
    seen = []
    with pytest.raises(KeyError, match="sample five is broken"):
        for _, labels in DataLoader(Failing(), 2, prefetch=prefetch):
            seen.append(labels.numpy().tolist())
    assert seen == [[0, 1], [2, 3]]
    assert not workers()


@pytest.mark.parametrize("prefetch", [1, 2])
def test_leaving_early_stops_the_thread(prefetch):
    loader = DataLoader(numbers(10_000), 1, prefetch=prefetch)
    for position, _ in enumerate(loader):
        if position == 3:
            break
    # The loop variable of the interpreter is gone with the loop, and with it the thread.
    assert not workers()
    with pytest.raises(RuntimeError, match="consumer"):
        for _ in loader:
            raise RuntimeError("consumer")
    gc.collect()  # the traceback held the iterator until here
    assert not workers()


def test_a_dropped_iterator_stops_the_thread_and_an_unused_one_starts_none():
    loader = DataLoader(numbers(100), 1)
    iterator = iter(loader)
    assert not workers()
    next(iterator)
    assert len(workers()) == 1
    del iterator
    assert not workers()


def test_many_short_passes_leak_nothing():
    loader = DataLoader(numbers(100), 10, True)
    before = threading.active_count()
    for _ in range(100):
        next(iter(loader))
    assert threading.active_count() == before


def test_the_queue_is_bounded():
    class Counting(Failing):
        loaded = 0

        def __len__(self):
            return 1000

        def __getitem__(self, index):
            Counting.loaded += 1
            return np.zeros((1, 1, 1), np.float32), index

    iterator = iter(DataLoader(Counting(), 1, prefetch=3))
    next(iterator)
    time.sleep(0.1)
    # One handed out, three in the queue, one in the thread's hand.
    assert Counting.loaded <= 5
    del iterator


def test_fresh_canvases_follow_the_loaders_epoch():
    data = ClutteredDigits(size=20, fresh=True)
    loader = DataLoader(data, 20)
    ((first, _),), ((second, _),) = arrays(loader), arrays(loader)
    assert (first != second).any()
    np.testing.assert_array_equal(second, data.draw(range(20), epoch=1)[0])
    loader.set_epoch(0)
    assert data.epoch == 0
    np.testing.assert_array_equal(arrays(loader)[0][0], first)


def test_repr():
    assert repr(DataLoader(numbers(), 4)) == "DataLoader(10 samples, batch_size=4, 3 batches)"
