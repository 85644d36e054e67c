#include "tests/kernels/reference.h"

#include <algorithm>
#include <cmath>

namespace mneme::reference {

Tensor Tensor::Rows(int64_t first, int64_t count) const {
  Tensor out(count, cols);
  std::copy_n(values.begin() + first * cols, count * cols, out.values.begin());
  return out;
}

double Norm(const Tensor& a) {
  double sum = 0;
  for (const double x : a.values) sum += x * x;
  return std::sqrt(sum);
}

namespace {

template <typename Term>
Tensor SumProducts(const Tensor& x, const Tensor& weight, Term term) {
  Tensor out(x.rows, weight.rows);
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t j = 0; j < weight.rows; ++j) {
      for (int64_t k = 0; k < x.cols; ++k) out.at(i, j) += term(x.at(i, k) * weight.at(j, k));
    }
  }
  return out;
}

}  // namespace

Tensor Linear(const Tensor& x, const Tensor& weight) {
  return SumProducts(x, weight, [](double product) { return product; });
}

Tensor LinearMagnitude(const Tensor& x, const Tensor& weight) {
  return SumProducts(x, weight, [](double product) { return std::abs(product); });
}

Tensor LinearSpread(const Tensor& x, const Tensor& weight) {
  Tensor out = SumProducts(x, weight, [](double product) { return product * product; });
  for (double& value : out.values) value = std::sqrt(value);
  return out;
}

Tensor RmsNorm(const Tensor& x, const Tensor& weight, double epsilon) {
  Tensor out(x.rows, x.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    double squares = 0;
    for (int64_t j = 0; j < x.cols; ++j) squares += x.at(i, j) * x.at(i, j);
    const double rms = std::sqrt(squares / static_cast<double>(x.cols) + epsilon);
    for (int64_t j = 0; j < x.cols; ++j) out.at(i, j) = x.at(i, j) / rms * weight.at(0, j);
  }
  return out;
}

Tensor SwiGlu(const Tensor& gate_up) {
  const int64_t f = gate_up.cols / 2;
  Tensor z(gate_up.rows, f);
  for (int64_t i = 0; i < z.rows; ++i) {
    for (int64_t j = 0; j < f; ++j) {
      const double gate = gate_up.at(i, j);
      z.at(i, j) = gate / (1 + std::exp(-gate)) * gate_up.at(i, f + j);
    }
  }
  return z;
}

void Rotate(const RopeSpec& rope, int64_t position, int64_t row, int64_t first, Tensor& heads) {
  const int64_t half = static_cast<int64_t>(rope.inverse_frequencies.size());
  for (int64_t i = 0; i < half; ++i) {
    const double angle =
        static_cast<double>(position) * rope.inverse_frequencies[static_cast<size_t>(i)];
    const double cosine = std::cos(angle) * rope.attention_factor;
    const double sine = std::sin(angle) * rope.attention_factor;
    const double a = heads.at(row, first + i), b = heads.at(row, first + half + i);
    heads.at(row, first + i) = a * cosine - b * sine;
    heads.at(row, first + half + i) = b * cosine + a * sine;
  }
}

Attended Attention(const Tensor& q, const Tensor& k, const Tensor& v, const QkvShape& shape,
                   int64_t window, double scale) {
  Tensor out(q.rows, q.cols), squares(q.rows, q.cols);
  const int64_t hd = shape.head_dim;
  for (int64_t row = 0; row < q.rows; ++row) {
    const int64_t position = k.rows - q.rows + row;
    const int64_t first = window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
    for (int64_t head = 0; head < shape.query_heads; ++head) {
      const int64_t kv_head = head * shape.kv_heads / shape.query_heads;
      std::vector<double> weights;
      for (int64_t key = first; key <= position; ++key) {
        double score = 0;
        for (int64_t i = 0; i < hd; ++i)
          score += q.at(row, head * hd + i) * k.at(key, kv_head * hd + i);
        weights.push_back(score * scale);
      }
      const double max = *std::max_element(weights.begin(), weights.end());
      double sum = 0;
      for (double& weight : weights) sum += weight = std::exp(weight - max);
      for (int64_t key = first; key <= position; ++key) {
        const double weight = weights[static_cast<size_t>(key - first)] / sum;
        for (int64_t i = 0; i < hd; ++i) {
          const double term = weight * v.at(key, kv_head * hd + i);
          out.at(row, head * hd + i) += term;
          squares.at(row, head * hd + i) += term * term;
        }
      }
    }
  }
  for (double& value : squares.values) value = std::sqrt(value);
  return {out, squares};
}

Tensor Update(const Tensor& target, const Tensor& z, const Tensor& conv, const Tensor& projection,
              double rate) {
  Tensor v(target.rows, target.cols);
  for (int64_t p = 0; p < target.rows; ++p) {
    for (int64_t e = 0; e < target.cols; ++e) {
      for (int64_t j = 0; j < 5; ++j) {
        const int64_t q = p + j - 2;
        if (q >= 0 && q < target.rows) v.at(p, e) += conv.at(e, j) * target.at(q, e);
      }
    }
  }
  if (projection.rows > 0) {
    Tensor projected(v.rows, v.cols);
    for (int64_t p = 0; p < v.rows; ++p) {
      for (int64_t e = 0; e < v.cols; ++e) {
        for (int64_t i = 0; i < v.cols; ++i) projected.at(p, e) += v.at(p, i) * projection.at(i, e);
      }
    }
    v = projected;
  }
  Tensor u(target.cols, z.cols);
  for (int64_t p = 0; p < v.rows; ++p) {
    for (int64_t i = 0; i < u.rows; ++i) {
      for (int64_t j = 0; j < u.cols; ++j) u.at(i, j) += rate * v.at(p, i) * z.at(p, j);
    }
  }
  return u;
}

Outcome Apply(const Tensor& delta, const Tensor& u, const Controls& controls) {
  Tensor update = u;
  for (double& x : update.values) x *= controls.lr_scale;
  Outcome outcome{.delta = delta, .update_norm = Norm(update)};
  if (!std::isfinite(outcome.update_norm)) {
    outcome.skipped = true;
    return outcome;
  }
  const bool clip = controls.clip_norm > 0 && outcome.update_norm > controls.clip_norm;
  const double factor = clip ? controls.clip_norm / outcome.update_norm : 1;
  Tensor candidate = delta;
  for (size_t i = 0; i < candidate.values.size(); ++i) {
    candidate.values[i] = (1 - controls.decay) * delta.values[i] + factor * update.values[i];
  }
  outcome.skipped = controls.max_relative_norm > 0 &&
                    Norm(candidate) / controls.down_norm > controls.max_relative_norm;
  outcome.clipped = clip;
  if (!outcome.skipped) outcome.delta = candidate;
  return outcome;
}

double LogProb(const Tensor& logits, int64_t row, int64_t target) {
  double max = logits.at(row, 0);
  for (int64_t j = 0; j < logits.cols; ++j) max = std::max(max, logits.at(row, j));
  double sum = 0;
  for (int64_t j = 0; j < logits.cols; ++j) sum += std::exp(logits.at(row, j) - max);
  return logits.at(row, target) - max - std::log(sum);
}

}  // namespace mneme::reference
