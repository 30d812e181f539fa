// Attention of one sequence's tokens over its KV cache blocks, by an online softmax over spans of blocks in order.
// The result of a token does not depend on the tokens computed with it, bit for bit: keys that are masked for it have
// weight 0 exactly.
// Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022, "FlashAttention".
#pragma once
#include <algorithm>
#include <cstddef>

#include "matmul.h"
#include "vectors.h"

namespace tokenpost {

constexpr int BLOCK = TILE_OUTPUTS;      // positions of a cache block
constexpr int SPAN = 4;           // blocks in one softmax update
constexpr int MAX_HEAD = 256;
constexpr float MASKED_SCORE = -1e30f;   // below every score of a visible key

// The KV cache of one layer. A block holds, for each kv head, keys as a packed tile of head_size inputs and 32
// positions, and values as head_size / 32 packed tiles of 32 positions and 32 outputs, in the layout of packed weights.
// head_size: head_dim, padded to 32.
template <class Number>
struct LayerCache {
    Number *keys, *values;
    int num_kv_heads, head_size;

    size_t offset_of(int block, int head) const { return (size_t(block) * num_kv_heads + head) * head_size * BLOCK; }

    // Rounded as vectors first: neighbours in a head are not neighbours in a packed tile.
    void store_key(int block, int head, int offset, const float* key, int head_dim) const {
        Number* tile = keys + offset_of(block, head) + tile_offset<Number>(0, offset);
        Number rounded[MAX_HEAD + VEC_LEN];
        for (int d = 0; d < head_dim; d += VEC_LEN) store(rounded + d, load(key + d));
        for (int d = 0; d < head_dim; ++d) tile[tile_offset<Number>(d, 0)] = rounded[d];
    }

    void store_value(int block, int head, int offset, const float* value, int head_dim) const {
        Number* tiles = values + offset_of(block, head) + tile_offset<Number>(offset, 0);
        Number rounded[MAX_HEAD + VEC_LEN];
        for (int d = 0; d < head_dim; d += VEC_LEN) store(rounded + d, load(value + d));
        for (int d = 0; d < head_dim; ++d) {
            const size_t tile = size_t(d / TILE_OUTPUTS) * BLOCK * TILE_OUTPUTS;
            tiles[tile + tile_offset<Number>(0, d % TILE_OUTPUTS)] = rounded[d];
        }
    }
};

struct AttentionRule {
    float scale;
    int window;      // 0: all
    float softcap;   // 0: none
};

// Query rows of one kv head that are computed together: `num` rows of head_size numbers, each with its position. A row
// is a token and a head of the group.
template <class Activation>
struct Queries {
    static constexpr int MAX = std::is_same_v<Activation, float> ? 24 : 32;
    static constexpr int STRIDE = MAX_HEAD + TILE_OUTPUTS;  // no power of two: rows would share cache sets
    static constexpr int NUM_KEYS = SPAN * BLOCK;
    int num;
    alignas(64) Activation rows[MAX][STRIDE];
    int positions[MAX];
    alignas(64) float outputs[MAX][STRIDE];
    alignas(64) float scores[MAX][NUM_KEYS];
    alignas(64) Activation weights[MAX][NUM_KEYS];
    // State of the online softmax: the highest score so far, and the sum of the weights, element by element.
    alignas(64) float highest[padded(MAX, VEC_LEN)];
    Vec totals[MAX];

    void reset(int size) {
        for (int r = 0; r < num; ++r) std::fill_n(outputs[r], size, 0.0f);
        std::fill_n(highest, padded(num, VEC_LEN), MASKED_SCORE);
        std::fill_n(totals, num, Vec{});
    }

    void divide_by_totals(int size) {
        for (int r = 0; r < num; ++r) {
            const Vec total = splat(sum_of(totals[r]));
            for (int d = 0; d < size; d += VEC_LEN) store(outputs[r] + d, load(outputs[r] + d) / total);
        }
    }
};

// The keys of a span: `num` of them, from position `first` on.
struct Keys {
    int first, num;
};

// The keys that are visible to a query: from .. to - 1, counted from the first key; none: 0 .. -1.
struct VisibleKeys {
    int from = 0, to = 0;

    static VisibleKeys of(const Keys& keys, int position, const AttentionRule& rule) {
        const int from = rule.window > 0 ? std::max(0, position - rule.window + 1 - keys.first) : 0;
        const int to = std::min(keys.num, position - keys.first + 1);
        return from < to ? VisibleKeys{from, to} : VisibleKeys{};
    }
    // Extended to whole vectors.
    int begin() const { return from / VEC_LEN * VEC_LEN; }
    int end() const { return padded(to, VEC_LEN); }
};

// Applies the softcap and the mask to a row of scores; returns the highest score times `scale`.
inline float mask_and_max(float* scores, const VisibleKeys& visible, const AttentionRule& rule, float scale) {
    if (rule.softcap > 0)
        for (int k = visible.begin(); k < visible.end(); k += VEC_LEN)
            store(scores + k, splat(rule.softcap) * tanh_of(load(scores + k) * splat(rule.scale / rule.softcap)));
    const auto mask = [&](int k) {
        const IntVec key = bits_as<IntRegister>(load(COUNT)) + k;
        store(scores + k, pick((key >= visible.from) & (key < visible.to), load(scores + k), splat(MASKED_SCORE)));
    };
    if (visible.from % VEC_LEN != 0) mask(visible.begin());
    if (visible.to % VEC_LEN != 0) mask(visible.end() - VEC_LEN);
    Vec best = splat(MASKED_SCORE);
    for (int k = visible.begin(); k < visible.end(); k += VEC_LEN) best = larger(load(scores + k), best);
    return visible.to > 0 ? max_of(best) * scale : MASKED_SCORE;
}

// Turns the scores of all rows into weights, and rescales the outputs and totals of earlier spans.
template <class Activation>
void update_softmax(Queries<Activation>& queries, int size, const Keys& keys, const AttentionRule& rule) {
    const float scale = rule.softcap > 0 ? LOG2E : rule.scale * LOG2E;
    VisibleKeys visible[Queries<Activation>::MAX];
    alignas(64) float highest[padded(Queries<Activation>::MAX, VEC_LEN)] = {};
    for (int r = 0; r < queries.num; ++r) {
        visible[r] = VisibleKeys::of(keys, queries.positions[r], rule);
        highest[r] = std::max(queries.highest[r], mask_and_max(queries.scores[r], visible[r], rule, scale));
    }
    alignas(64) float rescale[padded(Queries<Activation>::MAX, VEC_LEN)];
    for (int r = 0; r < queries.num; r += VEC_LEN) {
        store(rescale + r, exp2_of(load(queries.highest + r) - load(highest + r)));
        store(queries.highest + r, load(highest + r));
    }
    for (int r = 0; r < queries.num; ++r) {
        float* output = queries.outputs[r];
        for (int d = 0; d < size; d += VEC_LEN) store(output + d, load(output + d) * splat(rescale[r]));
        Vec total = queries.totals[r] * splat(rescale[r]);
        Activation* weights = queries.weights[r];
        const float* scores = queries.scores[r];
        int k = 0;
        for (; k < visible[r].begin(); k += VEC_LEN) store(weights + k, Vec{});
        for (; k < visible[r].end(); k += VEC_LEN) {
            const Vec weight = exp2_of(load(scores + k) * splat(scale) - splat(highest[r]));
            store(weights + k, weight);
            total += weight;
        }
        for (; k < keys.num; k += VEC_LEN) store(weights + k, Vec{});
        queries.totals[r] = total;
    }
}

// The scores of a span: keys of its blocks times every query. The values of each block are prefetched meanwhile.
template <class Number, class Activation>
void compute_scores(Queries<Activation>& queries, const LayerCache<Number>& cache, int head,
                    const int32_t* blocks, int num_blocks) {
    using Q = Queries<Activation>;
    for (int i = 0; i < num_blocks; ++i) {
        const size_t offset_of = cache.offset_of(blocks[i], head);
        const Number *keys = cache.keys + offset_of, *values = cache.values + offset_of;
        multiply_tiles<false>(Rows<const Activation>{queries.rows[0], Q::STRIDE, queries.num},
                           TileStack<Number>{&keys, &values, 1, cache.head_size},
                           {queries.scores[0] + i * BLOCK, Q::NUM_KEYS, queries.num});
    }
}

// Adds the weighted values of a span; `prefetch`: blocks whose keys are prefetched meanwhile.
template <class Number, class Activation>
void add_values(Queries<Activation>& queries, const LayerCache<Number>& cache, int head,
                const int32_t* blocks, const int32_t* prefetch, int num_blocks) {
    using Q = Queries<Activation>;
    const Number *values[SPAN], *keys[SPAN];
    for (int i = 0; i < num_blocks; ++i) {
        values[i] = cache.values + cache.offset_of(blocks[i], head);
        keys[i] = cache.keys + cache.offset_of(prefetch[i], head);
    }
    for (int d = 0; d < cache.head_size; d += TILE_OUTPUTS) {
        multiply_tiles<true>(Rows<const Activation>{queries.weights[0], Q::NUM_KEYS, queries.num},
                          TileStack<Number>{values, keys, num_blocks, BLOCK},
                          {queries.outputs[0] + d, Q::STRIDE, queries.num});
        for (int i = 0; i < num_blocks; ++i) values[i] += BLOCK * TILE_OUTPUTS, keys[i] += BLOCK * TILE_OUTPUTS;
    }
}

template <class Number, class Activation>
void attend(Queries<Activation>& queries, const LayerCache<Number>& cache, int head, const int32_t* table,
            const AttentionRule& rule) {
    queries.reset(cache.head_size);
    const auto [low, high] = std::minmax_element(queries.positions, queries.positions + queries.num);
    const int start = rule.window > 0 ? std::max(0, *low - rule.window + 1) / BLOCK : 0, last = *high / BLOCK;
    // Spans begin at multiples of SPAN, whatever the first visible block is.
    for (int from = start, to; from <= last; from = to) {
        to = std::min(from / SPAN * SPAN + SPAN, last + 1);
        int32_t prefetch[SPAN];
        for (int i = 0; i < to - from; ++i) prefetch[i] = table[std::min(from + SPAN + i, last)];
        compute_scores(queries, cache, head, table + from, to - from);
        update_softmax(queries, cache.head_size, {from * BLOCK, (to - from) * BLOCK}, rule);
        add_values(queries, cache, head, table + from, prefetch, to - from);
    }
    queries.divide_by_totals(cache.head_size);
}

}  // namespace tokenpost
