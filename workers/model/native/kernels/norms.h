// Root mean square norms.
// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
#pragma once
#include <cmath>

#include "vectors.h"

namespace tokenpost {

// 1 / root mean square; rows are padded with zeros.
inline float inverse_size(const float* x, int count, float epsilon) {
    Vec sum = {};
    for (int d = 0; d < count; d += VEC_LEN) sum += load(x + d) * load(x + d);
    return 1.0f / std::sqrt(sum_of(sum) / count + epsilon);
}

// norm null: copies only.
template <class Activation>
void normalize(const float* x, const float* norm, int count, float epsilon, Activation* to) {
    const float scale = norm == nullptr ? 1.0f : inverse_size(x, count, epsilon);
    for (int d = 0; d < count; d += VEC_LEN)
        store(to + d, norm == nullptr ? load(x + d) : load(x + d) * splat(scale) * load(norm + d));
}

// The norm of one query or key head, in place; the neighbouring heads are neither read nor written.
inline void normalize_head(float* x, const float* norm, int size, float epsilon) {
    float total = 0;
    if (size % VEC_LEN == 0) {
        Vec sum = {};
        for (int d = 0; d < size; d += VEC_LEN) sum += load(x + d) * load(x + d);
        total = sum_of(sum);
    } else {
        for (int d = 0; d < size; ++d) total += x[d] * x[d];
    }
    const float scale = 1.0f / std::sqrt(total / size + epsilon);
    for (int d = 0; d < size; ++d) x[d] = x[d] * scale * norm[d];
}

}  // namespace tokenpost
