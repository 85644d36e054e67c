#include <nlohmann/json.hpp>

#include "tests/client/service_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using ClientTest = ServiceFixture;

TEST_F(ClientTest, HelpAndVersionExitWithZero) {
  const RunResult help = Run({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command : {"chat", "append", "generate", "sessions", "inspect", "eval"}) {
    EXPECT_THAT(help.out, HasSubstr(command));
  }
  const RunResult version = Run({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, StartsWith("mneme 0."));
}

TEST_F(ClientTest, EveryCommandHasHelpWithExamples) {
  for (const char* command :
       {"chat", "append", "generate", "sessions", "inspect", "eval", "tokenize", "health"}) {
    const RunResult help = Run({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr(std::string("mneme ") + command)) << command;
    EXPECT_THAT(help.out, HasSubstr("Example")) << command;
  }
}

TEST_F(ClientTest, AWrongCommandLineExitsWithTwo) {
  EXPECT_EQ(Run({}).exit_code, 2);
  EXPECT_EQ(Run({"sing"}).exit_code, 2);
  EXPECT_EQ(Run({"append"}).exit_code, 2);
  EXPECT_EQ(Run({"generate", "x", "--top_k", "many"}).exit_code, 2);
  EXPECT_EQ(Run({"eval", "--documents", "0"}).exit_code, 2);
}

TEST_F(ClientTest, GlobalOptionsMayFollowTheCommand) {
  const RunResult result = Run({"generate", "Once", "--timeout", "60"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(ClientTest, ATimeoutEndsACall) {
  const RunResult result = Run({"generate", "forever", "--timeout", "0.05"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("mneme: DEADLINE_EXCEEDED"));
}

TEST_F(ClientTest, SaysThatACallIsNotThere) {
  const RunResult result = Run({"inspect", "reader"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("mneme: UNIMPLEMENTED"));
}

TEST_F(ClientTest, SessionsAreForkedAndRolledBack) {
  Run({"sessions", "create", "reader"});
  EXPECT_EQ(Run({"sessions", "fork", "reader", "what-if", "--at", "7"}).out, "what-if\n");
  EXPECT_EQ(nlohmann::json::parse(Run({"sessions", "get", "what-if"}).out)["position"], "7");
  const RunResult back = Run({"sessions", "rollback", "what-if", "5"});
  EXPECT_EQ(nlohmann::json::parse(back.out)["position"], "5");
  EXPECT_NE(Run({"sessions", "rollback", "what-if"}).exit_code, 0) << "to which position?";
  EXPECT_EQ(Run({"sessions", "fork", "nobody", "x"}).exit_code, 1);
  EXPECT_EQ(Run({"sessions", "checkpoint", "what-if"}).out, "position 5, 4096 bytes\n");
  EXPECT_EQ(Run({"sessions", "checkpoint", "what-if", "--name", "five"}).exit_code, 0);
  const RunResult named = Run({"sessions", "rollback", "reader", "--checkpoint", "five"});
  EXPECT_EQ(nlohmann::json::parse(named.out)["position"], "5") << named.err;
  EXPECT_EQ(Run({"sessions", "fork", "reader", "then", "--checkpoint", "five"}).out, "then\n");
  EXPECT_EQ(nlohmann::json::parse(Run({"sessions", "get", "then"}).out)["position"], "5");
}

TEST_F(ClientTest, SessionsAreMadeShownFrozenAndDeleted) {
  const RunResult created =
      Run({"sessions", "create", "reader", "--label", "book=emma", "--ttl", "60"});
  EXPECT_EQ(created.out, "reader\n");
  const RunResult updated =
      Run({"sessions", "update", "reader", "--freeze", "true", "--max_lag_chunks", "2"});
  EXPECT_EQ(updated.exit_code, 0) << updated.err;
  const nlohmann::json session = nlohmann::json::parse(Run({"sessions", "get", "reader"}).out);
  EXPECT_EQ(session["labels"]["book"], "emma");
  EXPECT_EQ(session["ttl"], "60s");
  EXPECT_EQ(session["controls"]["freeze"], true);
  EXPECT_EQ(session["controls"]["max_lag_chunks"], 2);
  EXPECT_EQ(session["controls"]["update_mode"], "UPDATE_MODE_DEFERRED");
  EXPECT_EQ(Run({"sessions", "delete", "reader"}).exit_code, 0);
  EXPECT_THAT(service_.session_ids(), ElementsAre());
  EXPECT_EQ(Run({"sessions", "delete", "reader"}).exit_code, 1);
}

TEST_F(ClientTest, ListsAllPagesOfSessions) {
  for (const char* id : {"a", "b", "c", "d", "e"}) Run({"sessions", "create", id});
  const RunResult result = Run({"sessions", "list", "--page_size", "2"});
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 6);
  for (const char* row : {"\na ", "\nb ", "\nc ", "\nd ", "\ne "}) {
    EXPECT_THAT(result.out, HasSubstr(row));
  }
}

TEST_F(ClientTest, RefusesALabelWithoutAKey) {
  const RunResult result = Run({"sessions", "create", "--label", "book"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("--label book: not KEY=VALUE"));
}

TEST_F(ClientTest, TokenizesAText) {
  EXPECT_EQ(Run({"tokenize", "one three"}).out, "3 5\n");
  EXPECT_EQ(Run({"tokenize", "-"}, "one").out, "3\n");
  EXPECT_THAT(Run({"tokenize", "\xff"}).err, HasSubstr("not UTF-8"));
}

TEST_F(ClientTest, HealthTellsByItsExitCode) {
  EXPECT_EQ(Run({"health"}).out, "SERVING\n");
  EXPECT_EQ(Run({"health", "--wait", "60"}).exit_code, 0);
  service_.Drain();
  const RunResult draining = Run({"health"});
  EXPECT_EQ(draining.exit_code, 1);
  EXPECT_THAT(draining.err, HasSubstr("the server is NOT_SERVING"));
}

TEST_F(ClientTest, NamesAServerThatCannotBeReached) {
  const RunResult result = Run({"sessions", "list", "--server", "127.0.0.1:1"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("mneme: UNAVAILABLE"));
}

}  // namespace
}  // namespace mneme
