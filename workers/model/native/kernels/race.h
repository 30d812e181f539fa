// Draws tokens as workers/model/sampling/race.py does: one pass over a row, more only where top_p asks for sums.
//
// Plain loops over small blocks, which compilers turn into vector instructions. No row's token depends on another row.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

namespace tokenpost::race {

constexpr int BLOCK = 64;
constexpr float LOG2_E = 1.4426950408889634f;

struct Row {
    int32_t place;  // of its logits in the batch
    int32_t keys[2];
    float temperature;
    float least;    // distance below the best of the least likely token in the race, by min_p; -inf for all
    int32_t top_k;  // 0 for all
    double top_p;   // 1 or more for all
};

// A row with the tokens that are still in the race: those at `least` that come before `end`, in the order of the
// filters: the likeliest first, of equals the lower id.
struct Field {
    const float* logits;
    int size;
    float best;
    float scale;  // distances times this are logarithms of weights to base 2
    float least;
    float end_distance;
    int end_id;

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

inline float float_of(int32_t bits) {
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

// How often 2**-24 goes into 1 - u, where u is the uniform number of noise.py: odd, below 2**24.
inline int32_t shortfall(uint32_t id, uint32_t key0, uint32_t key1) {
    uint32_t bits = id * 2654435761u + key0;
    bits ^= bits >> 16;
    bits = bits * 2246822507u + key1;
    bits ^= bits >> 13;
    bits *= 3266489909u;
    bits ^= bits >> 16;
    return int32_t(((~bits) >> 9) * 2 + 1);
}

// Not above the logarithm to base 2 of the noise: E = -log(1 - w) >= w, and a float's bits are nearly a logarithm.
inline float least_log_noise(int32_t shortfall) {
    return float(bits_of(float(shortfall))) * (1.0f / (1 << 23)) - (127.0f + 24.0f);
}

inline double score_of(const Field& field, const Row& row, int id) {
    const double noise = -std::log1p(-shortfall(id, row.keys[0], row.keys[1]) * 0x1p-24);
    return double(field.distance(id) * field.scale) - std::log2(noise);
}

// Whether one of a block's tokens may score above the bar. It may err on the side of yes.
inline bool may_pass(const Field& field, const Row& row, int begin, int count, float bar) {
    const float* logits = field.logits + begin;
    const uint32_t key0 = row.keys[0], key1 = row.keys[1];
    const float best = field.best, scale = field.scale;
    int may = 0;
    for (int i = 0; i < count; ++i) {
        const float most = (logits[i] - best) * scale - least_log_noise(shortfall(begin + i, key0, key1));
        may |= most > bar;
    }
    return may != 0;
}

// The token that wins; the likeliest always takes part.
inline int winner(const Field& field, const Row& row, int likeliest) {
    int first = likeliest;
    double highest = score_of(field, row, likeliest);
    for (int begin = 0; begin < field.size; begin += BLOCK) {
        const int count = std::min(BLOCK, field.size - begin);
        // A little lower, for what rounding may do.
        const float bar = float(highest) - 1e-3f;
        if (!may_pass(field, row, begin, count, bar)) continue;
        for (int id = begin; id < begin + count; ++id) {
            const float most = field.distance(id) * field.scale -
                               least_log_noise(shortfall(id, row.keys[0], row.keys[1]));
            if (!(most > bar) || !field.holds(id)) continue;
            const double score = score_of(field, row, id);
            if (score > highest || (score == highest && id < first)) highest = score, first = id;
        }
    }
    return first;
}

// 2**x for x <= 0; 0 far down. Source: Taylor's series of 2**f around 0 for |f| <= 1/2.
inline float power_of_two(float x) {
    const float whole_and_magic = std::max(x, -126.0f) + 12582912.0f;  // 1.5 * 2**23 rounds to a whole number
    const float f = std::max(x, -126.0f) - (whole_and_magic - 12582912.0f);
    float sum = 1.5403530e-4f;
    sum = sum * f + 1.3333558e-3f;
    sum = sum * f + 9.6181291e-3f;
    sum = sum * f + 5.5504109e-2f;
    sum = sum * f + 2.4022651e-1f;
    sum = sum * f + 6.9314718e-1f;
    sum = sum * f + 1.0f;
    const float power = float_of((bits_of(whole_and_magic) << 23) + bits_of(1.0f));
    return x > -126.0f ? sum * power : 0.0f;
}

// The weight of the tokens [begin, end) that lie nearer to the best than `edge`, or as near where it counts as well.
template <bool COUNTS_EDGE>
double weight_within(const Field& field, int begin, int end, float edge) {
    const float best = field.best, scale = field.scale;
    const auto counts = [edge](float distance) { return COUNTS_EDGE ? distance >= edge : distance > edge; };
    double sum = 0.0;
    for (int from = begin; from < end; from += BLOCK) {
        const float* logits = field.logits + from;
        const int count = std::min(BLOCK, end - from);
        int has_any = 0;
        for (int i = 0; i < count; ++i) has_any |= counts(logits[i] - best);
        if (!has_any) continue;
        float weights[BLOCK] = {};
        for (int i = 0; i < count; ++i) {
            const float distance = logits[i] - best;
            weights[i] = counts(distance) ? power_of_two(distance * scale) : 0.0f;
        }
        for (int half = BLOCK / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) weights[i] += weights[i + half];
        sum += weights[0];
    }
    return sum;
}

// The weight of the tokens before (distance, id) in the order of the filters.
inline double weight_before(const Field& field, float distance, int id) {
    return weight_within<true>(field, 0, id, distance) + weight_within<false>(field, id, field.size, distance);
}

// The token that wins among the first `top_p` of all the weight.
inline int winner_within(Field& field, const Row& row, int likeliest) {
    // The winner over more tokens than are left is asked whether the earlier ones leave room for it. If not, it and
    // all later ones are out, and the race is held again.
    const double limit = row.top_p * weight_within<true>(field, 0, field.size, -std::numeric_limits<float>::infinity());
    while (true) {
        const int token = winner(field, row, likeliest);
        if (token == likeliest || weight_before(field, field.distance(token), token) < limit) return token;
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
inline int winner_among_first(const Field& field, const Row& row) {
    const std::vector<Entry>& entries = first_tokens(field, row.top_k);
    const auto weight = [&field](const Entry& entry) {
        return double(power_of_two(entry.first * field.scale));
    };
    double limit = 0.0, before = 0.0, highest = -std::numeric_limits<double>::infinity();
    for (const Entry& entry : entries) limit += weight(entry);
    limit = row.top_p < 1.0 ? limit * row.top_p : std::numeric_limits<double>::infinity();
    int first = -entries[0].second;
    for (const Entry& entry : entries) {
        const int id = -entry.second;
        if (id != -entries[0].second && (before >= limit || entry.first < field.least)) break;
        before += weight(entry);
        const double score = score_of(field, row, id);
        if (score > highest) highest = score, first = id;
    }
    return first;
}

inline int draw(const float* logits, int vocab_size, int likeliest, const Row& row) {
    const float infinity = std::numeric_limits<float>::infinity();
    Field field{logits, vocab_size, logits[likeliest], LOG2_E / row.temperature, row.least, -infinity, vocab_size};
    if (row.top_k > 0 && row.top_k < vocab_size) return winner_among_first(field, row);
    return row.top_p < 1.0 ? winner_within(field, row, likeliest) : winner(field, row, likeliest);
}

}  // namespace tokenpost::race

// Draws a token for each of the rows; `tokens` holds the likeliest of every row of the batch before.
extern "C" void tokenpost_race(const float* logits, int64_t stride, int32_t vocab_size, int32_t num_rows,
                               const tokenpost::race::Row* rows, int64_t* tokens) {
    for (int i = 0; i < num_rows; ++i) {
        const int64_t place = rows[i].place;
        const float* row = logits + place * stride;
        // A row without a finite best logit has no token; its caller knows.
        if (std::isfinite(row[tokens[place]]))
            tokens[place] = tokenpost::race::draw(row, vocab_size, int(tokens[place]), rows[i]);
    }
}
