// Attention of one sequence's tokens over its blocks, by the online softmax over blocks of 32 keys from the first on.
// A token's result does not depend on the tokens computed with it, bit for bit: blocks that it does not see change
// nothing.
// Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022, "FlashAttention".
#pragma once
#include <algorithm>
#include <cstddef>

#include "matmul.h"
#include "vectors.h"

namespace tokenpost {

constexpr int BLOCK = PANEL;      // positions of a cache block
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
    int num;
    alignas(64) Activation rows[MAX][MAX_HEAD];
    int positions[MAX];
    alignas(64) float outputs[MAX][MAX_HEAD];
    alignas(64) float scores[MAX][BLOCK];
    alignas(64) Activation weights[MAX][BLOCK];
};

// One row's state between blocks: the highest score so far, and what the weights sum up to, lane by lane.
struct Tally {
    float highest = NEVER;
    Vec total = {};
};

// Turns one row of scores, of keys from position `first` on, into weights; returns by how much the row's earlier sums
// shrink. IS_WHOLE: every key of the block is seen; the result is the same either way.
template <bool IS_WHOLE, class Activation>
float weigh(const float* scores, Activation* weights, int first, int position, const AttentionRule& rule,
            Tally& tally) {
    constexpr IntVec COUNT = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Vec part[2];
    IntVec is_seen[2];
    for (int half = 0; half < 2; ++half) {
        part[half] = load(scores + half * LANES) * splat(rule.scale);
        if (rule.softcap > 0) part[half] = splat(rule.softcap) * tanh_of(part[half] / splat(rule.softcap));
        if (IS_WHOLE) continue;
        const IntVec key = COUNT + (first + half * LANES);
        is_seen[half] = key <= position;
        if (rule.window > 0) is_seen[half] &= key > position - rule.window;
        part[half] = pick(is_seen[half], part[half], splat(NEVER));
    }
    const float best = max_of(larger(part[0], part[1]));
    float shrink = 1.0f;
    if (best > tally.highest) {
        shrink = exp_of(splat(tally.highest - best))[0];
        tally.highest = best;
        tally.total *= splat(shrink);
    }
    for (int half = 0; half < 2; ++half) {
        Vec weight = exp_of(part[half] - splat(tally.highest));
        if (!IS_WHOLE) weight = pick(is_seen[half], weight, Vec{});
        store(weights + half * LANES, weight);
        tally.total += weight;
    }
    return shrink;
}

template <class Number, class Activation>
void attend(Queries<Activation>& queries, const LayerCache<Number, Activation>& cache, int head, const int32_t* table,
            const AttentionRule& rule) {
    const int num = queries.num, size = cache.head_size;
    Tally tallies[Queries<Activation>::MAX];
    for (int r = 0; r < num; ++r) std::fill_n(queries.outputs[r], size, 0.0f);
    const auto [low, high] = std::minmax_element(queries.positions, queries.positions + num);
    const int start = rule.window > 0 ? std::max(0, *low - rule.window + 1) / BLOCK : 0, last = *high / BLOCK;
    for (int index = start; index <= last; ++index) {
        const size_t place = cache.place(table[index], head);
        const size_t next = index < last ? cache.place(table[index + 1], head) : place;
        const auto keep = [&](int r, Vec left, Vec right) {
            store(queries.scores[r], left);
            store(queries.scores[r] + LANES, right);
        };
        panel_times(num, size, queries.rows[0], MAX_HEAD, cache.keys + place, cache.values + place, keep);
        for (int r = 0; r < num; ++r) {
            const int first = index * BLOCK, position = queries.positions[r];
            const bool is_whole =
                first + BLOCK - 1 <= position && (rule.window == 0 || first > position - rule.window);
            const float shrink =
                is_whole ? weigh<true>(queries.scores[r], queries.weights[r], first, position, rule, tallies[r])
                         : weigh<false>(queries.scores[r], queries.weights[r], first, position, rule, tallies[r]);
            if (shrink != 1.0f)
                for (int d = 0; d < size; d += LANES)
                    store(queries.outputs[r] + d, load(queries.outputs[r] + d) * splat(shrink));
        }
        for (int d = 0; d < size; d += PANEL) {
            const auto add = [&](int r, Vec left, Vec right) {
                float* output = queries.outputs[r] + d;
                store(output, load(output) + left);
                store(output + LANES, load(output + LANES) + right);
            };
            const size_t part = size_t(d) * BLOCK;
            panel_times(num, BLOCK, queries.weights[0], BLOCK, cache.values + place + part, cache.keys + next + part,
                        add);
        }
    }
    for (int r = 0; r < num; ++r) {
        const float total = sum_of(tallies[r].total);
        for (int d = 0; d < size; d += LANES)
            store(queries.outputs[r] + d, load(queries.outputs[r] + d) / splat(total));
    }
}

}  // namespace tokenpost
