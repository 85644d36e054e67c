// The cost of steps is learnt from their times, whatever else disturbs these.

#include "engine/scheduling/step_cost.h"

#include <cmath>
#include <limits>
#include <random>

#include "gtest/gtest.h"

namespace mneme {
namespace {

// A device: fixed time, and so much for each thing.
struct Device {
  double fixed = 3000, decode_row = 150, decode_key = 0.03, update = 600, prefill_row = 14,
         prefill_key = 0.001;

  double Us(const StepWork& w) const {
    return fixed + decode_row * static_cast<double>(w.decode_rows) +
           decode_key * static_cast<double>(w.decode_keys) +
           update * static_cast<double>(w.updates) +
           prefill_row * static_cast<double>(w.prefill_rows) +
           prefill_key * static_cast<double>(w.prefill_keys);
  }
};

StepWork RandomWork(std::mt19937& random, bool with_prefill = true) {
  StepWork work = {.decode_rows = 1 + static_cast<int64_t>(random() % 32)};
  work.decode_keys = work.decode_rows * static_cast<int64_t>(random() % 4000);
  if (with_prefill && random() % 2 == 0) {
    work.prefill_rows = 100 + static_cast<int64_t>(random() % 2000);
    work.prefill_keys = work.prefill_rows * static_cast<int64_t>(random() % 8000);
    work.updates = static_cast<int64_t>(random() % 3);
  }
  return work;
}

void ExpectPredicts(const StepCostModel& model, const Device& device, double tolerance) {
  std::mt19937 random(99);
  for (int i = 0; i < 50; ++i) {
    const StepWork work = RandomWork(random);
    EXPECT_NEAR(model.PredictUs(work) / device.Us(work), 1, tolerance);
  }
}

TEST(StepCostModelTest, KnowsNothingAtFirst) {
  const StepCostModel model;
  EXPECT_EQ(model.PredictUs({.decode_rows = 3}), 0);
  EXPECT_FALSE(model.knows_prefill());
  EXPECT_EQ(model.margin(), 1);
}

TEST(StepCostModelTest, LearnsWhatStepsCost) {
  StepCostModel model;
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const StepWork work = RandomWork(random);
    model.Observe(work, Device().Us(work));
  }
  ExpectPredicts(model, Device(), 0.05);
  EXPECT_TRUE(model.knows_prefill());
  EXPECT_LT(model.margin(), 1.05);
}

TEST(StepCostModelTest, NoiseWidensTheMarginOnly) {
  StepCostModel model;
  std::mt19937 random(2);
  std::uniform_real_distribution<double> noise(0.8, 1.2);
  for (int i = 0; i < 400; ++i) {
    const StepWork work = RandomWork(random);
    model.Observe(work, Device().Us(work) * noise(random));
  }
  ExpectPredicts(model, Device(), 0.12);
  EXPECT_NEAR(model.margin(), 1.18, 0.08);
}

TEST(StepCostModelTest, StepsThatWereInterruptedHardlyCount) {
  StepCostModel model;
  std::mt19937 random(3);
  for (int i = 0; i < 400; ++i) {
    const StepWork work = RandomWork(random);
    const bool interrupted = random() % 10 == 0;
    model.Observe(work, Device().Us(work) * (interrupted ? 20 : 1));
  }
  ExpectPredicts(model, Device(), 0.15);
}

TEST(StepCostModelTest, FollowsAMachineThatBecomesSlower) {
  StepCostModel model;
  std::mt19937 random(4);
  const Device slow = {.fixed = 6000, .decode_row = 300, .update = 1500, .prefill_row = 28};
  for (int i = 0; i < 600; ++i) {
    const StepWork work = RandomWork(random);
    model.Observe(work, (i < 300 ? Device() : slow).Us(work));
  }
  ExpectPredicts(model, slow, 0.1);
}

TEST(StepCostModelTest, RemembersPrefillWhileOnlyStreamsRun) {
  StepCostModel model;
  std::mt19937 random(5);
  for (int i = 0; i < 200; ++i) {
    const StepWork work = RandomWork(random);
    model.Observe(work, Device().Us(work));
  }
  for (int i = 0; i < 2000; ++i) {
    const StepWork work = RandomWork(random, /*with_prefill=*/false);
    model.Observe(work, Device().Us(work));
  }
  ExpectPredicts(model, Device(), 0.1);
}

TEST(StepCostModelTest, WhatCannotBeToldApartIsPutDownToPrefillRows) {
  StepCostModel model;
  for (int i = 0; i < 8; ++i) model.Observe({.prefill_rows = 64}, 5000);
  EXPECT_NEAR(model.PredictUs({.prefill_rows = 64}), 5000, 50);
  EXPECT_GT(model.PredictUs({.prefill_rows = 512}), 7 * 5000) << "rather too much than too little";
}

TEST(StepCostModelTest, TimesThatCannotBeAreIgnored) {
  StepCostModel model;
  for (const double time : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    model.Observe({.decode_rows = 1}, time);
  }
  EXPECT_EQ(model.PredictUs({.decode_rows = 1}), 0);
}

}  // namespace
}  // namespace mneme
