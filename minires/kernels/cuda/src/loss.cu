// Softmax cross-entropy with class indices: rows of logits, one warp for each row.

//! T: float double half bfloat16

#define THREADS 256

static __device__ __forceinline__ A row_max(A value) {
    for (int lane = 16; lane > 0; lane /= 2) {
        const A other = __shfl_xor_sync(FULL_WARP, value, lane);
        value = other > value ? other : value;
    }
    return value;
}

// loss[row] = -Σ t·ln p, slope[row, c] = p·Σt - t with p = softmax(x) and t the smoothed, weighted indicator of the label;
// share[row] = the weight of the label. A label that is ignored makes all of them 0, one out of range NaN.
extern "C" __global__ void cross_entropy(
    const T* __restrict__ x, const long long* __restrict__ labels, const T* __restrict__ weights, A* __restrict__ loss,
    A* __restrict__ share, T* __restrict__ slope, long long ignored, A smoothing, int rows, int classes) {
    const int lane = threadIdx.x & 31;
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;  // a whole warp at once
    const long long label = labels[row];
    const T* __restrict__ logits = x + (long long)row * classes;
    T* __restrict__ slopes = slope + (long long)row * classes;
    const bool counted = label != ignored, known = label >= 0 && label < classes;
    if (!counted || !known) {
        const A value = counted ? (A)NAN : (A)0;
        for (int c = lane; c < classes; c += 32) store(slopes[c], value);
        if (lane == 0) loss[row] = share[row] = value;
        return;
    }
    A largest = -(A)INFINITY;
    for (int c = lane; c < classes; c += 32) {
        const A value = load(logits[c]);
        largest = value > largest ? value : largest;  // a NaN shows in the sum
    }
    largest = row_max(largest);
    A sum = 0, weight_sum = 0;
    for (int c = lane; c < classes; c += 32) {
        sum += exp(load(logits[c]) - largest);
        weight_sum += weights == nullptr ? (A)1 : load(weights[c]);
    }
    sum = warp_sum(sum);
    weight_sum = warp_sum(weight_sum);
    const A own = weights == nullptr ? (A)1 : load(weights[label]);
    const A spread = smoothing / (A)classes, log_sum = log(sum), inverse = (A)1 / sum;
    const A target_sum = spread * weight_sum + ((A)1 - smoothing) * own;
    A value = 0;
    for (int c = lane; c < classes; c += 32) {
        const A shifted = load(logits[c]) - largest;
        const A weight = weights == nullptr ? (A)1 : load(weights[c]);
        const A target = (c == label ? (A)1 - smoothing + spread : spread) * weight;
        if (target != (A)0) value -= target * (shifted - log_sum);  // 0·ln 0 counts for nothing
        store(slopes[c], exp(shifted) * inverse * target_sum - target);
    }
    value = warp_sum(value);
    if (lane == 0) {
        loss[row] = value;
        share[row] = own;
    }
}

// (Σ loss, Σ share) of the rows that a block visits: one pair of partial sums for each block.
extern "C" __global__ void sum_rows(
    const A* __restrict__ loss, const A* __restrict__ share, A* __restrict__ sums, A* __restrict__ shares, int rows) {
    __shared__ A shared[32];
    A sum = 0, weight = 0;
    for (long long i = blockIdx.x * THREADS + threadIdx.x; i < rows; i += (long long)gridDim.x * THREADS) {
        sum += loss[i];
        weight += share[i];
    }
    sum = block_sum(sum, shared);
    weight = block_sum(weight, shared);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        shares[blockIdx.x] = weight;
    }
}

// total = Σ shares, y = Σ sums (divided by the total for a mean). One block.
extern "C" __global__ void finish(
    const A* __restrict__ sums, const A* __restrict__ shares, T* __restrict__ y, A* __restrict__ total, int count, int mean) {
    __shared__ A shared[32];
    A sum = 0, weight = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) {
        sum += sums[i];
        weight += shares[i];
    }
    sum = block_sum(sum, shared);
    weight = block_sum(weight, shared);
    if (threadIdx.x == 0) {
        if (weight == 0) weight = NAN;  // spread targets leave more than 0 to divide
        total[0] = weight;
        store(y[0], mean ? sum / weight : sum);
    }
}

// dx = dy·slope/total, 0 in a row that is ignored; a thread for each element. total is null unless the loss is a mean.
extern "C" __global__ void cross_entropy_backward(
    const T* __restrict__ dy, const T* __restrict__ slope, const A* __restrict__ total, const long long* __restrict__ labels,
    T* __restrict__ dx, long long ignored, long long size, int classes, int dy_stride) {
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += (long long)gridDim.x * blockDim.x) {
        const long long row = i / classes;
        const A scale = total == nullptr ? (A)1 : total[0];
        const A factor = load(dy[row * dy_stride]) / scale;
        store(dx[i], labels[row] == ignored ? (A)0 : factor * load(slope[i]));
    }
}
