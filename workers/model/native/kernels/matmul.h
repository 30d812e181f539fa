// Y = X W^T, weights packed in panels of 32 outputs. Every element is summed over its inputs in order, so a row comes
// out bit for bit the same whatever else is in the batch.
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "vectors.h"

// clang below 16 says it in its own way.
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TOKENPOST_AMX 1
#endif

namespace tokenpost {

constexpr int PANEL = 2 * LANES;  // outputs side by side
constexpr int MAX_ROWS = 12;      // of X at once: 24 sums and two weights fill the 32 registers of AVX-512
constexpr int TILE = 16;          // rows of an AMX tile; buffers of bf16 activations are padded to it

// Inputs whose weights are fetched before they are needed: 4 KiB of them.
template <class Weight>
constexpr int AHEAD = 4096 / (PANEL * sizeof(Weight));

constexpr int padded(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// sums[r] += x[r, :] . panel, for ROWS rows. panel: [num_inputs][32]; ahead: as much that will be needed soon
template <int ROWS, class Weight>
inline void dot_rows(int num_inputs, const float* x, size_t stride, const Weight* panel, const Weight* ahead,
                     Vec (&sums)[ROWS][2]) {
    for (int k = 0; k < num_inputs; ++k) {
        const Vec left = load(panel + size_t(k) * PANEL);
        const Vec right = load(panel + size_t(k) * PANEL + LANES);
        __builtin_prefetch(ahead + size_t(k) * PANEL);
        if (sizeof(Weight) == sizeof(float)) __builtin_prefetch(ahead + size_t(k) * PANEL + LANES);
        for (int r = 0; r < ROWS; ++r) {
            const Vec one = splat(x[r * stride + k]);
            sums[r][0] += one * left;
            sums[r][1] += one * right;
        }
    }
}

// Takes rows as many at once as registers hold: work.operator()<ROWS>(first row).
template <class Work>
inline void by_rows(int num_rows, const Work& work) {
    for (int row = 0; row < num_rows;) {
        const int left_over = num_rows - row;
        // 13 rows are taken as 7 and 6, not as 12 and 1: small groups leave the arithmetic units waiting.
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

// One panel against every row of X. finish(row, left, right)
template <class Weight, class Finish>
inline void panel_times(int num_rows, int num_inputs, const float* x, size_t stride, const Weight* panel,
                        const Weight* ahead, const Finish& finish) {
    by_rows(num_rows, [&]<int ROWS>(int row) {
        Vec sums[ROWS][2] = {};
        dot_rows<ROWS>(num_inputs, x + row * stride, stride, panel, ahead, sums);
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

// Panels one below another, each of num_inputs inputs, and for each as much that will be needed soon.
template <class Weight>
struct Stack {
    const Weight* const *panels, *const *ahead;
    int num_panels, num_inputs;
};

// sums = x . stack, or sums += x . stack, 32 of them for each row of X.
template <bool ADDS, class Weight>
inline void stack_times(const Rows<const float>& x, const Stack<Weight>& stack, const Rows<float>& sums) {
    by_rows(x.num, [&]<int ROWS>(int row) {
        float* to = sums.first + row * sums.stride;
        Vec own[ROWS][2] = {};
        for (int r = 0; ADDS && r < ROWS; ++r) {
            own[r][0] = load(to + r * sums.stride);
            own[r][1] = load(to + r * sums.stride + LANES);
        }
        const float* from = x.first + row * x.stride;
        for (int i = 0; i < stack.num_panels; ++i, from += stack.num_inputs)
            dot_rows<ROWS>(stack.num_inputs, from, x.stride, stack.panels[i], stack.ahead[i], own);
        for (int r = 0; r < ROWS; ++r) {
            store(to + r * sums.stride, own[r][0]);
            store(to + r * sums.stride + LANES, own[r][1]);
        }
    });
}

#ifdef TOKENPOST_AMX

// Panels of bf16 for AMX: [num_inputs / 32][2 halves][16 pairs of inputs][16 outputs][2]
constexpr int TILE_INPUTS = 32;
constexpr int TILE_WEIGHTS = TILE_INPUTS * LANES;

// Linux gives tiles only to processes that ask. 0x1023: ARCH_REQ_XCOMP_PERM, 18: XFEATURE_XTILEDATA
inline bool may_use_amx() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

// Tiles 0-3: sums; 4, 5: rows of X; 6, 7: weights. All are 16 rows of 64 bytes.
inline void open_tiles() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = TILE;
    _tile_loadconfig(&config);
}

inline void close_tiles() { _tile_release(); }

// Sums in tiles: 0 and 1 of 16 rows, 2 and 3 of the 16 below them.
template <bool ADDS>
inline void begin_sums(bool is_double, const Rows<float>& sums) {
    const size_t stride = sums.stride * sizeof(float);
    if (ADDS) {
        _tile_loadd(0, sums.first, stride);
        _tile_loadd(1, sums.first + LANES, stride);
        if (!is_double) return;
        _tile_loadd(2, sums.first + TILE * sums.stride, stride);
        _tile_loadd(3, sums.first + TILE * sums.stride + LANES, stride);
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
        _tile_stored(2, sums.first + TILE * sums.stride, stride);
        _tile_stored(3, sums.first + TILE * sums.stride + LANES, stride);
    }
    _tile_stored(0, sums.first, stride);
    _tile_stored(1, sums.first + LANES, stride);
}

// The tiles' sums += x . panel, for 16 rows of X from `upper` on, or 32. Many rows of X stream past the first cache,
// which is left to the panel: it is used again for the next ones.
inline void add_panel(bool is_double, int num_inputs, const bf16* upper, size_t stride, const bf16* panel,
                      const bf16* ahead) {
    const size_t stride_bytes = stride * sizeof(bf16);
    if (is_double) {
        const bf16* lower = upper + TILE * stride;
        for (int k = 0; k < num_inputs; k += TILE_INPUTS) {
            const bf16* weights = panel + size_t(k) * PANEL;
            _tile_loadd(6, weights, 64);
            _tile_stream_loadd(4, upper + k, stride_bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, weights + TILE_WEIGHTS, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_stream_loadd(5, lower + k, stride_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    } else {
        for (int k = 0; k < num_inputs; k += TILE_INPUTS) {
            const bf16* weights = panel + size_t(k) * PANEL;
            for (int line = 0; line < 2 * TILE_WEIGHTS; line += TILE_INPUTS)
                __builtin_prefetch(ahead + size_t(k) * PANEL + line);
            _tile_loadd(4, upper + k, stride_bytes);
            _tile_loadd(6, weights, 64);
            _tile_loadd(7, weights + TILE_WEIGHTS, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    }
}

// One panel against every row of X. X may be read up to the next multiple of 16 rows. finish(row, left, right)
template <class Finish>
inline void panel_times(int num_rows, int num_inputs, const bf16* x, size_t stride, const bf16* panel,
                        const bf16* ahead, const Finish& finish) {
    alignas(64) float sums[2 * TILE][PANEL];
    const Rows<float> own{sums[0], PANEL, 2 * TILE};
    for (int row = 0; row < num_rows; row += 2 * TILE) {
        const bool is_double = num_rows - row > TILE;
        begin_sums<false>(is_double, own);
        add_panel(is_double, num_inputs, x + row * stride, stride, panel, ahead);
        end_sums(is_double, own);
        const int num = std::min(num_rows - row, 2 * TILE);
        for (int r = 0; r < num; ++r) finish(row + r, load(sums[r]), load(sums[r] + LANES));
    }
}

// X may be read, and sums are written, up to the next multiple of 16 rows.
template <bool ADDS>
inline void stack_times(const Rows<const bf16>& x, const Stack<bf16>& stack, const Rows<float>& sums) {
    for (int row = 0; row < x.num; row += 2 * TILE) {
        const bool is_double = x.num - row > TILE;
        const Rows<float> own{sums.first + row * sums.stride, sums.stride, 2 * TILE};
        begin_sums<ADDS>(is_double, own);
        const bf16* from = x.first + row * x.stride;
        for (int i = 0; i < stack.num_panels; ++i, from += stack.num_inputs)
            add_panel(is_double, stack.num_inputs, from, x.stride, stack.panels[i], stack.ahead[i]);
        end_sums(is_double, own);
    }
}

#else

inline bool may_use_amx() { return false; }
inline void open_tiles() {}
inline void close_tiles() {}

#endif

// Where the number of an input and an output lies in a panel that is multiplied with such activations.
template <class Activation>
inline size_t panel_place(int input, int output) {
#ifdef TOKENPOST_AMX
    if constexpr (std::is_same_v<Activation, bf16>) {
        const size_t tile = size_t(input / TILE_INPUTS) * 2 + output / LANES;
        return tile * TILE_WEIGHTS + size_t(input % TILE_INPUTS / 2) * PANEL + (output % LANES) * 2 + input % 2;
    }
#endif
    return size_t(input) * PANEL + output;
}

}  // namespace tokenpost
