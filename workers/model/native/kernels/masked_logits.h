// The logits of a row as sampling sees them: all of them, or those that a grammar's mask allows.
#pragma once
#include <cstdint>

#include "vectors.h"

namespace tokenpost {

// How many tokens are looked at together, where most of them do not matter.
constexpr int LOGIT_BLOCK = 4 * VEC_LEN;

alignas(64) constexpr uint32_t BIT[VEC_LEN] = {1,      1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
                                               1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};

struct AllLogits {
    const float* logits;

    bool allows(int) const { return true; }
    // Whether one of the LOGIT_BLOCK tokens from a multiple of LOGIT_BLOCK on is allowed.
    bool allows_any(int) const { return true; }
    float at(int id) const { return logits[id]; }
    // Of VEC_LEN tokens.
    Vec from(int id) const { return load(logits + id); }
};

// Logits of the tokens that a packed mask allows, and minus infinity in place of the others'.
struct AllowedLogits {
    const float* logits;
    const uint32_t* mask;  // bit i of word w is token 32 * w + i, 1 where it is allowed

    bool allows(int id) const { return mask[id >> 5] >> (id & 31) & 1; }
    bool allows_any(int id) const {
        static_assert(LOGIT_BLOCK == 64);
        return (mask[id >> 5] | mask[(id >> 5) + 1]) != 0;
    }
    float at(int id) const { return allows(id) ? logits[id] : -__builtin_inff(); }
    Vec from(int id) const {
        const int word = id >> 5, shift = id & 31;
        uint32_t bits = mask[word] >> shift;
        if (shift > 32 - VEC_LEN) bits |= mask[word + 1] << (32 - shift);
        return pick(((Words{} + bits) & load(BIT)) != 0u, load(logits + id), splat(-__builtin_inff()));
    }
};

}  // namespace tokenpost
