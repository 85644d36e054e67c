// Which streams may begin.

#include "engine/scheduling/stream_gate.h"

#include <vector>

#include "gtest/gtest.h"

namespace mneme {
namespace {

// Steps of 1000 µs and 100 µs a decode row, whatever it reads.
StepCostModel Learnt() {
  StepCostModel cost;
  for (int64_t i = 0; i < 200; ++i) {
    const StepWork work = {.decode_rows = i % 50, .prefill_rows = i % 3 * 64};
    cost.Observe(work, 1000.0 + 100.0 * static_cast<double>(work.decode_rows) +
                           10.0 * static_cast<double>(work.prefill_rows));
  }
  return cost;
}

Candidate Beginning(int tenant = 0) {
  return {.rows_wanted = 10, .begins_stream = true, .tenant = tenant};
}
Candidate Running(int tenant = 0) {
  return {.kind = WorkKind::kDecode, .rows_wanted = 1, .tenant = tenant, .last_step = 1};
}

// How many of `candidates` that ask to begin may.
int Admitted(const std::vector<Candidate>& candidates, double target_us, PlanState state = {},
             const StepCostModel& cost = Learnt()) {
  const PlanLimits limits = {.target_us = target_us};
  StreamGate gate(limits, cost, state);
  for (const Candidate& candidate : candidates) gate.Note(candidate);
  int admitted = 0;
  for (const Candidate& candidate : candidates) {
    if (StreamGate::IsBeginning(candidate) && gate.Admit(candidate)) ++admitted;
  }
  return admitted;
}

TEST(StreamGateTest, StreamsBeginAsLongAsTheirStepKeepsTheTarget) {
  EXPECT_NEAR(Admitted(std::vector<Candidate>(200, Beginning()), 11000), 98, 2);
}

// Or they would keep from others what they need to go on, and wait for them.
TEST(StreamGateTest, ThoseThatHoldMemoryAreNotAskedAgain) {
  Candidate candidate = Beginning();
  EXPECT_TRUE(StreamGate::IsBeginning(candidate));
  candidate.has_begun = true;
  EXPECT_FALSE(StreamGate::IsBeginning(candidate));
}

TEST(StreamGateTest, RunningStreamsCountAndSoDoThoseWhoseInputIsBeingRead) {
  std::vector<Candidate> candidates(200, Beginning());
  for (size_t i = 0; i < 40; ++i) candidates[i] = Running();
  for (size_t i = 40; i < 60; ++i) candidates[i].has_begun = true;
  EXPECT_NEAR(Admitted(candidates, 11000), 98 - 60, 2);
}

TEST(StreamGateTest, WhereInputWaitedOfLateAQuarterOfTheTimeIsLeftToIt) {
  EXPECT_NEAR(
      Admitted(std::vector<Candidate>(200, Beginning()), 11000, {.steps_since_input_waited = 3}),
      72, 2);
}

TEST(StreamGateTest, WhereOneStreamAloneIsSlowerThanTheTargetOthersMayHalveItsPace) {
  EXPECT_NEAR(Admitted(std::vector<Candidate>(200, Beginning()), 10), 12, 1);
}

TEST(StreamGateTest, WithoutATargetOrKnowledgeAllBegin) {
  const std::vector<Candidate> candidates(200, Beginning());
  EXPECT_EQ(Admitted(candidates, std::numeric_limits<double>::infinity()), 200);
  EXPECT_EQ(Admitted(candidates, 10, {}, StepCostModel()), 200);
}

TEST(StreamGateTest, ATenantBelowItsShareBeginsWhateverOthersHaveRunning) {
  std::vector<Candidate> candidates(300, Running(/*tenant=*/1));
  candidates.insert(candidates.end(), 10, Beginning(/*tenant=*/1));
  EXPECT_EQ(Admitted(candidates, 11000), 0);
  candidates.push_back(Beginning(/*tenant=*/0));
  EXPECT_EQ(Admitted(candidates, 11000), 1);
  candidates.insert(candidates.end(), 1000, Beginning(/*tenant=*/0));
  EXPECT_NEAR(Admitted(candidates, 11000), 300, 2) << "half of what then runs";
}

// Of steps whose time is what their rows attend to.
StepCostModel LearntKeys() {
  StepCostModel cost;
  for (int64_t i = 0; i < 200; ++i) {
    const StepWork work = {.decode_rows = 1 + i % 5, .decode_keys = (1 + i % 7) * 10000};
    cost.Observe(work, 100.0 + 0.1 * static_cast<double>(work.decode_keys));
  }
  return cost;
}

Candidate BeginningAt(int64_t position, Priority priority = Priority::kNormal) {
  Candidate candidate = Beginning();
  candidate.position = position;
  candidate.priority = priority;
  return candidate;
}

TEST(StreamGateTest, ALongOneThatWaitsIsNotOvertakenByShortOnesOfItsTenant) {
  const StepCostModel cost = LearntKeys();
  Candidate running = Running();
  running.position = 60000;
  std::vector<Candidate> candidates = {running, BeginningAt(30000)};
  EXPECT_EQ(Admitted(candidates, 7000, {}, cost), 0);
  candidates.insert(candidates.end(), 3, BeginningAt(100));
  EXPECT_EQ(Admitted(candidates, 7000, {}, cost), 0);
  candidates.push_back(BeginningAt(100, Priority::kHigh));
  EXPECT_EQ(Admitted(candidates, 7000, {}, cost), 1) << "the urgent one";
  candidates.erase(candidates.begin() + 1);
  EXPECT_EQ(Admitted(candidates, 7000, {}, cost), 4);
}

TEST(StreamGateTest, DocumentsAreNotHeldUp) {
  EXPECT_FALSE(StreamGate::IsBeginning({.rows_wanted = 1000}));
  EXPECT_FALSE(StreamGate::IsBeginning(Running()));
}

}  // namespace
}  // namespace mneme
