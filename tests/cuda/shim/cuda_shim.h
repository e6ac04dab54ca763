// CUDA kernels on the CPU, one fibre for each thread of a block; force-included before the code of a .cu file.
//
// Blocks run one after another. A thread runs until it meets a barrier (or a shuffle, which is one for its warp), then the next
// one does, in ascending or in descending order: code that forgot a barrier gives another result in one of the two orders.
// Threads that never wait share one fibre. Shared memory is filled with NaN (-1 as an integer) before each block.
#pragma once
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <tuple>
#include <utility>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#include "cuda_words.h"

#define CUDA_SHIM 1  // a kernel asks for this where it would use inline assembly
#define __CUDA_ARCH__ 800
#define __global__ __attribute__((used, visibility("default")))
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static __attribute__((section("cuda_shared")))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))

// -------------------------------------------------------------------------------------------------- threads of one block

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace shim {

enum State : char { NEW, READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
const int MOST_THREADS = 1024, STACK = 1 << 17;

struct Context {  // where something that does not run stands still
    jmp_buf place;
    char* stack = nullptr;  // null: the stack of the program itself
    void* fake_stack = nullptr;
    const void* bottom = nullptr;
    size_t size = 0;
};

struct Fibre : Context {
    bool begun = false;
    ucontext_t start;
};

struct Thread {
    State state;
    Fibre* fibre;
    const char* file;  // of the barrier it waits at
    int line;
    const char* what;
    unsigned mask;
    bool parity;       // of the shuffle: its values are exchanged in the one buffer or the other
};

static Thread threads[MOST_THREADS];
static unsigned char slots[2][MOST_THREADS][16];  // what lanes hand each other
static unsigned arrived[MOST_THREADS / 32];       // lanes of a warp at a warp barrier
static Fibre fibres[MOST_THREADS];
static Fibre* free_fibres[MOST_THREADS];
static int free_count, thread_count, current, cursor, waiting_at_barrier;
static bool descending;
static Context scheduler;
static void (*run_thread)(void*);
static void* run_argument;
static char message[2048];

inline int in_order(int i) { return descending ? thread_count - 1 - i : i; }

inline void become(int t) {
    current = t;
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
}

static void fibre_main();

// setjmp and longjmp, because swapcontext asks the kernel for the signal mask each time.
static __attribute__((noinline)) void switch_to(Context& from, Context& to, Fibre* begin = nullptr) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack ? to.stack : to.bottom, to.stack ? size_t(STACK) : to.size);
#endif
    if (!_setjmp(from.place)) {
        if (begin) {
            begin->begun = true;
            getcontext(&begin->start);
            begin->start.uc_stack.ss_sp = begin->stack;
            begin->start.uc_stack.ss_size = STACK;
            begin->start.uc_link = nullptr;
            makecontext(&begin->start, fibre_main, 0);
            setcontext(&begin->start);
        }
        _longjmp(to.place, 1);
    }
#ifdef __SANITIZE_ADDRESS__
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(from.fake_stack, &bottom, &size);
    if (!from.stack) return;
    scheduler.bottom = bottom, scheduler.size = size;  // fibres are only entered from there
#endif
}

static void fibre_main() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler.bottom, &scheduler.size);
#endif
    for (;;) {
        Fibre* self = threads[current].fibre;
        run_thread(run_argument);
        threads[current].state = DONE;
        if (cursor + 1 < thread_count && threads[in_order(cursor + 1)].state == NEW) {
            become(in_order(++cursor));  // the next one can run right here: nobody waits on this stack
            threads[current].fibre = self;
            continue;
        }
        free_fibres[free_count++] = self;
        switch_to(*self, scheduler);
    }
}

inline void wait() {
    int self = current;
    switch_to(*threads[self].fibre, scheduler);
    become(self);
}

inline void arrive(State state, const char* what, const char* file, int line, unsigned mask) {
    Thread& t = threads[current];
    t.state = state, t.what = what, t.file = file, t.line = line, t.mask = mask;
}

inline void block_barrier(const char* what, const char* file, int line) {
    arrive(AT_BLOCK_BARRIER, what, file, line, 0);
    ++waiting_at_barrier;
    wait();  // the scheduler lets all go when all have come
}

// Returns the number (0 or 1) of the buffer that holds what the lanes brought.
inline int warp_barrier(const char* what, const char* file, int line, unsigned mask, const void* value, size_t size) {
    int warp = current / 32, lane = current % 32, last = thread_count - warp * 32;
    unsigned exist = last >= 32 ? ~0u : (1u << last) - 1;
    int buffer = threads[current].parity;
    threads[current].parity = !threads[current].parity;
    if (size) memcpy(slots[buffer][current], value, size);
    arrive(AT_WARP_BARRIER, what, file, line, mask);
    arrived[warp] |= 1u << lane;
    bool all = (mask >> lane & 1) && (arrived[warp] & mask & exist) == (mask & exist);
    for (int l = 0; all && l < 32; l++)  // others that wait at another line or with another mask: nobody ever goes on
        if (mask & exist & (1u << l)) {
            Thread& other = threads[warp * 32 + l];
            all = other.line == line && other.mask == mask && !strcmp(other.what, what) && !strcmp(other.file, file);
        }
    if (!all) {
        wait();
        return buffer;
    }
    for (int l = 0; l < 32; l++)
        if (mask & exist & (1u << l)) threads[warp * 32 + l].state = READY;
    arrived[warp] &= ~mask;
    return buffer;
}

template <class V> inline V from_lane(int buffer, int lane, const V& own) {
    static_assert(sizeof(V) <= 16 && std::is_trivially_copyable_v<V>, "a shuffle takes a number");
    int other = current / 32 * 32 + lane;
    if (other >= thread_count) return own;
    V value;
    memcpy(&value, slots[buffer][other], sizeof(V));
    return value;
}

inline const char* where_they_are(char* text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int first = 0; first < thread_count && used < size - 1;) {
        Thread& t = threads[first];
        int last = first;
        while (last + 1 < thread_count && threads[last + 1].state == t.state &&
               (t.state == DONE || (threads[last + 1].line == t.line && threads[last + 1].mask == t.mask)))
            ++last;
        if (t.state == DONE)
            used += snprintf(text + used, size - used, "\n  threads %d to %d have left the kernel", first, last);
        else
            used += snprintf(text + used, size - used, "\n  threads %d to %d wait at %s (%s, line %d)", first, last, t.what,
                             t.file, t.line);
        first = last + 1;
    }
    return text;
}

__attribute__((no_sanitize("address"))) inline void spoil_shared_memory() {  // the gaps between arrays too
    for (char* p = __start_cuda_shared; p != __stop_cuda_shared; p++) *(volatile char*)p = -1;
}

// Runs the threads of one block to their end; false (and a message) if some wait for what never comes.
inline bool run_block() {
    spoil_shared_memory();
    for (int t = 0; t < thread_count; t++) threads[t] = {NEW, nullptr, "", 0, "", 0, false};
    memset(arrived, 0, sizeof arrived);
    waiting_at_barrier = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (cursor = 0; cursor < thread_count; cursor++) {
            Thread& t = threads[in_order(cursor)];
            if (t.state != NEW && t.state != READY) continue;
            moved = true;
            if (!t.fibre) t.fibre = free_fibres[--free_count];
            become(in_order(cursor));
            t.state = READY;
            switch_to(scheduler, *t.fibre, t.fibre->begun ? nullptr : t.fibre);
        }
        if (waiting_at_barrier != thread_count) continue;
        for (int i = 0; i < thread_count; i++) {
            if (threads[i].line != threads[0].line) return false;  // not one barrier, but several
            threads[i].state = READY;
        }
        waiting_at_barrier = 0;
        moved = true;
    }
    for (int i = 0; i < thread_count; i++)
        if (threads[i].state != DONE) return false;
    return true;
}

inline const char* run_grid(const char* kernel, const int* grid, const int* block, bool down) {
    blockDim = dim3(block[0], block[1], block[2]), gridDim = dim3(grid[0], grid[1], grid[2]);
    thread_count = block[0] * block[1] * block[2], descending = down;
    for (free_count = 0; free_count < thread_count; free_count++) {
        Fibre& fibre = fibres[thread_count - 1 - free_count];
        if (!fibre.stack) fibre.stack = (char*)aligned_alloc(64, STACK);
        free_fibres[free_count] = &fibre;
    }
    long long blocks = (long long)grid[0] * grid[1] * grid[2];
    for (long long i = 0; i < blocks; i++) {
        long long b = down ? blocks - 1 - i : i;
        blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / ((long long)grid[0] * grid[1]))};
        if (run_block()) continue;
        char text[1600];
        snprintf(message, sizeof message, "%s, block (%u, %u, %u): not all threads meet at a barrier%s", kernel, blockIdx.x,
                 blockIdx.y, blockIdx.z, where_they_are(text, sizeof text));
        for (Fibre& fibre : fibres) fibre.begun = false;  // what they did is forgotten
        return message;
    }
    return nullptr;
}

// ------------------------------------------------------------------------------------------- arguments of any kernel

inline bool same_number(char category, size_t size, const char* given) {  // "f4", "i8", "u1", "b1", "V2"
    bool integers = strchr("iub", category) && strchr("iub", given[0]);
    return (integers || category == given[0]) && size == size_t(atoi(given + 1));
}

template <class P> inline bool matches(const char* given) {
    if constexpr (std::is_pointer_v<P>) {
        using E = std::remove_cv_t<std::remove_pointer_t<P>>;
        if (given[0] != 'P') return false;
        ++given;  // what the array holds; "0" for a null pointer
        if (given[0] == '0' || std::is_void_v<E>) return true;
        if constexpr (std::is_same_v<E, __half>) return same_number('f', 2, given);
        else if constexpr (std::is_same_v<E, __nv_bfloat16>) return given[0] != 'f' && atoi(given + 1) == 2;
        else if constexpr (std::is_floating_point_v<E>) return same_number('f', sizeof(E), given);
        else if constexpr (std::is_integral_v<E>) return same_number('i', sizeof(E), given);
        else return true;  // float4 and the like
    } else if constexpr (std::is_class_v<P>) {
        return same_number('V', sizeof(P), given);  // a struct by value
    } else if constexpr (std::is_class_v<P>) {
        return same_number('V', sizeof(P), given);  // a struct, from a NumPy structured scalar
    } else {
        return same_number(std::is_floating_point_v<P> ? 'f' : 'i', sizeof(P), given);
    }
}

template <class... P, size_t... I>
const char* call(const char* name, void (*kernel)(P...), std::index_sequence<I...>, int count, void* const* values,
                 const char* const* kinds, const int* grid, const int* block, bool down) {
    if (count != int(sizeof...(P))) {
        snprintf(message, sizeof message, "%s takes %d arguments, got %d", name, int(sizeof...(P)), count);
        return message;
    }
    bool right[] = {matches<P>(kinds[I])..., true};
    for (int i = 0; i < count; i++)
        if (!right[i]) {
            snprintf(message, sizeof message, "%s: argument %d (counted from 0) does not fit: got %s (P: a pointer to); %s",
                     name, i, kinds[i], strstr(__PRETTY_FUNCTION__, "[with"));
            return message;
        }
    auto all = std::make_tuple(kernel, *(P*)values[I]...);
    run_argument = &all;
    run_thread = [](void* p) {
        std::apply([](auto f, auto... arguments) { f(arguments...); }, *static_cast<decltype(all)*>(p));
    };
    return run_grid(name, grid, block, down);
}

template <class... P>
const char* launch(const char* name, void (*kernel)(P...), int count, void* const* values, const char* const* kinds,
                   const int* grid, const int* block, int down) {
    return call(name, kernel, std::index_sequence_for<P...>(), count, values, kinds, grid, block, down);
}
}  // namespace shim

// ---------------------------------------------------------------------------------------------- barriers and shuffles

#define SHIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SHIM_MEET(name, value) shim::warp_barrier(name, file, line, mask, &value, sizeof value)

inline void __syncthreads(SHIM_HERE) { shim::block_barrier("__syncthreads", file, line); }
inline void __syncwarp(unsigned mask = ~0u, SHIM_HERE) { shim::warp_barrier("__syncwarp", file, line, mask, nullptr, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline unsigned __activemask() { return ~0u; }

template <class V> inline V __shfl_sync(unsigned mask, V value, int lane, int width = 32, SHIM_HERE) {
    int own = shim::current % 32, buffer = SHIM_MEET("__shfl_sync", value);
    return shim::from_lane(buffer, own / width * width + (lane & (width - 1)), value);
}
template <class V> inline V __shfl_xor_sync(unsigned mask, V value, int bits, int width = 32, SHIM_HERE) {
    int own = shim::current % 32, buffer = SHIM_MEET("__shfl_xor_sync", value), other = own ^ bits;
    return other < (own / width + 1) * width ? shim::from_lane(buffer, other, value) : value;
}
template <class V> inline V __shfl_down_sync(unsigned mask, V value, unsigned distance, int width = 32, SHIM_HERE) {
    int own = shim::current % 32, buffer = SHIM_MEET("__shfl_down_sync", value), other = own + int(distance);
    return other < (own / width + 1) * width ? shim::from_lane(buffer, other, value) : value;
}
template <class V> inline V __shfl_up_sync(unsigned mask, V value, unsigned distance, int width = 32, SHIM_HERE) {
    int own = shim::current % 32, buffer = SHIM_MEET("__shfl_up_sync", value), other = own - int(distance);
    return other >= own / width * width ? shim::from_lane(buffer, other, value) : value;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SHIM_HERE) {
    int vote = predicate != 0, buffer = SHIM_MEET("__ballot_sync", vote);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) votes |= unsigned(shim::from_lane(buffer, lane, 0) != 0) << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int predicate, SHIM_HERE) { return __ballot_sync(mask, predicate, file, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, SHIM_HERE) { return __ballot_sync(mask, !predicate, file, line) == 0; }
#undef SHIM_MEET
#undef SHIM_HERE
