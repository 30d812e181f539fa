// Log probabilities as workers/model/sampling/token_logprobs.py tells them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "race.h"

namespace tokenpost::ranks {

// What is told of a token that cannot come; `NEVER` of logprobs.py.
constexpr float NEVER = -9999.0f;

// Writes a row of `pack_ranked`: the ids of the token and of the `num_top` likeliest, then the bits of their log
// probabilities. `is_sound` says whether logits[best] is finite and the highest; without it nothing can come.
inline void tell(const float* logits, int vocab_size, bool is_sound, int best, int64_t token, int num_top,
                 int num_told, int64_t* packed) {
    const float total = is_sound ? float(std::log(race::whole_weight({logits, vocab_size, logits[best]}))) : 0.0f;
    const auto put = [&](int place, int64_t id) {
        // NaN is nothing that can come either.
        const float logprob = is_sound ? logits[id] - logits[best] - total : NEVER;
        const double told = logprob > NEVER ? logprob : NEVER;
        packed[place] = id;
        std::memcpy(packed + num_told + place, &told, sizeof told);
    };
    put(0, token);
    if (num_top == 0) return;
    if (!is_sound) {
        for (int i = 0; i < num_top; ++i) put(1 + i, i);
        return;
    }
    // Ordered by the logits themselves, not by distances, which round.
    const race::Field of_logits{logits, vocab_size, 0.0f};
    int place = 1;
    for (const race::Entry& entry : race::first_tokens(of_logits, num_top)) put(place++, -entry.second);
}

}  // namespace tokenpost::ranks
