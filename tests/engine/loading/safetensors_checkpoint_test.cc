#include "engine/loading/safetensors_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "nlohmann/json.hpp"
#include "tests/engine/loading/safetensors_writer.h"

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two shards, and an index that a test may change.
class ShardedCheckpointTest : public testing::Test {
 protected:
  ShardedCheckpointTest() {
    WriteFile(dir_.path() / "one.safetensors",
              SafetensorsBytes({{"a", MakeTensor(DType::kF32, {2}, {1, 2})}}));
    WriteFile(dir_.path() / "two.safetensors",
              SafetensorsBytes({{"b", MakeTensor(DType::kBF16, {2, 1}, {3, 4})}}));
  }

  absl::Status OpenWith(const nlohmann::json& weight_map) {
    WriteIndex(nlohmann::json({{"metadata", nlohmann::json::object()}, {"weight_map", weight_map}})
                   .dump());
    return Checkpoint::Open(dir_.path()).status();
  }
  void WriteIndex(const std::string& content) {
    WriteFile(dir_.path() / "model.safetensors.index.json", content);
  }
  void ExpectGoodIndexWorks() {
    EXPECT_EQ(OpenWith({{"a", "one.safetensors"}, {"b", "two.safetensors"}}), absl::OkStatus());
  }

  TemporaryDirectory dir_;
};

TEST_F(ShardedCheckpointTest, FindsTensorsInTheirShards) {
  ExpectGoodIndexWorks();
  auto opened = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Checkpoint checkpoint = *std::move(opened);
  EXPECT_THAT(checkpoint.Names(), ElementsAre("a", "b"));
  const auto a = checkpoint.Find("a", 2, 0);
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->rows, 1);
  EXPECT_EQ(a->cols, 2);
  const auto b = checkpoint.Find("b", 2, 1);
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(b->dtype, DType::kBF16);
  float values[2];
  ConvertToFloat(b->data, b->dtype, 2, values);
  EXPECT_THAT(values, ElementsAre(3, 4));
}

TEST_F(ShardedCheckpointTest, NamesTheMissingShard) {
  const absl::Status status = OpenWith({{"a", "one.safetensors"}, {"b", "three.safetensors"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("three.safetensors"));
  ExpectGoodIndexWorks();
}

TEST_F(ShardedCheckpointTest, NamesTheTensorThatItsShardLacks) {
  const absl::Status status = OpenWith({{"a", "one.safetensors"}, {"b", "one.safetensors"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("\"b\""), HasSubstr("one.safetensors")));
  ExpectGoodIndexWorks();
}

TEST_F(ShardedCheckpointTest, RefusesShardsOutsideOfTheDirectory) {
  const std::string absolute = (dir_.path() / "one.safetensors").string();
  const std::string around = "../" + dir_.path().filename().string() + "/one.safetensors";
  for (const std::string& shard :
       {absolute, around, std::string("x/../../x/one.safetensors"), std::string()}) {
    const absl::Status status = OpenWith({{"a", shard}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << shard;
    EXPECT_THAT(std::string(status.message()), HasSubstr("must lie in the model's directory"));
  }
  ExpectGoodIndexWorks();
}

TEST_F(ShardedCheckpointTest, RefusesABrokenIndex) {
  for (const char* content : {"", "[]", "{", "{}", R"({"weight_map":[]})",
                              R"({"weight_map":{"a":7}})", R"({"weight_map":{"a":null}})"}) {
    WriteIndex(content);
    const absl::Status status = Checkpoint::Open(dir_.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << content;
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors.index.json"));
  }
  ExpectGoodIndexWorks();
}

TEST(CheckpointTest, SaysWhatADirectoryWithoutAModelLacks) {
  const TemporaryDirectory dir;
  for (const auto& path : {dir.path(), dir.path() / "absent"}) {
    const absl::Status status = Checkpoint::Open(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  }
}

TEST(CheckpointTest, ChecksShapesAndDtypesOfWhatIsAskedFor) {
  const TemporaryDirectory dir;
  const std::string four(16, '\0');
  WriteFile(dir.path() / "model.safetensors",
            SafetensorsBytes({{"conv", MakeTensor(DType::kF16, {2, 1, 3}, {1, 2, 3, 4, 5, 6})},
                              {"ids", {"I32", {4}, four}}}));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->Find("conv", 2, 3).ok());
  const absl::Status shape = checkpoint->Find("conv", 3, 2).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.message()),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("\"conv\""), HasSubstr("[2, 1, 3]"),
                    HasSubstr("[3, 2]")));
  EXPECT_EQ(checkpoint->Find("conv", 6, 0).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status dtype = checkpoint->Find("ids", 4, 0).status();
  EXPECT_EQ(dtype.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(dtype.message()), AllOf(HasSubstr("\"ids\""), HasSubstr("I32")));
  const absl::Status absent = checkpoint->Find("absent", 4, 0).status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.message()), HasSubstr("\"absent\""));
}

}  // namespace
}  // namespace mneme
