//! T: float double half bfloat16
//! KH: 3
//! KW: 3
//! SY: 2
//! SX: 2
//! DY: 1
//! DX: 1
//! LINES: 8
//
// Depthwise convolution, one input channel a group, on channels-last memory. Macros and names as in conv.cu; an input
// channel has `multiplier` outputs. LINES: see depthwise_weight.

// Where an input position meets cell u of the kernel: the output position, or -1 if nowhere.
__device__ __forceinline__ int seen_from(int position, int size, int stride) {
    int place = position / stride;
    return position >= 0 && place * stride == position && place < size ? place : -1;
}

// y[n, y, x, o] = sum over u, v of weight[u, v, o] · x[n, y·SY + u·DY - above, x·SX + v·DX - left, o / multiplier].
// One thread computes one output value; neighbours have neighbouring channels.
extern "C" __global__ void depthwise(const T* __restrict__ x, const T* __restrict__ weight, T* __restrict__ y,
                                     long long work, int height, int width, int channels, int multiplier, int out_height,
                                     int out_width, int above, int left) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= work) return;
    int outputs = channels * multiplier, row = int(i / outputs), o = int(i - (long long)row * outputs);
    int line = row / out_width, n = line / out_height;
    int top = (line - n * out_height) * SY - above, start = (row - line * out_width) * SX - left;
    const T* image = x + (long long)n * height * width * channels + o / multiplier;
    A sum = 0;
#pragma unroll
    for (int u = 0; u < KH; u++) {
#pragma unroll
        for (int v = 0; v < KW; v++) {
            int h = top + u * DY, w = start + v * DX;
            if (unsigned(h) < unsigned(height) && unsigned(w) < unsigned(width))
                sum += load(image[((long long)h * width + w) * channels]) * load(weight[(u * KW + v) * outputs + o]);
        }
    }
    store(y[i], sum);
}

// Its adjoint: dx[n, h, w, c] = sum over u, v and the outputs o of channel c of weight[u, v, o] · dy[n, y, x, o]. One thread
// sums up one input value.
extern "C" __global__ void depthwise_input(const T* __restrict__ dy, const T* __restrict__ weight, T* __restrict__ dx,
                                           long long work, int height, int width, int channels, int multiplier,
                                           int out_height, int out_width, int above, int left) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= work) return;
    int outputs = channels * multiplier, pixel = int(i / channels), c = int(i - (long long)pixel * channels);
    int line = pixel / width, n = line / height, h = line - n * height, w = pixel - line * width;
    A sum = 0;
#pragma unroll
    for (int u = 0; u < KH; u++) {
        int y = seen_from(h + above - u * DY, out_height, SY);
#pragma unroll
        for (int v = 0; v < KW; v++) {
            int column = seen_from(w + left - v * DX, out_width, SX);
            if (y < 0 || column < 0) continue;
            const T* source = dy + (((long long)n * out_height + y) * out_width + column) * outputs + c * multiplier;
            const T* cell = weight + (u * KW + v) * outputs + c * multiplier;
            for (int m = 0; m < multiplier; m++) sum += load(source[m]) * load(cell[m]);
        }
    }
    store(dx[i], sum);
}

// And its weight: shares[s, u, v, o] = sum over the rows (n, y, x) of share s of dy[row, o] · x[what (u, v) sees there, o's
// channel]. One block of (32, LINES) threads has 32 outputs o; its lines of threads take every LINES-th row of the share.
extern "C" __global__ void depthwise_weight(const T* __restrict__ x, const T* __restrict__ dy, A* __restrict__ shares,
                                            int rows, int share_rows, int height, int width, int channels, int multiplier,
                                            int out_height, int out_width, int above, int left) {
    __shared__ A partial[LINES][32];
    int outputs = channels * multiplier, o = blockIdx.x * 32 + threadIdx.x;
    int from = blockIdx.y * share_rows, to = min(rows, from + share_rows);
    A sum[KH * KW];
#pragma unroll
    for (int k = 0; k < KH * KW; k++) sum[k] = 0;
    if (o < outputs) {
        for (int row = from + int(threadIdx.y); row < to; row += LINES) {
            int line = row / out_width, n = line / out_height;
            int top = (line - n * out_height) * SY - above, start = (row - line * out_width) * SX - left;
            const T* image = x + (long long)n * height * width * channels + o / multiplier;
            A gradient = load(dy[(long long)row * outputs + o]);
#pragma unroll
            for (int k = 0; k < KH * KW; k++) {
                int h = top + k / KW * DY, w = start + k % KW * DX;
                if (unsigned(h) < unsigned(height) && unsigned(w) < unsigned(width))
                    sum[k] += gradient * load(image[((long long)h * width + w) * channels]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < KH * KW; k++) {
        partial[threadIdx.y][threadIdx.x] = sum[k];
        __syncthreads();
        if (threadIdx.y == 0 && o < outputs) {
            A total = 0;
            for (int line = 0; line < LINES; line++) total += partial[line][threadIdx.x];
            shares[((long long)blockIdx.y * (KH * KW) + k) * outputs + o] = total;
        }
        __syncthreads();
    }
}
