// Products of bfloat16 in AMX tiles. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1,
// chapter 18.
#pragma once
#include "weight_tile.h"

#ifdef TOKENPOST_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tokenpost {

constexpr int AMX_ROWS = 16;  // rows of an AMX register; buffers of bf16 activations are padded to two of it

#ifdef TOKENPOST_AMX

// Linux enables AMX registers only for processes that ask. 0x1023: ARCH_REQ_XCOMP_PERM, 18: XFEATURE_XTILEDATA
inline bool may_use_amx() {
    static const bool may = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return may;
}

// AMX registers 0-3: sums; 4, 5: rows of X; 6, 7: weights. Each is 16 rows of 64 bytes.
inline void enable_amx() {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = AMX_ROWS;
    // GCC 12 says that the instruction reads 8 bytes of it, and leaves out the rest where it sees no other reader.
    asm volatile("" : : "m"(config));
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
        for (int k = 0; k < num_inputs; k += PAIRED_INPUTS) {
            const bf16* weights = tile + size_t(k) * TILE_OUTPUTS;
            _tile_loadd(6, weights, 64);
            _tile_stream_loadd(4, upper + k, stride_bytes);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, weights + HALF_WEIGHTS, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_stream_loadd(5, lower + k, stride_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    } else {
        for (int k = 0; k < num_inputs; k += PAIRED_INPUTS) {
            const bf16* weights = tile + size_t(k) * TILE_OUTPUTS;
            for (int line = 0; line < 2 * HALF_WEIGHTS; line += PAIRED_INPUTS)
                __builtin_prefetch(prefetch + size_t(k) * TILE_OUTPUTS + line);
            _tile_loadd(4, upper + k, stride_bytes);
            _tile_loadd(6, weights, 64);
            _tile_loadd(7, weights + HALF_WEIGHTS, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    }
}

// sums = x . stack, or sums += x . stack. X may be read, and sums are written, up to the next multiple of 32 rows.
template <bool ADDS>
inline void multiply_in_tiles(const Rows<const bf16>& x, const TileStack<bf16>& stack, const Rows<float>& sums) {
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

inline void enable_amx() {}
inline void release_amx() {}

template <bool ADDS>
void multiply_in_tiles(const Rows<const bf16>& x, const TileStack<bf16>& stack, const Rows<float>& sums);

#endif

}  // namespace tokenpost
