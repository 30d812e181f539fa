// Y = X W^T with weights packed into tiles of 32 outputs. Every element is summed over its inputs in order, so the bits
// of a row do not depend on the other rows of the batch.
#pragma once
#include <algorithm>
#include <type_traits>

#include "amx.h"
#include "microkernel.h"

namespace tokenpost {

// Rows of X that are multiplied with some tiles while they lie in the second-level cache.
constexpr int GROUP_ROWS = 96;

// How many weights ahead are prefetched where a tile is gone through once: 4 KiB. With more passes it is the next tile.
template <class Weight>
constexpr int PREFETCH_WEIGHTS = 4096 / sizeof(Weight);

// Whether bfloat16 is multiplied as it is; otherwise it is widened to float32. A processor with AMX does vdpbf16ps at a
// quarter of the rate of multiply-adds (bench/README.md): without its tiles, widening is faster.
inline bool multiplies_bf16() {
#ifdef TOKENPOST_AMX
    return may_use_amx();
#elif defined(TOKENPOST_BF16_DOT)
    return true;
#else
    return false;
#endif
}

// What products are computed with: a name of workers/model/native/instruction_sets.py.
inline const char* instruction_set() {
#ifdef TOKENPOST_AMX
    return may_use_amx() ? "amx" : "avx512";
#else
    return REGISTER_SET;
#endif
}

// Products in AMX registers.
#ifdef TOKENPOST_AMX
template <class Activation>
constexpr bool IS_IN_TILES = std::is_same_v<Activation, bf16>;
#else
template <class Activation>
constexpr bool IS_IN_TILES = false;
#endif

// Rows of X that are multiplied with one tile after another: a group, or in AMX registers all.
template <class Activation>
inline int group_rows(int num_rows) {
    return IS_IN_TILES<Activation> ? std::max(num_rows, 1) : GROUP_ROWS;
}

// sums = x . stack, or sums += x . stack: 32 sums for each row of X. With bf16 X may be read, and sums are written, up
// to the next multiple of 32 rows.
template <bool ADDS, class Weight, class Activation>
inline void multiply_tiles(const Rows<const Activation>& x, const TileStack<Weight>& stack, const Rows<float>& sums) {
    if constexpr (IS_IN_TILES<Activation>)
        multiply_in_tiles<ADDS>(x, stack, sums);
    else
        multiply_in_registers(x, stack, sums, ADDS);
}

// One tile times the rows of a group. Calls finish(row, left, right)
template <class Weight, class Activation, class Finish>
inline void multiply_rows(const Rows<const Activation>& x, int num_inputs, const Weight* tile, const Finish& finish) {
    alignas(64) float sums[GROUP_ROWS][TILE_OUTPUTS];
    const Weight* prefetch =
        tile + (num_passes(x.num) == 1 ? PREFETCH_WEIGHTS<Weight> : size_t(num_inputs) * TILE_OUTPUTS);
    multiply_in_registers(x, TileStack<Weight>{&tile, &prefetch, 1, num_inputs},
                          Rows<float>{sums[0], TILE_OUTPUTS, x.num}, false);
    for (int r = 0; r < x.num; ++r) finish(r, load(sums[r]), load(sums[r] + VEC_LEN));
}

// The same in AMX registers, for any number of rows.
template <class Finish>
inline void multiply_in_tiles(const Rows<const bf16>& x, int num_inputs, const bf16* tile, const Finish& finish) {
    alignas(64) float sums[2 * AMX_ROWS][TILE_OUTPUTS];
    const bf16* prefetch = tile + PREFETCH_WEIGHTS<bf16>;
    for (int row = 0; row < x.num; row += 2 * AMX_ROWS) {
        const int num = std::min(x.num - row, 2 * AMX_ROWS);
        multiply_in_tiles<false>(Rows<const bf16>{x.first + row * x.stride, x.stride, num},
                                 TileStack<bf16>{&tile, &prefetch, 1, num_inputs},
                                 Rows<float>{sums[0], TILE_OUTPUTS, num});
        for (int r = 0; r < num; ++r) finish(row + r, load(sums[r]), load(sums[r] + VEC_LEN));
    }
}

}  // namespace tokenpost
