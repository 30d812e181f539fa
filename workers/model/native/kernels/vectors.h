// Sixteen numbers at a time, in as many registers as they need: one of AVX-512, two of AVX2, four of NEON. What is
// computed does not depend on the registers.
#pragma once
#include <type_traits>

#include "registers.h"

namespace tokenpost {

constexpr int VEC_LEN = 16;

// Twice as many numbers as a T holds.
template <class T>
struct Pair {
    T low, high;
};
template <class T>
Pair(T, T) -> Pair<T>;

template <class Register, int NUM>
struct Registers {
    using type = Pair<typename Registers<Register, NUM / 2>::type>;
};
template <class Register>
struct Registers<Register, 1> {
    using type = Register;
};
template <class Register>
using Sixteen = typename Registers<Register, VEC_LEN / REGISTER_LEN>::type;

using Vec = Sixteen<FloatRegister>;
using IntVec = Sixteen<IntRegister>;
using Words = Sixteen<WordRegister>;

#define TOKENPOST_OPERATOR(OP)                                                          \
    template <class T>                                                                  \
    inline auto operator OP(const Pair<T>& a, const Pair<T>& b) {                       \
        return Pair{a.low OP b.low, a.high OP b.high};                                  \
    }                                                                                   \
    template <class T, class Number>                                                    \
        requires std::is_arithmetic_v<Number>                                           \
    inline auto operator OP(const Pair<T>& a, Number b) {                               \
        return Pair{a.low OP b, a.high OP b};                                           \
    }                                                                                   \
    template <class T, class Number>                                                    \
        requires std::is_arithmetic_v<Number>                                           \
    inline auto operator OP(Number a, const Pair<T>& b) {                               \
        return Pair{a OP b.low, a OP b.high};                                           \
    }
#define TOKENPOST_ASSIGNMENT(OP)                                                        \
    template <class T, class Other>                                                     \
    inline Pair<T>& operator OP##=(Pair<T>& a, const Other& b) {                        \
        return a = a OP b;                                                              \
    }
TOKENPOST_OPERATOR(+)
TOKENPOST_OPERATOR(-)
TOKENPOST_OPERATOR(*)
TOKENPOST_OPERATOR(/)
TOKENPOST_OPERATOR(&)
TOKENPOST_OPERATOR(|)
TOKENPOST_OPERATOR(^)
TOKENPOST_OPERATOR(<<)
TOKENPOST_OPERATOR(>>)
TOKENPOST_OPERATOR(<)
TOKENPOST_OPERATOR(>)
TOKENPOST_OPERATOR(>=)
TOKENPOST_OPERATOR(!=)
TOKENPOST_ASSIGNMENT(+)
TOKENPOST_ASSIGNMENT(*)
TOKENPOST_ASSIGNMENT(|)
TOKENPOST_ASSIGNMENT(^)
#undef TOKENPOST_OPERATOR
#undef TOKENPOST_ASSIGNMENT

template <class T>
inline Pair<T> operator-(const Pair<T>& x) {
    return {-x.low, -x.high};
}

template <class T>
inline Pair<T> operator~(const Pair<T>& x) {
    return {~x.low, ~x.high};
}

// The same bits in registers of another type.
template <class To, class From>
inline To bits_as(From x) {
    return reinterpret_cast<To>(x);
}
template <class To, class T>
inline auto bits_as(const Pair<T>& x) {
    return Pair{bits_as<To>(x.low), bits_as<To>(x.high)};
}

// The same numbers in registers of another type.
template <class To, class From>
inline To converted(From x) {
    return __builtin_convertvector(x, To);
}
template <class To, class T>
inline auto converted(const Pair<T>& x) {
    return Pair{converted<To>(x.low), converted<To>(x.high)};
}

inline FloatRegister pick(IntRegister mask, FloatRegister yes, FloatRegister no) { return mask ? yes : no; }
template <class T, class Mask>
inline Pair<T> pick(const Pair<Mask>& mask, const Pair<T>& yes, const Pair<T>& no) {
    return {pick(mask.low, yes.low, no.low), pick(mask.high, yes.high, no.high)};
}

inline Vec larger(Vec a, Vec b) { return pick(a > b, a, b); }

// How many numbers lie side by side in it.
template <class T>
constexpr int LENGTH = REGISTER_LEN;
template <class T>
constexpr int LENGTH<Pair<T>> = 2 * LENGTH<T>;

inline void read(const float* p, FloatRegister& x) { x = *reinterpret_cast<const LooseFloatRegister*>(p); }
inline void read(const uint32_t* p, WordRegister& x) { x = *reinterpret_cast<const LooseWordRegister*>(p); }
inline void read(const bf16* p, FloatRegister& x) {
    const HalfRegister halves = *reinterpret_cast<const LooseHalfRegister*>(p);
    x = reinterpret_cast<FloatRegister>(__builtin_convertvector(halves, WordRegister) << 16);
}
template <class Number, class T>
inline void read(const Number* p, Pair<T>& x) {
    read(p, x.low);
    read(p + LENGTH<T>, x.high);
}

inline void write(float* p, FloatRegister x) { *reinterpret_cast<LooseFloatRegister*>(p) = x; }
inline void write(bf16* p, FloatRegister x) { *reinterpret_cast<LooseHalfRegister*>(p) = rounded_to_bf16(x); }
template <class Number, class T>
inline void write(Number* p, const Pair<T>& x) {
    write(p, x.low);
    write(p + LENGTH<T>, x.high);
}

template <class T, class Number>
inline T loaded(const Number* p) {
    T x;
    read(p, x);
    return x;
}

inline Vec load(const float* p) { return loaded<Vec>(p); }
inline Vec load(const bf16* p) { return loaded<Vec>(p); }
inline Words load(const uint32_t* p) { return loaded<Words>(p); }

inline void store(float* p, Vec x) { write(p, x); }

// To the nearest, ties to even; a NaN stays one.
inline void store(bf16* p, Vec x) { write(p, x); }

inline void set_all(FloatRegister& x, float number) { x = broadcast(number); }
template <class T>
inline void set_all(Pair<T>& x, float number) {
    set_all(x.low, number);
    x.high = x.low;
}

inline Vec splat(float number) {
    Vec x;
    set_all(x, number);
    return x;
}

// 0, 1, 2 and so on.
alignas(64) constexpr uint32_t COUNT[VEC_LEN] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline float first_of(FloatRegister x) { return x[0]; }
template <class T>
inline float first_of(const Pair<T>& x) {
    return first_of(x.low);
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

// Always in the same order, so that a row's sum does not depend on what else is computed.
inline float sum_of(FloatRegister x) {
    return reduce(x, [](FloatRegister a, FloatRegister b) { return a + b; });
}
template <class T>
inline float sum_of(const Pair<T>& x) {
    return sum_of(x.low + x.high);
}

inline float max_of(FloatRegister x) {
    return reduce(x, [](FloatRegister a, FloatRegister b) { return pick(a > b, a, b); });
}
template <class T>
inline float max_of(const Pair<T>& x) {
    return max_of(pick(x.low > x.high, x.low, x.high));
}

// Whether an element of the mask is set.
inline bool has_any(IntRegister mask) {
    typedef int64_t LongRegister __attribute__((vector_size(4 * REGISTER_LEN)));
    const LongRegister words = reinterpret_cast<LongRegister>(mask);
    int64_t any = 0;
    for (int i = 0; i < REGISTER_LEN / 2; ++i) any |= words[i];
    return any != 0;
}
template <class T>
inline bool has_any(const Pair<T>& mask) {
    return has_any(mask.low | mask.high);
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
    const IntVec exponent = (converted<IntRegister>(n) + 127) << 23;
    const Vec value = y * bits_as<FloatRegister>(exponent);
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
    const Words value = bits_as<WordRegister>(y) + (bits_as<WordRegister>(shifted) << 23);
    return pick(x < splat(-126.0f), Vec{}, bits_as<FloatRegister>(value));
}

constexpr float LOG2E = 1.44269504088896341f;

// Below -87 it is about -1e-36, not less.
inline Vec silu(Vec x) {
    const Vec most = splat(126.0f), exponent = x * splat(-LOG2E);
    return x / (splat(1.0f) + exp2_of(pick(exponent > most, most, exponent)));
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
