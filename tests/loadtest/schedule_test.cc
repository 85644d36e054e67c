#include "loadtest/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::Ge;
using ::testing::Le;
using ::testing::Lt;

// Thousands of sessions, so that shares are near their probabilities.
LoadOptions Many() {
  LoadOptions options;
  options.scenario = Scenario::kMixed;
  options.rate = 100;
  options.duration_s = 100;
  options.document_share = 0.25;
  options.cancel_fraction = 0.2;
  options.slow_reader_fraction = 0.1;
  options.check_fraction = 0.5;
  return options;
}

// Five standard deviations of a share of `count` draws.
double Tolerance(double probability, double count) {
  return 5 * std::sqrt(probability * (1 - probability) / count);
}

std::vector<RequestPlan> AllRequests(const std::vector<Arrival>& schedule) {
  std::vector<RequestPlan> plans;
  for (const Arrival& arrival : schedule) {
    plans.insert(plans.end(), arrival.requests.begin(), arrival.requests.end());
  }
  return plans;
}

template <typename Items, typename Predicate>
double Share(const Items& items, Predicate predicate) {
  return static_cast<double>(std::count_if(items.begin(), items.end(), predicate)) /
         static_cast<double>(items.size());
}

TEST(ScheduleTest, IsAFunctionOfTheSeed) {
  LoadOptions options = Many();
  const std::vector<Arrival> schedule = MakeSchedule(options);
  EXPECT_EQ(schedule, MakeSchedule(options));
  options.seed = 2;
  EXPECT_NE(schedule, MakeSchedule(options));
}

TEST(ScheduleTest, StaysAsItWasWithEveryStandardLibrary) {
  LoadOptions options;
  options.rate = 10;
  const std::vector<Arrival> schedule = MakeSchedule(options);
  // mt19937_64 seeded with 1 begins with 2469588189546311528; -ln(1 - u) / 10 s.
  const double u = static_cast<double>(2469588189546311528ULL >> 11) * 0x1p-53;
  ASSERT_FALSE(schedule.empty());
  EXPECT_EQ(schedule[0].at_us, std::llround(-std::log1p(-u) / 10 * 1e6));
}

TEST(ScheduleTest, ArrivalsAreAPoissonProcess) {
  const LoadOptions options = Many();
  const std::vector<Arrival> schedule = MakeSchedule(options);
  const double expected = options.rate * options.duration_s;
  const auto count = static_cast<double>(schedule.size());
  EXPECT_NEAR(count, expected, 5 * std::sqrt(expected));
  EXPECT_LT(schedule.back().at_us, 100'000'000);
  // Gaps are exponential: their mean is their standard deviation.
  double sum = 0, squares = 0;
  int64_t before = 0;
  for (const Arrival& arrival : schedule) {
    ASSERT_GE(arrival.at_us, before);
    const double gap_s = static_cast<double>(arrival.at_us - before) * 1e-6;
    sum += gap_s;
    squares += gap_s * gap_s;
    before = arrival.at_us;
  }
  const double mean = sum / count;
  EXPECT_NEAR(std::sqrt(squares / count - mean * mean) / mean, 1, 0.1);
}

TEST(ScheduleTest, SharesAreWhatTheOptionsSay) {
  const LoadOptions options = Many();
  const std::vector<Arrival> schedule = MakeSchedule(options);
  const auto arrivals = static_cast<double>(schedule.size());
  EXPECT_NEAR(Share(schedule, [](const Arrival& a) { return a.is_document; }), 0.25,
              Tolerance(0.25, arrivals));
  EXPECT_NEAR(Share(schedule, [](const Arrival& a) { return a.checked; }), 0.75 * 0.5,
              Tolerance(0.75 * 0.5, arrivals));
  const std::vector<RequestPlan> plans = AllRequests(schedule);
  const auto requests = static_cast<double>(plans.size());
  EXPECT_NEAR(Share(plans, [](const RequestPlan& p) { return p.cancel_after.has_value(); }), 0.2,
              Tolerance(0.2, requests));
  EXPECT_NEAR(Share(plans, [](const RequestPlan& p) { return p.slow_reader; }), 0.1,
              Tolerance(0.1, requests));
}

TEST(ScheduleTest, ScenariosHoldTheirOwnKindOfSession) {
  LoadOptions options = Many();
  options.scenario = Scenario::kChat;
  for (const Arrival& arrival : MakeSchedule(options)) {
    EXPECT_FALSE(arrival.is_document);
    EXPECT_EQ(arrival.requests.size(), static_cast<size_t>(options.turns));
  }
  options.scenario = Scenario::kIngest;
  for (const Arrival& arrival : MakeSchedule(options)) {
    EXPECT_TRUE(arrival.is_document);
    ASSERT_EQ(arrival.requests.size(), 1u);
    EXPECT_EQ(arrival.requests[0].output_tokens, 0);
    EXPECT_FALSE(arrival.checked);
  }
}

TEST(ScheduleTest, LengthsAndCancelsStayInTheirRanges) {
  LoadOptions options = Many();
  options.scenario = Scenario::kChat;
  options.input_tokens = 10;
  options.output_tokens = 1;
  double inputs = 0;
  const std::vector<RequestPlan> plans = AllRequests(MakeSchedule(options));
  for (const RequestPlan& plan : plans) {
    EXPECT_THAT(plan.input_tokens, AllOf(Ge(5), Le(15)));
    EXPECT_EQ(plan.output_tokens, 1);
    EXPECT_EQ(plan.cancel_after.value_or(0), 0);
    inputs += static_cast<double>(plan.input_tokens);
  }
  EXPECT_NEAR(inputs / static_cast<double>(plans.size()), 10, 0.2);
}

TEST(ScheduleTest, InputsAreAFunctionOfTheSessionAndTheTurn) {
  const Arrival arrival = {.seed = 7, .requests = {{.input_tokens = 500}, {.input_tokens = 500}}};
  const std::vector<uint32_t> ids = InputIds(arrival, 0, 300);
  EXPECT_EQ(ids.size(), 500u);
  EXPECT_THAT(ids, Each(Lt(300u)));
  EXPECT_EQ(ids, InputIds(arrival, 0, 300));
  EXPECT_NE(ids, InputIds(arrival, 1, 300));
  const std::string text = InputText(arrival, 0);
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 500);
  EXPECT_NE(text, InputText(arrival, 1));
}

}  // namespace
}  // namespace mneme
