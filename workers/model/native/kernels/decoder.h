// A whole pass through the decoder: every layer for every token of a batch, by one team of threads.
#pragma once
#include <vector>

#include "attention.h"
#include "best.h"
#include "layer.h"
#include "matrix.h"
#include "model.h"
#include "norms.h"
#include "team.h"

namespace tokenpost {

class AnyDecoder {
   public:
    virtual ~AnyDecoder() = default;
    virtual void step(const TokenpostBatch& batch) = 0;
    virtual void head(int num_rows, const int32_t* places, int32_t* best, uint8_t* is_finite) = 0;
    virtual void clear(int num_blocks, const int32_t* blocks) = 0;
    virtual void reset() = 0;
    virtual void tell_memory(int64_t* weights, int64_t* working) const = 0;
    virtual float* logits() const = 0;
    virtual int logit_stride() const = 0;
    virtual Team& team() = 0;
};

// Weight: float or bf16, also what the cache holds. Activation: what matrices are multiplied with.
template <class Weight, class Activation>
class Decoder : public AnyDecoder {
   public:
    Decoder(const TokenpostShape& shape, const TokenpostLayer* layers, const TokenpostEnds& ends,
            const TokenpostLimits& limits)
        : shape_(shape),
          ends_(ends),
          limits_(limits),
          team_(limits.num_threads, limits.num_spins),
          hidden_(stride_for(shape.hidden_size)),
          width_(stride_for(shape.num_heads * shape.head_dim)),
          inner_(stride_for(shape.intermediate_size)),
          heads_(stride_for((shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim)),
          vocab_(padded(shape.vocab_size, PANEL)) {
        for (int i = 0; i < shape.num_layers; ++i) layers_.push_back(Layer::of(layers[i], shape, limits.num_blocks));
        head_ = Panels::of({{static_cast<const Weight*>(ends.head), nullptr, shape.vocab_size}}, shape.hidden_size);
        final_norm_ = copy_of(ends.final_norm, shape.hidden_size);
        const size_t tokens = padded(limits.max_batch_tokens, 2 * TILE);
        residual_ = Buffer<float>(tokens * hidden_);
        branch_ = Buffer<float>(tokens * hidden_);
        normed_ = Buffer<Activation>(tokens * hidden_);
        turned_ = Buffer<float>(tokens * heads_);
        seen_ = Buffer<Activation>(tokens * width_);
        inside_ = Buffer<Activation>(tokens * inner_);
        picked_ = Buffer<Activation>(size_t(padded(limits.max_logit_rows, 2 * TILE)) * hidden_);
        logits_ = Buffer<float>(size_t(limits.max_logit_rows) * vocab_);
    }

    void step(const TokenpostBatch& batch) override {
        batch_ = &batch;
        plan_attention();
        team_.run([this](int me) {
            open_tiles();
            pass(me);
            close_tiles();
        });
    }

    void head(int num_rows, const int32_t* places, int32_t* best, uint8_t* is_finite) override {
        team_.run([&](int me) {
            open_tiles();
            team_.share(num_rows, me, [&](int from, int to) {
                for (int r = from; r < to; ++r)
                    normalize(row(residual_, places[r], hidden_), final_norm_.get(), row(picked_, r, hidden_));
            });
            team_.share(head_.num_panels(), me, [&](int first, int last) { score(num_rows, first, last); });
            team_.share(num_rows, me, [&](int from, int to) {
                for (int r = from; r < to; ++r)
                    is_finite[r] = find_best(row(logits_, r, vocab_), shape_.vocab_size, best[r]);
            });
            close_tiles();
        });
    }

    void clear(int num_blocks, const int32_t* blocks) override {
        for (auto& layer : layers_) layer.clear(num_blocks, blocks);
    }

    void reset() override {
        for (auto& layer : layers_) layer.reset();
    }

    void tell_memory(int64_t* weights, int64_t* working) const override {
        *weights = head_.bytes();
        for (const auto& layer : layers_) *weights += layer.weight_bytes();
        *working = residual_.bytes() + branch_.bytes() + turned_.bytes() + logits_.bytes() + normed_.bytes() +
                   seen_.bytes() + inside_.bytes() + picked_.bytes();
    }

    float* logits() const override { return logits_.get(); }
    Team& team() override { return team_; }
    int logit_stride() const override { return vocab_; }

   private:
    using Panels = Matrix<Weight, Activation>;
    using Layer = tokenpost::Layer<Weight, Activation>;

    // Some query rows of one sequence and kv head: rows count tokens times the group's heads.
    struct Item {
        int sequence, head, from, to;
    };

    // The pass. Tokens are shared out among threads, or panels of weights, or attention items.

    void pass(int me) {
        const int num_tokens = batch_->num_tokens;
        team_.share(num_tokens, me, [&](int from, int to) {
            for (int t = from; t < to; ++t) {
                embed(t);
                normalize(row(residual_, t, hidden_), layers_[0].input_norm.get(), row(normed_, t, hidden_));
            }
        });
        for (int i = 0; i < shape_.num_layers; ++i) {
            const bool is_last = i + 1 == shape_.num_layers;
            pass(layers_[i], is_last ? nullptr : layers_[i + 1].input_norm.get(), me);
        }
    }

    void pass(const Layer& layer, const float* next_norm, int me) {
        const int num_tokens = batch_->num_tokens;
        const auto of_layer = [&](int count, void (Decoder::*part)(const Layer&, int, int)) {
            team_.share(count, me, [&](int from, int to) { (this->*part)(layer, from, to); });
        };
        const auto close = [&](const Panels& matrix, const Buffer<Activation>& x, int stride, const float* branch_norm,
                               const float* next) {
            team_.share(matrix.num_panels(), me, [&](int first, int last) {
                add_product(matrix, x, stride, branch_norm != nullptr, first, last);
            });
            team_.share(num_tokens, me, [&](int from, int to) {
                for (int t = from; t < to; ++t) add_and_normalize(t, branch_norm, next);
            });
        };
        of_layer(layer.heads.num_panels(), &Decoder::project);
        of_layer(num_tokens * shape_.num_kv_heads, &Decoder::turn_and_store);
        of_layer(int(items_.size()), &Decoder::attend_items);
        close(layer.output, seen_, width_, layer.attention_norm.get(), layer.feedforward_norm.get());
        of_layer(layer.gate_up.num_panels(), &Decoder::feed_forward);
        close(layer.down, inside_, inner_, layer.feedforward_out_norm.get(), next_norm);
    }

    void embed(int t) {
        const Weight* from = static_cast<const Weight*>(ends_.embedding) + size_t(batch_->token_ids[t]) * shape_.hidden_size;
        float* to = row(residual_, t, hidden_);
        for (int d = 0; d < shape_.hidden_size; ++d) to[d] = to_float(from[d]) * shape_.embedding_scale;
    }

    void project(const Layer& layer, int first, int last) {
        layer.heads.times(batch_->num_tokens, normed_.get(), hidden_, first, last,
                          [&](int t, int column, Vec left, Vec right) {
                              store(row(turned_, t, heads_) + column, left);
                              store(row(turned_, t, heads_) + column + LANES, right);
                          });
    }

    // Norms within heads, rotary positions, and keys and values into the cache; each kv head with its queries.
    void turn_and_store(const Layer& layer, int from, int to) {
        const int size = shape_.head_dim, num_kv = shape_.num_kv_heads, group = shape_.num_heads / num_kv;
        for (int item = from; item < to; ++item) {
            const int t = item / num_kv, head = item % num_kv, position = batch_->positions[t];
            float* queries = row(turned_, t, heads_);
            float* key = queries + (shape_.num_heads + head) * size;
            const float* value = key + num_kv * size;
            for (int q = head * group; q < (head + 1) * group; ++q)
                turn(layer, queries + q * size, layer.query_norm.get(), position);
            turn(layer, key, layer.key_norm.get(), position);
            const int block = batch_->tables[sequence_of_[t]][position / BLOCK];
            layer.cache.put_key(block, head, position % BLOCK, key, size);
            layer.cache.put_value(block, head, position % BLOCK, value, size);
        }
    }

    // One head's norm and rotation, in place.
    void turn(const Layer& layer, float* head, const float* norm, int position) const {
        if (norm != nullptr) normalize_head(head, norm, shape_.head_dim, shape_.norm_epsilon);
        if (layer.rotary_table < 0) return;
        const float* cosines = ends_.cosines[layer.rotary_table] + size_t(position) * shape_.rotary_dim;
        const float* sines = ends_.sines[layer.rotary_table] + size_t(position) * shape_.rotary_dim;
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
            const float* from = row(turned_, t, heads_) + head * size;
            for (int d = 0; d < size; d += LANES) store(queries.rows[r] + d, load(from + d));
            std::fill(queries.rows[r] + size, queries.rows[r] + layer.cache.head_size, Activation{});
            queries.positions[r] = batch_->positions[t];
        }
        attend(queries, layer.cache, item.head, batch_->tables[item.sequence], layer.rule);
        for (int r = 0; r < queries.num; ++r) {
            const int t = batch_->begins[item.sequence] + (item.from + r) / group;
            const int head = item.head * group + (item.from + r) % group;
            Activation* to = row(seen_, t, width_) + head * size;
            const int num_whole = size / LANES * LANES;
            for (int d = 0; d < num_whole; d += LANES) store(to + d, load(queries.outputs[r] + d));
            for (int d = num_whole; d < size; ++d) put(to + d, queries.outputs[r][d]);
        }
    }

    // residual += x W, or branch = x W where a norm comes between.
    void add_product(const Panels& matrix, const Buffer<Activation>& x, int stride, bool is_apart, int first,
                     int last) {
        const Buffer<float>& target = is_apart ? branch_ : residual_;
        matrix.times(batch_->num_tokens, x.get(), stride, first, last, [&](int t, int column, Vec left, Vec right) {
            float* to = row(target, t, hidden_) + column;
            store(to, is_apart ? left : load(to) + left);
            store(to + LANES, is_apart ? right : load(to + LANES) + right);
        });
    }

    void add_and_normalize(int t, const float* branch_norm, const float* next_norm) {
        float* residual = row(residual_, t, hidden_);
        if (branch_norm != nullptr) {
            float* branch = row(branch_, t, hidden_);
            const Vec scale = splat(inverse_size(branch, shape_.hidden_size, shape_.norm_epsilon));
            for (int d = 0; d < shape_.hidden_size; d += LANES)
                store(residual + d, load(residual + d) + load(branch + d) * scale * load(branch_norm + d));
        }
        normalize(residual, next_norm, row(normed_, t, hidden_));
    }

    void feed_forward(const Layer& layer, int first, int last) {
        const bool is_silu = shape_.activation == TOKENPOST_SILU;
        layer.gate_up.times(batch_->num_tokens, normed_.get(), hidden_, first, last,
                            [&](int t, int column, Vec gate, Vec up) {
                                const Vec inside = (is_silu ? silu(gate) : gelu_tanh(gate)) * up;
                                store(row(inside_, t, inner_) + column / 2, inside);
                            });
    }

    void score(int num_rows, int first, int last) {
        const float cap = shape_.logit_softcap;
        const auto bend = [cap](Vec x) { return cap > 0 ? splat(cap) * tanh_of(x / splat(cap)) : x; };
        head_.times(num_rows, picked_.get(), hidden_, first, last, [&](int r, int column, Vec left, Vec right) {
            store(row(logits_, r, vocab_) + column, bend(left));
            store(row(logits_, r, vocab_) + column + LANES, bend(right));
        });
    }

    void normalize(const float* x, const float* norm, Activation* to) const {
        tokenpost::normalize(x, norm, shape_.hidden_size, shape_.norm_epsilon, to);
    }

    // Room for whole panels, and one line more: rows a power of two apart would crowd the same places of a cache.
    static int stride_for(int count) { return padded(count, PANEL) + PANEL; }

    template <class T>
    static T* row(const Buffer<T>& buffer, int index, int stride) {
        return buffer.get() + size_t(index) * stride;
    }

    const TokenpostShape shape_;
    const TokenpostEnds ends_;
    const TokenpostLimits limits_;
    Team team_;
    // Widths of rows, padded to whole panels: hidden state, all heads' output, inside the feed-forward part, queries
    // with keys and values, logits.
    const int hidden_, width_, inner_, heads_, vocab_;
    std::vector<Layer> layers_;
    Panels head_;
    Buffer<float> final_norm_;
    Buffer<float> residual_, branch_, turned_, logits_;
    Buffer<Activation> normed_, seen_, inside_, picked_;
    const TokenpostBatch* batch_ = nullptr;
    std::vector<Item> items_;
    std::vector<int> sequence_of_;  // of each token
};

}  // namespace tokenpost
