// mneme sessions export, import.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/client/service_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class ArchiveCommandsTest : public ServiceFixture {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
    Read("one two three four");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Read(const std::string& text) {
    const std::string book = WriteFile("book.txt", text);
    ASSERT_EQ(Run({"append", book, "--session", "reader", "--create"}).exit_code, 0);
  }
  int64_t Files() const {
    return std::distance(std::filesystem::directory_iterator(directory_), {});
  }

  const std::string directory_ = ::testing::TempDir() + "/mneme_archive_commands_test";
  const std::string file_ = directory_ + "/reader.mneme";
};

TEST_F(ArchiveCommandsTest, ASessionGoesToAFileAndBack) {
  const RunResult out = Run({"sessions", "export", "reader", file_});
  ASSERT_EQ(out.exit_code, 0) << out.err;
  EXPECT_EQ(Content(file_), "one two three four");
  EXPECT_EQ(Files(), 1);
  EXPECT_THAT(out.err, HasSubstr("export 100%"));
  const RunResult in = Run({"sessions", "import", file_, "copy"});
  ASSERT_EQ(in.exit_code, 0) << in.err;
  EXPECT_EQ(in.out, "copy\n");
  EXPECT_EQ(service_.text("copy"), "one two three four");
  EXPECT_EQ(Run({"sessions", "import", file_}).out, "drawn-1\n");
}

TEST_F(ArchiveCommandsTest, AnExportThatBrokeOffGoesOn) {
  service_.BreakExportAt(6);
  const RunResult broken = Run({"sessions", "export", "reader", file_});
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_THAT(broken.err, HasSubstr("goes on at byte 6"));
  EXPECT_FALSE(std::filesystem::exists(file_));
  ASSERT_EQ(Run({"sessions", "export", "reader", file_}).exit_code, 0);
  EXPECT_EQ(Content(file_), "one two three four");
  EXPECT_EQ(Files(), 1);
  EXPECT_THAT(service_.export_offsets(), ElementsAre(0, 6));
}

TEST_F(ArchiveCommandsTest, AnExportOfASessionThatHasChangedBeginsAnew) {
  service_.BreakExportAt(6);
  Run({"sessions", "export", "reader", file_});
  Read(" five");
  ASSERT_EQ(Run({"sessions", "export", "reader", file_}).exit_code, 0);
  EXPECT_EQ(Content(file_), "one two three four five");
  EXPECT_EQ(Files(), 1);
  EXPECT_THAT(service_.export_offsets(), ElementsAre(0, 6, 0));
}

TEST_F(ArchiveCommandsTest, AnImportThatBreaksOffGoesOnByItself) {
  ASSERT_EQ(Run({"sessions", "export", "reader", file_}).exit_code, 0);
  service_.BreakImportAt(6);
  const RunResult in = Run({"sessions", "import", file_, "copy"});
  ASSERT_EQ(in.exit_code, 0) << in.err;
  EXPECT_EQ(in.out, "copy\n");
  EXPECT_THAT(in.err, HasSubstr("going on at byte 6"));
  EXPECT_EQ(service_.text("copy"), "one two three four");
  EXPECT_THAT(service_.import_offsets(), ElementsAre(0, 18, 6));
}

TEST_F(ArchiveCommandsTest, WhatGoesWrongIsSaid) {
  EXPECT_EQ(Run({"sessions", "export", "nobody", file_}).exit_code, 1);
  EXPECT_EQ(Files(), 0);
  EXPECT_EQ(Run({"sessions", "import", file_, "copy"}).exit_code, 1);
  ASSERT_EQ(Run({"sessions", "export", "reader", file_}).exit_code, 0);
  EXPECT_EQ(Run({"sessions", "import", file_, "reader"}).exit_code, 1);
  EXPECT_EQ(Run({"sessions", "export", "reader", directory_ + "/none/x"}).exit_code, 1);
}

}  // namespace
}  // namespace mneme
