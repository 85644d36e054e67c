#ifndef MNEME_BENCH_SERVER_START_H_
#define MNEME_BENCH_SERVER_START_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace mneme {

struct ServerStart {
  double ms = 0;               // from its start until it listens
  int64_t resident_bytes = 0;  // then
};

// Starts the server program with these arguments, waits until it says that it listens, and stops
// it. NOT_FOUND if there is no such program; UNAVAILABLE if it ends before.
absl::StatusOr<ServerStart> MeasureServerStart(const std::filesystem::path& program,
                                               const std::vector<std::string>& arguments);

}  // namespace mneme

#endif  // MNEME_BENCH_SERVER_START_H_
