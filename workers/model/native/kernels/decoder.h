// The forward pass of a decoder: every layer for every token of a batch, on one thread pool.
#pragma once
#include <stdexcept>
#include <vector>

#include "argmax.h"
#include "attention.h"
#include "interface.h"
#include "layer.h"
#include "norms.h"
#include "packed_matrix.h"
#include "prefault.h"
#include "thread_pool.h"

namespace tokenpost {

class AnyDecoder {
   public:
    virtual ~AnyDecoder() = default;
    virtual void step(const TokenpostBatch& batch) = 0;
    virtual void head(int num_rows, const int32_t* places, int32_t* best, uint8_t* is_finite) = 0;
    virtual void clear(int num_blocks, const int32_t* blocks) = 0;
    virtual void reset() = 0;
    virtual void measure_memory(int64_t* weights, int64_t* working) const = 0;
    virtual float* logits() const = 0;
    virtual int logit_stride() const = 0;
    virtual ThreadPool& pool() = 0;
};

// Weight: float or bf16, the type of weights and KV cache. Activation: the type of what matrices are multiplied with.
template <class Weight, class Activation>
class Decoder : public AnyDecoder {
   public:
    Decoder(const TokenpostShape& shape, const TokenpostLayer* layers, const TokenpostOuterWeights& outer,
            const TokenpostLimits& limits)
        : shape_(shape),
          outer_(outer),
          limits_(limits),
          pool_(limits.num_threads, limits.num_spins),
          hidden_width_(stride_for(shape.hidden_size)),
          attended_width_(stride_for(shape.num_heads * shape.head_dim)),
          gated_width_(stride_for(shape.intermediate_size)),
          qkv_width_(stride_for((shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim)),
          vocab_width_(padded(shape.vocab_size, TILE_OUTPUTS)) {
        // The largest matrix first: its source need not be in memory beside all layers.
        head_ = Packed::of({{static_cast<const Weight*>(outer.head), nullptr, shape.vocab_size}}, shape.hidden_size,
                           arena_, pool_);
        final_norm_ = copy_of(outer.final_norm, shape.hidden_size, arena_);
        for (int i = 0; i < shape.num_layers; ++i) {
            if (limits.next_layer(i) == 0) throw std::runtime_error("a layer's weights could not be read");
            layers_.push_back(Layer::of(layers[i], shape, limits.num_blocks, arena_, working_arena_, pool_));
        }
        const size_t tokens = padded(limits.max_batch_tokens, 2 * AMX_ROWS);
        residual_ = Buffer<float>(tokens * hidden_width_, working_arena_);
        branch_ = Buffer<float>(tokens * hidden_width_, working_arena_);
        normed_ = Buffer<Activation>(tokens * hidden_width_, working_arena_);
        qkv_ = Buffer<float>(tokens * qkv_width_, working_arena_);
        attended_ = Buffer<Activation>(tokens * attended_width_, working_arena_);
        gated_ = Buffer<Activation>(tokens * gated_width_, working_arena_);
        head_input_ = Buffer<Activation>(size_t(padded(limits.max_logit_rows, 2 * AMX_ROWS)) * hidden_width_, working_arena_);
        logits_ = Buffer<float>(size_t(limits.max_logit_rows) * vocab_width_, working_arena_);
        prefault_.begin(working_arena_);
    }

    void step(const TokenpostBatch& batch) override {
        batch_ = &batch;
        plan_attention();
        pool_.run([this](int thread) {
            begin_tiles();
            run_layers(thread);
            end_tiles();
        });
    }

    void head(int num_rows, const int32_t* places, int32_t* best, uint8_t* is_finite) override {
        pool_.run([&](int thread) {
            begin_tiles();
            pool_.parallel_for(num_rows, thread, [&](int from, int to) {
                for (int r = from; r < to; ++r)
                    normalize(row(residual_, places[r], hidden_width_), final_norm_.get(),
                              row(head_input_, r, hidden_width_));
            });
            pool_.parallel_for(head_.num_items(num_rows), thread,
                               [&](int first, int last) { score_vocabulary(num_rows, first, last); });
            pool_.parallel_for(num_rows, thread, [&](int from, int to) {
                for (int r = from; r < to; ++r)
                    is_finite[r] = argmax(row(logits_, r, vocab_width_), shape_.vocab_size, best[r]);
            });
            end_tiles();
        });
    }

    void clear(int num_blocks, const int32_t* blocks) override {
        for (auto& layer : layers_) layer.clear(num_blocks, blocks);
    }

    void reset() override {
        for (auto& layer : layers_) layer.reset();
    }

    void measure_memory(int64_t* weights, int64_t* working) const override {
        *weights = head_.bytes();
        for (const auto& layer : layers_) *weights += layer.weight_bytes();
        *working = residual_.bytes() + branch_.bytes() + qkv_.bytes() + logits_.bytes() + normed_.bytes() +
                   attended_.bytes() + gated_.bytes() + head_input_.bytes();
    }

    float* logits() const override { return logits_.get(); }
    ThreadPool& pool() override { return pool_; }
    int logit_stride() const override { return vocab_width_; }

   private:
    using Packed = PackedMatrix<Weight, Activation>;
    using Layer = tokenpost::Layer<Weight, Activation>;

    // A work item of attention: some query rows of one sequence and kv head. A row is a token and a head of the group.
    struct Item {
        int sequence, head, from, to;
    };

    static void begin_tiles() {
        if (IS_IN_TILES<Activation>) enable_amx();
    }

    static void end_tiles() {
        if (IS_IN_TILES<Activation>) release_amx();
    }

    // The forward pass. Each phase distributes tokens, packed weight tiles or attention items among the threads.
    void run_layers(int thread) {
        const int num_tokens = batch_->num_tokens;
        pool_.parallel_for(num_tokens, thread, [&](int from, int to) {
            for (int t = from; t < to; ++t) {
                embed(t);
                const float* norm = layers_[0].input_norm.get();
                normalize(row(residual_, t, hidden_width_), norm, row(normed_, t, hidden_width_));
            }
        });
        for (int i = 0; i < shape_.num_layers; ++i) {
            const bool is_last = i + 1 == shape_.num_layers;
            run_layer(layers_[i], is_last ? nullptr : layers_[i + 1].input_norm.get(), thread);
        }
    }

    void run_layer(const Layer& layer, const float* next_norm, int thread) {
        const int num_tokens = batch_->num_tokens;
        const auto of_layer = [&](int count, void (Decoder::*part)(const Layer&, int, int)) {
            pool_.parallel_for(count, thread, [&](int from, int to) { (this->*part)(layer, from, to); });
        };
        const auto project_and_add = [&](const Packed& matrix, const Buffer<Activation>& x, int stride,
                                         const float* branch_norm, const float* next) {
            pool_.parallel_for(matrix.num_items(num_tokens), thread, [&](int first, int last) {
                add_product(matrix, x, stride, branch_norm != nullptr, first, last);
            });
            pool_.parallel_for(num_tokens, thread, [&](int from, int to) {
                for (int t = from; t < to; ++t) add_and_normalize(t, branch_norm, next);
            });
        };
        of_layer(layer.heads.num_items(num_tokens), &Decoder::project);
        of_layer(num_tokens * shape_.num_kv_heads, &Decoder::rotate_and_store);
        of_layer(int(items_.size()), &Decoder::attend_items);
        project_and_add(layer.output, attended_, attended_width_, layer.attention_norm.get(),
                        layer.feedforward_norm.get());
        of_layer(layer.gate_up.num_items(num_tokens), &Decoder::feed_forward);
        project_and_add(layer.down, gated_, gated_width_, layer.feedforward_out_norm.get(), next_norm);
    }

    void embed(int t) {
        const size_t offset = size_t(batch_->token_ids[t]) * shape_.hidden_size;
        const Weight* from = static_cast<const Weight*>(outer_.embedding) + offset;
        float* to = row(residual_, t, hidden_width_);
        for (int d = 0; d < shape_.hidden_size; ++d) to[d] = to_float(from[d]) * shape_.embedding_scale;
    }

    void project(const Layer& layer, int first, int last) {
        layer.heads.multiply(batch_->num_tokens, normed_.get(), hidden_width_, first, last,
                             [&](int t, int column, Vec left, Vec right) {
                                 store(row(qkv_, t, qkv_width_) + column, left);
                                 store(row(qkv_, t, qkv_width_) + column + VEC_LEN, right);
                             });
    }

    // Applies head norms and rotary embeddings and stores keys and values in the cache, for each token and kv head.
    void rotate_and_store(const Layer& layer, int from, int to) {
        const int size = shape_.head_dim, num_kv = shape_.num_kv_heads, group = shape_.num_heads / num_kv;
        for (int item = from; item < to; ++item) {
            const int t = item / num_kv, head = item % num_kv, position = batch_->positions[t];
            float* queries = row(qkv_, t, qkv_width_);
            float* key = queries + (shape_.num_heads + head) * size;
            const float* value = key + num_kv * size;
            for (int q = head * group; q < (head + 1) * group; ++q)
                rotate(layer, queries + q * size, layer.query_norm.get(), position);
            rotate(layer, key, layer.key_norm.get(), position);
            const int block = batch_->tables[sequence_of_[t]][position / BLOCK];
            layer.cache.store_key(block, head, position % BLOCK, key, size);
            layer.cache.store_value(block, head, position % BLOCK, value, size);
        }
    }

    // The norm and the rotary embedding of one head, in place.
    void rotate(const Layer& layer, float* head, const float* norm, int position) const {
        if (norm != nullptr) normalize_head(head, norm, shape_.head_dim, shape_.norm_epsilon);
        if (layer.rotary_table < 0) return;
        const float* cosines = outer_.cosines[layer.rotary_table] + size_t(position) * shape_.rotary_dim;
        const float* sines = outer_.sines[layer.rotary_table] + size_t(position) * shape_.rotary_dim;
        const int half = shape_.rotary_dim / 2;
        for (int d = 0; d < half; ++d) {
            const float low = head[d], high = head[d + half];
            head[d] = low * cosines[d] - high * sines[d];
            head[d + half] = high * cosines[d + half] + low * sines[d + half];
        }
    }

    void plan_attention() {
        items_.clear();
        sequence_of_.resize(batch_->num_tokens);
        const int group = shape_.num_heads / shape_.num_kv_heads;
        for (int s = 0; s < batch_->num_sequences; ++s) {
            std::fill(sequence_of_.begin() + batch_->begins[s], sequence_of_.begin() + batch_->ends[s], s);
            const int num_rows = (batch_->ends[s] - batch_->begins[s]) * group;
            for (int head = 0; head < shape_.num_kv_heads; ++head)
                for (int from = 0; from < num_rows; from += Queries<Activation>::MAX)
                    items_.push_back({s, head, from, std::min(from + Queries<Activation>::MAX, num_rows)});
        }
    }

    void attend_items(const Layer& layer, int from, int to) {
        static thread_local Queries<Activation> queries;
        for (int i = from; i < to; ++i) attend_item(layer, items_[i], queries);
    }

    void attend_item(const Layer& layer, const Item& item, Queries<Activation>& queries) {
        const int size = shape_.head_dim, group = shape_.num_heads / shape_.num_kv_heads;
        queries.num = item.to - item.from;
        for (int r = 0; r < queries.num; ++r) {
            const int t = batch_->begins[item.sequence] + (item.from + r) / group;
            const int head = item.head * group + (item.from + r) % group;
            const float* from = row(qkv_, t, qkv_width_) + head * size;
            for (int d = 0; d < size; d += VEC_LEN) store(queries.rows[r] + d, load(from + d));
            std::fill(queries.rows[r] + size, queries.rows[r] + layer.cache.head_size, Activation{});
            queries.positions[r] = batch_->positions[t];
        }
        attend(queries, layer.cache, item.head, batch_->tables[item.sequence], layer.rule);
        for (int r = 0; r < queries.num; ++r) {
            const int t = batch_->begins[item.sequence] + (item.from + r) / group;
            const int head = item.head * group + (item.from + r) % group;
            Activation* to = row(attended_, t, attended_width_) + head * size;
            const int num_whole = size / VEC_LEN * VEC_LEN;
            for (int d = 0; d < num_whole; d += VEC_LEN) store(to + d, load(queries.outputs[r] + d));
            for (int d = num_whole; d < size; ++d) put(to + d, queries.outputs[r][d]);
        }
    }

    // residual += x W, or branch = x W where a norm follows before the sum.
    void add_product(const Packed& matrix, const Buffer<Activation>& x, int stride, bool is_apart, int first,
                     int last) {
        const Buffer<float>& target = is_apart ? branch_ : residual_;
        matrix.multiply(batch_->num_tokens, x.get(), stride, first, last, [&](int t, int column, Vec left, Vec right) {
            float* to = row(target, t, hidden_width_) + column;
            store(to, is_apart ? left : load(to) + left);
            store(to + VEC_LEN, is_apart ? right : load(to + VEC_LEN) + right);
        });
    }

    void add_and_normalize(int t, const float* branch_norm, const float* next_norm) {
        float* residual = row(residual_, t, hidden_width_);
        if (branch_norm != nullptr) {
            float* branch = row(branch_, t, hidden_width_);
            const Vec scale = splat(inverse_size(branch, shape_.hidden_size, shape_.norm_epsilon));
            for (int d = 0; d < shape_.hidden_size; d += VEC_LEN)
                store(residual + d, load(residual + d) + load(branch + d) * scale * load(branch_norm + d));
        }
        normalize(residual, next_norm, row(normed_, t, hidden_width_));
    }

    void feed_forward(const Layer& layer, int first, int last) {
        const bool is_silu = shape_.activation == TOKENPOST_SILU;
        layer.gate_up.multiply(batch_->num_tokens, normed_.get(), hidden_width_, first, last,
                               [&](int t, int column, Vec gate, Vec up) {
                                   const Vec gated = (is_silu ? silu(gate) : gelu_tanh(gate)) * up;
                                   store(row(gated_, t, gated_width_) + column / 2, gated);
                               });
    }

    void score_vocabulary(int num_rows, int first, int last) {
        const float cap = shape_.logit_softcap;
        const auto soften = [cap](Vec x) { return cap > 0 ? splat(cap) * tanh_of(x / splat(cap)) : x; };
        head_.multiply(num_rows, head_input_.get(), hidden_width_, first, last,
                       [&](int r, int column, Vec left, Vec right) {
                           store(row(logits_, r, vocab_width_) + column, soften(left));
                           store(row(logits_, r, vocab_width_) + column + VEC_LEN, soften(right));
                       });
    }

    void normalize(const float* x, const float* norm, Activation* to) const {
        tokenpost::normalize(x, norm, shape_.hidden_size, shape_.norm_epsilon, to);
    }

    // Whole tiles and one tile more: rows at a distance of a power of two would compete for the same cache sets.
    static int stride_for(int count) { return padded(count, TILE_OUTPUTS) + TILE_OUTPUTS; }

    template <class T>
    static T* row(const Buffer<T>& buffer, int index, int stride) {
        return buffer.get() + size_t(index) * stride;
    }

    const TokenpostShape shape_;
    const TokenpostOuterWeights outer_;
    const TokenpostLimits limits_;
    ThreadPool pool_;
    // Widths of rows, padded to whole tiles: hidden state, output of all heads, gated feed-forward state, queries with
    // keys and values, logits.
    const int hidden_width_, attended_width_, gated_width_, qkv_width_, vocab_width_;
    // The cache and the working memory are in an arena of their own: nothing is written to them at the start.
    Arena arena_, working_arena_;
    Prefault prefault_;
    std::vector<Layer> layers_;
    Packed head_;
    Buffer<float> final_norm_;
    Buffer<float> residual_, branch_, qkv_, logits_;
    Buffer<Activation> normed_, attended_, gated_, head_input_;
    const TokenpostBatch* batch_ = nullptr;
    std::vector<Item> items_;
    std::vector<int> sequence_of_;  // of each token
};

}  // namespace tokenpost
