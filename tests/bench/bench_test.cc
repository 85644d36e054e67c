// mneme-bench's measurements: the figures of a report agree with one another.

#include "bench/benchmark.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace mneme {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kLearning[] = "tests/golden/qwen3-window-yarn";

// Steps that end within chunks, and a context beyond the prefill.
BenchOptions SmallRun() {
  BenchOptions options;
  options.model_dir = kLearning;
  options.chunk = 16;
  options.prefill_tokens = 50;
  options.context = 60;
  options.decode_tokens = 5;
  options.step_tokens = 24;
  options.repeat = 3;
  options.threads = 1;  // rows this small are not worth waking more
  return options;
}

BenchReport RunOrDie(const BenchOptions& options) {
  absl::StatusOr<BenchReport> report = RunBenchmark(options);
  if (!report.ok()) ADD_FAILURE() << report.status();
  return report.value_or(BenchReport());
}

Sample MakeSample(double wall_ms, double matmul_ms) {
  return {.engine = {wall_ms, 2 * wall_ms}, .matmul = {matmul_ms, matmul_ms}, .gigaflops = 4};
}

void ExpectConsistent(const json& m, int64_t tokens) {
  EXPECT_EQ(m.at("tokens"), tokens);
  EXPECT_NEAR(m.at("tokens_per_second").get<double>() * m.at("wall_ms").get<double>() / 1e3,
              static_cast<double>(tokens), 1e-6 * static_cast<double>(tokens));
  EXPECT_GT(m.at("matmul_wall_ms").get<double>(), 0);
  EXPECT_GT(m.at("matmul_share").get<double>(), 0);
  EXPECT_GT(m.at("matmul_gigaflops_per_second").get<double>(), 0);
}

TEST(BenchTest, TheFiguresOfARunAgree) {
  const json report = json::parse(ReportJson(RunOrDie(SmallRun())));
  for (const char* learning : {"learning_off", "learning_on"}) {
    ExpectConsistent(report.at("prefill").at(learning), 50);
    ExpectConsistent(report.at("decode").at(learning), 5);
  }
  EXPECT_EQ(report.at("chunk"), 16);
  EXPECT_EQ(report.at("context"), 60);
}

TEST(BenchTest, OnlyTheLearningSessionClosesChunks) {
  const BenchReport report = RunOrDie(SmallRun());
  EXPECT_EQ(report.prefill.learning_off.chunks_closed, 0);
  EXPECT_EQ(report.prefill.learning_on->chunks_closed, 3);  // of 50 tokens
  EXPECT_EQ(report.decode.learning_on->chunks_closed, 1);   // at position 64
}

TEST(BenchTest, AChunkSizeOfTheCheckpointIsKept) {
  BenchOptions options = SmallRun();
  options.chunk.reset();
  EXPECT_EQ(RunOrDie(options).chunk, LoadModelConfig(kLearning)->ttt->chunk);
}

TEST(BenchTest, RefusesAnUnknownShape) {
  BenchOptions options = SmallRun();
  options.model_dir.clear();
  options.random_weights = "qwen3-1b";
  const auto report = RunBenchmark(options);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("qwen3-0.6b"));
}

TEST(BenchTest, RefusesLengthsThatDoNotFit) {
  BenchOptions options = SmallRun();
  options.context = options.prefill_tokens - 1;
  EXPECT_EQ(RunBenchmark(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.context = LoadModelConfig(kLearning)->max_position_embeddings;
  EXPECT_EQ(RunBenchmark(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BenchReportTest, GivesMediansAndPairedRatios) {
  const std::vector<Sample> off = {MakeSample(100, 50), MakeSample(1000, 400), MakeSample(90, 50)};
  const std::vector<Sample> on = {MakeSample(110, 55), MakeSample(1050, 410), MakeSample(117, 60)};
  const PhaseReport report = SummarizePhase(200, off, on);
  EXPECT_DOUBLE_EQ(report.learning_off.wall_ms, 100);
  EXPECT_DOUBLE_EQ(report.learning_off.tokens_per_second, 2000);
  EXPECT_DOUBLE_EQ(report.learning_off.matmul_share, 0.5);
  EXPECT_DOUBLE_EQ(report.learning_off.matmul_cpu_share, 0.25);
  EXPECT_DOUBLE_EQ(report.learning_off.matmul_gigaflops_per_second, 80);
  EXPECT_DOUBLE_EQ(report.learning_on->wall_ms, 117);
  EXPECT_NEAR(report.learning_cost_percent, 10, 1e-9);
}

TEST(BenchReportTest, AModelThatDoesNotLearnHasNoSuchLines) {
  BenchReport report;
  report.prefill = report.decode = SummarizePhase(10, {MakeSample(5, 2), MakeSample(7, 2)}, {});
  EXPECT_FALSE(report.prefill.learning_on.has_value());
  EXPECT_DOUBLE_EQ(report.prefill.learning_off.wall_ms, 6);
  EXPECT_FALSE(json::parse(ReportJson(report)).at("prefill").contains("learning_on"));
  EXPECT_THAT(ReportText(report), testing::Not(HasSubstr("learning costs")));
}

}  // namespace
}  // namespace mneme
