// What the processor has: how wide its registers are, how many, and the instructions that have no operator. The
// compiler's flags name the processor (workers/model/native/instruction_sets.py), and its macros say what may be used.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace tokenpost {

#if defined(__AVX512F__)
#define TOKENPOST_REGISTER_BYTES 64
#elif defined(__AVX2__)
#define TOKENPOST_REGISTER_BYTES 32
#else
#define TOKENPOST_REGISTER_BYTES 16
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int NUM_REGISTERS = 32;
#else
constexpr int NUM_REGISTERS = 16;
#endif
constexpr int REGISTER_LEN = TOKENPOST_REGISTER_BYTES / 4;  // float32s in a register

// Products of two pairs of bfloat16s that are added to a float32, in one instruction.
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define TOKENPOST_BF16_DOT 1
#endif
// clang below 16 uses the second name.
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__AVX512BF16__) && defined(__linux__)
#define TOKENPOST_AMX 1
#endif

// The instruction set, AMX aside.
#if defined(__AVX512BF16__)
constexpr const char* REGISTER_SET = "avx512-bf16";
#elif defined(__AVX512F__)
constexpr const char* REGISTER_SET = "avx512";
#elif defined(__AVX2__)
constexpr const char* REGISTER_SET = "avx2";
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr const char* REGISTER_SET = "neon-bf16";
#elif defined(__aarch64__)
constexpr const char* REGISTER_SET = "neon";
#else
constexpr const char* REGISTER_SET = "plain";
#endif

// Registers in GCC's vector extension, and the same at any address.
typedef float FloatRegister __attribute__((vector_size(4 * REGISTER_LEN)));
typedef int32_t IntRegister __attribute__((vector_size(4 * REGISTER_LEN)));
typedef uint32_t WordRegister __attribute__((vector_size(4 * REGISTER_LEN)));
typedef uint16_t HalfRegister __attribute__((vector_size(2 * REGISTER_LEN)));
typedef float LooseFloatRegister __attribute__((vector_size(4 * REGISTER_LEN), aligned(4), may_alias));
typedef uint32_t LooseWordRegister __attribute__((vector_size(4 * REGISTER_LEN), aligned(2), may_alias));
typedef uint16_t LooseHalfRegister __attribute__((vector_size(2 * REGISTER_LEN), aligned(2), may_alias));

// The upper half of a float32.
struct bf16 {
    uint16_t bits;
};

inline FloatRegister broadcast(float x) { return x - FloatRegister{}; }

// One float32, or two bfloat16s that lie side by side, in every element.
inline FloatRegister broadcast(const float* p) { return broadcast(*p); }

inline WordRegister broadcast(const bf16* p) {
    uint32_t word;
    std::memcpy(&word, p, sizeof word);
    return word - WordRegister{};
}

// a * b + sum, rounded once where the processor can.
inline FloatRegister multiply_add(FloatRegister a, FloatRegister b, FloatRegister sum) {
#if defined(__AVX512F__)
    return reinterpret_cast<FloatRegister>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b),
                                                           reinterpret_cast<__m512>(sum)));
#elif defined(__AVX2__) && defined(__FMA__)
    return reinterpret_cast<FloatRegister>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b),
                                                           reinterpret_cast<__m256>(sum)));
#elif defined(__aarch64__)
    return reinterpret_cast<FloatRegister>(vfmaq_f32(reinterpret_cast<float32x4_t>(sum),
                                                     reinterpret_cast<float32x4_t>(a),
                                                     reinterpret_cast<float32x4_t>(b)));
#else
    return a * b + sum;
#endif
}

#ifdef TOKENPOST_BF16_DOT
// a[0] * b[0] + a[1] * b[1] + sum in each element, of pairs of bfloat16s. Numbers below 1e-38 count as 0. In which order
// the three are added and when they are rounded is the processor's own, but always the same.
inline FloatRegister dot_pairs(WordRegister a, WordRegister b, FloatRegister sum) {
#if defined(__AVX512BF16__)
    return reinterpret_cast<FloatRegister>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
#else
    return reinterpret_cast<FloatRegister>(vbfdotq_f32(reinterpret_cast<float32x4_t>(sum),
                                                       reinterpret_cast<bfloat16x8_t>(a),
                                                       reinterpret_cast<bfloat16x8_t>(b)));
#endif
}
#endif

// float32s to bfloat16, to the nearest, ties to even; a NaN stays one.
inline HalfRegister rounded_to_bf16(FloatRegister x) {
#if defined(__AVX512BF16__)
    // One instruction, which also takes numbers below 1e-38 for 0, as its products do.
    return reinterpret_cast<HalfRegister>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x)));
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return reinterpret_cast<HalfRegister>(vcvt_bf16_f32(reinterpret_cast<float32x4_t>(x)));
#else
    const WordRegister words = reinterpret_cast<WordRegister>(x);
    const WordRegister rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16;
    const WordRegister is_nan = reinterpret_cast<WordRegister>(x != x);
    return __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7FC0), HalfRegister);
#endif
}

// The neighbour of each element at a distance of D, a power of two.
template <int D>
inline FloatRegister fold(FloatRegister x) {
#if TOKENPOST_REGISTER_BYTES == 64
    return __builtin_shufflevector(x, x, 0 ^ D, 1 ^ D, 2 ^ D, 3 ^ D, 4 ^ D, 5 ^ D, 6 ^ D, 7 ^ D, 8 ^ D, 9 ^ D, 10 ^ D,
                                   11 ^ D, 12 ^ D, 13 ^ D, 14 ^ D, 15 ^ D);
#elif TOKENPOST_REGISTER_BYTES == 32
    return __builtin_shufflevector(x, x, 0 ^ D, 1 ^ D, 2 ^ D, 3 ^ D, 4 ^ D, 5 ^ D, 6 ^ D, 7 ^ D);
#else
    return __builtin_shufflevector(x, x, 0 ^ D, 1 ^ D, 2 ^ D, 3 ^ D);
#endif
}

// join(element, element), from far neighbours to near ones, until one number is left.
template <class Join>
inline float reduce(FloatRegister x, const Join& join) {
#if TOKENPOST_REGISTER_BYTES >= 64
    x = join(x, fold<8>(x));
#endif
#if TOKENPOST_REGISTER_BYTES >= 32
    x = join(x, fold<4>(x));
#endif
    x = join(x, fold<2>(x));
    return join(x, fold<1>(x))[0];
}

}  // namespace tokenpost
