// CUDA's types and its functions of one thread: vectors, 16-bit numbers, arithmetic, loads, atomics. Included by cuda_shim.h.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

// ---------------------------------------------------------------------------------------------------------------- types

#define SHIM_VECTOR(type, name, align2, align4)                                                                      \
    struct alignas(align2) name##2 { type x, y; };                                                                   \
    struct name##3 { type x, y, z; };                                                                                \
    struct alignas(align4) name##4 { type x, y, z, w; };                                                             \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                 \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                      \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SHIM_VECTOR(signed char, char, 2, 4)
SHIM_VECTOR(unsigned char, uchar, 2, 4)
SHIM_VECTOR(short, short, 4, 8)
SHIM_VECTOR(unsigned short, ushort, 4, 8)
SHIM_VECTOR(int, int, 8, 16)
SHIM_VECTOR(unsigned int, uint, 8, 16)
SHIM_VECTOR(long long, longlong, 16, 16)
SHIM_VECTOR(unsigned long long, ulonglong, 16, 16)
SHIM_VECTOR(float, float, 8, 16)
SHIM_VECTOR(double, double, 16, 16)
#undef SHIM_VECTOR

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline float __int_as_float(int i) { float f; memcpy(&f, &i, 4); return f; }
inline int __float_as_int(float f) { int i; memcpy(&i, &f, 4); return i; }
inline float __uint_as_float(unsigned i) { float f; memcpy(&f, &i, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned i; memcpy(&i, &f, 4); return i; }
inline double __longlong_as_double(long long i) { double d; memcpy(&d, &i, 8); return d; }
inline long long __double_as_longlong(double d) { long long i; memcpy(&i, &d, 8); return i; }

namespace shim {
inline uint16_t half_bits(float value) {  // round to nearest, ties to even, as the hardware does
    uint32_t f = __float_as_uint(value), sign = (f >> 16) & 0x8000, rest = f & 0x7fffffff;
    if (rest > 0x7f800000) return sign | 0x7e00;   // NaN
    if (rest >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
    if (rest < 0x38800000) {                       // a multiple of 2^-24; adding 1/2 makes the FPU round to that
        float shifted = __uint_as_float(rest) + 0.5f;
        return sign | (__float_as_uint(shifted) - 0x3f000000);
    }
    return sign | ((rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13);
}
inline float half_value(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * float(mantissa) * (1.0f / 16777216.0f);
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | (mantissa << 13));
    return __uint_as_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}
inline uint16_t bfloat16_bits(float value) {
    uint32_t f = __float_as_uint(value);
    if ((f & 0x7fffffff) > 0x7f800000) return 0x7fff;  // NaN
    return (f + 0x7fff + ((f >> 16) & 1)) >> 16;
}
}  // namespace shim

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float value) : bits(shim::half_bits(value)) {}
    operator float() const { return shim::half_value(bits); }
};
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) : bits(shim::bfloat16_bits(value)) {}
    operator float() const { return __uint_as_float(uint32_t(bits) << 16); }
};
using half = __half;
using nv_bfloat16 = __nv_bfloat16;
using bfloat16 = __nv_bfloat16;  // minires.cuh has the two by these names
inline float __half2float(__half h) { return h; }
inline __half __float2half(float f) { return f; }
inline __half __float2half_rn(float f) { return f; }
inline float __bfloat162float(__nv_bfloat16 b) { return b; }
inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return f; }

// ----------------------------------------------------------------------------------------------------------- arithmetic

#define SHIM_MIN_MAX(type)                                         \
    inline type min(type a, type b) { return b < a ? b : a; }      \
    inline type max(type a, type b) { return a < b ? b : a; }
SHIM_MIN_MAX(int)
SHIM_MIN_MAX(unsigned)
SHIM_MIN_MAX(long)
SHIM_MIN_MAX(long long)
SHIM_MIN_MAX(unsigned long)
SHIM_MIN_MAX(unsigned long long)
#undef SHIM_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }  // as in CUDA: the number wins against NaN
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __frsqrt_rn(float x) { return 1 / sqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline void sincospif(float x, float* s, float* c) { *s = sinf(float(M_PI) * x), *c = cosf(float(M_PI) * x); }
inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class V> inline V __ldg(const V* p) { return *p; }
template <class V> inline V __ldcs(const V* p) { return *p; }
template <class V> inline V __ldcg(const V* p) { return *p; }
template <class V> inline V __ldca(const V* p) { return *p; }
template <class V> inline void __stcs(V* p, V value) { *p = value; }
template <class V> inline void __stcg(V* p, V value) { *p = value; }

// Only integers: sums of floats by atomics come out differently from run to run.
#define SHIM_ATOMIC(name, change)                                                                       \
    template <class V> inline V name(V* p, std::common_type_t<V> v) {                                   \
        static_assert(std::is_integral_v<V>, #name " of floats is not deterministic: sum in a fixed order"); \
        V old = *p;                                                                                     \
        *p = change;                                                                                    \
        return old;                                                                                     \
    }
SHIM_ATOMIC(atomicAdd, old + v)
SHIM_ATOMIC(atomicSub, old - v)
SHIM_ATOMIC(atomicExch, v)
SHIM_ATOMIC(atomicMax, (old < v ? v : old))
SHIM_ATOMIC(atomicMin, (v < old ? v : old))
SHIM_ATOMIC(atomicOr, (old | v))
SHIM_ATOMIC(atomicAnd, (old & v))
SHIM_ATOMIC(atomicXor, (old ^ v))
SHIM_ATOMIC(atomicInc, (old >= v ? 0 : old + 1))
#undef SHIM_ATOMIC
template <class V> inline V atomicCAS(V* p, std::common_type_t<V> expected, std::common_type_t<V> v) {
    V old = *p;
    if (old == expected) *p = v;
    return old;
}
