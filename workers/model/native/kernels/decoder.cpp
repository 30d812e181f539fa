// The library's door: plain functions for workers/model/native/library.py.
#include "decoder.h"
#include "draw.h"

#include <exception>
#include <string>

using namespace tokenpost;

namespace {

thread_local std::string complaint;

AnyDecoder* make(const TokenpostShape& shape, const TokenpostLayer* layers, const TokenpostEnds& ends,
                 const TokenpostLimits& limits) {
    if (!shape.is_bf16) return new Decoder<float, float>(shape, layers, ends, limits);
#ifdef TOKENPOST_AMX
    if (may_use_amx()) return new Decoder<bf16, bf16>(shape, layers, ends, limits);
#endif
    return new Decoder<bf16, float>(shape, layers, ends, limits);
}

AnyDecoder* of(void* decoder) { return static_cast<AnyDecoder*>(decoder); }

// work(r) for each row, on the threads of the decoder, if there is one.
template <class Work>
void for_each_row(void* decoder, int num_rows, const Work& work) {
    if (decoder == nullptr || num_rows < 2) {
        for (int r = 0; r < num_rows; ++r) work(r);
        return;
    }
    Team& team = of(decoder)->team();
    team.run([&](int me) {
        team.share(num_rows, me, [&](int from, int to) {
            for (int r = from; r < to; ++r) work(r);
        });
    });
}

}  // namespace

extern "C" {

// Null when it cannot be made; tokenpost_complaint says why.
void* tokenpost_make(const TokenpostShape* shape, const TokenpostLayer* layers, const TokenpostEnds* ends,
                     const TokenpostLimits* limits) {
    try {
        return make(*shape, layers, *ends, *limits);
    } catch (const std::exception& error) {
        complaint = error.what();
        return nullptr;
    }
}

const char* tokenpost_complaint() { return complaint.c_str(); }

void tokenpost_free(void* decoder) { delete of(decoder); }

void tokenpost_step(void* decoder, const TokenpostBatch* batch) { of(decoder)->step(*batch); }

// Logits after the tokens at `places` of the last step, their best ids, and whether they are finite.
void tokenpost_head(void* decoder, int32_t num_rows, const int32_t* places, int32_t* best, uint8_t* is_finite) {
    of(decoder)->head(num_rows, places, best, is_finite);
}

// Bytes of the weights and of the working memory; the cache is what the caller asked for.
void tokenpost_memory(void* decoder, int64_t* weights, int64_t* working) { of(decoder)->tell_memory(weights, working); }

float* tokenpost_logits(void* decoder) { return of(decoder)->logits(); }

int32_t tokenpost_logit_stride(void* decoder) { return of(decoder)->logit_stride(); }

void tokenpost_clear(void* decoder, int32_t num_blocks, const int32_t* blocks) {
    of(decoder)->clear(num_blocks, blocks);
}

// Draws a token for each row, of whose logits nothing is left to read.
//
// decoder: whose threads share the rows; null for the caller alone
// pending: of each row the token that the host does not know yet; null where no row has one
// tokens:  [num_rows] some id of the vocabulary for each
// packed:  [num_rows] the same, -1 where there is none to draw; then what rows tell of log probabilities
void tokenpost_draw(void* decoder, float* logits, int64_t stride, int32_t vocab_size, int32_t num_rows,
                    const draw::Row* rows, const int64_t* pending, int64_t* tokens, int64_t* packed,
                    int32_t num_told) {
    const draw::Told told{packed + num_rows, num_told};
    for_each_row(decoder, num_rows, [&](int r) {
        packed[r] = draw::draw(logits + r * stride, vocab_size, rows[r], pending ? pending[r] : 0, told, tokens[r]);
    });
}

// `pack_ranked` of workers/model/sampling/token_logprobs.py.
void tokenpost_rank(void* decoder, const float* logits, int64_t stride, int32_t vocab_size, int32_t num_rows,
                    const int64_t* token_ids, int32_t num_top, int64_t* packed) {
    for_each_row(decoder, num_rows, [&](int r) {
        const float* row = logits + r * stride;
        const int num_told = 1 + num_top;
        int32_t best;
        const bool is_sound = find_best(row, vocab_size, best);
        ranks::tell(row, vocab_size, is_sound, best, token_ids[r], num_top, num_told, packed + 2 * r * num_told);
    });
}

void tokenpost_reset(void* decoder) { of(decoder)->reset(); }

}  // extern "C"
