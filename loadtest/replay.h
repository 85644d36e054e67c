#ifndef MNEME_LOADTEST_REPLAY_H_
#define MNEME_LOADTEST_REPLAY_H_

#include <cstdint>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/connection.h"
#include "loadtest/load.h"
#include "loadtest/options.h"
#include "loadtest/report.h"

namespace mneme {

// Gives each session's requests to a fresh session of its own, one after the other while nothing
// else runs, and compares the tokens. A stream that was given up counts with what came of it; how
// much of it the session has kept follows from where its next one began, and the replay keeps as
// much. Errors are those of the replay's calls. A stop ends it between two sessions.
absl::StatusOr<CheckReport> CompareWithAlone(const LoadOptions& options,
                                             const Connection& connection, uint32_t vocab_size,
                                             const std::vector<CheckedSession>& sessions,
                                             std::stop_token stop);

}  // namespace mneme

#endif  // MNEME_LOADTEST_REPLAY_H_
