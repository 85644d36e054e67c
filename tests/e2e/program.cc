#include "tests/e2e/program.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "gtest/gtest.h"

namespace mneme {

Program::Program(const std::string& path, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), path);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe(ends.data()), 0);
  child_ = fork();
  if (child_ == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(ends[1]);
  output_ = fdopen(ends[0], "r");
}

Program::~Program() {
  if (child_ > 0) {
    Signal(SIGKILL);
    Wait();
  }
  fclose(output_);
}

std::string Program::ReadUntil(const std::string& text) {
  std::string all;
  std::array<char, 4096> line{};
  while (fgets(line.data(), static_cast<int>(line.size()), output_) != nullptr) {
    if (std::string(line.data()).find(text) != std::string::npos) return line.data();
    all += line.data();
  }
  return all;
}

void Program::Signal(int signal) const { kill(child_, signal); }

int Program::Wait() {
  int status = 0;
  waitpid(child_, &status, 0);
  child_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace mneme
