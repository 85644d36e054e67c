#ifndef MNEME_ENGINE_JOBS_JOB_H_
#define MNEME_ENGINE_JOBS_JOB_H_

// An accepted request on its way through the engine: it offers rows to the scheduler, takes part in
// steps, and ends with exactly one terminal status. Engine thread only.

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/channel.h"
#include "engine/clock.h"
#include "engine/durability/checkpointer.h"
#include "engine/durability/session_log.h"
#include "engine/engine_options.h"
#include "engine/loading/config.h"
#include "engine/request.h"
#include "engine/sampling/sampler.h"
#include "engine/scheduling/plan.h"
#include "engine/session/request_records.h"
#include "engine/session/sequence_step.h"
#include "engine/session/session.h"
#include "engine/stats.h"
#include "engine/tiers/session_tiers.h"
#include "engine/tokenizer/tokenizer.h"

namespace mneme {

// What jobs share; outlives them.
struct JobContext {
  const ModelConfig& config;
  const GenerationDefaults& defaults;
  const EngineOptions& options;
  const Tokenizer* tokenizer;  // null: none
  const Clock& clock;
  StatsSink& stats;
  std::mt19937_64 seeds;           // for requests that bring none
  uint64_t model_fingerprint = 0;  // equal where computed states may be exchanged
  // The loop's, which sets them.
  SessionLog* log = nullptr;
  SessionTiers* tiers = nullptr;
  Checkpointer* checkpointer = nullptr;
};

class Job {
 public:
  // `keeps_record`: a retry of it is to be recognised.
  Job(RequestKind kind, RequestHeader header, bool keeps_record,
      std::shared_ptr<RequestChannel> channel, Session& session, JobContext& context,
      uint64_t arrival);
  virtual ~Job() = default;

  const RequestHeader& header() const { return header_; }
  RequestChannel& channel() { return *channel_; }
  Session& session() const { return session_; }
  uint64_t arrival() const { return arrival_; }
  bool done() const { return done_; }
  // Bytes are reserved for it beyond what its session holds.
  bool holds_lease() const {
    return session_.cache().reserved_bytes() > session_.cache().held_bytes();
  }

  // It has been the first of its session's queue.
  bool begun() const { return begun_; }
  // It could take part in the step, but waits for memory, or for its turn to begin.
  bool waits() const { return waits_; }
  void set_waits(bool waits) { waits_ = waits; }

  // It waits for its client and has no lease, as between two pieces of input: its session may leave
  // the device.
  bool idle() const { return waits_for_client_ && logs() && !holds_lease(); }

  // Whether what it computes is logged.
  virtual bool logs() const = 0;
  // Whether it only brings its session back, for others.
  virtual bool restores() const { return false; }
  // Input that has come and is not computed yet.
  virtual int64_t pending_tokens() const = 0;
  // For a request that has not begun: RESOURCE_EXHAUSTED or OUT_OF_RANGE if it could not be served
  // even alone, as its session is now.
  virtual absl::Status CheckEverFits() const { return absl::OkStatus(); }

  // Why the request must end now, if it must: cancelled, or interruption_time has come.
  absl::Status Interruption(absl::Time now) const;
  // Its deadline, or when its client's time to read is over.
  absl::Time interruption_time() const;

  // What it could do next; nothing while it waits for input or for its reader. The first call comes
  // when the request is at the head of its session's queue and the session on the device, later
  // ones also while an idle() one's is not. May find that it is done. Any error ends the request.
  absl::StatusOr<std::optional<Candidate>> Next();
  // Reserves what `rows` rows may take; false if the memory is not there now, or would have to be
  // more than it has and may not be. RESOURCE_EXHAUSTED if it never will be there.
  absl::StatusOr<bool> Reserve(int64_t rows, bool may_grow);
  // What the last Reserve found missing.
  int64_t missing_bytes() const { return missing_bytes_; }
  // The next `rows` rows, with room in the cache for them.
  SequenceStep MakeStep(int64_t rows, uint64_t step_number);
  // Takes what came of them.
  absl::Status Commit(SequenceStep& step);

  // Sends the terminal status, with the session's position, and gives back what was leased. Once.
  void End(const absl::Status& status);

 protected:
  virtual absl::Status Begin() = 0;
  // Asked only while the client reads.
  virtual absl::StatusOr<std::optional<Candidate>> NextRows() = 0;
  // Waiting updates that its next step applies in any case.
  virtual int64_t UpdatesFirst() const { return 0; }
  virtual BlockCounts PeakBlocks(int64_t rows) const = 0;
  virtual SequenceStep FillStep(int64_t rows) = 0;
  virtual absl::Status TakeResults(SequenceStep& step) = 0;
  // Sends what was held back.
  virtual void BeforeEnd() {}

  // Finds this request's record, or starts one; compares preconditions with where the request began
  // (a retry: with where it began the first time). INVALID_ARGUMENT, ABORTED.
  absl::Status OpenRecord(uint64_t payload_hash);
  // Tells the client, once the log has what has led to it.
  void Send(RequestEvent event) { context_.log->Send(session_, channel_, std::move(event)); }
  // Logs `tokens` as part of this request.
  void Log(absl::Span<const int32_t> tokens);
  // OK if the budget could ever hold `blocks`; else RESOURCE_EXHAUSTED, not retryable.
  absl::Status CheckFits(const BlockCounts& blocks) const;
  int64_t context_limit() const { return context_.config.MaxSessionTokens(); }
  void set_done() { done_ = true; }

  const RequestKind kind_;
  const RequestHeader header_;
  const std::shared_ptr<RequestChannel> channel_;
  Session& session_;
  JobContext& context_;
  const absl::Time arrival_time_;
  std::shared_ptr<RequestRecord> record_;

 private:
  absl::Status CheckPreconditions() const;
  absl::Time ReadingEnds() const;  // infinite unless its client has stopped reading

  const bool keeps_record_;
  const uint64_t arrival_;
  bool begun_ = false;
  bool waits_ = false;
  bool waits_for_client_ = false;  // the last Next gave nothing
  bool done_ = false;
  bool recorded_ = false;  // the session knows record_
  uint64_t last_step_ = 0;
  int64_t missing_bytes_ = 0;
  std::optional<absl::Time> unread_since_;  // the client's queue of events is full
};

// INVALID_ARGUMENT with reason kInvalidInput.
absl::Status InvalidInput(const std::string& message);

// A stable 64-bit hash of a request's payload, kept to recognise a retry.
uint64_t HashPayload(const std::string& canonical);

}  // namespace mneme

#endif  // MNEME_ENGINE_JOBS_JOB_H_
