// The matrix product in registers: some rows of X times some columns of packed weight tiles. Every element is summed
// over its inputs in order, one multiply-add (or one dot product of a pair) after the other, however many rows and
// columns are computed together.
// Source: Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication".
#pragma once
#include <algorithm>

#include "weight_tile.h"

namespace tokenpost {

// Registers for sums; what is left holds weights and a number of X.
constexpr int MAX_SUMS = NUM_REGISTERS == 32 ? 24 : 12;
constexpr int TILE_REGISTERS = TILE_OUTPUTS / REGISTER_LEN;
constexpr int MAX_ROWS = REGISTER_LEN == 16 ? 12 : 6;  // of X at once

// How many registers side by side are summed for so many rows: as many of the tile as there are registers for.
constexpr int columns_for(int num_rows) {
    int num = TILE_REGISTERS;
    while (num > 1 && num * num_rows > MAX_SUMS) num /= 2;
    return num;
}

// Takes as many rows at once as registers hold: work.operator()<ROWS>(first row).
template <class Work>
inline void by_rows(int num_rows, const Work& work) {
    for (int row = 0; row < num_rows;) {
        const int left_over = num_rows - row;
        // 13 rows are taken as 7 and 6, not as 12 and 1: small groups leave arithmetic units idle.
        const int take = left_over <= MAX_ROWS ? left_over : left_over < 2 * MAX_ROWS ? (left_over + 1) / 2 : MAX_ROWS;
        switch (take) {
#define TOKENPOST_ROWS(N)                                                      \
    case N:                                                                    \
        if constexpr (N <= MAX_ROWS) work.template operator()<N>(row);          \
        break;
            TOKENPOST_ROWS(1) TOKENPOST_ROWS(2) TOKENPOST_ROWS(3) TOKENPOST_ROWS(4) TOKENPOST_ROWS(5)
            TOKENPOST_ROWS(6) TOKENPOST_ROWS(7) TOKENPOST_ROWS(8) TOKENPOST_ROWS(9) TOKENPOST_ROWS(10)
            TOKENPOST_ROWS(11)
#undef TOKENPOST_ROWS
            default: work.template operator()<MAX_ROWS>(row);
        }
        row += take;
    }
}

// How often the weights are gone through for so many rows.
constexpr int num_passes(int num_rows) {
    return (num_rows + MAX_ROWS - 1) / MAX_ROWS * (TILE_REGISTERS / columns_for(std::min(num_rows, MAX_ROWS)));
}

// Fetches weights that are multiplied later, a little for every line of weights that is multiplied now: 128 bytes,
// divided by the number of passes.
struct Prefetch {
    const char* next;
    size_t half_step;

    void advance() {
        __builtin_prefetch(next);
        __builtin_prefetch(next + half_step);
        next += 2 * half_step;
    }
};

// sums[r] += x[r, :] . columns, for ROWS rows. tile: the first of the columns
template <int ROWS, int COLUMNS>
inline void add_products(int num_inputs, const float* x, size_t stride, const float* tile, Prefetch prefetch,
                         FloatRegister (&sums)[ROWS][COLUMNS]) {
    for (int k = 0; k < num_inputs; ++k, tile += TILE_OUTPUTS) {
        FloatRegister weights[COLUMNS];
        for (int c = 0; c < COLUMNS; ++c) read(tile + c * REGISTER_LEN, weights[c]);
        prefetch.advance();
        for (int r = 0; r < ROWS; ++r) {
            const FloatRegister one = broadcast(x + r * stride + k);
            for (int c = 0; c < COLUMNS; ++c) sums[r][c] = multiply_add(one, weights[c], sums[r][c]);
        }
    }
}

inline WordRegister pairs_at(const bf16* p) { return *reinterpret_cast<const LooseWordRegister*>(p); }

// work(words, k) for every pair of inputs k, k + 1; words: of the first of the columns
template <class Work>
inline void for_each_pair(int num_inputs, const bf16* tile, const Work& work) {
    for (int group = 0; group < num_inputs; group += PAIRED_INPUTS, tile += 2 * HALF_WEIGHTS)
        for (int k = 0; k < PAIRED_INPUTS; k += 2) work(tile + k * VEC_LEN, group + k);
}

// bfloat16 weights, widened: exact.
template <int ROWS, int COLUMNS>
inline void add_products(int num_inputs, const float* x, size_t stride, const bf16* tile, Prefetch prefetch,
                         FloatRegister (&sums)[ROWS][COLUMNS]) {
    for_each_pair(num_inputs, tile, [&](const bf16* words, int k) {
        FloatRegister weights[COLUMNS];
        const auto add = [&](int input) {
            for (int r = 0; r < ROWS; ++r) {
                const FloatRegister one = broadcast(x + r * stride + input);
                for (int c = 0; c < COLUMNS; ++c) sums[r][c] = multiply_add(one, weights[c], sums[r][c]);
            }
        };
        const auto pairs = [&](int c) { return pairs_at(words + tile_offset<bf16>(0, c * REGISTER_LEN)); };
        for (int c = 0; c < COLUMNS; ++c) weights[c] = bits_as<FloatRegister>(pairs(c) << 16);
        prefetch.advance();
        add(k);
        for (int c = 0; c < COLUMNS; ++c) weights[c] = bits_as<FloatRegister>(pairs(c) & 0xFFFF0000u);
        add(k + 1);
    });
}

#ifdef TOKENPOST_BF16_DOT
template <int ROWS, int COLUMNS>
inline void add_products(int num_inputs, const bf16* x, size_t stride, const bf16* tile, Prefetch prefetch,
                         FloatRegister (&sums)[ROWS][COLUMNS]) {
    for_each_pair(num_inputs, tile, [&](const bf16* words, int k) {
        WordRegister weights[COLUMNS];
        for (int c = 0; c < COLUMNS; ++c) weights[c] = pairs_at(words + tile_offset<bf16>(0, c * REGISTER_LEN));
        prefetch.advance();
        for (int r = 0; r < ROWS; ++r) {
            const WordRegister one = broadcast(x + r * stride + k);
            for (int c = 0; c < COLUMNS; ++c) sums[r][c] = dot_pairs(one, weights[c], sums[r][c]);
        }
    });
}
#endif

// sums = x . stack, or sums += x . stack: 32 sums for each row of X.
template <class Weight, class Activation>
void multiply_in_registers(const Rows<const Activation>& x, const TileStack<Weight>& stack, const Rows<float>& sums,
                           bool adds) {
    const size_t passes = num_passes(x.num), piece = size_t(stack.num_inputs) * TILE_OUTPUTS / passes;
    size_t pass = 0;
    by_rows(x.num, [&]<int ROWS>(int row) {
        constexpr int COLUMNS = columns_for(ROWS);
        for (int column = 0; column < TILE_OUTPUTS; column += COLUMNS * REGISTER_LEN, ++pass) {
            float* to = sums.first + row * sums.stride + column;
            FloatRegister own[ROWS][COLUMNS] = {};
            for (int r = 0; adds && r < ROWS; ++r)
                for (int c = 0; c < COLUMNS; ++c) read(to + r * sums.stride + c * REGISTER_LEN, own[r][c]);
            const Activation* from = x.first + row * x.stride;
            for (int i = 0; i < stack.num_tiles; ++i, from += stack.num_inputs) {
                const Prefetch prefetch{reinterpret_cast<const char*>(stack.prefetch[i] + pass * piece), 64 / passes};
                add_products<ROWS, COLUMNS>(stack.num_inputs, from, x.stride,
                                            stack.tiles[i] + tile_offset<Weight>(0, column), prefetch, own);
            }
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < COLUMNS; ++c) write(to + r * sums.stride + c * REGISTER_LEN, own[r][c]);
        }
    });
}

}  // namespace tokenpost
