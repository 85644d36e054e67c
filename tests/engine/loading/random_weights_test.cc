#include "engine/loading/random_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> Values(const TensorSource& source, const std::string& name, int64_t rows,
                          int64_t cols) {
  const auto tensor = source.Find(name, rows, cols);
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  std::vector<float> values(static_cast<size_t>(tensor->rows * tensor->cols));
  ConvertToFloat(tensor->data, tensor->dtype, tensor->rows * tensor->cols, values.data());
  return values;
}

TEST(NamedShapeTest, KnowsThePublishedShapes) {
  const auto small = NamedShape("qwen3-0.6b");
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(small->hidden_size, 1024);
  EXPECT_EQ(small->intermediate_size, 3072);
  EXPECT_EQ(small->num_heads * small->head_dim, 2048);
  EXPECT_TRUE(small->tie_word_embeddings);
  EXPECT_THAT(small->ttt->layers, ElementsAre(0, 6, 12, 18, 24));
  const auto llama = NamedShape("llama-3.1-8b");
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_EQ(llama->architecture, Architecture::kLlama);
  EXPECT_EQ(llama->rope.kind, RopeKind::kLlama3);
  EXPECT_THAT(llama->ttt->layers, ElementsAre(0, 6, 12, 18, 24, 30));
  EXPECT_EQ(llama->MaxSessionTokens(), 131072);
}

TEST(NamedShapeTest, ListsTheNamesForAnUnknownOne) {
  const auto shape = NamedShape("qwen9");
  EXPECT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.status().message()),
              AllOf(HasSubstr("qwen9"), HasSubstr("qwen3-0.6b, qwen3-4b, qwen3-8b, llama-3.1-8b")));
}

TEST(RandomTensorsTest, DrawsNormalValuesOfUnitVariancePerOutput) {
  const RandomTensors source(7);
  const std::vector<float> values = Values(source, "w", 100, 400);
  double sum = 0, squares = 0;
  int within_one = 0;
  for (const float value : values) {
    sum += value;
    squares += double{value} * value;
    within_one += std::abs(value) < 0.05 ? 1 : 0;  // one standard deviation
  }
  EXPECT_NEAR(sum / 40000, 0, 0.001);
  EXPECT_NEAR(squares / 40000, 1.0 / 400, 0.0001);
  EXPECT_NEAR(within_one / 40000.0, 0.683, 0.02);
}

TEST(RandomTensorsTest, DependOnSeedAndNameAlone) {
  const RandomTensors one(1), again(1), two(2);
  Values(one, "other", 8, 8);
  EXPECT_EQ(Values(one, "w", 5, 7), Values(again, "w", 5, 7));
  EXPECT_NE(Values(one, "w", 5, 7), Values(two, "w", 5, 7));
  EXPECT_NE(Values(one, "v", 8, 8), Values(one, "other", 8, 8));
}

TEST(RandomTensorsTest, GivesNormsAndConvTheirMeaning) {
  const RandomTensors source(1);
  EXPECT_THAT(Values(source, "model.layers.0.self_attn.q_norm.weight", 16, 0), Each(1));
  const std::vector<float> conv = Values(source, "model.layers.0.mlp.ttt_conv.weight", 3, 5);
  for (size_t i = 0; i < conv.size(); ++i) EXPECT_EQ(conv[i] > 0, i % 5 == 2) << i;
}

TEST(RandomTensorsTest, RefusesASecondShape) {
  const RandomTensors source(1);
  ASSERT_TRUE(source.Find("w", 4, 4).ok());
  EXPECT_EQ(source.Find("w", 4, 5).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mneme
