#ifndef MNEME_TESTS_CLIENT_SERVICE_FIXTURE_H_
#define MNEME_TESTS_CLIENT_SERVICE_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/client/recall_service.h"

namespace mneme {

// What a run of the program left behind.
struct RunResult {
  int exit_code = 0;
  std::string out;
  std::string err;
};

// Runs the program against a RecallService of the test's own.
class ServiceFixture : public ::testing::Test {
 protected:
  // `arguments` without the program's name; `input` is its standard input.
  RunResult Run(const std::vector<std::string>& arguments, const std::string& input = "");

  // The same; Ctrl-C comes when the program has written its first output.
  RunResult RunAndInterrupt(const std::vector<std::string>& arguments);

  // Writes a file that goes with the test; returns its path.
  std::string WriteFile(const std::string& name, const std::string& content);

  RecallService service_;
};

}  // namespace mneme

#endif  // MNEME_TESTS_CLIENT_SERVICE_FIXTURE_H_
