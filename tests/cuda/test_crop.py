"""Batches drawn on the GPU are those of the NumPy version; and what both draw is what the transforms say."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels.cpu import crop as cpu
from minires.kernels.cpu.crop import Augmentation
from minires.kernels.cuda import crop as gpu
from minires.kernels.cuda.build import launch
from tests.cuda import shim
from tests.cuda import standin as stand_in

needs_shim = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

#: Counter, key, and the four words, from kat_vectors of Random123 (Salmon et al. 2011): philox 4x32, 10 rounds.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
known = pytest.mark.parametrize(("counter", "key", "words"), KNOWN)


@known
def test_philox_on_the_cpu(counter, key, words):
    assert tuple(int(word) for word in cpu.philox(counter, key)) == words


@needs_shim
@known
def test_philox_on_the_gpu(cuda, counter, key, words):
    counters, found = cuda.asarray(np.array([counter] * 3, np.uint32)), cuda.zeros((3, 4), np.uint32)
    arguments = [counters, found, np.uint32(key[0]), np.uint32(key[1]), 3]
    launch("crop", "philox_words", 3, arguments, xp=cuda, dtype=np.float32)
    assert {tuple(int(word) for word in row) for row in found.get()} == {words}


def stored(count=23, height=7, width=9, channels=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, channels)).astype(np.uint8)
    return images, rng.integers(0, 10, count), rng.permutation(count).astype(np.int32)


def draw(how, place, count, images, labels, order, dtype=np.float64):
    channels = images.shape[-1]
    return cpu.draw_batch(images, labels, order, place, count, np.zeros(channels, dtype), np.ones(channels, dtype), how)


@needs_shim
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("how", [Augmentation(0, False, 0.0, 255, 0), Augmentation(3, False, 0.5, 16, 2**63 + 12345),
                                 Augmentation(6, True, 1.0, 255, 7), Augmentation(9, False, 0.3, 255, 2**32)])  # fmt: skip
def test_a_batch_is_the_same_on_both_devices(cuda, lanes, how, dtype):
    images, labels, order = stored(channels=1 if how.padding == 9 else 3)
    mean, std = (np.array([a, b, c][: images.shape[-1]], dtype) for a, b, c in ((0.1, 0.2, 0.3), (0.5, 0.25, 0.7)))
    place = np.array([4, 2])
    on_gpu = [cuda.asarray(each) for each in (images, labels, order, place)]
    for count in (10, 10, 10, 1):  # the third goes over the end
        expected, marks = cpu.draw_batch(images, labels, order, place, count, mean, std, how)
        with stand_in.no_syncs():
            found, ours = gpu.draw_batch(*on_gpu, count, cuda.asarray(mean), cuda.asarray(std), how)
        assert found.dtype == dtype and found.transpose(0, 2, 3, 1).flags.c_contiguous
        # C++ may compute half precision in float32 and round once
        np.testing.assert_allclose(found.get(), expected, rtol=0, atol=4e-2 if dtype == np.float16 else 0)
        np.testing.assert_array_equal(ours.get(), marks)
        np.testing.assert_array_equal(on_gpu[3].get(), place)


@needs_shim
def test_a_captured_draw_goes_through_the_epoch(standin):
    how, (images, labels, order) = Augmentation(2, False, 0.5, 255, 5), stored()
    place = np.array([1, 0])
    ones = standin.ones(3, np.float32)
    on_gpu = [standin.asarray(each) for each in (images, labels, order, place)]
    with stand_in.capturing() as work:
        found, marks = gpu.draw_batch(*on_gpu, 5, ones, ones, how)
    for k in range(4):
        for each in work if k else ():  # the stand-in did the work once while it was captured
            each()
        np.testing.assert_array_equal(marks.get(), labels[order[5 * k : 5 * k + 5]])
    expected, _ = cpu.draw_batch(images, labels, order, np.array([1, 15]), 5, ones.get(), ones.get(), how)
    np.testing.assert_array_equal(found.get(), expected)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_every_picture_is_a_window_of_the_padded_one(mode):
    padding, (images, labels, order) = 3, stored(count=300, height=5, width=4)
    found, marks = draw(Augmentation(padding, mode == "reflect", 0.5, 255, 1), np.array([0, 0]), 300, images, labels, order)
    np.testing.assert_array_equal(marks, labels[order])
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images[order], border, mode) / 255  # (N, H + 2p, W + 2p, C)
    seen = set()
    for picture, source in zip(found.transpose(0, 2, 3, 1), padded, strict=True):
        places = [
            (y, x, flip)
            for y in range(2 * padding + 1)
            for x in range(2 * padding + 1)
            for flip in (False, True)
            if np.allclose(picture[:, ::-1] if flip else picture, source[y : y + 5, x : x + 4])
        ]
        assert places
        seen.add(places[0])
    assert len(seen) > (40 if mode == "reflect" else 80)  # of 98; mirrored at its border a picture may be its own flip


def test_moves_are_spread_evenly_and_flips_are_as_likely_as_asked():
    key, count = (3, 4), 100_000
    down, right, mirror, _ = cpu.philox((np.arange(count), 2, 0, 0), key)
    for words in (down, right):
        shares = np.bincount((words * np.uint64(9) >> np.uint64(32)).astype(int), minlength=9) / count
        np.testing.assert_allclose(shares, 1 / 9, atol=5 * np.sqrt(1 / 9 / count))
    for p in (0.0, 0.25, 1.0):
        assert abs((mirror < cpu.threshold(p)).mean() - p) <= 5 * np.sqrt(p * (1 - p) / count)
    assert abs(np.corrcoef(down.astype(float), right.astype(float))[0, 1]) < 0.02


def test_a_picture_depends_on_its_number_the_epoch_and_the_seed_and_on_nothing_else():
    images, labels, order = stored()
    how = Augmentation(3, False, 0.5, 255, 9)
    whole, _ = draw(how, np.array([2, 0]), 23, images, labels, order)
    sorted_batch, _ = draw(how, np.array([2, 0]), 23, images, labels, np.arange(23, dtype=np.int32))
    np.testing.assert_array_equal(whole, sorted_batch[order])
    for other, epoch in ((how, 3), (how._replace(seed=10), 2), (how._replace(seed=9 + 2**32), 2)):
        changed, _ = draw(other, np.array([epoch, 0]), 23, images, labels, order)
        assert not np.array_equal(whole, changed)
