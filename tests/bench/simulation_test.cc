// Short runs of the simulator: the policy keeps what it promises.

#include "bench/simulation.h"

#include "gtest/gtest.h"

namespace mneme {
namespace {

SimulationReport RunSimulation(const std::string& scenario, const std::string& policy,
                               const std::string& device = "h200", int64_t requests = 3000) {
  SimulationOptions options;
  options.device = *FindProfile(device);
  options.scenario = scenario;
  options.policy = policy;
  options.requests = requests;
  return Simulate(options, [](double) {});
}

TEST(SimulationTest, IngestionDoesNotStallRunningStreams) {
  for (const std::string scenario : {"mixed", "bursts", "ingestion", "hostile"}) {
    for (const std::string policy : {"exact", "deferred"}) {
      const SimulationReport report = RunSimulation(scenario, policy);
      const double most = scenario == "hostile" ? 42 : 40.3;  // of a target of 40
      EXPECT_LT(report.between.QuantileMs(0.99), most) << scenario << ", " << policy;
    }
  }
  EXPECT_GT(RunSimulation("ingestion", "first-come").between.QuantileMs(0.99), 80)
      << "as it does where the first to come is served first";
}

TEST(SimulationTest, AHostileTenantDoesNotKeepOthersFromTheirShare) {
  const SimulationReport fair = RunSimulation("hostile", "exact", "h200", 10000);
  const SimulationReport first_come = RunSimulation("hostile", "first-come", "h200", 10000);
  EXPECT_GT(fair.fairness, 0.99);
  EXPECT_LT(fair.polite_first_token.QuantileMs(0.99),
            first_come.polite_first_token.QuantileMs(0.99) / 2);
  EXPECT_GT(fair.goodput, 5 * first_come.goodput);
}

TEST(SimulationTest, TheSameSeedGivesTheSameRun) {
  const SimulationReport a = RunSimulation("bursts", "exact", "cpu");
  const SimulationReport b = RunSimulation("bursts", "exact", "cpu");
  EXPECT_EQ(SimulationJson({a}), SimulationJson({b}));
  EXPECT_GT(a.tokens_per_second, 0);
}

TEST(TimeHistogramTest, QuantilesAreOfTheBucketsWidth) {
  TimeHistogram histogram;
  EXPECT_EQ(histogram.QuantileMs(0.5), 0);
  for (int i = 1; i <= 1000; ++i) histogram.Add(i * 1000.0);
  EXPECT_NEAR(histogram.QuantileMs(0.5), 500, 12);
  EXPECT_NEAR(histogram.QuantileMs(0.99), 990, 22);
}

}  // namespace
}  // namespace mneme
