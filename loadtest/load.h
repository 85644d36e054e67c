#ifndef MNEME_LOADTEST_LOAD_H_
#define MNEME_LOADTEST_LOAD_H_

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "loadtest/connection.h"
#include "loadtest/options.h"
#include "loadtest/report.h"
#include "loadtest/schedule.h"
#include "loadtest/streams.h"

namespace mneme {

// A session to be compared with itself alone.
struct CheckedSession {
  Arrival arrival;
  std::string id;
  std::vector<StreamResult> results;  // of its first requests, in order
};

// Takes a line about how it goes, about once a second.
using ProgressSink = std::function<void(const std::string&)>;

// Makes the load and fills `report`, all but its check; returns when every request has ended. A
// stop cancels what is under way and begins nothing more. `progress` may be empty.
std::vector<CheckedSession> RunLoad(const LoadOptions& options, const Connection& connection,
                                    uint32_t vocab_size, std::stop_token stop,
                                    const ProgressSink& progress, LoadReport& report);

}  // namespace mneme

#endif  // MNEME_LOADTEST_LOAD_H_
