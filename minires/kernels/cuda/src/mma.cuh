// Tensor cores and asynchronous copies: the few instructions that C++ has no words for, each in a function.
//
// The unit everywhere is the chunk: 16 bytes, CHUNK numbers of type T (4 float, 8 half or bfloat16). In chunks the fragments
// of all three types are the same: mma multiplies 16 rows of two chunks (A, row by row) with 8 columns of two chunks (B, column
// by column). Lane 4·g + t of a warp holds word t (of 4 bytes) of rows g and g + 8 of A, of column g of B, and the results
// (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
//
// float goes in as TensorFloat32: 10 bits behind the point. rounded_word rounds to that; the hardware would cut the rest off.
//
// On the CPU (tests) the same functions do the same with the same lanes. Copies arrive there as late as they may in one order
// of the threads, and at once in the other, so that reading too early shows, and overwriting too early too.

#define CHUNK (16 / int(sizeof(T)))

#ifndef CUDA_SHIM

// Starts to copy a chunk from global to shared memory; zeros instead if not `valid` (then `from` is not read).
__device__ __forceinline__ void copy_chunk(void* to, const void* from, bool valid) {
    unsigned target = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
// Ends a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all groups of this thread have arrived, but for the last PENDING.
template <int PENDING> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four matrices of 8 rows of a chunk each; lane i brings the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
// The same, each matrix of 8 x 8 numbers of two bytes transposed.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&words)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

__device__ __forceinline__ unsigned rounded_word(unsigned word, float) {
    unsigned result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(__uint_as_float(word)));
    return result;
}

#define MMA(shape, types)                                                                                          \
    asm volatile("mma.sync.aligned." shape ".row.col.f32." types ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, " \
                 "{%0, %1, %2, %3};"                                                                               \
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
__device__ __forceinline__ void mma(float (&sums)[4], const unsigned (&a)[4], const unsigned* b, float) {
    MMA("m16n8k8", "tf32.tf32");
}
__device__ __forceinline__ void mma(float (&sums)[4], const unsigned (&a)[4], const unsigned* b, half) {
    MMA("m16n8k16", "f16.f16");
}
__device__ __forceinline__ void mma(float (&sums)[4], const unsigned (&a)[4], const unsigned* b, bfloat16) {
    MMA("m16n8k16", "bf16.bf16");
}
#undef MMA

#else

namespace emulated {
struct Copy {
    void* to;
    const void* from;
    bool valid;
    int group;
};
static Copy copies[1024][256];
static int copy_count[1024], group_count[1024];
static unsigned words[32][32][6];
static const void* rows[32][32];

inline void fail(const char* why) {
    fprintf(stderr, "tensor cores: %s\n", why);
    abort();
}
inline int thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
inline void carry_out(const Copy& copy) {
    if (copy.valid)
        memcpy(copy.to, copy.from, 16);
    else
        memset(copy.to, 0, 16);
}
inline float number(unsigned word, int, float) { return __uint_as_float(word & ~0x1fffu); }
template <class E> inline float number(unsigned word, int i, E) {
    unsigned short bits = (unsigned short)(word >> (16 * i));
    E value;
    memcpy(&value, &bits, 2);
    return load(value);
}
// Number k of a line (row of A, column of B).
template <class E> inline float element(int warp, int line, int k, int first, E) {
    const int per_word = 4 / sizeof(E), chunk = k / CHUNK, word = k % CHUNK / per_word;
    return number(words[warp][line * 4 + word][first + chunk * (first < 4 ? 2 : 1)], k % per_word, E());
}
}  // namespace emulated

inline void copy_chunk(void* to, const void* from, bool valid) {
    using namespace emulated;
    int t = thread();
    Copy copy = {to, from, valid, group_count[t]};
    if (((size_t)to | (valid ? (size_t)from : 0)) % 16) fail("a chunk is not aligned");
    if (!shim::descending) return carry_out(copy);
    if (copy_count[t] == 256) fail("nobody waits for the copies");
    copies[t][copy_count[t]++] = copy;
}
inline void commit_copies() { emulated::group_count[emulated::thread()]++; }
template <int PENDING> inline void wait_for_copies() {
    using namespace emulated;
    int t = thread(), kept = 0;
    for (int i = 0; i < copy_count[t]; i++) {
        if (copies[t][i].group < group_count[t] - PENDING)
            carry_out(copies[t][i]);
        else
            copies[t][kept++] = copies[t][i];
    }
    copy_count[t] = kept;
}

namespace emulated {
// All lanes say which row they bring. The 8 rows of a matrix have to come from different banks, or they come one by one.
inline void exchange(const void* row) {
    int warp = thread() / 32, lane = thread() % 32, groups = 0;
    rows[warp][lane] = row;
    __syncwarp();
    for (int i = 0; i < 8; i++) groups |= 1 << ((size_t)rows[warp][lane / 8 * 8 + i] / 16 % 8);
    if (groups != 255) fail("rows of a matrix share banks");
}
}  // namespace emulated

inline void load_matrices(unsigned (&words)[4], const void* row) {
    int warp = emulated::thread() / 32, lane = emulated::thread() % 32;
    emulated::exchange(row);
    for (int i = 0; i < 4; i++) words[i] = ((const unsigned*)emulated::rows[warp][8 * i + lane / 4])[lane % 4];
    __syncwarp();
}
inline void load_matrices_transposed(unsigned (&words)[4], const void* row) {
    int warp = emulated::thread() / 32, lane = emulated::thread() % 32;
    emulated::exchange(row);
    for (int i = 0; i < 4; i++) {
        const unsigned short* upper = (const unsigned short*)emulated::rows[warp][8 * i + 2 * (lane % 4)];
        const unsigned short* lower = (const unsigned short*)emulated::rows[warp][8 * i + 2 * (lane % 4) + 1];
        words[i] = upper[lane / 4] | unsigned(lower[lane / 4]) << 16;
    }
    __syncwarp();
}

inline unsigned rounded_word(unsigned word, float) {  // to nearest, ties away from zero
    return (word & 0x7f800000) == 0x7f800000 ? word : (word + 0x1000) & ~0x1fffu;
}

template <class E> inline void mma(float (&sums)[4], const unsigned (&a)[4], const unsigned* b, E) {
    using namespace emulated;
    int warp = thread() / 32, lane = thread() % 32, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) words[warp][lane][i] = a[i];
    for (int i = 0; i < 2; i++) words[warp][lane][4 + i] = b[i];
    __syncwarp();
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2 * CHUNK; k++)
            sums[i] += element(warp, g, k, i / 2, E()) * element(warp, 2 * t + i % 2, k, 4, E());
    __syncwarp();
}

#endif

// What a fragment's word becomes before it is multiplied: rounded if it is a float.
template <class E> __device__ __forceinline__ unsigned rounded_word(unsigned word, E) { return word; }
