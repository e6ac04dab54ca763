// The norm of many gradients taken as one vector, and their scaling to a limit.
//
// The sum is always made in the same order: each block adds up its elements, then a single block adds up the blocks.

//! T: float double half bfloat16
//! NORM: 0 1 2

#define TENSORS 240  // kernel arguments may take 4 KiB in all
#define THREADS 256

struct Tensors {
    T* at[TENSORS];
    long long size[TENSORS];
};

// What an element adds to a norm, and how two such numbers become one. NORM: 0 largest magnitude, 2 squares, 1 any power.
static __device__ __forceinline__ double share_of(double x, double p) {
#if NORM == 2
    return x * x;
#elif NORM == 1
    return pow(fabs(x), p);
#else
    return fabs(x);
#endif
}

static __device__ __forceinline__ double joined(double a, double b) {
#if NORM
    return a + b;
#else
    return a != a || b <= a ? a : b;  // b as well when it is NaN
#endif
}

// The sum of a block in a fixed order; every thread of the block calls it, thread 0 gets the result.
static __device__ double joined_block(double value, double* shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] = joined(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}

// partial[tensor, block] = Σ|x|^p (or max|x|) over the elements of a block; grid (blocks for a tensor, tensors).
extern "C" __global__ void norm_partial(const Tensors tensors, double* __restrict__ partial, double p) {
    __shared__ double shared[THREADS];
    const T* x = tensors.at[blockIdx.y];
    const long long size = tensors.size[blockIdx.y];
    double sum = 0;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (long long)gridDim.x * THREADS)
        sum = joined(sum, share_of((double)load(x[i]), p));
    sum = joined_block(sum, shared);
    if (threadIdx.x == 0) partial[(long long)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// norm = (Σ partial)^(1/p) (or their maximum): one block does it all, so that the order is always the same.
extern "C" __global__ void norm_total(const double* __restrict__ partial, double* __restrict__ norm, double p, int count) {
    __shared__ double shared[THREADS];
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum = joined(sum, partial[i]);
    sum = joined_block(sum, shared);
    if (threadIdx.x == 0) {
#if NORM == 2
        norm[0] = sqrt(sum);
#elif NORM == 1
        norm[0] = pow(sum, 1.0 / p);
#else
        norm[0] = sum;
#endif
    }
}

// x *= limit/(norm + 1e-6) unless that is at least 1; grid (blocks for a tensor, tensors), a thread for each element.
extern "C" __global__ void clip(const Tensors tensors, const double* __restrict__ norm, double limit) {
    const double scale = limit / (norm[0] + 1e-6);
    if (scale >= 1) return;  // not taken for NaN, which must show
    T* x = tensors.at[blockIdx.y];
    const long long size = tensors.size[blockIdx.y];
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (long long)gridDim.x * THREADS)
        store(x[i], load(x[i]) * (A)scale);
}
