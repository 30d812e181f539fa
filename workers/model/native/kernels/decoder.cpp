// The library's door: plain functions for workers/model/native/library.py.
#include "decoder.h"
#include "race.h"

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

void tokenpost_reset(void* decoder) { of(decoder)->reset(); }

}  // extern "C"
