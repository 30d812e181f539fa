// Sixteen floats at a time, in GCC's vector extension: AVX-512, AVX2 or NEON, whatever the machine has.
#pragma once
#include <cstdint>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace tokenpost {

typedef float Vec __attribute__((vector_size(64)));
typedef int32_t IntVec __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t HalfVec __attribute__((vector_size(32)));
typedef float LooseVec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t LooseHalfVec __attribute__((vector_size(32), aligned(2), may_alias));

constexpr int VEC_LEN = 16;

// The upper half of a float32; arithmetic happens in float32.
struct bf16 {
    uint16_t bits;
};

inline Vec splat(float x) { return x - Vec{}; }

inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }

inline Vec load(const bf16* p) {
    const HalfVec halves = *reinterpret_cast<const LooseHalfVec*>(p);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    return reinterpret_cast<Vec>(words);
}

inline void store(float* p, Vec x) { *reinterpret_cast<LooseVec*>(p) = x; }

// To the nearest, ties to even; a NaN stays one.
inline void store(bf16* p, Vec x) {
#ifdef __AVX512BF16__
    // One instruction, which also takes numbers below 1e-38 for 0, as tiles do.
    const __m256bh halves = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(halves));
#else
    const Words words = reinterpret_cast<Words>(x);
    const Words rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16;
    const Words is_nan = reinterpret_cast<Words>(x != x);
    const Words halves = (rounded & ~is_nan) | (is_nan & 0x7FC0);
    *reinterpret_cast<LooseHalfVec*>(p) = __builtin_convertvector(halves, HalfVec);
#endif
}

inline float to_float(float x) { return x; }

inline float to_float(bf16 x) {
    const uint32_t word = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

// To the nearest, ties to even; a NaN stays one.
inline bf16 to_bf16(float x) {
    uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    if ((word & 0x7FFFFFFF) > 0x7F800000) return {uint16_t((word >> 16) | 0x40)};
    return {uint16_t((word + 0x7FFF + ((word >> 16) & 1)) >> 16)};
}

inline void put(float* p, float x) { *p = x; }
inline void put(bf16* p, float x) { *p = to_bf16(x); }

inline Vec pick(IntVec mask, Vec yes, Vec no) { return mask ? yes : no; }

inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// Each element's neighbour at a distance of 1, 2, 4 or 8: four foldings reach every element.
template <int D>
inline Vec fold(Vec x) {
    return __builtin_shufflevector(x, x, 0 ^ D, 1 ^ D, 2 ^ D, 3 ^ D, 4 ^ D, 5 ^ D, 6 ^ D, 7 ^ D, 8 ^ D, 9 ^ D, 10 ^ D,
                                   11 ^ D, 12 ^ D, 13 ^ D, 14 ^ D, 15 ^ D);
}

// Always in the same order, so that a row's sum does not depend on what else is computed.
inline float sum_of(Vec x) {
    x += fold<8>(x);
    x += fold<4>(x);
    x += fold<2>(x);
    return (x + fold<1>(x))[0];
}

inline float max_of(Vec x) {
    x = larger(x, fold<8>(x));
    x = larger(x, fold<4>(x));
    x = larger(x, fold<2>(x));
    return larger(x, fold<1>(x))[0];
}

// e^x to about 1 ulp for x <= 88; 0 below -87. NaN stays NaN.
// Source: Cephes expf (S. Moshier): x = n ln2 + r, a polynomial in r, and n into the exponent.
__attribute__((always_inline)) inline Vec exp_of(Vec x) {
    const Vec lowest = splat(-87.3f);
    const IntVec is_tiny = x < lowest;
    const IntVec is_huge = x > splat(88.3f);
    const Vec bounded = pick(is_tiny, lowest, pick(is_huge, splat(88.3f), x));
    const Vec shifted = bounded * splat(1.44269504088896341f) + splat(12582912.0f);
    const Vec n = shifted - splat(12582912.0f);
    Vec r = bounded - n * splat(0.693359375f);
    r = r - n * splat(-2.12194440e-4f);
    Vec y = splat(1.9875691500e-4f);
    y = y * r + splat(1.3981999507e-3f);
    y = y * r + splat(8.3334519073e-3f);
    y = y * r + splat(4.1665795894e-2f);
    y = y * r + splat(1.6666665459e-1f);
    y = y * r + splat(5.0000001201e-1f);
    y = y * r * r + r + splat(1.0f);
    const IntVec exponent = (__builtin_convertvector(n, IntVec) + 127) << 23;
    const Vec value = y * reinterpret_cast<Vec>(exponent);
    return pick(is_tiny, Vec{}, pick(is_huge, splat(__builtin_inff()), value));
}

// 2^x to about 2 ulp for x <= 127; 0 below -126. NaN stays NaN.
// x = n + r, a polynomial in r fitted to the least relative error for |r| <= 1/2, and n into the exponent.
__attribute__((always_inline)) inline Vec exp2_of(Vec x) {
    const Vec shifted = x + splat(12582912.0f);
    const Vec r = x - (shifted - splat(12582912.0f));
    Vec y = splat(1.32647260e-3f);
    y = y * r + splat(9.67151272e-3f);
    y = y * r + splat(5.55073375e-2f);
    y = y * r + splat(2.40222421e-1f);
    y = y * r + splat(6.93146978e-1f);
    y = y * r + splat(1.0f);
    const Words value = reinterpret_cast<Words>(y) + (reinterpret_cast<Words>(shifted) << 23);
    return pick(x < splat(-126.0f), Vec{}, reinterpret_cast<Vec>(value));
}

constexpr float LOG2E = 1.44269504088896341f;

// Below -87 it is about -1e-36, not less.
inline Vec silu(Vec x) {
    const Vec most = splat(126.0f), exponent = x * splat(-LOG2E);
    return x / (splat(1.0f) + exp2_of(exponent > most ? most : exponent));
}

// tanh by e^-2|x|; good to float32's last digits away from 0, and close to 0 within 1e-7 absolutely.
inline Vec tanh_of(Vec x) {
    const IntVec is_negative = x < Vec{};
    const Vec size = pick(is_negative, -x, x);
    const Vec e = exp_of(size * splat(-2.0f));
    const Vec value = (splat(1.0f) - e) / (splat(1.0f) + e);
    return pick(is_negative, -value, value);
}

inline Vec gelu_tanh(Vec x) {
    const Vec inner = splat(0.7978845608028654f) * (x + splat(0.044715f) * x * x * x);
    return splat(0.5f) * x * (splat(1.0f) + tanh_of(inner));
}

}  // namespace tokenpost
