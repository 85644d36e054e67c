#include "client/text_pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <sstream>
#include <vector>

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// All pieces of `text`; stops at an error, which it puts into `status`.
std::vector<std::string> Pieces(const std::string& text, size_t piece_bytes,
                                absl::Status* status = nullptr) {
  std::istringstream in(text);
  TextPieces pieces(in, piece_bytes);
  std::vector<std::string> result;
  while (true) {
    const absl::StatusOr<std::string> piece = pieces.Next();
    if (!piece.ok()) {
      if (status != nullptr) *status = piece.status();
      return result;
    }
    if (piece->empty()) return result;
    result.push_back(*piece);
  }
}

TEST(TextPiecesTest, CutsBeforeTheSpaceBetweenWords) {
  EXPECT_THAT(Pieces("one two three four", 9), ElementsAre("one two", " three", " four"));
}

TEST(TextPiecesTest, CutsAfterLineEndsThatAWordFollows) {
  EXPECT_THAT(Pieces("one.\n\nTwo.\nThree.", 9), ElementsAre("one.\n\n", "Two.\n", "Three."));
}

TEST(TextPiecesTest, DoesNotCutInARunOfSpaces) {
  EXPECT_THAT(Pieces("ab cd    ef", 7), ElementsAre("ab", " cd    ", "ef"));
}

TEST(TextPiecesTest, KeepsCharactersWholeWhereThereIsNoSpace) {
  const std::string text = "\u00e4\u20ac\U0001F600\u00e4\u20ac\U0001F600";  // 2, 3 and 4 bytes
  for (size_t piece_bytes = 4; piece_bytes < 20; ++piece_bytes) {
    std::string whole;
    for (const std::string& piece : Pieces(text, piece_bytes)) {
      EXPECT_EQ(ValidUtf8Prefix(piece), piece.size());
      EXPECT_LE(piece.size(), piece_bytes);
      whole += piece;
    }
    EXPECT_EQ(whole, text);
  }
}

TEST(TextPiecesTest, PiecesAreTheText) {
  const std::vector<std::string> parts = {"word",       " ", "\n", "\r\n", "\u00e9",
                                          "\U0001F600", ".", "  ", "7",    "\t"};
  std::mt19937 random(5);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (size_t i = 0; i < random() % 60; ++i) text += parts[random() % parts.size()];
    const size_t piece_bytes = 4 + random() % 30;
    std::string whole;
    for (const std::string& piece : Pieces(text, piece_bytes)) {
      EXPECT_EQ(ValidUtf8Prefix(piece), piece.size());
      EXPECT_LE(piece.size(), piece_bytes);
      whole += piece;
    }
    EXPECT_EQ(whole, text);
  }
}

TEST(TextPiecesTest, AnEmptyTextHasNoPiece) { EXPECT_THAT(Pieces("", 16), ElementsAre()); }

TEST(TextPiecesTest, NamesTheByteThatIsNotUtf8) {
  absl::Status status;
  Pieces("one two three \xff four five six seven", 8, &status);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at byte 14"));
}

TEST(TextPiecesTest, RefusesACharacterThatTheEndCutsOff) {
  absl::Status status;
  Pieces("word \xe2\x82", 64, &status);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at byte 5"));
}

TEST(ValidUtf8PrefixTest, RefusesOverlongSurrogateAndTooLargeCharacters) {
  EXPECT_EQ(ValidUtf8Prefix("a\xc0\xaf"), 1u);
  EXPECT_EQ(ValidUtf8Prefix("\xe0\x80\xaf"), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\xf0\x80\x80\xaf"), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\xed\xa0\x80"), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\xf4\x90\x80\x80"), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\xf5\x80\x80\x80"), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\x80"), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\xf4\x8f\xbf\xbf"), 4u);
}

}  // namespace
}  // namespace mneme
