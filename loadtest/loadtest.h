#ifndef MNEME_LOADTEST_LOADTEST_H_
#define MNEME_LOADTEST_LOADTEST_H_

#include <iosfwd>
#include <stop_token>

#include "absl/status/statusor.h"
#include "loadtest/load.h"
#include "loadtest/options.h"
#include "loadtest/report.h"

namespace mneme {

// Asks the server for its model, makes the load, then compares the checked sessions with themselves
// alone. UNAVAILABLE and the like if the server does not answer before the load;
// FAILED_PRECONDITION for text without a tokenizer.
absl::StatusOr<LoadReport> RunLoadtest(const LoadOptions& options, std::stop_token stop,
                                       const ProgressSink& progress);

// The program, without its signals: the exit code, see --help. `err_is_terminal`: show progress.
int RunLoadtestProgram(int argc, const char* const* argv, std::ostream& out, std::ostream& err,
                       bool err_is_terminal, std::stop_token stop);

}  // namespace mneme

#endif  // MNEME_LOADTEST_LOADTEST_H_
