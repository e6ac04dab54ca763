"""What cuBLAS is asked for: carried out on the CPU, column by column as cuBLAS does, and compared with ``a @ b``."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minires as mr
from minires.errors import DeviceError
from minires.kernels.cuda import blas
from tests.cuda.standin import cublas
from tests.functional.problem import assert_close


@pytest.fixture
def library(standin):
    """The library that minires found, with its calls."""
    with cublas.installed() as found:
        yield found


@pytest.fixture
def precision():
    yield mr.set_float32_matmul_precision
    mr.set_float32_matmul_precision("highest")


LAYOUTS = {
    "rows": lambda xp, x: xp.array(x),
    "columns": lambda xp, x: xp.array(x.swapaxes(-1, -2)).swapaxes(-1, -2),
    "rows of a wider matrix": lambda xp, x: xp.array(np.concatenate([x, x], -1))[..., : x.shape[-1]],
    "columns of a taller one": lambda xp, x: xp.array(np.concatenate([x, x], -2).swapaxes(-1, -2))[
        ..., : x.shape[-2]
    ].swapaxes(-1, -2),
    "with gaps": lambda xp, x: xp.array(np.repeat(x, 2, -1))[..., ::2],
    "backwards": lambda xp, x: xp.array(x[..., ::-1, :])[..., ::-1, :],
}
PAIRS = list(itertools.product(LAYOUTS, LAYOUTS))
NEED_A_COPY = {"with gaps", "backwards"}
BATCHES = [((2,), (2,)), ((2, 3), (2, 3)), ((2, 3), ()), ((), (3,)), ((2, 1), (3,)), ((1,), (2,))]
VECTORS = [((5,), (5,)), ((5,), (5, 4)), ((3, 5), (5,)), ((2, 3, 5), (5,)), ((5,), (2, 5, 4))]
SHAPES = [(3, 5, 4), (1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 1)]


def random(*shapes, dtype=np.float64):
    rng = np.random.default_rng(len(shapes[0]))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("first, second", PAIRS)
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_every_layout(standin, library, first, second, sizes):
    m, k, n = sizes
    a, b = random((m, k), (k, n))
    product = blas.matmul(LAYOUTS[first](standin, a), LAYOUTS[second](standin, b))
    assert_close(product.get(), a @ b, f"{first}, {second}")
    assert library.count("cublasGemmEx") == 1


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("first, second", PAIRS)
def test_every_stack_of_matrices(standin, library, first, second, batch):
    a, b = random((*batch[0], 3, 5), (*batch[1], 5, 4))
    product = blas.matmul(LAYOUTS[first](standin, a), LAYOUTS[second](standin, b))
    assert_close(product.get(), a @ b, f"{first}, {second}")
    assert library.count("cublasGemm") == 1


def test_axes_in_any_order_are_one_stack(standin, library):
    """The groups of a convolution: (rows, g, c) seen as (g, rows, c), without a copy."""
    a, b = random((7, 2, 3), (2, 4, 3))
    x, w, out = standin.array(a), standin.array(b), standin.empty((7, 2, 4))
    blas.multiply_add(x.swapaxes(0, 1), w.swapaxes(1, 2), out.swapaxes(0, 1), 0.0)
    assert_close(out.get(), np.einsum("rgc,goc->rgo", a, b), "groups")
    assert all(array.data.ptr in library.calls[-1][1] for array in (x, w, out))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_are_not_copied_without_need(standin, library, layout):
    a, b = random((3, 5), (5, 4))
    x, w = LAYOUTS[layout](standin, a), LAYOUTS[layout](standin, b)
    blas.matmul(x, w)
    given = [array.data.ptr in library.calls[-1][1] for array in (x, w)]
    assert given == [layout not in NEED_A_COPY] * 2


@pytest.mark.parametrize("shapes", VECTORS, ids=str)
def test_vectors(standin, library, shapes):
    a, b = random(*shapes)
    assert_close(blas.matmul(standin.array(a), standin.array(b)).get(), a @ b, "vectors")


@pytest.mark.parametrize("shapes", [((0, 5), (5, 4)), ((3, 0), (0, 4)), ((3, 5), (5, 0)), ((0, 3, 5), (5, 4))], ids=str)
def test_nothing_to_multiply(standin, library, shapes):
    a, b = random(*shapes)
    product = blas.matmul(standin.array(a), standin.array(b)).get()
    assert product.shape == (a @ b).shape
    np.testing.assert_array_equal(product, a @ b)
    assert not library.count("cublasGemm")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
def test_where_the_result_goes(standin, library, layout, beta):
    a, b, c = random((3, 5), (5, 4), (3, 4))
    out = LAYOUTS[layout](standin, c)
    blas.multiply_add(standin.array(a), standin.array(b), out, beta)
    assert_close(out.get(), a @ b + beta * c, layout)
    out = LAYOUTS[layout](standin, c)
    assert blas.matmul(standin.array(a), standin.array(b), out) is out
    assert_close(out.get(), a @ b, layout)
    single = standin.zeros((3, 4), np.float32)  # of another dtype
    blas.matmul(standin.array(a), standin.array(b), single)
    assert_close(single.get(), (a @ b).astype(np.float32), layout)


def test_what_was_in_out_does_not_count(standin, library):
    a, b = random((3, 5), (5, 4))
    out = standin.full((3, 4), np.nan)
    blas.matmul(standin.array(a), standin.array(b), out)
    assert_close(out.get(), a @ b, "NaN before")


@pytest.mark.parametrize("dtypes", [(np.float16, np.float16), (np.float16, np.float32), (np.float32, np.float64)], ids=str)
def test_dtypes(standin, library, dtypes):
    a, b = random((3, 5), (5, 4))
    a, b = a.astype(dtypes[0]), b.astype(dtypes[1])
    product = blas.matmul(standin.array(a), standin.array(b)).get()
    assert product.dtype == np.result_type(a, b)
    np.testing.assert_allclose(product, a.astype(float) @ b.astype(float), rtol=4 * np.finfo(product.dtype).eps, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.complex128, np.int64])
def test_other_numbers_take_the_plain_way(standin, library, dtype):
    a, b = (np.round(10 * x).astype(dtype) for x in random((3, 5), (5, 4)))
    np.testing.assert_allclose(blas.matmul(standin.array(a), standin.array(b)).get(), a @ b)
    assert not library.count("cublasGemm")


def test_half_factors_into_a_float_sum(standin, library):
    a, b = random((3, 50), (50, 4), dtype=np.float16)
    out = standin.ones((3, 4), np.float32)
    blas.multiply_add(standin.array(a), standin.array(b), out, 1.0)
    np.testing.assert_allclose(out.get(), a.astype(float) @ b.astype(float) + 1, rtol=1e-5, atol=1e-5)


def test_shapes_that_do_not_fit(standin, library):
    with pytest.raises(ValueError):
        blas.matmul(standin.zeros((3, 5)), standin.zeros((4, 5)))
    with pytest.raises(ValueError):
        blas.matmul(standin.zeros((2, 3, 5)), standin.zeros((3, 5, 4)))
    with pytest.raises(ValueError, match=r"out has shape \(4, 3\), expected \(3, 4\)"):
        blas.matmul(standin.zeros((3, 5)), standin.zeros((5, 4)), standin.zeros((4, 3)))


@pytest.mark.parametrize("name, bits", [("highest", 24), ("high", 11), ("medium", 8)])
def test_the_precision_of_float32(standin, library, precision, name, bits):
    a, b = random((3, 5), (5, 4), dtype=np.float32)
    precision(name)
    assert mr.get_float32_matmul_precision() == name
    product = blas.matmul(standin.array(a), standin.array(b)).get()
    factors = [cublas.rounded(x, bits) if bits < 24 else x for x in (a, b)]
    assert_close(product, factors[0] @ factors[1], name)
    double = blas.matmul(standin.array(a.astype(float)), standin.array(b.astype(float))).get()
    assert_close(double, a.astype(float) @ b.astype(float), "float64 is not concerned")


def test_a_precision_that_is_none(precision):
    with pytest.raises(ValueError, match="'highest', 'high' or 'medium', got 'low'"):
        precision("low")
    assert mr.get_float32_matmul_precision() == "highest"


def test_the_stream_is_set_once_and_the_workspace_after_it(standin, library):
    x = standin.ones((3, 3))
    blas.matmul(x, x)
    blas.matmul(x, x)
    other = standin.cuda.Stream(non_blocking=True)
    with other:
        blas.matmul(x, x)
    blas.matmul(x, x)
    names = [name for name, _ in library.calls]
    bind = ["cublasSetStream_v2", "cublasSetWorkspace_v2"]
    start = ["cublasCreate_v2", "cublasSetMathMode"]
    assert names == [*start, *bind, "cublasGemmEx", "cublasGemmEx", *bind, "cublasGemmEx", *bind, "cublasGemmEx"]
    streams = [arguments[1] for name, arguments in library.calls if name == "cublasSetStream_v2"]
    spaces = [arguments[1] for name, arguments in library.calls if name == "cublasSetWorkspace_v2"]
    assert streams[1] == other.ptr and streams[0] == streams[2]
    assert spaces[0] == spaces[2] != spaces[1]  # two streams may run at the same time


def test_products_can_be_captured(standin, library):
    a, b = random((3, 5), (5, 4))
    x, w, out = standin.array(a), standin.array(b), standin.zeros((3, 4))
    stream = standin.cuda.Stream(non_blocking=True)
    with stream:
        blas.matmul(x, w, out)  # warms up: makes the handle and its workspace
        stream.begin_capture()
        blas.matmul(x, w, out)
        graph = stream.end_capture()
    x[...] = 2 * x
    graph.launch()
    assert_close(out.get(), 2 * a @ b, "replayed")


def test_a_failure_names_the_call_and_the_status(standin, library, monkeypatch):
    monkeypatch.setattr(blas, "_DEFAULT_ALGORITHM", 2**31)  # does not fit into an int: ctypes must not cut it off
    with pytest.raises(OverflowError):
        blas.matmul(standin.ones((3, 3)), standin.ones((3, 3)))
    monkeypatch.undo()
    monkeypatch.setitem(blas._COMPUTE_FLOAT32, "highest", blas._COMPUTE_64F)
    monkeypatch.setattr(blas, "_COMPUTE_64F", 0)
    with cublas.installed(), pytest.raises(DeviceError, match=r"cublasGemmEx returned CUBLAS_STATUS_NOT_SUPPORTED \(15\)"):
        blas.matmul(standin.ones((3, 3), np.float32), standin.ones((3, 3), np.float32))


def test_more_than_32_bits_are_refused():
    huge = blas.Operand(np.zeros((1, 1)), 2**31, 1, 1, False, 0, 1)
    small = blas.Operand(np.zeros((1, 1)), 1, 1, 1, False, 0, 1)
    with pytest.raises(ValueError, match="32 bits"):
        blas._multiply(None, huge, small, huge, 0.0)


def test_without_the_library_cupy_multiplies(standin, library, monkeypatch):
    monkeypatch.setattr(blas, "_load", lambda: None)
    a, b = random((2, 3, 5), (5, 4))
    x, w = standin.array(a), standin.array(b)
    assert_close(blas.matmul(x, w).get(), a @ b, "plain")
    out = standin.ones((2, 3, 4))
    blas.multiply_add(x, w, out, 0.5)
    assert_close(out.get(), a @ b + 0.5, "plain, added")
    blas.multiply_add(x, w, out, 0.0)
    assert_close(out.get(), a @ b, "plain, anew")
    assert_close(blas.matmul(x, w, out).get(), a @ b, "plain, into out")
    assert not library.calls


@pytest.mark.gpu  # the library comes with CuPy; a GPU itself is not needed
def test_the_real_library_has_these_functions():
    """To look a function up, and to fail without a handle."""
    functions = blas._load()
    if functions is None:
        pytest.skip("libcublas is not installed")
    library = blas.Library(functions)
    assert all(hasattr(functions, name) for name in blas._SIGNATURES)
    assert functions.cublasGetStatusName(15) == b"CUBLAS_STATUS_NOT_SUPPORTED"
    with pytest.raises(DeviceError, match="cublasSetMathMode returned CUBLAS_STATUS_NOT_INITIALIZED"):
        library.call("cublasSetMathMode", None, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_on_a_gpu_also_inside_a_capture(real_cupy, dtype):
    a, b = random((33, 65), (65, 17), dtype=dtype)
    x, w = real_cupy.asarray(a), real_cupy.asarray(b.T).T
    stream = real_cupy.cuda.Stream(non_blocking=True)
    with stream:
        out = blas.matmul(x, w)
        eager = out.get()
        out.fill(0)
        stream.begin_capture()
        blas.matmul(x, w, out)
        graph = stream.end_capture()
        graph.launch(stream)
        assert out.get(stream).tobytes() == eager.tobytes()
    limit = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(eager, a.astype(float) @ b.astype(float), rtol=limit, atol=10 * limit)
