// mneme-bench's table: workloads as they are written, what is counted, and that rows agree.

#include "bench/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/bench_backend.h"
#include "bench/bench_model.h"

namespace mneme {
namespace {

using nlohmann::json;

constexpr char kLearning[] = "tests/golden/qwen3-window-yarn";

BenchOptions SmallTable() {
  BenchOptions options;
  options.model_dir = kLearning;
  options.chunk = 16;
  options.decode_tokens = 5;
  options.step_tokens = 24;
  options.repeat = 2;
  options.threads = 1;
  options.workloads = {*ParseWorkload("decode:3x40"), *ParseWorkload("prefill:50")};
  return options;
}

void NoProgress(const std::string& /*what*/) {}

TEST(WorkloadTest, IsNamedAsItIsWritten) {
  for (const char* text : {"decode:1x4096", "decode:64x1", "prefill:32768"}) {
    const absl::StatusOr<Workload> workload = ParseWorkload(text);
    ASSERT_TRUE(workload.ok()) << workload.status();
    EXPECT_EQ(NameOf(*workload), text);
  }
}

TEST(WorkloadTest, RefusesAnythingElse) {
  for (const char* text : {"", "decode", "decode:4", "decode:0x8", "decode:4x", "decode:4x-1",
                           "prefill:0", "prefill:4x4", "prefill:many", "read:4"}) {
    EXPECT_EQ(ParseWorkload(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(TableTest, MeasuresEachWorkloadWithLearningOnAndOff) {
  const absl::StatusOr<BenchTable> table = RunTable(SmallTable(), NoProgress);
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->rows.size(), 4U);
  for (const TableRow& row : table->rows) {
    EXPECT_GT(row.ms, 0);
    EXPECT_GE(row.p99_ms, row.ms);
    EXPECT_GT(row.floor_ms, 0);
    const bool decode = row.workload.kind == Workload::Kind::kDecode;
    const double tokens = static_cast<double>(decode ? row.workload.streams : row.workload.tokens);
    EXPECT_NEAR(row.tokens_per_second * row.ms / 1e3, tokens, 1e-6 * tokens);
    // Three sessions of 40 tokens close two chunks each while they read, one of 50 closes three.
    EXPECT_EQ(row.chunks_closed, row.learning ? (decode ? 6 : 3) : 0);
    EXPECT_EQ(row.updates_skipped, 0);
  }
}

TEST(TableTest, TheJsonHoldsTheRows) {
  const absl::StatusOr<BenchTable> table = RunTable(SmallTable(), NoProgress);
  ASSERT_TRUE(table.ok()) << table.status();
  const json rows = json::parse(TableJson(*table)).at("rows");
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[1].at("work"), "decode:3x40");
  EXPECT_EQ(rows[1].at("learning"), true);
  const double cost =
      1e6 / table->rows[1].tokens_per_second - 1e6 / table->rows[0].tokens_per_second;
  EXPECT_NEAR(rows[1].at("learning_us_per_token"), cost, 1e-9 * std::abs(cost));
  EXPECT_THAT(TableText(*table), testing::HasSubstr("prefill:50"));
}

TEST(TableTest, RefusesAWorkloadBeyondTheContext) {
  BenchOptions options = SmallTable();
  const int64_t most = LoadModelConfig(kLearning)->MaxSessionTokens();
  for (const auto kind : {Workload::Kind::kDecode, Workload::Kind::kPrefill}) {
    Workload workload = {.kind = kind};
    workload.tokens = most - SessionTokens(workload, options.decode_tokens);
    options.workloads = {workload};
    EXPECT_EQ(RunTable(options, NoProgress).status(), absl::OkStatus());
    ++options.workloads[0].tokens;
    EXPECT_EQ(RunTable(options, NoProgress).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(WorkTest, CountsWeightsOnceAndEverySessionsOwn) {
  const BenchOptions options = SmallTable();
  const auto backend = *MakeBenchBackend(options);
  const BenchModel model = *LoadBenchModel(options, *backend);
  const WorkCounter counter(model.config, model.weights, /*kv_element_bytes=*/4,
                            DeltaReadBytes(options, model.config));
  const Work one = counter.DecodeStep(1, 20, false), two = counter.DecodeStep(2, 20, false);
  const Work learning = counter.DecodeStep(2, 20, true);
  EXPECT_DOUBLE_EQ(two.flops, 2 * one.flops);
  EXPECT_LT(two.bytes, 2 * one.bytes);
  const ModelConfig& c = model.config;
  const auto deltas = static_cast<double>(c.hidden_size * c.intermediate_size) *
                      static_cast<double>(c.ttt->layers.size());
  EXPECT_DOUBLE_EQ(learning.bytes - two.bytes, 2 * 4 * deltas);
  EXPECT_DOUBLE_EQ(learning.flops - two.flops, 2 * 2 * deltas);
}

TEST(WorkTest, TheFloorIsTheLargerOfTheTwoTimes) {
  const Ceilings ceilings = {.bytes_per_second = 1e9, .flops_per_second = 1e12};
  EXPECT_DOUBLE_EQ((Work{.bytes = 2e6, .flops = 1e9}.FloorMs(ceilings)), 2);
  EXPECT_DOUBLE_EQ((Work{.bytes = 2e6, .flops = 5e9}.FloorMs(ceilings)), 5);
}

}  // namespace
}  // namespace mneme
