#include "tests/client/service_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using ChatCommandTest = ServiceFixture;

TEST_F(ChatCommandTest, KeepsOneSessionOverManyTurns) {
  const RunResult result = Run({"chat"}, "Anna door 4711.\nAnna door?\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("4711 \n"));
  EXPECT_THAT(service_.session_ids(), ElementsAre("drawn-1"));
  EXPECT_THAT(result.err, HasSubstr("To go on: mneme chat --session drawn-1"));
}

TEST_F(ChatCommandTest, SaysWhatItHasLearnt) {
  std::string line;
  for (int i = 0; i < 40; ++i) line += "word ";
  const RunResult result = Run({"chat", "--session", "talk"}, "short\n" + line + "\nshort\n");
  EXPECT_EQ(result.out, "unknown \nunknown \n[learnt chunks 1-2, position 43]\nunknown \n");
}

TEST_F(ChatCommandTest, AskLeavesNoTrace) {
  Run({"chat", "--session", "talk"}, "Anna door 4711.\n");
  const std::string before = service_.text("talk");
  const RunResult result = Run({"chat", "--session", "talk"}, "/ask Anna door?\n");
  EXPECT_EQ(result.out, "4711 \n");
  EXPECT_EQ(service_.text("talk"), before);
}

TEST_F(ChatCommandTest, FreezeStopsLearningAndAgainResumesIt) {
  std::string line;
  for (int i = 0; i < 16; ++i) line += "word ";
  const RunResult result =
      Run({"chat", "--session", "talk"}, "/freeze\n" + line + "\n/freeze\n" + line + "\n");
  EXPECT_EQ(result.out,
            "[frozen: reads, learns nothing]\nunknown \n[frozen, read chunk 1, position 17]\n"
            "[learns again]\nunknown \n[learnt chunk 2, position 34]\n");
}

TEST_F(ChatCommandTest, NewGoesOnInAnotherSession) {
  const RunResult result = Run({"chat"}, "Anna door 4711.\n/new\nAnna door?\n");
  EXPECT_THAT(result.out, Not(HasSubstr("4711")));
  EXPECT_THAT(service_.session_ids(), ElementsAre("drawn-1", "drawn-2"));
}

TEST_F(ChatCommandTest, QuitLeavesTheRestUnread) {
  const RunResult result = Run({"chat", "--session", "talk"}, "/session\n/quit\nnever sent\n");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(service_.text("talk"), "");
  EXPECT_THAT(result.err, HasSubstr("session talk  model words  position 0"));
}

TEST_F(ChatCommandTest, UnknownCommandsAreExplainedAndNotSent) {
  const RunResult result = Run({"chat", "--session", "talk"}, "/what\n/ask\n\n");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("/ask TEXT"));
  EXPECT_EQ(service_.text("talk"), "");
}

TEST_F(ChatCommandTest, AScriptEndsAtTheFirstError) {
  Run({"sessions", "create", "talk"});
  service_.Drain();
  const RunResult result = Run({"chat", "--session", "talk"}, "one\ntwo\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("mneme: UNAVAILABLE: the server is draining"));
}

}  // namespace
}  // namespace mneme
