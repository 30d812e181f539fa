// Edits of a row's logits as in workers/model/sampling/logit_edits.py: masks, biases, and penalties of tokens that the
// sequence holds.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace tokenpost {

// Ids lie within the vocabulary. No id comes twice among the counted ones, nor among the biased ones.
struct LogitEdits {
    const int32_t* masked;
    const int32_t* biased;
    const float* biases;
    const int32_t* counted;  // tokens of the sequence
    const int32_t* counts;   // how often its output holds each
    int32_t num_masked, num_biased, num_counted;
    int32_t has_pending;  // whether a token that the host does not know yet counts as well
    float repetition, presence, frequency;
};

// In float64, where both products are exact: the result does not depend on how a compiler or torch joins the
// operations. An overflow is clamped to a finite number; -inf stays -inf.
inline float penalised(float logit, int32_t count, const LogitEdits& edits) {
    constexpr double most = std::numeric_limits<float>::max();
    const double value = logit, repetition = edits.repetition;
    const double scaled = value > 0.0 ? value / repetition : value * repetition;
    const double penalty = double(edits.presence) * (count > 0) + double(edits.frequency) * count;
    const double bounded = std::min(std::max(scaled - penalty, -most), most);
    return value == -std::numeric_limits<double>::infinity() ? logit : float(bounded);
}

// Applies the edits of one row, and undoes them.
class LogitEditor {
   public:
    LogitEditor(float* logits, bool keeps_undo_log) : logits_(logits), keeps_undo_log_(keeps_undo_log) {
        undo_log().clear();
    }

    // pending: the token that counts as well, where the edits ask for it
    void apply(const LogitEdits& edits, int32_t pending) {
        for (int i = 0; i < edits.num_masked; ++i) put(edits.masked[i], -std::numeric_limits<float>::infinity());
        for (int i = 0; i < edits.num_biased; ++i) put(edits.biased[i], logits_[edits.biased[i]] + edits.biases[i]);
        const int again = edits.has_pending ? pending : -1;
        bool is_counted = false;
        for (int begin = 0; begin < edits.num_counted; begin += BLOCK)
            is_counted |= penalise(edits, begin, std::min(BLOCK, edits.num_counted - begin), again);
        if (again >= 0 && !is_counted) put(again, penalised(logits_[again], 1, edits));
    }

    void undo() {
        for (auto one = undo_log().rbegin(); one != undo_log().rend(); ++one) logits_[one->first] = one->second;
    }

   private:
    static constexpr int BLOCK = 64;

    // Penalises some of the counted tokens; whether `again` is one of them. Gathered first, so that loops vectorise.
    bool penalise(const LogitEdits& edits, int begin, int count, int again) {
        const int32_t *ids = edits.counted + begin, *counts = edits.counts + begin;
        float values[BLOCK];
        int is_counted = 0;
        for (int i = 0; i < count; ++i) values[i] = logits_[ids[i]];
        if (keeps_undo_log_)
            for (int i = 0; i < count; ++i) undo_log().emplace_back(ids[i], values[i]);
        for (int i = 0; i < count; ++i) {
            const int is_again = ids[i] == again;
            is_counted |= is_again;
            values[i] = penalised(values[i], counts[i] + is_again, edits);
        }
        for (int i = 0; i < count; ++i) logits_[ids[i]] = values[i];
        return is_counted != 0;
    }

    void put(int32_t id, float value) {
        if (keeps_undo_log_) undo_log().emplace_back(id, logits_[id]);
        logits_[id] = value;
    }

    static std::vector<std::pair<int32_t, float>>& undo_log() {
        static thread_local std::vector<std::pair<int32_t, float>> kept;
        return kept;
    }

    float* logits_;
    bool keeps_undo_log_;
};

}  // namespace tokenpost
