// The argmax of a row of logits.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace tokenpost {

// The first of the highest logits; whether it is finite and none is NaN.
inline bool argmax(const float* logits, int num, int32_t& best) {
    constexpr int BLOCK = 4 * VEC_LEN;
    const int num_whole = num / VEC_LEN * VEC_LEN;
    Vec highest = splat(-__builtin_inff());
    IntVec is_bad = {};
    for (int i = 0; i < num_whole; i += VEC_LEN) {
        const Vec x = load(logits + i);
        is_bad |= x != x;
        highest = larger(x, highest);
    }
    float top = max_of(highest);
    for (int i = num_whole; i < num; ++i) top = logits[i] > top ? logits[i] : top;
    bool is_finite = std::isfinite(top) && !has_any(is_bad);
    for (int i = num_whole; i < num; ++i) is_finite &= logits[i] == logits[i];
    best = 0;
    if (!is_finite) return false;
    for (int begin = 0; begin < num; begin += BLOCK) {
        const int end = std::min(begin + BLOCK, num);
        int has_it = 0;
        for (int i = begin; i < end; ++i) has_it |= logits[i] == top;
        if (!has_it) continue;
        best = begin;
        while (logits[best] != top) ++best;
        break;
    }
    return true;
}

}  // namespace tokenpost
