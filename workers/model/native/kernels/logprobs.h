// Log probabilities in the layout of workers/model/sampling/token_logprobs.py.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "exponential_race.h"

namespace tokenpost::logprobs {

// The log probability of a token that cannot be sampled; `IMPOSSIBLE` of token_logprobs.py.
constexpr float IMPOSSIBLE = -9999.0f;

// Writes a row of `pack_ranked`: the ids of the token and of the `num_top` likeliest, then the bits of their log
// probabilities. `is_finite` says whether logits[best] is finite and the highest; without it no token can be sampled.
inline void write_row(const float* logits, int vocab_size, bool is_finite, int best, int64_t token, int num_top,
                      int num_columns, int64_t* packed) {
    using Candidates = exponential_race::Candidates<AllLogits>;
    const Candidates all{{logits}, vocab_size, is_finite ? logits[best] : 0.0f};
    const float total = is_finite ? float(std::log(exponential_race::whole_weight(all))) : 0.0f;
    const auto put = [&](int column, int64_t id) {
        // NaN counts as impossible too.
        const float logprob = is_finite ? logits[id] - logits[best] - total : IMPOSSIBLE;
        const double reported = logprob > IMPOSSIBLE ? logprob : IMPOSSIBLE;
        packed[column] = id;
        std::memcpy(packed + num_columns + column, &reported, sizeof reported);
    };
    put(0, token);
    if (num_top == 0) return;
    if (!is_finite) {
        for (int i = 0; i < num_top; ++i) put(1 + i, i);
        return;
    }
    // Ordered by the logits themselves, not by distances, which round.
    const Candidates by_logit{{logits}, vocab_size, 0.0f};
    int column = 1;
    for (const exponential_race::Entry& entry : exponential_race::top_tokens(by_logit, num_top))
        put(column++, -entry.second);
}

}  // namespace tokenpost::logprobs
