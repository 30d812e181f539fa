// Changes a row's logits as workers/model/sampling/edits.py does: masks, biases, and penalties of tokens that it holds.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace tokenpost::edits {

// Ids lie within the vocabulary. Those of `held` come once, and so do those of `biased`.
struct Edits {
    const int32_t* masked;
    const int32_t* biased;
    const float* biases;
    const int32_t* held;    // tokens of the sequence
    const int32_t* counts;  // how often its output holds each
    int32_t num_masked, num_biased, num_held;
    int32_t has_pending;  // whether a token that the host does not know yet counts as well
    float repetition, presence, frequency;
};

// In float64, where both products are exact: however a compiler or torch joins these operations, the result is one.
// What overflows stays finite; what is -inf stays so.
inline float penalised(float logit, int32_t count, const Edits& edits) {
    constexpr double most = std::numeric_limits<float>::max();
    const double value = logit, repetition = edits.repetition;
    const double scaled = value > 0.0 ? value / repetition : value * repetition;
    const double penalty = double(edits.presence) * (count > 0) + double(edits.frequency) * count;
    const double bounded = std::min(std::max(scaled - penalty, -most), most);
    return value == -std::numeric_limits<double>::infinity() ? logit : float(bounded);
}

// Edits of one row, and how to take them back.
class Editor {
   public:
    Editor(float* logits, bool keeps_old) : logits_(logits), keeps_old_(keeps_old) { old().clear(); }

    // pending: the token that counts as well, where the edits ask for it
    void apply(const Edits& edits, int32_t pending) {
        for (int i = 0; i < edits.num_masked; ++i) put(edits.masked[i], -std::numeric_limits<float>::infinity());
        for (int i = 0; i < edits.num_biased; ++i) put(edits.biased[i], logits_[edits.biased[i]] + edits.biases[i]);
        const int again = edits.has_pending ? pending : -1;
        bool is_held = false;
        for (int begin = 0; begin < edits.num_held; begin += BLOCK)
            is_held |= penalise(edits, begin, std::min(BLOCK, edits.num_held - begin), again);
        if (again >= 0 && !is_held) put(again, penalised(logits_[again], 1, edits));
    }

    void undo() {
        for (auto one = old().rbegin(); one != old().rend(); ++one) logits_[one->first] = one->second;
    }

   private:
    static constexpr int BLOCK = 64;

    // Some of the tokens that are held; whether `again` is one of them. Gathered first, so that the rest is vectors.
    bool penalise(const Edits& edits, int begin, int count, int again) {
        const int32_t *ids = edits.held + begin, *counts = edits.counts + begin;
        float values[BLOCK];
        int is_held = 0;
        for (int i = 0; i < count; ++i) values[i] = logits_[ids[i]];
        if (keeps_old_)
            for (int i = 0; i < count; ++i) old().emplace_back(ids[i], values[i]);
        for (int i = 0; i < count; ++i) {
            const int is_again = ids[i] == again;
            is_held |= is_again;
            values[i] = penalised(values[i], counts[i] + is_again, edits);
        }
        for (int i = 0; i < count; ++i) logits_[ids[i]] = values[i];
        return is_held != 0;
    }

    void put(int32_t id, float value) {
        if (keeps_old_) old().emplace_back(id, logits_[id]);
        logits_[id] = value;
    }

    static std::vector<std::pair<int32_t, float>>& old() {
        static thread_local std::vector<std::pair<int32_t, float>> kept;
        return kept;
    }

    float* logits_;
    bool keeps_old_;
};

}  // namespace tokenpost::edits
