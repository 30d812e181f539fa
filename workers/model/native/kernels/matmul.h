// Y = X W^T with weights packed into tiles of 32 outputs. Every element is summed over its inputs in order, so the bits
// of a row do not depend on the other rows of the batch.
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "vectors.h"

// clang below 16 uses the second name.
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TOKENPOST_AMX 1
#endif

namespace tokenpost {

constexpr int TILE_OUTPUTS = 2 * VEC_LEN;  // outputs of a packed weight tile
constexpr int MAX_ROWS = 12;      // of X at once: 24 sums and two weights fill the 32 registers of AVX-512
constexpr int AMX_ROWS = 16;          // rows of an AMX register; buffers of bf16 activations are padded to it

// How many inputs ahead weights are prefetched: 4 KiB.
template <class Weight>
constexpr int PREFETCH_INPUTS = 4096 / (TILE_OUTPUTS * sizeof(Weight));

constexpr int padded(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// sums[r] += x[r, :] . tile, for ROWS rows. tile: [num_inputs][32]; prefetch: as many weights that come next
template <int ROWS, class Weight>
inline void dot_rows(int num_inputs, const float* x, size_t stride, const Weight* tile, const Weight* prefetch,
                     Vec (&sums)[ROWS][2]) {
    for (int k = 0; k < num_inputs; ++k) {
        const Vec left = load(tile + size_t(k) * TILE_OUTPUTS);
        const Vec right = load(tile + size_t(k) * TILE_OUTPUTS + VEC_LEN);
        __builtin_prefetch(prefetch + size_t(k) * TILE_OUTPUTS);
        if (sizeof(Weight) == sizeof(float)) __builtin_prefetch(prefetch + size_t(k) * TILE_OUTPUTS + VEC_LEN);
        for (int r = 0; r < ROWS; ++r) {
            const Vec one = splat(x[r * stride + k]);
            sums[r][0] += one * left;
            sums[r][1] += one * right;
        }
    }
}

// Takes as many rows at once as registers hold: work.operator()<ROWS>(first row).
template <class Work>
inline void by_rows(int num_rows, const Work& work) {
    for (int row = 0; row < num_rows;) {
        const int left_over = num_rows - row;
        // 13 rows are taken as 7 and 6, not as 12 and 1: small groups leave arithmetic units idle.
        const int take = left_over <= MAX_ROWS ? left_over : left_over < 2 * MAX_ROWS ? (left_over + 1) / 2 : MAX_ROWS;
        switch (take) {
#define TOKENPOST_ROWS(N) \
    case N: work.template operator()<N>(row); break;
            TOKENPOST_ROWS(1) TOKENPOST_ROWS(2) TOKENPOST_ROWS(3) TOKENPOST_ROWS(4) TOKENPOST_ROWS(5) TOKENPOST_ROWS(6)
            TOKENPOST_ROWS(7) TOKENPOST_ROWS(8) TOKENPOST_ROWS(9) TOKENPOST_ROWS(10) TOKENPOST_ROWS(11)
#undef TOKENPOST_ROWS
            default: work.template operator()<MAX_ROWS>(row);
        }
        row += take;
    }
}

// One tile times every row of X. Calls finish(row, left, right)
template <class Weight, class Finish>
inline void multiply_tile(int num_rows, int num_inputs, const float* x, size_t stride, const Weight* tile,
                        const Weight* prefetch, const Finish& finish) {
    by_rows(num_rows, [&]<int ROWS>(int row) {
        Vec sums[ROWS][2] = {};
        dot_rows<ROWS>(num_inputs, x + row * stride, stride, tile, prefetch, sums);
        for (int r = 0; r < ROWS; ++r) finish(row + r, sums[r][0], sums[r][1]);
    });
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

// sums = x . stack, or sums += x . stack: 32 sums for each row of X.
template <bool ADDS, class Weight>
inline void multiply_tiles(const Rows<const float>& x, const TileStack<Weight>& stack, const Rows<float>& sums) {
    by_rows(x.num, [&]<int ROWS>(int row) {
        float* to = sums.first + row * sums.stride;
        Vec own[ROWS][2] = {};
        for (int r = 0; ADDS && r < ROWS; ++r) {
            own[r][0] = load(to + r * sums.stride);
            own[r][1] = load(to + r * sums.stride + VEC_LEN);
        }
        const float* from = x.first + row * x.stride;
        for (int i = 0; i < stack.num_tiles; ++i, from += stack.num_inputs)
            dot_rows<ROWS>(stack.num_inputs, from, x.stride, stack.tiles[i], stack.prefetch[i], own);
        for (int r = 0; r < ROWS; ++r) {
            store(to + r * sums.stride, own[r][0]);
            store(to + r * sums.stride + VEC_LEN, own[r][1]);
        }
    });
}

#ifdef TOKENPOST_AMX

// Packed weight tiles of bf16 for AMX: [num_inputs / 32][2 halves][16 pairs of inputs][16 outputs][2]
constexpr int AMX_INPUTS = 32;
constexpr int AMX_WEIGHTS = AMX_INPUTS * VEC_LEN;

// Linux enables AMX registers only for processes that ask. 0x1023: ARCH_REQ_XCOMP_PERM, 18: XFEATURE_XTILEDATA
inline bool may_use_amx() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

// AMX registers 0-3: sums; 4, 5: rows of X; 6, 7: weights. Each is 16 rows of 64 bytes.
inline void enable_amx() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = AMX_ROWS;
    _tile_loadconfig(&config);
}

inline void release_amx() { _tile_release(); }

// Sums in AMX registers: 0 and 1 for 16 rows, 2 and 3 for the next 16.
template <bool ADDS>
inline void begin_sums(bool is_double, const Rows<float>& sums) {
    const size_t stride = sums.stride * sizeof(float);
    if (ADDS) {
        _tile_loadd(0, sums.first, stride);
        _tile_loadd(1, sums.first + VEC_LEN, stride);
        if (!is_double) return;
        _tile_loadd(2, sums.first + AMX_ROWS * sums.stride, stride);
        _tile_loadd(3, sums.first + AMX_ROWS * sums.stride + VEC_LEN, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        if (!is_double) return;
        _tile_zero(2);
        _tile_zero(3);
    }
}

inline void end_sums(bool is_double, const Rows<float>& sums) {
    const size_t stride = sums.stride * sizeof(float);
    if (is_double) {
        _tile_stored(2, sums.first + AMX_ROWS * sums.stride, stride);
        _tile_stored(3, sums.first + AMX_ROWS * sums.stride + VEC_LEN, stride);
    }
    _tile_stored(0, sums.first, stride);
    _tile_stored(1, sums.first + VEC_LEN, stride);
}

// The registers' sums += x . tile, for 16 rows of X from `upper` on, or 32. With many rows X bypasses the first-level
// cache, which keeps the tile for the next rows.
inline void add_tile(bool is_double, int num_inputs, const bf16* upper, size_t stride, const bf16* tile,
                      const bf16* prefetch) {
    const size_t stride_bytes = stride * sizeof(bf16);
    if (is_double) {
        const bf16* lower = upper + AMX_ROWS * stride;
        for (int k = 0; k < num_inputs; k += AMX_INPUTS) {
            const bf16* weights = tile + size_t(k) * TILE_OUTPUTS;
            _tile_loadd(6, weights, 64);
            _tile_stream_loadd(4, upper + k, stride_bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, weights + AMX_WEIGHTS, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_stream_loadd(5, lower + k, stride_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    } else {
        for (int k = 0; k < num_inputs; k += AMX_INPUTS) {
            const bf16* weights = tile + size_t(k) * TILE_OUTPUTS;
            for (int line = 0; line < 2 * AMX_WEIGHTS; line += AMX_INPUTS)
                __builtin_prefetch(prefetch + size_t(k) * TILE_OUTPUTS + line);
            _tile_loadd(4, upper + k, stride_bytes);
            _tile_loadd(6, weights, 64);
            _tile_loadd(7, weights + AMX_WEIGHTS, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    }
}

// One tile times every row of X. X may be read up to the next multiple of 16 rows. Calls finish(row, left, right)
template <class Finish>
inline void multiply_tile(int num_rows, int num_inputs, const bf16* x, size_t stride, const bf16* tile,
                        const bf16* prefetch, const Finish& finish) {
    alignas(64) float sums[2 * AMX_ROWS][TILE_OUTPUTS];
    const Rows<float> own{sums[0], TILE_OUTPUTS, 2 * AMX_ROWS};
    for (int row = 0; row < num_rows; row += 2 * AMX_ROWS) {
        const bool is_double = num_rows - row > AMX_ROWS;
        begin_sums<false>(is_double, own);
        add_tile(is_double, num_inputs, x + row * stride, stride, tile, prefetch);
        end_sums(is_double, own);
        const int num = std::min(num_rows - row, 2 * AMX_ROWS);
        for (int r = 0; r < num; ++r) finish(row + r, load(sums[r]), load(sums[r] + VEC_LEN));
    }
}

// X may be read, and sums are written, up to the next multiple of 16 rows.
template <bool ADDS>
inline void multiply_tiles(const Rows<const bf16>& x, const TileStack<bf16>& stack, const Rows<float>& sums) {
    for (int row = 0; row < x.num; row += 2 * AMX_ROWS) {
        const bool is_double = x.num - row > AMX_ROWS;
        const Rows<float> own{sums.first + row * sums.stride, sums.stride, 2 * AMX_ROWS};
        begin_sums<ADDS>(is_double, own);
        const bf16* from = x.first + row * x.stride;
        for (int i = 0; i < stack.num_tiles; ++i, from += stack.num_inputs)
            add_tile(is_double, stack.num_inputs, from, x.stride, stack.tiles[i], stack.prefetch[i]);
        end_sums(is_double, own);
    }
}

#else

inline bool may_use_amx() { return false; }
inline void enable_amx() {}
inline void release_amx() {}

#endif

// The offset of the weight of an input and an output in a packed tile for this type of activations.
template <class Activation>
inline size_t tile_offset(int input, int output) {
#ifdef TOKENPOST_AMX
    if constexpr (std::is_same_v<Activation, bf16>) {
        const size_t tile = size_t(input / AMX_INPUTS) * 2 + output / VEC_LEN;
        return tile * AMX_WEIGHTS + size_t(input % AMX_INPUTS / 2) * TILE_OUTPUTS + (output % VEC_LEN) * 2 + input % 2;
    }
#endif
    return size_t(input) * TILE_OUTPUTS + output;
}

}  // namespace tokenpost
