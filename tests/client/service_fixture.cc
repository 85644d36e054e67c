#include "tests/client/service_fixture.h"

#include <fstream>
#include <sstream>

#include "client/client.h"

namespace mneme {
namespace {

// Runs `action` at the first output.
class TriggerBuffer : public std::stringbuf {
 public:
  explicit TriggerBuffer(std::function<void()> action) : action_(std::move(action)) {}

 protected:
  std::streamsize xsputn(const char* text, std::streamsize size) override {
    if (action_) std::exchange(action_, nullptr)();
    return std::stringbuf::xsputn(text, size);
  }

 private:
  std::function<void()> action_;
};

int RunProgram(const std::vector<std::string>& arguments, const std::string& address,
               Console& console, Interrupter& interrupter) {
  std::vector<const char*> argv = {"mneme", "--server", address.c_str()};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return RunClient(static_cast<int>(argv.size()), argv.data(), console, interrupter);
}

}  // namespace

RunResult ServiceFixture::Run(const std::vector<std::string>& arguments, const std::string& input) {
  std::istringstream in(input);
  std::ostringstream out;
  std::ostringstream err;
  Console console{.in = in, .out = out, .err = err, .clock_s = [] { return 0.0; }};
  Interrupter interrupter([] {});
  const int exit_code = RunProgram(arguments, service_.address(), console, interrupter);
  return {exit_code, out.str(), err.str()};
}

RunResult ServiceFixture::RunAndInterrupt(const std::vector<std::string>& arguments) {
  Interrupter interrupter([] {});
  std::istringstream in;
  TriggerBuffer buffer([&interrupter] { interrupter.Interrupt(); });
  std::ostream out(&buffer);
  std::ostringstream err;
  Console console{.in = in, .out = out, .err = err, .clock_s = [] { return 0.0; }};
  const int exit_code = RunProgram(arguments, service_.address(), console, interrupter);
  return {exit_code, buffer.str(), err.str()};
}

std::string ServiceFixture::WriteFile(const std::string& name, const std::string& content) {
  const std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::string path = ::testing::TempDir() + "/mneme_" + test + "_" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

}  // namespace mneme
