// A weight matrix laid out in panels for `panel_times`.
#pragma once
#include <vector>

#include "matmul.h"
#include "memory.h"

namespace tokenpost {

// Some outputs of a matrix as torch has them: [num_outputs, num_inputs].
template <class Weight>
struct Part {
    const Weight* weights;
    const float* bias;  // null: none
    int num_outputs;
};

template <class Weight, class Activation>
class Matrix {
   public:
    Matrix() = default;

    // Parts one after another.
    static Matrix of(const std::vector<Part<Weight>>& parts, int num_inputs) {
        int num_outputs = 0;
        for (const auto& part : parts) num_outputs += part.num_outputs;
        Matrix matrix(num_outputs, num_inputs);
        int column = 0;
        for (const auto& part : parts)
            for (int i = 0; i < part.num_outputs; ++i) matrix.set(column++, part, i);
        return matrix;
    }

    // Two parts, 16 outputs of each in turn, so that both meet in one panel.
    static Matrix paired(const Part<Weight>& left, const Part<Weight>& right, int num_inputs) {
        Matrix matrix(2 * padded(left.num_outputs, LANES), num_inputs);
        for (int i = 0; i < left.num_outputs; ++i) {
            const int column = i / LANES * PANEL + i % LANES;
            matrix.set(column, left, i);
            matrix.set(column + LANES, right, i);
        }
        return matrix;
    }

    int num_outputs() const { return num_outputs_; }
    size_t bytes() const { return panels_.bytes() + bias_.bytes(); }
    int num_panels() const { return padded(num_outputs_, PANEL) / PANEL; }

    // Panels first .. last - 1 against every row of X; finish(row, column, left, right) for each 32 outputs.
    template <class Finish>
    void times(int num_rows, const Activation* x, size_t stride, int first, int last, const Finish& finish) const {
        for (int index = first; index < last; ++index) {
            const int column = index * PANEL;
            const Vec left_bias = bias_ ? load(bias_.get() + column) : Vec{};
            const Vec right_bias = bias_ ? load(bias_.get() + column + LANES) : Vec{};
            const Weight* panel = panels_.get() + size_t(column) * num_inputs_;
            panel_times(num_rows, num_inputs_, x, stride, panel, panel + AHEAD<Weight> * PANEL,
                        [&](int row, Vec left, Vec right) {
                finish(row, column, left + left_bias, right + right_bias);
            });
        }
    }

   private:
    Matrix(int num_outputs, int num_inputs)
        : num_outputs_(num_outputs),
          num_inputs_(padded(num_inputs, PANEL)),
          num_given_(num_inputs),
          panels_(size_t(padded(num_outputs, PANEL)) * num_inputs_) {}

    void set(int column, const Part<Weight>& part, int output) {
        Weight* panel = panels_.get() + size_t(column / PANEL) * PANEL * num_inputs_;
        const Weight* from = part.weights + size_t(output) * num_given_;
        for (int k = 0; k < num_given_; ++k) panel[panel_place<Activation>(k, column % PANEL)] = from[k];
        if (part.bias == nullptr) return;
        if (!bias_) bias_ = Buffer<float>(padded(num_outputs_, PANEL));
        bias_.get()[column] = part.bias[output];
    }

    int num_outputs_ = 0, num_inputs_ = 0, num_given_ = 0;
    Buffer<Weight> panels_;
    Buffer<float> bias_;
};

}  // namespace tokenpost
