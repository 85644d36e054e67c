#ifndef MNEME_TESTS_KERNELS_SAMPLING_FIXTURE_H_
#define MNEME_TESTS_KERNELS_SAMPLING_FIXTURE_H_

#include <cstdint>
#include <vector>

#include "kernels/sampling.h"
#include "tests/kernels/backend_fixture.h"

namespace mneme {

// Draws through Stream::Sample.
class SamplingTestBase : public BackendTest {
 protected:
  // Draws rows[i] from row i of `logits` [num_logits_rows, vocab], of which there may be more than
  // draws. What the backend writes for those shows as id −1.
  std::vector<SampledRow> SampleMatrix(const std::vector<float>& logits, size_t vocab_size,
                                       const std::vector<SampleRow>& rows);
  // Draws each of `rows` from the same logits.
  std::vector<SampledRow> SampleEach(const std::vector<float>& logits,
                                     const std::vector<SampleRow>& rows);
  SampledRow SampleOne(const std::vector<float>& logits, const SampleRow& row) {
    return SampleEach(logits, {row})[0];
  }
};

}  // namespace mneme

#endif  // MNEME_TESTS_KERNELS_SAMPLING_FIXTURE_H_
