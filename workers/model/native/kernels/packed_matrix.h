// A weight matrix packed into tiles.
#pragma once
#include <vector>

#include "matmul.h"
#include "buffer.h"
#include "thread_pool.h"

namespace tokenpost {

// Some outputs of a matrix in the layout of torch: [num_outputs, num_inputs].
template <class Weight>
struct Part {
    const Weight* weights;
    const float* bias;  // null: none
    int num_outputs;
};

template <class Weight, class Activation>
class PackedMatrix {
   public:
    PackedMatrix() = default;

    // Parts one after another. The threads of the pool copy the weights.
    static PackedMatrix of(const std::vector<Part<Weight>>& parts, int num_inputs, Arena& arena, ThreadPool& pool) {
        int num_outputs = 0;
        for (const auto& part : parts) num_outputs += part.num_outputs;
        PackedMatrix matrix(num_outputs, num_inputs, arena);
        Columns columns(num_outputs);
        int column = 0;
        for (const auto& part : parts)
            for (int i = 0; i < part.num_outputs; ++i) columns.set(column++, part, i, num_inputs);
        matrix.fill(columns, arena, pool);
        return matrix;
    }

    // Two parts interleaved by 16 outputs, so that a tile holds 16 outputs of each.
    static PackedMatrix interleaved(const Part<Weight>& left, const Part<Weight>& right, int num_inputs,
                                    Arena& arena, ThreadPool& pool) {
        PackedMatrix matrix(2 * padded(left.num_outputs, VEC_LEN), num_inputs, arena);
        Columns columns(matrix.num_outputs_);
        for (int i = 0; i < left.num_outputs; ++i) {
            const int column = i / VEC_LEN * TILE_OUTPUTS + i % VEC_LEN;
            columns.set(column, left, i, num_inputs);
            columns.set(column + VEC_LEN, right, i, num_inputs);
        }
        matrix.fill(columns, arena, pool);
        return matrix;
    }

    int num_outputs() const { return num_outputs_; }
    size_t bytes() const { return tiles_.bytes() + bias_.bytes(); }
    int num_tiles() const { return padded(num_outputs_, TILE_OUTPUTS) / TILE_OUTPUTS; }

    // Work items of a product with so many rows: a tile and a group of rows each.
    int num_items(int num_rows) const { return num_tiles() * num_row_groups(num_rows); }

    // Multiplies the rows of X in the items first .. last - 1; calls finish(row, column, left, right) for each row and
    // tile of them.
    template <class Finish>
    void multiply(int num_rows, const Activation* x, size_t stride, int first, int last, const Finish& finish) const {
        for (int index = first; index < last; ++index) {
            const Item item = item_of(index, num_rows);
            const int column = item.tile * TILE_OUTPUTS;
            const Vec left_bias = bias_ ? load(bias_.get() + column) : Vec{};
            const Vec right_bias = bias_ ? load(bias_.get() + column + VEC_LEN) : Vec{};
            const auto finish_row = [&](int row, Vec left, Vec right) {
                finish(item.row + row, column, left + left_bias, right + right_bias);
            };
            const Rows<const Activation> rows{x + item.row * stride, stride, item.num_rows};
            const Weight* tile = tiles_.get() + size_t(column) * num_inputs_;
            if constexpr (IS_IN_TILES<Activation>)
                multiply_in_tiles(rows, num_inputs_, tile, finish_row);
            else
                multiply_rows(rows, num_inputs_, tile, finish_row);
        }
    }

   private:
    // Some rows of X, from `row` on, and a tile.
    struct Item {
        int tile, row, num_rows;
    };

    // Tiles that are multiplied with one group of rows before the next comes: both stay in the second-level cache.
    static constexpr int TILE_GROUP = 4;

    static int num_row_groups(int num_rows) {
        const int most = group_rows<Activation>(num_rows);
        return (num_rows + most - 1) / most;
    }

    // Groups of tiles one after another, in each one group of rows after the other.
    Item item_of(int index, int num_rows) const {
        const int groups = num_row_groups(num_rows), begin = index / (TILE_GROUP * groups) * TILE_GROUP;
        const int num = std::min(TILE_GROUP, num_tiles() - begin), rest = index - begin * groups;
        const int most = group_rows<Activation>(num_rows), row = rest / num * most;
        return {begin + rest % num, row, std::min(most, num_rows - row)};
    }

   private:
    PackedMatrix(int num_outputs, int num_inputs, Arena& arena)
        : num_outputs_(num_outputs),
          num_inputs_(padded(num_inputs, TILE_OUTPUTS)),
          num_given_(num_inputs),
          tiles_(size_t(padded(num_outputs, TILE_OUTPUTS)) * num_inputs_, arena) {}

    // Where the weights and the bias of each column of the tiles are; null: it has none, and they stay zero.
    struct Columns {
        explicit Columns(int num_outputs)
            : weights(padded(num_outputs, TILE_OUTPUTS)), biases(padded(num_outputs, TILE_OUTPUTS)) {}

        void set(int column, const Part<Weight>& part, int output, int num_inputs) {
            weights[column] = part.weights + size_t(output) * num_inputs;
            biases[column] = part.bias == nullptr ? nullptr : part.bias + output;
            has_bias |= part.bias != nullptr;
        }

        std::vector<const Weight*> weights;
        std::vector<const float*> biases;
        bool has_bias = false;
    };

    void fill(const Columns& columns, Arena& arena, ThreadPool& pool) {
        pool.run([&](int thread) {
            pool.parallel_for(num_tiles(), thread, [&](int from, int to) {
                for (int tile = from; tile < to; ++tile) fill_tile(columns.weights.data(), tile * TILE_OUTPUTS);
            });
        });
        if (!columns.has_bias) return;
        bias_ = Buffer<float>(columns.biases.size(), arena);
        for (size_t i = 0; i < columns.biases.size(); ++i)
            if (columns.biases[i] != nullptr) bias_.get()[i] = *columns.biases[i];
    }

    // A few inputs of all outputs after the other, so that what is written stays in the first-level cache.
    void fill_tile(const Weight* const* weights, int column) {
        Weight* tile = tiles_.get() + size_t(column) * num_inputs_;
        for (int begin = 0; begin < num_given_; begin += PAIRED_INPUTS) {
            const int end = std::min(begin + PAIRED_INPUTS, num_given_);
            for (int output = 0; output < TILE_OUTPUTS; ++output) {
                const Weight* from = weights[column + output];
                if (from == nullptr) continue;
                for (int k = begin; k < end; ++k) tile[tile_offset<Weight>(k, output)] = from[k];
            }
        }
    }

    int num_outputs_ = 0, num_inputs_ = 0, num_given_ = 0;
    Buffer<Weight> tiles_;
    Buffer<float> bias_;
};

}  // namespace tokenpost
