// Pixels picked out of channels-last memory (N, H, W, C): values are only copied, whatever they mean, UNIT at a time.
//
//! UNIT: 1 2 4 8 16

struct Unit {
    Word<UNIT>::type bits;
};

// y(i, j) = x(rows[i], columns[j]), copied UNIT bytes at a time whatever they mean; `units` of them make a pixel.
// A thread: one column of y, one unit of the pixel, band_rows rows.
extern "C" __global__ void pick(const Unit* __restrict__ x, Unit* __restrict__ y, const int* __restrict__ rows,
                                const int* __restrict__ columns, int height, int width, int new_height, int new_width,
                                int units, int bands, int band_rows) {
    const Strip at = strip_of_thread(new_height, new_width, units, bands, band_rows);
    if (!at.inside) return;
    const Unit* plane = x + ((long long)at.image * height * width + columns[at.column]) * units + at.unit;
    Unit* out = y + (((long long)at.image * new_height + at.first_row) * new_width + at.column) * units + at.unit;
    int held = -1;
    Unit value;
    for (int row = at.first_row; row < at.last_row; row++, out += (long long)new_width * units) {
        if (rows[row] != held) {  // a row that is copied several times is read once
            held = rows[row];
            value = plane[(long long)held * width * units];
        }
        *out = value;
    }
}

#define SIZES int height, int width, int out_height, int out_width, int channels, int bands, int band_rows
#define WINDOW \
    int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w, int step_h, int step_w

// y = x at the winner of every window (see pool.cu); an element has UNIT bytes.
// A thread: one column of outputs, one channel, band_rows rows.
template <class Winner>
__device__ __forceinline__ void gather(const Unit* __restrict__ x, const Winner* __restrict__ winners, Unit* __restrict__ y,
                                       SIZES, WINDOW) {
    const Strip at = strip_of_thread(out_height, out_width, channels, bands, band_rows);
    if (!at.inside) return;
    const int left = at.column * stride_w - pad_w;
    for (int row = at.first_row; row < at.last_row; row++) {
        const long long to = (((long long)at.image * out_height + row) * out_width + at.column) * channels + at.unit;
        const int cell = winners[to], i = cell / kernel_w, j = cell - i * kernel_w;
        const int h = row * stride_h - pad_h + i * step_h, w = left + j * step_w;
        y[to] = x[(((long long)at.image * height + h) * width + w) * channels + at.unit];
    }
}

#define FOR_WINNER(suffix, Winner)                                                                                          \
    extern "C" __global__ void max_pool_gather##suffix(const Unit* __restrict__ x, const Winner* __restrict__ winners,      \
                                                       Unit* __restrict__ y, SIZES, WINDOW) {                               \
        gather<Winner>(x, winners, y, height, width, out_height, out_width, channels, bands, band_rows, kernel_h, kernel_w, \
                       stride_h, stride_w, pad_h, pad_w, step_h, step_w);                                                   \
    }
FOR_WINNER(, unsigned char)
FOR_WINNER(_wide, int)  // windows of more than 255 cells
