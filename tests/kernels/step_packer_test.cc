// The arrays that CUDA kernels see of a step: packed here, read through the host's pointers and
// through those that a device would have.

#include "kernels/cuda/step_packer.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mneme::cuda {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

template <typename T>
std::vector<T> Take(const T* data, int64_t count) {
  return std::vector<T>(data, data + count);
}

// A batch, packed for a copy at another address.
class Packed {
 public:
  Packed(const RowBatch& batch, int64_t page_tokens, int64_t num_ttt_layers = 0,
         bool repeatable = false) {
    StepPacker packer(batch, page_tokens, num_ttt_layers, repeatable);
    const auto words = static_cast<size_t>(packer.bytes() + 15) / 16 * 2;
    host_.resize(words);
    device_.resize(words);
    views_ =
        packer.Pack(reinterpret_cast<char*>(host_.data()), reinterpret_cast<char*>(device_.data()));
    std::memcpy(device_.data(), host_.data(), static_cast<size_t>(packer.bytes()));
    std::fill(host_.begin(), host_.end(), 0);  // the device's view must not lead back to the host
  }
  const StepView& device() const { return *reinterpret_cast<const StepView*>(device_.data()); }

 private:
  std::vector<uint64_t> host_, device_;
  StepViews views_;
};

const void* Address(uintptr_t value) { return reinterpret_cast<const void*>(value); }

TEST(StepPackerTest, NumbersRowsAndSlotsOfSequencesAndPadding) {
  const std::vector<int32_t> tokens = {7, 8, 9, 5};
  const std::vector<int32_t> first_pages = {10, 3, 99}, second_pages = {6, 2};
  const std::vector<PageTable> first = {{first_pages, 8}}, second = {{second_pages, 0}};
  const std::vector<SequenceRows> sequences = {{0, 3, 10, first}, {3, 1, 4, second}};
  const Packed packed({.token_ids = tokens, .sequences = sequences, .padded_rows = 6}, 4);

  const StepView& step = packed.device();
  EXPECT_EQ(step.rows, 4);
  EXPECT_EQ(step.padded_rows, 6);
  ASSERT_EQ(step.num_sequences, 4);
  EXPECT_THAT(Take(step.token_ids, 6), ElementsAre(7, 8, 9, 5, 0, 0));
  EXPECT_THAT(Take(step.positions, 6), ElementsAre(10, 11, 12, 4, 0, 0));
  EXPECT_THAT(Take(step.row_sequence, 6), ElementsAre(0, 0, 0, 1, 2, 3));
  EXPECT_THAT(Take(step.first_row, 5), ElementsAre(0, 3, 4, 4, 4));
  const KvGroupView& group = step.groups[0];
  EXPECT_THAT(Take(group.slots, 6), ElementsAre(42, 43, 12, 8, -1, -1));
  EXPECT_THAT(Take(group.page_indptr, 5), ElementsAre(0, 2, 4, 4, 4));
  EXPECT_THAT(Take(group.pages, 4), ElementsAre(10, 3, 6, 2)) << "pages in use alone";
  EXPECT_THAT(Take(group.last_page_len, 4), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(Take(group.first_position, 4), ElementsAre(8, 0, 0, 0));
}

TEST(StepPackerTest, LeavesSlotsOutWithoutAPageSize) {
  const std::vector<int32_t> tokens = {7};
  const std::vector<int32_t> pages = {1};
  const std::vector<PageTable> tables = {{pages, 0}};
  const std::vector<SequenceRows> sequences = {{0, 1, 5, tables}};
  const RowBatch batch{.token_ids = tokens, .sequences = sequences, .padded_rows = 1};
  for (const int64_t page_tokens : {0, 2}) {  // unknown, and too small for the pages that there are
    const Packed packed(batch, page_tokens);
    EXPECT_EQ(packed.device().groups[0].slots[0], -1);
  }
}

TEST(StepPackerTest, CutsShortSegmentsWithDeltasIntoGroups) {
  const std::vector<int32_t> tokens(50);
  const std::vector<const void*> deltas = {nullptr, Address(64)};
  const std::vector<ChunkSegment> segments = {
      {.first_row = 0, .row_count = 10, .deltas = deltas},
      {.first_row = 10, .row_count = 17, .deltas = deltas},  // merged instead
      {.first_row = 27, .row_count = 3},                     // without ΔW
      {.first_row = 30, .row_count = 1, .deltas = deltas}};
  const absl::Span<const ChunkSegment> wave = segments;
  const Packed packed({.token_ids = tokens, .padded_rows = 50, .waves = {&wave, 1}}, 4, 3);

  const WaveView& view = packed.device().waves[0];
  ASSERT_EQ(view.num_groups, 3);
  ASSERT_EQ(view.num_layers, 3);
  std::vector<int> rows;
  for (int i = 0; i < 3; ++i) {
    rows.push_back(view.groups[i].first_row);
    rows.push_back(view.groups[i].row_count);
  }
  EXPECT_THAT(rows, ElementsAre(0, 8, 8, 2, 30, 1));
  const void* const none = nullptr;
  const void* const some = Address(64);
  EXPECT_THAT(Take(view.deltas, 9),
              ElementsAre(none, none, none, some, some, some, none, none, none));
}

TEST(StepPackerTest, GivesEachRowOfARepeatableStepAGroup) {
  const std::vector<int32_t> tokens = {1, 2};
  const std::vector<const void*> deltas = {Address(64)};
  const std::vector<ChunkSegment> segments = {{.first_row = 0, .row_count = 1},
                                              {.first_row = 1, .row_count = 1, .deltas = deltas}};
  const absl::Span<const ChunkSegment> wave = segments;
  const Packed packed({.token_ids = tokens, .padded_rows = 4, .waves = {&wave, 1}}, 4, 2, true);

  const WaveView& view = packed.device().waves[0];
  ASSERT_EQ(view.num_groups, 4);
  ASSERT_EQ(view.num_layers, 2);
  std::vector<int> counts;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(view.groups[i].first_row, i);
    counts.push_back(view.groups[i].row_count);
  }
  EXPECT_THAT(counts, ElementsAre(1, 1, 0, 0));
  std::vector<const void*> expected(8);
  expected[1] = Address(64);
  EXPECT_THAT(Take(view.deltas, 8), ElementsAreArray(expected));
}

TEST(StepPackerTest, SaysWhereRowsAreKept) {
  const std::vector<int32_t> tokens(3);
  void* const block = const_cast<void*>(Address(128));
  const std::vector<ChunkSegment> segments = {
      {.first_row = 0, .row_count = 1},
      {.first_row = 1, .row_count = 2, .kept = block, .chunk_offset = 5}};
  const absl::Span<const ChunkSegment> wave = segments;
  const Packed packed({.token_ids = tokens, .padded_rows = 4, .waves = {&wave, 1}}, 4);

  const WaveView& view = packed.device().waves[0];
  EXPECT_EQ(view.num_groups, 0);
  EXPECT_THAT(Take(view.kept, 4), ElementsAre(nullptr, block, block, nullptr));
  EXPECT_EQ(view.kept_offset[1], 5);
  EXPECT_EQ(view.kept_offset[2], 6);
}

TEST(StepPackerTest, ListsWhatSamplesNeed) {
  const std::vector<int32_t> tokens = {1, 2};
  const SamplingParams plain{.temperature = 0.5f, .top_k = 3, .seed = 9};
  const SamplingParams penalised{.presence_penalty = 1, .logit_bias = {{4, 0.5f}, {6, -1.0f}}};
  const std::vector<TokenCount> counts = {{3, 2}};
  const std::vector<int32_t> forbidden = {8};
  const std::vector<SampleRow> samples = {
      {.params = &plain, .position = 11, .counts = counts, .forbidden = forbidden},
      {.params = &penalised, .position = 12, .counts = counts, .top_logprobs = 2}};
  const Packed packed({.token_ids = tokens, .padded_rows = 2, .samples = samples}, 4);

  const SampleView& view = packed.device().samples;
  ASSERT_EQ(view.num_samples, 2);
  EXPECT_THAT(Take(view.temperature, 2), ElementsAre(0.5f, 1.0f));
  EXPECT_THAT(Take(view.top_k, 2), ElementsAre(3, 0));
  EXPECT_THAT(Take(view.top_logprobs, 2), ElementsAre(-1, 2));
  EXPECT_EQ(view.uniform[0], UniformAt(9, 11));
  EXPECT_THAT(Take(view.count_indptr, 3), ElementsAre(0, 0, 1)) << "where something penalises";
  EXPECT_EQ(view.count_ids[0], 3);
  EXPECT_EQ(view.counts[0], 2);
  EXPECT_THAT(Take(view.bias_indptr, 3), ElementsAre(0, 0, 2));
  EXPECT_THAT(Take(view.bias_ids, 2), ElementsAre(4, 6));
  EXPECT_THAT(Take(view.biases, 2), ElementsAre(0.5f, -1.0f));
  EXPECT_THAT(Take(view.forbidden_indptr, 3), ElementsAre(0, 1, 1));
  EXPECT_EQ(view.forbidden_ids[0], 8);
}

}  // namespace
}  // namespace mneme::cuda
