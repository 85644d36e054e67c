// Chunks that no token waits for, as work that the step's plan knows.

#include <algorithm>
#include <vector>

#include "engine/scheduling/plan.h"
#include "gtest/gtest.h"

namespace mneme {
namespace {

// Steps of 1000 µs, and 100 µs a decode row, 10 a prefill row, 500 an update.
double TrueUs(const StepWork& work) {
  return 1000.0 + 100.0 * static_cast<double>(work.decode_rows) +
         10.0 * static_cast<double>(work.prefill_rows) + 500.0 * static_cast<double>(work.updates);
}

StepCostModel Learnt() {
  StepCostModel cost;
  for (int64_t i = 0; i < 200; ++i) {
    const StepWork work = {.decode_rows = i % 7, .prefill_rows = i % 5 * 64, .updates = i % 3};
    cost.Observe(work, TrueUs(work));
  }
  return cost;
}

Candidate Decode() { return {.kind = WorkKind::kDecode, .rows_wanted = 1}; }
Candidate Prefill(int64_t rows) { return {.rows_wanted = rows}; }
Candidate Update(bool awaited = false) {
  return {.kind = WorkKind::kUpdate, .updates = 1, .awaited = awaited};
}

std::vector<Candidate> With(std::vector<Candidate> candidates, int updates, bool awaited = false) {
  candidates.insert(candidates.end(), static_cast<size_t>(updates), Update(awaited));
  return candidates;
}

constexpr PlanLimits kLimits = {.max_step_tokens = 1024, .target_us = 5000, .chunk_tokens = 64};

TEST(UpdatePlanTest, AStepOfTheirOwnTakesAsManyAsTheTargetHasTimeFor) {
  const StepPlan plan = PlanStep(With({}, 100), kLimits, Learnt(), {});
  EXPECT_GE(plan.work.updates, 6);
  EXPECT_LE(TrueUs(plan.work), 5000);
  for (const PlannedRows& planned : plan.rows) EXPECT_EQ(planned.rows, 0);
  const StepPlan any_time =
      PlanStep(With({}, 100), {.max_step_tokens = 1024, .chunk_tokens = 64}, Learnt(), {});
  EXPECT_EQ(any_time.work.updates, 1024 / 64) << "as many as others' rows would fit";
  const StepPlan no_time = PlanStep(With({}, 100), {.target_us = 1}, Learnt(), {});
  EXPECT_EQ(no_time.work.updates, 1) << "but one in any case";
}

TEST(UpdatePlanTest, BesideStreamsTheyTakeAHundredthOfTheTimeInTheLongRun) {
  const StepCostModel cost = Learnt();
  PlanState state;
  double updates_us = 0, rows_us = 0;
  for (int step = 0; step < 2000; ++step) {
    StepPlan plan = PlanStep(With({Decode(), Decode()}, 50), kLimits, cost, std::move(state));
    EXPECT_LE(plan.work.updates, 1) << "of a step";
    EXPECT_EQ(plan.work.decode_rows, 2);
    updates_us += 500.0 * static_cast<double>(plan.work.updates);
    rows_us += TrueUs({.decode_rows = 2});
    state = std::move(plan.state);
  }
  EXPECT_NEAR(updates_us / rows_us, 0.01, 0.001);
}

TEST(UpdatePlanTest, OneAloneRunsBesideStreamsAtOnce) {
  const StepPlan plan = PlanStep(With({Decode()}, 1), kLimits, Learnt(), {});
  EXPECT_EQ(plan.work.updates, 1);
  EXPECT_EQ(PlanStep(With({Decode()}, 1), kLimits, {}, {}).work.updates, 0)
      << "while nothing is known about times, streams go first";
}

TEST(UpdatePlanTest, IngestionBesideStreamsLeavesThemTheirPartOfTheTarget) {
  const StepCostModel cost = Learnt();
  PlanState state;
  int64_t updates = 0;
  for (int step = 0; step < 500; ++step) {
    StepPlan plan = PlanStep(With({Decode(), Prefill(4000)}, 9), kLimits, cost, std::move(state));
    EXPECT_LE(TrueUs(plan.work), 5000 * 1.02) << "the piece is shorter instead";
    for (const PlannedRows& planned : plan.rows) updates += planned.candidate >= 2 ? 1 : 0;
    state = std::move(plan.state);
  }
  EXPECT_GT(updates, 30);
  EXPECT_LT(updates, 60);
}

TEST(UpdatePlanTest, NoneIsTakenBesideStreamsThatHaveNoTimeForIt) {
  const PlanLimits tight = {.max_step_tokens = 1024, .target_us = 1200, .chunk_tokens = 64};
  EXPECT_EQ(PlanStep(With({Decode()}, 9), tight, Learnt(), {}).work.updates, 0);
}

TEST(UpdatePlanTest, WhereARequestWaitsForTheirMemoryEachStepTakesWhatItHasTimeFor) {
  const StepCostModel cost = Learnt();
  const StepPlan plan =
      PlanStep(With({Decode(), Prefill(4000)}, 20, /*awaited=*/true), kLimits, cost, {});
  EXPECT_GE(plan.work.updates, 6);
  EXPECT_LE(TrueUs(plan.work), 5000 * 1.05);
  EXPECT_GE(plan.work.prefill_rows, 16) << "and input goes on";
  const PlanLimits tight = {.max_step_tokens = 1024, .target_us = 10, .chunk_tokens = 64};
  const StepPlan one = PlanStep(With({Decode()}, 20, /*awaited=*/true), tight, cost, {});
  EXPECT_EQ(one.work.updates, 1) << "even without time, so that it goes on";
}

TEST(UpdatePlanTest, RowsThatLeaveNoTraceCloseNoChunk) {
  Candidate asking = Prefill(1000);
  asking.learns = false;
  EXPECT_EQ(PlanStep(With({asking}, 0), kLimits, {}, {}).work.updates, 0);
}

// However a piece grows, the updates inside it are counted once each: those of chunks that end
// before its own end, and not those of a chunk that ended before it.
TEST(UpdatePlanTest, APieceCountsTheUpdatesInsideItWhereverItBeginsAndEnds) {
  for (int64_t position = 0; position < 130; ++position) {
    for (const int64_t rows : {1, 63, 64, 65, 127, 128, 129, 192, 300}) {
      std::vector<Candidate> candidates(2, Prefill(rows));  // which take turns of 128 rows
      candidates[1].tenant = 1;
      for (Candidate& candidate : candidates) candidate.position = position;
      int64_t inside = 0;
      for (int64_t end = 64; end < position + rows; end += 64) inside += end > position ? 1 : 0;
      const StepPlan plan = PlanStep(candidates, kLimits, {}, {});
      EXPECT_EQ(plan.work.updates, 2 * inside) << position << " + " << rows;
    }
  }
}

}  // namespace
}  // namespace mneme
