// Properties of the step's plan, which is a pure function.

#include "engine/scheduler.h"

#include <algorithm>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace mneme {
namespace {

int64_t PlannedFor(const std::vector<PlannedRows>& plan, size_t candidate) {
  for (const PlannedRows& planned : plan) {
    if (planned.candidate == candidate) return planned.rows;
  }
  return -1;
}

TEST(PlanStepTest, NothingToDoIsAnEmptyPlan) { EXPECT_TRUE(PlanStep({}, 64).empty()); }

TEST(PlanStepTest, DecodesComeBeforePrefillsThatWaitedLonger) {
  const std::vector<Candidate> candidates = {
      {.rows_wanted = 1000, .last_step = 1, .arrival = 1},
      {.rows_wanted = 1, .decoding = true, .last_step = 9, .arrival = 2},
      {.rows_wanted = 1, .decoding = true, .last_step = 9, .arrival = 3}};
  const auto plan = PlanStep(candidates, 64);
  ASSERT_EQ(plan.size(), 3u);
  EXPECT_EQ(plan[0].candidate, 1u);
  EXPECT_EQ(plan[1].candidate, 2u);
  EXPECT_EQ(PlannedFor(plan, 0), 62) << "the prefill is cut to what is left";
}

TEST(PlanStepTest, ManyStreamsLeaveAQuarterToPrefill) {
  std::vector<Candidate> candidates(100, {.rows_wanted = 1, .decoding = true, .last_step = 1});
  candidates.push_back({.rows_wanted = 1000, .last_step = 9, .arrival = 1});
  const auto plan = PlanStep(candidates, 64);
  EXPECT_EQ(plan.size(), 49u);
  EXPECT_EQ(PlannedFor(plan, 100), 16);
}

TEST(PlanStepTest, NoMoreTakePartThanCanDrawAtOnce) {
  std::vector<Candidate> candidates(1000, {.rows_wanted = 1, .decoding = true});
  EXPECT_EQ(PlanStep(candidates, 4096).size(), static_cast<size_t>(kMaxStepSequences));
  candidates.push_back({.rows_wanted = 1000});
  const auto plan = PlanStep(candidates, 4096);
  EXPECT_EQ(plan.size(), static_cast<size_t>(kMaxStepSequences));
  EXPECT_EQ(PlannedFor(plan, 1000), 1000) << "places are left to prefill too";
}

TEST(PlanStepTest, LeastRecentlyServedComesFirstThenWhoArrivedFirst) {
  const std::vector<Candidate> candidates = {{.rows_wanted = 40, .last_step = 5, .arrival = 1},
                                             {.rows_wanted = 40, .last_step = 3, .arrival = 9},
                                             {.rows_wanted = 40, .last_step = 3, .arrival = 4}};
  const auto plan = PlanStep(candidates, 64);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].candidate, 2u);
  EXPECT_EQ(plan[0].rows, 40);
  EXPECT_EQ(plan[1].candidate, 1u);
  EXPECT_EQ(plan[1].rows, 24);
}

TEST(PlanStepTest, ACandidateWithoutRowsCountsAsOne) {
  const std::vector<Candidate> candidates(5, {.rows_wanted = 0});
  const auto plan = PlanStep(candidates, 3);
  EXPECT_EQ(plan.size(), 3u) << "each takes a row of logits";
  for (const PlannedRows& planned : plan) EXPECT_EQ(planned.rows, 0);
}

std::vector<Candidate> RandomCandidates(std::mt19937& random) {
  std::vector<Candidate> candidates(random() % 20);
  for (size_t i = 0; i < candidates.size(); ++i) {
    const bool decoding = random() % 2 == 0;
    candidates[i] = {.rows_wanted = decoding ? 1 : static_cast<int64_t>(random() % 50),
                     .decoding = decoding,
                     .last_step = random() % 8,
                     .arrival = i};
  }
  return candidates;
}

TEST(PlanStepTest, TheBudgetIsRespectedAndUsed) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const std::vector<Candidate> candidates = RandomCandidates(random);
    const auto budget = static_cast<int64_t>(random() % 100) + 1;
    int64_t wanted = 0, planned_rows = 0;
    for (const Candidate& c : candidates) wanted += std::max<int64_t>(c.rows_wanted, 1);
    std::set<size_t> seen;
    for (const PlannedRows& planned : PlanStep(candidates, budget)) {
      EXPECT_TRUE(seen.insert(planned.candidate).second) << "planned twice";
      const Candidate& candidate = candidates[planned.candidate];
      EXPECT_LE(planned.rows, candidate.rows_wanted);
      EXPECT_TRUE(planned.rows > 0 || candidate.rows_wanted == 0);
      planned_rows += std::max<int64_t>(planned.rows, 1);
    }
    EXPECT_EQ(planned_rows, std::min(wanted, budget));
  }
}

TEST(PlanStepTest, NobodyStarvesWhileDecodesLeaveRoom) {
  // Seven streams decode without end and prefills of any size compete for the rest of ten rows.
  std::mt19937 random(2);
  std::vector<Candidate> candidates(30);
  for (size_t i = 0; i < candidates.size(); ++i) {
    candidates[i] = {.rows_wanted = i < 7 ? 1 : 100, .decoding = i < 7, .arrival = i};
  }
  for (uint64_t step = 1; step <= 500; ++step) {
    for (size_t i = 7; i < candidates.size(); ++i) {
      candidates[i].rows_wanted = static_cast<int64_t>(random() % 200) + 1;
    }
    for (const PlannedRows& planned : PlanStep(candidates, 10)) {
      candidates[planned.candidate].last_step = step;
    }
    if (step < 40) continue;
    for (size_t i = 0; i < candidates.size(); ++i) {
      // Each step serves all decodes and at least one of the 23 prefills, in turn.
      ASSERT_GT(candidates[i].last_step + (i < 7 ? 1 : 24), step) << "candidate " << i;
    }
  }
}

TEST(PlanStepTest, MoreDecodesThanTheBudgetTakeTurns) {
  std::vector<Candidate> candidates(25, {.rows_wanted = 1, .decoding = true});
  for (uint64_t step = 1; step <= 100; ++step) {
    for (const PlannedRows& planned : PlanStep(candidates, 10)) {
      candidates[planned.candidate].last_step = step;
    }
    if (step < 3) continue;
    for (const Candidate& candidate : candidates) ASSERT_GT(candidate.last_step + 3, step);
  }
}

}  // namespace
}  // namespace mneme
