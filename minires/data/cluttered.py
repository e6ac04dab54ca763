"""Pictures with something to ignore: one whole handwritten digit among fragments of others.

Attention is worth nothing on an image that is filled by its object. Here each canvas holds exactly one whole digit, at
a random place, and around it pieces cut out of other digits and noise. A network that learns where to look is better,
and because we know the digit's box, "it looks at the digit" can be measured rather than admired. The idea is the
cluttered MNIST of Mnih, Heess, Graves and Kavukcuoglu 2014, "Recurrent Models of Visual Attention",
arXiv:1406.6247; the digits are those of ``minires.data.digits``.

Every canvas is a pure function of ``(seed, epoch, number)``: its random numbers are hashes of these three. So any batch
of any epoch can be drawn on its own, in any order and any thread, and comes out the same bit for bit. That is what lets
``fresh=True`` make new canvases for each epoch without storing one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minires.data.dataset import Array, Dataset, Indices
from minires.data.digits import Digits

__all__ = ["ClutteredDigits"]

CHUNK = 256  # canvases drawn at a time, so that the work stays in the processor's cache
VISIBLE = 1 / 8  # brightness from which a pixel counts as ink
PLACES = 6  # places tried for each fragment; the one that covers least of the digit is taken

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]


class ClutteredDigits(Dataset):
    """Canvases (1, canvas, canvas) float32 in [0, 1], each with one whole digit; labels 0..9.

    Train and test canvases are made of disjoint digits, the fragments included.

    Args:
        train: make canvases from the training digits, else from the test digits.
        size: number of canvases; None means 10,000 for training and 2,000 for testing. All digits of the split are
            used equally often (they take turns).
        canvas: height and width of a canvas in pixels.
        digit: height and width of the largest digits; the 8x8 originals are enlarged bilinearly.
        clutter: number of fragments, each a rectangle of 4 to 6 by 4 to 6 of a digit's 8x8 pixels, enlarged as much.
            They lie beside the digit where there is room, and may touch it or each other.
        noise: standard deviation of the noise on every pixel, before values are clipped to [0, 1].
        seed: chooses the canvases, 0 or more.
        jitter: digits are ``digit - jitter`` to ``digit`` pixels high and wide.
        fresh: draw new canvases after each ``set_epoch`` (a ``DataLoader`` calls it), else the same in every epoch.
        with_boxes: hand out ``(image, label, box)``, else ``(image, label)``.
        box: "patch" for the whole square that the digit's image fills, or "ink" for the smallest box around its
            visible pixels (brighter than 1/8).

    At the defaults the patch covers 21.6 % of the canvas and the ink box 17 % on average.

    Raises:
        ValueError: an argument that makes no sense; the message says which.
    """

    def __init__(
        self,
        train: bool = True,
        size: int | None = None,
        canvas: int = 28,
        digit: int = 14,
        clutter: int = 4,
        noise: float = 0.1,
        seed: int = 0,
        *,
        jitter: int = 2,
        fresh: bool = False,
        with_boxes: bool = False,
        box: str = "patch",
    ) -> None:
        self.train, self.canvas, self.digit, self.clutter, self.noise = train, canvas, digit, clutter, noise
        self.size = (10_000 if train else 2_000) if size is None else size
        self.seed, self.jitter, self.fresh, self.with_boxes, self.box = seed, jitter, fresh, with_boxes, box
        self._check()
        self.digits = Digits(train=train)
        self.classes = self.digits.classes
        self.epoch = 0
        self._sprites, self._ink = _enlarge(self.digits, range(digit - jitter, digit + 1))
        self._drawn: tuple[int, tuple[Floats, Array, Array]] | None = None

    def _check(self) -> None:
        requirements = {
            f"size >= 1, got {self.size}": self.size >= 1,
            f"jitter >= 0, got {self.jitter}": self.jitter >= 0,
            f"digit - jitter >= 4 pixels, got {self.digit} - {self.jitter}": self.digit - self.jitter >= 4,
            f"canvas >= digit, got {self.canvas} and {self.digit}": self.canvas >= self.digit,
            f"clutter >= 0, got {self.clutter}": self.clutter >= 0,
            f"noise >= 0, got {self.noise}": self.noise >= 0,
            f"seed >= 0, got {self.seed}": self.seed >= 0,
            f"box 'patch' or 'ink', got {self.box!r}": self.box in ("patch", "ink"),
        }
        for text, holds in requirements.items():
            if not holds:
                raise ValueError(f"ClutteredDigits: needs {text}")

    def __len__(self) -> int:
        """The number of canvases (in each epoch)."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """With ``fresh=True``, make this the epoch whose canvases are handed out; otherwise nothing changes."""
        if self.fresh:
            self.epoch = epoch

    @property
    def images(self) -> Floats:
        """(size, 1, canvas, canvas) float32: all canvases of this epoch."""
        return self._all()[0]

    @property
    def labels(self) -> Array:
        """(size,) int64: the whole digit on each canvas of this epoch."""
        return self._all()[1]

    @property
    def boxes(self) -> Array:
        """(size, 4) int64: y0, x0, y1, x1 of each digit in pixels, half-open: ``image[:, y0:y1, x0:x1]``."""
        return self._all()[2]

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Canvas ``index`` (1, canvas, canvas), its label and, if asked for, its box (4,)."""
        image, label, *box = (part[0] for part in self.__getitems__([index]))
        return image, int(label), *box

    def __getitems__(self, indices: Indices, rng: np.random.Generator | None = None) -> tuple[Array, ...]:
        """Images (N, 1, canvas, canvas), labels (N,) and, if asked for, boxes (N, 4)."""
        # Canvases that stay the same are worth keeping; fresh ones are needed once each.
        parts = self.draw(indices, self.epoch) if self.fresh else tuple(part[indices] for part in self._all())
        return parts if self.with_boxes else parts[:2]

    def draw(self, indices: Indices, epoch: int = 0) -> tuple[Floats, Array, Array]:
        """Draw canvases of any epoch: images (N, 1, canvas, canvas) float32, labels (N,) and boxes (N, 4) int64.

        Raises:
            IndexError: an index lies outside of the data set.
        """
        numbers = np.asarray(indices, dtype=np.int64)
        if numbers.size and not (-self.size <= numbers.min() and numbers.max() < self.size):
            raise IndexError(f"ClutteredDigits: index outside of {self.size} canvases")
        numbers = numbers % self.size
        images = np.empty((len(numbers), 1, self.canvas, self.canvas), np.float32)
        which, boxes = np.empty(len(numbers), np.int64), np.empty((len(numbers), 4), np.int64)
        for start in range(0, len(numbers), CHUNK):
            part = slice(start, start + CHUNK)
            images[part, 0], which[part], boxes[part] = self._draw_chunk(numbers[part], epoch)
        return images, self.digits.labels[which], boxes

    def _all(self) -> tuple[Floats, Array, Array]:
        if self._drawn is None or self._drawn[0] != self.epoch:
            self._drawn = (self.epoch, self.draw(np.arange(self.size), self.epoch))
        return self._drawn[1]

    def _draw_chunk(self, numbers: Array, epoch: int) -> tuple[Floats, Array, Array]:
        dice = _Dice(self.seed, epoch, numbers)
        kinds, count = self._sprites.shape[:2]
        which = (epoch * self.size + numbers) % count
        kind = dice.below(kinds)
        side = self.digit - self.jitter + kind
        y, x = dice.below(self.canvas - side + 1), dice.below(self.canvas - side + 1)
        patch = np.stack([y, x, y + side, x + side], axis=1)  # (N, 4)
        # Sprites are stored in squares of the largest size: a margin takes what is empty of the smaller ones.
        sheet = np.zeros((len(numbers), self.canvas + self.digit, self.canvas + self.digit), np.float32)
        _paste(sheet, self._sprites[kind, which], y, x)
        for _ in range(self.clutter):
            self._add_fragment(sheet, dice, which, patch)
        canvases = sheet[:, : self.canvas, : self.canvas]
        if self.noise:
            canvases = canvases + np.float32(self.noise) * dice.normal((self.canvas, self.canvas))
        ink = self._ink[kind, which] + np.stack([y, x, y, x], axis=1)
        return np.clip(canvases, 0, 1), which, patch if self.box == "patch" else ink

    def _add_fragment(self, sheet: Floats, dice: _Dice, which: Array, patch: Array) -> None:
        kinds, count = self._sprites.shape[:2]
        source = (which + 1 + dice.below(count - 1)) % count  # any digit but the canvas's own
        kind = dice.below(kinds)
        side = self.digit - self.jitter + kind
        height, width = ((side * (4 + dice.below(3)) + 4) // 8 for _ in range(2))
        top, left = dice.below(side - height + 1), dice.below(side - width + 1)
        y = dice.below(self.canvas - height[:, None] + 1, PLACES)  # (N, PLACES)
        x = dice.below(self.canvas - width[:, None] + 1, PLACES)
        covered = _overlap(y, height, patch[:, 0], patch[:, 2]) * _overlap(x, width, patch[:, 1], patch[:, 3])
        best = covered.argmin(axis=1)[:, None]
        y, x = np.take_along_axis(y, best, 1)[:, 0], np.take_along_axis(x, best, 1)[:, 0]

        reach = np.arange(-(-self.digit * 6 // 8))  # the largest fragment
        rows = np.minimum(top[:, None] + reach, self.digit - 1)
        columns = np.minimum(left[:, None] + reach, self.digit - 1)
        piece = self._sprites[kind[:, None, None], source[:, None, None], rows[:, :, None], columns[:, None, :]]
        inside = (reach < height[:, None])[:, :, None] & (reach < width[:, None])[:, None, :]  # (N, reach, reach)
        _paste(sheet, piece * inside, y, x)

    def __repr__(self) -> str:
        """The constructor call, with what differs from one use to the next."""
        return (
            f"ClutteredDigits(train={self.train}, size={self.size}, canvas={self.canvas}, digit={self.digit}, "
            f"clutter={self.clutter}, noise={self.noise}, seed={self.seed}, fresh={self.fresh})"
        )


def _overlap(start: Array, length: Array, low: Array, high: Array) -> Array:
    """How many pixels the stretch [start, start + length) shares with [low, high). start: (N, P), the others (N,)."""
    end = start + length[:, None]
    shared: Array = np.maximum(np.minimum(end, high[:, None]) - np.maximum(start, low[:, None]), 0)
    return shared


def _paste(sheet: Floats, pieces: Floats, y: Array, x: Array) -> None:
    """Put piece n on sheet n with its corner at (y[n], x[n]); where ink meets ink the brighter stays."""
    count, height, width = pieces.shape
    rows = y[:, None] + np.arange(height)
    columns = x[:, None] + np.arange(width)
    # (N, height, width): each target pixel's place in the flat sheet, which is quicker than three index arrays.
    place = (np.arange(count)[:, None, None] * sheet.shape[1] + rows[:, :, None]) * sheet.shape[2] + columns[:, None, :]
    flat = sheet.reshape(-1)
    flat[place] = np.maximum(flat[place], pieces)


def _enlarge(digits: Digits, sides: range) -> tuple[Floats, Array]:
    """The digits at several sizes, (sizes, N, side, side), and the boxes of their ink (sizes, N, 4)."""
    # In float64, rounded once at the end: so the order in which a machine adds can not show.
    small = digits.images[:, 0] / digits.peak  # (N, 8, 8)
    sprites = np.zeros((len(sides), len(small), sides[-1], sides[-1]), np.float32)
    for sheet, side in zip(sprites, sides, strict=True):
        weight = _bilinear(side, small.shape[-1])
        sheet[:, :side, :side] = weight @ small @ weight.T
    visible = sprites > VISIBLE
    rows, columns = _extent(np.any(visible, axis=3)), _extent(np.any(visible, axis=2))  # (sizes, N, 2) each
    return sprites, np.stack([rows[..., 0], columns[..., 0], rows[..., 1], columns[..., 1]], axis=-1)


def _extent(line: npt.NDArray[np.bool_]) -> Array:
    """First and one-past-last True along the last axis, (..., 2)."""
    return np.stack([line.argmax(axis=-1), line.shape[-1] - line[..., ::-1].argmax(axis=-1)], axis=-1)


def _bilinear(large: int, small: int) -> npt.NDArray[np.float64]:
    """The (large, small) matrix that interpolates linearly between pixel centres; beyond the last it is constant."""
    position = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    distance = np.abs(position[:, None] - np.arange(small))
    weights: npt.NDArray[np.float64] = np.maximum(1 - distance, 0)
    return weights


class _Dice:
    """Random numbers that depend on (seed, epoch, canvas) and on how many were drawn before, on nothing else.

    They are hashes of a counter: the finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom
    Number Generators"), whole arrays at once. NumPy's own generators would need one object for each canvas.
    """

    def __init__(self, seed: int, epoch: int, numbers: Array) -> None:
        run = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(epoch))
        self._stream = _mix(run + numbers.astype(np.uint64))[:, None]  # (N, 1): one stream for each canvas
        self._used = 0

    def words(self, count: int) -> Words:
        """The next ``count`` words of 64 random bits of each canvas, (N, count)."""
        counter = np.arange(self._used + 1, self._used + count + 1, dtype=np.uint64)
        self._used += count
        return _mix(self._stream + counter * np.uint64(0x9E3779B97F4A7C15))

    def below(self, bound: int | Array, count: int = 0) -> Array:
        """Whole numbers 0 <= n < bound: one for each canvas (N,), or ``count`` for each (N, count)."""
        high = (self.words(count or 1) >> np.uint64(32)).astype(np.int64)
        result: Array = (high if count else high[:, 0]) * bound >> 32
        return result

    def normal(self, shape: tuple[int, int]) -> Floats:
        """Nearly normal numbers, mean 0 and standard deviation 1, (N, *shape).

        The sum of four random bytes is close enough to a Gaussian to look like noise, and unlike logarithms and cosines
        it is the same on every machine.
        """
        pixels = shape[0] * shape[1]
        octets = self.words((pixels + 1) // 2).astype("<u8", copy=False).view(np.uint8)  # (N, pixels * 4)
        total = octets.reshape(len(octets), -1, 4)[:, :pixels].sum(axis=2, dtype=np.uint16)
        spread = np.float32(1 / np.sqrt(4 * (256**2 - 1) / 12))
        numbers: Floats = ((total.astype(np.float32) - np.float32(510)) * spread).reshape(-1, *shape)
        return numbers


def _mix(words: Words) -> Words:
    """Scramble 64-bit words so that each bit of the input changes half of the bits of the output."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
