// Max pooling on channels-last memory (N, H, W, C).
//
// In every kernel a thread owns VEC neighbouring channels of one column, and walks down band_rows rows of it. So what
// depends on the column alone is worked out once, and what depends on the row is the same for a whole block: it costs
// branches, but no divergence. Block x: image and band of rows; block y and thread: column and channels.
//
// A window that is known when this is compiled unrolls completely and divides by constants: hence the variants at the end.
//
//! T: float double half bfloat16
//! VEC: 1 4

struct Window {  // rows first, then columns; step: dilation
    int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, step_h, step_w;
};

#define SIZES int height, int width, int out_height, int out_width, int channels, int bands, int band_rows
#define WINDOW \
    int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w, int step_h, int step_w

// y = max over the window, winners = number of the cell that held it: the first of equals, a NaN before all others.
// A thread: one column of outputs, VEC channels, band_rows rows.
template <class Winner>
__device__ __forceinline__ void pool(const T* __restrict__ x, T* __restrict__ y, Winner* __restrict__ winners, SIZES,
                                     const Window window) {
    const Strip at = strip_of_thread(out_height, out_width, channels / VEC, bands, band_rows);
    if (!at.inside) return;
    const int left = at.column * window.stride_w - window.pad_w;
    const T* plane = x + (long long)at.image * height * width * channels + at.unit * VEC;
    for (int row = at.first_row; row < at.last_row; row++) {
        const int top = row * window.stride_h - window.pad_h;
        A best[VEC];
        int cell[VEC];
        for (int v = 0; v < VEC; v++) cell[v] = -1, best[v] = 0;
#pragma unroll
        for (int i = 0; i < window.kernel_h; i++) {
            const int h = top + i * window.step_h;
            if (h < 0 || h >= height) continue;
            const T* line = plane + (long long)h * width * channels;
#pragma unroll
            for (int j = 0; j < window.kernel_w; j++) {
                const int w = left + j * window.step_w;
                A values[VEC];  // beyond the edge some other pixel: loads without a branch are all under way at once
                load_all(values, line + (long long)min(max(w, 0), width - 1) * channels);
                const bool inside = w >= 0 && w < width;
                for (int v = 0; v < VEC; v++) {
                    if (inside && (cell[v] < 0 || values[v] > best[v] || values[v] != values[v])) {
                        best[v] = values[v];
                        cell[v] = i * window.kernel_w + j;
                    }
                }
            }
        }
        Vec<Winner, VEC> numbers;
        for (int v = 0; v < VEC; v++) numbers.at[v] = (Winner)cell[v];
        const long long to = (((long long)at.image * out_height + row) * out_width + at.column) * channels + at.unit * VEC;
        store_all(y + to, best);
        store_vec<VEC>(winners + to, numbers);
    }
}

// dx(h, w) = sum of the dy of those windows that hold (h, w) and have it as their winner; windows from top left to bottom
// right, so the sum is the same in every run. A thread: one column of the input, VEC channels, band_rows rows.
template <class Winner>
__device__ __forceinline__ void scatter(const T* __restrict__ dy, const Winner* __restrict__ winners, T* __restrict__ dx,
                                        SIZES, const Window window) {
    const Strip at = strip_of_thread(height, width, channels / VEC, bands, band_rows);
    if (!at.inside) return;
    const int reach_h = (window.kernel_h - 1) * window.step_h, reach_w = (window.kernel_w - 1) * window.step_w;
    const int last_column = (at.column + window.pad_w) / window.stride_w;  // of the windows that begin here or before
    for (int h = at.first_row; h < at.last_row; h++) {
        A sum[VEC];
        for (int v = 0; v < VEC; v++) sum[v] = 0;
        const int last_window = (h + window.pad_h) / window.stride_h;
#pragma unroll
        for (int m = reach_h / window.stride_h; m >= 0; m--) {
            const int row = last_window - m, down = h + window.pad_h - row * window.stride_h;
            if (row < 0 || row >= out_height || down > reach_h || down % window.step_h) continue;
            const int first_cell = down / window.step_h * window.kernel_w;
            const long long line = ((long long)at.image * out_height + row) * out_width * channels + at.unit * VEC;
#pragma unroll
            for (int n = reach_w / window.stride_w; n >= 0; n--) {
                const int column = last_column - n, right = at.column + window.pad_w - column * window.stride_w;
                const bool inside = column >= 0 && column < out_width && right <= reach_w && right % window.step_w == 0;
                const int cell = inside ? first_cell + right / window.step_w : -1;
                const long long from = line + (long long)min(max(column, 0), out_width - 1) * channels;
                const Vec<Winner, VEC> numbers = load_vec<VEC>(winners + from);
                A gradients[VEC];
                load_all(gradients, dy + from);
                for (int v = 0; v < VEC; v++) {
                    if (numbers.at[v] == cell) sum[v] += gradients[v];
                }
            }
        }
        store_all(dx + (((long long)at.image * height + h) * width + at.column) * channels + at.unit * VEC, sum);
    }
}

#define FOR_WINDOW(suffix, Winner, ...)                                                                                     \
    extern "C" __global__ void max_pool##suffix(const T* __restrict__ x, T* __restrict__ y, Winner* __restrict__ winners,   \
                                                SIZES, WINDOW) {                                                            \
        pool<Winner>(x, y, winners, height, width, out_height, out_width, channels, bands, band_rows, Window{__VA_ARGS__}); \
    }                                                                                                                       \
    extern "C" __global__ void max_pool_scatter##suffix(const T* __restrict__ dy, const Winner* __restrict__ winners,       \
                                                        T* __restrict__ dx, SIZES, WINDOW) {                                \
        scatter<Winner>(dy, winners, dx, height, width, out_height, out_width, channels, bands, band_rows,                  \
                        Window{__VA_ARGS__});                                                                               \
    }
#define ANY kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, step_h, step_w
FOR_WINDOW(, unsigned char, ANY)
FOR_WINDOW(_wide, int, ANY)  // more than 255 cells
FOR_WINDOW(_3x3_stride_2, unsigned char, 3, 3, 2, 2, pad_h, pad_w, 1, 1)
FOR_WINDOW(_2x2_stride_2, unsigned char, 2, 2, 2, 2, pad_h, pad_w, 1, 1)
