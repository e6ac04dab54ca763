// What every kernel may use; prepended to each .cu file. T is the type in memory, A the one that is computed with.

#ifndef INFINITY  // NVRTC has no math.h
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif

#define FULL_WARP 0xffffffffu

// All i below n, each by one thread of the grid. Unsigned, so that the last step cannot overflow.
#define GRID_STRIDE(i, n)                                                                \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < (unsigned)(n); i += gridDim.x * blockDim.x)

#ifndef CUDA_SHIM  // 16-bit numbers without CUDA's headers, which are not always installed
struct half { unsigned short bits; };
struct bfloat16 { unsigned short bits; };
__device__ __forceinline__ float load(half h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));
    return f;
}
__device__ __forceinline__ void store(half& h, float f) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(f)); }
__device__ __forceinline__ float load(bfloat16 b) { return __uint_as_float((unsigned)b.bits << 16); }
__device__ __forceinline__ void store(bfloat16& b, float f) {
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b.bits) : "f"(f));
#else
    unsigned u = __float_as_uint(f);
    b.bits = (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + ((u >> 16) & 1)) >> 16;
#endif
}
#else
__device__ inline float load(half h) { return h; }
__device__ inline float load(bfloat16 b) { return b; }
__device__ inline void store(half& h, float f) { h = f; }
__device__ inline void store(bfloat16& b, float f) { b = f; }
#endif
__device__ __forceinline__ float load(float f) { return f; }
__device__ __forceinline__ double load(double d) { return d; }
__device__ __forceinline__ void store(float& p, float f) { p = f; }
__device__ __forceinline__ void store(double& p, double d) { p = d; }

template <int BYTES> struct Word;  // what one instruction loads or stores
template <> struct Word<1> { typedef unsigned char type; };
template <> struct Word<2> { typedef unsigned short type; };
template <> struct Word<4> { typedef unsigned int type; };
template <> struct Word<8> { typedef uint2 type; };
template <> struct Word<16> { typedef uint4 type; };

// N numbers side by side in memory, aligned to their size (at most 16 bytes): Vec<float, 4> v = load_vec<4>(p).
template <class E, int N = 16 / sizeof(E)> struct Vec {
    enum { bytes = N * sizeof(E), step = bytes < 16 ? bytes : 16 };
    typedef typename Word<step>::type word;
    union {
        word words[bytes / step];
        E at[N];
    };
    __device__ __forceinline__ Vec() {}
};
template <int N, class E> __device__ __forceinline__ Vec<E, N> load_vec(const E* __restrict__ p) {
    Vec<E, N> v;
#pragma unroll
    for (int i = 0; i < v.bytes / v.step; i++) v.words[i] = ((const typename Vec<E, N>::word*)p)[i];
    return v;
}
template <int N, class E> __device__ __forceinline__ void store_vec(E* p, const Vec<E, N>& v) {
#pragma unroll
    for (int i = 0; i < v.bytes / v.step; i++) ((typename Vec<E, N>::word*)p)[i] = v.words[i];
}

// The same, converted to and from the type that is computed with: B values[N].
template <int N, class E, class B> __device__ __forceinline__ void load_all(B (&values)[N], const E* __restrict__ p) {
    Vec<E, N> v = load_vec<N>(p);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] = load(v.at[i]);
}
template <int N, class E, class B> __device__ __forceinline__ void store_all(E* p, const B (&values)[N]) {
    Vec<E, N> v;
#pragma unroll
    for (int i = 0; i < N; i++) store(v.at[i], values[i]);
    store_vec<N>(p, v);
}

// The sum over a warp, in every lane. All 32 lanes have to call it.
template <class B> __device__ __forceinline__ B warp_sum(B value) {
#pragma unroll
    for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(FULL_WARP, value, distance);
    return value;
}

// The sum over a block of at most 1024 threads, in every thread; always in the same order. All threads have to call it.
// shared: 32 numbers of __shared__ memory, used by nothing else.
template <class B> __device__ __forceinline__ B block_sum(B value, B* shared) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
    value = warp_sum(value);
    __syncthreads();  // an earlier sum may still be read
    if (lane == 0) shared[warp] = value;
    __syncthreads();
    return warp_sum(lane < warps ? shared[lane] : B(0));
}

// Where a thread works that walks down a strip of an image (minires/kernels/cuda/strips.py): block x is the image and the band of
// rows, block y and the thread are the column and the unit (a few channels) of it.
struct Strip {
    int image, first_row, last_row, column, unit;
    bool inside;
};
__device__ __forceinline__ Strip strip_of_thread(int rows, int columns, int units, int bands, int band_rows) {
    Strip strip;
    const int place = blockIdx.y * blockDim.x + threadIdx.x;
    strip.inside = place < columns * units;
    strip.column = place / units;
    strip.unit = place - strip.column * units;
    strip.image = blockIdx.x / bands;
    strip.first_row = (blockIdx.x - strip.image * bands) * band_rows;
    strip.last_row = min(strip.first_row + band_rows, rows);
    return strip;
}
