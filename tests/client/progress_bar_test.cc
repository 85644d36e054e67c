#include "client/progress_bar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace mneme {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class ProgressBarTest : public ::testing::Test {
 protected:
  Console MakeConsole(bool terminal) {
    return {.in = in_, .out = out_, .err = err_, .err_is_terminal = terminal, .clock_s = [this] {
              return now_s_;
            }};
  }

  double now_s_ = 100;
  std::istringstream in_;
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(ProgressBarTest, DrawsABarAsLongAsTheShareThatIsDone) {
  Console console = MakeConsole(true);
  ProgressBar bar("read", console);
  now_s_ += 1;
  bar.Update(0.5, "halfway");
  EXPECT_EQ(err_.str(), "\rread [###############...............]  50%  halfway\x1b[K");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(ProgressBarTest, RedrawsATerminalTenTimesASecondAtMost) {
  Console console = MakeConsole(true);
  ProgressBar bar("read", console);
  now_s_ += 0.11;
  bar.Update(0.1, "first");
  now_s_ += 0.05;
  bar.Update(0.2, "too soon");
  now_s_ += 0.06;
  bar.Update(0.3, "second");
  EXPECT_THAT(err_.str(), HasSubstr("first"));
  EXPECT_THAT(err_.str(), Not(HasSubstr("too soon")));
  EXPECT_THAT(err_.str(), HasSubstr("second"));
}

TEST_F(ProgressBarTest, PrintsPlainLinesEveryFiveSecondsWithoutATerminal) {
  Console console = MakeConsole(false);
  ProgressBar bar("read", console);
  now_s_ += 4.9;
  bar.Update(0.1, "too soon");
  now_s_ += 0.2;
  bar.Update(0.25, "position 10");
  bar.Finish("position 40");
  EXPECT_EQ(err_.str(), "read  25%  position 10\nread 100%  position 40\n");
}

TEST_F(ProgressBarTest, FinishIsShownHoweverSoonItComes) {
  Console console = MakeConsole(true);
  ProgressBar bar("read", console);
  bar.Finish("done");
  EXPECT_THAT(err_.str(), HasSubstr("100%  done"));
  EXPECT_THAT(err_.str(), EndsWith("\n"));
}

TEST_F(ProgressBarTest, AnUnfinishedBarEndsItsLine) {
  Console console = MakeConsole(true);
  {
    ProgressBar bar("read", console);
    now_s_ += 1;
    bar.Update(0.5, "halfway");
  }
  EXPECT_THAT(err_.str(), EndsWith("\n"));
}

TEST_F(ProgressBarTest, KeepsSharesBeyondTheEndsInside) {
  Console console = MakeConsole(false);
  ProgressBar bar("read", console);
  now_s_ += 10;
  bar.Update(1.5, "more than guessed");
  now_s_ += 10;
  bar.Update(-1, "less than nothing");
  EXPECT_EQ(err_.str(), "read 100%  more than guessed\nread   0%  less than nothing\n");
}

}  // namespace
}  // namespace mneme
