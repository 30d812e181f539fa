// Exponential-race (Gumbel-max) sampling as in workers/model/sampling/exponential_race.py: one pass over a row of
// logits, and further passes only where top_p needs sums.
//
// The token of a row does not depend on any other row.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "masked_logits.h"

namespace tokenpost::exponential_race {

constexpr int BLOCK = LOGIT_BLOCK;
// How many weights are summed in float32 vectors before the sum is added in float64.
constexpr int FLOAT32_SUM_LEN = 16 * BLOCK;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float INFINITE = std::numeric_limits<float>::infinity();

struct SamplingRules {
    double top_p;  // 1 or more: no limit
    int32_t keys[2];
    float temperature;   // 0: greedy
    float min_distance;  // logit distance below the highest of the least likely candidate, by min_p; -inf: no limit
    int32_t top_k;       // 0: no limit
};

// A row of logits and its candidates: the tokens at `min_distance` or nearer that come before `end` in the order of the
// filters, which is by logit, highest first, and among equals by id.
template <class Row>
struct Candidates {
    Row row;
    int size;
    float best;
    float rate = 1.0f;  // a distance times the rate is the logarithm of a weight
    float min_distance = -INFINITE;
    float end_distance = -INFINITE;
    int end_id = size;
    float rate_to_base_2 = LOG2_E * rate;

    // At most 0. Tokens of equal distance are equally likely.
    float distance(int id) const { return row.at(id) - best; }

    bool contains(int id) const {
        const float own = distance(id);
        return own >= min_distance && (own > end_distance || (own == end_distance && id < end_id));
    }
};

inline int32_t bits_of(float number) {
    int32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}

// (1 - u) * 2**24, where u is the uniform number of noise.py: odd, below 2**24. For one id or a vector of them.
template <class Ids>
Ids uniform_complement(Ids ids, uint32_t key0, uint32_t key1) {
    Ids bits = ids * 2654435761u + key0;
    bits ^= bits >> 16;
    bits = bits * 2246822507u + key1;
    bits ^= bits >> 13;
    bits *= 3266489909u;
    bits ^= bits >> 16;
    return ((~bits) >> 9) * 2 + 1;
}

// A lower bound of the noise's base-2 logarithm: E = -log(1 - w) >= w, and a float's bits are nearly a logarithm.
inline float log_noise_bound(uint32_t complement) {
    return float(bits_of(float(complement))) * (1.0f / (1 << 23)) - (127.0f + 24.0f);
}

inline Vec log_noise_bound(Words complement) {
    const Vec number = converted<FloatRegister>(bits_as<IntRegister>(complement));
    return converted<FloatRegister>(bits_as<IntRegister>(number)) * (1.0f / (1 << 23)) - (127.0f + 24.0f);
}

// The base-2 logarithm of weight / noise: the sampled token is the one with the highest score.
template <class Row>
double score_of(const Candidates<Row>& candidates, const SamplingRules& rules, int id) {
    const double noise =
        -std::log1p(-double(uniform_complement(uint32_t(id), rules.keys[0], rules.keys[1])) * 0x1p-24);
    return double(candidates.distance(id) * candidates.rate_to_base_2) - std::log2(noise);
}

// An upper bound of the scores of these tokens, up to rounding.
template <class Row, class Number, class Ids>
Number score_bound(const Candidates<Row>& candidates, const SamplingRules& rules, Number logits, Ids ids) {
    return (logits - candidates.best) * candidates.rate_to_base_2 -
           log_noise_bound(uniform_complement(ids, rules.keys[0], rules.keys[1]));
}

// Whether one of the tokens [begin, end) may score above the threshold. It may say yes wrongly, but never no.
template <class Row>
bool may_exceed(const Candidates<Row>& candidates, const SamplingRules& rules, int begin, int end, float threshold) {
    if (end - begin < BLOCK) return true;
    if (!candidates.row.allows_any(begin)) return false;
    Words ids = uint32_t(begin) + load(COUNT);
    IntVec may = {};
    for (int from = begin; from < end; from += VEC_LEN, ids += VEC_LEN)
        may |= score_bound(candidates, rules, candidates.row.from(from), ids) > threshold;
    return has_any(may);
}

// The candidate with the highest score; the likeliest token is always one of them.
template <class Row>
int sample_candidate(const Candidates<Row>& candidates, const SamplingRules& rules, int likeliest) {
    int token = likeliest;
    double highest = score_of(candidates, rules, likeliest);
    for (int begin = 0; begin < candidates.size; begin += BLOCK) {
        const int end = std::min(begin + BLOCK, candidates.size);
        // A little lower, to allow for rounding.
        const float threshold = float(highest) - 1e-3f;
        if (!may_exceed(candidates, rules, begin, end, threshold)) continue;
        for (int id = begin; id < end; ++id) {
            const float bound = score_bound(candidates, rules, candidates.row.at(id), uint32_t(id));
            if (!(bound > threshold) || !candidates.contains(id)) continue;
            const double score = score_of(candidates, rules, id);
            if (score > highest || (score == highest && id < token)) highest = score, token = id;
        }
    }
    return token;
}

template <class Row>
double weight_at(const Candidates<Row>& candidates, float distance) {
    return first_of(exp_of(splat(distance * candidates.rate)));
}

// The sum of each(logits) over [begin, end); a vector that is not full is padded with -inf. The order of the sum
// depends on the range alone.
template <class Row, class Each>
double sum_over(const Row& row, int begin, int end, const Each& each) {
    double total = 0.0;
    while (end - begin >= VEC_LEN) {
        Vec sum = {};
        for (const int stop = std::min(begin + FLOAT32_SUM_LEN, end); stop - begin >= VEC_LEN; begin += VEC_LEN)
            sum += each(row.from(begin));
        total += sum_of(sum);
    }
    float rest[VEC_LEN];
    std::fill_n(rest, VEC_LEN, -INFINITE);
    for (int i = begin; i < end; ++i) rest[i - begin] = row.at(i);
    return total + sum_of(each(load(rest)));
}

// The weight of all tokens.
template <class Row>
double whole_weight(const Candidates<Row>& candidates) {
    const auto weights = [&](Vec logits) { return exp_of((logits - candidates.best) * candidates.rate); };
    return sum_over(candidates.row, 0, candidates.size, weights);
}

// The weight of the tokens [begin, end) whose distance is nearer than `edge`, or as near with COUNTS_EDGE.
template <bool COUNTS_EDGE, class Row>
double weight_within(const Candidates<Row>& candidates, int begin, int end, float edge) {
    return sum_over(candidates.row, begin, end, [&](Vec logits) {
        const Vec distances = logits - candidates.best;
        const IntVec counts = COUNTS_EDGE ? distances >= edge : distances > edge;
        return has_any(counts) ? pick(counts, exp_of(distances * candidates.rate), Vec{}) : Vec{};
    });
}

// The weight of the tokens before (distance, id) in the order of the filters.
template <class Row>
double weight_before(const Candidates<Row>& candidates, float distance, int id) {
    return weight_within<true>(candidates, 0, id, distance) +
           weight_within<false>(candidates, id, candidates.size, distance);
}

// Samples among the first tokens that hold `top_p` of the whole weight.
template <class Row>
int sample_top_p(Candidates<Row>& candidates, const SamplingRules& rules, int likeliest) {
    // A token sampled from too many candidates is accepted if the tokens before it leave room for it. If not, it and
    // all later tokens are no candidates, and the next token is sampled from the rest.
    double limit = 0.0;
    while (true) {
        const int token = sample_candidate(candidates, rules, likeliest);
        if (token == likeliest) return token;
        if (limit == 0.0) limit = rules.top_p * whole_weight(candidates);
        if (weight_before(candidates, candidates.distance(token), token) < limit) return token;
        candidates.end_distance = candidates.distance(token);
        candidates.end_id = token;
    }
}

using Entry = std::pair<float, int>;  // distance and minus the id: the greater entry comes first

// The first `count` tokens in the order of the filters, sorted.
template <class Row>
const std::vector<Entry>& top_tokens(const Candidates<Row>& candidates, int count) {
    thread_local std::vector<float> highest;
    thread_local std::vector<Entry> entries;
    // Tokens are put into groups; `count` tokens are at least as likely as the count-th highest of the groups' maxima.
    const int num_groups = std::min(candidates.size, std::max(256, 4 * count));
    highest.assign(num_groups, -INFINITE);
    for (int begin = 0; begin < candidates.size; begin += num_groups) {
        const int num = std::min(num_groups, candidates.size - begin), num_whole = num / VEC_LEN * VEC_LEN;
        for (int i = 0; i < num_whole; i += VEC_LEN)
            store(&highest[i], larger(candidates.row.from(begin + i), load(&highest[i])));
        for (int i = num_whole; i < num; ++i) highest[i] = std::max(highest[i], candidates.row.at(begin + i));
    }
    std::nth_element(highest.begin(), highest.begin() + count - 1, highest.end(), std::greater<float>());
    const float threshold = highest[count - 1] - candidates.best;
    entries.clear();
    for (int begin = 0; begin < candidates.size; begin += BLOCK) {
        const int end = std::min(begin + BLOCK, candidates.size);
        int has_any = 0;
        for (int id = begin; id < end; ++id) has_any |= candidates.row.logits[id] - candidates.best >= threshold;
        if (!has_any || (end - begin == BLOCK && !candidates.row.allows_any(begin))) continue;
        for (int id = begin; id < end; ++id)
            if (candidates.row.allows(id) && candidates.distance(id) >= threshold)
                entries.emplace_back(candidates.distance(id), -id);
    }
    // A mask may leave fewer.
    count = std::min(count, int(entries.size()));
    std::nth_element(entries.begin(), entries.begin() + count - 1, entries.end(), std::greater<Entry>());
    entries.resize(count);
    std::sort(entries.begin(), entries.end(), std::greater<Entry>());
    return entries;
}

// Samples among the first `top_k` tokens, and of these among the first that hold `top_p` of their weight.
template <class Row>
int sample_top_k(const Candidates<Row>& candidates, const SamplingRules& rules) {
    const std::vector<Entry>& entries = top_tokens(candidates, rules.top_k);
    const auto weight = [&candidates](const Entry& entry) { return double(weight_at(candidates, entry.first)); };
    double limit = 0.0, before = 0.0, highest = -std::numeric_limits<double>::infinity();
    for (const Entry& entry : entries) limit += weight(entry);
    limit = rules.top_p < 1.0 ? limit * rules.top_p : std::numeric_limits<double>::infinity();
    int token = -entries[0].second;
    for (const Entry& entry : entries) {
        const int id = -entry.second;
        if (id != -entries[0].second && (before >= limit || entry.first < candidates.min_distance)) break;
        before += weight(entry);
        const double score = score_of(candidates, rules, id);
        if (score > highest) highest = score, token = id;
    }
    return token;
}

template <class Row>
int sample(const Row& row, int vocab_size, int likeliest, const SamplingRules& rules) {
    Candidates<Row> candidates{row, vocab_size, row.at(likeliest), 1.0f / rules.temperature, rules.min_distance};
    if (rules.top_k > 0 && rules.top_k < vocab_size) return sample_top_k(candidates, rules);
    return rules.top_p < 1.0 ? sample_top_p(candidates, rules, likeliest)
                             : sample_candidate(candidates, rules, likeliest);
}

}  // namespace tokenpost::exponential_race
