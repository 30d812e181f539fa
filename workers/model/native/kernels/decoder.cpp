// The library's C interface, which workers/model/native/library.py calls.
#include "decoder.h"
#include "sample_row.h"

#include <exception>
#include <string>

using namespace tokenpost;

namespace {

thread_local std::string last_error;

AnyDecoder* create(const TokenpostShape& shape, const TokenpostLayer* layers, const TokenpostOuterWeights& outer,
                   const TokenpostLimits& limits) {
    if (!shape.is_bf16) return new Decoder<float, float>(shape, layers, outer, limits);
#ifdef TOKENPOST_BF16_DOT
    if (multiplies_bf16()) return new Decoder<bf16, bf16>(shape, layers, outer, limits);
#endif
    return new Decoder<bf16, float>(shape, layers, outer, limits);
}

AnyDecoder* of(void* decoder) { return static_cast<AnyDecoder*>(decoder); }

// work(r) for each row, on the decoder's thread pool if there is a decoder.
template <class Work>
void for_each_row(void* decoder, int num_rows, const Work& work) {
    if (decoder == nullptr || num_rows < 2) {
        for (int r = 0; r < num_rows; ++r) work(r);
        return;
    }
    ThreadPool& pool = of(decoder)->pool();
    pool.run([&](int thread) {
        pool.parallel_for(num_rows, thread, [&](int from, int to) {
            for (int r = from; r < to; ++r) work(r);
        });
    });
}

}  // namespace

extern "C" {

// Null when it cannot be created; tokenpost_last_error says why.
void* tokenpost_create(const TokenpostShape* shape, const TokenpostLayer* layers, const TokenpostOuterWeights* outer,
                       const TokenpostLimits* limits) {
    try {
        return create(*shape, layers, *outer, *limits);
    } catch (const std::exception& error) {
        last_error = error.what();
        return nullptr;
    }
}

const char* tokenpost_last_error() { return last_error.c_str(); }

void tokenpost_free(void* decoder) { delete of(decoder); }

void tokenpost_step(void* decoder, const TokenpostBatch* batch) { of(decoder)->step(*batch); }

// Logits after the tokens at `places` of the last step, their highest ids, and whether they are finite.
void tokenpost_head(void* decoder, int32_t num_rows, const int32_t* places, int32_t* best, uint8_t* is_finite) {
    of(decoder)->head(num_rows, places, best, is_finite);
}

// Bytes of the weights and of the working memory, without the KV cache, whose size the caller chose.
void tokenpost_memory(void* decoder, int64_t* weights, int64_t* working) {
    of(decoder)->measure_memory(weights, working);
}

// What the kernels are compiled for and compute with: a name of workers/model/native/instruction_sets.py.
const char* tokenpost_instruction_set() { return instruction_set(); }

float* tokenpost_logits(void* decoder) { return of(decoder)->logits(); }

int32_t tokenpost_logit_stride(void* decoder) { return of(decoder)->logit_stride(); }

void tokenpost_clear(void* decoder, int32_t num_blocks, const int32_t* blocks) {
    of(decoder)->clear(num_blocks, blocks);
}

// Samples a token for each row, and overwrites the row's logits.
//
// decoder: its thread pool computes the rows; null: the calling thread does
// pending: of each row the token that the host does not know yet; null where no row has one
// tokens:  [num_rows] an id of the vocabulary for each
// packed:  [num_rows] the same, -1 where no token can be sampled; then the log probabilities that rows report
void tokenpost_sample(void* decoder, float* logits, int64_t stride, int32_t vocab_size, int32_t num_rows,
                      const SamplingRow* rows, const int64_t* pending, int64_t* tokens, int64_t* packed,
                      int32_t num_columns) {
    const LogprobOutput output{packed + num_rows, num_columns};
    for_each_row(decoder, num_rows, [&](int r) {
        const int64_t own = pending ? pending[r] : 0;
        packed[r] = sample_row(logits + r * stride, vocab_size, rows[r], own, output, tokens[r]);
    });
}

// `pack_ranked` of workers/model/sampling/token_logprobs.py.
void tokenpost_logprobs(void* decoder, const float* logits, int64_t stride, int32_t vocab_size, int32_t num_rows,
                        const int64_t* token_ids, int32_t num_top, int64_t* packed) {
    for_each_row(decoder, num_rows, [&](int r) {
        const float* row = logits + r * stride;
        const int num_columns = 1 + num_top;
        int32_t best;
        const bool is_finite = argmax(row, vocab_size, best);
        logprobs::write_row(row, vocab_size, is_finite, best, token_ids[r], num_top, num_columns,
                            packed + 2 * r * num_columns);
    });
}

void tokenpost_reset(void* decoder) { of(decoder)->reset(); }

}  // extern "C"
