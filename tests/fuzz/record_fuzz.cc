// Any bytes as a record of the session log, behind one that is valid: refused, or what it leads to
// is consistent and survives being written and read again.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "storage/checkpoint.h"
#include "storage/session_coding.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using mneme::SessionState;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  static_cast<void>(mneme::DecodeMetadata(bytes));
  static_cast<void>(mneme::DecodeCheckpointInfo(bytes));
  SessionState state;
  MNEME_CHECK(state.Apply(mneme::TokensLogged{{1, 2, 3}}).ok());
  const auto head = mneme::ApplyLogRecord(bytes, &state);
  if (!head.ok()) return 0;
  MNEME_CHECK(state.tokens.size() * sizeof(int32_t) <= size + 3 * sizeof(int32_t));
  const std::string whole = mneme::EncodeLogRecord(
      {.epoch = state.epoch, .position = state.position(), .time = head->time, .whole = true},
      state.ToEvents());
  SessionState again;
  MNEME_CHECK(mneme::ApplyLogRecord(whole, &again).ok());
  MNEME_CHECK(again.tokens == state.tokens && again.requests.size() == state.requests.size());
  MNEME_CHECK(mneme::LogHash(again.tokens, again.updates) ==
              mneme::LogHash(state.tokens, state.updates));
  return 0;
}
