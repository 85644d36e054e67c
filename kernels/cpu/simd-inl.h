// What the vector loops share; compiled once for each target, so the guard toggles as Highway asks.
#if defined(MNEME_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MNEME_KERNELS_CPU_SIMD_INL_H_
#undef MNEME_KERNELS_CPU_SIMD_INL_H_
#else
#define MNEME_KERNELS_CPU_SIMD_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mneme {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE int64_t LanesOf(D d) {
  return static_cast<int64_t>(hn::Lanes(d));
}

// Calls step(tag, i) for the full vectors of float32 that start at i, then for single elements.
template <class Step>
HWY_INLINE void ForEachVector(int64_t count, const Step& step) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = LanesOf(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) step(d, i);
  for (; i < count; ++i) step(hn::CappedTag<float, 1>(), i);
}

}  // namespace HWY_NAMESPACE
}  // namespace mneme
HWY_AFTER_NAMESPACE();

#endif  // MNEME_KERNELS_CPU_SIMD_INL_H_
