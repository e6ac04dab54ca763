// Linear maps that act on rows and columns apart, Y = A·X·Bᵀ, on channels-last memory (N, H, W, C).
//
// A row of A is given by its taps: the run of input rows from its first nonzero weight to its last. Table of n outputs:
// start (n), count (n), weights (n, most). Every output pixel gathers what its taps see, in a fixed order.
//
//! T: float double half bfloat16
//! VEC: 1 4

// sums += weight · (VEC channels at `from`)
__device__ __forceinline__ void add_weighted(A (&sums)[VEC], A weight, const T* from) {
    A values[VEC];
    load_all(values, from);
    for (int v = 0; v < VEC; v++) sums[v] += weight * values[v];
}

#define SIZES int height, int width, int new_height, int new_width, int channels, int bands, int band_rows
#define TAPS_OF(axis) \
    const int *__restrict__ axis##_start, const int *__restrict__ axis##_count, const A *__restrict__ axis##_weights, \
        int axis##_most

// Y = A·X·Bᵀ with at most two taps a row (bilinear, 2×2 means, the gradient of a global mean). A thread: one column of Y,
// VEC channels, band_rows rows. Going down it keeps the two input rows it mixes, interpolated along the row, and so reads an
// input row once however many output rows lie on it. Whether the rows change is the same for the whole block.
extern "C" __global__ void resample_pairs(const T* __restrict__ x, T* __restrict__ y, TAPS_OF(row), TAPS_OF(column),
                                          SIZES) {
    const Strip at = strip_of_thread(new_height, new_width, channels / VEC, bands, band_rows);
    if (!at.inside) return;
    const int count = column_count[at.column];
    const A left = count > 0 ? column_weights[at.column * column_most] : A(0);
    const A right = count > 1 ? column_weights[at.column * column_most + 1] : A(0);
    const T* plane = x + ((long long)at.image * height * width + column_start[at.column]) * channels + at.unit * VEC;
    const int aside = count > 1 ? channels : 0;  // never beyond the row, so that both loads need no branch
    T* out = y + (((long long)at.image * new_height + at.first_row) * new_width + at.column) * channels + at.unit * VEC;
    A mixed[2][VEC];  // of input rows held[0] and held[1]
    int held[2] = {-1, -1};
    for (int row = at.first_row; row < at.last_row; row++, out += (long long)new_width * channels) {
        const int taps = row_count[row], top = row_start[row];
        if (taps > 0 && top == held[1]) {  // one row further down: the lower becomes the upper
            for (int v = 0; v < VEC; v++) mixed[0][v] = mixed[1][v];
            held[0] = top;
        }
#pragma unroll
        for (int k = 0; k < 2; k++) {
            if (k >= taps || held[k] == top + k) continue;
            held[k] = top + k;
            const T* line = plane + (long long)(top + k) * width * channels;
            A first[VEC], second[VEC];
            load_all(first, line);
            load_all(second, line + aside);
            for (int v = 0; v < VEC; v++) mixed[k][v] = left * first[v] + (count > 1 ? right * second[v] : A(0));
        }
        A sums[VEC];
        const A upper = taps > 0 ? row_weights[row * row_most] : A(0);
        for (int v = 0; v < VEC; v++) sums[v] = taps > 0 ? upper * mixed[0][v] : A(0);
        if (taps > 1) {
            const A lower = row_weights[row * row_most + 1];
            for (int v = 0; v < VEC; v++) sums[v] += lower * mixed[1][v];
        }
        for (int v = 0; v < VEC; v++) sums[v] = count > 0 ? sums[v] : A(0);
        store_all(out, sums);
    }
}

// Y = A·X·Bᵀ with any number of taps: y(i, j) = Σ_r A(i, r) · Σ_c B(j, c) · x(r, c). A thread: one column of Y, VEC
// channels, band_rows rows. The loop over r is the same for the whole block. That over c is unrolled for at most TAPS taps,
// whose weights stay in registers for all rows; TAPS is 0 where there are more than it pays to unroll.
template <int TAPS>
__device__ __forceinline__ void gather_taps(const T* __restrict__ x, T* __restrict__ y, TAPS_OF(row), TAPS_OF(column),
                                            SIZES) {
    const Strip at = strip_of_thread(new_height, new_width, channels / VEC, bands, band_rows);
    if (!at.inside) return;
    const int count = column_count[at.column];
    const A* weights = column_weights + at.column * column_most;
    const int last = max(count - 1, 0);
    A weight[TAPS ? TAPS : 1];
#pragma unroll
    for (int k = 0; k < TAPS; k++) weight[k] = k < count ? weights[k] : A(0);
    const T* plane = x + ((long long)at.image * height * width + column_start[at.column]) * channels + at.unit * VEC;
    T* out = y + (((long long)at.image * new_height + at.first_row) * new_width + at.column) * channels + at.unit * VEC;
    for (int row = at.first_row; row < at.last_row; row++, out += (long long)new_width * channels) {
        A sums[VEC];
        for (int v = 0; v < VEC; v++) sums[v] = 0;
        const int taps = row_count[row], top = row_start[row];
        for (int r = 0; r < taps; r++) {
            const T* line = plane + (long long)(top + r) * width * channels;
            A mixed[VEC];
            for (int v = 0; v < VEC; v++) mixed[v] = 0;
            if (TAPS) {
#pragma unroll
                for (int k = 0; k < TAPS; k++) {
                    A values[VEC];  // beyond the run its last pixel again: loads without a branch are all under way at once
                    load_all(values, line + (long long)min(k, last) * channels);
                    for (int v = 0; v < VEC; v++) mixed[v] += k < count ? weight[k] * values[v] : A(0);
                }
            } else {
#pragma unroll 4
                for (int k = 0; k < count; k++) add_weighted(mixed, weights[k], line + (long long)k * channels);
            }
            const A share = row_weights[row * row_most + r];
            for (int v = 0; v < VEC; v++) sums[v] += share * mixed[v];
        }
        store_all(out, sums);
    }
}

#define FOR_TAPS(suffix, taps)                                                                                              \
    extern "C" __global__ void resample_taps##suffix(const T* __restrict__ x, T* __restrict__ y, TAPS_OF(row),              \
                                                     TAPS_OF(column), SIZES) {                                              \
        gather_taps<taps>(x, y, row_start, row_count, row_weights, row_most, column_start, column_count, column_weights,    \
                          column_most, height, width, new_height, new_width, channels, bands, band_rows);                   \
    }
FOR_TAPS(, 0)
FOR_TAPS(_4, 4)
FOR_TAPS(_6, 6)
FOR_TAPS(_8, 8)

// Y = A·X·Bᵀ for few outputs with many taps each (global means): y = Σ_t w_t · x_t over the cells t of the window. A block:
// one output pixel (block x) and blockDim.x packs of channels (block y). Its rows of threads share the cells, and their sums
// are added in order through shared memory.
extern "C" __global__ void resample_windows(const T* __restrict__ x, T* __restrict__ y, TAPS_OF(row), TAPS_OF(column),
                                            int height, int width, int new_height, int new_width, int channels) {
    __shared__ A shares[256 * VEC];
    const int lane = threadIdx.x, group = threadIdx.y, lanes = blockDim.x, groups = blockDim.y;
    const int column = blockIdx.x % new_width, above = blockIdx.x / new_width;
    const int row = above % new_height, image = above / new_height;
    const int channel = (blockIdx.y * lanes + lane) * VEC;
    const int across = column_count[column], cells = row_count[row] * across;
    const T* corner = x + (((long long)image * height + row_start[row]) * width + column_start[column]) * channels + channel;
    A sums[VEC];
    for (int v = 0; v < VEC; v++) sums[v] = 0;
    if (channel < channels) {
#pragma unroll 4
        for (int cell = group; cell < cells; cell += groups) {
            const int r = cell / across, c = cell - r * across;
            const A weight = row_weights[row * row_most + r] * column_weights[column * column_most + c];
            add_weighted(sums, weight, corner + ((long long)r * width + c) * channels);
        }
    }
    for (int v = 0; v < VEC; v++) shares[(group * lanes + lane) * VEC + v] = sums[v];
    __syncthreads();
    if (group == 0 && channel < channels) {
        for (int other = 1; other < groups; other++) {
            for (int v = 0; v < VEC; v++) sums[v] += shares[(other * lanes + lane) * VEC + v];
        }
        store_all(y + (long long)blockIdx.x * channels + channel, sums);
    }
}
