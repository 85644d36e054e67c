#include "tests/kernels/sampling_fixture.h"

namespace mneme {

std::vector<SampledRow> SamplingTestBase::SampleMatrix(const std::vector<float>& logits,
                                                       size_t vocab_size,
                                                       const std::vector<SampleRow>& rows) {
  const int64_t cols = static_cast<int64_t>(vocab_size);
  const int64_t m = static_cast<int64_t>(logits.size() / vocab_size);
  const DeviceMatrix device_logits = Poisoned(m, cols, DType::kF32);
  stream_->CopyFromHost(device_logits.view.data, logits.data(), m * cols * 4);
  const int64_t bytes = m * static_cast<int64_t>(sizeof(SampledRow));
  const DeviceBuffer out = PoisonedBytes(bytes);  // ids of −1
  const std::vector<int32_t> tokens(static_cast<size_t>(m));
  const SequenceRows sequence{0, m, 0, {}};
  stream_->BeginStep(
      {.token_ids = tokens, .sequences = {&sequence, 1}, .padded_rows = m, .samples = rows});
  stream_->Sample(device_logits.view, out.data());
  std::vector<SampledRow> sampled(static_cast<size_t>(m));
  stream_->CopyToHost(sampled.data(), out.data(), bytes);
  EXPECT_TRUE(stream_->Synchronize().ok());
  return sampled;
}

std::vector<SampledRow> SamplingTestBase::SampleEach(const std::vector<float>& logits,
                                                     const std::vector<SampleRow>& rows) {
  std::vector<float> repeated;
  repeated.reserve(logits.size() * rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    repeated.insert(repeated.end(), logits.begin(), logits.end());
  }
  return SampleMatrix(repeated, logits.size(), rows);
}

}  // namespace mneme
