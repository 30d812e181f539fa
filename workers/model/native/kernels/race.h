// Draws tokens as workers/model/sampling/exponential_race.py does: one pass over a row, more only where top_p asks for sums.
//
// No row's token depends on another row.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "vectors.h"

namespace tokenpost::race {

typedef uint32_t IdVec __attribute__((vector_size(64)));

constexpr int BLOCK = 4 * LANES;
// So many weights are summed in float32 lanes before they are added in float64.
constexpr int PORTION = 16 * BLOCK;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float INFINITE = std::numeric_limits<float>::infinity();
constexpr IdVec FIRST_IDS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct Rules {
    double top_p;  // 1 or more for all
    int32_t keys[2];
    float temperature;  // 0 for no race
    float least;        // distance below the best of the least likely token in the race, by min_p; -inf for all
    int32_t top_k;      // 0 for all
};

// A row with the tokens that are still in the race: those at `least` that come before `end`, in the order of the
// filters: the likeliest first, of equals the lower id.
struct Field {
    const float* logits;
    int size;
    float best;
    float rate = 1.0f;  // distances times this are logarithms of weights
    float least = -INFINITE;
    float end_distance = -INFINITE;
    int end_id = size;
    float rate_to_base_2 = LOG2_E * rate;

    // At most 0. Logits that are equal in this are equally likely.
    float distance(int id) const { return logits[id] - best; }

    bool holds(int id) const {
        const float mine = distance(id);
        return mine >= least && (mine > end_distance || (mine == end_distance && id < end_id));
    }
};

inline int32_t bits_of(float number) {
    int32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}

inline bool has_any(IntVec mask) {
    typedef int64_t Words __attribute__((vector_size(64)));
    const Words words = reinterpret_cast<Words>(mask);
    return (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) != 0;
}

// How often 2**-24 goes into 1 - u, where u is the uniform number of noise.py: odd, below 2**24. For one id or several.
template <class Ids>
Ids shortfall(Ids ids, uint32_t key0, uint32_t key1) {
    Ids bits = ids * 2654435761u + key0;
    bits ^= bits >> 16;
    bits = bits * 2246822507u + key1;
    bits ^= bits >> 13;
    bits *= 3266489909u;
    bits ^= bits >> 16;
    return ((~bits) >> 9) * 2 + 1;
}

// Not above the logarithm to base 2 of the noise: E = -log(1 - w) >= w, and a float's bits are nearly a logarithm.
inline float least_log_noise(uint32_t shortfall) {
    return float(bits_of(float(shortfall))) * (1.0f / (1 << 23)) - (127.0f + 24.0f);
}

inline Vec least_log_noise(IdVec shortfall) {
    const Vec number = __builtin_convertvector(reinterpret_cast<IntVec>(shortfall), Vec);
    return __builtin_convertvector(reinterpret_cast<IntVec>(number), Vec) * (1.0f / (1 << 23)) - (127.0f + 24.0f);
}

inline double score_of(const Field& field, const Rules& rules, int id) {
    const double noise = -std::log1p(-double(shortfall(uint32_t(id), rules.keys[0], rules.keys[1])) * 0x1p-24);
    return double(field.distance(id) * field.rate_to_base_2) - std::log2(noise);
}

// No less than the scores of these tokens, but for rounding.
template <class Number, class Ids>
Number most_of(const Field& field, const Rules& rules, Number logits, Ids ids) {
    return (logits - field.best) * field.rate_to_base_2 - least_log_noise(shortfall(ids, rules.keys[0], rules.keys[1]));
}

// Whether one of the tokens [begin, end) may score above the bar. It may err on the side of yes.
inline bool may_pass(const Field& field, const Rules& rules, int begin, int end, float bar) {
    if (end - begin < BLOCK) return true;
    IdVec ids = uint32_t(begin) + FIRST_IDS;
    IntVec may = {};
    for (int from = begin; from < end; from += LANES, ids += LANES)
        may |= most_of(field, rules, load(field.logits + from), ids) > bar;
    return has_any(may);
}

// The token that wins; the likeliest always takes part.
inline int winner(const Field& field, const Rules& rules, int likeliest) {
    int first = likeliest;
    double highest = score_of(field, rules, likeliest);
    for (int begin = 0; begin < field.size; begin += BLOCK) {
        const int end = std::min(begin + BLOCK, field.size);
        // A little lower, for what rounding may do.
        const float bar = float(highest) - 1e-3f;
        if (!may_pass(field, rules, begin, end, bar)) continue;
        for (int id = begin; id < end; ++id) {
            const float most = most_of(field, rules, field.logits[id], uint32_t(id));
            if (!(most > bar) || !field.holds(id)) continue;
            const double score = score_of(field, rules, id);
            if (score > highest || (score == highest && id < first)) highest = score, first = id;
        }
    }
    return first;
}

inline double weight_at(const Field& field, float distance) { return exp_of(splat(distance * field.rate))[0]; }

// What `each` makes of the logits [begin, end), summed; of -inf where a vector is not full. The order of the sum depends
// on the range alone.
template <class Each>
double sum_over(const float* logits, int begin, int end, const Each& each) {
    double total = 0.0;
    while (end - begin >= LANES) {
        Vec sum = {};
        for (const int stop = std::min(begin + PORTION, end); stop - begin >= LANES; begin += LANES)
            sum += each(load(logits + begin));
        total += sum_of(sum);
    }
    float rest[LANES];
    std::fill_n(rest, LANES, -INFINITE);
    std::copy(logits + begin, logits + end, rest);
    return total + sum_of(each(load(rest)));
}

// The weight of all tokens.
inline double whole_weight(const Field& field) {
    const auto weights = [&](Vec logits) { return exp_of((logits - field.best) * field.rate); };
    return sum_over(field.logits, 0, field.size, weights);
}

// The weight of the tokens [begin, end) that lie nearer to the best than `edge`, or as near where it counts as well.
template <bool COUNTS_EDGE>
double weight_within(const Field& field, int begin, int end, float edge) {
    return sum_over(field.logits, begin, end, [&](Vec logits) {
        const Vec distances = logits - field.best;
        const IntVec counts = COUNTS_EDGE ? distances >= edge : distances > edge;
        return has_any(counts) ? pick(counts, exp_of(distances * field.rate), Vec{}) : Vec{};
    });
}

// The weight of the tokens before (distance, id) in the order of the filters.
inline double weight_before(const Field& field, float distance, int id) {
    return weight_within<true>(field, 0, id, distance) + weight_within<false>(field, id, field.size, distance);
}

// The token that wins among the first `top_p` of all the weight.
inline int winner_within(Field& field, const Rules& rules, int likeliest) {
    // The winner over more tokens than are left is asked whether the earlier ones leave room for it. If not, it and
    // all later ones are out, and the race is held again.
    double limit = 0.0;
    while (true) {
        const int token = winner(field, rules, likeliest);
        if (token == likeliest) return token;
        if (limit == 0.0) limit = rules.top_p * whole_weight(field);
        if (weight_before(field, field.distance(token), token) < limit) return token;
        field.end_distance = field.distance(token);
        field.end_id = token;
    }
}

using Entry = std::pair<float, int>;  // distance and minus the id: the greater comes earlier

// The first `count` tokens in the order of the filters, the first first.
inline const std::vector<Entry>& first_tokens(const Field& field, int count) {
    thread_local std::vector<float> highest;
    thread_local std::vector<Entry> entries;
    // Of tokens in so many groups, `count` are at least as likely as the likeliest of the group that is `count`th.
    const int num_groups = std::min(field.size, std::max(256, 4 * count));
    highest.assign(field.logits, field.logits + num_groups);
    for (int begin = num_groups; begin < field.size; begin += num_groups)
        for (int i = 0; i < std::min(num_groups, field.size - begin); ++i)
            highest[i] = std::max(highest[i], field.logits[begin + i]);
    std::nth_element(highest.begin(), highest.begin() + count - 1, highest.end(), std::greater<float>());
    const float bar = highest[count - 1] - field.best;
    entries.clear();
    for (int begin = 0; begin < field.size; begin += BLOCK) {
        const int end = std::min(begin + BLOCK, field.size);
        int has_any = 0;
        for (int id = begin; id < end; ++id) has_any |= field.distance(id) >= bar;
        for (int id = begin; has_any && id < end; ++id)
            if (field.distance(id) >= bar) entries.emplace_back(field.distance(id), -id);
    }
    std::nth_element(entries.begin(), entries.begin() + count - 1, entries.end(), std::greater<Entry>());
    entries.resize(count);
    std::sort(entries.begin(), entries.end(), std::greater<Entry>());
    return entries;
}

// The token that wins among the first `top_k`, and of these among the first `top_p` of their weight.
inline int winner_among_first(const Field& field, const Rules& rules) {
    const std::vector<Entry>& entries = first_tokens(field, rules.top_k);
    const auto weight = [&field](const Entry& entry) { return double(weight_at(field, entry.first)); };
    double limit = 0.0, before = 0.0, highest = -std::numeric_limits<double>::infinity();
    for (const Entry& entry : entries) limit += weight(entry);
    limit = rules.top_p < 1.0 ? limit * rules.top_p : std::numeric_limits<double>::infinity();
    int first = -entries[0].second;
    for (const Entry& entry : entries) {
        const int id = -entry.second;
        if (id != -entries[0].second && (before >= limit || entry.first < field.least)) break;
        before += weight(entry);
        const double score = score_of(field, rules, id);
        if (score > highest) highest = score, first = id;
    }
    return first;
}

inline int draw(const float* logits, int vocab_size, int likeliest, const Rules& rules) {
    Field field{logits, vocab_size, logits[likeliest], 1.0f / rules.temperature, rules.least};
    if (rules.top_k > 0 && rules.top_k < vocab_size) return winner_among_first(field, rules);
    return rules.top_p < 1.0 ? winner_within(field, rules, likeliest) : winner(field, rules, likeliest);
}

}  // namespace tokenpost::race
