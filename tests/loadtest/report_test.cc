#include "loadtest/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace mneme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LoadReport Example() {
  LoadReport report;
  report.options.scenario = Scenario::kMixed;
  report.options.check_fraction = 0.5;
  report.model = "demo";
  report.elapsed_s = 2;
  report.arrivals = 5;
  report.dropped = 1;
  report.tokens_out = 300;
  report.calls["Generate"] = {.started = 4, .ended = {{"OK", 3}, {"CANCELLED", 1}}};
  for (int64_t ms = 1; ms <= 100; ++ms) report.first_token.Add(ms * 10);
  report.check = {.sessions = 2, .streams = 6, .tokens = 90};
  return report;
}

TEST(ReportTest, JsonHoldsEveryFigure) {
  const nlohmann::json json = nlohmann::json::parse(ReportJson(Example()));
  EXPECT_EQ(json["options"]["scenario"], "mixed");
  EXPECT_EQ(json["options"]["seed"], 1);
  EXPECT_EQ(json["arrivals"], 5);
  EXPECT_EQ(json["dropped_by_client"], 1);
  EXPECT_EQ(json["tokens_out_per_second"], 150.0);
  EXPECT_EQ(json["calls"]["Generate"]["started"], 4);
  EXPECT_EQ(json["calls"]["Generate"]["ended"]["CANCELLED"], 1);
  const nlohmann::json& first = json["latencies"]["time_to_first_token"];
  EXPECT_EQ(first["count"], 100);
  EXPECT_EQ(first["p50_ms"], 0.5);
  EXPECT_EQ(first["p90_ms"], 0.9);
  EXPECT_EQ(first["p99_ms"], 0.99);
  EXPECT_EQ(first["max_ms"], 1.0);
  EXPECT_EQ(json["latencies"]["time_between_tokens"]["count"], 0);
  EXPECT_EQ(json["check"]["tokens"], 90);
  EXPECT_TRUE(json["check"]["differences"].empty());
  EXPECT_EQ(json["ok"], true);
}

TEST(ReportTest, TextShowsCountsAndPercentiles) {
  const std::string text = ReportText(Example());
  EXPECT_THAT(text, HasSubstr("5 sessions arrived, 1 of them dropped"));
  EXPECT_THAT(text, HasSubstr("CANCELLED 1  OK 3"));
  EXPECT_THAT(text, HasSubstr("time to first token"));
  EXPECT_THAT(text, Not(HasSubstr("time between tokens")));  // there was none
  EXPECT_THAT(text, HasSubstr("6 streams of 2 sessions compared, 90 tokens equal, 0 streams"));
}

TEST(ReportTest, ADifferenceIsAFailureNamedWithSessionAndPosition) {
  LoadReport report = Example();
  report.check.differences.push_back({"load-1", 77, "token 3 under load, 4 alone"});
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(ReportText(report),
              HasSubstr("DIFFERS: session load-1 at position 77: token 3 under load, 4 alone"));
  const nlohmann::json json = nlohmann::json::parse(ReportJson(report));
  EXPECT_EQ(json["check"]["differences"][0]["position"], 77);
  EXPECT_EQ(json["ok"], false);
}

TEST(ReportTest, AnUnexpectedStatusIsAFailure) {
  LoadReport report = Example();
  report.unexpected["Generate INTERNAL: \xff"] = 2;  // need not be UTF-8
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(ReportText(report), HasSubstr("UNEXPECTED, 2 times: Generate INTERNAL"));
  EXPECT_FALSE(nlohmann::json::parse(ReportJson(report))["ok"]);
}

}  // namespace
}  // namespace mneme
