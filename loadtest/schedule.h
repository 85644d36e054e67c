#ifndef MNEME_LOADTEST_SCHEDULE_H_
#define MNEME_LOADTEST_SCHEDULE_H_

// The load, decided before it begins: a pure function of the options. What the server does never
// changes what is asked of it, nor when a session arrives.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "loadtest/options.h"

namespace mneme {

// One Generate, or one Append of a document.
struct RequestPlan {
  int64_t think_us = 0;  // after the end of the session's request before
  int64_t input_tokens = 1;
  int64_t output_tokens = 0;  // 0: an Append

  // Give up after so many events (Generate) or messages (Append); absent: read to the end.
  std::optional<int64_t> cancel_after;
  bool cancel_by_call = false;  // with the call Cancel; otherwise the stream is broken off
  bool slow_reader = false;     // pauses after each event

  bool operator==(const RequestPlan&) const = default;
};

// A session that begins at `at_us` after the start of the load.
struct Arrival {
  int64_t at_us = 0;
  uint64_t seed = 0;  // of its inputs and of sampling
  bool is_document = false;
  bool checked = false;               // greedy, and compared with the session alone afterwards
  std::vector<RequestPlan> requests;  // one after the other; of a document one

  bool operator==(const Arrival&) const = default;
};

// Poisson arrivals, ascending in time.
std::vector<Arrival> MakeSchedule(const LoadOptions& options);

// The input of the request `index` of an arrival: uniform token ids below `vocab_size`...
std::vector<uint32_t> InputIds(const Arrival& arrival, size_t index, uint32_t vocab_size);

// ...or as many words.
std::string InputText(const Arrival& arrival, size_t index);

}  // namespace mneme

#endif  // MNEME_LOADTEST_SCHEDULE_H_
