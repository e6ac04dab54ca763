"""The threads for blocks: all blocks are done once, errors come through, and nobody waits for ever."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minires.kernels.cpu import blas, elements, flat, threads


@pytest.fixture(params=[1, 2, 3])
def some_threads(request):
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_block_is_done_once(some_threads, count):
    done = []
    threads.parallel_blocks(done.append, range(count))
    assert sorted(done) == list(range(count))


@pytest.mark.parametrize("bad", [0, 5])
def test_an_error_comes_through_after_all_threads_have_ended(some_threads, bad):
    def work(block):
        if block == bad:
            raise KeyError(block)

    for _ in range(3):  # and the workers go on working afterwards
        with pytest.raises(KeyError):
            threads.parallel_blocks(work, range(6))
    done = []
    threads.parallel_blocks(done.append, range(6))
    assert len(done) == 6


def test_a_call_from_inside_a_block_runs_there(some_threads):
    done = []
    threads.parallel_blocks(lambda _: threads.parallel_blocks(done.append, range(3)), range(4))
    assert len(done) == 12


def test_two_callers_at_once(some_threads):
    done = []

    def call():
        for _ in range(50):
            threads.parallel_blocks(done.append, range(4))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(done) == 600


@pytest.mark.parametrize("threads_wanted", [0, -1, 1.5, True, "2"])
def test_a_wrong_number_of_threads(threads_wanted):
    with pytest.raises(ValueError, match="set_num_threads: expected a whole number >= 1"):
        threads.set_num_threads(threads_wanted)


def test_matmul_agrees_with_numpy(some_threads):
    rng = np.random.default_rng(0)
    for a, b in [((2000, 300), (300, 40)), ((3, 4), (4, 5)), ((4,), (4, 2)), ((2, 3, 4), (4, 5)), ((0, 4), (4, 5))]:
        x, y = rng.standard_normal(a), rng.standard_normal(b)
        np.testing.assert_allclose(blas.matmul(x, y), x @ y, rtol=1e-12, atol=1e-12)
    out = np.empty((2000, 40))
    x, y = rng.standard_normal((2000, 300)), rng.standard_normal((300, 40))
    assert blas.matmul(x, y, out=out) is out
    np.testing.assert_allclose(out, x @ y, rtol=1e-12, atol=1e-12)


def test_blas_gets_its_threads_back():
    from threadpoolctl import threadpool_info

    def count():
        return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

    before = count()
    with blas.one_thread, blas.one_thread:
        assert set(count()) == {1}
    assert count() == before


@pytest.mark.parametrize("rows", [0, 1, 16, 17, 1025])
@pytest.mark.parametrize(("inner", "columns"), [(1, 1), (16, 64), (64, 16), (100, 30)])
@pytest.mark.parametrize("stack", [(), (3,), (2, 1)])
def test_tall_products_in_pieces(rows, inner, columns, stack, monkeypatch):
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((*stack, *shape)) for shape in ((rows, inner), (inner, columns), (rows, columns)))
    for piece in (990_000, 50_000):
        monkeypatch.setattr(blas, "_PIECE", piece)
        out = np.full((*stack, rows, columns), np.nan)
        blas.product(a, b, out=out)
        np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-11)
        np.testing.assert_allclose(blas.gram(a, c), a.swapaxes(-1, -2) @ c, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("layouts", [("C", "C"), ("channels-last", "channels-last"), ("C", "channels-last"), ("gaps", "C")])
def test_large_sums_on_all_threads(some_threads, layouts, monkeypatch):
    monkeypatch.setattr(elements, "_LARGE", 100)
    monkeypatch.setattr(flat, "BLOCK_BYTES", 1000)
    rng = np.random.default_rng(0)

    def make(layout):
        x = rng.standard_normal((5, 6, 7, 8)).astype(np.float32)
        if layout == "channels-last":
            return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        return np.repeat(x, 2, axis=3)[..., ::2] if layout == "gaps" else x

    a, b = map(make, layouts)
    out = elements.add(a, b)
    assert out.dtype == np.float32
    assert out.tobytes() == (a + b).tobytes()
    assert not np.shares_memory(out, a)
    if layouts[0] == layouts[1]:
        assert out.strides == a.strides
    for other in (1.5, b[:1], b.astype(np.float64)):  # what NumPy does alone
        np.testing.assert_array_equal(elements.add(a, other), a + other)


def test_the_callers_errstate_holds_in_all_threads(some_threads):
    large = np.full(8, 3e38, np.float32)
    with np.errstate(over="ignore"):  # a warning would fail the test
        threads.parallel_blocks(lambda i: large[i : i + 1] * large[i : i + 1], range(8))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        threads.parallel_blocks(lambda i: large[i : i + 1] * large[i : i + 1], range(8))


def test_the_number_of_threads_does_not_change_a_bit_of_a_product():
    rng = np.random.default_rng(0)
    before, results = threads.get_num_threads(), []
    a, b = rng.standard_normal((4096, 64), np.float32), rng.standard_normal((64, 64), np.float32)
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            results.append(blas.matmul(a, b.T).tobytes() + blas.matmul(a[:256], b).tobytes())
    finally:
        threads.set_num_threads(before)
    assert len(set(results)) == 1


@pytest.mark.parametrize(("inner", "columns"), [(0, 3), (2, 0)])
def test_a_very_tall_product_of_nothing(inner, columns):
    assert not blas.matmul(np.ones((1_000_001, inner)), np.ones((inner, columns))).any()
