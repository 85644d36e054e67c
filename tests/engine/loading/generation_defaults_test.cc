#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/loading/config.h"
#include "tests/engine/loading/safetensors_writer.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GenerationDefaultsTest, ReadsEveryKey) {
  const auto defaults = ParseGenerationDefaults(
      R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "min_p": 0.1, "top_k": 20,
          "repetition_penalty": 1.1, "eos_token_id": [7, 8], "pad_token_id": -1,
          "transformers_version": "4.51.0"})");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(defaults->temperature, 0.6F);
  EXPECT_EQ(defaults->top_p, 0.95F);
  EXPECT_EQ(defaults->min_p, 0.1F);
  EXPECT_EQ(defaults->top_k, 20);
  EXPECT_EQ(defaults->repetition_penalty, 1.1F);
  EXPECT_THAT(defaults->eos_token_ids, ElementsAre(7, 8));
}

TEST(GenerationDefaultsTest, LeavesAbsentValuesAbsent) {
  for (const char* json : {"{}", R"({"temperature": null, "top_k": null, "eos_token_id": null})"}) {
    const auto defaults = ParseGenerationDefaults(json);
    ASSERT_TRUE(defaults.ok()) << defaults.status();
    EXPECT_EQ(defaults->temperature, std::nullopt);
    EXPECT_EQ(defaults->top_p, std::nullopt);
    EXPECT_EQ(defaults->top_k, std::nullopt);
    EXPECT_TRUE(defaults->eos_token_ids.empty());
  }
}

TEST(GenerationDefaultsTest, IsGreedyWithoutSampling) {
  EXPECT_EQ(ParseGenerationDefaults(R"({"do_sample": false, "temperature": 0.6})")->temperature,
            0.0F);
}

TEST(GenerationDefaultsTest, RefusesMeaninglessValuesAndNamesTheKey) {
  for (const auto& [json, culprit] : std::vector<std::pair<std::string, std::string>>{
           {R"({"temperature": -1})", "temperature"},
           {R"({"temperature": "hot"})", "temperature"},
           {R"({"top_p": 0})", "top_p"},
           {R"({"top_p": 1.5})", "top_p"},
           {R"({"min_p": -0.1})", "min_p"},
           {R"({"top_k": -1})", "top_k"},
           {R"({"top_k": 1.5})", "top_k"},
           {R"({"repetition_penalty": 0})", "repetition_penalty"},
           {R"({"do_sample": 1})", "do_sample"},
           {R"({"eos_token_id": {}})", "eos_token_id"}}) {
    const auto defaults = ParseGenerationDefaults(json);
    EXPECT_EQ(defaults.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(defaults.status().message()), HasSubstr("\"" + culprit + "\""));
  }
}

TEST(LoadGenerationDefaultsTest, TheFileIsOptionalButMustBeSound) {
  const TemporaryDirectory dir;
  const auto absent = LoadGenerationDefaults(dir.path());
  ASSERT_TRUE(absent.ok()) << absent.status();
  EXPECT_EQ(absent->temperature, std::nullopt);
  WriteFile(dir.path() / "generation_config.json", "{");
  const auto broken = LoadGenerationDefaults(dir.path());
  EXPECT_EQ(broken.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("generation_config.json"));
  WriteFile(dir.path() / "generation_config.json", R"({"top_k": 3})");
  EXPECT_EQ(LoadGenerationDefaults(dir.path())->top_k, 3);
}

}  // namespace
}  // namespace mneme
