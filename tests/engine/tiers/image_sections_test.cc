// Images of states in checkpoint files: what goes in comes out and goes on alike; whatever else is
// in the file is refused.

#include "engine/tiers/image_sections.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/coding.h"
#include "tests/engine/state_harness.h"
#include "tests/storage/checkpoint_harness.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

constexpr char kFixture[] = "qwen3-window-yarn";  // chunks of 16, windows of 12 and none
const std::vector<int64_t> kContinuation = {1, 20, 14, 1};

class ImageSectionsTest : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(GetParam());
    harness_.emplace(kFixture, GetParam(), /*slab_bytes=*/1000);
  }
  void TearDown() override {
    if (harness_) ExpectNothingHeld(*harness_);
  }

  std::unique_ptr<Subject> MakeSubject(const std::vector<int64_t>& steps,
                                       const LearningControls& controls = {}) {
    auto subject = harness_->Make(controls);
    harness_->AdvanceAll(*subject, steps);
    return subject;
  }
  static CheckpointInfo InfoAt(int64_t position, bool with_kv = true) {
    return {.position = position, .has_kv = with_kv, .create_time = absl::UnixEpoch()};
  }
  // The file of an image with `info`, whatever that is.
  std::string Write(const StateImage& image, const CheckpointInfo& info) {
    MemoryFile file;
    SectionWriter writer(kCheckpointMagic, id_, key_, file);
    EXPECT_TRUE(writer.Write(SectionKind::kInfo, 0, EncodeCheckpointInfo(info)).ok());
    EXPECT_TRUE(WriteImage(image, harness_->pools(), info.has_kv, writer).ok());
    EXPECT_TRUE(writer.Finish().ok());
    return file.bytes;
  }
  std::string Write(Subject& subject, bool with_kv = true) {
    return Write(harness_->Capture(subject), InfoAt(subject.state.computed(), with_kv));
  }
  absl::StatusOr<StateImage> Read(const std::string& bytes) {
    const MemoryFile file(bytes);
    MNEME_ASSIGN_OR_RETURN(CheckpointReader reader,
                           CheckpointReader::Open("file", file, id_, key_));
    return ReadImage(reader, harness_->pools(), harness_->host());
  }
  static bool Refused(const absl::Status& status) {
    return absl::IsDataLoss(status) || absl::IsFailedPrecondition(status);
  }

  const StoreId id_ = StoreId::Random();
  const SecretKey key_ = SecretKey::Random();
  std::optional<StateHarness> harness_;
};

TEST_P(ImageSectionsTest, AStateComesBackFromAFileAndGoesOn) {
  const LearningControls deferred = {.max_lag_chunks = 3, .clip_norm = 0.25F, .decay = 0.125F};
  const std::vector<std::pair<std::vector<int64_t>, LearningControls>> histories = {
      {{}, {}},
      {{7}, {}},
      {{64, 9}, {}},
      {{64, 32}, {}},
      {{16}, {}},
      {{16, 16, 16, 5}, deferred},
      {{16, 16, 16, 16, 16, 3}, deferred}};
  for (const auto& [steps, controls] : histories) {
    const auto undisturbed = MakeSubject(steps, controls);
    const std::string bytes = Write(*undisturbed);
    const auto restored = harness_->Make(controls);
    {
      absl::StatusOr<StateImage> image = Read(bytes);
      ASSERT_TRUE(image.ok()) << image.status();
      EXPECT_EQ(image->shape.cache, undisturbed->state.cache().shape());
      image->shape.update_log = undisturbed->state.update_log();
      harness_->Restore(*restored, *image);
    }
    for (Subject* subject : {undisturbed.get(), restored.get()}) {
      subject->drawn.clear();
      subject->logprobs.clear();
      harness_->AdvanceAll(*subject, kContinuation);
    }
    EXPECT_EQ(restored->drawn, undisturbed->drawn);
    EXPECT_EQ(restored->logprobs, undisturbed->logprobs);
    EXPECT_EQ(harness_->Deltas(*restored), harness_->Deltas(*undisturbed));
  }
}

TEST_P(ImageSectionsTest, WithoutKeysAndValuesTheRestIsThere) {
  const auto subject = MakeSubject({64, 9});
  const std::string bytes = Write(*subject, /*with_kv=*/false);
  EXPECT_LT(bytes.size(), Write(*subject).size());
  const absl::StatusOr<StateImage> image = Read(bytes);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->shape.last_hidden, subject->state.last_hidden());
  EXPECT_TRUE(image->shape.cache.deltas_written);
  for (const CacheShape::Pages& pages : image->shape.cache.pages) EXPECT_EQ(pages.count, 0);
}

TEST_P(ImageSectionsTest, EveryDamageIsRefused) {
  const auto subject = MakeSubject({16, 16, 5}, {.max_lag_chunks = 3});
  const auto other = MakeSubject({16, 16, 16, 5}, {.max_lag_chunks = 3});
  const std::string bytes = Write(*subject);
  ASSERT_TRUE(Read(bytes).ok());
  for (const Damage& damage : Damages(bytes, Write(*other))) {
    const absl::StatusOr<StateImage> image = Read(damage.bytes);
    ASSERT_FALSE(image.ok()) << damage.what;
    EXPECT_TRUE(Refused(image.status())) << damage.what << ": " << image.status();
    EXPECT_EQ(harness_->host().held_bytes(), 0);
  }
}

TEST_P(ImageSectionsTest, WhatIsWholeButMakesNoSenseIsRefused) {
  const auto subject = MakeSubject({64, 32, 5});
  for (const int64_t position : {int64_t{0}, int64_t{96}, int64_t{100}, int64_t{102}, int64_t{200},
                                 int64_t{1} << 39, int64_t{1} << 62}) {
    const absl::Status status = Read(Write(harness_->Capture(*subject), InfoAt(position))).status();
    EXPECT_FALSE(status.ok()) << position;
    EXPECT_TRUE(Refused(status) || absl::IsResourceExhausted(status)) << position << status;
  }
  const auto waiting = MakeSubject({16, 16}, {.max_lag_chunks = 3});
  for (const StateShape::Waiting& nonsense :
       {StateShape::Waiting{.chunk = 2}, StateShape::Waiting{.chunk = -1},
        StateShape::Waiting{.chunk = 0},
        StateShape::Waiting{.chunk = 1, .controls = {.clip_norm = -1}}}) {
    StateImage image = harness_->Capture(*waiting);
    ASSERT_EQ(image.shape.waiting.size(), 2u);
    image.shape.waiting[1] = nonsense;
    EXPECT_TRUE(absl::IsDataLoss(Read(Write(image, InfoAt(32))).status()));
  }
}

TEST_P(ImageSectionsTest, AnotherModelsStateIsRefused) {
  const auto subject = MakeSubject({16, 5});
  StateHarness others("qwen3-hidden-target", GetParam(), /*slab_bytes=*/1000);
  const std::string bytes = Write(*subject);
  const MemoryFile file(bytes);
  absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open("file", file, id_, key_);
  ASSERT_TRUE(reader.ok());
  const absl::Status status = ReadImage(*reader, others.pools(), others.host()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

TEST_P(ImageSectionsTest, AFullHostIsSaidAndNothingIsHeld) {
  const auto subject = MakeSubject({64, 5});
  const std::string bytes = Write(*subject);
  const auto all = harness_->host().Take(harness_->host().limit_bytes());
  ASSERT_TRUE(all);
  const absl::Status status = Read(bytes).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("--host_cache_bytes"));
}

INSTANTIATE_TEST_SUITE_P(Backends, ImageSectionsTest,
                         testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaBFloat16),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace mneme
