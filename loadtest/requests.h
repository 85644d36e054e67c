#ifndef MNEME_LOADTEST_REQUESTS_H_
#define MNEME_LOADTEST_REQUESTS_H_

// The messages that a plan stands for; the load and the replay of a session alone send the same.

#include <cstdint>
#include <string>
#include <vector>

#include "loadtest/options.h"
#include "loadtest/schedule.h"
#include "mneme/v1/inference.pb.h"

namespace mneme {

// Turn `index` of a chat session: greedy if the session is checked, else drawn from a seed. Never
// ends before its `output_tokens`.
v1::GenerateRequest MakeGenerate(const LoadOptions& options, const Arrival& arrival, size_t index,
                                 uint32_t vocab_size, const std::string& session_id);

// A document, cut into messages of at most `options.piece_tokens`.
std::vector<v1::AppendRequest> MakeAppend(const LoadOptions& options, const Arrival& arrival,
                                          uint32_t vocab_size, const std::string& session_id);

// The id that the request `index` of a session carries.
std::string RequestId(const std::string& session_id, size_t index);

}  // namespace mneme

#endif  // MNEME_LOADTEST_REQUESTS_H_
