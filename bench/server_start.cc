#include "bench/server_start.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "bench/stopwatch.h"

namespace mneme {
namespace {

// A program whose standard output is read here. Stopped, and waited for, when destroyed.
class ChildProgram {
 public:
  ChildProgram(const std::string& path, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), path);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::array<int, 2> ends{};
    MNEME_CHECK(pipe2(ends.data(), O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    started_ = posix_spawn(&process_, path.c_str(), &actions, nullptr, argv.data(), environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    output_ = fdopen(ends[0], "r");
  }
  ~ChildProgram() {
    if (started_) {
      kill(process_, SIGTERM);
      waitpid(process_, nullptr, 0);
    }
    fclose(output_);
  }
  ChildProgram(const ChildProgram&) = delete;
  ChildProgram& operator=(const ChildProgram&) = delete;

  bool started() const { return started_; }
  // Reads until a line begins with `text`; false if the output ends before.
  bool AwaitLine(std::string_view text) {
    std::array<char, 4096> line{};
    while (fgets(line.data(), static_cast<int>(line.size()), output_) != nullptr) {
      if (std::string_view(line.data()).substr(0, text.size()) == text) return true;
    }
    return false;
  }
  int64_t ResidentBytes() const {
    std::ifstream statm(absl::StrCat("/proc/", process_, "/statm"));
    int64_t total_pages = 0, resident_pages = 0;
    statm >> total_pages >> resident_pages;
    return resident_pages * sysconf(_SC_PAGESIZE);
  }

 private:
  pid_t process_ = 0;
  bool started_ = false;
  FILE* output_ = nullptr;
};

}  // namespace

absl::StatusOr<ServerStart> MeasureServerStart(const std::filesystem::path& program,
                                               const std::vector<std::string>& arguments) {
  const Stopwatch stopwatch;
  ChildProgram server(program, arguments);
  if (!server.started()) {
    return absl::NotFoundError(
        absl::StrCat("cannot start ", program.string(), "; name the program with --server"));
  }
  if (!server.AwaitLine("listening on")) {
    return absl::UnavailableError(
        absl::StrCat(program.string(), " has ended before it listened; its log says why"));
  }
  return ServerStart{.ms = stopwatch.Elapsed().wall_ms, .resident_bytes = server.ResidentBytes()};
}

}  // namespace mneme
