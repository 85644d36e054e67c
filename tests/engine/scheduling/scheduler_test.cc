// Properties of the step's plan, which is a pure function.

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "engine/scheduling/plan.h"
#include "gtest/gtest.h"

namespace mneme {
namespace {

StepPlan Plan(const std::vector<Candidate>& candidates, int64_t max_step_tokens,
              PlanState state = {}) {
  return PlanStep(candidates, {.max_step_tokens = max_step_tokens}, StepCostModel(),
                  std::move(state));
}

int64_t PlannedFor(const StepPlan& plan, size_t candidate) {
  for (const PlannedRows& planned : plan.rows) {
    if (planned.candidate == candidate) return planned.rows;
  }
  return -1;
}

Candidate Decode() { return {.kind = WorkKind::kDecode, .rows_wanted = 1}; }
Candidate Prefill(int64_t rows, int tenant = 0) { return {.rows_wanted = rows, .tenant = tenant}; }

TEST(PlanStepTest, NothingToDoIsAnEmptyPlan) { EXPECT_TRUE(Plan({}, 64).rows.empty()); }

TEST(PlanStepTest, DecodesComeBeforePrefillsThatWaitedLonger) {
  std::vector<Candidate> candidates = {Prefill(1000), Decode(), Decode()};
  candidates[0].last_step = 1;
  candidates[1].last_step = candidates[2].last_step = 9;
  const StepPlan plan = Plan(candidates, 64);
  ASSERT_EQ(plan.rows.size(), 3u);
  EXPECT_EQ(plan.rows[0].candidate + plan.rows[1].candidate, 3u);
  EXPECT_EQ(PlannedFor(plan, 0), 62) << "the prefill is cut to what is left";
}

TEST(PlanStepTest, ManyStreamsLeaveAQuarterToPrefill) {
  std::vector<Candidate> candidates(100, Decode());
  candidates.push_back(Prefill(1000));
  const StepPlan plan = Plan(candidates, 64);
  EXPECT_EQ(plan.rows.size(), 49u);
  EXPECT_EQ(PlannedFor(plan, 100), 16);
}

TEST(PlanStepTest, NoMoreTakePartThanCanDrawAtOnce) {
  std::vector<Candidate> candidates(1000, Decode());
  EXPECT_EQ(Plan(candidates, 4096).rows.size(), static_cast<size_t>(kMaxStepSequences));
  candidates.push_back(Prefill(1000));
  const StepPlan plan = Plan(candidates, 4096);
  EXPECT_EQ(plan.rows.size(), static_cast<size_t>(kMaxStepSequences));
  EXPECT_EQ(PlannedFor(plan, 1000), 1000) << "places are left to prefill too";
}

TEST(PlanStepTest, LeastRecentlyServedComesFirstThenWhoArrivedFirst) {
  std::vector<Candidate> candidates(3, Prefill(40));
  candidates[0].last_step = 5;
  candidates[1].last_step = candidates[2].last_step = 3;
  candidates[1].arrival = 9;
  candidates[2].arrival = 4;
  const StepPlan plan = Plan(candidates, 64);
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].candidate, 2u);
  EXPECT_EQ(plan.rows[0].rows, 40);
  EXPECT_EQ(plan.rows[1].candidate, 1u);
  EXPECT_EQ(plan.rows[1].rows, 24);
}

TEST(PlanStepTest, ACandidateWithoutRowsCountsAsOne) {
  const StepPlan plan = Plan(std::vector<Candidate>(5, Prefill(0)), 3);
  EXPECT_EQ(plan.rows.size(), 3u) << "each takes a row of logits";
  for (const PlannedRows& planned : plan.rows) EXPECT_EQ(planned.rows, 0);
}

TEST(PlanStepTest, TheWorkOfAPieceCountsItsKeysAndTheUpdatesBeforeAndInsideIt) {
  const PlanLimits limits = {.chunk_tokens = 10};
  Candidate prefill = Prefill(25);
  prefill.position = 8;
  prefill.updates = 1;
  const StepPlan plan = PlanStep(std::vector<Candidate>{prefill}, limits, StepCostModel(), {});
  EXPECT_EQ(plan.work.prefill_rows, 25);
  EXPECT_EQ(plan.work.updates, 1 + 3) << "the chunks that end at 10, 20 and 30";
  EXPECT_NEAR(static_cast<double>(plan.work.prefill_keys), 25 * (8 + 33) / 2.0, 25);
}

TEST(PlanStepTest, APieceThatGrowsInTurnsCountsEveryUpdateInsideIt) {
  const PlanLimits limits = {.max_step_tokens = 1000, .chunk_tokens = 64};
  std::vector<Candidate> candidates(2, Prefill(300));
  candidates[1].tenant = 1;
  const StepPlan plan = PlanStep(candidates, limits, StepCostModel(), {});
  EXPECT_EQ(plan.work.prefill_rows, 600);
  EXPECT_EQ(plan.work.updates, 2 * 4) << "the chunks that end at 64, 128, 192 and 256, of each";
}

// --- Random candidates. ---

std::vector<Candidate> RandomCandidates(std::mt19937& random) {
  std::vector<Candidate> candidates(random() % 20);
  for (size_t i = 0; i < candidates.size(); ++i) {
    candidates[i] = random() % 2 == 0 ? Decode() : Prefill(static_cast<int64_t>(random() % 50));
    candidates[i].tenant = static_cast<int>(random() % 3);
    candidates[i].last_step = random() % 8;
    candidates[i].arrival = i;
    candidates[i].tenant_weight = 1 + candidates[i].tenant;
    candidates[i].priority = static_cast<Priority>(random() % 3);
  }
  return candidates;
}

TEST(PlanStepTest, TheBudgetIsRespectedAndUsed) {
  std::mt19937 random(1);
  PlanState state;
  for (int round = 0; round < 2000; ++round) {
    const std::vector<Candidate> candidates = RandomCandidates(random);
    const auto budget = static_cast<int64_t>(random() % 100) + 1;
    int64_t wanted = 0, planned_rows = 0;
    for (const Candidate& c : candidates) wanted += std::max<int64_t>(c.rows_wanted, 1);
    std::set<size_t> seen;
    StepPlan plan = Plan(candidates, budget, state);
    for (const PlannedRows& planned : plan.rows) {
      EXPECT_TRUE(seen.insert(planned.candidate).second) << "planned twice";
      const Candidate& candidate = candidates[planned.candidate];
      EXPECT_LE(planned.rows, candidate.rows_wanted);
      EXPECT_TRUE(planned.rows > 0 || candidate.rows_wanted == 0);
      planned_rows += std::max<int64_t>(planned.rows, 1);
    }
    EXPECT_EQ(planned_rows, std::min(wanted, budget));
    state = std::move(plan.state);
  }
}

// Plans step after step for candidates that never end; what each has got.
class Endless {
 public:
  explicit Endless(std::vector<Candidate> candidates) : candidates_(std::move(candidates)) {
    for (size_t i = 0; i < candidates_.size(); ++i) candidates_[i].arrival = i;
  }

  void Run(int steps, const PlanLimits& limits, const StepCostModel& cost = {}) {
    for (int i = 0; i < steps; ++i) {
      ++step_;
      StepPlan plan = PlanStep(candidates_, limits, cost, std::move(state_));
      for (const PlannedRows& planned : plan.rows) {
        candidates_[planned.candidate].last_step = step_;
        rows_[planned.candidate] += planned.rows;
      }
      state_ = std::move(plan.state);
    }
  }

  Candidate& operator[](size_t i) { return candidates_[i]; }
  uint64_t WaitOf(size_t i) const { return step_ - candidates_[i].last_step; }
  double Rows(size_t i) { return static_cast<double>(rows_[i]); }
  uint64_t step() const { return step_; }

 private:
  std::vector<Candidate> candidates_;
  PlanState state_;
  std::map<size_t, int64_t> rows_;
  uint64_t step_ = 0;
};

TEST(PlanStepTest, NobodyStarvesWhileDecodesLeaveRoom) {
  // Seven streams decode without end and prefills of any size compete for the rest of ten rows.
  std::mt19937 random(2);
  std::vector<Candidate> candidates(30, Prefill(100));
  for (size_t i = 0; i < 7; ++i) candidates[i] = Decode();
  Endless endless(candidates);
  for (int step = 1; step <= 500; ++step) {
    for (size_t i = 7; i < 30; ++i) {
      endless[i].rows_wanted = static_cast<int64_t>(random() % 200) + 1;
    }
    endless.Run(1, {.max_step_tokens = 10});
    if (step < 40) continue;
    // Each step serves all decodes and at least one of the 23 prefills, in turn.
    for (size_t i = 0; i < 30; ++i) ASSERT_LT(endless.WaitOf(i), i < 7 ? 1u : 24u) << i;
  }
}

TEST(PlanStepTest, MoreDecodesThanTheBudgetTakeTurns) {
  Endless endless(std::vector<Candidate>(25, Decode()));
  for (int step = 1; step <= 100; ++step) {
    endless.Run(1, {.max_step_tokens = 10});
    if (step < 3) continue;
    for (size_t i = 0; i < 25; ++i) ASSERT_LT(endless.WaitOf(i), 3u);
  }
}

// --- Shares. ---

TEST(FairShareTest, TenantsShareByWeightWhateverTheNumberOfTheirRequests) {
  std::vector<Candidate> candidates(41, Prefill(1000, /*tenant=*/1));
  candidates[0] = Prefill(1000, /*tenant=*/0);
  candidates[0].tenant_weight = 3;
  Endless endless(candidates);
  endless.Run(400, {.max_step_tokens = 100});
  double hostile = 0;
  for (size_t i = 1; i < candidates.size(); ++i) hostile += endless.Rows(i);
  EXPECT_NEAR(endless.Rows(0) / hostile, 3, 0.1);
}

TEST(FairShareTest, ATenantsStreamsDoNotCrowdOutAnothers) {
  std::vector<Candidate> candidates(60, Decode());
  for (size_t i = 1; i < candidates.size(); ++i) candidates[i].tenant = 1;
  Endless endless(candidates);
  endless.Run(100, {.max_step_tokens = 16});
  EXPECT_EQ(endless.Rows(0), 100) << "half of the rows are its own: it decodes in each step";
}

TEST(FairShareTest, PrioritiesShareWithinTheirTenantAndNoneStarves) {
  std::vector<Candidate> candidates(4, Prefill(1000));
  candidates[0].priority = Priority::kHigh;
  candidates[2].priority = Priority::kLow;
  candidates[3].tenant = 1;
  candidates[3].priority = Priority::kLow;
  Endless endless(candidates);
  endless.Run(2000, {.max_step_tokens = 100});
  EXPECT_NEAR(endless.Rows(0) / endless.Rows(1), 4, 0.2);
  EXPECT_NEAR(endless.Rows(1) / endless.Rows(2), 4, 0.2);
  const double first = endless.Rows(0) + endless.Rows(1) + endless.Rows(2);
  EXPECT_NEAR(endless.Rows(3) / first, 1, 0.05) << "priorities are no way to more than one's share";
}

TEST(FairShareTest, InputThatAStreamWaitsForGetsMostAndDocumentsGoOn) {
  std::vector<Candidate> candidates(2, Prefill(1000));
  candidates[1].begins_stream = true;
  Endless endless(candidates);
  endless.Run(2000, {.max_step_tokens = 100});
  EXPECT_NEAR(endless.Rows(1) / endless.Rows(0), 16, 0.8);
}

TEST(FairShareTest, WhoHadNothingToDoHasSavedNothingUp) {
  Endless endless({Prefill(1000, 0), Prefill(1000, 1)});
  endless[1].rows_wanted = 0;
  endless.Run(100, {.max_step_tokens = 100});
  const double before = endless.Rows(0);
  endless[1].rows_wanted = 1000;
  endless.Run(100, {.max_step_tokens = 100});
  EXPECT_NEAR((endless.Rows(0) - before) / endless.Rows(1), 1, 0.05);
}

// --- Time. ---

// Steps of 1000 µs and 10 µs a prefill row, 100 a decode row, 500 an update.
double TrueUs(const StepWork& work) {
  return 1000.0 + 100.0 * static_cast<double>(work.decode_rows) +
         10.0 * static_cast<double>(work.prefill_rows) + 500.0 * static_cast<double>(work.updates);
}

StepCostModel Learnt() {
  StepCostModel cost;
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    const auto decode = static_cast<int64_t>(random() % 8);
    const auto prefill = static_cast<int64_t>(random() % 300);
    const auto updates = static_cast<int64_t>(random() % 2);
    const StepWork work = {decode, decode * static_cast<int64_t>(random() % 500), prefill,
                           prefill * static_cast<int64_t>(random() % 500), updates};
    cost.Observe(work, TrueUs(work));
  }
  return cost;
}

TEST(TimeBudgetTest, PrefillBesideStreamsIsCutToTheTarget) {
  const StepCostModel cost = Learnt();
  const StepPlan plan = PlanStep(std::vector<Candidate>{Decode(), Decode(), Prefill(4000)},
                                 {.max_step_tokens = 4096, .target_us = 5000}, cost, {});
  EXPECT_GT(TrueUs(plan.work), 4500);
  EXPECT_LT(TrueUs(plan.work), 5200);
  EXPECT_EQ(plan.budget_us, 5000);
}

TEST(TimeBudgetTest, WithoutStreamsThereIsNoTarget) {
  const StepPlan plan = PlanStep(std::vector<Candidate>{Prefill(4000)},
                                 {.max_step_tokens = 4096, .target_us = 5000}, Learnt(), {});
  EXPECT_EQ(plan.work.prefill_rows, 4000);
}

TEST(TimeBudgetTest, WhereDecodingAloneTakesLongerPrefillGetsAQuarterOfTheTime) {
  const std::vector<Candidate> candidates = {Decode(), Decode(), Prefill(4000)};
  const StepPlan plan =
      PlanStep(candidates, {.max_step_tokens = 4096, .target_us = 100}, Learnt(), {});
  EXPECT_NEAR(TrueUs(plan.work), 1200 / kDecodeShare, 160);
}

TEST(TimeBudgetTest, WhileNothingIsKnownPiecesAreShort) {
  const StepPlan plan = PlanStep(std::vector<Candidate>{Decode(), Prefill(4000)},
                                 {.max_step_tokens = 4096, .target_us = 5000}, {}, {});
  EXPECT_EQ(plan.work.prefill_rows, 64);
}

TEST(TimeBudgetTest, IngestionsOfAnyNumberKeepStreamsAtTheTargetAndAllGoOn) {
  const StepCostModel cost = Learnt();
  std::vector<Candidate> candidates(40, Prefill(4000));
  for (size_t i = 0; i < 8; ++i) candidates[i] = Decode();
  Endless endless(candidates);
  endless.Run(500, {.max_step_tokens = 4096, .target_us = 4000}, cost);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(endless.Rows(i), 500) << "a row in each step";
  for (size_t i = 8; i < 40; ++i) EXPECT_NEAR(endless.Rows(i), 500 * 220 / 32.0, 800) << i;
}

}  // namespace
}  // namespace mneme
