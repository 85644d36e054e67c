#include <sstream>

#include "tests/client/service_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;

using AppendCommandTest = ServiceFixture;

TEST_F(AppendCommandTest, StreamsAFileInPiecesThatAreTheFile) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "word" + std::to_string(i) + (i % 9 == 8 ? ".\n" : " ");
  const RunResult result =
      Run({"append", WriteFile("book.txt", text), "--session", "reader", "--create"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(service_.text("reader"), text);
  EXPECT_THAT(service_.pieces("reader").size(), Gt(5u));
  EXPECT_EQ(result.out, "session reader  position 20000  version 1250\n");
  EXPECT_THAT(result.err, HasSubstr("append 100%  position 20000"));
  EXPECT_THAT(result.err, HasSubstr("1250 chunks learnt"));
}

TEST_F(AppendCommandTest, ReadsStandardInput) {
  Run({"sessions", "create", "reader"});
  const RunResult result = Run({"append", "-", "--session", "reader"}, "one two three");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(service_.text("reader"), "one two three");
}

TEST_F(AppendCommandTest, CountsChunksOfThisAppendAlone) {
  Run({"append", "-", "--session", "reader", "--create"}, std::string(40, 'a') + " b c d e f g");
  std::string more;
  for (int i = 0; i < 30; ++i) more += " x";
  const RunResult result = Run({"append", "-", "--session", "reader"}, more);
  EXPECT_THAT(result.err, HasSubstr("position 37"));
  EXPECT_THAT(result.err, HasSubstr("2 chunks learnt"));
}

TEST_F(AppendCommandTest, PrintsThePerplexityWithoutTheFirstToken) {
  const RunResult result =
      Run({"append", "-", "--session", "reader", "--create", "--logprobs"}, "one two three four");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("perplexity 2.0000 over 3 tokens"));
}

TEST_F(AppendCommandTest, SendsTokenIds) {
  const RunResult result =
      Run({"append", "-", "--session", "reader", "--create", "--token_ids"}, "7 8\n 4096");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(service_.text("reader"), " #7 #8 #4096");
}

TEST_F(AppendCommandTest, SendsTurns) {
  const RunResult result =
      Run({"append", "-", "--session", "reader", "--create", "--messages"},
          R"([{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}])");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(service_.text("reader"), "user: Hello.\nassistant: Hi.\n");
}

TEST_F(AppendCommandTest, RefusesInputThatIsNotWhatTheFlagsSay) {
  Run({"sessions", "create", "reader"});
  const RunResult ids = Run({"append", "-", "--session", "reader", "--token_ids"}, "7 eight");
  EXPECT_EQ(ids.exit_code, 1);
  EXPECT_THAT(ids.err, HasSubstr("INVALID_ARGUMENT: --token_ids"));
  const RunResult turns = Run({"append", "-", "--session", "reader", "--messages"}, "{}");
  EXPECT_EQ(turns.exit_code, 1);
  EXPECT_THAT(turns.err, HasSubstr("INVALID_ARGUMENT: --messages"));
  const RunResult text = Run({"append", "-", "--session", "reader"}, "one \xff");
  EXPECT_EQ(text.exit_code, 1);
  EXPECT_THAT(text.err, HasSubstr("not UTF-8 at byte 4"));
  EXPECT_EQ(service_.text("reader"), "");
}

TEST_F(AppendCommandTest, AsksForAnExistingSessionUnlessToldToCreate) {
  const RunResult result = Run({"append", "-", "--session", "nobody"}, "text");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err,
              HasSubstr("mneme: NOT_FOUND: no session \"nobody\" (reason SESSION_NOT_FOUND)\n"));
  EXPECT_THAT(service_.session_ids(), ElementsAre());
}

TEST_F(AppendCommandTest, HandsOnTheServersRefusal) {
  Run({"append", "-", "--session", "reader", "--create"}, "one two");
  const RunResult moved =
      Run({"append", "-", "--session", "reader", "--expected_position", "9"}, "three");
  EXPECT_EQ(moved.exit_code, 1);
  EXPECT_THAT(moved.err, HasSubstr("ABORTED: the session moved (reason POSITION_MISMATCH, "
                                   "position 2, version 0)"));
  const RunResult empty = Run({"append", "-", "--session", "reader"}, "");
  EXPECT_EQ(empty.exit_code, 1);
  EXPECT_THAT(empty.err, HasSubstr("INVALID_ARGUMENT: no token in the input"));
}

TEST_F(AppendCommandTest, NamesAFileThatItCannotOpen) {
  const RunResult result = Run({"append", "/nowhere/book.txt", "--session", "reader"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("cannot open /nowhere/book.txt"));
}

}  // namespace
}  // namespace mneme
