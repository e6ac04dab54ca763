// The gate of residual attention: F + M F with M = 1 / (1 + exp(-z)), element by element of arrays without gaps.
//! T: float double half bfloat16
//! WIDE: 0 1

#if WIDE
#define VEC int(16 / sizeof(T))
#else
#define VEC 1
#endif

__device__ __forceinline__ A sigmoid(A z) { return 1 / (1 + exp(-z)); }  // exp is infinite far below 0, its inverse 0

// h = (1 + M) F. A thread does VEC numbers at a time, the first threads one more of those that are left over.
extern "C" __global__ void gate(const T* __restrict__ trunk, const T* __restrict__ logits, T* __restrict__ h, int vectors,
                                int rest) {
    GRID_STRIDE(i, vectors) {
        long long at = (long long)i * VEC;
        A f[VEC], z[VEC];
        load_all<VEC>(f, trunk + at), load_all<VEC>(z, logits + at);
#pragma unroll
        for (int v = 0; v < VEC; v++) f[v] += f[v] * sigmoid(z[v]);
        store_all<VEC>(h + at, f);
    }
    GRID_STRIDE(i, rest) {
        long long at = (long long)vectors * VEC + i;
        A f = load(trunk[at]);
        store(h[at], f + f * sigmoid(load(logits[at])));
    }
}

// dF = g + g M and dz = g M F (1 - M) of one element; g becomes dF and f becomes dz.
__device__ __forceinline__ void differentiate(A& g, A& f, A z) {
    A mask = sigmoid(z), passed = g * mask;
    f = passed * f * (1 - mask);
    g += passed;
}

// df = g (1 + M), dz = g F M (1 - M). A thread does VEC numbers at a time, the first threads one more of those left over.
extern "C" __global__ void gate_backward(const T* __restrict__ grad, const T* __restrict__ trunk, const T* __restrict__ logits,
                                         T* __restrict__ df, T* __restrict__ dz, int vectors, int rest) {
    GRID_STRIDE(i, vectors) {
        long long at = (long long)i * VEC;
        A g[VEC], f[VEC], z[VEC];
        load_all<VEC>(g, grad + at), load_all<VEC>(f, trunk + at), load_all<VEC>(z, logits + at);
#pragma unroll
        for (int v = 0; v < VEC; v++) differentiate(g[v], f[v], z[v]);
        store_all<VEC>(df + at, g), store_all<VEC>(dz + at, f);
    }
    GRID_STRIDE(i, rest) {
        long long at = (long long)vectors * VEC + i;
        A g = load(grad[at]), f = load(trunk[at]);
        differentiate(g, f, load(logits[at]));
        store(df[at], g), store(dz[at], f);
    }
}
