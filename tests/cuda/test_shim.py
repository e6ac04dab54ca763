"""The stand-in for a GPU's threads: it does what CUDA does, and shows mistakes that a GPU would show now and then."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.cuda import shim

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

CODE = r"""
extern "C" __global__ void where(int* x, int* y, int* z) {
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
    x[i] = threadIdx.x + 100 * blockIdx.x, y[i] = threadIdx.y + 100 * blockIdx.y, z[i] = threadIdx.z + 100 * blockIdx.z;
}

extern "C" __global__ void reverse(const float* x, float* y) {
    __shared__ float kept[256];
    kept[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void previous_without_barrier(const float* x, float* y) {
    __shared__ float kept[256];
    kept[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = threadIdx.x ? kept[threadIdx.x - 1] : 0;
}

extern "C" __global__ void rounds(int* x, int n) {  // many barriers: each thread adds up what its neighbour had
    __shared__ int kept[256];
    int t = threadIdx.x, value = t;
    for (int i = 0; i < n; i++) {
        kept[t] = value;
        __syncthreads();
        value += kept[(t + 1) % blockDim.x];
        __syncthreads();
    }
    x[t] = value;
}

extern "C" __global__ void shuffles(int* out) {
    int t = threadIdx.x, n = blockDim.x;
    out[t] = __shfl_sync(0xffffffff, t, 3);
    out[n + t] = __shfl_xor_sync(0xffffffff, t, 5);
    out[2 * n + t] = __shfl_down_sync(0xffffffff, t, 4);
    out[3 * n + t] = __shfl_up_sync(0xffffffff, t, 4);
    out[4 * n + t] = __shfl_down_sync(0xffffffff, t, 3, 8);
    out[5 * n + t] = __shfl_sync(0xffffffff, t, 9, 8);
    out[6 * n + t] = __ballot_sync(0xffffffff, t % 3 == 0);
    out[7 * n + t] = __any_sync(0xffffffff, t == 40) + 2 * __all_sync(0xffffffff, t < 32);
    double wide = t;
    for (int i = 16; i; i /= 2) wide += __shfl_xor_sync(0xffffffff, wide, i);
    out[8 * n + t] = wide;
    if (t % 2) out[9 * n + t] = __shfl_xor_sync(0xaaaaaaaa, t, 2);
    __syncwarp();
}

extern "C" __global__ void leaves_early(float* x, int n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void two_barriers(float* x) {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
}

extern "C" __global__ void half_a_warp(float* x) {
    if (threadIdx.x % 32 < 16) x[threadIdx.x] = __shfl_sync(0xffffffff, threadIdx.x, 0);
}

extern "C" __global__ void fresh(float* x, int* y) {  // shared memory holds NaN, not what the last block left there
    __shared__ float kept[32];
    __shared__ int counts[32];
    x[blockIdx.x * 32 + threadIdx.x] = kept[threadIdx.x], y[blockIdx.x * 32 + threadIdx.x] = counts[threadIdx.x];
    kept[threadIdx.x] = 1, counts[threadIdx.x] = 1;
}

extern "C" __global__ void takes(const float* a, const double* b, int c, long long d, float e, const half* f, bool* g) {}

extern "C" __global__ void past_the_end(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n)
        y[i] = x[i];  // BAD
}

extern "C" __global__ void past_shared(float* y) {
    __shared__ float kept[64];
    kept[threadIdx.x + 1] = 1;  // BAD
    __syncthreads();
    y[threadIdx.x] = kept[threadIdx.x];
}

extern "C" __global__ void crooked(const float* x, float4* y) { *y = *(const float4*)(x + 1); }  // BAD

extern "C" __global__ void arithmetic(float* out) {
    out[0] = rsqrtf(4.0f), out[1] = __umulhi(1u << 31, 6), out[2] = __popc(0xf0f), out[3] = __clz(1);
    out[4] = min(2, 3) + max(2.5f, NAN), out[5] = float(half(1.0f / 3)), out[6] = float(bfloat16(1.0f / 3));
    int count = 5;
    out[7] = atomicAdd(&count, 2) + 10 * atomicMax(&count, 3) + 100 * count;
    float4 v = make_float4(1, 2, 3, 4);
    out[8] = v.w + __ldg(out + 3);
}
"""


@pytest.fixture(scope="module")
def kernels():
    return shim.compile(CODE)


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def descending(request):
    return request.param


def test_indices(kernels, descending):
    x, y, z = np.zeros((3, 24 * 12), np.int32)
    kernels.launch("where", (2, 3, 2), (4, 3, 2), [x, y, z], descending)
    blocks, threads = np.mgrid[:2, :3, :2], np.mgrid[:2, :3, :4]  # (z, y, x)
    for found, axis in ((x, 2), (y, 1), (z, 0)):
        expected = 100 * blocks[axis].reshape(-1, 1) if axis != 2 else 100 * np.tile([0, 1], 6)[:, None]
        expected = {
            0: 100 * np.repeat([0, 1], 6),
            1: 100 * np.tile(np.repeat([0, 1, 2], 2), 2),
            2: 100 * np.tile([0, 1], 6),
        }[axis]
        np.testing.assert_array_equal(found.reshape(12, 24), expected[:, None] + threads[axis].reshape(1, -1))


def test_a_barrier(kernels, descending):
    x, y = np.arange(256, dtype=np.float32), np.zeros(256, np.float32)
    kernels.launch("reverse", 1, 256, [x, y], descending)
    np.testing.assert_array_equal(y, x[::-1])


def test_many_barriers(kernels, descending):
    x, expected = np.zeros(96, np.int32), np.arange(96)
    for _ in range(7):
        expected = expected + np.roll(expected, -1)
    kernels.launch("rounds", 1, 96, [x, np.int32(7)], descending)
    np.testing.assert_array_equal(x, expected)


def test_a_missing_barrier_shows_in_one_order(kernels):
    x, results = np.arange(1, 65, dtype=np.float32), []
    for descending in (False, True):
        y = np.zeros(64, np.float32)
        kernels.launch("previous_without_barrier", 1, 64, [x, y], descending)
        results.append(np.array_equal(y, np.arange(64)))
    assert results == [True, False]


def test_shuffles(kernels, descending):
    out = np.full((10, 64), -1, np.int32)
    kernels.launch("shuffles", 1, 64, [out], descending)
    t = np.arange(64)
    lane, warp = t % 32, t // 32 * 32
    even = (t % 3 == 0).reshape(2, 32) @ (1 << np.arange(32, dtype=np.int64))
    expected = [
        warp + 3, t ^ 5, np.where(lane < 28, t + 4, t), np.where(lane >= 4, t - 4, t), np.where(t % 8 < 5, t + 3, t),
        t // 8 * 8 + 1, np.repeat(even.astype(np.uint32).view(np.int32), 32), np.where(t < 32, 2, 1),
        np.repeat([31 * 16, 31 * 16 + 32 * 32], 32), np.where(t % 2, t ^ 2, -1),
    ]  # fmt: skip
    for found, each in zip(out, expected, strict=True):
        np.testing.assert_array_equal(found, each)


def test_threads_that_do_not_meet_are_named(kernels, descending):
    x = np.zeros(64, np.float32)
    line = next(i for i, text in enumerate(CODE.splitlines(), 1) if "x[threadIdx.x] = 1;" in text) - 1
    message = r"leaves_early, block \(0, 0, 0\): not all threads meet at a barrier\s+threads 0 to 9 wait at __syncthreads"
    with pytest.raises(
        shim.ShimError, match=message + rf" \(code.cu, line {line}\)\s+threads 10 to 63 have left the kernel"
    ):
        kernels.launch("leaves_early", 1, 64, [x, np.int32(10)], descending)
    with pytest.raises(shim.ShimError, match=r"threads 0 to 31 wait at .*\s+threads 32 to 63 wait at"):
        kernels.launch("two_barriers", 1, 64, [x], descending)
    with pytest.raises(shim.ShimError, match=r"threads 0 to 15 wait at __shfl_sync .*\s+threads 16 to 31 have left"):
        kernels.launch("half_a_warp", 1, 32, [x], descending)
    kernels.launch("leaves_early", 1, 64, [x, np.int32(64)], descending)  # all is well again
    assert x.all()


def test_shared_memory_is_not_what_the_last_block_left(kernels, descending):
    x, y = np.zeros(96, np.float32), np.zeros(96, np.int32)
    kernels.launch("fresh", 3, 32, [x, y], descending)
    assert np.isnan(x).all() and (y == -1).all()


def test_arguments_are_checked(kernels):
    a, b, f = np.zeros(3, np.float32), np.zeros(3), np.zeros(3, np.float16)
    right = [a, b, np.int32(1), np.int64(1), np.float32(1), f, np.zeros(3, bool)]
    kernels.launch("takes", 1, 1, right)
    kernels.launch("takes", 1, 1, [None, np.uintp(0), *right[2:]])
    for index, wrong in [
        (0, b),
        (1, a),
        (2, np.int64(1)),
        (3, np.int32(1)),
        (4, np.float64(1)),
        (5, a),
        (6, a),
        (0, np.int32(0)),
    ]:
        with pytest.raises(shim.ShimError, match=f"takes: argument {index} .* does not fit"):
            kernels.launch("takes", 1, 1, [*right[:index], wrong, *right[index + 1 :]])
    with pytest.raises(shim.ShimError, match="takes 7 arguments, got 1"):
        kernels.launch("takes", 1, 1, [a])
    with pytest.raises(TypeError, match="argument 2 is a int"):
        kernels.launch("takes", 1, 1, [a, b, 3])
    with pytest.raises(ValueError, match="not C-contiguous"):
        kernels.launch("takes", 1, 1, [np.zeros((3, 2), np.float32).T, *right[1:]])
    with pytest.raises(ValueError, match="a GPU refuses"):
        kernels.launch("takes", 1, 2048, right)
    with pytest.raises(shim.ShimError, match="no kernel 'nothing'"):
        kernels.launch("nothing", 1, 1, right)


def test_arithmetic(kernels):
    out = np.zeros(9, np.float32)
    kernels.launch("arithmetic", 1, 1, [out])
    third = np.float32(np.float16(np.float32(1) / 3))
    np.testing.assert_array_equal(out, [0.5, 3, 8, 31, 4.5, third, np.float32(0.33398438), 5 + 10 * 7 + 700, 35])


def test_half_precision_is_rounded_as_numpy_does():
    code = 'extern "C" __global__ void f(const float* x, half* y, float* z, int n) { int i = blockIdx.x * 256 + threadIdx.x;'
    kernels = shim.compile(code + " if (i < n) { y[i] = half(x[i]); z[i] = y[i]; } }")
    rng = np.random.default_rng(0)
    bits = np.concatenate([rng.integers(0, 1 << 32, 50_000, np.uint32), np.arange(0x33000000, 0x38900000, 997, np.uint32)])
    x = bits.view(np.float32)
    x = np.concatenate(
        [x[~np.isnan(x)], (np.arange(40_000) / 64 * 2.0**-20).astype(np.float32), np.float32([65519, 65520, 0, -0.0])]
    )
    y, z = np.zeros(x.size, np.float16), np.zeros(x.size, np.float32)
    kernels.launch("f", -(-x.size // 256), 256, [x, y, z, np.int32(x.size)])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y, x.astype(np.float16))
    np.testing.assert_array_equal(z, y.astype(np.float32))


def test_compiler_errors_name_file_and_line():
    with pytest.raises(shim.ShimError, match=r"gate\.cu:2:.*'foo'|gate\.cu:2:.*‘foo’"):
        shim.compile('#line 1 "gate.cu"\nextern "C" __global__ void f(float* x) {\n *x = foo; }')
    with pytest.raises(shim.ShimError, match="not deterministic"):
        shim.compile('extern "C" __global__ void f(float* x) { atomicAdd(x, 1.0f); }')


@pytest.mark.parametrize("kernel, complaint", [
    ("past_the_end", "heap-buffer-overflow"), ("past_shared", "index 64 out of bounds"), ("crooked", "misaligned address"),
])  # fmt: skip
def test_the_sanitizer_names_the_line(kernel, complaint):
    arguments = {"past_the_end": "[x, y, np.int32(64)]", "past_shared": "[y]", "crooked": "[x, y]"}[kernel]
    script = (
        "import numpy as np\nfrom tests.cuda import shim, test_shim\nx, y = (np.zeros(64, np.float32) for _ in range(2))\n"
        f"shim.compile(test_shim.CODE).launch({kernel!r}, {2 if kernel == 'past_the_end' else 1}, 64, {arguments})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=shim.sanitizer_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = CODE.splitlines()
    start = next(i for i, text in enumerate(lines) if f"void {kernel}(" in text)
    line = next(i for i, text in enumerate(lines[start:], start + 1) if "BAD" in text)
    assert done.returncode != 0
    assert complaint in done.stderr and f"code.cu:{line}" in done.stderr, done.stderr
