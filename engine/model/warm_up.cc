#include "engine/model/warm_up.h"

#include <algorithm>
#include <bit>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "engine/session/computed_state.h"
#include "engine/session/control_log.h"

namespace mneme {
namespace {

// The next smaller number of rows to prefill; 0 below 16, where steps are like those of decoding.
int64_t NextSmaller(int64_t rows) {
  return rows <= 16 ? 0 : static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows - 1)));
}

// Sessions whose updates are computed together.
constexpr int64_t kUpdatingSessions = 4;

// A session that reads token 0 and draws a token in each step.
class IdleReader {
 public:
  IdleReader(CachePools& pools, int64_t max_step_tokens)
      : max_step_tokens_(max_step_tokens), state_(pools) {}

  int64_t position() const { return state_.computed(); }

  // Memory for `tokens` more; false if there is not so much.
  bool Reserve(int64_t tokens) {
    const int64_t end = position() + tokens;
    return Reserve(end, end);
  }
  // Likewise, for a row that leaves no trace.
  bool ReserveProbe() { return Reserve(position(), position() + 1); }

  // Its part in a step: the updates that wait, if `learns`, and `rows` tokens.
  SequenceStep Step(int64_t rows, bool learns, bool provisional = false) {
    SequenceStep step;
    step.controls = &controls_;
    step.tokens.assign(static_cast<size_t>(rows), 0);
    step.first_position = position();
    step.provisional = provisional;
    step.last_hidden = state_.last_hidden();
    if (rows > 0) step.sample = SampleRow{.params = &greedy_, .position = 0};
    state_.Prepare(step, learns ? state_.waiting_updates() : 0);
    return step;
  }
  void Commit(SequenceStep& step) { state_.Commit(step); }
  void Reset() { state_.Reset(); }

 private:
  bool Reserve(int64_t logged_end, int64_t provisional_end) {
    SessionCache& cache = state_.cache();
    return cache.Reserve(
        cache.PeakBlocks(position(), logged_end, provisional_end, max_step_tokens_, 0));
  }

  const int64_t max_step_tokens_;
  const ControlLog controls_{LearningControls()};
  const SamplingParams greedy_{.temperature = 0};
  ComputedState state_;
};

// Runs prefill and updates on pools of its own.
class Prefill {
 public:
  Prefill(Model& model, CachePools& pools, const CacheOptions& limits)
      : model_(model), pools_(pools), max_step_tokens_(limits.max_step_tokens) {}

  // A step of `rows` tokens, if there is memory for it.
  absl::Status RunStep(int64_t rows) {
    IdleReader reader(pools_, max_step_tokens_);
    if (!reader.Reserve(rows)) return absl::OkStatus();
    return Run({&reader}, rows, /*learn=*/false);
  }

  // Sessions read a chunk each, and then learn all at once; then fewer of them the next chunk, in
  // which they have a ΔW. A session's context takes `chunks` chunks.
  absl::Status RunUpdates(int64_t chunk, int64_t chunks) {
    std::deque<IdleReader> readers;
    for (int64_t count = kUpdatingSessions; count > 0 && chunks > 0; count /= 2, --chunks) {
      std::vector<IdleReader*> together;
      for (int64_t i = 0; i < count; ++i) {
        if (i == std::ssize(readers)) readers.emplace_back(pools_, max_step_tokens_);
        IdleReader& reader = readers[static_cast<size_t>(i)];
        if (!reader.Reserve(chunk)) break;
        MNEME_RETURN_IF_ERROR(Read(reader, chunk));
        together.push_back(&reader);
      }
      MNEME_RETURN_IF_ERROR(Run(together, /*rows=*/0, /*learn=*/true));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Read(IdleReader& reader, int64_t tokens) {
    const int64_t end = reader.position() + tokens;
    while (reader.position() < end) {
      const int64_t rows = std::min(max_step_tokens_, end - reader.position());
      MNEME_RETURN_IF_ERROR(Run({&reader}, rows, /*learn=*/false));
    }
    return absl::OkStatus();
  }

  absl::Status Run(const std::vector<IdleReader*>& readers, int64_t rows, bool learn) {
    if (readers.empty()) return absl::OkStatus();
    std::vector<SequenceStep> steps;
    for (IdleReader* reader : readers) steps.push_back(reader->Step(rows, learn));
    MNEME_RETURN_IF_ERROR(model_.Run(pools_, absl::MakeSpan(steps)).status());
    for (size_t i = 0; i < readers.size(); ++i) readers[i]->Commit(steps[i]);
    return absl::OkStatus();
  }

  Model& model_;
  CachePools& pools_;
  const int64_t max_step_tokens_;
};

}  // namespace

absl::Status WarmUpPrefill(const ModelConfig& config, Backend& backend, Model& model,
                           const CacheOptions& limits) {
  if (backend.commits_on_touch()) return absl::OkStatus();
  const int64_t chunk = config.ttt ? config.ttt->chunk : 0;
  const int64_t context = config.MaxSessionTokens();
  const int64_t longest = std::min(limits.max_step_tokens, context);
  CacheOptions options = limits;
  options.session_tokens = std::min(std::max(longest, 3 * chunk), context);
  const int64_t session_bytes =
      CachePools::SessionBytes(config, backend, options.session_tokens, limits.max_step_tokens);
  // The other half is for the scratch memory.
  options.limit_bytes = std::min(limits.limit_bytes / 2, kUpdatingSessions * session_bytes);
  const auto pools = CachePools::Create(config, backend, options);
  // There is too little memory for a session: that is said when the sessions' pools are made.
  if (absl::IsResourceExhausted(pools.status())) return absl::OkStatus();
  MNEME_RETURN_IF_ERROR(pools.status());
  Prefill prefill(model, **pools, options);
  // The largest first: scratch memory then need not grow.
  for (int64_t rows = longest; rows > 0; rows = NextSmaller(rows)) {
    MNEME_RETURN_IF_ERROR(prefill.RunStep(rows));
  }
  return chunk == 0 ? absl::OkStatus() : prefill.RunUpdates(chunk, context / chunk);
}

absl::Status WarmUpDecode(const Backend& backend, Model& model, CachePools& pools,
                          int64_t max_step_tokens) {
  if (backend.commits_on_touch()) return absl::OkStatus();
  const int64_t most = std::min(max_step_tokens, Model::kLogitRows);
  std::deque<IdleReader> readers;
  for (int64_t rows = 1; rows <= most; ++rows) {
    const int64_t padded = backend.RepeatableRows(rows);
    if (padded == 0 || padded > most) break;
    while (std::ssize(readers) < padded) {
      if (readers.emplace_back(pools, max_step_tokens).ReserveProbe()) continue;
      return absl::OkStatus();  // so many sessions there cannot be
    }
    // A backend may run the first step of its kind as it is, and record the second.
    for (int time = 0; time < 2; ++time) {
      std::vector<SequenceStep> steps;
      for (int64_t i = 0; i < padded; ++i) {
        steps.push_back(readers[static_cast<size_t>(i)].Step(1, false, /*provisional=*/true));
      }
      MNEME_RETURN_IF_ERROR(model.Run(pools, absl::MakeSpan(steps)).status());
    }
    rows = padded;
  }
  return absl::OkStatus();
}

}  // namespace mneme
