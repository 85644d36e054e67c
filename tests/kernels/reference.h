#ifndef MNEME_TESTS_KERNELS_REFERENCE_H_
#define MNEME_TESTS_KERNELS_REFERENCE_H_

// The operations of a backend, each written the straightforward way in double precision.

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace mneme::reference {

// A matrix [rows, cols] in double precision.
struct Tensor {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<double> values;

  Tensor() = default;
  Tensor(int64_t row_count, int64_t col_count)
      : rows(row_count), cols(col_count), values(static_cast<size_t>(row_count * col_count)) {}

  double& at(int64_t row, int64_t col) { return values[static_cast<size_t>(row * cols + col)]; }
  double at(int64_t row, int64_t col) const {
    return values[static_cast<size_t>(row * cols + col)];
  }
  Tensor Rows(int64_t first, int64_t count) const;
};

double Norm(const Tensor& a);  // Frobenius

// x Wᵀ, and the same of the absolute values: the scale that rounding errors have.
Tensor Linear(const Tensor& x, const Tensor& weight);
Tensor LinearMagnitude(const Tensor& x, const Tensor& weight);
// The roots of the summed squares of the terms: the scale of independent errors of the terms.
Tensor LinearSpread(const Tensor& x, const Tensor& weight);

Tensor RmsNorm(const Tensor& x, const Tensor& weight, double epsilon);
Tensor SwiGlu(const Tensor& gate_up);

// Rotates a head of `head` at column `first` of row `row` to `position`.
void Rotate(const RopeSpec& rope, int64_t position, int64_t row, int64_t first, Tensor& heads);

struct Attended {
  Tensor out;     // Σ p v
  Tensor spread;  // √Σ (p v)²: the scale of independent errors of the probabilities p
};
// One sequence: q [n, heads head_dim] of its last n positions over k and v [context, kv_heads
// head_dim] of all positions.
Attended Attention(const Tensor& q, const Tensor& k, const Tensor& v, const QkvShape& shape,
                   int64_t window, double scale);

// U = rate · vᵀ z, v the convolution of `target` times `projection` (c W_proj; empty: none).
Tensor Update(const Tensor& target, const Tensor& z, const Tensor& conv, const Tensor& projection,
              double rate);

struct Controls {
  double lr_scale = 1, clip_norm = 0, decay = 0, max_relative_norm = 0, down_norm = 1;
};
struct Outcome {
  Tensor delta;
  double update_norm = 0;
  bool clipped = false;
  bool skipped = false;
};
// What becomes of `delta` when the update `u` meets the controls.
Outcome Apply(const Tensor& delta, const Tensor& u, const Controls& controls);

double LogProb(const Tensor& logits, int64_t row, int64_t target);

}  // namespace mneme::reference

#endif  // MNEME_TESTS_KERNELS_REFERENCE_H_
