//! T: float double half bfloat16
//! VEC: 1 4
//! KH: 3
//! KW: 3
//! SY: 2
//! SX: 2
//! DY: 1
//! DX: 1
//
// Convolution by columns (im2col) on channels-last memory, images (N, H, W, C).
//
// Macros: KH, KW the kernel, SY, SX the stride, DY, DX the dilation (compile-time numbers: the loops over the kernel are
// unrolled, and dividing by the stride costs nothing); VEC, how many channels a thread moves at once (it divides those of a
// group, and they are 16 bytes at most). above and left are the padding there.

// columns[row, g, u, v, c] = x[n, y·SY + u·DY - above, x·SX + v·DX - left, g·C/groups + c]; row 0 is (n, y, x) = first_row.
// One thread copies one pack of channels for all cells of the kernel; neighbours in a warp have neighbouring channels.
extern "C" __global__ void im2col(const T* __restrict__ x, T* __restrict__ columns, int first_row, int work, int height,
                                  int width, int channels, int group_channels, int out_height, int out_width, int above,
                                  int left) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= work) return;
    int packs = channels / VEC, slice = i / packs, c = (i - slice * packs) * VEC;
    int row = first_row + slice, line = row / out_width, n = line / out_height;
    int top = (line - n * out_height) * SY - above, start = (row - line * out_width) * SX - left;
    int group = c / group_channels;
    const T* image = x + (long long)n * height * width * channels + c;
    T* target = columns + ((long long)slice * channels + group * group_channels) * (KH * KW) + (c - group * group_channels);
#pragma unroll
    for (int u = 0; u < KH; u++) {
#pragma unroll
        for (int v = 0; v < KW; v++) {
            int h = top + u * DY, w = start + v * DX;
            Vec<T, VEC> pack;
#pragma unroll
            for (int j = 0; j < VEC; j++) store(pack.at[j], 0);
            if (unsigned(h) < unsigned(height) && unsigned(w) < unsigned(width))
                pack = load_vec<VEC>(image + ((long long)h * width + w) * channels);
            store_vec<VEC>(target + (u * KW + v) * group_channels, pack);
        }
    }
}

// Where an input position meets cell u of the kernel: the output position, or -1 if nowhere.
__device__ __forceinline__ int seen_from(int position, int size, int stride) {
    int place = position / stride;
    return position >= 0 && place * stride == position && place < size ? place : -1;
}

// The adjoint of im2col: dx[n, h, w, c] = sum over u, v of columns[n, y, x, g, u, v, c] with y·SY + u·DY - above = h and
// x·SX + v·DX - left = w. One thread sums up one pack of channels of one input pixel in a fixed order: nothing is scattered.
extern "C" __global__ void col2im(const T* __restrict__ columns, T* __restrict__ dx, int work, int height, int width,
                                  int channels, int group_channels, int out_height, int out_width, int above, int left) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= work) return;
    int packs = channels / VEC, pixel = i / packs, c = (i - pixel * packs) * VEC;
    int line = pixel / width, n = line / height, h = line - n * height, w = pixel - line * width;
    int group = c / group_channels;
    const T* source = columns + (long long)group * group_channels * (KH * KW) + (c - group * group_channels);
    A sum[VEC];
#pragma unroll
    for (int j = 0; j < VEC; j++) sum[j] = 0;
#pragma unroll
    for (int u = 0; u < KH; u++) {
        int y = seen_from(h + above - u * DY, out_height, SY);
#pragma unroll
        for (int v = 0; v < KW; v++) {
            int column = seen_from(w + left - v * DX, out_width, SX);
            if (y < 0 || column < 0) continue;
            long long row = ((long long)n * out_height + y) * out_width + column;
            A pack[VEC];
            load_all(pack, source + row * channels * (KH * KW) + (u * KW + v) * group_channels);
#pragma unroll
            for (int j = 0; j < VEC; j++) sum[j] += pack[j];
        }
    }
    store_all(dx + (long long)pixel * channels + c, sum);
}
