"""A trial, to be made before all else on a GPU: may cuBLAS, called through a handle of our own, be captured in a CUDA graph?

Everything that is fast rests on it, and CuPy refuses it for its own handle. Standing alone: CuPy, and the one file of
minires that calls cuBLAS. A kernel of our own and a product, captured together, replayed on new numbers, compared with the
same two made one by one, bit for bit; at each precision, plain and batched.

    python -m tests.cuda.capture_trial
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

CODE = r"""
extern "C" __global__ void twice(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i];
}
"""
SHAPES = [((512, 256), (256, 384)), ((4, 64, 256), (4, 256, 96))]
PRECISIONS = ("highest", "high", "medium")


def trial(xp: Any, precision: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    """What a captured step of two launches does; raises where it fails."""
    import numpy as np

    import minires as mr
    from minires.kernels.cuda import blas

    mr.set_float32_matmul_precision(precision)
    twice = xp.RawModule(code=CODE).get_function("twice")
    rng = np.random.default_rng(0)
    a, b = (xp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    doubled, out = xp.empty_like(a), xp.empty((*shapes[0][:-1], shapes[1][-1]), np.float32)
    xp.cuda.get_current_stream().synchronize()  # the stream below does not wait for this one

    def step() -> None:
        twice((-(-a.size // 256),), (256,), (a, doubled, np.int32(a.size)))
        blas.multiply_add(doubled, b, out, 0.0)

    stream, pool = xp.cuda.Stream(non_blocking=True), xp.cuda.MemoryPool()
    with stream, xp.cuda.using_allocator(pool.malloc):
        if blas.handle_for(a) is None:
            raise RuntimeError("libcublas was not found, so CuPy's own matmul is used, which cannot be captured")
        step()  # compiles, makes the handle and its workspace
        stream.synchronize()
        stream.begin_capture()
        try:
            step()
        finally:
            graph = stream.end_capture()
        for _ in range(3):  # on new numbers each time
            a[...] = xp.asarray(rng.standard_normal(shapes[0], np.float32))
            graph.launch(stream)
            replayed = out.get()
            out[...] = 0
            step()
            if not np.array_equal(replayed, out.get()):
                raise AssertionError("a replay differs from the same launches made one by one")
            if not np.allclose(replayed, 2 * np.matmul(a.get(), b.get()), rtol=5e-2, atol=5e-1):
                raise AssertionError("the product is wrong")
    return "captured, replayed 3 times on new numbers, equal bit for bit"


def main() -> int:
    """Print a verdict; 0 if every trial succeeded, 2 if there is no GPU to try on."""
    try:
        import cupy as xp

        if not xp.cuda.is_available():
            raise RuntimeError("CuPy sees no GPU")
        name = xp.cuda.runtime.getDeviceProperties(0)["name"].decode()
        runtime, driver = xp.cuda.runtime.runtimeGetVersion(), xp.cuda.runtime.driverGetVersion()
        print(f"{name}, CuPy {xp.__version__}, CUDA runtime {runtime}, driver's CUDA {driver}")
    except Exception as error:  # it fails in many ways where there is nothing to try
        print(f"NOT TRIED: {error}")
        return 2
    failed = 0
    for precision in PRECISIONS:
        for shapes in SHAPES:
            what = f"{precision:<8} {shapes[0]} @ {shapes[1]}"
            try:
                print(f"ok      {what}: {trial(xp, precision, shapes)}")
            except Exception:
                failed += 1
                print(f"FAILED  {what}\n{traceback.format_exc()}")
    verdict = "cuBLAS through our own handle can be captured in a CUDA graph"
    if failed:
        verdict = f"{failed} of {len(PRECISIONS) * len(SHAPES)} trials FAILED; training falls back to steps without a graph"
    print(f"VERDICT: {verdict}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
