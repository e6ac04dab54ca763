// One step of an optimiser on all parameters of a flat buffer.
//
// The weights and the optimiser's state lie in flat arrays; the gradients are arrays of their own, whose addresses come by
// value with the launch (a null one has no gradient and is left out). What changes from step to step, the options and the
// number of steps, is read from device memory, so that a captured launch can be replayed.

//! T: float double half bfloat16

#define POINTERS 480  // kernel arguments may take 4 KiB in all
#define THREADS 256
#define ITEMS 8  // elements of a thread; all of them are loaded before the first is stored

struct Gradients {
    const T* at[POINTERS];
};

// The part of a parameter that one block works on.
struct Piece {
    long long parameter;  // its number
    long long from;       // first element, counted in the parameter
    long long flat;       // the same element, counted in the flat arrays
    long long count;      // at most THREADS * ITEMS
};

// options[i] = vᵢ: a launch carries the numbers, so that no copy from the host has to be waited for. One thread does it.
extern "C" __global__ void set_options(
    double* __restrict__ options, double v0, double v1, double v2, double v3, double v4, double v5) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        options[0] = v0;
        options[1] = v1;
        options[2] = v2;
        options[3] = v3;
        options[4] = v4;
        options[5] = v5;
    }
}

// steps += 1 where there is a gradient; one thread for each parameter.
extern "C" __global__ void count_steps(const Gradients gradients, int* __restrict__ steps, int first, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count && gradients.at[i] != nullptr) steps[first + i] += 1;
}

// The same, and Adam's bias corrections for the new step t: (lr/(1 - β₁ᵗ), √(1 - β₂ᵗ)) in double precision.
extern "C" __global__ void count_steps_adam(
    const Gradients gradients, int* __restrict__ steps, double* __restrict__ corrections,
    const double* __restrict__ options, int first, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count && gradients.at[i] != nullptr) {
        const int t = steps[first + i] + 1;
        steps[first + i] = t;
        corrections[2 * (first + i)] = options[0] / (1.0 - pow(options[1], (double)t));
        corrections[2 * (first + i) + 1] = sqrt(1.0 - pow(options[2], (double)t));
    }
}

// v = momentum·v + (1 - dampening)·g, w -= lr·v (or, looking ahead, lr·(g + momentum·v)); a block for each piece.
// options: lr, momentum, 1 - dampening, weight decay, whether to look ahead. velocity is null without momentum.
extern "C" __global__ void sgd(
    const Gradients gradients, T* __restrict__ weight, T* __restrict__ velocity, const int* __restrict__ steps,
    const double* __restrict__ options, const Piece* __restrict__ pieces, int first) {
    const Piece piece = pieces[blockIdx.x];
    const T* __restrict__ gradient = gradients.at[piece.parameter - first];
    if (gradient == nullptr) return;
    const A lr = (A)options[0], momentum = (A)options[1], share = (A)options[2], decay = (A)options[3];
    const bool ahead = options[4] != 0.0, fresh = steps[piece.parameter] == 1;
    gradient += piece.from;
    weight += piece.flat;
    if (velocity != nullptr) velocity += piece.flat;
    A w[ITEMS], g[ITEMS], v[ITEMS];
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const int i = k * THREADS + threadIdx.x;
        if (i < piece.count) {
            w[k] = load(weight[i]);
            g[k] = load(gradient[i]);
            if (velocity != nullptr) v[k] = load(velocity[i]);
        }
    }
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const int i = k * THREADS + threadIdx.x;
        if (i < piece.count) {
            A slope = g[k];
            if (decay != (A)0) slope += decay * w[k];
            if (velocity != nullptr) {
                const A speed = fresh ? slope : momentum * v[k] + share * slope;
                store(velocity[i], speed);
                slope = ahead ? slope + momentum * speed : speed;
            }
            store(weight[i], w[k] - lr * slope);
        }
    }
}

// m += (1 - β₁)(g - m), v = β₂·v + (1 - β₂)·g², w -= lr/(1 - β₁ᵗ)·m/(√v/√(1 - β₂ᵗ) + eps); a block for each piece.
// options: lr, β₁, β₂, eps, weight decay, whether the decay is apart from the gradient (AdamW).
extern "C" __global__ void adam(
    const Gradients gradients, T* __restrict__ weight, T* __restrict__ mean, T* __restrict__ square,
    const double* __restrict__ corrections, const double* __restrict__ options, const Piece* __restrict__ pieces,
    int first) {
    const Piece piece = pieces[blockIdx.x];
    const T* __restrict__ gradient = gradients.at[piece.parameter - first];
    if (gradient == nullptr) return;
    const A fresh_mean = (A)(1.0 - options[1]), old_square = (A)options[2], fresh_square = (A)(1.0 - options[2]);
    const A eps = (A)options[3], decay = (A)options[4], shrink = (A)(1.0 - options[0] * options[4]);
    const bool apart = options[5] != 0.0;
    const A rate = (A)corrections[2 * piece.parameter], root = (A)corrections[2 * piece.parameter + 1];
    gradient += piece.from;
    weight += piece.flat;
    mean += piece.flat;
    square += piece.flat;
    A w[ITEMS], g[ITEMS], m[ITEMS], v[ITEMS];
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const int i = k * THREADS + threadIdx.x;
        if (i < piece.count) {
            w[k] = load(weight[i]);
            g[k] = load(gradient[i]);
            m[k] = load(mean[i]);
            v[k] = load(square[i]);
        }
    }
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        const int i = k * THREADS + threadIdx.x;
        if (i < piece.count) {
            A old = w[k], slope = g[k];
            if (decay != (A)0) {
                if (apart) old *= shrink;
                else slope += decay * old;
            }
            const A first = m[k] + (slope - m[k]) * fresh_mean;
            const A second = old_square * v[k] + slope * slope * fresh_square;
            store(mean[i], first);
            store(square[i], second);
            store(weight[i], old - rate * (first / (sqrt(second) / root + eps)));
        }
    }
}
