#ifndef MNEME_TESTS_KERNELS_REFERENCE_SAMPLER_H_
#define MNEME_TESTS_KERNELS_REFERENCE_SAMPLER_H_

// What Stream::Sample computes, written as plainly as possible: in double precision, by sorting.

#include <cstdint>
#include <map>
#include <vector>

#include "kernels/sampling.h"

namespace mneme {

// The probability of each token [vocab] under `params`, which have a temperature above 0.
std::vector<double> ReferenceDistribution(const std::vector<float>& logits,
                                          const SamplingParams& params,
                                          const std::map<int32_t, int>& counts,
                                          const std::vector<int32_t>& forbidden);

// The token at which the probabilities, summed by id, first exceed `uniform`.
int32_t ReferenceDraw(const std::vector<double>& distribution, double uniform);

}  // namespace mneme

#endif  // MNEME_TESTS_KERNELS_REFERENCE_SAMPLER_H_
