"""The convolution kernels for the GPU, run on the CPU, against NumPy's: every way, odd sizes, both orders of threads."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import cpu
from minires.kernels.cuda import conv
from tests.cuda import shim
from tests.functional.problem import assert_close

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))


def case(n, c, o, size, kernel, stride=(1, 1), before=(0, 0), dilation=(1, 1), groups=1, extra=(0, 0)):
    """A geometry whose output has the natural size; ``extra`` rows and columns of the input are seen by no window."""
    steps = zip(size, kernel, stride, before, dilation, strict=True)
    out = [(i + 2 * p - d * (k - 1) - 1) // s + 1 for i, k, s, p, d in steps]
    size = tuple(i + e for i, e in zip(size, extra, strict=True))
    return (n, c, *size), (o, c // groups, *kernel), (n, o, *out), (stride, before, dilation, groups)


CASES = {
    "pointwise": case(2, 5, 3, (4, 3), (1, 1)),
    "pointwise-groups": case(3, 6, 9, (4, 3), (1, 1), groups=3),
    "pointwise-strided": case(2, 4, 3, (5, 6), (1, 1), stride=(2, 3)),
    "pointwise-strided-groups": case(2, 4, 6, (5, 6), (1, 1), stride=(2, 1), groups=2),
    "pointwise-cut": case(2, 4, 3, (5, 6), (1, 1), extra=(2, 1)),
    "pointwise-padded": case(2, 4, 3, (3, 2), (1, 1), before=(1, 2)),
    "columns": case(3, 4, 5, (6, 7), (3, 3), before=(1, 1)),
    "columns-odd": case(2, 3, 5, (6, 5), (3, 2), before=(1, 0)),
    "columns-strided": case(2, 8, 3, (9, 8), (3, 3), stride=(2, 2), before=(1, 1)),
    "columns-steps": case(2, 2, 3, (9, 10), (2, 3), stride=(3, 2), before=(2, 1), dilation=(2, 3), extra=(1, 1)),
    "columns-groups": case(2, 6, 4, (5, 6), (3, 3), before=(1, 1), groups=2),
    "columns-stem": case(1, 3, 4, (12, 11), (7, 7), stride=(2, 2), before=(3, 3)),
    "depthwise": case(3, 5, 5, (6, 7), (3, 3), before=(1, 1), groups=5),
    "depthwise-multiplied": case(2, 34, 68, (4, 5), (3, 2), stride=(2, 1), before=(1, 0), groups=34),
    "depthwise-steps": case(2, 3, 3, (8, 9), (2, 3), stride=(1, 3), before=(1, 2), dilation=(3, 2), groups=3),
    "nothing": case(0, 3, 4, (6, 6), (3, 3)),
}


def arrays(name, dtype):
    x, w, y, geometry = CASES[name]
    rng = np.random.default_rng(0)
    return *(rng.standard_normal(shape).astype(dtype) for shape in (x, w, y, w[:1])), geometry


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def lanes(request):
    with shim.lane_order(request.param):
        yield


@pytest.fixture(params=[1, 20_000, 1 << 25])
def column_bytes(request, monkeypatch):
    """One image or one run of rows at a time, some with a rest, all at once."""
    monkeypatch.setattr(conv, "_COLUMN_BYTES", request.param)
    monkeypatch.setattr(conv, "_ROW_MULTIPLE", 4 if request.param == 1 else 128)


def check_all_three(xp, name, dtype, limit=None):
    x, weight, dy, bias, geometry = arrays(name, dtype)
    device = [xp.array(a) for a in (x, weight, dy, bias)]
    wide = [a.astype(np.float32 if dtype == np.float16 else dtype) for a in (x, weight, dy, bias)]
    pairs = {
        "forward": (
            conv.conv2d(device[0], device[1], device[3], *geometry, dy.shape[2:]),
            cpu.conv2d(wide[0], wide[1], wide[3], *geometry, dy.shape[2:]),
        ),
        "input": (
            conv.conv_transpose2d(device[2], device[1], *geometry, x.shape[2:]),
            cpu.conv_transpose2d(wide[2], wide[1], *geometry, x.shape[2:]),
        ),
        "weight": (
            conv.conv2d_weight(device[0], device[2], weight.shape[2:], *geometry),
            cpu.conv2d_weight(wide[0], wide[2], weight.shape[2:], *geometry),
        ),
    }
    for what, (found, expected) in pairs.items():
        assert found.dtype == dtype
        if dtype == np.float16:
            np.testing.assert_allclose(found.get(), expected, rtol=2e-3, atol=2e-2, err_msg=what)
        else:
            assert_close(found.get(), expected, what)
    for what in ("forward", "input"):
        assert pairs[what][0].transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(standin, lanes, column_bytes, name):
    check_all_three(standin, name, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", ["columns", "columns-strided", "depthwise", "pointwise-groups"])
def test_dtypes(standin, name, dtype):
    check_all_three(standin, name, dtype)


@pytest.mark.parametrize("dtype", [np.complex128, np.int64])
def test_complex_and_integer_arrays(standin, dtype):
    x, weight, dy, _, geometry = arrays("columns-odd", float)
    x, weight, dy = ((10 * a).astype(dtype) for a in (x, weight, dy))
    device = [standin.array(a) for a in (x, weight, dy)]
    y = conv.conv2d(device[0], device[1], None, *geometry, dy.shape[2:])
    np.testing.assert_allclose(y.get(), cpu.conv2d(x, weight, None, *geometry, dy.shape[2:]))
    dx = conv.conv_transpose2d(device[2], device[1], *geometry, x.shape[2:])
    np.testing.assert_allclose(dx.get(), cpu.conv_transpose2d(dy, weight, *geometry, x.shape[2:]))
    dw = conv.conv2d_weight(device[0], device[2], weight.shape[2:], *geometry)
    np.testing.assert_allclose(dw.get(), cpu.conv2d_weight(x, dy, weight.shape[2:], *geometry))


def test_a_pointwise_convolution_is_one_product_on_the_memory_as_it_is(standin):
    from tests.cuda.standin import cublas

    x, weight, dy, _, geometry = arrays("pointwise-groups", np.float32)
    x, dy = (standin.array(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dy))
    weight = standin.array(weight)
    with cublas.installed() as library:
        y = conv.conv2d(x, weight, None, *geometry, dy.shape[2:])
        dx = conv.conv_transpose2d(dy, weight, *geometry, x.shape[2:])
        dw = conv.conv2d_weight(x, dy, (1, 1), *geometry)
    used = [arguments for name, arguments in library.calls if name.startswith("cublasGemm")]
    assert len(used) == 3
    for arguments, operands in zip(used, [(x, weight, y), (dy, weight, dx), (x, dy, dw)], strict=True):
        assert all(array.data.ptr in arguments for array in operands)


def test_memory_for_columns_is_bounded(standin, monkeypatch):
    monkeypatch.setattr(conv, "_COLUMN_BYTES", 1 << 14)
    sizes = []
    empty = standin.empty
    monkeypatch.setattr(standin, "empty", lambda shape, *rest: sizes.append(empty(shape, *rest)) or sizes[-1])
    x = standin.ones((4, 4, 16, 16), np.float32)
    weight = standin.ones((4, 4, 3, 3), np.float32)
    geometry = ((1, 1), (1, 1), (1, 1), 1)
    conv.conv2d(x, weight, None, *geometry, (16, 16))
    conv.conv2d_weight(x, x, (3, 3), *geometry)
    assert max(a.nbytes for a in sizes) <= max(x.nbytes, 128 * 36 * 4)
    sizes.clear()
    conv.conv_transpose2d(x, weight, *geometry, (16, 16))
    assert max(a.nbytes for a in sizes) <= 256 * 36 * 4  # one image


def test_results_repeat_bit_for_bit(standin):
    x, weight, dy, _, geometry = arrays("depthwise-multiplied", np.float32)
    device = [standin.array(a) for a in (x, weight, dy)]

    def run():
        dw = conv.conv2d_weight(device[0], device[2], weight.shape[2:], *geometry)
        return dw.get().tobytes()

    with shim.lane_order(True):
        first = run()
    with shim.lane_order(False):
        assert run() == first


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(real_cupy, name, dtype):
    check_all_three(real_cupy, name, np.dtype(dtype))
