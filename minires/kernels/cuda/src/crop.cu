// Training batches from images that stay on the GPU: gather, move, mirror and normalise, in one pass.
//
// Random numbers are a function of (seed, epoch, number of the sample), by the counter-based generator Philox4x32-10 (Salmon,
// Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"). Epoch and place in it are read from device
// memory, so that a captured launch draws the next batch at each replay.

//! T: float double half bfloat16

// Ten rounds: two words are multiplied by constants, the halves of the products mixed with the other words and the key.
static __device__ __forceinline__ uint4 philox(uint4 counter, unsigned low, unsigned high) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned first = __umulhi(0xD2511F53u, counter.x), second = __umulhi(0xCD9E8D57u, counter.z);
        counter = make_uint4(
            second ^ counter.y ^ low, 0xCD9E8D57u * counter.z, first ^ counter.w ^ high, 0xD2511F53u * counter.x);
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
    return counter;
}

// words = philox(counters): for the tests. One thread for each counter.
extern "C" __global__ void philox_words(
    const unsigned* __restrict__ counters, unsigned* __restrict__ words, unsigned low, unsigned high, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const unsigned* c = counters + 4 * i;
    const uint4 random = philox(make_uint4(c[0], c[1], c[2], c[3]), low, high);
    words[4 * i] = random.x;
    words[4 * i + 1] = random.y;
    words[4 * i + 2] = random.z;
    words[4 * i + 3] = random.w;
}

// The position mirrored at the border without repeating the border's pixel, and never outside.
static __device__ __forceinline__ int into(int position, int length) {
    const int last = length - 1, mirrored = last - abs(last - abs(position));
    return min(max(mirrored, 0), last);
}

// y[n, h, w, c] = (x[order[place + n], h', w', c]/peak - mean[c])/std[c]; one thread for each pixel of the batch.
// place: the epoch's number, and how many samples of it are done. flip: a random word below it mirrors the image.
extern "C" __global__ void draw_images(
    const unsigned char* __restrict__ images, const int* __restrict__ order, const long long* __restrict__ place,
    const T* __restrict__ mean, const T* __restrict__ std, T* __restrict__ y, int count, int samples, int height, int width,
    int channels, int padding, int reflect, long long flip, A peak, unsigned low, unsigned high) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= count * height * width) return;
    const int w = pixel % width, h = pixel / width % height, n = pixel / (width * height);
    const int sample = order[(place[1] + n) % samples];
    const uint4 random = philox(make_uint4((unsigned)sample, (unsigned)place[0], 0, 0), low, high);
    const unsigned span = 2 * padding + 1;
    const int row = h + (int)__umulhi(random.x, span) - padding;
    const int column = (random.z < flip ? width - 1 - w : w) + (int)__umulhi(random.y, span) - padding;
    const bool shown = reflect || (row >= 0 && row < height && column >= 0 && column < width);
    const long long from = (((long long)sample * height + into(row, height)) * width + into(column, width)) * channels;
    T* out = y + (long long)pixel * channels;
    for (int c = 0; c < channels; ++c) {
        const A value = shown ? (A)images[from + c] / peak : (A)0;
        store(out[c], (value - load(mean[c])) / load(std[c]));
    }
}

// y[n] = labels[order[place + n]], and the place moves on. One block, after draw_images: only it writes the place.
extern "C" __global__ void draw_labels(
    const long long* __restrict__ labels, const int* __restrict__ order, long long* __restrict__ place,
    long long* __restrict__ y, int count, int samples) {
    const long long done = place[1];
    for (int n = threadIdx.x; n < count; n += blockDim.x) y[n] = labels[order[(done + n) % samples]];
    __syncthreads();  // all have read the place
    if (threadIdx.x == 0) place[1] = done + count;
}
