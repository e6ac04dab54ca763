"""Cluttered digits: the box holds the digit, train and test never mix, and a canvas depends on its number alone."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from minires.data import ClutteredDigits, Digits
from minires.data.cluttered import _bilinear, _Dice


def test_shapes_types_and_range():
    data = ClutteredDigits(size=50, with_boxes=True)
    assert len(data) == 50
    images, labels, boxes = data.__getitems__(range(50))
    assert images.shape == (50, 1, 28, 28) and images.dtype == np.float32
    assert images.min() == 0 and 0.8 < images.max() <= 1
    assert labels.shape == (50,) and labels.dtype == np.int64 and set(labels) == set(range(10))
    assert boxes.shape == (50, 4) and boxes.dtype == np.int64
    image, label, box = data[-1]
    np.testing.assert_array_equal(image, images[49])
    np.testing.assert_array_equal(box, boxes[49])
    assert type(label) is int and data.classes[label] == str(labels[49])


def test_default_sizes_and_samples_without_boxes():
    assert len(ClutteredDigits()) == 10_000 and len(ClutteredDigits(train=False)) == 2_000
    assert len(ClutteredDigits(size=3)[0]) == 2
    assert len(ClutteredDigits(size=3).__getitems__([0])) == 2


@pytest.mark.parametrize("box", ["patch", "ink"])
@pytest.mark.parametrize("jitter", [0, 2])
def test_boxes_hold_the_whole_digit_and_all_the_ink(box, jitter):
    data = ClutteredDigits(size=300, clutter=0, noise=0, jitter=jitter, box=box)
    for image, (y0, x0, y1, x1) in zip(data.images[:, 0], data.boxes, strict=True):
        assert 0 <= y0 < y1 <= 28 and 0 <= x0 < x1 <= 28
        outside = image.copy()
        outside[y0:y1, x0:x1] = 0
        assert outside.max() <= (0 if box == "patch" else 1 / 8)
        if box == "ink":  # tight: every side of the box touches ink
            inside = image[y0:y1, x0:x1] > 1 / 8
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        else:
            assert y1 - y0 == x1 - x0 and 14 - jitter <= y1 - y0 <= 14


def test_the_box_is_a_quarter_of_the_canvas_at_most():
    for box, most in (("patch", 0.25), ("ink", 0.20)):
        y0, x0, y1, x1 = ClutteredDigits(size=2000, box=box).boxes.T
        assert 0.1 < ((y1 - y0) * (x1 - x0)).mean() / 28**2 < most


def test_digits_are_at_random_places_everywhere():
    boxes = ClutteredDigits(size=3000, jitter=0).boxes
    counts = np.zeros((15, 15), int)
    np.add.at(counts, (boxes[:, 0], boxes[:, 1]), 1)
    assert counts.min() > 0 and counts.max() < 40  # 13 expected at each of the 225 places


def test_with_no_clutter_each_canvas_is_one_digit_of_its_split():
    for train in (True, False):
        data = ClutteredDigits(train, size=400, clutter=0, noise=0, jitter=0)
        digits = Digits(train)
        weight = _bilinear(14, 8)
        enlarged = (weight @ (digits.images[:, 0] / 16) @ weight.T).astype(np.float32)
        label_of = {sprite.tobytes(): label for sprite, label in zip(enlarged, digits.labels, strict=True)}
        for image, label, (y0, x0, y1, x1) in zip(data.images[:, 0], data.labels, data.boxes, strict=True):
            assert label_of[image[y0:y1, x0:x1].tobytes()] == label


def test_train_and_test_canvases_are_made_of_disjoint_digits():
    train, test = ClutteredDigits(True, size=5), ClutteredDigits(False, size=5)
    assert not set(train.digits.indices) & set(test.digits.indices)
    # The enlarged digits are all that canvases are pasted together from, and they are those of the split.
    for data in (train, test):
        assert data._sprites.shape == (3, len(data.digits), 14, 14)


def test_every_fragment_comes_from_the_split():
    data = ClutteredDigits(size=200, noise=0, clutter=6, seed=4)
    blank = ClutteredDigits(size=200, noise=0, clutter=6, seed=4)
    blank._sprites = np.zeros_like(blank._sprites)
    assert data.images.max() > 0 and blank.images.max() == 0


def test_all_digits_take_turns():
    data = ClutteredDigits(size=2 * 1438, clutter=0, noise=0, fresh=True)
    np.testing.assert_array_equal(np.bincount(data.labels), 2 * np.bincount(data.digits.labels))
    small = ClutteredDigits(size=719, fresh=True)
    labels = np.concatenate([small.draw(range(719), epoch)[1] for epoch in (0, 1)])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(data.digits.labels))


def test_fragments_are_there_but_leave_the_digit_readable():
    options = {"size": 400, "noise": 0.0, "seed": 8}
    alone, among = ClutteredDigits(clutter=0, **options), ClutteredDigits(clutter=4, **options)
    np.testing.assert_array_equal(alone.boxes, among.boxes)
    added = among.images - alone.images
    assert (added >= 0).all()
    outside = added.copy()
    changed = []
    for number, (y0, x0, y1, x1) in enumerate(among.boxes):
        changed.append((added[number, 0, y0:y1, x0:x1] > 0.3).mean())
        outside[number, 0, y0:y1, x0:x1] = 0
    assert (outside.reshape(400, -1).sum(axis=1) > 10).mean() > 0.99  # something to ignore on every canvas
    assert np.mean(changed) < 0.06 and np.quantile(changed, 0.95) < 0.3


def test_a_fragment_is_never_a_whole_digit():
    data = ClutteredDigits(size=300, clutter=1, noise=0, jitter=0)
    added = data.images[:, 0] - ClutteredDigits(size=300, clutter=0, noise=0, jitter=0).images[:, 0]
    for picture in added:
        rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
        if len(rows):
            # 6 of a digit's 8 rows and columns, at 14 pixels for 8
            assert np.ptp(rows) + 1 <= 11 and np.ptp(columns) + 1 <= 11


def test_noise_has_the_requested_strength():
    data = ClutteredDigits(size=200, clutter=0, noise=0.2)
    background = data.images[:, 0, 0, 0]  # corner pixels; half of the noise is clipped away at 0
    assert 0.3 < (background == 0).mean() < 0.7
    draws = _Dice(0, 0, np.arange(50)).normal((28, 28))
    assert draws.shape == (50, 28, 28) and draws.dtype == np.float32
    assert abs(draws.mean()) < 0.02 and abs(draws.std() - 1) < 0.02
    assert abs(np.corrcoef(draws[0].ravel(), draws[1].ravel())[0, 1]) < 0.15


def test_a_canvas_depends_on_seed_epoch_and_number_alone():
    data = ClutteredDigits(size=600, seed=3, with_boxes=True)
    whole = data.draw(range(600), epoch=5)
    for numbers in ([599, 0, 7], [7], [-1], range(100, 500)):
        for part, expected in zip(data.draw(numbers, epoch=5), whole, strict=True):
            np.testing.assert_array_equal(part, expected[list(numbers)])
    again = ClutteredDigits(size=600, seed=3).draw(range(600), epoch=5)
    assert all((one == two).all() for one, two in zip(whole, again, strict=True))
    assert (whole[0] != data.draw(range(600), epoch=6)[0]).any()
    assert (whole[0] != ClutteredDigits(size=600, seed=4).draw(range(600), epoch=5)[0]).any()


def test_canvases_are_the_same_on_every_machine():
    images, labels, boxes = ClutteredDigits(size=64).draw(range(64))
    levels = np.rint(images * 255).astype(np.uint8)
    assert labels[:8].tolist() == [0, 4, 5, 6, 7, 8, 9, 0]
    assert boxes[:2].tolist() == [[6, 0, 20, 14], [5, 6, 19, 20]]
    assert hashlib.sha256(levels.tobytes()).hexdigest()[:16] == "fd0b2eac37b766eb"


def test_fresh_canvases_change_with_the_epoch_and_others_do_not():
    fixed, fresh = ClutteredDigits(size=30), ClutteredDigits(size=30, fresh=True)
    np.testing.assert_array_equal(fixed.images, fresh.images)
    first = fixed.images
    for data in (fixed, fresh):
        data.set_epoch(1)
    assert fixed.images is first
    assert (fresh.images != first).any()
    np.testing.assert_array_equal(fresh.__getitems__([4, 2])[0], fresh.draw([4, 2], 1)[0])
    np.testing.assert_array_equal(fresh.labels, fresh.draw(range(30), 1)[1])
    fresh.set_epoch(0)
    np.testing.assert_array_equal(fresh.images, first)


@pytest.mark.parametrize(("canvas", "digit", "clutter"), [(14, 14, 4), (40, 20, 8), (64, 9, 1), (33, 31, 0)])
def test_other_sizes(canvas, digit, clutter):
    data = ClutteredDigits(size=20, canvas=canvas, digit=digit, clutter=clutter)
    assert data.images.shape == (20, 1, canvas, canvas) and np.isfinite(data.images).all()
    assert (data.boxes >= 0).all() and (data.boxes <= canvas).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size >= 1, got 0"),
        ({"canvas": 10}, "canvas >= digit"),
        ({"digit": 5}, "digit - jitter >= 4"),
        ({"clutter": -1}, "clutter"),
        ({"noise": -0.1}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"seed": -1}, "seed"),
        ({"jitter": -1}, "jitter"),
        ({"box": "tight"}, "'patch' or 'ink', got 'tight'"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ClutteredDigits(**options)


def test_wrong_index():
    for index in (5, -6):
        with pytest.raises(IndexError):
            ClutteredDigits(size=5)[index]
        with pytest.raises(IndexError):
            ClutteredDigits(size=5, fresh=True)[index]


def test_ten_thousand_canvases_take_no_time():
    data = ClutteredDigits()
    start = time.process_time()
    data.draw(range(10_000))
    assert time.process_time() - start < 1.5


def test_bilinear_matches_the_textbook():
    rng = np.random.default_rng(0)
    small = rng.random(8).astype(np.float32)
    large = _bilinear(14, 8) @ small
    for place in range(14):
        position = min(max((place + 0.5) * 8 / 14 - 0.5, 0), 7)
        left = int(position)
        right = min(left + 1, 7)
        assert abs(large[place] - (small[left] * (left + 1 - position) + small[right] * (position - left))) < 1e-6


def test_dice_are_fair():
    dice = _Dice(1, 2, np.arange(6000))
    counts = np.bincount(dice.below(6), minlength=6)
    assert counts.sum() == 6000 and (abs(counts - 1000) < 150).all()
    several = dice.below(np.full((6000, 1), 4), 3)
    assert several.shape == (6000, 3) and several.min() == 0 and several.max() == 3
    assert abs(np.corrcoef(several.T) - np.eye(3)).max() < 0.05


def test_repr():
    assert repr(ClutteredDigits(False, 7)).startswith("ClutteredDigits(train=False, size=7, canvas=28")
