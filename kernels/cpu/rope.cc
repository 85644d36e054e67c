#include "kernels/cpu/rope.h"

#include <cmath>

#include "kernels/cpu/row_loops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "hwy/foreach_target.h"
// Highway asks for this order.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {
namespace {

void Rotate(const float* rope, int64_t half, float* head) {
  ForEachVector(half, [=](auto d, int64_t i) HWY_ATTR {
    const auto cosine = hn::LoadU(d, rope + i);
    const auto sine = hn::LoadU(d, rope + half + i);
    const auto first = hn::LoadU(d, head + i);
    const auto second = hn::LoadU(d, head + half + i);
    hn::StoreU(hn::NegMulAdd(second, sine, hn::Mul(first, cosine)), d, head + i);
    hn::StoreU(hn::MulAdd(first, sine, hn::Mul(second, cosine)), d, head + half + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme {

HWY_EXPORT(Rotate);

void ComputeRopeRow(const RopeSpec& rope, int64_t position, float* out) {
  const size_t half = rope.inverse_frequencies.size();
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * rope.inverse_frequencies[i];
    out[i] = static_cast<float>(std::cos(angle) * rope.attention_factor);
    out[half + i] = static_cast<float>(std::sin(angle) * rope.attention_factor);
  }
}

void NormaliseAndRotateHead(const float* weight, float epsilon, const float* rope, int64_t head_dim,
                            float* head) {
  if (weight != nullptr) RmsNormRow(head, weight, epsilon, head_dim, head);
  HWY_DYNAMIC_DISPATCH(Rotate)(rope, head_dim / 2, head);
}

}  // namespace mneme
#endif  // HWY_ONCE
