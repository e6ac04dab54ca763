// Counting loss and right answers of a batch, so that the host need not wait for them.
//! T: float double half bfloat16

#define WARPS 32

// numbers += {loss·rows, right answers, rows, 1}; once a loss was not finite, only numbers[4] = 1 and numbers[5] = that loss.
// One block; a warp for each row of x (rows, classes), which finds the row's first largest element (a NaN is the largest).
extern "C" __global__ void tally(
    double* __restrict__ numbers, const T* __restrict__ x, const T* __restrict__ loss,
    const long long* __restrict__ labels, int rows, int classes) {
    __shared__ int shared[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int right = 0;
    for (int row = warp; row < rows; row += WARPS) {
        const T* __restrict__ logits = x + (long long)row * classes;
        A best = -(A)INFINITY;
        int at = 0x7fffffff;
        for (int c = lane; c < classes; c += 32) {
            const A value = load(logits[c]);
            if (at == 0x7fffffff || value > best || (value != value && best == best)) best = value, at = c;
        }
        for (int distance = 16; distance; distance /= 2) {
            const A other = __shfl_xor_sync(FULL_WARP, best, distance);
            const int where = __shfl_xor_sync(FULL_WARP, at, distance);
            const bool nan = best != best, other_nan = other != other;
            const bool equal = nan ? other_nan : other == best;
            const bool larger = other_nan ? !nan : other > best;
            if (where != 0x7fffffff && (at == 0x7fffffff || larger || (equal && where < at))) best = other, at = where;
        }
        if (lane == 0 && at == labels[row]) right++;
    }
    if (lane == 0) shared[warp] = right;
    __syncthreads();
    if (threadIdx.x == 0 && numbers[4] == 0) {
        const double value = (double)load(loss[0]);
        if (value - value == 0) {  // finite
            int total = 0;
            for (int i = 0; i < WARPS; i++) total += shared[i];
            numbers[0] += value * rows;
            numbers[1] += total;
            numbers[2] += rows;
            numbers[3] += 1;
        } else {
            numbers[4] = 1;
            numbers[5] = value;
        }
    }
}
