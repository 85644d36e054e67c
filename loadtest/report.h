#ifndef MNEME_LOADTEST_REPORT_H_
#define MNEME_LOADTEST_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "loadtest/histogram.h"
#include "loadtest/options.h"

namespace mneme {

struct CallCounts {
  int64_t started = 0;
  std::map<std::string, int64_t> ended;  // by the status's name

  int64_t ended_count() const;
};

// A stream that is not what its session alone gives.
struct Difference {
  std::string session_id;
  uint64_t position = 0;  // of the first token that differs, in the session
  std::string what;
};

struct CheckReport {
  int64_t sessions = 0;
  int64_t streams = 0;
  int64_t tokens = 0;        // found equal
  int64_t ties = 0;          // streams that part where two tokens were as good as each other
  int64_t not_compared = 0;  // streams behind one whose end is not known
  std::vector<Difference> differences;
};

// What a load has measured. Latencies count from the scheduled time, whenever the request went out;
// those behind the first event leave out slow readers, whose pauses are their own.
struct LoadReport {
  LoadOptions options;
  std::string model, backend, server_version;
  bool interrupted = false;
  double elapsed_s = 0;  // from the start to the end of the last request

  int64_t arrivals = 0;  // dropped ones included
  int64_t dropped = 0;   // by this client: max_in_flight were under way
  int64_t retries = 0;
  std::map<std::string, CallCounts> calls;    // by the call's name
  std::map<std::string, int64_t> unexpected;  // descriptions of failures, with their number

  Histogram start_lag;       // of arrivals: how late this client was
  Histogram first_token;     // of every Generate that gave one
  Histogram between_tokens;  // each gap
  Histogram generate;        // to the end of those that ended with OK
  Histogram first_progress;  // of every Append that gave one
  Histogram append;          // to the end of those that ended with OK
  int64_t tokens_in = 0;     // that the server has acknowledged
  int64_t tokens_out = 0;

  CheckReport check;

  bool ok() const { return unexpected.empty() && check.differences.empty(); }
};

const char* NameOf(Scenario scenario);

// A table for people.
std::string ReportText(const LoadReport& report);

// One JSON object, with latencies in milliseconds.
std::string ReportJson(const LoadReport& report);

}  // namespace mneme

#endif  // MNEME_LOADTEST_REPORT_H_
