// mneme-bench-sessions: what it measures is there, and adds up. The program itself, with a server,
// is a test of its own (CMakeLists.txt).

#include "bench/sessions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/server_start.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/qwen3-window-yarn";

void NoProgress(const std::string& /*what*/, double /*share*/) {}

class SessionsBenchTest : public testing::Test {
 protected:
  SessionsOptions Options() const {
    return {.model_dir = kModel,
            .threads = 1,
            .work_dir = directory_.path(),
            .rounds = 2,
            .streams = 3,
            .stream_tokens = 8,
            .documents = 1,
            .document_tokens = 20,
            .restore_tokens = {40},
            .restore_repeats = 1};
  }

  const TemporaryDirectory directory_;
};

TEST_F(SessionsBenchTest, SetsEachModeBesideNone) {
  const absl::StatusOr<DurabilityReport> report = MeasureDurability(Options(), NoProgress);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->syncs_per_second, 0);
  ASSERT_EQ(report->figures.size(), 2U);
  EXPECT_EQ(report->figures[0].streams, 1);
  EXPECT_EQ(report->figures[1].documents, 1);
  for (const DurabilityFigures& figures : report->figures) {
    for (size_t mode = 0; mode < kDurabilities.size(); ++mode) {
      EXPECT_GT(figures.tokens_per_second[mode], 0);
      EXPECT_LE(figures.to_none[mode].least, figures.to_none[mode].median);
      EXPECT_GE(figures.to_none[mode].largest, figures.to_none[mode].median);
    }
    EXPECT_EQ(figures.to_none.back().median, 1);
  }
  EXPECT_THAT(DurabilityText(*report), HasSubstr("3 streams, 1 documents"));
  const json loads = json::parse(DurabilityJson(*report)).at("loads");
  EXPECT_EQ(loads.at(1).at("sync").at("to_none"), report->figures[1].to_none[0].median);
}

TEST_F(SessionsBenchTest, RestoresFromTheCheckpointAndFromTheLog) {
  const auto figures = MeasureRestore(Options(), NoProgress);
  ASSERT_TRUE(figures.ok()) << figures.status();
  ASSERT_EQ(figures->size(), 1U);
  EXPECT_EQ(figures->front().tokens, 40);
  EXPECT_GT(figures->front().checkpoint_ms, 0);
  EXPECT_GT(figures->front().replay_ms, 0);
  EXPECT_EQ(json::parse(RestoreJson(*figures)).at(0).at("tokens"), 40);
}

TEST_F(SessionsBenchTest, RefusesSessionsBeyondTheContext) {
  SessionsOptions options = Options();
  options.restore_tokens = {1 << 20};
  options.document_tokens = 1 << 20;
  for (const absl::Status& status : {MeasureDurability(options, NoProgress).status(),
                                     MeasureRestore(options, NoProgress).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
}

TEST_F(SessionsBenchTest, SaysWhyTheServerDidNotStart) {
  EXPECT_THAT(std::string(MeasureServerStart("/no/server", {}).status().message()),
              HasSubstr("/no/server"));
  EXPECT_EQ(MeasureServerStart("/bin/true", {}).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace mneme
