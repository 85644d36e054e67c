#ifndef MNEME_KERNELS_CPU_SAMPLER_H_
#define MNEME_KERNELS_CPU_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/sampling.h"

namespace mneme {

// Draws tokens by the rule of kernels/sampling.h. Owns the scratch memory of one thread's draws,
// which grows to the vocabulary once; results do not depend on earlier calls.
class Sampler {
 public:
  // Makes draws from `vocab_size` logits not allocate. May throw std::bad_alloc.
  void Reserve(size_t vocab_size);
  // Draws from `logits` [vocab], which is not empty.
  SampledRow Sample(absl::Span<const float> logits, const SampleRow& row);

 private:
  struct Candidate {
    int32_t id;
    float logit;   // never NaN or infinite
    float weight;  // e^((logit − highest logit) / temperature), in [0, 1]
  };

  static bool Before(const Candidate& a, const Candidate& b);

  int32_t DrawToken(absl::Span<const float> raw, const SampleRow& row);
  // Sets logits_ to what penalties, bias and `forbidden` make of the raw logits.
  void Adjust(absl::Span<const float> raw, const SampleRow& row);
  // Sets candidates_ to the tokens of finite logit, in order of id.
  void Collect(absl::Span<const float> logits);
  // Drops candidates by top_k, top_p and min_p, and weighs those that stay.
  void Filter(const SamplingParams& params, float highest);
  void KeepTopK(size_t k);
  void Weigh(float highest, float temperature);
  void KeepTopP(double top_p);
  void KeepUpTo(const Candidate& last);
  double TotalWeight() const;
  int32_t Draw(double uniform) const;
  void AddLogProbs(absl::Span<const float> raw, int num_top, SampledRow& sampled);

  std::vector<float> logits_;          // [vocab]
  std::vector<Candidate> candidates_;  // in order of id
  std::vector<Candidate> ranked_;      // scratch of one filter
};

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_SAMPLER_H_
