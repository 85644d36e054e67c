#include "storage/session_state.h"

#include <xxhash.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/coding.h"

namespace mneme {
namespace {

template <typename... T>
absl::Status Impossible(const T&... what) {
  return absl::DataLossError(absl::StrCat("the log holds an impossible event: ", what...));
}

// Applies one event to a state.
struct Applier {
  SessionState& state;

  absl::Status operator()(TokensLogged& event) const {
    std::vector<int32_t>& tokens = state.tokens;
    tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
    return absl::OkStatus();
  }

  absl::Status operator()(ControlsSet& event) const {
    const int64_t last = state.controls.empty() ? 0 : state.controls.back().position;
    if (event.position < last || event.position > state.position()) {
      return Impossible("controls at ", event.position, " of ", state.position());
    }
    if (!state.controls.empty() && last == event.position) state.controls.pop_back();
    state.controls.push_back(event);
    return absl::OkStatus();
  }

  absl::Status operator()(UpdateApplied& event) const {
    const int64_t last = state.updates.empty() ? 0 : state.updates.back().position;
    if (event.position < last || event.position > state.position() || event.chunk < 0) {
      return Impossible("chunk ", event.chunk, " applied at ", event.position);
    }
    state.updates.push_back(event);
    return absl::OkStatus();
  }

  absl::Status operator()(OpenTurnSet& event) const {
    if (event.open_turn && (*event.open_turn < 0 || *event.open_turn > state.position())) {
      return Impossible("a turn open since ", *event.open_turn);
    }
    state.open_turn = event.open_turn;
    return absl::OkStatus();
  }

  absl::Status operator()(RequestRecorded& event) const {
    const StoredRequest& request = event.request;
    if (request.begin_position < 0 || request.begin_position > request.end_position ||
        request.end_position > state.position()) {
      return Impossible("a request from ", request.begin_position, " to ", request.end_position);
    }
    if (StoredRequest* known = Find(request.id)) {
      *known = std::move(event.request);
      return absl::OkStatus();
    }
    state.requests.push_back(std::move(event.request));
    if (state.requests.size() > SessionState::kMaxRequests) state.requests.pop_front();
    return absl::OkStatus();
  }

  absl::Status operator()(RequestAdvanced& event) const {
    StoredRequest* request = Find(event.id);
    if (request == nullptr) return Impossible("an unknown request goes on");
    if (event.end_position < request->end_position || event.end_position > state.position()) {
      return Impossible("a request ends at ", event.end_position);
    }
    request->end_position = event.end_position;
    request->append_logprobs.insert(request->append_logprobs.end(), event.append_logprobs.begin(),
                                    event.append_logprobs.end());
    std::move(event.generated_logprobs.begin(), event.generated_logprobs.end(),
              std::back_inserter(request->generated_logprobs));
    if (event.finish) request->finish = std::move(event.finish);
    request->complete = request->complete || event.complete;
    return absl::OkStatus();
  }

  absl::Status operator()(RolledBack& event) const {
    if (event.position < 0 || event.position > state.position()) {
      return Impossible("a rollback to ", event.position, " of ", state.position());
    }
    const auto behind = [&event](const auto& entry) { return entry.position > event.position; };
    state.tokens.resize(static_cast<size_t>(event.position));
    std::erase_if(state.controls, behind);
    std::erase_if(state.updates, behind);
    std::erase_if(state.requests, [&event](const StoredRequest& request) {
      return request.end_position > event.position;
    });
    if (state.open_turn.value_or(0) > event.position) state.open_turn.reset();
    state.epoch = event.epoch;
    return absl::OkStatus();
  }

  // The newest are asked for most.
  StoredRequest* Find(const std::string& id) const {
    const auto found =
        std::find_if(state.requests.rbegin(), state.requests.rend(),
                     [&id](const StoredRequest& request) { return request.id == id; });
    return found == state.requests.rend() ? nullptr : &*found;
  }
};

}  // namespace

absl::Status SessionState::Apply(SessionEvent event) { return std::visit(Applier{*this}, event); }

std::vector<SessionEvent> SessionState::ToEvents() const {
  std::vector<SessionEvent> events;
  events.emplace_back(RolledBack{.position = 0, .epoch = epoch});
  events.emplace_back(TokensLogged{tokens});
  for (const ControlsSet& entry : controls) events.emplace_back(entry);
  for (const UpdateApplied& entry : updates) events.emplace_back(entry);
  events.emplace_back(OpenTurnSet{open_turn});
  for (const StoredRequest& request : requests) events.emplace_back(RequestRecorded{request});
  return events;
}

uint64_t LogHash(absl::Span<const int32_t> tokens, absl::Span<const UpdateApplied> updates) {
  ByteWriter applied;
  for (const UpdateApplied& update : updates) {
    applied.Fixed(update.chunk);
    applied.Fixed(update.position);
  }
  const uint64_t seed = XXH3_64bits(applied.bytes().data(), applied.bytes().size());
  return XXH3_64bits_withSeed(tokens.data(), tokens.size() * sizeof(int32_t), seed);
}

uint64_t ControlsFingerprint(absl::Span<const ControlsSet> controls, int64_t position) {
  ByteWriter governing;
  for (const ControlsSet& entry : controls) {
    if (entry.position >= position) break;
    governing.Fixed(entry.position);
    governing.Fixed(entry.controls.max_lag_chunks);
    governing.Fixed(entry.controls.clip_norm);
    governing.Fixed(entry.controls.decay);
    governing.Fixed(entry.controls.lr_scale);
    governing.Fixed(entry.controls.max_relative_norm);
    governing.Bool(entry.controls.freeze);
  }
  return XXH3_64bits(governing.bytes().data(), governing.bytes().size());
}

}  // namespace mneme
