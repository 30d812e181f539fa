// The layout of a packed weight tile: 32 outputs of every input.
//
// float32:  [num_inputs][32 outputs]
// bfloat16: [num_inputs / 32][2 halves][16 pairs of inputs][16 outputs][2]
//
// In bfloat16 two inputs of an output fill 32 bits. Such pairs are what AMX, vdpbf16ps and bfdot multiply, and a
// shift and a mask make two registers of float32s of them where the processor has none of these.
#pragma once
#include <cstddef>

#include "vectors.h"

namespace tokenpost {

constexpr int TILE_OUTPUTS = 2 * VEC_LEN;
constexpr int PAIRED_INPUTS = 32;  // inputs whose pairs of one half lie together
constexpr int HALF_WEIGHTS = PAIRED_INPUTS * VEC_LEN;

constexpr int padded(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// The offset of the weight of an input and an output.
template <class Weight>
constexpr size_t tile_offset(int input, int output) {
    if constexpr (sizeof(Weight) == sizeof(float)) return size_t(input) * TILE_OUTPUTS + output;
    const size_t half = size_t(input / PAIRED_INPUTS) * 2 + output / VEC_LEN;
    return half * HALF_WEIGHTS + size_t(input % PAIRED_INPUTS / 2) * TILE_OUTPUTS + (output % VEC_LEN) * 2 + input % 2;
}

// Rows of X, `stride` numbers apart.
template <class Number>
struct Rows {
    Number* first;
    size_t stride;
    int num;
};

// Tiles one after another along the inputs, each of num_inputs inputs, and for each what to prefetch.
template <class Weight>
struct TileStack {
    const Weight* const *tiles, *const *prefetch;
    int num_tiles, num_inputs;
};

}  // namespace tokenpost
