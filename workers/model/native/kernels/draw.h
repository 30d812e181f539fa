// One row's draw from end to end, while it lies in the nearest caches: edits, race, log probabilities.
#pragma once
#include <cstdint>

#include "best.h"
#include "edits.h"
#include "race.h"
#include "ranks.h"

namespace tokenpost::draw {

// `_ROW` of workers/model/native/sampling.py.
struct Row {
    race::Rules race;
    edits::Edits edits;
    int32_t ranked_row;  // among those that tell log probabilities; -1 for none
    int32_t num_top;     // of how many of the likeliest
};
static_assert(sizeof(Row) == 112);

struct Told {
    int64_t* packed;  // [num_ranked, 2 * num_told]
    int32_t num_told;
};

constexpr int64_t NO_TOKEN = -1;

// The token, or NO_TOKEN. `token` is some id of the vocabulary even so.
inline int64_t draw(float* logits, int vocab_size, const Row& row, int64_t pending, const Told& told, int64_t& token) {
    int32_t likeliest, best;
    bool is_sound = find_best(logits, vocab_size, likeliest);
    const bool was_sound = is_sound;
    best = likeliest;
    const bool has_edits = row.edits.num_masked + row.edits.num_biased + row.edits.num_held + row.edits.has_pending > 0;
    edits::Editor editor(logits, row.ranked_row >= 0);
    if (has_edits) {
        editor.apply(row.edits, int32_t(pending));
        is_sound &= find_best(logits, vocab_size, best);
    }
    token = is_sound && row.race.temperature > 0.0f ? race::draw(logits, vocab_size, best, row.race) : best;
    if (row.ranked_row >= 0) {
        editor.undo();
        ranks::tell(logits, vocab_size, was_sound, likeliest, token, row.num_top, told.num_told,
                    told.packed + int64_t(row.ranked_row) * 2 * told.num_told);
    }
    return is_sound ? token : NO_TOKEN;
}

}  // namespace tokenpost::draw
