#include "engine/loading/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/engine/loading/safetensors_writer.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<SafetensorsFile> Parse(const std::string& bytes) {
  return SafetensorsFile::FromBytes({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                                    "bytes");
}

// The message of the refusal of a file with this header and so many bytes of data.
std::string Refusal(const std::string& header, size_t data_bytes) {
  const auto file = Parse(SafetensorsBytes(header, std::string(data_bytes, 'x')));
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << header;
  return std::string(file.status().message());
}

const char kGoodHeader[] = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

TEST(SafetensorsTest, ListsTensorsWithShapesAndContent) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::string bytes =
      SafetensorsBytes({{"matrix", MakeTensor(DType::kF32, {2, 3}, values)},
                        {"ids", {"I32", {2}, std::string("\1\0\0\0\2\0\0\0", 8)}},
                        {"scalar", MakeTensor(DType::kBF16, {}, {7.0F})}});
  const auto file = Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 3U);
  const SafetensorsTensor* matrix = file->Find("matrix");
  ASSERT_NE(matrix, nullptr);
  EXPECT_EQ(matrix->dtype, "F32");
  EXPECT_THAT(matrix->shape, ElementsAre(2, 3));
  std::vector<float> read(6);
  ASSERT_EQ(matrix->bytes.size(), 24U);
  std::memcpy(read.data(), matrix->bytes.data(), 24);
  EXPECT_EQ(read, values);
  EXPECT_EQ(file->Find("ids")->dtype, "I32");
  EXPECT_EQ(file->Find("scalar")->bytes.size(), 2U);
  EXPECT_EQ(file->Find("absent"), nullptr);
}

TEST(SafetensorsTest, AcceptsEmptyTensorsMetadataAndPadding) {
  const std::string header = R"({"__metadata__":{"format":"pt","n":null},)"
                             R"("e":{"dtype":"F16","shape":[0,4],"data_offsets":[0,0]},)"
                             R"("a":{"shape":[2],"data_offsets":[0,8],"dtype":"F32"}}      )";
  const auto file = Parse(SafetensorsBytes(header, std::string(8, 'x')));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 2U);
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string good = SafetensorsBytes(kGoodHeader, std::string(8, 'x'));
  ASSERT_TRUE(Parse(good).ok());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(Parse(good.substr(0, size)).status().code(), absl::StatusCode::kInvalidArgument)
        << size;
  }
}

TEST(SafetensorsTest, RefusesAHeaderLengthBeyondTheFile) {
  for (const int high_byte : {0x00, 0x7f, 0xff}) {
    std::string bytes = SafetensorsBytes(kGoodHeader, std::string(8, 'x'));
    bytes[2] = '\1';
    bytes[7] = static_cast<char>(high_byte);
    const auto file = Parse(bytes);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(file.status().message()), HasSubstr("header's length"));
  }
}

TEST(SafetensorsTest, RefusesOffsetsOutOfRange) {
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7),
              AllOf(HasSubstr("\"a\""), HasSubstr("[0, 8] outside")));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
              HasSubstr("outside"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[2],)"
                      R"("data_offsets":[9223372036854775799,9223372036854775807]}})",
                      8),
              HasSubstr("outside"));
}

TEST(SafetensorsTest, RefusesOverlapHolesAndTrailingBytes) {
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},)"
                      R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                      8),
              AllOf(HasSubstr("\"b\""), HasSubstr("overlaps")));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                      R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                      8),
              AllOf(HasSubstr("\"b\""), HasSubstr("hole")));
  EXPECT_THAT(Refusal(kGoodHeader, 9), HasSubstr("1 bytes after the last tensor"));
}

TEST(SafetensorsTest, RefusesShapesThatDoNotMatchTheBytes) {
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
              AllOf(HasSubstr("\"a\" has 8 bytes"), HasSubstr("take 12")));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],)"
                      R"("data_offsets":[0,8]}})",
                      8),
              HasSubstr("overflows"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F32","shape":[18446744073709551615],)"
                      R"("data_offsets":[0,8]}})",
                      8),
              HasSubstr("beyond 2^63"));
}

TEST(SafetensorsTest, RefusesUnknownDtypes) {
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8),
              AllOf(HasSubstr("\"a\""), HasSubstr("unknown dtype \"F31\"")));
}

TEST(SafetensorsTest, RefusesNamesAndKeysGivenTwice) {
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                      R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                      8),
              HasSubstr("\"a\" is given twice"));
  EXPECT_THAT(Refusal(R"({"a":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}})", 8),
              HasSubstr("\"dtype\" twice"));
}

TEST(SafetensorsTest, RefusesHeadersOfAnotherStructure) {
  const std::vector<std::string> headers = {
      "",
      "null",
      "7",
      "\"text\"",
      "[]",
      "{",
      "{]",
      R"({"a":7})",
      R"({"a":null})",
      R"({"a":[1]})",
      R"({"a":{}})",
      R"({"a":{"dtype":"U8","shape":[8]}})",
      R"({"a":{"dtype":7,"shape":[8],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":["U8"],"shape":[8],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":8,"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":{"n":8},"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":[[8]],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":["8"],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":[8.0],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":[2,2,2,1,1,1,1,1,1],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0]}})",
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8,8]}})",
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"extra":1}})",
      R"({"__metadata__":{"deep":{"er":{}}},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
      R"({"__metadata__":{"list":[1]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}} x)",
      std::string(kGoodHeader) + "{}",
      "{\"\xff\":{}}"};
  for (const std::string& header : headers) EXPECT_NE(Refusal(header, 8), "") << header;
}

TEST(SafetensorsTest, SurvivesDeepNesting) {
  EXPECT_NE(Refusal(std::string(1'000'000, '['), 0), "");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(Refusal(objects, 0), "");
}

TEST(SafetensorsTest, ShortensAndEscapesHostileNamesInMessages) {
  const std::string message =
      Refusal("{\"\\n" + std::string(100'000, 'a') + "\":{\"dtype\":\"?\"}}", 0);
  EXPECT_LT(message.size(), 400U);
  EXPECT_THAT(message, HasSubstr("\\n"));
}

TEST(SafetensorsTest, OpensAFileAndNamesItInErrors) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "model.safetensors";
  EXPECT_EQ(SafetensorsFile::Open(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& bad : {std::string(), std::string("{}")}) {
    WriteFile(path, bad);
    const auto file = SafetensorsFile::Open(path);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(file.status().message()), HasSubstr("model.safetensors"));
  }
  WriteFile(path, SafetensorsBytes(kGoodHeader, std::string(8, 'x')));
  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const SafetensorsTensor* tensor = file->Find("a");
  const SafetensorsFile moved = *std::move(file);
  EXPECT_EQ(tensor, moved.Find("a"));
  EXPECT_EQ(tensor->bytes[7], 'x');
}

}  // namespace
}  // namespace mneme
