// The argmax of a row of logits.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "masked_logits.h"

namespace tokenpost {

// The first of the highest logits; whether it is finite and none is NaN.
template <class Row>
bool argmax_of(const Row& row, int num, int32_t& best) {
    const int num_whole = num / VEC_LEN * VEC_LEN;
    Vec highest = splat(-__builtin_inff());
    IntVec is_bad = {};
    for (int i = 0; i < num_whole; i += VEC_LEN) {
        if (i % LOGIT_BLOCK == 0 && i + LOGIT_BLOCK <= num && !row.allows_any(i)) {
            i += LOGIT_BLOCK - VEC_LEN;
            continue;
        }
        const Vec x = row.from(i);
        is_bad |= x != x;
        highest = larger(x, highest);
    }
    float top = max_of(highest);
    for (int i = num_whole; i < num; ++i) top = row.at(i) > top ? row.at(i) : top;
    bool is_finite = std::isfinite(top) && !has_any(is_bad);
    for (int i = num_whole; i < num; ++i) is_finite &= row.at(i) == row.at(i);
    best = 0;
    if (!is_finite) return false;
    for (int begin = 0; begin < num; begin += LOGIT_BLOCK) {
        const int end = std::min(begin + LOGIT_BLOCK, num);
        int has_it = 0;
        for (int i = begin; i < end; ++i) has_it |= row.logits[i] == top;
        for (int i = begin; has_it && i < end; ++i)
            if (row.at(i) == top) {
                best = i;
                return true;
            }
    }
    return true;
}

inline bool argmax(const float* logits, int num, int32_t& best) { return argmax_of(AllLogits{logits}, num, best); }

}  // namespace tokenpost
