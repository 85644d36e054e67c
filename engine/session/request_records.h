#ifndef MNEME_ENGINE_SESSION_REQUEST_RECORDS_H_
#define MNEME_ENGINE_SESSION_REQUEST_RECORDS_H_

// What a session remembers of its requests, so that a retry is recognised (DESIGN §2.6).

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"

namespace mneme {

// Probabilities that were sent with a generated token.
struct RecordedLogProbs {
  float logprob = 0;
  std::vector<TokenLogProb> top;
};

struct RequestRecord {
  std::string id;
  RequestKind kind = RequestKind::kAppend;
  uint64_t payload_hash = 0;  // of the options and, for Generate, the input's token ids
  // Where the session stood when the request began.
  int64_t begin_position = 0;
  uint64_t begin_version = 0;
  std::optional<int64_t> begin_open_turn;
  // What it has logged: [begin_position, end_position), of which Generate's input comes first.
  int64_t input_tokens = 0;
  int64_t end_position = 0;
  uint64_t seed = 0;
  std::vector<float> append_logprobs;                // if asked for, of each appended token
  std::vector<RecordedLogProbs> generated_logprobs;  // if asked for, of each generated token
  std::optional<Finished> finished;                  // Generate that came to its end
  bool complete = false;                             // Append whose input ended
};

// The last records of one session. One thread.
class RequestRecords {
 public:
  static constexpr size_t kMaxRecords = 1024;

  // Null if `id` is not known (any more).
  std::shared_ptr<RequestRecord> Find(const std::string& id) const;
  // Adds a record, forgetting the oldest beyond kMaxRecords.
  void Add(std::shared_ptr<RequestRecord> record);
  // Whether `record` itself is here.
  bool Holds(const RequestRecord& record) const { return Find(record.id).get() == &record; }
  // Forgets those that logged anything behind `position`.
  void ForgetBehind(int64_t position);
  int64_t size_bytes() const;

 private:
  std::vector<std::shared_ptr<RequestRecord>> records_;  // oldest first
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_REQUEST_RECORDS_H_
