#include "engine/tokenizer/bpe.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/fixtures.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;

// SmallTokenizerJson with the tokens `names` from id 300 on and with `merges`.
std::unique_ptr<const Tokenizer> WithMerges(const std::vector<std::string>& names,
                                            const std::vector<std::string>& merges,
                                            bool ignore_merges = false) {
  nlohmann::json json = SmallTokenizerJson();
  int id = 300;
  for (const std::string& name : names) json["model"]["vocab"][name] = id++;
  json["model"]["merges"] = merges;
  json["model"]["ignore_merges"] = ignore_merges;
  return MustLoad(json);
}

TEST(BpeTest, TheBestRankMergesFirst) {
  const auto tokenizer = WithMerges({"bc", "aab"}, {"b c", "a b"});
  EXPECT_THAT(Ids(*tokenizer, "abc"), ElementsAre('a', 300));
}

TEST(BpeTest, OfEqualRankTheLeftmostMergesFirst) {
  const auto tokenizer = WithMerges({"aa"}, {"a a"});
  EXPECT_THAT(Ids(*tokenizer, "aaaaa"), ElementsAre(300, 300, 'a'));
}

TEST(BpeTest, MergesOfMerges) {
  const auto tokenizer = WithMerges({"cd", "abcd", "abcde"}, {"a b", "c d", "ab cd", "abcd e"});
  EXPECT_THAT(Ids(*tokenizer, "abcdeabcd"), ElementsAre(302, 301));
}

TEST(BpeTest, MergesOnlyWithinAPiece) {
  const auto tokenizer = WithMerges({"Ġb", "aĠ"}, {"Ġ b", "a Ġ"});
  EXPECT_THAT(Ids(*tokenizer, "a b"), ElementsAre('a', 300));
}

TEST(BpeTest, IgnoreMergesTakesAPieceThatIsAToken) {
  EXPECT_THAT(Ids(*WithMerges({"xyz"}, {"a b"}, true), "xyz"), ElementsAre(300));
  EXPECT_THAT(Ids(*WithMerges({"xyz"}, {"a b"}, true), "xyzab"), ElementsAre('x', 'y', 'z', 256));
  EXPECT_THAT(Ids(*WithMerges({"xyz"}, {"a b"}, false), "xyz"), ElementsAre('x', 'y', 'z'));
}

TEST(BpeTest, IgnoreMergesNeverFindsASpecialToken) {
  nlohmann::json json = SmallTokenizerJson();
  json["model"]["vocab"]["xyz"] = 300;
  json["model"]["ignore_merges"] = true;
  json["added_tokens"].push_back({{"content", "xyz"}, {"id", 300}, {"special", true}});
  const auto tokenizer = MustLoad(json);
  EXPECT_THAT(Ids(*tokenizer, "xyz", /*parse_special=*/false), ElementsAre('x', 'y', 'z'));
  EXPECT_THAT(Ids(*tokenizer, "xyz", /*parse_special=*/true), ElementsAre(300));
}

}  // namespace
}  // namespace mneme
