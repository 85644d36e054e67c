// RoPE tables against values that rope_reference.py prints.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/loading/config.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

std::string Config(const std::string& keys) {
  return absl::StrCat(
      R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 320, "hidden_size": 64,
          "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
          "max_position_embeddings": 4096, )",
      keys, "}");
}

RopeTables TablesOf(const std::string& keys, int64_t head_dim = 16) {
  const auto config = ParseModelConfig(Config(keys));
  EXPECT_TRUE(config.ok()) << config.status();
  if (!config.ok()) return {};
  return MakeRopeTables(config->rope, head_dim, config->max_position_embeddings);
}

// Compares the frequencies from `first` on.
void ExpectFrequencies(const RopeTables& tables, const std::vector<double>& expected,
                       size_t first = 0) {
  ASSERT_GE(tables.inverse_frequencies.size(), first + expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(tables.inverse_frequencies[first + i], expected[i], 1e-14 * expected[i]) << i;
  }
}

TEST(RopeTablesTest, Default) {
  const std::vector<double> expected = {
      1,     0.17782794100389226,    0.031622776601683791,   0.005623413251903491,
      0.001, 0.00017782794100389227, 3.1622776601683795e-05, 5.6234132519034912e-06};
  for (const char* keys : {R"("rope_theta": 1e6)", R"("rope_theta": 1000000, "rope_scaling": null)",
                           R"("rope_parameters": {"rope_theta": 1e6, "rope_type": "default"})"}) {
    const RopeTables tables = TablesOf(keys);
    ASSERT_EQ(tables.inverse_frequencies.size(), 8U);
    ExpectFrequencies(tables, expected);
    EXPECT_EQ(tables.attention_factor, 1);
  }
}

TEST(RopeTablesTest, Linear) {
  ExpectFrequencies(TablesOf(R"("rope_scaling": {"type": "linear", "factor": 4})"),
                    {0.25, 0.079056941504209485, 0.025, 0.0079056941504209478, 0.0025,
                     0.00079056941504209474, 0.00025, 7.9056941504209485e-05});
}

TEST(RopeTablesTest, Llama3) {
  const std::string factors =
      R"("rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,)";
  for (const std::string& keys :
       {absl::StrCat(R"("rope_theta": 500000.0, "rope_scaling": {)", factors,
                     R"("original_max_position_embeddings": 32})"),
        absl::StrCat(R"("rope_parameters": {"rope_theta": 500000.0, )", factors,
                     R"("original_max_position_embeddings": 32})")}) {
    ExpectFrequencies(TablesOf(keys),
                      {1, 0.02424034309358572, 0.0047007538663579916, 0.00091158309215213856,
                       0.00017677669529663688, 3.4281021959525912e-05, 6.6478698711812362e-06,
                       1.2891731721515574e-06});
  }
  ExpectFrequencies(TablesOf(absl::StrCat(R"("rope_theta": 500000.0, "rope_scaling": {)", factors,
                                          R"("original_max_position_embeddings": 8192})"),
                             128),
                    {0.0032114459947525913, 0.0021665707635033591, 0.0013718935677611381,
                     0.00085675141291963208, 0.00052484616099295468, 0.00031269375038406517,
                     0.00017850781276799638, 9.5562123539646833e-05},
                    28);
}

TEST(RopeTablesTest, YarnScalesByFactor) {
  const RopeTables tables = TablesOf(
      R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                          "original_max_position_embeddings": 64})");
  ExpectFrequencies(tables, {1, 0.23717082451262847, 0.05, 0.0079056941504209478, 0.0025,
                             0.00079056941504209474, 0.00025, 7.9056941504209485e-05});
  EXPECT_NEAR(tables.attention_factor, 1.138629436111989, 1e-15);
  ExpectFrequencies(
      TablesOf(R"("rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                  "original_max_position_embeddings": 32768})",
               128),
      {0.0053753214907901019, 0.0041317380225183937, 0.0031684225747110918, 0.0024234223804076435,
       0.0018482765647068781, 0.0014051124815959123, 0.0010643609812470017, 0.00080295972754523023,
       0.00060294117647058821, 0.00045032357551376927, 0.00033424054566422634,
       0.00024625840690893869, 0.00017984115587395423, 0.00012993149493015669,
       9.2623017041294588e-05, 6.4903943208370279e-05},
      24);
}

TEST(RopeTablesTest, YarnTakesItsOptionalKeys) {
  // Without original_max_position_embeddings the range comes from max_position_embeddings, 4096.
  const RopeTables betas = TablesOf(
      R"("rope_scaling": {"rope_type": "yarn", "factor": 2.5, "beta_fast": 16, "beta_slow": 2,
                          "truncate": false, "attention_factor": 0.75})");
  ExpectFrequencies(betas,
                    {1, 0.31622776601683794, 0.1, 0.031622776601683791, 0.0074092953615059118,
                     0.0012925390196131333, 0.0004, 0.00012649110640673515});
  EXPECT_EQ(betas.attention_factor, 0.75);
  const RopeTables mscale = TablesOf(
      R"("rope_scaling": {"rope_type": "yarn", "factor": 4, "mscale": 0.7,
                          "mscale_all_dim": 0.9})");
  EXPECT_NEAR(mscale.attention_factor, 0.9753496504321066, 1e-15);
}

TEST(RopeConfigTest, NamesUnsupportedKinds) {
  for (const char* kind : {"dynamic", "longrope", "proportional"}) {
    const auto config =
        ParseModelConfig(Config(absl::StrCat(R"("rope_scaling": {"type": ")", kind, R"("})")));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented) << kind;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(kind));
  }
  for (const char* keys :
       {R"("partial_rotary_factor": 0.5)",
        R"("rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5})",
        R"("rope_parameters": {"full_attention": {"rope_type": "default"}})"}) {
    EXPECT_EQ(ParseModelConfig(Config(keys)).status().code(), absl::StatusCode::kUnimplemented)
        << keys;
  }
}

TEST(RopeConfigTest, RefusesMeaninglessValues) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {R"("rope_theta": 0)", "rope_theta"},
      {R"("rope_theta": 1)", "rope_theta"},
      {R"("rope_theta": -1e4)", "rope_theta"},
      {R"("rope_theta": "10000")", "rope_theta"},
      {R"("rope_scaling": "yarn")", "rope_scaling"},
      {R"("rope_scaling": {"rope_type": 7})", "rope_type"},
      {R"("rope_scaling": {"rope_type": "linear"})", "factor"},
      {R"("rope_scaling": {"rope_type": "linear", "factor": 0})", "factor"},
      {R"("rope_scaling": {"rope_type": "yarn", "factor": -4})", "factor"},
      {R"("rope_scaling": {"rope_type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 2})",
       "beta_fast"},
      {R"("rope_scaling": {"rope_type": "yarn", "factor": 4, "attention_factor": 0})",
       "attention_factor"},
      {R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
           "high_freq_factor": 4})",
       "original_max_position_embeddings"},
      {R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
           "high_freq_factor": 4, "original_max_position_embeddings": 32})",
       "high_freq_factor"}};
  for (const auto& [keys, culprit] : bad) {
    const auto config = ParseModelConfig(Config(keys));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << keys;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("\"" + culprit + "\"")) << keys;
  }
}

}  // namespace
}  // namespace mneme
