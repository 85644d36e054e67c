#ifndef MNEME_TESTS_E2E_PROGRAM_H_
#define MNEME_TESTS_E2E_PROGRAM_H_

#include <sys/types.h>

#include <cstdio>
#include <string>
#include <vector>

namespace mneme {

// A running program; its standard output and error come through one pipe.
class Program {
 public:
  Program(const std::string& path, std::vector<std::string> arguments);
  // Kills it if it still runs.
  ~Program();

  // Reads on until a line holds `text`; that line, or what came if the program ends before.
  std::string ReadUntil(const std::string& text);
  void Signal(int signal) const;
  // The exit code; −signal if a signal ended it.
  int Wait();

  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

 private:
  pid_t child_ = -1;
  FILE* output_ = nullptr;
};

}  // namespace mneme

#endif  // MNEME_TESTS_E2E_PROGRAM_H_
