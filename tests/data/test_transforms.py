"""Each transform against a version with loops, on the same random numbers; and what all of them promise."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import Compose, Cutout, Normalize, PadCrop, RandomHorizontalFlip, ToFloat

ALL = [PadCrop(2), PadCrop(2, "reflect"), RandomHorizontalFlip(), Normalize((0.1, 0.2, 0.3), 0.5), Cutout(3), ToFloat()]


def batch(count=7, height=5, width=6, dtype=np.float32):
    return np.random.default_rng(3).random((count, 3, height, width)).astype(dtype)


def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("transform", [*ALL, Compose(ALL)], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_shape_and_input_are_kept(transform, dtype):
    images = batch(dtype=dtype)
    before = images.copy()
    changed = transform(images, rng())
    assert changed.dtype == dtype and changed.shape == images.shape
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(changed, transform(images, rng()))


@pytest.mark.parametrize("transform", [*ALL, Compose([PadCrop(1), Compose([ToFloat()])])], ids=repr)
def test_repr_is_the_constructor_call(transform):
    again = eval(repr(transform))
    assert type(again) is type(transform) and repr(again) == repr(transform)
    np.testing.assert_array_equal(again(batch(), rng()), transform(batch(), rng()))


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_pad_crop(mode, padding):
    images = batch()
    y, x = rng().integers(0, 2 * padding + 1, size=(2, len(images)))
    expected = np.empty_like(images)
    for n, image in enumerate(images):
        for row in range(5):
            for column in range(6):
                r, c = row + y[n] - padding, column + x[n] - padding
                if mode == "reflect":
                    r, c = min(abs(r), 8 - abs(r)), min(abs(c), 10 - abs(c))
                inside = 0 <= r < 5 and 0 <= c < 6
                expected[n, :, row, column] = image[:, r, c] if inside else 0
    np.testing.assert_array_equal(PadCrop(padding, mode)(images, rng()), expected)


def test_pad_crop_reaches_every_place():
    image = np.zeros((2000, 1, 3, 3), np.float32)
    image[:, 0, 1, 1] = 1
    hits = PadCrop(1)(image, rng()).sum(axis=(0, 1))
    assert (hits > 150).all() and hits.sum() == 2000


def test_flip():
    images = batch(200)
    flipped = rng().random(200) < 0.5
    expected = np.stack([image[:, :, ::-1] if turn else image for image, turn in zip(images, flipped, strict=True)])
    np.testing.assert_array_equal(RandomHorizontalFlip()(images, rng()), expected)
    assert 60 < flipped.sum() < 140
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(images, rng()), images)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(images, rng()), images[..., ::-1])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 20])
def test_cutout(size):
    images = batch()
    draws = rng()
    y, x = draws.integers(0, 5, len(images)), draws.integers(0, 6, len(images))
    expected = images.copy()
    for n in range(len(images)):
        top, left = y[n] - size // 2, x[n] - size // 2
        for row in range(max(top, 0), min(top + size, 5)):
            for column in range(max(left, 0), min(left + size, 6)):
                expected[n, :, row, column] = 0
    np.testing.assert_array_equal(Cutout(size)(images, rng()), expected)


def test_normalize_and_undo():
    images = batch()
    transform = Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])
    changed = transform(images, rng())
    for channel, (mean, std) in enumerate([(0.1, 1), (0.2, 2), (0.3, 4)]):
        np.testing.assert_allclose(changed[:, channel], (images[:, channel] - mean) / std, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(transform.undo(changed), images, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(transform.undo(changed[0]), images[0], rtol=1e-6, atol=1e-7)


def test_to_float():
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    floats = ToFloat()(images)
    assert floats.dtype == np.float32 and floats.min() == 0 and floats.max() == 1
    np.testing.assert_array_equal(np.rint(floats * 255), images)
    assert ToFloat()(floats) is floats


def test_wrong_arguments_and_images():
    for make in (
        lambda: PadCrop(-1),
        lambda: PadCrop(1, "mirror"),
        lambda: RandomHorizontalFlip(1.5),
        lambda: Cutout(-1),
        lambda: Normalize(0, 0),
        lambda: Normalize((0, 0), (1, 1, 1)),
        lambda: Normalize((0, 0), 1)(batch(), rng()),
    ):
        with pytest.raises(ValueError):
            make()
    with pytest.raises(TypeError, match=r"ToFloat\(\) before"):
        Normalize(0, 1)(np.zeros((1, 1, 2, 2), np.uint8), rng())
