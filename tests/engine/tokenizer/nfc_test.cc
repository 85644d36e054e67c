#include "engine/tokenizer/nfc.h"

#include <string>

#include "gtest/gtest.h"

namespace mneme {
namespace {

TEST(NfcTest, Composes) {
  EXPECT_EQ(NormalizeNfc("cafe\u0301 e\u0301e\u0301"), "café éé");
  EXPECT_EQ(NormalizeNfc("\u1112\u1161\u11AB"), "한");
  EXPECT_EQ(NormalizeNfc("\u212B"), "\u00C5");
}

TEST(NfcTest, OrdersMarksByClassAndKeepsTheOrderWithinAClass) {
  EXPECT_EQ(NormalizeNfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(NormalizeNfc("q\u0302\u0301"), "q\u0302\u0301");
}

TEST(NfcTest, LeavesCompositionExclusionsDecomposed) {
  EXPECT_EQ(NormalizeNfc("\u0958"), "\u0915\u093C");
}

TEST(NfcTest, KeepsAsciiAndNul) {
  const std::string text("a\0b\n\x7F", 5);
  EXPECT_EQ(NormalizeNfc(text), text);
  EXPECT_EQ(NormalizeNfc(""), "");
}

TEST(NfcTest, AMarkAtTheBeginningHasNothingToJoin) {
  EXPECT_EQ(NormalizeNfc("\u0301a\u0301"), "\u0301á");
}

TEST(NfcTest, OrdersAMillionMarks) {
  std::string text = "w";
  std::string below;
  std::string above;
  for (int i = 0; i < 500000; ++i) {
    text += "\u0301\u0316";
    below += "\u0316";
    above += "\u0301";
  }
  // The first acute accent composes with w, past the marks below, which do not block it.
  EXPECT_EQ(NormalizeNfc(text), "\u1E83" + below + above.substr(2));
}

}  // namespace
}  // namespace mneme
