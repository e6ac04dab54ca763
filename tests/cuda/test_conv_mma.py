"""The tensor-core convolution, its very index arithmetic, run on the CPU: against NumPy on factors rounded alike."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires.kernels import cpu
from minires.kernels.cuda import build, conv, conv_mma
from tests.cuda import shim
from tests.cuda.standin import cublas, meter
from tests.cuda.test_conv import case

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

CASES = {
    "usual": case(2, 8, 24, (7, 6), (3, 3), before=(1, 1)),
    "few-channels": case(3, 4, 16, (5, 4), (3, 3), before=(1, 1)),
    "picture": case(2, 3, 16, (9, 8), (7, 7), stride=(2, 2), before=(3, 3)),
    "many-outputs": case(1, 8, 136, (5, 6), (3, 3), before=(1, 1)),
    "strided": case(2, 8, 24, (9, 8), (3, 3), stride=(2, 2), before=(1, 1)),
    "steps": case(2, 8, 16, (11, 13), (2, 3), stride=(3, 2), before=(2, 1), dilation=(2, 3), extra=(1, 1)),
    "taps-that-meet-nothing": case(2, 8, 16, (9, 7), (2, 2), stride=(3, 3), dilation=(3, 1)),
    "no-padding": case(2, 16, 16, (6, 5), (3, 2)),
    "padded-pointwise": case(1, 8, 16, (4, 3), (1, 1), before=(1, 1)),
    "groups": case(2, 16, 48, (6, 5), (3, 3), before=(1, 1), groups=2),
    "one-pixel": case(1, 40, 16, (1, 1), (3, 3), before=(1, 1)),
    "smaller-than-the-stride": case(1, 8, 16, (2, 2), (1, 1), stride=(4, 4), before=(1, 1)),
}


@pytest.fixture(autouse=True)
def high():
    mr.set_float32_matmul_precision("high")
    yield
    mr.set_float32_matmul_precision("highest")


def factors(name, dtype, seed=0):
    x, w, y, geometry = CASES[name]
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in (x, w, y)], geometry


def as_multiplied(x):
    """What the tensor cores see of a factor, in float64."""
    return (cublas.rounded(x, 11) if x.dtype == np.float32 else x).astype(np.float64)


def all_three(xp, arrays, geometry):
    x, weight, dy = (xp.array(a) for a in arrays)
    bias = xp.ones(len(weight), x.dtype)
    return (
        conv.conv2d(x, weight, bias, *geometry, dy.shape[2:]),
        conv.conv_transpose2d(dy, weight, *geometry, x.shape[2:]),
        conv.conv2d_weight(x, dy, weight.shape[2:], *geometry),
    )


def compare(found, arrays, geometry, limit):
    x, weight, dy = (as_multiplied(a) for a in arrays)
    expected = (
        cpu.conv2d(x, weight, np.ones(len(weight)), *geometry, dy.shape[2:]),
        cpu.conv_transpose2d(dy, weight, *geometry, x.shape[2:]),
        cpu.conv2d_weight(x, dy, weight.shape[2:], *geometry),
    )
    for what, one, other in zip(("forward", "input", "weight"), found, expected, strict=True):
        assert one.dtype == arrays[0].dtype and one.shape == other.shape
        np.testing.assert_allclose(one.get(), other, rtol=0, atol=limit * np.abs(other).max(), err_msg=what)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("dtype, limit", [(np.float32, 2e-6), (np.float16, 1e-3)], ids=["float32", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(standin, monkeypatch, name, dtype, limit, descending):
    monkeypatch.setattr(conv_mma, "_SHARE_ROWS", 24)  # several shares, also here
    monkeypatch.setattr(conv_mma, "_FEWEST_OUTPUTS", 1)
    arrays, geometry = factors(name, dtype)
    with shim.lane_order(descending):
        found = all_three(standin, arrays, geometry)
    assert meter.launches["conv_windows"] >= 1 and meter.launches["conv_weight"] == 1
    assert not meter.launches["im2col"]
    compare(found, arrays, geometry, limit)


@pytest.mark.parametrize("precision", ["high", "highest"])
def test_images_that_begin_anywhere_in_flat_memory(standin, precision):
    """Chunks are read 16 bytes at a time, which a GPU does at multiples of 16 only: any other address ends the process."""
    mr.set_float32_matmul_precision(precision)
    arrays, geometry = factors("usual", np.float32)

    def moved(array):
        n, c, h, w = array.shape
        flat = standin.zeros(array.size + 1, array.dtype)[1:]
        flat[...] = standin.asarray(np.ascontiguousarray(array.transpose(0, 2, 3, 1)).ravel())
        return flat.reshape(n, h, w, c).transpose(0, 3, 1, 2)

    x, weight, dy = moved(arrays[0]), standin.asarray(arrays[1]), moved(arrays[2])
    assert x.data.ptr % 16 and dy.data.ptr % 16
    found = (
        conv.conv2d(x, weight, standin.ones(len(weight), x.dtype), *geometry, dy.shape[2:]),
        conv.conv_transpose2d(dy, weight, *geometry, x.shape[2:]),
        conv.conv2d_weight(x, dy, weight.shape[2:], *geometry),
    )
    compare(found, arrays, geometry, 2e-3)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("tile", range(4))
@pytest.mark.parametrize("name", ["usual", "many-outputs"])
def test_every_tile(standin, monkeypatch, name, tile, descending):
    monkeypatch.setattr(conv_mma, "_tile", lambda rows, outputs: tile)
    monkeypatch.setattr(conv_mma, "_weight_tile", lambda outputs, terms: tile)
    arrays, geometry = factors(name, np.float32)
    with shim.lane_order(descending):
        compare(all_three(standin, arrays, geometry), arrays, geometry, 2e-6)


def bfloat16(x):
    """float32 numbers as the bits of bfloat16, and what these stand for."""
    bits = (cublas.rounded(x, 8).view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
def test_bfloat16(descending):
    """NumPy has no such numbers, so the kernels are started by hand."""
    arrays, geometry = factors("usual", np.float32)
    library = shim.compile(build.code("conv_mma", {"T": "bfloat16", "TILE": 1}))
    (x, wide_x), (w, wide_w), (dy, wide_dy) = (
        bfloat16(np.ascontiguousarray(a.transpose(0, 2, 3, 1)))
        for a in arrays  # channels last
    )
    out = np.zeros((2, 7, 6, 24), np.uint16)
    sizes = [np.int32(v) for v in (2 * 7 * 6, 7, 6, 8, 8, 3, 3, 1, 1, -1, -1, 1, 1, 7, 6, 7, 6, 1, 1, 0, 0, 24, 24)]
    library.launch("conv_windows", 2, 128, [x, w, None, out, *sizes], descending=descending)
    images = [a.transpose(0, 3, 1, 2) for a in (wide_x, wide_w, wide_dy)]
    expected = cpu.conv2d(images[0], images[1], None, *geometry, (7, 6)).transpose(0, 2, 3, 1)
    found = (out.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-5)
    shares = np.zeros((1, 24, 72), np.float32)
    sizes = [np.int32(v) for v in (84, 84, 7, 6, 8, 8, 3, 3, 1, 1, -1, -1, 1, 1, 7, 6, 24, 24)]
    library.launch("conv_weight", 2, 128, [x, dy, shares, *sizes], descending=descending)
    gradient = cpu.conv2d_weight(images[0], images[2], (3, 3), *geometry).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(shares.reshape(gradient.shape), gradient, rtol=1e-5, atol=1e-5)


def test_results_repeat_bit_for_bit(standin, monkeypatch):
    monkeypatch.setattr(conv_mma, "_SHARE_ROWS", 24)
    arrays, geometry = factors("usual", np.float32)
    runs = []
    for descending in (False, True, False):
        with shim.lane_order(descending):
            runs.append([a.get().tobytes() for a in all_three(standin, arrays, geometry)])
    assert runs[0] == runs[1] == runs[2]


def test_not_a_number_stays_one(standin):
    arrays, geometry = factors("usual", np.float32)
    arrays[0][0, 0, 3, 3] = np.nan
    arrays[0][1, 0, 3, 3] = np.inf
    y, _, dw = (a.get() for a in all_three(standin, arrays, geometry))
    assert np.isnan(y[0, :, 3, 3]).all() and np.isinf(y[1, :, 3, 3]).all() and np.isfinite(y[0, :, 0, 0]).all()
    assert np.isnan(dw[:, 0]).all() and np.isfinite(dw[:, 1]).all()


def geometry_of(name):
    (n, c, *size), (o, _, *kernel), (_, _, *out), (stride, before, dilation, groups) = CASES[name]
    return conv.Geometry(n, c, o, tuple(kernel), stride, before, dilation, groups, tuple(size), tuple(out))


@pytest.mark.parametrize(
    "name, dtype, precision, expected",
    [
        ("usual", "float32", "highest", False),
        ("usual", "float32", "high", True),
        ("usual", "float32", "medium", True),
        ("usual", "float64", "high", False),
        ("usual", "float16", "highest", True),
        ("picture", "float32", "high", True),
        ("few-channels", "float16", "high", True),  # filled up to 8
        ("groups", "float16", "high", True),
    ],
)
def test_when_it_is_used(name, dtype, precision, expected):
    mr.set_float32_matmul_precision(precision)
    assert conv_mma.is_worthwhile(geometry_of(name), np.dtype(dtype)) == expected


def test_when_it_cannot_be_used():
    g = vars(geometry_of("usual"))
    single = np.dtype(np.float32)
    assert not conv_mma.is_worthwhile(conv.Geometry(**{**g, "channels": 6}), single)
    assert not conv_mma.is_worthwhile(conv.Geometry(**{**g, "outputs": 18}), single)
    assert not conv_mma.is_worthwhile(conv.Geometry(**{**g, "outputs": 512}), single)
    assert not conv_mma.is_worthwhile(conv.Geometry(**{**g, "channels": 6, "outputs": 32, "groups": 2}), single)
    assert not conv_mma.is_worthwhile(conv.Geometry(**{**g, "count": 2**31 // (7 * 6 * 24) + 1}), single)


@pytest.mark.parametrize("rows", [1, 1000, 100_000, 401_408])
@pytest.mark.parametrize("tiles", [1, 9, 600])
def test_shares_cover_all_rows(rows, tiles):
    size, count = conv_mma._shares(rows, tiles)
    assert (count - 1) * size < rows <= count * size
    assert count <= conv_mma._MOST_SHARES


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, limit", [("float32", 1e-5), ("float16", 2e-3)])
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(real_cupy, name, dtype, limit):
    arrays, geometry = factors(name, dtype)
    compare(all_three(real_cupy, arrays, geometry), arrays, geometry, limit)
