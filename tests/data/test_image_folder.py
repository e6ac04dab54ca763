"""Every kind of picture file becomes the same array; every kind of broken one becomes one clear error."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from minires.data import DataLoader, ImageFolder, read_image, resize
from minires.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (3, 6, 9), dtype=np.uint8)
GREY = RGB[0]


def pillow(pixels=RGB):
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)) if pixels.ndim == 3 else pixels)


def test_rgb_png(tmp_path):
    pillow().save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, RGB)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), RGB)


def test_greyscale_and_bilevel(tmp_path):
    pillow(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([GREY] * 3))
    pillow(GREY).point(lambda value: 255 * (value > 99), mode="1").save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), np.stack([255 * (GREY > 99)] * 3))


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_greyscale_is_scaled_not_clipped(tmp_path, extension):
    deep = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{extension}")
    assert read_image(tmp_path / f"a.{extension}")[1].tolist() == [[0, 0, 1, 128, 255]]


def test_16_bit_colour(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 257)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert read_image(tmp_path / "a.png")[:, 0].tolist() == [[255, 0], [0, 255], [128, 1]]


def test_palette_with_and_without_transparency(tmp_path):
    colours = pillow().quantize(16)
    expected = np.asarray(colours.convert("RGB")).transpose(2, 0, 1)
    for name in ("a.png", "a.gif"):
        colours.save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    colours.save(tmp_path / "b.png", transparency=3)
    through = np.asarray(colours) == 3
    assert through.any()
    image = read_image(tmp_path / "b.png")
    assert (image[:, through] == 255).all()
    np.testing.assert_array_equal(image[:, ~through], expected[:, ~through])


def test_transparency_is_laid_on_white(tmp_path):
    colour = np.zeros((1, 3, 4), np.uint8)
    colour[0, :, 3] = [0, 255, 127]
    Image.fromarray(colour).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[255, 0, 128]]
    Image.fromarray(colour[..., 2:]).save(tmp_path / "b.png")  # grey with alpha
    assert read_image(tmp_path / "b.png")[2].tolist() == [[255, 0, 128]]


def smooth(height=24, width=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6, y * 10, 120 + x + y]).astype(np.uint8)


def test_jpeg_and_cmyk_jpeg(tmp_path):
    picture = pillow(smooth())
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.convert("CMYK").save(tmp_path / "b.jpg", quality=95)
    for name in ("a.jpg", "b.jpg"):
        assert abs(read_image(tmp_path / name).astype(int) - smooth()).mean() < 4


def test_exif_rotation_is_carried_out(tmp_path):
    for orientation, turn in ((6, -1), (3, 2), (8, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pillow(smooth()).save(tmp_path / "a.jpg", quality=95, exif=exif)
        expected = np.rot90(smooth(), turn, axes=(1, 2))
        image = read_image(tmp_path / "a.jpg")
        assert image.shape == expected.shape
        assert abs(image.astype(int) - expected).mean() < 4


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    for content in (b"", b"<html>not a picture</html>", b"\x89PNG\r\n\x1a\n" + bytes(40), bytes(range(256)) * 9):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png: cannot be read as a picture"):
            read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP"])
def test_truncated_files(tmp_path, kind):
    whole = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    pillow(noise).save(whole, kind)
    for share in (0.3, 0.7):
        path = tmp_path / f"cut.{kind.lower()}"
        path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
        with pytest.raises(DataError, match=rf"cut\.{kind.lower()}: cannot be read"):
            read_image(path)


def test_corrupt_pixels_in_a_png(tmp_path):
    whole = io.BytesIO()
    pillow().save(whole, "PNG")
    content = bytearray(whole.getvalue())
    content[60] ^= 255
    (tmp_path / "a.png").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 12_000, 20_000])
def test_decompression_bombs(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    block = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + block + empty)
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        read_image(tmp_path / "bomb.png")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: .*floating point"):
        read_image(tmp_path / "a.tif")


def test_resize_takes_the_middle_square():
    wide = np.zeros((3, 4, 8), np.uint8)
    wide[:, :, 2:6] = 200
    assert (resize(wide, 4) == 200).all()
    assert resize(wide, 4).shape == (3, 4, 4)
    assert (resize(wide.transpose(0, 2, 1), 9) == 200).all()
    np.testing.assert_array_equal(resize(RGB[:, :, :6], 6), RGB[:, :, :6])


def test_resize_averages_when_it_shrinks():
    stripes = np.zeros((3, 32, 32), np.uint8)
    stripes[:, :, ::2] = 200
    assert abs(resize(stripes, 8).astype(int) - 100).max() < 12
    assert resize(stripes, 1).shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("image", "size"),
    [(RGB, 0), (RGB[0], 4), (RGB[:2], 4), (RGB.astype(np.float32), 4)],
    ids=["size 0", "two axes", "two channels", "floats"],
)
def test_resize_refuses_other_arrays(image, size):
    with pytest.raises(ValueError, match="resize: needs"):
        resize(image, size)


@pytest.fixture
def folder(tmp_path):
    for name, shade in (("dog/b.png", 10), ("cat/z.PNG", 20), ("cat/a.jpg", 30), ("dog/more/a.bmp", 40)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow(np.full((3, 6, 8), shade, np.uint8)).save(path)
    for name in ("cat/notes.txt", "readme.md", "cat/.hidden.png"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_image_folder(folder):
    data = ImageFolder(folder)
    assert data.classes == ("cat", "dog") and data.class_to_idx == {"cat": 0, "dog": 1}
    assert [(str(path.relative_to(folder)), label) for path, label in data.samples] == [
        ("cat/a.jpg", 0),
        ("cat/z.PNG", 0),
        ("dog/b.png", 1),
        ("dog/more/a.bmp", 1),
    ]
    assert data.labels.tolist() == [0, 0, 1, 1]
    image, label = data[1]
    assert image.shape == (3, 6, 8) and image.dtype == np.float32 and label == 0
    np.testing.assert_array_equal(image, np.float32(20) / np.float32(255))
    batches = [[part.numpy() for part in batch] for batch in DataLoader(ImageFolder(folder, size=4), 3)]
    assert [images.shape for images, _ in batches] == [(3, 3, 4, 4), (1, 3, 4, 4)]
    assert np.concatenate([labels for _, labels in batches]).tolist() == [0, 0, 1, 1]
    assert repr(data).endswith("size=None)  # 4 images, 2 classes")


def test_pictures_of_different_size_need_a_size(folder):
    pillow(np.zeros((3, 5, 5), np.uint8)).save(folder / "dog" / "b.png")
    with pytest.raises(DataError, match=r"b\.png: shape \(3, 5, 5\) .*\(3, 6, 8\); give ImageFolder a size"):
        ImageFolder(folder).__getitems__([0, 2])
    assert ImageFolder(folder, size=3).__getitems__([0, 2])[0].shape == (2, 3, 3, 3)


def test_a_broken_picture_is_named_through_the_loader(folder):
    (folder / "dog" / "b.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"b\.png: cannot be read"):
        list(DataLoader(ImageFolder(folder, size=4), 1))


def test_wrong_folders(folder):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        ImageFolder(folder / "nowhere")
    with pytest.raises(DataError, match="holds no folders"):
        ImageFolder(folder / "dog" / "more")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no pictures"):
        ImageFolder(folder)
    with pytest.raises(ValueError, match="size must be at least 1"):
        ImageFolder(folder, size=0)
