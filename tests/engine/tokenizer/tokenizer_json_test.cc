// Broken and unsupported tokenizer.json files: each is a status that says what is wrong.

#include "engine/tokenizer/tokenizer_json.h"

#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

absl::Status LoadStatus(const std::string& json, const std::string& config = "") {
  return Tokenizer::FromJson(json, config).status();
}

struct Breakage {
  const char* name;
  std::function<void(Json&)> apply;
  const char* message;  // a part of it
};

void PrintTo(const Breakage& breakage, std::ostream* out) { *out << breakage.name; }

absl::Status StatusOf(const Breakage& breakage) {
  Json json = SmallTokenizerJson();
  breakage.apply(json);
  return LoadStatus(json.dump());
}

Json Added(const char* content, int64_t id) {
  return {{"content", content}, {"id", id}, {"special", true}};
}

Json Split(const char* regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}};
}

Json Sequence(const Json& first) {
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {first, byte_level}}};
}

Json Template(const Json& single) {
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", Json::array()}};
}

const Json kText = {{"Sequence", {{"id", "A"}}}};
Json Token(const char* id) { return {{"SpecialToken", {{"id", id}}}}; }

class InvalidTest : public testing::TestWithParam<Breakage> {};

TEST_P(InvalidTest, IsInvalidArgument) {
  const absl::Status status = StatusOf(GetParam());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    TokenizerJson, InvalidTest,
    testing::Values(
        Breakage{"not_an_object",
                 [](Json& j) {
                   j = {1, 2};
                 },
                 "must be an object"},
        Breakage{"no_model", [](Json& j) { j.erase("model"); }, "model is missing"},
        Breakage{"model_is_a_number", [](Json& j) { j["model"] = 3; }, "wrong type"},
        Breakage{"no_type", [](Json& j) { j["model"].erase("type"); }, "model.type is missing"},
        Breakage{"no_vocab", [](Json& j) { j["model"].erase("vocab"); }, "vocab is missing"},
        Breakage{"vocab_is_an_array", [](Json& j) { j["model"]["vocab"] = {"a"}; }, "wrong type"},
        Breakage{"empty_vocab", [](Json& j) { j["model"]["vocab"] = Json::object(); }, "byte 0"},
        Breakage{"a_byte_is_missing", [](Json& j) { j["model"]["vocab"].erase("z"); }, "byte 122"},
        Breakage{"negative_id", [](Json& j) { j["model"]["vocab"]["ab"] = -1; }, "id -1"},
        Breakage{"large_id", [](Json& j) { j["model"]["vocab"]["ab"] = 4000000000; }, "4000000000"},
        Breakage{"huge_id", [](Json& j) { j["model"]["vocab"]["ab"] = UINT64_MAX; }, "integer"},
        Breakage{"fractional_id", [](Json& j) { j["model"]["vocab"]["ab"] = 2.5; }, "integer"},
        Breakage{"string_id", [](Json& j) { j["model"]["vocab"]["ab"] = "256"; }, "integer"},
        Breakage{"null_id", [](Json& j) { j["model"]["vocab"]["ab"] = nullptr; }, "integer"},
        Breakage{"duplicate_id", [](Json& j) { j["model"]["vocab"]["ab"] = 97; },
                 "both have id 97"},
        Breakage{"no_merges", [](Json& j) { j["model"].erase("merges"); }, "merges is missing"},
        Breakage{"merges_is_an_object", [](Json& j) { j["model"]["merges"] = Json::object(); },
                 "wrong type"},
        Breakage{"merge_of_one", [](Json& j) { j["model"]["merges"] = {"ab"}; }, "merges[0]"},
        Breakage{"merge_of_three", [](Json& j) { j["model"]["merges"] = {"a b c"}; }, "merges[0]"},
        Breakage{"merge_of_numbers",
                 [](Json& j) {
                   j["model"]["merges"] = {{1, 2}};
                 },
                 "merges[0]"},
        Breakage{"merge_is_a_number",
                 [](Json& j) {
                   j["model"]["merges"] = {"a b", 1};
                 },
                 "merges[1]"},
        Breakage{"merge_of_a_missing_token", [](Json& j) { j["model"]["merges"] = {"qq b"}; },
                 "\"qq\""},
        Breakage{"merge_into_a_missing_token", [](Json& j) { j["model"]["merges"] = {"a c"}; },
                 "\"ac\""},
        Breakage{"merge_into_a_special_token",
                 [](Json& j) { j["added_tokens"].push_back(Added("ab", 256)); }, "special token"},
        Breakage{"a_byte_is_special", [](Json& j) { j["added_tokens"].push_back(Added("a", 97)); },
                 "special token"},
        Breakage{"ignore_merges_is_a_number", [](Json& j) { j["model"]["ignore_merges"] = 1; },
                 "true or false"},
        Breakage{"added_tokens_is_an_object", [](Json& j) { j["added_tokens"] = Json::object(); },
                 "wrong type"},
        Breakage{"added_token_is_a_string", [](Json& j) { j["added_tokens"] = {"<s>"}; },
                 "must be an object"},
        Breakage{"added_token_without_content",
                 [](Json& j) {
                   j["added_tokens"] = {{{"id", 300}}};
                 },
                 "content is missing"},
        Breakage{"added_token_without_id",
                 [](Json& j) {
                   j["added_tokens"] = {{{"content", "x!"}}};
                 },
                 "integer"},
        Breakage{"added_token_with_a_negative_id",
                 [](Json& j) { j["added_tokens"] = {Added("x!", -5)}; }, "id -5"},
        Breakage{"added_token_with_a_large_id",
                 [](Json& j) { j["added_tokens"] = {Added("x!", INT64_MAX)}; }, "not in 0.."},
        Breakage{"added_token_with_anothers_id",
                 [](Json& j) { j["added_tokens"] = {Added("x!", 97)}; }, "both have id 97"},
        Breakage{"added_token_with_two_ids",
                 [](Json& j) { j["added_tokens"].push_back(Added("<s>", 300)); }, "257 and 300"},
        Breakage{"normalizer_is_a_string", [](Json& j) { j["normalizer"] = "NFC"; },
                 "must be an object"},
        Breakage{"normalizer_without_type", [](Json& j) { j["normalizer"] = Json::object(); },
                 "type is missing"},
        Breakage{"sequence_without_members",
                 [](Json& j) {
                   j["normalizer"] = {{"type", "Sequence"}};
                 },
                 "normalizers is missing"},
        Breakage{"regex_does_not_compile",
                 [](Json& j) { j["pre_tokenizer"] = Sequence(Split("(a")); }, "does not compile"},
        Breakage{"split_without_pattern",
                 [](Json& j) {
                   j["pre_tokenizer"] = Sequence({{"type", "Split"}});
                 },
                 "pattern is missing"},
        Breakage{"no_decoder", [](Json& j) { j.erase("decoder"); }, "decoder is missing"},
        Breakage{"template_is_a_number", [](Json& j) { j["post_processor"] = Template(1); },
                 "wrong type"},
        Breakage{"template_with_a_missing_token",
                 [](Json& j) {
                   j["post_processor"] = Template({Token("<bos>"), kText});
                 },
                 "\"<bos>\""}));

class UnsupportedTest : public testing::TestWithParam<Breakage> {};

TEST_P(UnsupportedTest, IsUnimplementedAndNamed) {
  const absl::Status status = StatusOf(GetParam());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    TokenizerJson, UnsupportedTest,
    testing::Values(
        Breakage{"model_type", [](Json& j) { j["model"]["type"] = "Unigram"; }, "Unigram"},
        Breakage{"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, "dropout"},
        Breakage{"byte_fallback", [](Json& j) { j["model"]["byte_fallback"] = true; },
                 "byte_fallback"},
        Breakage{"prefix", [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
                 "continuing_subword_prefix"},
        Breakage{"suffix", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
                 "end_of_word_suffix"},
        Breakage{"lstrip", [](Json& j) { j["added_tokens"][0]["lstrip"] = true; }, "lstrip"},
        Breakage{"rstrip", [](Json& j) { j["added_tokens"][0]["rstrip"] = true; }, "rstrip"},
        Breakage{"single_word", [](Json& j) { j["added_tokens"][0]["single_word"] = true; },
                 "single_word"},
        Breakage{"normalizer",
                 [](Json& j) {
                   j["normalizer"] = {{"type", "NFKC"}};
                 },
                 "NFKC"},
        Breakage{"no_pre_tokenizer", [](Json& j) { j["pre_tokenizer"] = nullptr; }, "ByteLevel"},
        Breakage{"pre_tokenizer",
                 [](Json& j) {
                   j["pre_tokenizer"] = {{"type", "Metaspace"}};
                 },
                 "Metaspace"},
        Breakage{"prefix_space", [](Json& j) { j["pre_tokenizer"].erase("add_prefix_space"); },
                 "add_prefix_space"},
        Breakage{"split_behavior",
                 [](Json& j) {
                   j["pre_tokenizer"] = Sequence(Split("a"));
                   j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed";
                 },
                 "Removed"},
        Breakage{"split_inverted",
                 [](Json& j) {
                   j["pre_tokenizer"] = Sequence(Split("a"));
                   j["pre_tokenizer"]["pretokenizers"][0]["invert"] = true;
                 },
                 "invert"},
        Breakage{"split_by_a_string",
                 [](Json& j) {
                   j["pre_tokenizer"] = Sequence(Split("a"));
                   j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", "a"}};
                 },
                 "pattern.String"},
        Breakage{"regex", [](Json& j) { j["pre_tokenizer"] = Sequence(Split("\\w")); }, "\\w"},
        Breakage{"decoder",
                 [](Json& j) {
                   j["decoder"] = {{"type", "WordPiece"}};
                 },
                 "WordPiece"},
        Breakage{"post_processor",
                 [](Json& j) {
                   j["post_processor"] = {{"type", "BertProcessing"}};
                 },
                 "BertProcessing"},
        Breakage{"end_of_text",
                 [](Json& j) {
                   j["post_processor"] = Template({kText, Token("<s>")});
                 },
                 "TemplateProcessing"},
        Breakage{"two_before",
                 [](Json& j) {
                   j["post_processor"] = Template({Token("<s>"), Token("<s>"), kText});
                 },
                 "TemplateProcessing"}));

TEST(TokenizerJsonTest, ATruncatedFileIsInvalidWhereverItIsCut) {
  std::ifstream file(TokenizerData() / "llama3" / "tokenizer.json");
  const std::string whole((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t json_size = whole.rfind('}');
  for (size_t size = 0; size <= json_size; size += 331) {
    EXPECT_EQ(LoadStatus(whole.substr(0, size)).code(), absl::StatusCode::kInvalidArgument) << size;
  }
  EXPECT_TRUE(LoadStatus(whole).ok());
}

TEST(TokenizerJsonTest, DeepNestingIsInvalid) {
  for (const char* bracket : {"[", "{\"a\":"}) {
    std::string json;
    for (int i = 0; i < 1000000; ++i) json += bracket;
    EXPECT_EQ(LoadStatus(json).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(TokenizerJsonTest, InvalidUtf8InAFileIsInvalid) {
  EXPECT_EQ(LoadStatus("{\"model\": \"\xFF\"}").code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerJsonTest, MergesMayBePairsOrStrings) {
  Json json = SmallTokenizerJson();
  json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_EQ(Ids(*MustLoad(json), "ab"), std::vector<int32_t>{256});
}

TEST(TokenizerJsonTest, DigitsSplitOneByOneOrInRuns) {
  Json json = SmallTokenizerJson();
  json["model"]["vocab"]["12"] = 300;
  json["model"]["merges"] = {"1 2"};
  json["pre_tokenizer"] = Sequence({{"type", "Digits"}, {"individual_digits", true}});
  EXPECT_EQ(Ids(*MustLoad(json), "x12"), (std::vector<int32_t>{'x', '1', '2'}));
  json["pre_tokenizer"] = Sequence({{"type", "Digits"}, {"individual_digits", false}});
  EXPECT_EQ(Ids(*MustLoad(json), "x12"), (std::vector<int32_t>{'x', 300}));
}

TEST(TokenizerJsonTest, ConfigAsksForBosByFlagAndName) {
  const std::string json = SmallTokenizerJson().dump();
  const auto bos = [&](const char* config) {
    return Tokenizer::FromJson(json, config).value()->bos_id();
  };
  EXPECT_EQ(bos(R"({"add_bos_token": true, "bos_token": {"content": "<s>"}})"), 257);
  EXPECT_EQ(bos(R"({"add_bos_token": false, "bos_token": "<s>"})"), std::nullopt);
  EXPECT_EQ(bos(R"({"bos_token": "<s>"})"), std::nullopt);
}

TEST(TokenizerJsonTest, ABrokenConfigIsInvalid) {
  const std::string json = SmallTokenizerJson().dump();
  for (const char* config :
       {"{", "[]", R"({"add_bos_token": 1})", R"({"add_bos_token": true})",
        R"({"add_bos_token": true, "bos_token": 7})", R"({"add_bos_token": true, "bos_token": {}})",
        R"({"add_bos_token": true, "bos_token": "<none>"})"}) {
    EXPECT_EQ(LoadStatus(json, config).code(), absl::StatusCode::kInvalidArgument) << config;
  }
}

}  // namespace
}  // namespace mneme
