// Invariant: a state that was moved to the host and back goes on as one that never left, bit for
// bit (DESIGN §2.2, §8).

#include "engine/tiers/state_image.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/state_harness.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

// How a state came about. Chunks are of 16 tokens.
struct History {
  std::string name;
  std::string fixture;
  LearningControls controls;
  std::vector<int64_t> steps;  // rows of each
  int64_t waiting = 0;         // updates that wait after them
  bool learnt = false;         // ΔW is not 0
};

std::ostream& operator<<(std::ostream& out, const History& history) { return out << history.name; }

constexpr char kFull[] = "qwen3-hidden-target";
constexpr char kWindows[] = "qwen3-window-yarn";  // of 12, in three layers of four

std::vector<History> Histories() {
  const LearningControls deferred = {.max_lag_chunks = 3};
  return {
      {"Nothing", kFull, {}, {}},
      {"NoFastWeights", kFull, {}, {7}},
      {"OpenChunk", kFull, {}, {20, 17, 1}, 0, true},
      {"ChunkBoundary", kFull, {}, {32}, 1, true},
      {"FirstChunkWaits", kFull, {}, {16}, 1},
      {"Learnt", kFull, {}, {16, 1}, 0, true},
      {"Deferred", kFull, deferred, {16, 16, 16}, 3},
      {"DeferredInChunk", kFull, deferred, {16, 16, 16, 5}, 3},
      {"DeferredOverLag", kFull, deferred, {16, 16, 16, 16, 16, 3}, 3, true},
      {"Frozen", kFull, {.freeze = true}, {16, 5}},
      {"Windows", kWindows, {}, {64, 16, 1}, 0, true},
      {"WindowsBoundary", kWindows, {}, {64, 32}, 1, true},
      {"WindowsDeferred", kWindows, deferred, {40, 8, 16, 16, 9}, 3, true},
  };
}

class StateImageTest : public testing::TestWithParam<std::tuple<BackendKind, History>> {
 protected:
  void SetUp() override {
    MNEME_SKIP_WITHOUT_BACKEND(std::get<0>(GetParam()));
    harness_.emplace(history().fixture, std::get<0>(GetParam()), /*slab_bytes=*/1000);
  }
  void TearDown() override {
    if (harness_) ExpectNothingHeld(*harness_);
  }

  const History& history() const { return std::get<1>(GetParam()); }
  std::unique_ptr<Subject> MakeSubject() {
    auto subject = harness_->Make(history().controls);
    harness_->AdvanceAll(*subject, history().steps);
    return subject;
  }
  // Takes blocks of all kinds and writes other content to them.
  void Overwrite() {
    const auto other = harness_->Make({.max_lag_chunks = 3, .lr_scale = 2});
    harness_->AdvanceAll(*other, {16, 16, 16, 40});
  }
  void ExpectSameContinuation(Subject& moved, Subject& undisturbed) {
    for (Subject* subject : {&moved, &undisturbed}) {
      subject->drawn.clear();
      subject->logprobs.clear();
      harness_->AdvanceAll(*subject, {1, 3, 1, 20, 14, 1, 1});
    }
    EXPECT_EQ(moved.drawn, undisturbed.drawn);
    EXPECT_EQ(moved.logprobs, undisturbed.logprobs);
    EXPECT_EQ(moved.state.update_log().points(), undisturbed.state.update_log().points());
    EXPECT_EQ(harness_->Deltas(moved), harness_->Deltas(undisturbed));
  }

  std::optional<StateHarness> harness_;
};

TEST_P(StateImageTest, ComesBackAndGoesOnAsIfItHadNeverLeft) {
  const auto undisturbed = MakeSubject();
  EXPECT_EQ(undisturbed->state.waiting_updates(), history().waiting);
  EXPECT_EQ(undisturbed->state.cache().deltas_written(), history().learnt);
  const auto moved = MakeSubject();
  const int64_t bytes = moved->state.cache().held_bytes();
  const StateImage image = harness_->Capture(*moved);
  moved->state.cache().GiveAll();
  EXPECT_EQ(moved->state.cache().reserved_bytes(), 0);
  Overwrite();
  harness_->Restore(*moved, image);
  EXPECT_EQ(moved->state.cache().held_bytes(), bytes);
  EXPECT_EQ(moved->state.cache().reserved_bytes(), bytes);
  ExpectSameContinuation(*moved, *undisturbed);
}

TEST_P(StateImageTest, BecomesAnotherSessionsState) {
  const auto undisturbed = MakeSubject();
  const StateImage image = harness_->Capture(*undisturbed);
  const auto other = harness_->Make(history().controls);
  harness_->Restore(*other, image);
  EXPECT_EQ(other->state.computed(), undisturbed->state.computed());
  ExpectSameContinuation(*other, *undisturbed);
}

TEST_P(StateImageTest, SharedStateDivergesWithoutATrace) {
  const auto undisturbed = MakeSubject();
  const auto parent = MakeSubject();
  const auto child = harness_->Make(history().controls);
  ASSERT_TRUE(child->state.ShareWith(parent->state));
  EXPECT_EQ(child->state.cache().held_bytes(), parent->state.cache().held_bytes());
  // The child goes another way: with other updates.
  child->controls.Set(child->state.computed(), {.lr_scale = 3});
  harness_->AdvanceAll(*child, {1, 20, 16, 5});
  ExpectSameContinuation(*parent, *undisturbed);
  const auto grandchild = harness_->Make(history().controls);
  ASSERT_TRUE(grandchild->state.ShareWith(parent->state));
  parent->state.cache().GiveAll();
  Overwrite();
  const auto last = MakeSubject();
  harness_->AdvanceAll(*last, {1, 3, 1, 20, 14, 1, 1});
  ExpectSameContinuation(*grandchild, *last);
}

INSTANTIATE_TEST_SUITE_P(
    Backends, StateImageTest,
    testing::Combine(testing::Values(BackendKind::kCpuFloat32, BackendKind::kCudaFloat32,
                                     BackendKind::kCudaBFloat16, BackendKind::kCudaFp8Delta),
                     testing::ValuesIn(Histories())),
    [](const auto& test) {
      return NameOf(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name;
    });

// --- Memory of the host. ---

class HostPoolTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = *CreateTestBackend(BackendKind::kCpuFloat32, 1);
  std::shared_ptr<HostPool> pool_ = *HostPool::Create(*backend_, 1099, 100);
};

TEST_F(HostPoolTest, LendsSlabsAndTakesThemBack) {
  EXPECT_EQ(pool_->limit_bytes(), 1000);
  {
    const auto memory = pool_->Take(301);
    ASSERT_TRUE(memory);
    EXPECT_EQ(memory->bytes(), 301);
    EXPECT_EQ(memory->held_bytes(), 400);
    EXPECT_EQ(pool_->held_bytes(), 400);
    EXPECT_FALSE(pool_->Take(601));
    EXPECT_TRUE(pool_->Take(600));
  }
  EXPECT_EQ(pool_->held_bytes(), 0);
}

TEST_F(HostPoolTest, MemoryThatLiesTogetherIsOneRange) {
  auto first = pool_->Take(200);
  auto second = pool_->Take(100);
  auto third = pool_->Take(200);
  EXPECT_THAT(second->ranges(), SizeIs(1));
  second.reset();
  first.reset();
  third.reset();
  EXPECT_THAT(pool_->Take(1000)->ranges(), SizeIs(1)) << "whatever the order of their return";
}

TEST_F(HostPoolTest, ScatteredMemoryHasItsBytesInOrder) {
  auto first = pool_->Take(100);
  const auto second = pool_->Take(100);
  first.reset();
  const auto scattered = pool_->Take(250);
  const auto ranges = scattered->ranges();
  ASSERT_THAT(ranges, SizeIs(2));
  EXPECT_EQ(ranges[0].bytes, 100);
  EXPECT_EQ(ranges[1].bytes, 150);
  EXPECT_EQ(static_cast<char*>(ranges[1].data) - static_cast<char*>(ranges[0].data), 200);
}

TEST(CopiesBetweenTest, CutsBothSidesWhereEitherEnds) {
  char device[10], host[10];
  const std::vector<HostCopy> copies =
      CopiesBetween({{device, 3}, {device + 5, 4}}, {{host, 4}, {host + 6, 3}});
  std::vector<std::tuple<int64_t, int64_t, int64_t>> offsets;
  for (const HostCopy& copy : copies) {
    offsets.emplace_back(static_cast<char*>(copy.device) - device,
                         static_cast<char*>(copy.host) - host, copy.bytes);
  }
  EXPECT_THAT(offsets, ElementsAre(std::make_tuple(0, 0, 3), std::make_tuple(5, 3, 1),
                                   std::make_tuple(6, 6, 3)));
}

}  // namespace
}  // namespace mneme
