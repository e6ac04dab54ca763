"""Loaders that hand out batches on the GPU: the same numbers, in the same order, and copies wait for what they must."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

import minires as mr
from minires import nn, optim
from minires.data import (
    Compose,
    Cutout,
    DataLoader,
    Normalize,
    PadCrop,
    RandomHorizontalFlip,
    ResidentLoader,
    Subset,
    TensorDataset,
    ToFloat,
)
from minires.data.dataset import ImageDataset
from minires.data.pinned import on_device
from minires.device import to_device
from minires.training import Trainer
from tests.cuda import shim
from tests.cuda import standin as stand_in

needs_shim = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

AUGMENT = Compose([PadCrop(2), RandomHorizontalFlip(), ToFloat(), Normalize((0.1, 0.2), (0.5, 0.25))])


def pictures(count=23, peak=255):
    rng = np.random.default_rng(0)
    images = rng.integers(0, peak + 1, (count, 2, 5, 4)).astype(np.uint8)
    return ImageDataset(images, rng.integers(0, 3, count), ("a", "b", "c"), peak)


def on_host(batches):
    return [tuple(to_device(part.data, "cpu").copy() for part in batch) for batch in batches]


def assert_equal(one, two):
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        for a, b in zip(left, right, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------------ copied batches


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_loader_hands_out_the_same_batches_on_the_gpu(cuda, prefetch):
    options = {"shuffle": True, "seed": 3, "transform": AUGMENT}
    expected = on_host(DataLoader(pictures(), 4, **options))
    loader = DataLoader(pictures(), 4, **options, device="cuda", prefetch=prefetch)
    for _ in range(2):
        loader.set_epoch(0)
        batches = list(loader)
        assert all(part.device == "cuda:0" for batch in batches for part in batch)
        assert_equal(on_host(batches), expected)


def test_batches_of_different_sizes_share_a_buffer(cuda):
    given = [(np.full((n, 2), n, np.float32), np.arange(n)) for n in (3, 1, 5, 2, 5, 4)]
    for depth in (0, 2):
        found = [tuple(part.get() for part in batch) for batch in on_device(iter(given), "cuda", depth)]
        assert_equal(found, given)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_leaving_early_continues_where_it_was_and_leaves_no_thread(standin, prefetch):
    loader, expected = DataLoader(pictures(), 4, device="cuda", prefetch=prefetch), on_host(DataLoader(pictures(), 4))
    batches = iter(loader)
    next(batches), next(batches)
    state = loader.state_dict()
    batches.close()
    assert state["batch"] == 2  # one more is on the device already
    assert not [thread for thread in threading.enumerate() if thread.name == "minires-prefetch"]
    loader.load_state_dict(state)
    assert_equal(on_host(loader), expected[2:])


def test_an_error_of_the_data_set_arrives(standin):
    class Broken(TensorDataset):
        def __getitems__(self, indices, rng=None):
            raise KeyError("no such picture")

    for prefetch in (0, 2):
        with pytest.raises(KeyError, match="no such picture"):
            list(DataLoader(Broken(np.zeros((4, 1, 2, 2), np.float32)), 2, device="cuda", prefetch=prefetch))


class Journal:
    """Notes what streams and events are told, in order, with a number for each event."""

    def __init__(self, standin, monkeypatch):
        self.lines, self.events = [], {}
        stream, event, array = standin.cuda.Stream, standin.cuda.Event, standin.ndarray
        for owner, name, note in (
            (stream, "wait_event", lambda s, e: f"{self.name(s)} waits for {self.event(e)}"),
            (event, "record", lambda e, s=None: f"{self.event(e)} in {self.name(s)}"),
            (event, "synchronize", lambda e: f"host waits for {self.event(e)}"),
            (array, "set", lambda a, v, stream=None: f"copy in {self.name(stream)}"),
            (stream, "synchronize", lambda s: f"host waits for {self.name(s)}"),
        ):
            monkeypatch.setattr(owner, name, self._watched(getattr(owner, name), note))

    def _watched(self, function, note):
        def call(*args, **kwargs):
            self.lines.append(note(*args, **kwargs))
            return function(*args, **kwargs)

        return call

    def name(self, stream):
        return "copies" if stream.non_blocking else "work"

    def event(self, event):
        return "e" + str(self.events.setdefault(id(event), (len(self.events), event))[0])


def test_what_waits_for_what(standin, monkeypatch):
    journal = Journal(standin, monkeypatch)
    for _ in on_device(iter([(np.ones(2),)] * 3), "cuda", 0):
        journal.lines.append("batch is used")
    assert journal.lines == [
        "e0 in work", "copies waits for e0", "copy in copies", "e1 in copies",
        "e2 in work", "copies waits for e2", "copy in copies", "e3 in copies",  # batch 1 is under way before 0 is used
        "work waits for e1", "batch is used",
        "host waits for e1",  # the first pinned buffer is filled again
        "e4 in work", "copies waits for e4", "copy in copies", "e5 in copies",
        "work waits for e3", "batch is used",
        "work waits for e5", "batch is used",
        "host waits for copies",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ resident images


@needs_shim
@pytest.mark.parametrize("peak", [255, 16])
def test_resident_batches_are_the_same_on_both_devices(cuda, peak):
    options = {"shuffle": True, "seed": 5, "transform": AUGMENT}
    expected, found = ([on_host(loader) for _ in range(2)] for loader in (
        ResidentLoader(pictures(peak=peak), 4, device=device, **options) for device in ("cpu", "cuda")
    ))  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        assert_equal(a, b)
    assert not np.array_equal(expected[0][0][0], expected[1][0][0])  # two epochs


@pytest.mark.parametrize("peak", [255, 16])
@pytest.mark.parametrize("steps", [[], [ToFloat()], [RandomHorizontalFlip(1.0)], [Normalize(0.5, 2)],
                                   [PadCrop(0), ToFloat(), Normalize((0.1, 0.2), (0.5, 0.25))]])  # fmt: skip
def test_without_chance_it_is_what_a_loader_makes(steps, peak):
    options = {"shuffle": True, "seed": 5, "transform": Compose(steps)}
    expected = on_host(DataLoader(pictures(peak=peak), 4, **options))
    assert_equal(on_host(ResidentLoader(pictures(peak=peak), 4, device="cpu", **options)), expected)


def test_a_subset_and_a_single_transform():
    subset = Subset(pictures(), [5, 3, 11])
    expected = on_host(DataLoader(subset, 2, transform=Normalize(0.5, 0.25)))
    assert_equal(on_host(ResidentLoader(subset, 2, transform=Normalize(0.5, 0.25), device="cpu")), expected)


def test_two_iterators_do_not_take_each_others_samples():
    loader, expected = (ResidentLoader(pictures(), 4, True, seed=2, transform=AUGMENT, device="cpu") for _ in range(2))
    epochs = [on_host(expected), on_host(expected)]
    first, found = iter(loader), [[], []]
    found[0] += on_host([next(first)])
    second = iter(loader)
    found[1] += on_host([next(second), next(second)])
    found[0] += on_host(first)
    found[1] += on_host(second)
    for one, other in zip(found, epochs, strict=True):
        assert_equal(one, other)


def test_it_continues_in_the_middle_of_an_epoch():
    loader, other = (ResidentLoader(pictures(), 4, True, seed=2, transform=AUGMENT, device="cpu") for _ in range(2))
    list(loader)
    batches = iter(loader)
    next(batches)
    other.load_state_dict(loader.state_dict())
    assert_equal(on_host(other), on_host(batches))
    assert other.epoch == 2


@needs_shim
def test_a_captured_draw(standin):
    loader = ResidentLoader(pictures(), 4, True, seed=2, transform=AUGMENT, device="cuda")
    expected = on_host(loader)
    loader.begin(0)
    with stand_in.capturing() as work:
        images, labels = loader.draw()
    for k, (picture, label) in enumerate(expected[:5]):
        for each in work if k else ():  # the stand-in did the work once while it was captured
            each()
        np.testing.assert_array_equal(images.get(), picture)
        np.testing.assert_array_equal(labels.get(), label)


@needs_shim
@pytest.mark.parametrize("kind", [DataLoader, ResidentLoader])
def test_training_by_graph_with_batches_of_the_gpu_is_training_on_the_cpu(standin, kind):
    losses = []
    for device in ("cpu", "cuda"):
        mr.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).to(device)
        loader = kind(pictures(24), 4, shuffle=True, seed=1, transform=AUGMENT, device=device)
        optimizer = optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True)
        trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), loader, device=device, quiet=True)
        losses.append([row["train_loss"] for row in trainer.fit(2)])
    assert trainer.steps.step.replays == 10
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@needs_shim
def test_an_epoch_uploads_its_order_and_nothing_else(standin):
    loader = ResidentLoader(pictures(), 4, True, transform=AUGMENT, device="cuda")
    uploads = []
    for _ in range(3):
        with stand_in.no_syncs():
            for _ in loader:
                pass
        uploads.append(stand_in.meter.uploads)
    assert [b - a for a, b in pairwise(uploads)] == [2, 2]


@pytest.mark.parametrize("steps", [[Cutout(2)], [RandomHorizontalFlip(), PadCrop(1)], [Normalize(0, 1), ToFloat()],
                                   [ToFloat(), ToFloat()], [lambda images, rng: images]])  # fmt: skip
def test_other_transforms_are_refused(steps):
    with pytest.raises(ValueError, match="transform may be any of PadCrop, RandomHorizontalFlip, ToFloat, Normalize"):
        ResidentLoader(pictures(), 4, transform=Compose(steps))


def test_wrong_arguments():
    with pytest.raises(TypeError, match="expected an ImageDataset"):
        ResidentLoader(TensorDataset(np.zeros((4, 1, 2, 2), np.uint8)), 2)
    with pytest.raises(TypeError, match="images of bytes"):
        ResidentLoader(ImageDataset(np.zeros((4, 1, 2, 2), np.int16), np.zeros(4), "a"), 2)
    with pytest.raises(ValueError, match="needs images larger"):
        ResidentLoader(pictures(), 2, transform=PadCrop(4, "reflect"))
    with pytest.raises(ValueError, match="device: expected"):
        ResidentLoader(pictures(), 2, device="tpu")
    with pytest.raises(TypeError, match="dtype must be a floating point one, got int32"):
        ResidentLoader(pictures(), 2, dtype=np.int32, device="cpu")
    with pytest.raises(RuntimeError, match="call begin"):
        ResidentLoader(pictures(), 2, device="cpu").draw()
