// The kernels of one instruction set: products and attention beside plain loops in float64, the functions of vectors
// beside those of the standard library, and every row as if it were alone, bit for bit.
//
// kernel_check FILE    writes the logits of a small model, in float32 and in bfloat16, for other instruction sets to be
//                      compared with; prints the instruction set, or says what is wrong and exits with 1
#include "decoder.h"
#include "sample_row.h"

#include <cstdio>
#include <memory>
#include <random>
#include <string>

using namespace tokenpost;

namespace {

std::mt19937 random_bits(11);
int num_wrong = 0;

float random_number() { return float(int32_t(random_bits())) * 0x1p-31f; }

template <class Number>
std::vector<Number> random_numbers(size_t count, float scale) {
    std::vector<Number> numbers(count);
    for (auto& number : numbers) put(&number, random_number() * scale);
    return numbers;
}

void expect(bool is_right, const std::string& what) {
    if (is_right) return;
    if (++num_wrong <= 20) std::printf("wrong: %s\n", what.c_str());
}

bool is_near(double found, double expected, double tolerance) {
    return std::fabs(found - expected) <= tolerance * (1.0 + std::fabs(expected));
}

// Y of some rows, [num_rows][num_outputs], in work items of every other size.
template <class Weight, class Activation>
std::vector<float> product(const PackedMatrix<Weight, Activation>& matrix, int num_rows, const Activation* x,
                           size_t stride) {
    const int width = matrix.num_tiles() * TILE_OUTPUTS, items = matrix.num_items(num_rows);
    std::vector<float> y(size_t(num_rows) * width, -7.0f);
    for (int first = 0, size = 1; first < items; first += size, size = size % 3 + 1)
        matrix.multiply(num_rows, x, stride, first, std::min(first + size, items),
                        [&](int row, int column, Vec left, Vec right) {
                            store(&y[size_t(row) * width + column], left);
                            store(&y[size_t(row) * width + column + VEC_LEN], right);
                        });
    return y;
}

template <class Weight, class Activation>
void check_products(const char* types, double tolerance) {
    constexpr int most = 130;
    for (const auto& [num_inputs, num_outputs] : {std::pair(20, 5), std::pair(64, 96), std::pair(300, 150)}) {
        const auto weights = random_numbers<Weight>(size_t(num_inputs) * num_outputs, 1.0f);
        const auto bias = random_numbers<float>(num_outputs, 1.0f);
        Arena arena;
        ThreadPool pool(2, 100);
        const auto matrix = PackedMatrix<Weight, Activation>::of(
            {{weights.data(), bias.data(), num_outputs - 2},
             {weights.data() + size_t(num_outputs - 2) * num_inputs, nullptr, 2}}, num_inputs, arena, pool);
        const size_t stride = padded(num_inputs, TILE_OUTPUTS) + TILE_OUTPUTS;
        std::vector<Activation> x(stride * padded(most, 32), Activation{});
        for (int row = 0; row < most; ++row)
            for (int k = 0; k < num_inputs; ++k) put(&x[row * stride + k], random_number());
        const int width = matrix.num_tiles() * TILE_OUTPUTS;
        const auto whole = product(matrix, most, x.data(), stride);
        for (int row = 0; row < most; ++row)
            for (int i = 0; i < num_outputs; ++i) {
                double sum = i < num_outputs - 2 ? bias[i] : 0.0;
                for (int k = 0; k < num_inputs; ++k)
                    sum += double(to_float(x[row * stride + k])) * to_float(weights[size_t(i) * num_inputs + k]);
                expect(is_near(whole[size_t(row) * width + i], sum, tolerance),
                       std::string(types) + " product of row " + std::to_string(row) + " output " + std::to_string(i));
            }
        for (int num_rows = 1; num_rows < most; num_rows += num_rows < 40 ? 1 : 23) {
            const int first = num_rows % 7;
            const auto some = product(matrix, num_rows, x.data() + first * stride, stride);
            const bool is_same = std::memcmp(some.data(), &whole[size_t(first) * width],
                                             sizeof(float) * std::min(num_rows, most - first) * width) == 0;
            expect(is_same, std::string(types) + " bits of " + std::to_string(num_rows) + " rows");
        }
    }
}

// A cache of one kv head with random keys and values.
template <class Number>
struct RandomCache {
    static constexpr int NUM_BLOCKS = 11;
    int head_dim, size = padded(head_dim, TILE_OUTPUTS);
    std::vector<Number> keys = std::vector<Number>(size_t(NUM_BLOCKS) * size * BLOCK), values = keys;
    std::vector<float> plain_keys, plain_values;  // as they are after rounding
    LayerCache<Number> cache{keys.data(), values.data(), 1, size};
    std::vector<int32_t> table{7, 2, 10, 0, 4, 1, 9, 3, 8, 5, 6};

    explicit RandomCache(int given) : head_dim(given) {
        for (int position = 0; position < NUM_BLOCKS * BLOCK; ++position) {
            float key[MAX_HEAD + VEC_LEN] = {}, value[MAX_HEAD + VEC_LEN] = {};
            for (int d = 0; d < head_dim; ++d) key[d] = random_number(), value[d] = random_number();
            cache.store_key(table[position / BLOCK], 0, position % BLOCK, key, head_dim);
            cache.store_value(table[position / BLOCK], 0, position % BLOCK, value, head_dim);
            for (int d = 0; d < head_dim; ++d) {
                Number rounded[2];
                put(rounded, key[d]), put(rounded + 1, value[d]);
                plain_keys.push_back(to_float(rounded[0]));
                plain_values.push_back(to_float(rounded[1]));
            }
        }
    }

    std::vector<double> plain_attention(const std::vector<float>& query, int position, const AttentionRule& rule) {
        std::vector<double> weights, output(head_dim);
        double total = 0;
        const int first = rule.window > 0 ? std::max(0, position - rule.window + 1) : 0;
        for (int p = first; p <= position; ++p) {
            double score = 0;
            for (int d = 0; d < head_dim; ++d) score += double(query[d]) * plain_keys[size_t(p) * head_dim + d];
            score *= rule.scale;
            weights.push_back(std::exp(rule.softcap > 0 ? rule.softcap * std::tanh(score / rule.softcap) : score));
            total += weights.back();
        }
        for (int p = first; p <= position; ++p)
            for (int d = 0; d < head_dim; ++d)
                output[d] += weights[p - first] / total * plain_values[size_t(p) * head_dim + d];
        return output;
    }
};

template <class Number, class Activation>
void check_attention(const char* types, double tolerance) {
    for (const int head_dim : {16, 24, 64, 128})
        for (const AttentionRule& rule : {AttentionRule{0.3f, 0, 0}, AttentionRule{0.3f, 45, 0}, AttentionRule{0.3f, 0, 2}}) {
            RandomCache<Number> cache(head_dim);
            static Queries<Activation> together, alone;
            together.num = Queries<Activation>::MAX;
            std::vector<std::vector<float>> plain(together.num, std::vector<float>(head_dim));
            for (int r = 0; r < together.num; ++r) {
                std::fill_n(together.rows[r], together.STRIDE, Activation{});
                for (int d = 0; d < head_dim; ++d) {
                    put(together.rows[r] + d, random_number());
                    plain[r][d] = to_float(together.rows[r][d]);
                }
                together.positions[r] = (r * 37 + 5) % (cache.NUM_BLOCKS * BLOCK);
            }
            const std::string name = std::string(types) + " attention of " + std::to_string(head_dim);
            attend(together, cache.cache, 0, cache.table.data(), rule);
            for (int r = 0; r < together.num; ++r) {
                const auto expected = cache.plain_attention(plain[r], together.positions[r], rule);
                for (int d = 0; d < head_dim; ++d)
                    expect(is_near(together.outputs[r][d], expected[d], tolerance), name);
            }
            for (const int num : {1, 3, 5}) {
                alone.num = num;
                for (int r = 0; r < num; ++r) {
                    std::copy_n(together.rows[2 * r], together.STRIDE, alone.rows[r]);
                    alone.positions[r] = together.positions[2 * r];
                }
                attend(alone, cache.cache, 0, cache.table.data(), rule);
                for (int r = 0; r < num; ++r)
                    expect(std::memcmp(alone.outputs[r], together.outputs[2 * r], head_dim * sizeof(float)) == 0,
                           name + ", bits of " + std::to_string(num) + " rows");
            }
        }
}

void check_vectors() {
    for (int round = 0; round < 500; ++round) {
        float x[VEC_LEN], y[VEC_LEN];
        for (float& one : x) one = random_number() * 30.0f;
        const auto check = [&](const char* name, Vec value, auto expected, double tolerance) {
            store(y, value);
            for (int i = 0; i < VEC_LEN; ++i) expect(is_near(y[i], expected(double(x[i])), tolerance), name);
        };
        check("exp", exp_of(load(x)), [](double v) { return std::exp(v); }, 3e-6);
        check("exp2", exp2_of(load(x)), [](double v) { return std::exp2(v); }, 3e-6);
        check("silu", silu(load(x)), [](double v) { return v / (1 + std::exp(-v)); }, 3e-6);
        check("tanh", tanh_of(load(x)), [](double v) { return std::tanh(v); }, 3e-6);
        float sums[VEC_LEN], most = x[0];
        for (int i = 0; i < VEC_LEN; ++i) sums[i] = x[i], most = std::max(most, x[i]);
        for (int distance = VEC_LEN / 2; distance > 0; distance /= 2)
            for (int i = 0; i < distance; ++i) sums[i] += sums[i + distance];
        expect(sum_of(load(x)) == sums[0], "sum");
        expect(max_of(load(x)) == most, "max");
        bf16 halves[VEC_LEN];
        store(halves, load(x));
        for (int i = 0; i < VEC_LEN; ++i) expect(halves[i].bits == to_bf16(x[i]).bits, "rounding");
        expect(std::memcmp(y, (store(y, load(halves)), y), sizeof y) == 0 && y[3] == to_float(halves[3]), "widening");
        expect(has_any(load(x) > splat(most)) == false && has_any(load(x) >= splat(most)), "has_any");
    }
    float special[VEC_LEN] = {__builtin_nanf(""), __builtin_inff(), -__builtin_inff(), -0.0f, 1.0f};
    bf16 halves[VEC_LEN];
    store(halves, load(special));
    expect(std::isnan(to_float(halves[0])) && std::isinf(to_float(halves[1])) && std::isinf(to_float(halves[2])), "NaN");
    store(special, exp_of(load(special)));
    expect(std::isnan(special[0]) && std::isinf(special[1]) && special[2] == 0 && special[3] == 1, "exp of NaN");
}

// The argmax and the sampled token of rows of every length.
void check_sampling() {
    for (int size = 3; size < 300; ++size) {
        auto logits = random_numbers<float>(size, 8.0f);
        int32_t best = -1;
        expect(argmax(logits.data(), size, best), "argmax is finite");
        expect(best == std::max_element(logits.begin(), logits.end()) - logits.begin(), "argmax");
        const exponential_race::SamplingRules rules{1.0, {size, 77}, 1.0f, -exponential_race::INFINITE, 0};
        const exponential_race::Candidates<AllLogits> all{{logits.data()}, size, logits[best]};
        int expected = 0;
        for (int id = 1; id < size; ++id)
            if (score_of(all, rules, id) > score_of(all, rules, expected)) expected = id;
        expect(exponential_race::sample(AllLogits{logits.data()}, size, best, rules) == expected, "exponential race");
        logits[size / 2] = __builtin_nanf("");
        expect(!argmax(logits.data(), size, best), "argmax of NaN");
    }
}

// A decoder of two layers with random weights.
template <class Weight, class Activation>
class RandomModel {
   public:
    RandomModel() {
        random_bits.seed(5);
        for (auto& layer : layers_) {
            layer = {};
            layer.query = matrix(shape_.num_heads * shape_.head_dim, shape_.hidden_size);
            layer.key = matrix(shape_.num_kv_heads * shape_.head_dim, shape_.hidden_size);
            layer.value = matrix(shape_.num_kv_heads * shape_.head_dim, shape_.hidden_size);
            layer.output = matrix(shape_.hidden_size, shape_.num_heads * shape_.head_dim);
            layer.gate = matrix(shape_.intermediate_size, shape_.hidden_size);
            layer.up = matrix(shape_.intermediate_size, shape_.hidden_size);
            layer.down = matrix(shape_.hidden_size, shape_.intermediate_size);
            layer.input_norm = layer.feedforward_norm = ones_.data();
        }
        TokenpostOuterWeights outer{matrix(shape_.vocab_size, shape_.hidden_size),
                                    matrix(shape_.vocab_size, shape_.hidden_size), ones_.data(), {}, {}};
        for (int position = 0; position < shape_.max_len; ++position)
            for (int d = 0; d < shape_.rotary_dim; ++d) {
                const double angle = position / std::pow(1e4, 2.0 * (d % (shape_.rotary_dim / 2)) / shape_.rotary_dim);
                cosines_.push_back(float(std::cos(angle)));
                sines_.push_back(float(std::sin(angle)));
            }
        outer.cosines[0] = cosines_.data(), outer.sines[0] = sines_.data();
        const TokenpostLimits limits{2, 100, 256, 24, 8, [](int32_t) { return int32_t(1); }};
        decoder_ = std::make_unique<Decoder<Weight, Activation>>(shape_, layers_, outer, limits);
    }

    struct Chunk {
        int begin, end, first_block;
    };

    // The logits of each chunk's last token. All chunks are of the one sequence of tokens, in blocks of their own.
    std::vector<float> run(const std::vector<Chunk>& chunks) {
        std::vector<int32_t> ids, positions, begins, ends, places, best(chunks.size());
        std::vector<std::vector<int32_t>> tables;
        std::vector<const int32_t*> pointers;
        for (const auto& chunk : chunks) {
            begins.push_back(int32_t(ids.size()));
            for (int i = chunk.begin; i < chunk.end; ++i) ids.push_back(i * 31 % shape_.vocab_size), positions.push_back(i);
            ends.push_back(int32_t(ids.size()));
            places.push_back(ends.back() - 1);
            tables.push_back({});
            for (int i = 0; i < 8; ++i) tables.back().push_back(chunk.first_block + i);
        }
        for (const auto& table : tables) pointers.push_back(table.data());
        decoder_->step({int32_t(ids.size()), int32_t(chunks.size()), ids.data(), positions.data(), begins.data(),
                        ends.data(), pointers.data()});
        std::vector<uint8_t> is_finite(chunks.size());
        decoder_->head(int(chunks.size()), places.data(), best.data(), is_finite.data());
        std::vector<float> logits;
        for (size_t i = 0; i < chunks.size(); ++i) {
            const float* row = decoder_->logits() + i * decoder_->logit_stride();
            logits.insert(logits.end(), row, row + shape_.vocab_size);
        }
        return logits;
    }

   private:
    const Weight* matrix(int num_outputs, int num_inputs) {
        const auto numbers = random_numbers<float>(size_t(num_outputs) * num_inputs, 3.0f / std::sqrt(float(num_inputs)));
        std::vector<Weight> rounded(numbers.size());
        for (size_t i = 0; i < numbers.size(); ++i) put(&rounded[i], to_float(to_bf16(numbers[i])));
        owners_.push_back(std::move(rounded));
        return owners_.back().data();
    }

    const TokenpostShape shape_{2, 72, 136, 6, 2, 24, 24, 107, 256, TOKENPOST_SILU, sizeof(Weight) == 2,
                                1e-6f, 0.2f, 1.0f, 0, 0};
    TokenpostLayer layers_[2];
    std::vector<float> ones_ = std::vector<float>(136, 1.0f), cosines_, sines_;
    std::vector<std::vector<Weight>> owners_;
    std::unique_ptr<Decoder<Weight, Activation>> decoder_;
};

template <class Weight, class Activation>
std::vector<float> check_decoder(const char* types) {
    RandomModel<Weight, Activation> model;
    const auto whole = model.run({{0, 200, 0}});
    const auto same = [&](const std::vector<float>& logits, size_t row, const char* how) {
        expect(std::equal(whole.begin(), whole.end(), logits.begin() + row * whole.size()),
               std::string(types) + " logits " + how);
    };
    model.run({{0, 61, 8}, {0, 100, 16}});
    model.run({{61, 62, 8}, {100, 101, 16}});
    const auto chunked = model.run({{62, 200, 8}, {101, 199, 16}});
    same(chunked, 0, "in chunks");
    same(model.run({{3, 9, 8}, {199, 200, 16}}), 1, "of the last token alone");
    return whole;
}

}  // namespace

int main(int, char** arguments) {
    check_vectors();
    check_sampling();
    if (multiplies_bf16()) enable_amx();
    check_products<float, float>("float32", 1e-4);
    check_products<bf16, float>("bfloat16, widened,", 1e-4);
    check_attention<float, float>("float32", 1e-5);
    check_attention<bf16, float>("bfloat16, widened,", 1e-5);
#ifdef TOKENPOST_BF16_DOT
    check_products<bf16, bf16>("bfloat16", 1e-4);
    check_attention<bf16, bf16>("bfloat16", 1e-2);
    const auto bfloat16 = check_decoder<bf16, bf16>("bfloat16");
#else
    const auto bfloat16 = check_decoder<bf16, float>("bfloat16, widened,");
#endif
    const auto float32 = check_decoder<float, float>("float32");
    if (num_wrong > 0) return std::printf("%d are wrong\n", num_wrong), 1;
    std::FILE* file = std::fopen(arguments[1], "wb");
    for (const auto& logits : {float32, bfloat16}) std::fwrite(logits.data(), sizeof(float), logits.size(), file);
    std::fclose(file);
    std::printf("%s\n", instruction_set());
    return 0;
}
