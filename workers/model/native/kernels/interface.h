// The structs of the C interface. Plain C layout: workers/model/native/library.py mirrors it.
#pragma once
#include <cstdint>

extern "C" {

enum TokenpostActivation { TOKENPOST_SILU = 0, TOKENPOST_GELU_TANH = 1 };

// The shape of a model. Sizes count numbers, not bytes.
struct TokenpostShape {
    int32_t num_layers;
    int32_t hidden_size;
    int32_t intermediate_size;
    int32_t num_heads;
    int32_t num_kv_heads;
    int32_t head_dim;
    int32_t rotary_dim;      // leading numbers of a head with rotary embeddings; the two halves form pairs
    int32_t vocab_size;
    int32_t max_len;         // positions in the rotary tables
    int32_t activation;      // TokenpostActivation
    int32_t is_bf16;         // type of weights and KV cache: bfloat16 or float32
    float norm_epsilon;
    float attention_scale;
    float embedding_scale;
    float attention_softcap;  // 0 is none
    float logit_softcap;      // 0 is none
};

// One layer. Matrices in the layout of torch, [outputs, inputs], in the model's type; norms and biases float32 or null.
struct TokenpostLayer {
    const void *query, *key, *value, *output, *gate, *up, *down;
    const float *query_bias, *key_bias, *value_bias, *output_bias;
    const float *input_norm;           // before attention; null: none
    const float *attention_norm;       // after attention, before it is added; null: none
    const float *feedforward_norm;     // before the feed-forward part; null: none
    const float *feedforward_out_norm; // after it, before it is added; null: none
    const float *query_norm, *key_norm; // within each head; null: none
    int32_t window;                    // positions that a token sees, itself included; 0: all
    int32_t rotary_table;              // index of the rotary table; -1: no rotary embedding
};

struct TokenpostOuterWeights {
    const void *embedding;      // [vocab_size, hidden_size]; must outlive the decoder
    const void *head;           // [vocab_size, hidden_size]
    const float *final_norm;
    const float *cosines[2];    // [max_len, rotary_dim]; must outlive the decoder
    const float *sines[2];
};

struct TokenpostLimits {
    int32_t num_threads;
    int32_t num_spins;          // checks at a barrier before a thread sleeps
    int32_t max_batch_tokens;
    int32_t num_blocks;
    int32_t max_logit_rows;
    // Fills in this element of the array of layers, before which the layer's weights may be absent; those of the layer
    // before are not read again, nor the head and its norm. Returns 0 when it could not.
    int32_t (*next_layer)(int32_t index);
};

// One step. Token arrays are [num_tokens], sequence arrays [num_sequences].
struct TokenpostBatch {
    int32_t num_tokens, num_sequences;
    const int32_t *token_ids, *positions;
    const int32_t *begins, *ends;        // a sequence's tokens in the batch
    const int32_t *const *tables;        // its blocks
};

}  // extern "C"
