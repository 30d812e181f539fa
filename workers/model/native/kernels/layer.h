// One layer of the decoder: packed weights, norms, and its part of the KV cache.
#pragma once
#include <algorithm>

#include "attention.h"
#include "packed_matrix.h"
#include "buffer.h"
#include "interface.h"

namespace tokenpost {

inline Buffer<float> copy_of(const float* numbers, int count, Arena& arena) {
    if (numbers == nullptr) return {};
    Buffer<float> own(padded(count, TILE_OUTPUTS), arena);
    std::copy_n(numbers, count, own.get());
    return own;
}

template <class Weight, class Activation>
struct Layer {
    using Packed = PackedMatrix<Weight, Activation>;

    Packed heads, output, gate_up, down;
    Buffer<float> input_norm, attention_norm, feedforward_norm, feedforward_out_norm, query_norm, key_norm;
    int rotary_table;
    AttentionRule rule;
    Buffer<Weight> keys, values;
    LayerCache<Weight> cache;

    // working_arena: for keys and values
    static Layer of(const TokenpostLayer& given, const TokenpostShape& shape, int num_blocks, Arena& arena,
                    Arena& working_arena, ThreadPool& pool) {
        const int size = shape.head_dim, hidden = shape.hidden_size, inner = shape.intermediate_size;
        const int num_queries = shape.num_heads * size, num_keys = shape.num_kv_heads * size;
        const auto part = [](const void* weights, const float* bias, int num_outputs) {
            return Part<Weight>{static_cast<const Weight*>(weights), bias, num_outputs};
        };
        const size_t cached = size_t(num_blocks) * shape.num_kv_heads * padded(size, TILE_OUTPUTS) * BLOCK;
        Layer layer{
            Packed::of({part(given.query, given.query_bias, num_queries), part(given.key, given.key_bias, num_keys),
                        part(given.value, given.value_bias, num_keys)},
                       hidden, arena, pool),
            Packed::of({part(given.output, given.output_bias, hidden)}, num_queries, arena, pool),
            Packed::interleaved(part(given.gate, nullptr, inner), part(given.up, nullptr, inner), hidden, arena, pool),
            Packed::of({part(given.down, nullptr, hidden)}, inner, arena, pool),
            copy_of(given.input_norm, hidden, arena),
            copy_of(given.attention_norm, hidden, arena),
            copy_of(given.feedforward_norm, hidden, arena),
            copy_of(given.feedforward_out_norm, hidden, arena),
            copy_of(given.query_norm, size, arena),
            copy_of(given.key_norm, size, arena),
            given.rotary_table,
            AttentionRule{shape.attention_scale, given.window, shape.attention_softcap},
            Buffer<Weight>(cached, working_arena),
            Buffer<Weight>(cached, working_arena),
            {},
        };
        layer.cache = {layer.keys.get(), layer.values.get(), shape.num_kv_heads, padded(size, TILE_OUTPUTS)};
        return layer;
    }

    size_t weight_bytes() const { return heads.bytes() + output.bytes() + gate_up.bytes() + down.bytes(); }

    void clear(int num_blocks, const int32_t* blocks) {
        const size_t size = cache.offset_of(1, 0);
        for (int i = 0; i < num_blocks; ++i) {
            std::fill_n(cache.keys + cache.offset_of(blocks[i], 0), size, Weight{});
            std::fill_n(cache.values + cache.offset_of(blocks[i], 0), size, Weight{});
        }
    }

    void reset() {
        std::fill_n(keys.get(), keys.count(), Weight{});
        std::fill_n(values.get(), values.count(), Weight{});
    }
};

}  // namespace tokenpost
