// Batch norm of a channels-last matrix x of (rows, channels), forward and backward, with the ReLU behind it.
//! T: float double half bfloat16
//! WIDE: 0 1
//
// Threads are laid over the matrix so that neighbours read neighbouring memory: a block takes `across` vectors of VEC channels,
// and as many rows as it has threads left for. Tiles of channels are blockIdx.x, shares of the rows blockIdx.y. A thread keeps
// its channels and walks down the rows, several at a time, so that many loads are on their way at once. Each second pass over
// the same memory walks upwards, since what the first one read last may still be in the L2 cache.

#if WIDE  // channels are read 16 bytes at a time; 8 bytes of 16-bit numbers, since in registers they take 32 bits
#define VEC (sizeof(T) == 8 ? 2 : 4)
#else
#define VEC 1
#endif
#define BLOCK 256

// Where a thread stands in the matrix.
struct Place {
    int lane, row, down;  // its vector within the tile; its row among the `down` rows of the block
    int channel;          // its first one
    bool inside;
    long long first, step;  // its first row, and how many further the next is
    int count;            // of its rows
    __device__ __forceinline__ Place(int rows, int channels, int across, bool upwards = false) {
        down = BLOCK / across;
        lane = threadIdx.x % across, row = threadIdx.x / across;
        channel = (blockIdx.x * across + lane) * VEC;
        inside = row < down && channel < channels;
        first = blockIdx.y * down + row, step = (long long)gridDim.y * down;
        count = inside && first < rows ? int((rows - first - 1) / step) + 1 : 0;
        if (upwards) first += (count - 1) * step, step = -step;
    }
};

// How many rows share `part` of `parts` has, if each takes `down` rows in turn.
__device__ __forceinline__ int rows_of(int part, int parts, int down, int rows) {
    int turns = rows / (parts * down), rest = rows - turns * parts * down - part * down;
    return turns * down + max(0, min(rest, down));
}

// Sums over the rows of a block, for each of its channels, in every thread of the channel; always in the same order.
__device__ __forceinline__ void sum_down(double (&values)[VEC], double* shared, const Place& at, int across) {
    __syncthreads();  // an earlier sum may still be read
#pragma unroll
    for (int v = 0; v < VEC; v++) shared[v * BLOCK + threadIdx.x] = values[v];
    __syncthreads();
    for (int reach = at.down > 1 ? 1 << (31 - __clz(at.down - 1)) : 0; reach; reach /= 2) {
        if (at.row < reach && at.row + reach < at.down) {
#pragma unroll
            for (int v = 0; v < VEC; v++) shared[v * BLOCK + threadIdx.x] += shared[v * BLOCK + threadIdx.x + reach * across];
        }
        __syncthreads();
    }
#pragma unroll
    for (int v = 0; v < VEC; v++) values[v] = shared[v * BLOCK + at.lane];
}

// ---------------------------------------------------------------------------------------------------------- statistics

#define DEPTH 8  // rows of a thread that are loaded together

// Takes up to DEPTH rows into the mean and the sum of squared distances from it (Chan, Golub and LeVeque 1979).
template <bool ALL>
__device__ __forceinline__ void take_rows(const T* x, long long step, int left, A& count, A (&mean)[VEC], A (&m2)[VEC]) {
    A values[DEPTH][VEC];
#pragma unroll
    for (int i = 0; i < DEPTH; i++)
        if (ALL || i < left) load_all<VEC>(values[i], x + i * step);
    A fresh = ALL ? DEPTH : left, inverse = 1 / fresh, share = fresh / (count + fresh);
#pragma unroll
    for (int v = 0; v < VEC; v++) {
        A sum = 0, squares = 0;
#pragma unroll
        for (int i = 0; i < DEPTH; i++)
            if (ALL || i < left) sum += values[i][v];
        A centre = sum * inverse, delta = centre - mean[v];
#pragma unroll
        for (int i = 0; i < DEPTH; i++)
            if (ALL || i < left) squares += (values[i][v] - centre) * (values[i][v] - centre);
        mean[v] += delta * share;
        m2[v] += squares + delta * delta * (count * share);
    }
    count += fresh;
}

// partial[part] = (mean of the rows of blockIdx.y, sum of squared distances from it) for each channel: (parts, 2, channels).
extern "C" __global__ void __launch_bounds__(BLOCK, 3) measure(const T* __restrict__ x, double* __restrict__ partial, int rows,
                                                            int channels, int across) {
    __shared__ double shared[BLOCK * VEC];
    Place at(rows, channels, across);
    A count = 0, mean[VEC] = {}, m2[VEC] = {};
    const T* row = x + at.first * channels + at.channel;
    long long step = at.step * channels;
    int left = at.count;
    for (; left >= DEPTH; left -= DEPTH, row += DEPTH * step) take_rows<true>(row, step, DEPTH, count, mean, m2);
    if (left) take_rows<false>(row, step, left, count, mean, m2);

    double total = rows_of(blockIdx.y, gridDim.y, at.down, rows), means[VEC], squares[VEC];
#pragma unroll
    for (int v = 0; v < VEC; v++) means[v] = double(at.count) * mean[v];
    sum_down(means, shared, at, across);
#pragma unroll
    for (int v = 0; v < VEC; v++) {
        means[v] /= total;
        squares[v] = m2[v] + at.count * (mean[v] - means[v]) * (mean[v] - means[v]);
    }
    sum_down(squares, shared, at, across);
    if (at.row == 0 && at.inside) {
        double* out = partial + 2ll * blockIdx.y * channels + at.channel;
#pragma unroll
        for (int v = 0; v < VEC; v++) out[v] = means[v], out[channels + v] = squares[v];
    }
}

// The sum over the 32 threads of one of the 8 channels of a block, in each of them; see merge_statistics.
__device__ __forceinline__ double sum_slices(double value, double* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int reach = BLOCK / 2; reach >= 8; reach /= 2) {
        if (threadIdx.x < reach) shared[threadIdx.x] += shared[threadIdx.x + reach];
        __syncthreads();
    }
    return shared[threadIdx.x % 8];
}

// mean = sum n_i mean_i / n, variance = sum (m2_i + n_i (mean_i - mean)^2) / n over all parts i. A block does 8 channels.
// The running statistics, where there are any, become (1 - momentum) running + momentum new, the variance by n - 1.
extern "C" __global__ void __launch_bounds__(BLOCK) merge_statistics(const double* __restrict__ partial,
                                                                     double* __restrict__ mean, double* __restrict__ variance,
                                                                     A* running_mean, A* running_variance, double momentum,
                                                                     int rows, int channels, int parts, int down) {
    __shared__ double shared[BLOCK];
    int channel = blockIdx.x * 8 + threadIdx.x % 8, slice = threadIdx.x / 8;
    const double* in = partial + channel;
    double sum = 0, squares = 0;
    if (channel < channels)
#pragma unroll 4
        for (int i = slice; i < parts; i += 32) sum += rows_of(i, parts, down, rows) * in[2ll * i * channels];
    double centre = sum_slices(sum, shared) / rows;
    if (channel < channels)
#pragma unroll 4
        for (int i = slice; i < parts; i += 32) {
            double distance = in[2ll * i * channels] - centre;
            squares += in[(2ll * i + 1) * channels] + rows_of(i, parts, down, rows) * distance * distance;
        }
    squares = sum_slices(squares, shared);
    if (slice || channel >= channels) return;
    mean[channel] = centre;
    variance[channel] = squares / rows;
    if (running_mean) running_mean[channel] = A((1 - momentum) * running_mean[channel] + momentum * centre);
    if (running_variance)
        running_variance[channel] = A((1 - momentum) * running_variance[channel] + momentum * (squares / (rows - 1)));
}

// -------------------------------------------------------------------------------------------------------------- forward

// scale and offset of a channel: y = x scale + offset. The backward pass finds the ReLU's input again to the last bit by this.
__device__ __forceinline__ void affine(const double* mean, const double* variance, const A* weight, const A* bias, double eps,
                                       int channel, A& scale, A& offset) {
    scale = 1 / sqrt(A(variance[channel] + eps));
    if (weight) scale *= weight[channel];
    offset = A((bias ? double(bias[channel]) : 0.0) - mean[channel] * scale);
}

#define LINES 4  // rows of a thread that are loaded together where there are two inputs or an output

// y = x scale + offset for each channel, then max(y, 0) if `relu`.
extern "C" __global__ void __launch_bounds__(BLOCK, 3) normalize(const T* __restrict__ x, T* __restrict__ y,
                                                              const double* __restrict__ mean,
                                                              const double* __restrict__ variance,
                                                              const A* __restrict__ weight, const A* __restrict__ bias,
                                                              double eps, int rows, int channels, int across, int relu) {
    Place at(rows, channels, across, true);
    if (!at.count) return;
    A scale[VEC], offset[VEC];
#pragma unroll
    for (int v = 0; v < VEC; v++) affine(mean, variance, weight, bias, eps, at.channel + v, scale[v], offset[v]);
    long long place = at.first * channels + at.channel, step = at.step * channels;
    for (int left = at.count; left > 0; left -= LINES, place += LINES * step) {
        A values[LINES][VEC];
#pragma unroll
        for (int i = 0; i < LINES; i++)
            if (i < left) load_all<VEC>(values[i], x + place + i * step);
#pragma unroll
        for (int i = 0; i < LINES; i++) {
#pragma unroll
            for (int v = 0; v < VEC; v++) {
                A value = fma(values[i][v], scale[v], offset[v]);
                values[i][v] = relu && value < 0 ? A(0) : value;  // NaN stays
            }
            if (i < left) store_all<VEC>(y + place + i * step, values[i]);
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- backward

// partial[part] = (sum g, sum g (x - mean)) over the rows of blockIdx.y, g = dy where the ReLU was open: (parts, 2, channels).
extern "C" __global__ void __launch_bounds__(BLOCK, 3) add_up(const T* __restrict__ dy, const T* __restrict__ x,
                                                           double* __restrict__ partial, const double* __restrict__ mean,
                                                           const double* __restrict__ variance, const A* __restrict__ weight,
                                                           const A* __restrict__ bias, double eps, int rows, int channels,
                                                           int across, int relu) {
    __shared__ double shared[BLOCK * VEC];
    Place at(rows, channels, across);
    A scale[VEC] = {}, offset[VEC] = {}, centre[VEC] = {}, sums[VEC] = {}, products[VEC] = {};
    if (at.count)
#pragma unroll
        for (int v = 0; v < VEC; v++) {
            affine(mean, variance, weight, bias, eps, at.channel + v, scale[v], offset[v]);
            centre[v] = A(mean[at.channel + v]);
        }
    long long place = at.first * channels + at.channel, step = at.step * channels;
    for (int left = at.count; left > 0; left -= LINES, place += LINES * step) {
        A g[LINES][VEC], values[LINES][VEC];
#pragma unroll
        for (int i = 0; i < LINES; i++)
            if (i < left) load_all<VEC>(g[i], dy + place + i * step), load_all<VEC>(values[i], x + place + i * step);
#pragma unroll
        for (int i = 0; i < LINES; i++)
            if (i < left)
#pragma unroll
                for (int v = 0; v < VEC; v++) {
                    A passed = relu && !(fma(values[i][v], scale[v], offset[v]) > 0) ? A(0) : g[i][v];
                    sums[v] += passed;
                    products[v] += passed * (values[i][v] - centre[v]);
                }
    }
    double first[VEC], second[VEC];
#pragma unroll
    for (int v = 0; v < VEC; v++) first[v] = sums[v], second[v] = products[v];
    sum_down(first, shared, at, across);
    sum_down(second, shared, at, across);
    if (at.row == 0 && at.inside) {
        double* out = partial + 2ll * blockIdx.y * channels + at.channel;
#pragma unroll
        for (int v = 0; v < VEC; v++) out[v] = first[v], out[channels + v] = second[v];
    }
}

// dbias = sum g, dweight = sum g (x - mean) / std; level and slope are what of them goes into each dx. A block does 8 channels.
extern "C" __global__ void __launch_bounds__(BLOCK) merge_gradients(const double* __restrict__ partial,
                                                                    const double* __restrict__ variance, A* __restrict__ dweight,
                                                                    A* __restrict__ dbias, A* __restrict__ level,
                                                                    A* __restrict__ slope, double eps, int rows, int channels,
                                                                    int parts) {
    __shared__ double shared[BLOCK];
    int channel = blockIdx.x * 8 + threadIdx.x % 8, slice = threadIdx.x / 8;
    const double* in = partial + channel;
    double sum = 0, product = 0;
    if (channel < channels)
#pragma unroll 4
        for (int i = slice; i < parts; i += 32) sum += in[2ll * i * channels], product += in[(2ll * i + 1) * channels];
    sum = sum_slices(sum, shared);
    product = sum_slices(product, shared);
    if (slice || channel >= channels) return;
    double rstd = 1 / sqrt(variance[channel] + eps);
    dbias[channel] = A(sum);
    dweight[channel] = A(product * rstd);
    level[channel] = A(sum / rows);
    slope[channel] = A(product * rstd * rstd / rows);
}

// dx = scale (g - level - slope (x - mean)) if the statistics are the batch's (`training`), else scale g.
extern "C" __global__ void __launch_bounds__(BLOCK, 3) spread(const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx,
                                                           const double* __restrict__ mean,
                                                           const double* __restrict__ variance, const A* __restrict__ weight,
                                                           const A* __restrict__ bias, const A* __restrict__ level,
                                                           const A* __restrict__ slope, double eps, int rows, int channels,
                                                           int across, int training, int relu) {
    Place at(rows, channels, across, true);
    if (!at.count) return;
    A scale[VEC], offset[VEC], centre[VEC], tilt[VEC], base[VEC];
#pragma unroll
    for (int v = 0; v < VEC; v++) {
        int channel = at.channel + v;
        affine(mean, variance, weight, bias, eps, channel, scale[v], offset[v]);
        centre[v] = A(mean[channel]);
        tilt[v] = training ? slope[channel] : A(0), base[v] = training ? level[channel] : A(0);
    }
    long long place = at.first * channels + at.channel, step = at.step * channels;
    for (int left = at.count; left > 0; left -= LINES, place += LINES * step) {
        A g[LINES][VEC], values[LINES][VEC];
#pragma unroll
        for (int i = 0; i < LINES; i++)
            if (i < left) load_all<VEC>(g[i], dy + place + i * step), load_all<VEC>(values[i], x + place + i * step);
#pragma unroll
        for (int i = 0; i < LINES; i++) {
#pragma unroll
            for (int v = 0; v < VEC; v++) {
                A passed = relu && !(fma(values[i][v], scale[v], offset[v]) > 0) ? A(0) : g[i][v];
                g[i][v] = scale[v] * (training ? passed - base[v] - tilt[v] * (values[i][v] - centre[v]) : passed);
            }
            if (i < left) store_all<VEC>(dx + place + i * step, g[i]);
        }
    }
}
