#include "loadtest/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace mneme {
namespace {

constexpr int kExactBits = 11;                           // values below 2^11 are exact
constexpr size_t kHalf = size_t{1} << (kExactBits - 1);  // buckets of each power of two above

// How far a value is shifted so that it has kExactBits bits.
int ShiftOf(uint64_t value) {
  return std::max(0, static_cast<int>(std::bit_width(value)) - kExactBits);
}

size_t BucketOf(int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  const int shift = ShiftOf(bits);
  return static_cast<size_t>(shift) * kHalf + static_cast<size_t>(bits >> shift);
}

// The largest value of a bucket.
int64_t UpperEnd(size_t bucket) {
  if (bucket < 2 * kHalf) return static_cast<int64_t>(bucket);
  const size_t shift = bucket / kHalf - 1;
  const size_t mantissa = bucket - shift * kHalf;
  return static_cast<int64_t>(((mantissa + 1) << shift) - 1);
}

}  // namespace

void Histogram::Add(int64_t value_us) {
  value_us = std::max<int64_t>(0, value_us);
  const size_t bucket = BucketOf(value_us);
  if (bucket >= buckets_.size()) buckets_.resize(bucket + 1);
  ++buckets_[bucket];
  ++count_;
  max_us_ = std::max(max_us_, value_us);
  sum_us_ += static_cast<double>(value_us);
}

double Histogram::mean_us() const {
  return count_ == 0 ? 0 : sum_us_ / static_cast<double>(count_);
}

int64_t Histogram::PercentileUs(double fraction) const {
  const auto rank = static_cast<int64_t>(std::ceil(fraction * static_cast<double>(count_)));
  int64_t seen = 0;
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    seen += buckets_[bucket];
    if (seen > 0 && seen >= rank) return std::min(UpperEnd(bucket), max_us_);
  }
  return max_us_;
}

}  // namespace mneme
