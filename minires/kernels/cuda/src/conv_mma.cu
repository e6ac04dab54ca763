//! T: float half bfloat16
//! TILE: 0 1 2 3
//
// Convolution on tensor cores as an implicit matrix product: windows are read from the image, and never stored as columns.
//
// Images are channels-last; all channel counts of a group are multiples of a chunk (16 bytes). A block computes a tile of
// BM x BN results; its WM x WN warps have equal parts of it. STAGES tiles of the factors are under way at a time.

#include "mma.cuh"

#if TILE == 0
#define BM 64
#define BN 32
#define WM 2
#define WN 2
#define STAGES 4
#define WEIGHT_STAGES 4
#elif TILE == 1
#define BM 64
#define BN 64
#define WM 2
#define WN 2
#define STAGES 4
#define WEIGHT_STAGES 4
#elif TILE == 2
#define BM 128
#define BN 64
#define WM 2
#define WN 2
#define STAGES 4
#define WEIGHT_STAGES 3
#else
#define BM 128
#define BN 128
#define WM 2
#define WN 2
#define STAGES 3
#define WEIGHT_STAGES 2
#endif

#define THREADS (32 * WM * WN)
#define ROW_CHUNKS 4                   // chunks of a row in a stage: 64 bytes
#define DEPTH (ROW_CHUNKS * CHUNK)     // numbers summed up in a stage
#define MT (BM / WM / 16)              // fragments of 16 rows a warp has
#define NT (BN / WN / 8)               // fragments of 8 columns

// Where chunk `chunk` of row `row` lies in a tile of rows of 4 chunks. Eight rows at a time are read at one chunk: mixed
// like this they come from eight different groups of banks.
__device__ __forceinline__ int place(int row, int chunk) { return row * ROW_CHUNKS + (chunk ^ ((row >> 1) & 3)); }

__device__ __forceinline__ bool is_inside(int h, int w, int height, int width) {
    return unsigned(h) < unsigned(height) && unsigned(w) < unsigned(width);
}

// A thread's position in the terms of a sum, ordered (u, v, c): cell (u, v) of the kernel, channel c.
struct Term {
    int u, v, c;
};
__device__ __forceinline__ void advance(Term& term, int by, int channels, int taps_x) {
    term.c += by;
    while (term.c >= channels) {
        term.c -= channels;
        if (++term.v == taps_x) {
            term.v = 0;
            ++term.u;
        }
    }
}

// matrix[group, r, u, v, c] = weight[group·stride_group + r·stride_row + c·stride_channel + (first_y + u·step_y)·kernel_width +
// first_x + v·step_x], rounded as the tensor cores need it; 0 for the channels from `given` on. One thread moves one number.
extern "C" __global__ void arrange(const T* __restrict__ weight, T* __restrict__ matrix, int size, int group_rows, int taps_y,
                                   int taps_x, int channels, int given, int stride_group, int stride_row, int stride_channel,
                                   int kernel_width, int first_y, int first_x, int step_y, int step_x) {
    GRID_STRIDE(i, size) {
        int cell = i / channels, c = i - cell * channels, line = cell / taps_x, v = cell - line * taps_x;
        int row = line / taps_y, u = line - row * taps_y, group = row / group_rows, r = row - group * group_rows;
        int from = group * stride_group + r * stride_row + c * stride_channel;
        from += (first_y + u * step_y) * kernel_width + first_x + v * step_x;
        float number = c < given ? load(weight[from]) : 0;
        if (sizeof(T) == 4) number = __uint_as_float(rounded_word(__float_as_uint(number), 0.0f));
        store(matrix[i], number);
    }
}

// out[n, y·out_stride + out_first, o] = bias[o] + sum over (u, v, c) of
//     weight[o, u, v, c] · x[n, y·stride + first + u·step, c],
// here with the vertical index of each pair only. Each image has grid_height x grid_width windows (y); x is 0 outside of it.
// A block computes BM of the N·grid_height·grid_width windows for BN outputs of one group (blockIdx.y). weight is arranged.
extern "C" __global__ void __launch_bounds__(THREADS)
conv_windows(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias, T* __restrict__ out,
             int rows, int height, int width, int pitch, int channels, int taps_y, int taps_x, int stride_y, int stride_x,
             int first_y, int first_x, int step_y, int step_x, int grid_height, int grid_width, int out_height,
             int out_width, int out_stride_y, int out_stride_x, int out_first_y, int out_first_x, int outputs,
             int out_pitch) {
    __shared__ uint4 windows[STAGES][BM * ROW_CHUNKS], kernels[STAGES][BN * ROW_CHUNKS];
    const int PASS = THREADS / ROW_CHUNKS, MINE = BM / PASS, THEIRS = (BN + PASS - 1) / PASS;
    int tiles_n = (outputs + BN - 1) / BN;
    int tile_m = blockIdx.x / tiles_n, tile_n = blockIdx.x - tile_m * tiles_n, group = blockIdx.y;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_m = warp / WN * (BM / WM), warp_n = warp % WN * (BN / WN);
    int terms = taps_y * taps_x * channels, stages = (terms + DEPTH - 1) / DEPTH;
    x += group * channels;
    weight += (long long)group * outputs * terms;

    // This thread copies chunk `chunk` of the rows `line`, line + PASS, … of both factors.
    int chunk = threadIdx.x % ROW_CHUNKS, line = threadIdx.x / ROW_CHUNKS;
    int top[MINE], left[MINE], origin[MINE];  // where the windows begin
#pragma unroll
    for (int i = 0; i < MINE; i++) {
        int row = tile_m * BM + line + i * PASS, place_y = row / grid_width, n = place_y / grid_height;
        top[i] = row < rows ? (place_y - n * grid_height) * stride_y + first_y : -(1 << 29);  // outside with every step
        left[i] = (row - place_y * grid_width) * stride_x + first_x;
        origin[i] = row < rows ? ((n * height + top[i]) * width + left[i]) * pitch : 0;
    }
    Term term = {0, 0, 0};
    if (taps_x > 0) advance(term, chunk * CHUNK, channels, taps_x);
    int column = chunk * CHUNK;  // the same as a number: (u·taps_x + v)·channels + c

    auto fetch = [&](int stage) {
        int down = term.u * step_y, right = term.v * step_x, offset = (down * width + right) * pitch + term.c;
        bool exists = term.u < taps_y;
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            bool inside = exists && is_inside(top[i] + down, left[i] + right, height, width);
            copy_chunk(&windows[stage][place(line + i * PASS, chunk)], inside ? x + (origin[i] + offset) : x, inside);
        }
#pragma unroll
        for (int i = 0; i < THEIRS; i++) {
            int o = tile_n * BN + line + i * PASS;
            bool inside = exists && o < outputs;
            if (BN % PASS == 0 || line + i * PASS < BN)
                copy_chunk(&kernels[stage][place(line + i * PASS, chunk)],
                           inside ? weight + ((long long)o * terms + column) : weight, inside);
        }
        if (exists) advance(term, DEPTH, channels, taps_x);
        column += DEPTH;
    };

    float sums[MT][NT][4] = {};
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < stages) fetch(i);
        commit_copies();
    }
    int now = 0, next = STAGES - 1;
    for (int i = 0; i < stages; i++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // this stage has come for all threads, and the one before it has been read by all
        if (i + STAGES - 1 < stages) fetch(next);
        commit_copies();
        next = next + 1 == STAGES ? 0 : next + 1;
#pragma unroll
        for (int k = 0; k < ROW_CHUNKS; k += 2) {
            unsigned a[MT][4], b[NT / 2][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                load_matrices(a[m], &windows[now][place(warp_m + m * 16 + lane % 16, k + lane / 16)]);
#pragma unroll
                for (int j = 0; j < 4; j++) a[m][j] = rounded_word(a[m][j], T());
            }
#pragma unroll
            for (int n = 0; n < NT / 2; n++)
                load_matrices(b[n], &kernels[now][place(warp_n + n * 16 + lane / 16 * 8 + lane % 8, k + lane / 8 % 2)]);
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int n = 0; n < NT; n++) mma(sums[m][n], a[m], &b[n / 2][n % 2 * 2], T());
        }
        now = now + 1 == STAGES ? 0 : now + 1;
    }
    wait_for_copies<0>();

    T* targets[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int lower = 0; lower < 2; lower++) {
            int row = tile_m * BM + warp_m + m * 16 + lower * 8 + lane / 4;
            int place_y = row / grid_width, n = place_y / grid_height;
            int y = (place_y - n * grid_height) * out_stride_y + out_first_y;
            int z = (row - place_y * grid_width) * out_stride_x + out_first_x;
            T* pixel = out + (((long long)n * out_height + y) * out_width + z) * out_pitch + group * outputs;
            targets[m][lower] = row < rows ? pixel : nullptr;
        }
    bool pairs = outputs % 2 == 0;  // then all pairs are aligned, too
#pragma unroll
    for (int j = 0; j < NT; j++) {
        int o = tile_n * BN + warp_n + j * 8 + lane % 4 * 2;
        if (o >= outputs) continue;
        float first = bias ? load(bias[group * outputs + o]) : 0;
        float second = bias && o + 1 < outputs ? load(bias[group * outputs + o + 1]) : 0;
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int lower = 0; lower < 2; lower++) {
                float values[2] = {sums[m][j][2 * lower] + first, sums[m][j][2 * lower + 1] + second};
                T* target = targets[m][lower];
                if (!target) continue;
                if (pairs) {
                    store_all(target + o, values);
                } else {
                    store(target[o], values[0]);
                    if (o + 1 < outputs) store(target[o + 1], values[1]);
                }
            }
    }
}

// ------------------------------------------------------------------------------------------------ gradient of the weight

#define LINES (64 / int(sizeof(T)))            // rows (pixels of dy) in a stage
#define PAD (sizeof(T) == 4 ? 8 : CHUNK)       // between lines, so that what a warp reads comes from different banks

// The words of a fragment from a tile that lies the other way round: `tile` points at (line 0, number 0) of it. A fragment
// of A are 16 numbers of as many lines as its depth, and so are two fragments of B side by side.
__device__ __forceinline__ void load_upright(unsigned (&words)[4], const float* tile, int line, bool is_a, int lane) {
    int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int further = is_a ? j % 2 : j / 2, deeper = is_a ? j / 2 : j % 2;  // 8 numbers, 4 lines
        words[j] = rounded_word(__float_as_uint(tile[(t + 4 * deeper) * line + g + 8 * further]), 0.0f);
    }
}
template <class E>
__device__ __forceinline__ void load_upright(unsigned (&words)[4], const E* tile, int line, bool is_a, int lane) {
    int matrix = lane / 8, further = is_a ? matrix % 2 : matrix / 2, deeper = is_a ? matrix / 2 : matrix % 2;
    load_matrices_transposed(words, tile + (lane % 8 + 8 * deeper) * line + 8 * further);
}

// shares[s, group, o, u, v, c] = sum over the rows (n, y, x) of share s of dy[row, o] · x[n, y·stride + first + u·step, c].
// A block computes BM outputs x BN terms (u, v, c) of one share (blockIdx.y) of one group (blockIdx.z).
extern "C" __global__ void __launch_bounds__(THREADS)
conv_weight(const T* __restrict__ x, const T* __restrict__ dy, float* __restrict__ shares, int rows, int share_rows,
            int height, int width, int pitch, int channels, int taps_y, int taps_x, int stride_y, int stride_x, int first_y,
            int first_x, int step_y, int step_x, int grid_height, int grid_width, int outputs, int out_pitch) {
    __shared__ __align__(16) T gradients[WEIGHT_STAGES][LINES][BM + PAD], windows[WEIGHT_STAGES][LINES][BN + PAD];
    const int PASS_M = THREADS / (BM / CHUNK), PASS_N = THREADS / (BN / CHUNK);  // lines that all threads copy at once
    const int MINE = (LINES + PASS_M - 1) / PASS_M, THEIRS = (LINES + PASS_N - 1) / PASS_N;
    int terms = taps_y * taps_x * channels, tiles_n = (terms + BN - 1) / BN;
    int tile_m = blockIdx.x / tiles_n, tile_n = blockIdx.x - tile_m * tiles_n, group = blockIdx.z;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_m = warp / WN * (BM / WM), warp_n = warp % WN * (BN / WN);
    int from = blockIdx.y * share_rows, to = min(rows, from + share_rows), stages = (to - from + LINES - 1) / LINES;
    x += group * channels;
    dy += group * outputs;

    int o = threadIdx.x % (BM / CHUNK) * CHUNK, line_m = threadIdx.x / (BM / CHUNK);  // of dy: always these outputs,
    bool output_exists = tile_m * BM + o < outputs;
    int k = threadIdx.x % (BN / CHUNK) * CHUNK, line_n = threadIdx.x / (BN / CHUNK);  // of x: always this cell and channel,
    int term = tile_n * BN + k, cell = term / channels;
    bool term_exists = term < terms;
    int down = cell / taps_x * step_y + first_y, right = cell % taps_x * step_x + first_x;
    int image = height * width * pitch, c = term - cell * channels;
    int row_y = LINES / grid_width, more_x = LINES - row_y * grid_width, more_n = row_y / grid_height;  // LINES pixels on
    int more_y = row_y - more_n * grid_height;
    int at_n[THEIRS], at_y[THEIRS], at_x[THEIRS];  // and these pixels
#pragma unroll
    for (int i = 0; i < THEIRS; i++) {
        int row = from + line_n + i * PASS_N;
        row_y = row / grid_width;
        at_n[i] = row_y / grid_height, at_y[i] = row_y - at_n[i] * grid_height, at_x[i] = row - row_y * grid_width;
    }
    int begin = from;

    auto fetch = [&](int stage) {
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            int line = line_m + i * PASS_M, row = begin + line;
            bool inside = output_exists && row < to;
            const T* source = inside ? dy + ((long long)row * out_pitch + tile_m * BM + o) : dy;
            if (LINES % PASS_M == 0 || line < LINES) copy_chunk(&gradients[stage][line][o], source, inside);
        }
#pragma unroll
        for (int i = 0; i < THEIRS; i++) {
            int line = line_n + i * PASS_N, h = at_y[i] * stride_y + down, w = at_x[i] * stride_x + right;
            bool inside = term_exists && begin + line < to && is_inside(h, w, height, width);
            const T* source = inside ? x + (at_n[i] * image + (h * width + w) * pitch + c) : x;
            if (LINES % PASS_N == 0 || line < LINES) copy_chunk(&windows[stage][line][k], source, inside);
            at_x[i] += more_x;
            int carry = at_x[i] >= grid_width;
            at_x[i] -= carry ? grid_width : 0;
            at_y[i] += more_y + carry;
            carry = at_y[i] >= grid_height;
            at_y[i] -= carry ? grid_height : 0;
            at_n[i] += more_n + carry;
        }
        begin += LINES;
    };

    float sums[MT][NT][4] = {};
    for (int i = 0; i < WEIGHT_STAGES - 1; i++) {
        if (i < stages) fetch(i);
        commit_copies();
    }
    int now = 0, next = WEIGHT_STAGES - 1;
    for (int i = 0; i < stages; i++) {
        wait_for_copies<WEIGHT_STAGES - 2>();
        __syncthreads();
        if (i + WEIGHT_STAGES - 1 < stages) fetch(next);
        commit_copies();
        next = next + 1 == WEIGHT_STAGES ? 0 : next + 1;
#pragma unroll
        for (int deep = 0; deep < LINES; deep += 2 * CHUNK) {
            unsigned a[MT][4], b[NT / 2][4];
#pragma unroll
            for (int m = 0; m < MT; m++) load_upright(a[m], &gradients[now][deep][warp_m + m * 16], BM + PAD, true, lane);
#pragma unroll
            for (int n = 0; n < NT / 2; n++) load_upright(b[n], &windows[now][deep][warp_n + n * 16], BN + PAD, false, lane);
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int n = 0; n < NT; n++) mma(sums[m][n], a[m], &b[n / 2][n % 2 * 2], T());
        }
        now = now + 1 == WEIGHT_STAGES ? 0 : now + 1;
    }
    wait_for_copies<0>();

    shares += ((long long)blockIdx.y * gridDim.z + group) * outputs * terms;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                int output = tile_m * BM + warp_m + m * 16 + i * 4 + lane / 4;
                int t = tile_n * BN + warp_n + j * 8 + lane % 4 * 2;
                if (output >= outputs || t >= terms) continue;  // terms is even, so t + 1 exists too
                *(float2*)(shares + ((long long)output * terms + t)) = make_float2(sums[m][j][i], sums[m][j][i + 1]);
            }
}

// weight[i] = sum over s of shares[s, i], in this order. One thread sums up one number.
extern "C" __global__ void add_shares(const float* __restrict__ shares, T* __restrict__ weight, int count, int size) {
    GRID_STRIDE(i, size) {
        float sum = 0;
        for (int s = 0; s < count; s++) sum += shares[(long long)s * size + i];
        store(weight[i], sum);
    }
}
