// Samples one row from end to end while it lies in the processor's caches: logit edits, sampling, log probabilities.
#pragma once
#include <cstdint>

#include "argmax.h"
#include "exponential_race.h"
#include "logit_edits.h"
#include "logprobs.h"

namespace tokenpost {

// A row's request; workers/model/native/sampling.py packs it.
struct SamplingRow {
    exponential_race::SamplingRules rules;
    LogitEdits edits;
    const uint32_t* mask;  // the tokens that may be sampled, see AllowedLogits; null: all
    int32_t ranked_row;  // index among the rows that report log probabilities; -1: not one of them
    int32_t num_top;     // how many of the likeliest tokens it reports
};
static_assert(sizeof(SamplingRow) == 120);

struct LogprobOutput {
    int64_t* packed;  // [num_ranked, 2 * num_columns]
    int32_t num_columns;
};

constexpr int64_t NO_TOKEN = -1;

// The token, or NO_TOKEN when none can be sampled. `token` is an id of the vocabulary in both cases.
inline int64_t sample_row(float* logits, int vocab_size, const SamplingRow& row, int64_t pending,
                          const LogprobOutput& output, int64_t& token) {
    int32_t likeliest, best;
    bool is_finite = argmax(logits, vocab_size, likeliest);
    const bool was_finite = is_finite;
    best = likeliest;
    const bool has_edits =
        row.edits.num_masked + row.edits.num_biased + row.edits.num_counted + row.edits.has_pending > 0;
    LogitEditor editor(logits, row.ranked_row >= 0);
    if (has_edits) editor.apply(row.edits, int32_t(pending));
    const auto sample = [&](const auto& candidates) {
        if (has_edits || row.mask) is_finite &= argmax_of(candidates, vocab_size, best);
        const bool is_random = is_finite && row.rules.temperature > 0.0f;
        token = is_random ? exponential_race::sample(candidates, vocab_size, best, row.rules) : best;
    };
    if (row.mask)
        sample(AllowedLogits{logits, row.mask});
    else
        sample(AllLogits{logits});
    if (row.ranked_row >= 0) {
        editor.undo();
        logprobs::write_row(logits, vocab_size, was_finite, likeliest, token, row.num_top, output.num_columns,
                            output.packed + int64_t(row.ranked_row) * 2 * output.num_columns);
    }
    return is_finite ? token : NO_TOKEN;
}

}  // namespace tokenpost
