// Attention of one sequence's tokens over its blocks, by the online softmax over spans of blocks from the first on.
// A token's result does not depend on the tokens computed with it, bit for bit: keys that it does not see weigh exactly
// nothing.
// Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022, "FlashAttention".
#pragma once
#include <algorithm>
#include <cstddef>

#include "matmul.h"
#include "vectors.h"

namespace tokenpost {

constexpr int BLOCK = PANEL;      // positions of a cache block
constexpr int SPAN = 4;           // blocks that are weighed at once
constexpr int MAX_HEAD = 256;
constexpr float NEVER = -1e30f;   // a score that no seen key has

// One layer's cache. A block holds, for each kv head, keys as a panel of head_size inputs and 32 positions, and values
// as head_size / 32 panels of 32 positions and 32 outputs, each laid out as weights are. head_size: head_dim, padded to
// 32.
template <class Number, class Activation>
struct LayerCache {
    Number *keys, *values;
    int num_kv_heads, head_size;

    size_t place(int block, int head) const { return (size_t(block) * num_kv_heads + head) * head_size * BLOCK; }

    // Rounded by vectors first: what lies side by side in a head lies apart in a panel.
    void put_key(int block, int head, int offset, const float* key, int head_dim) const {
        Number* panel = keys + place(block, head) + panel_place<Activation>(0, offset);
        Number rounded[MAX_HEAD + LANES];
        for (int d = 0; d < head_dim; d += LANES) store(rounded + d, load(key + d));
        for (int d = 0; d < head_dim; ++d) panel[panel_place<Activation>(d, 0)] = rounded[d];
    }

    void put_value(int block, int head, int offset, const float* value, int head_dim) const {
        Number* panels = values + place(block, head) + panel_place<Activation>(offset, 0);
        Number rounded[MAX_HEAD + LANES];
        for (int d = 0; d < head_dim; d += LANES) store(rounded + d, load(value + d));
        for (int d = 0; d < head_dim; ++d)
            panels[size_t(d / PANEL) * BLOCK * PANEL + panel_place<Activation>(0, d % PANEL)] = rounded[d];
    }
};

struct AttentionRule {
    float scale;
    int window;      // 0: all
    float softcap;   // 0: none
};

// Query rows (tokens times grouped heads) of one kv head that are computed together: `num` rows of head_size numbers
// and the position of each.
template <class Activation>
struct Queries {
    static constexpr int MAX = std::is_same_v<Activation, float> ? 2 * MAX_ROWS : 2 * TILE;
    static constexpr int STRIDE = MAX_HEAD + PANEL;  // rows a power of two apart would crowd the same places of a cache
    static constexpr int NUM_KEYS = SPAN * BLOCK;
    int num;
    alignas(64) Activation rows[MAX][STRIDE];
    int positions[MAX];
    alignas(64) float outputs[MAX][STRIDE];
    alignas(64) float scores[MAX][NUM_KEYS];
    alignas(64) Activation weights[MAX][NUM_KEYS];
    // The softmax between spans: the highest score so far, and what the weights sum up to, lane by lane.
    alignas(64) float highest[padded(MAX, LANES)];
    Vec totals[MAX];

    void clear(int size) {
        for (int r = 0; r < num; ++r) std::fill_n(outputs[r], size, 0.0f);
        std::fill_n(highest, padded(num, LANES), NEVER);
        std::fill_n(totals, num, Vec{});
    }

    void finish(int size) {
        for (int r = 0; r < num; ++r) {
            const Vec total = splat(sum_of(totals[r]));
            for (int d = 0; d < size; d += LANES) store(outputs[r] + d, load(outputs[r] + d) / total);
        }
    }
};

// Keys of a span that are computed: `num` of them, from position `first` on.
struct Keys {
    int first, num;
};

// Which of them a query sees: from .. to - 1, counted from the first; none: 0 .. -1.
struct Seen {
    int from = 0, to = 0;

    static Seen of(const Keys& keys, int position, const AttentionRule& rule) {
        const int from = rule.window > 0 ? std::max(0, position - rule.window + 1 - keys.first) : 0;
        const int to = std::min(keys.num, position - keys.first + 1);
        return from < to ? Seen{from, to} : Seen{};
    }
    // Whole vectors around them.
    int begin() const { return from / LANES * LANES; }
    int end() const { return padded(to, LANES); }
};

// Bends a row's scores and hides those of unseen keys; returns the highest times `scale`.
inline float highest_of(float* scores, const Seen& seen, const AttentionRule& rule, float scale) {
    constexpr IntVec COUNT = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (rule.softcap > 0)
        for (int k = seen.begin(); k < seen.end(); k += LANES)
            store(scores + k, splat(rule.softcap) * tanh_of(load(scores + k) * splat(rule.scale / rule.softcap)));
    const auto hide = [&](int k) {
        const IntVec key = COUNT + k;
        store(scores + k, pick((key >= seen.from) & (key < seen.to), load(scores + k), splat(NEVER)));
    };
    if (seen.from % LANES != 0) hide(seen.begin());
    if (seen.to % LANES != 0) hide(seen.end() - LANES);
    Vec best = splat(NEVER);
    for (int k = seen.begin(); k < seen.end(); k += LANES) best = larger(load(scores + k), best);
    return seen.to > 0 ? max_of(best) * scale : NEVER;
}

// Turns the scores of all rows into weights, and lets the rows' earlier sums shrink accordingly.
template <class Activation>
void weigh(Queries<Activation>& queries, int size, const Keys& keys, const AttentionRule& rule) {
    const float scale = rule.softcap > 0 ? LOG2E : rule.scale * LOG2E;
    Seen seen[Queries<Activation>::MAX];
    alignas(64) float highest[padded(Queries<Activation>::MAX, LANES)] = {};
    for (int r = 0; r < queries.num; ++r) {
        seen[r] = Seen::of(keys, queries.positions[r], rule);
        highest[r] = std::max(queries.highest[r], highest_of(queries.scores[r], seen[r], rule, scale));
    }
    alignas(64) float shrink[padded(Queries<Activation>::MAX, LANES)];
    for (int r = 0; r < queries.num; r += LANES) {
        store(shrink + r, exp2_of(load(queries.highest + r) - load(highest + r)));
        store(queries.highest + r, load(highest + r));
    }
    for (int r = 0; r < queries.num; ++r) {
        float* output = queries.outputs[r];
        for (int d = 0; d < size; d += LANES) store(output + d, load(output + d) * splat(shrink[r]));
        Vec total = queries.totals[r] * splat(shrink[r]);
        Activation* weights = queries.weights[r];
        const float* scores = queries.scores[r];
        int k = 0;
        for (; k < seen[r].begin(); k += LANES) store(weights + k, Vec{});
        for (; k < seen[r].end(); k += LANES) {
            const Vec weight = exp2_of(load(scores + k) * splat(scale) - splat(highest[r]));
            store(weights + k, weight);
            total += weight;
        }
        for (; k < keys.num; k += LANES) store(weights + k, Vec{});
        queries.totals[r] = total;
    }
}

// The scores of a span: its blocks' keys against every query, each block's fetched values being needed soon.
template <class Number, class Activation>
void score(Queries<Activation>& queries, const LayerCache<Number, Activation>& cache, int head, const int32_t* blocks,
           int num_blocks) {
    using Q = Queries<Activation>;
    for (int i = 0; i < num_blocks; ++i) {
        const size_t place = cache.place(blocks[i], head);
        const Number *keys = cache.keys + place, *values = cache.values + place;
        stack_times<false>(Rows<const Activation>{queries.rows[0], Q::STRIDE, queries.num},
                           Stack<Number>{&keys, &values, 1, cache.head_size},
                           {queries.scores[0] + i * BLOCK, Q::NUM_KEYS, queries.num});
    }
}

// Adds the weighted values of a span; `ahead`: blocks whose keys will be needed soon.
template <class Number, class Activation>
void add_values(Queries<Activation>& queries, const LayerCache<Number, Activation>& cache, int head,
                const int32_t* blocks, const int32_t* ahead, int num_blocks) {
    using Q = Queries<Activation>;
    const Number *values[SPAN], *keys[SPAN];
    for (int i = 0; i < num_blocks; ++i) {
        values[i] = cache.values + cache.place(blocks[i], head);
        keys[i] = cache.keys + cache.place(ahead[i], head);
    }
    for (int d = 0; d < cache.head_size; d += PANEL) {
        stack_times<true>(Rows<const Activation>{queries.weights[0], Q::NUM_KEYS, queries.num},
                          Stack<Number>{values, keys, num_blocks, BLOCK},
                          {queries.outputs[0] + d, Q::STRIDE, queries.num});
        for (int i = 0; i < num_blocks; ++i) values[i] += BLOCK * PANEL, keys[i] += BLOCK * PANEL;
    }
}

template <class Number, class Activation>
void attend(Queries<Activation>& queries, const LayerCache<Number, Activation>& cache, int head, const int32_t* table,
            const AttentionRule& rule) {
    queries.clear(cache.head_size);
    const auto [low, high] = std::minmax_element(queries.positions, queries.positions + queries.num);
    const int start = rule.window > 0 ? std::max(0, *low - rule.window + 1) / BLOCK : 0, last = *high / BLOCK;
    // Spans begin at multiples of SPAN, wherever the first block that is seen lies.
    for (int from = start, to; from <= last; from = to) {
        to = std::min(from / SPAN * SPAN + SPAN, last + 1);
        int32_t ahead[SPAN];
        for (int i = 0; i < to - from; ++i) ahead[i] = table[std::min(from + SPAN + i, last)];
        score(queries, cache, head, table + from, to - from);
        weigh(queries, cache.head_size, {from * BLOCK, (to - from) * BLOCK}, rule);
        add_values(queries, cache, head, table + from, ahead, to - from);
    }
    queries.finish(cache.head_size);
}

}  // namespace tokenpost
